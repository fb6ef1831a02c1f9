//! A client of container registries (OCI distribution-spec 1.1; Docker Registry HTTP API V2).
//!
//! ```text
//! Reference ──[endpoint]──▶ where to ask: mirrors, https, plain http for registries called insecure
//!           ──[tls]───────▶ whom to trust there: the system's roots and certs.d
//!           ──[transport]─▶ one exchange: authorisation, redirects, retries, time limits, cancellation
//!           ──[manifest]──▶ which image: digest verified, platform chosen
//!           ──[blob]──────▶ its bytes as a `Read` that goes on where a broken connection stopped
//! ```
//!
//! The calls block their thread, like the rest of this package, and drive the network on the runtime they were given:
//! a layer flows from the socket through inflating and hashing to the disk without a queue in between, so memory is
//! bounded by what the socket buffers. They must not be made on a thread of the runtime itself.
//!
//! Must not: know the image store, read a client's credentials from disk, or log tokens and passwords.

mod auth;
mod blob;
mod endpoint;
mod error;
mod manifest;
mod tls;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use auth::Credentials;
pub use endpoint::RegistryConfig;
pub use error::RegistryError;

pub(crate) use blob::BlobReader;
pub(crate) use manifest::Found;

use crate::reference::Reference;
use auth::Tokens;
use endpoint::Endpoint;
use transport::{Ask, Connection};

/// The way to all registries: connections, what is known about each, tokens. Shared by reference.
pub struct Registry {
    config: RegistryConfig,
    runtime: Handle,
    tokens: Tokens,
    /// Connections by origin and trust.
    connections: Mutex<HashMap<Endpoint, Connection>>,
}

/// One repository at one endpoint that has answered, on behalf of one user.
pub(crate) struct Session<'a> {
    registry: &'a Registry,
    endpoint: Endpoint,
    connection: Connection,
    reference: Reference,
    credentials: Option<Credentials>,
    cancel: CancellationToken,
}

impl Registry {
    /// A client that does its network work on `runtime`.
    pub fn new(config: RegistryConfig, runtime: Handle) -> Self {
        Self {
            config,
            runtime,
            tokens: Tokens::default(),
            connections: Mutex::default(),
        }
    }

    /// Proves to the registry `address` (as a user types it) that the credentials are good. Blocks.
    pub fn login(
        &self,
        address: &str,
        credentials: Credentials,
        cancel: &CancellationToken,
    ) -> Result<(), RegistryError> {
        let domain = endpoint::domain_of(address);
        // Any repository will do: only the registry is asked.
        let reference = Reference::parse(&format!("{domain}/login"))
            .map_err(|_| RegistryError::Address(address.to_owned()))?;
        let mut last = None;
        for endpoint in self.config.endpoints(&domain, endpoint::Purpose::Write) {
            let session = self.session(endpoint, &reference, Some(credentials.clone()), cancel)?;
            match session.ask(Ask::get("/v2/").without_scope()) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_unreachable() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(RegistryError::Address(domain)))
    }

    /// Finds the manifest that `reference` names, at the first endpoint that has an answer. Blocks.
    pub(crate) fn find<'a>(
        &'a self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<(Session<'a>, Found), RegistryError> {
        let mut last = None;
        for endpoint in self
            .config
            .endpoints(reference.domain(), endpoint::Purpose::Read)
        {
            let mirror = endpoint.is_mirror();
            // A user's credentials are for the registry, not for its mirrors.
            let credentials = credentials.filter(|_| !mirror).cloned();
            let session = self.session(endpoint, reference, credentials, cancel)?;
            match session.resolve() {
                Ok(found) => return Ok((session, found)),
                Err(error) if (error.is_unreachable() || mirror) && !error.is_cancelled() => {
                    tracing::debug!(endpoint = %session.endpoint, %error, "trying the next endpoint");
                    // What https says is more telling than that plain http fails, too.
                    last.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Address(reference.domain().to_owned())))
    }

    /// What a registry says about a reference, without fetching the image: digest, media type, size and platforms
    /// of the manifest. Blocks.
    pub fn describe(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Description, RegistryError> {
        let (session, found) = self.find(reference, credentials, cancel)?;
        let platforms = session.platforms(&found)?;
        Ok(Description {
            media_type: found.media_type,
            digest: found.digest,
            size: found.bytes.len() as u64,
            platforms,
        })
    }

    fn session(
        &self,
        endpoint: Endpoint,
        reference: &Reference,
        credentials: Option<Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Session<'_>, RegistryError> {
        let known = self.connections.lock().get(&endpoint).cloned();
        let connection = match known {
            Some(connection) => connection,
            None => {
                let connection: Connection = Arc::new(self.connect(&endpoint)?);
                self.connections
                    .lock()
                    .insert(endpoint.clone(), Arc::clone(&connection));
                connection
            }
        };
        Ok(Session {
            registry: self,
            endpoint,
            connection,
            reference: reference.clone(),
            credentials,
            cancel: cancel.child_token(),
        })
    }
}

impl Session<'_> {
    /// Ends what the session is doing on other threads.
    pub(crate) fn give_up(&self) {
        self.cancel.cancel();
    }
}

/// See [`Registry::describe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Of the manifest or index.
    pub media_type: String,
    /// Of the manifest or index.
    pub digest: crate::digest::Digest,
    /// Bytes of the manifest or index.
    pub size: u64,
    /// `os/architecture[/variant]` of each image.
    pub platforms: Vec<String>,
}
