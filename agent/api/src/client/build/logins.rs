//! Who the user is at the registries a build speaks to. The daemon asks when it is about to speak to one, so that a build
//! that needs no registry runs no helper, and a daemon is told no more than it has use for. Source: BuildKit
//! `session/auth/authprovider`.

use crate::client::credentials::{ConfigFile, CredentialsError, Login};
use crate::types::build::RegistryCredentials;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Registries that one build may speak to.
const MAX_SERVERS: usize = 256;

/// Answers for each registry, each found out once. Clones share them: several builds ask no helper twice.
#[derive(Clone)]
pub struct Logins(Arc<Shared>);

struct Shared {
    config: ConfigFile,
    known: Mutex<Known>,
}

/// JSON of credentials, or nothing; an error is a helper's.
type Answer = Result<Vec<u8>, String>;

#[derive(Default)]
struct Known {
    answers: HashMap<String, Arc<OnceCell<Answer>>>,
    /// Those that nobody has been told of.
    failures: Vec<CredentialsError>,
}

impl fmt::Debug for Logins {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logins").field(&self.0.config).finish()
    }
}

impl Logins {
    /// Logins of a configuration.
    #[must_use]
    pub fn new(config: ConfigFile) -> Self {
        Self(Arc::new(Shared {
            config,
            known: Mutex::default(),
        }))
    }

    /// What could not be found out since this was last asked: the builds went on without.
    #[must_use]
    pub fn failures(&self) -> Vec<CredentialsError> {
        std::mem::take(&mut self.lock().failures)
    }

    /// The answer for a registry; the error is for the daemon's log.
    pub(super) async fn of(&self, server: &str) -> Answer {
        let cell = {
            let mut known = self.lock();
            if !known.answers.contains_key(server) && known.answers.len() >= MAX_SERVERS {
                return Err(format!(
                    "a build that asks for credentials of more than {MAX_SERVERS} registries"
                ));
            }
            Arc::clone(known.answers.entry(server.to_owned()).or_default())
        };
        let answer = cell.get_or_init(|| async {
            match self.0.config.get(server).await {
                Ok(login) => Ok(login.map(answer).unwrap_or_default()),
                Err(error) => {
                    let reason = error.to_string();
                    self.lock().failures.push(error);
                    Err(reason)
                }
            }
        });
        answer.await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds it can leave it half changed.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(login: Login) -> Vec<u8> {
    let credentials = RegistryCredentials {
        username: login.username,
        password: login.password,
        identitytoken: login.identity_token,
        serveraddress: login.server,
        ..RegistryCredentials::default()
    };
    serde_json::to_vec(&credentials).expect("API types serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_is_looked_up_when_it_is_asked_for_and_once() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("config.json");
        let config = r#"{"credHelpers": {"gone": "no-such-helper"}, "auths": {"here": {"auth": "bWU6c2VjcmV0"}}}"#;
        std::fs::write(&path, config).unwrap();
        let logins = Logins::new(ConfigFile::read(&path).unwrap());
        let json = logins.of("here").await.unwrap();
        let found: RegistryCredentials = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (found.username.as_str(), found.password.as_str()),
            ("me", "secret")
        );
        assert_eq!(found.serveraddress, "here");
        // A helper that is not asked for is not run, however broken.
        assert!(logins.failures().is_empty());
        assert_eq!(logins.of("nobody").await.unwrap(), b"");
        for _ in 0..2 {
            let reason = logins.clone().of("gone").await.unwrap_err();
            assert!(
                reason.contains("docker-credential-no-such-helper"),
                "{reason}"
            );
        }
        assert_eq!(logins.failures().len(), 1);
        assert!(!format!("{logins:?}").contains("bWU6"));
        for number in 0..MAX_SERVERS {
            let _ = logins.of(&format!("host{number}")).await;
        }
        assert!(logins.of("one-more").await.is_err());
        assert!(logins.of("here").await.is_ok());
    }
}
