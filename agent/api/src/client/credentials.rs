//! Who a user is at which registry: `~/.docker/config.json` and the helpers it names, read and written as Docker's command
//! line does, so that both can be used in turn.
//!
//! ```text
//! credHelpers.<registry> ─┐ else                  docker-credential-<name> get|store|erase
//! credsStore ─────────────┴─▶ a helper  ────────▶ server or JSON on stdin, JSON on stdout
//! auths.<registry>.auth      base64 of user:password, where there is no helper
//! auths.<registry>.identitytoken   stands for the password at the registry's token service
//! ```
//!
//! Must not: log a secret, or show one in an error. Source: docker/cli `cli/config`, docker/docker-credential-helpers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{RegistryAuth, WholeFile};

/// The key of Docker Hub.
pub const HUB: &str = "https://index.docker.io/v1/";
/// Time for a helper, which may ask its user to unlock something.
const HELPER_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a helper's answer.
const ANSWER_MAX: u64 = 1 << 20;
/// The user name under which helpers keep an identity token.
const TOKEN_USER: &str = "<token>";

/// Credentials cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// `config.json`.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("cannot read {}: {reason}", path.display())]
    Malformed {
        /// `config.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// `config.json`.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A helper failed.
    #[error("credential helper {program} ({verb}): {reason}")]
    Helper {
        /// `docker-credential-<name>`.
        program: String,
        /// `get`, `store` or `erase`.
        verb: &'static str,
        /// What it says, or why it could not be run.
        reason: String,
    },
}

type Result<T> = std::result::Result<T, CredentialsError>;

/// A user of a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Key of the registry: `host[:port]`, or [`HUB`].
    pub server: String,
    /// Name.
    pub username: String,
    /// Password or access token; empty with an identity token.
    pub password: String,
    /// Stands for the password at the token service.
    pub identity_token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} at {})", self.username, self.server)
    }
}

impl Login {
    /// As the Engine API takes it, in `X-Registry-Auth` and the body of `/auth`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (name, value) in [
            ("username", &self.username),
            ("password", &self.password),
            ("serveraddress", &self.server),
            ("identitytoken", &self.identity_token),
        ] {
            if !value.is_empty() {
                object.insert(name.to_owned(), value.as_str().into());
            }
        }
        Value::Object(object)
    }

    /// As the header `X-Registry-Auth` carries it.
    #[must_use]
    pub fn to_header(&self) -> RegistryAuth {
        RegistryAuth(URL_SAFE.encode(self.to_json().to_string()))
    }
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// With a helper.
    ByHelper,
    /// In the file, readable by whoever can read it; whether they are new there.
    Plainly {
        /// `config.json`.
        path: PathBuf,
    },
}

/// `config.json`. What is not about credentials is kept as it is.
#[derive(Clone)]
pub struct ConfigFile {
    path: PathBuf,
    document: Map<String, Value>,
    /// The store that Docker uses where none is configured and this one is installed.
    found_store: Option<String>,
}

impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigFile({})", self.path.display())
    }
}

impl ConfigFile {
    /// The file of the environment: `$DOCKER_CONFIG/config.json`, else `$HOME/.docker/config.json`. One that is not there
    /// is empty.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON object.
    pub fn load() -> Result<Self> {
        let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let directory = given("DOCKER_CONFIG").map(PathBuf::from);
        let home = || PathBuf::from(given("HOME").unwrap_or_else(|| "/".into())).join(".docker");
        let mut file = Self::read(&directory.unwrap_or_else(home).join("config.json"))?;
        if !file.mentions_credentials() {
            let path = given("PATH").unwrap_or_default();
            let installed = |program: &str| {
                std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
            };
            let store = match installed("pass") {
                true => "pass",
                false => "secretservice",
            };
            file.found_store = installed(&program(store)).then(|| store.to_owned());
        }
        Ok(file)
    }

    /// The file at `path`. One that is not there is empty.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(CredentialsError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let document = match text.trim_ascii().is_empty() {
            true => Map::new(),
            false => {
                serde_json::from_slice(&text).map_err(|error| CredentialsError::Malformed {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?
            }
        };
        Ok(Self {
            path: path.to_owned(),
            document,
            found_store: None,
        })
    }

    /// The credentials for the registry of an image, as a request carries them; `None`: nobody has logged in there.
    ///
    /// # Errors
    /// The helper fails, or the entry is malformed.
    pub async fn for_image(&self, image: &str) -> Result<Option<RegistryAuth>> {
        Ok(self
            .get(&server_of(image))
            .await?
            .map(|login| login.to_header()))
    }

