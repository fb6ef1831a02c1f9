//! Connections: HTTP/1.1 over whatever reaches the daemon, reused once their reply has been read to its end.

use super::dial::dial;
use super::error::{ClientError, Result};
use super::host::Host;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Idle connections kept at most.
const MAX_IDLE: usize = 32;

/// Body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A reply whose body is still to be read, and the connection it comes from.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    sender: SendRequest<Body>,
    what: String,
}

#[derive(Debug)]
pub(super) struct Transport {
    host: Host,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Transport {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a request on an idle connection or a new one; returns when the reply's headers are there.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Exchange> {
        let what = format!("{} {}", request.method(), request.uri().path());
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Exchange {
                        response,
                        sender,
                        what,
                    });
                }
                // The daemon had closed the idle connection before a byte of the request left.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        return Err(ClientError::Transport {
                            what,
                            source: error.into_error().into(),
                        });
                    }
                },
            }
        }
        let mut sender = self.connect().await?;
        match sender.send_request(request).await {
            Ok(response) => Ok(Exchange {
                response,
                sender,
                what,
            }),
            // A way that is opened by the first request is found closed by it.
            Err(error) => match refusal(&error) {
                Some(source) => Err(ClientError::Unreachable {
                    host: self.host.to_string(),
                    source,
                }),
                None => Err(ClientError::Transport {
                    what,
                    source: error.into(),
                }),
            },
        }
    }

    /// Reads a reply to its end, at most `limit` bytes, and keeps the connection for the next request.
    pub(super) async fn collect(&self, exchange: Exchange, limit: usize) -> Result<Bytes> {
        let Exchange {
            response,
            sender,
            what,
        } = exchange;
        let body = Limited::new(response.into_body(), limit)
            .collect()
            .await
            .map_err(|source| ClientError::Transport { what, source })?
            .to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
        Ok(body)
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<SendRequest<Body>> {
        let stream = dial(&self.host).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| ClientError::Transport {
                    what: "the handshake".to_owned(),
                    source: source.into(),
                })?;
        // The task ends with the connection: when the sender and the last reply's body are gone.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to the daemon ended");
            }
        });
        Ok(sender)
    }
}

/// The refusal of a connection at the bottom of an error.
fn refusal(error: &hyper::Error) -> Option<io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            return Some(io::Error::new(error.kind(), error.to_string()));
        }
        source = error.source();
    }
    None
}
