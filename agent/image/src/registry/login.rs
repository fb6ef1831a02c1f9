//! Proving to a registry that credentials are good, and exchanging them for an identity token where it gives one out.
//! Source of the steps and texts: moby `daemon/pkg/registry/auth.go` (`loginV2`).

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::auth::Challenge;
use super::endpoint::{self, Purpose};
use super::error::RegistryError;
use super::token::Lasting;
use super::transport::Ask;
use super::{Asker, Credentials, Missed, Registry, Session};
use crate::reference::Reference;

impl Registry {
    /// Proves to the registry `address` (as a user types it) that the credentials are good. Returns a token that stands
    /// for user and password from then on; empty where the registry gives none. Blocks.
    ///
    /// # Errors
    /// The registry cannot be reached or does not take them.
    pub fn login(
        &self,
        address: &str,
        credentials: Credentials,
        cancel: &CancellationToken,
    ) -> Result<String, RegistryError> {
        let domain = endpoint::registry_of(address);
        // Any repository will do: only the registry is asked.
        let reference = Reference::parse(&format!("{domain}/login"))
            .map_err(|_| RegistryError::Address(address.to_owned()))?;
        let asker = Asker {
            reference: &reference,
            purpose: Purpose::Read,
            credentials: Some(&credentials),
            cancel,
        };
        let endpoints = self.config.endpoints(&domain, Purpose::Write);
        self.try_each(endpoints, &asker, |session| {
            session.log_in().map_err(Missed::by)
        })
    }
}

impl Session<'_> {
    fn log_in(&self) -> Result<String, RegistryError> {
        let ask = Ask::get("/v2/").without_scope();
        let first = self.follow(&ask, None)?;
        let status = first.reply.status();
        let challenge = match status {
            StatusCode::UNAUTHORIZED => self.challenge(&first)?,
            _ => None,
        };
        let (authorization, identity) = match challenge {
            None if status != StatusCode::UNAUTHORIZED => (String::new(), String::new()),
            Some(Challenge::Bearer { realm, service }) => {
                let reply = self.ask_token_service("", &realm, &service, Lasting::Identity)?;
                let token = reply.token();
                (format!("Bearer {token}"), reply.refresh_token)
            }
            Some(Challenge::Basic) => {
                let basic = self.credentials.as_ref().map(Credentials::basic);
                (basic.unwrap_or_default(), String::new())
            }
            None => return Err(self.login_failed(status)),
        };
        let reply = match &*authorization {
            "" => first.reply,
            authorization => self.follow(&ask, Some(authorization))?.reply,
        };
        match reply.status() {
            StatusCode::OK => Ok(identity),
            status => Err(self.login_failed(status)),
        }
    }

    fn login_failed(&self, status: StatusCode) -> RegistryError {
        RegistryError::Login {
            url: self.endpoint.url("/v2/"),
            status: status.to_string(),
        }
    }
}