    /// The credentials for a registry by its key (see [`server_of`]).
    ///
    /// # Errors
    /// The helper fails, or the entry is malformed.
    pub async fn get(&self, server: &str) -> Result<Option<Login>> {
        match self.helper(server) {
            Some(helper) => ask_helper(&helper, server).await,
            None => self.plain(server),
        }
    }

    /// Keeps credentials, with the helper that is meant for them or in the file.
    ///
    /// # Errors
    /// The helper fails, or the file cannot be written.
    pub async fn keep(&mut self, login: &Login) -> Result<Kept> {
        let helper = self.helper(&login.server);
        let mut entry = Map::new();
        match &helper {
            Some(helper) => {
                let (user, secret) = match login.identity_token.is_empty() {
                    true => (login.username.as_str(), &login.password),
                    false => (TOKEN_USER, &login.identity_token),
                };
                let told = json!({ "ServerURL": login.server, "Username": user, "Secret": secret });
                run_helper(helper, "store", told.to_string()).await?;
            }
            None => {
                let pair = format!("{}:{}", login.username, login.password);
                entry.insert("auth".to_owned(), STANDARD.encode(pair).into());
                if !login.identity_token.is_empty() {
                    let token = login.identity_token.as_str().into();
                    entry.insert("identitytoken".to_owned(), token);
                }
            }
        }
        let mut auths = self.object("auths").cloned().unwrap_or_default();
        auths.insert(login.server.clone(), Value::Object(entry));
        self.set_auths(auths);
        if let (Some(store), None) = (self.found_store.take(), self.document.get("credsStore")) {
            self.document.insert("credsStore".to_owned(), store.into());
        }
        self.write()?;
        Ok(match helper {
            Some(_) => Kept::ByHelper,
            None => Kept::Plainly {
                path: self.path.clone(),
            },
        })
    }

    /// Forgets the credentials for a registry.
    ///
    /// # Errors
    /// The helper fails, or the file cannot be written.
    pub async fn forget(&mut self, server: &str) -> Result<()> {
        if let Some(helper) = self.helper(server) {
            match run_helper(&helper, "erase", server.to_owned()).await {
                Err(CredentialsError::Helper { reason, .. }) if is_not_found(&reason) => {}
                outcome => drop(outcome?),
            }
        }
        let mut auths = self.object("auths").cloned().unwrap_or_default();
        if auths.remove(server).is_some() {
            self.set_auths(auths);
            self.write()?;
        }
        Ok(())
    }

    fn plain(&self, server: &str) -> Result<Option<Login>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Auth {
            auth: String,
            username: String,
            password: String,
            identitytoken: String,
        }
        let Some(auths) = self.object("auths") else {
            return Ok(None);
        };
        let found = auths.get(server).or_else(|| {
            let mut others = auths.iter();
            others
                .find(|(key, _)| hostname(key) == server)
                .map(|(_, auth)| auth)
        });
        let Some(found) = found else {
            return Ok(None);
        };
        let bad = |reason: &str| CredentialsError::Malformed {
            path: self.path.clone(),
            reason: format!("the entry of {server} {reason}: log in again"),
        };
        let auth = Auth::deserialize(found).map_err(|_| bad("is malformed"))?;
        let mut login = Login {
            server: server.to_owned(),
            username: auth.username,
            password: auth.password,
            identity_token: auth.identitytoken,
        };
        if !auth.auth.is_empty() {
            let plain = STANDARD.decode(auth.auth.trim());
            let plain = plain.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let plain = plain.ok_or_else(|| bad("is not base64 of user:password"))?;
            let (user, password) = plain
                .split_once(':')
                .ok_or_else(|| bad("is not base64 of user:password"))?;
            user.clone_into(&mut login.username);
            password
                .trim_end_matches('\0')
                .clone_into(&mut login.password);
        }
        let nobody = login.username.is_empty() && login.identity_token.is_empty();
        Ok((!nobody).then_some(login))
    }

    /// The helper that has the credentials of a registry.
    fn helper(&self, server: &str) -> Option<String> {
        let special = self.object("credHelpers").and_then(|helpers| {
            let name = helpers
                .get(server)
                .or_else(|| helpers.get(hostname(server)));
            name?.as_str().filter(|name| !name.is_empty())
        });
        special.map(str::to_owned).or_else(|| self.store_name())
    }

    fn store_name(&self) -> Option<String> {
        let named = self.document.get("credsStore").and_then(Value::as_str);
        let named = named.filter(|name| !name.is_empty()).map(str::to_owned);
        named.or_else(|| self.found_store.clone())
    }

    fn mentions_credentials(&self) -> bool {
        let filled = |name| self.object(name).is_some_and(|object| !object.is_empty());
        filled("auths") || filled("credHelpers") || self.store_name().is_some()
    }

    fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.document.get(name)?.as_object()
    }

    /// Sorted, and the first thing in the file, as Docker writes it.
    fn set_auths(&mut self, auths: Map<String, Value>) {
        let sorted: BTreeMap<String, Value> = auths.into_iter().collect();
        let mut document = Map::new();
        document.insert("auths".to_owned(), sorted.into_iter().collect());
        let others = std::mem::take(&mut self.document);
        document.extend(others.into_iter().filter(|(name, _)| name != "auths"));
        self.document = document;
    }

    /// Whole or not at all; where the file is a link, what it points to is replaced.
    fn write(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |source| CredentialsError::Write {
            path: path.clone(),
            source,
        };
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, tabs);
        serde::Serialize::serialize(&self.document, &mut writer)
            .expect("what was JSON has a JSON form");
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        let written = WholeFile::create(&path, 0o600).and_then(|mut whole| {
            io::Write::write_all(&mut whole, &text)?;
            whole.file().sync_all()?;
            whole.finish()
        });
        written.map_err(failed)
    }
}

