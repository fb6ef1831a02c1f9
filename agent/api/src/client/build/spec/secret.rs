//! `--secret` and `--ssh`. Source: buildx `util/buildflags/{secrets,ssh}.go`, BuildKit `session/{secrets,sshforward}`.

use super::super::SecretSource;
use super::super::ssh::{KeyAgent, SshSource};
use super::{SpecError, bad, csv};
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// A secret and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSpec {
    /// Its id.
    pub id: String,
    /// A file.
    pub src: Option<PathBuf>,
    /// A variable of the user's environment.
    pub env: Option<String>,
}

impl SecretSpec {
    /// Reads `id=name[,src=path|,env=NAME][,type=file|env]`.
    ///
    /// # Errors
    /// It is malformed, or an attribute is not known.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fail = |reason: String| bad("secret", text, reason);
        let mut spec = Self::default();
        let mut kind = String::new();
        for (key, value) in csv::fields(text).map_err(fail)? {
            let value =
                value.ok_or_else(|| fail(format!("{key:?} has no value: write {key}=…")))?;
            match key.as_str() {
                "type" if matches!(value.as_str(), "file" | "env") => kind = value,
                "type" => return Err(fail(format!("unsupported secret type {value:?}"))),
                "id" => spec.id = value,
                "src" | "source" => spec.src = Some(value.into()),
                "env" => spec.env = Some(value),
                other => return Err(fail(format!("unexpected key {other:?}"))),
            }
        }
        if kind == "env" && spec.env.is_none() {
            let name = spec
                .src
                .take()
                .map(|name| name.to_string_lossy().into_owned());
            spec.env = Some(name.unwrap_or_else(|| spec.id.clone()));
        }
        if spec.id.is_empty() {
            return Err(fail("id is required".to_owned()));
        }
        Ok(spec)
    }

    /// The file it is in. Without a place: the variable of its name, else the file of its name.
    pub(super) fn file(&self, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        match (&self.env, &self.src) {
            (Some(_), _) => None,
            (None, Some(path)) => Some(path.clone()),
            (None, None) if env(&self.id).is_some() => None,
            (None, None) => Some(PathBuf::from(&self.id)),
        }
    }

    /// Where it is.
    pub(super) fn find(
        self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(String, SecretSource), SpecError> {
        let missing = |reason: String| SpecError::Secret {
            id: self.id.clone(),
            reason,
        };
        let Some(path) = self.file(env) else {
            // An unset variable is an empty secret, as with BuildKit.
            let value = env(self.env.as_ref().unwrap_or(&self.id)).unwrap_or_default();
            return Ok((self.id, SecretSource::Value(value.into_bytes())));
        };
        let found = std::fs::metadata(&path).map_err(|error| {
            missing(format!(
                "failed to stat {}: {}",
                path.display(),
                super::reason(&error)
            ))
        })?;
        if found.is_dir() {
            return Err(missing(format!("{} is a directory", path.display())));
        }
        Ok((self.id, SecretSource::File(path)))
    }
}

/// An SSH agent and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshSpec {
    /// Its id.
    pub id: String,
    /// Sockets or keys; the environment's agent when empty.
    pub paths: Vec<PathBuf>,
}

impl SshSpec {
    /// Reads `default`, `id=socket` or `id=key,key`.
    ///
    /// # Errors
    /// It has no id.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        if id.is_empty() {
            return Err(bad("ssh", text, "write default or id=socket"));
        }
        let paths = paths.split(',').filter(|path| !path.is_empty());
        Ok(Self {
            id: id.to_owned(),
            paths: paths.map(PathBuf::from).collect(),
        })
    }

    /// The agent: one socket, or keys that are read now.
    pub(super) fn find(
        self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(String, SshSource), SpecError> {
        let refuse = |reason: String| SpecError::Ssh {
            id: self.id.clone(),
            reason,
        };
        if self.paths.is_empty() {
            let socket = env("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
            let socket = socket.ok_or_else(|| {
                refuse(
                    "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or give the files of keys"
                        .to_owned(),
                )
            })?;
            return Ok((self.id, SshSource::Socket(socket.into())));
        }
        let mut sockets = Vec::new();
        let mut keys = Vec::new();
        for path in &self.paths {
            let found = std::fs::metadata(path)
                .map_err(|error| refuse(format!("cannot use {}: {error}", path.display())))?;
            match found.file_type() {
                kind if kind.is_socket() => sockets.push(path.clone()),
                kind if kind.is_file() => keys.push(path.clone()),
                _ => {
                    let path = path.display();
                    return Err(refuse(format!(
                        "{path} is neither a key nor an agent's socket"
                    )));
                }
            }
        }
        let source = match (&sockets[..], &keys[..]) {
            ([socket], []) => SshSource::Socket(socket.clone()),
            ([], keys) => {
                let agent = KeyAgent::read(keys).map_err(|error| refuse(error.to_string()))?;
                SshSource::Keys(Arc::new(agent))
            }
            ([_, _, ..], _) => return Err(refuse("only single socket allowed".to_owned())),
            ([_], _) => {
                return Err(refuse("invalid combination of keys and sockets".to_owned()));
            }
        };
        Ok((self.id, source))
    }
}
