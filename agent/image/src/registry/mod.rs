//! A client of container registries (OCI distribution-spec 1.1; Docker Registry HTTP API V2).
//!
//! ```text
//! Reference ──[endpoint]──▶ where to ask: mirrors, https, plain http for registries called insecure
//!           ──[tls]───────▶ whom to trust there: the system's roots and certs.d
//!           ──[transport]─▶ one exchange: authorisation, redirects, retries, time limits, cancellation
//!           ──[manifest]──▶ which image: digest verified, platform chosen
//!           ──[blob]──────▶ its bytes as a `Read` that goes on where a broken connection, or a daemon, stopped
//!           ──[upload]────▶ a blob there: present already, mounted from another repository, in one piece or in several
//! ```
//!
//! ```text
//! auth     what a registry wants (challenge), who asks, tokens that are good     token   getting one
//! login    whether credentials are good                                          search  finding images by a word
//! proxy    the way out, socks through another kind of proxy                      partial what interrupted pulls have
//! ```
//!
//! The calls block their thread, like the rest of this package, and drive the network on the runtime they were given:
//! a layer flows from the socket through inflating and hashing to the disk without a queue in between, so memory is
//! bounded by what the socket buffers. They must not be made on a thread of the runtime itself.
//!
//! Must not: know the image store, read a client's credentials from disk, or log tokens and passwords.

mod artifact;
mod auth;
mod blob;
mod endpoint;
mod error;
mod login;
mod manifest;
mod partial;
mod proxy;
mod search;
mod socks;
mod tags;
mod tls;
mod token;
mod transport;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use artifact::{Artifact, LayerBlob};
pub use auth::Credentials;
pub use endpoint::{RegistryConfig, registry_of};
pub use error::RegistryError;
pub use proxy::{Proxies, ProxyDialer};
pub use search::{SearchFilter, SearchResult};

pub(crate) use blob::BlobReader;
pub(crate) use manifest::Found;
pub use partial::Partial;
pub(crate) use partial::Partials;
pub(crate) use upload::{Mounting, UploadError};

use crate::reference::Reference;
use auth::Tokens;
use endpoint::{Endpoint, Purpose};
use transport::{Ask, Connection};

/// The way to all registries: connections, what is known about each, tokens. Shared by reference.
pub struct Registry {
    config: RegistryConfig,
    runtime: Handle,
    tokens: Tokens,
    /// Connections by origin and trust, with what the trust was read from.
    connections: Mutex<HashMap<Endpoint, (tls::Stamp, Connection)>>,
    /// Mirrors that could not be reached, and when that was.
    down: Mutex<HashMap<Endpoint, Instant>>,
}

/// A mirror that could not be reached is the last to be asked for so long.
const DOWN_FOR: Duration = Duration::from_secs(60);

/// Who wants what of which repository.
struct Asker<'a> {
    reference: &'a Reference,
    purpose: Purpose,
    credentials: Option<&'a Credentials>,
    cancel: &'a CancellationToken,
}

/// Why an endpoint did not do what was wanted.
enum Missed<E> {
    /// Another one may: this one was not reached.
    Unreached(E),
    /// The same, and all there is to say of it is that nobody there speaks TLS.
    NoTls(E),
    /// It answered.
    Told(E),
}

impl<E: From<RegistryError>> Missed<E> {
    fn by(error: RegistryError) -> Self {
        match error.is_unreachable() {
            true if error.is_no_tls() => Self::NoTls(error.into()),
            true => Self::Unreached(error.into()),
            false => Self::Told(error.into()),
        }
    }
}

/// One repository at one endpoint that has answered, on behalf of one user.
pub(crate) struct Session<'a> {
    registry: &'a Registry,
    endpoint: Endpoint,
    connection: Connection,
    reference: Reference,
    purpose: Purpose,
    credentials: Option<Credentials>,
    cancel: CancellationToken,
    /// Whether it has answered.
    heard: AtomicBool,
}

impl Registry {
    /// A client that does its network work on `runtime`.
    pub fn new(config: RegistryConfig, runtime: Handle) -> Self {
        Self {
            config,
            runtime,
            tokens: Tokens::default(),
            connections: Mutex::default(),
            down: Mutex::default(),
        }
    }