/// The key of the registry an image comes from.
#[must_use]
pub fn server_of(image: &str) -> String {
    registry_of(image).map_or_else(|| HUB.to_owned(), key_of)
}

/// The registry that the name of an image begins with; none when it is Docker Hub's. A first part with a capital letter
/// is a registry, too: repositories have none. Source: distribution/reference `splitDockerDomain`.
#[must_use]
pub fn registry_of(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    let named = host.contains(['.', ':'])
        || host == "localhost"
        || host.chars().any(|letter| letter.is_uppercase());
    named.then_some(host)
}

/// The key of a registry, whose address a user typed: a URL, a host, or nothing for Docker Hub.
#[must_use]
pub fn key_of(address: &str) -> String {
    match hostname(address) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// `https://host:5000/v1/` → `host:5000`
#[must_use]
pub fn hostname(address: &str) -> &str {
    let plain = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    plain.split('/').next().unwrap_or(plain)
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

fn failed(helper: &str, verb: &'static str, reason: String) -> CredentialsError {
    CredentialsError::Helper {
        program: program(helper),
        verb,
        reason,
    }
}

fn is_not_found(reason: &str) -> bool {
    reason.contains("credentials not found in native keychain")
}

async fn ask_helper(helper: &str, server: &str) -> Result<Option<Login>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let answer = match run_helper(helper, "get", server.to_owned()).await {
        Ok(answer) => answer,
        Err(CredentialsError::Helper { reason, .. }) if is_not_found(&reason) => return Ok(None),
        Err(error) => return Err(error),
    };
    // What it says may hold the secret, so only the position of a mistake is told.
    let answer: Answer = serde_json::from_str(&answer).map_err(|error| {
        let reason = format!("its answer is malformed at column {}", error.column());
        failed(helper, "get", reason)
    })?;
    let mut login = Login {
        server: server.to_owned(),
        ..Login::default()
    };
    if answer.username == TOKEN_USER {
        login.identity_token = answer.secret;
    } else {
        (login.username, login.password) = (answer.username, answer.secret);
    }
    Ok(Some(login))
}

/// Runs a helper to its end. Helpers say what went wrong on stdout.
async fn run_helper(helper: &str, verb: &'static str, input: String) -> Result<String> {
    let bad = |reason: String| failed(helper, verb, reason);
    if helper.contains('/') {
        return Err(bad("a helper is named, not given by its path".to_owned()));
    }
    let mut child = Command::new(program(helper))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| bad(error.to_string()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, stdout) = (stdin.expect("it is piped"), stdout.expect("it is piped"));
    let conversation = async {
        let write = async {
            // One that does not read its input may have ended already.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let mut answer = String::new();
        let mut limited = stdout.take(ANSWER_MAX);
        let read = limited.read_to_string(&mut answer);
        let ((), read) = tokio::join!(write, read);
        read?;
        io::Result::Ok((answer, child.wait().await?))
    };
    let (answer, status) = tokio::time::timeout(HELPER_LIMIT, conversation)
        .await
        .map_err(|_| bad(format!("no answer for {} s", HELPER_LIMIT.as_secs())))?
        .map_err(|error| bad(error.to_string()))?;
    match status.success() {
        true => Ok(answer),
        false => Err(bad(match answer.trim() {
            "" => status.to_string(),
            said => said.to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn temporary(name: &str) -> PathBuf {
        let name = format!("muster-credentials-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        directory
    }

    fn me(server: &str) -> Login {
        Login {
            server: server.to_owned(),
            username: "me".to_owned(),
            password: "secret".to_owned(),
            identity_token: String::new(),
        }
    }

    #[test]
    fn images_and_addresses_name_their_registry() {
        for (image, name) in [
            ("redis", HUB),
            ("library/redis", HUB),
            ("docker.io/library/redis", HUB),
            ("host:5000/a", "host:5000"),
            ("localhost/a", "localhost"),
            ("ghcr.io/a/b@sha256:x", "ghcr.io"),
            // Repositories have no capital letters.
            ("Build/app", "Build"),
        ] {
            assert_eq!(server_of(image), name, "{image}");
        }
        for (address, name) in [
            ("", HUB),
            ("docker.io", HUB),
            ("https://index.docker.io/v1/", HUB),
            ("http://host:5000/v2/", "host:5000"),
        ] {
            assert_eq!(key_of(address), name, "{address}");
        }
    }

    #[tokio::test]
    async fn the_file_is_written_as_docker_writes_it_and_keeps_the_rest() {
        let directory = temporary("file");
        let path = directory.join("config.json");
        let mut file = ConfigFile::read(&path).unwrap();
        assert_eq!(file.get("host:5000").await.unwrap(), None);
        let kept = file.keep(&me("host:5000")).await.unwrap();
        assert_eq!(kept, Kept::Plainly { path: path.clone() });
        // As Docker 28 wrote it for the same login.
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\n\t\"auths\": {\n\t\t\"host:5000\": {\n\t\t\t\"auth\": \"bWU6c2VjcmV0\"\n\t\t}\n\t}\n}"
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&directory)), (0o600, 0o700));

        std::fs::write(
            &path,
            r#"{"HttpHeaders": {"a": "b"}, "auths": {"https://z/v1/": {"auth": "bWU6c2VjcmV0"}}, "unknown": [1]}"#,
        )
        .unwrap();
        let mut file = ConfigFile::read(&path).unwrap();
        assert_eq!(file.get("z").await.unwrap(), Some(me("z")));
        let token = Login {
            password: String::new(),
            identity_token: "tok".to_owned(),
            ..me("a")
        };
        file.keep(&token).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("{\n\t\"auths\": {\n\t\t\"a\": {"),
            "{text}"
        );
        assert!(text.contains("\"unknown\": [\n\t\t1\n\t]"), "{text}");
        let mut again = ConfigFile::read(&path).unwrap();
        assert_eq!(again.get("a").await.unwrap(), Some(token));
        again.forget("a").await.unwrap();
        again.forget("nobody").await.unwrap();
        assert_eq!(
            ConfigFile::read(&path).unwrap().get("a").await.unwrap(),
            None
        );
        assert!(!format!("{again:?}").contains("bWU6"));

        std::fs::write(&path, r#"{"auths": {"a": {"auth": "%%%"}}}"#).unwrap();
        let error = ConfigFile::read(&path).unwrap().get("a").await.unwrap_err();
        assert!(error.to_string().contains("log in again"), "{error}");
        std::fs::write(&path, "[]").unwrap();
        ConfigFile::read(&path).unwrap_err();
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn what_a_request_carries_is_what_docker_sends() {
        let RegistryAuth(header) = me("host:5000").to_header();
        assert_eq!(
            String::from_utf8(URL_SAFE.decode(header).unwrap()).unwrap(),
            r#"{"username":"me","password":"secret","serveraddress":"host:5000"}"#
        );
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named() {
        let directory = temporary("helper");
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("config.json");
        std::fs::write(
            &path,
            r#"{"credsStore": "no-such-store", "credHelpers": {"a": "no-such-helper", "b": "../x"}}"#,
        )
        .unwrap();
        let file = ConfigFile::read(&path).unwrap();
        for (server, told) in [
            ("a", "docker-credential-no-such-helper"),
            ("b", "not given by its path"),
            ("c", "docker-credential-no-such-store"),
        ] {
            let error = file.get(server).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
