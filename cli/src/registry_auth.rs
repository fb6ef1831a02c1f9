//! Credentials that `docker login` left for a registry. Source: docker/cli `cli/config`, `cli/command/registry.go`.

use agent_api::client::RegistryAuth;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The key of Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// `config.json`, as far as it is about credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: BTreeMap<String, Auth>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// Credentials for the registry of an image; `None` when nobody has logged in there.
pub(crate) fn of_image(image: &str) -> Result<Option<RegistryAuth>, String> {
    let Some(path) = path() else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let config: ConfigFile = serde_json::from_str(&text)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    find(&config, registry(image)).map_err(|reason| format!("{}: {reason}", path.display()))
}

fn path() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(directory.or_else(home)?.join("config.json"))
}

/// The registry an image comes from, as `config.json` names it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "index.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
    }
}

fn find(config: &ConfigFile, registry: &str) -> Result<Option<RegistryAuth>, String> {
    let host = |key: &str| {
        let plain = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        plain.split('/').next().unwrap_or(plain).to_owned()
    };
    let helper = config.cred_helpers.get(registry).cloned().or_else(|| {
        // Whoever uses a store leaves an empty entry in the file.
        let known = config.auths.keys().any(|key| host(key) == host(registry));
        (known && !config.creds_store.is_empty()).then(|| config.creds_store.clone())
    });
    if let Some(helper) = helper {
        return Err(format!(
            "the credentials of {registry} are with the helper {helper}, and helpers are not supported: log in without one"
        ));
    }
    let auth = config.auths.get(registry).or_else(|| {
        let mut others = config.auths.iter();
        others
            .find(|(key, _)| host(key) == host(registry))
            .map(|(_, auth)| auth)
    });
    let Some(auth) = auth else {
        return Ok(None);
    };
    let bad = || format!("the entry of {registry} is not base64 of user:password: log in again");
    let plain = STANDARD
        .decode(auth.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(bad)?;
    let (user, password) = plain.split_once(':').ok_or_else(bad)?;
    let header = serde_json::json!({
        "username": user,
        "password": password.trim_end_matches('\0'),
        "identitytoken": auth.identitytoken,
        "serveraddress": registry,
    });
    Ok(Some(RegistryAuth(URL_SAFE.encode(header.to_string()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_their_registry() {
        for (image, name) in [
            ("redis", HUB),
            ("library/redis", HUB),
            ("docker.io/library/redis", HUB),
            ("host:5000/a", "host:5000"),
            ("localhost/a", "localhost"),
            ("ghcr.io/a/b@sha256:x", "ghcr.io"),
        ] {
            assert_eq!(registry(image), name, "{image}");
        }
    }

    #[test]
    fn only_what_is_in_the_file_is_sent() {
        let config: ConfigFile = serde_json::from_str(
            r#"{"auths": {"https://host:5000/v1/": {"auth": "dTpwOnc="}, "stored.io": {}}, "credsStore": "",
                "credHelpers": {"helped.io": "gcloud"}}"#,
        )
        .unwrap();
        let RegistryAuth(header) = find(&config, "host:5000").unwrap().unwrap();
        let header: serde_json::Value =
            serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap();
        assert_eq!(
            (&header["username"], &header["password"]),
            (&"u".into(), &"p:w".into())
        );
        assert_eq!(find(&config, "other.io"), Ok(None));
        assert!(find(&config, "helped.io").unwrap_err().contains("gcloud"));
        assert!(find(&config, "stored.io").is_err());
        assert!(!format!("{config:?}").contains("dTpw"));
    }
}