    /// Does something at the first endpoint that can do it: asks for something there, then does `work` with the answer.
    /// An endpoint that cannot be reached leads to the next, and so does whatever goes wrong at a mirror, however late
    /// (moby `distribution/pull.go`). The error is the registry's, if it was asked. Blocks.
    pub(crate) fn at_first<A, T, E: From<RegistryError> + std::fmt::Display>(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
        ask: impl Fn(&Session<'_>) -> Result<A, RegistryError>,
        mut work: impl FnMut(&Session<'_>, A) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut endpoints = self.config.endpoints(reference.domain(), Purpose::Read);
        self.down
            .lock()
            .retain(|_, since| since.elapsed() < DOWN_FOR);
        endpoints.sort_by_key(|endpoint| self.down.lock().contains_key(endpoint));
        let asker = Asker {
            reference,
            purpose: Purpose::Read,
            credentials,
            cancel,
        };
        self.try_each(endpoints, &asker, |session| {
            let answer = ask(&session).map_err(|error| {
                if session.endpoint.is_mirror() && error.is_unreachable() {
                    let endpoint = session.endpoint.clone();
                    self.down.lock().insert(endpoint, Instant::now());
                }
                Missed::by(error)
            })?;
            work(&session, answer).map_err(Missed::Told)
        })
    }

    /// Tries endpoints of a registry one after the other. Also after a mirror has [told](Missed::Told) an error the next one
    /// is tried: it may be wrong. Blocks.
    fn try_each<'a, T, E: From<RegistryError> + std::fmt::Display>(
        &'a self,
        endpoints: Vec<Endpoint>,
        asker: &Asker<'_>,
        mut attempt: impl FnMut(Session<'a>) -> Result<T, Missed<E>>,
    ) -> Result<T, E> {
        let (mut of_mirror, mut own, mut no_tls) = (None, None, None);
        for endpoint in endpoints {
            let mirror = endpoint.is_mirror();
            let session = self.session(endpoint.clone(), asker)?;
            let (error, kept) = match attempt(session) {
                Ok(done) => return Ok(done),
                Err(Missed::Told(error)) if !mirror => return Err(error),
                Err(Missed::Told(error) | Missed::Unreached(error) | Missed::NoTls(error))
                    if mirror =>
                {
                    (error, &mut of_mirror)
                }
                Err(Missed::NoTls(error)) => (error, &mut no_tls),
                // What https says otherwise is more telling than that plain http fails, too.
                Err(Missed::Told(error) | Missed::Unreached(error)) => (error, &mut own),
            };
            if asker.cancel.is_cancelled() {
                return Err(error);
            }
            tracing::debug!(%endpoint, %error, "trying the next endpoint");
            kept.get_or_insert(error);
        }
        let none = || RegistryError::Address(asker.reference.domain().to_owned()).into();
        Err(own.or(no_tls).or(of_mirror).unwrap_or_else(none))
    }

    /// Tries of one exchange.
    fn attempts(&self) -> u32 {
        self.config.attempts.max(1)
    }

    /// A session that may write to the repository of `reference`, at the first endpoint that answers. Blocks.
    pub(crate) fn writer(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Session<'_>, RegistryError> {
        let asker = Asker {
            reference,
            purpose: Purpose::Write,
            credentials,
            cancel,
        };
        let endpoints = self.config.endpoints(reference.domain(), Purpose::Write);
        self.try_each(endpoints, &asker, |session| {
            session.greet().map_err(Missed::by)?;
            Ok(session)
        })
    }

    /// What a registry says about a reference, without fetching the image: digest, media type, size and platforms
    /// of the manifest. Blocks.
    pub fn describe(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Description, RegistryError> {
        let describe = |session: &Session<'_>, found: Found| {
            let platforms = session.platforms(&found)?;
            Ok(Description {
                media_type: found.media_type,
                digest: found.digest,
                size: found.bytes.len() as u64,
                platforms,
            })
        };
        self.at_first(
            reference,
            credentials,
            cancel,
            |session| session.resolve(),
            describe,
        )
    }

    fn session(&self, endpoint: Endpoint, asker: &Asker<'_>) -> Result<Session<'_>, RegistryError> {
        // A user's credentials are for the registry, not for its mirrors.
        let credentials = asker.credentials.filter(|_| !endpoint.is_mirror());
        let stamp = tls::stamp(&endpoint, &self.config.certificates);
        let known = self.connections.lock().get(&endpoint).cloned();
        let connection = match known.filter(|(of, _)| *of == stamp) {
            Some((_, connection)) => connection,
            None => {
                let connection: Connection = Arc::new(self.connect(&endpoint)?);
                let kept = (stamp, Arc::clone(&connection));
                self.connections.lock().insert(endpoint.clone(), kept);
                connection
            }
        };
        Ok(Session {
            registry: self,
            endpoint,
            connection,
            reference: asker.reference.clone(),
            purpose: asker.purpose,
            credentials: credentials.cloned(),
            cancel: asker.cancel.child_token(),
            heard: AtomicBool::new(false),
        })
    }
}

impl Session<'_> {
    /// Asks whether anybody is there who speaks the protocol; who asks does not matter yet.
    fn greet(&self) -> Result<(), RegistryError> {
        let ask = Ask::get("/v2/").without_scope();
        let reply = self.follow(&ask, None)?.reply;
        match reply.status() {
            StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
            _ => Err(self.status("/v2/", reply)),
        }
    }

    /// Layers of one image that are to be on their way at once.
    pub(crate) fn parallel(&self) -> usize {
        let config = &self.registry.config;
        match self.purpose {
            Purpose::Read => config.downloads.max(1),
            Purpose::Write => config.uploads.max(1),
        }
    }

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
