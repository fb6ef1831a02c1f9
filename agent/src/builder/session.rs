//! What a build asks of its client: contexts, places for its output, secrets, connections to an ssh agent, who the user is
//! at a registry.
//!
//! ```text
//! build ── Session ─────────────────────────────────────────────────── Ask ──▶ the task that talks to that client
//! step ─── Sessions (of all builds that wait for the step) ─ Session ── Ask ──▶
//! ```
//!
//! A step that several builds share asks the first client that has the answer; one whose client has left is passed over.
//! Nothing here is stored or logged.
//!
//! Source: buildkit `session/group.go`, `session/secrets`, `session/sshforward`.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{ByteReceiver, ByteSender};

/// Longest secret, as in BuildKit (`session/secrets/secretsprovider`: 500 KiB).
pub(crate) const MAX_SECRET_BYTES: usize = 500 * 1024;
/// Questions that may wait for one client.
const QUESTIONS: usize = 64;

/// A question to a client. Dropping the reply is the answer of a client that left.
pub(crate) enum Ask {
    /// The bytes of a secret; `None`: the client did not offer it.
    Secret {
        /// Its id.
        id: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    /// A connection to an ssh agent; `None`: the client did not offer it.
    Ssh {
        /// Its id; `default` is the usual one.
        id: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<DuplexStream>>,
    },
    /// A context as a tar; `None`: the client has none by this name.
    Context {
        /// Its name; the main one's is empty.
        name: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<ByteReceiver>>,
    },
    /// A cache as a tar of an OCI layout; `None`: the client has none by this id.
    Cache {
        /// Its id.
        id: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<ByteReceiver>>,
    },
    /// Who the user is at a registry, as JSON; `None`: the client does not tell, nothing: nobody.
    Credentials {
        /// `host[:port]`, or Docker Hub's `https://index.docker.io/v1/`.
        server: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    /// Where an output goes, as a tar; `None`: the client does not take it.
    Output {
        /// Its id.
        id: String,
        /// Takes the answer.
        reply: oneshot::Sender<Option<Output>>,
    },
}

/// Where the bytes of an output go.
pub(crate) struct Output {
    /// Takes them.
    pub(crate) bytes: ByteSender,
    /// Resolves when the client has them all: `false` when it left before.
    pub(crate) taken: oneshot::Receiver<bool>,
}

/// The way to one client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Session(mpsc::Sender<Ask>);

impl Session {
    /// The way to a client, and what has to be answered.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Self(sender), receiver)
    }

    /// A context as a tar, perhaps compressed. `None`: the client has none by this name, or has left.
    pub(crate) async fn context(&self, name: &str) -> Option<ByteReceiver> {
        let name = name.to_owned();
        self.ask(|reply| Ask::Context { name, reply }).await
    }

    /// A cache of the client's. `None`: it has none by this id, or has left.
    pub(crate) async fn cache(&self, id: &str) -> Option<ByteReceiver> {
        let id = id.to_owned();
        self.ask(|reply| Ask::Cache { id, reply }).await
    }

    /// Who the user is at a registry, as JSON. `None`: the client does not tell, or has left.
    pub(crate) async fn credentials(&self, server: &str) -> Option<Vec<u8>> {
        let server = server.to_owned();
        self.ask(|reply| Ask::Credentials { server, reply }).await
    }

    /// Where an output goes. `None`: the client does not take it, or has left.
    pub(crate) async fn output(&self, id: &str) -> Option<Output> {
        let id = id.to_owned();
        self.ask(|reply| Ask::Output { id, reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Option<T>>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.send(ask(reply)).await.ok()?;
        answer.await.ok()?
    }
}

/// Why a client's answer cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// Every client that could have answered is gone.
    #[error("cannot ask for {0}: the client that offered it has left")]
    Left(String),
    /// It is longer than any secret.
    #[error("secret {0} is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong(String),
}

/// The clients that wait for a step. Clients may join while it runs.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    clients: Vec<Session>,
    /// Those who wait for other work, of which this is a part.
    groups: Vec<Sessions>,
}

impl Sessions {
    /// One more client waits.
    pub(crate) fn add(&self, session: Session) {
        self.0.lock().clients.push(session);
    }

    /// All clients of others wait as well, also those that join them later. They must not lead back here.
    pub(crate) fn add_all(&self, others: &Self) {
        self.0.lock().groups.push(others.clone());
    }

    fn all(&self) -> Vec<Session> {
        let waiting = self.0.lock();
        let mut all = waiting.clients.clone();
        for group in &waiting.groups {
            all.extend(group.all());
        }
        all
    }

    /// The bytes of a secret. `None`: no client offers it. Never keep them longer than the step runs.
    ///
    /// # Errors
    /// The clients have left, or what they sent is too long.
    pub(crate) async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError> {
        let ask = |reply| Ask::Secret {
            id: id.to_owned(),
            reply,
        };
        let secret: Option<Vec<u8>> = self.ask(&format!("secret {id}"), ask).await?;
        match secret {
            Some(secret) if secret.len() > MAX_SECRET_BYTES => {
                Err(SessionError::TooLong(id.to_owned()))
            }
            secret => Ok(secret),
        }
    }

    /// A new connection to an ssh agent. `None`: no client offers one by this id.
    ///
    /// # Errors
    /// The clients have left.
    pub(crate) async fn ssh(&self, id: &str) -> Result<Option<DuplexStream>, SessionError> {
        let ask = |reply| Ask::Ssh {
            id: id.to_owned(),
            reply,
        };
        self.ask(&format!("ssh agent {id}"), ask).await
    }

    async fn ask<T>(
        &self,
        what: &str,
        ask: impl Fn(oneshot::Sender<Option<T>>) -> Ask,
    ) -> Result<Option<T>, SessionError> {
        let sessions = self.all();
        let mut answered = sessions.is_empty();
        for session in sessions {
            let (reply, answer) = oneshot::channel();
            if session.0.send(ask(reply)).await.is_err() {
                continue;
            }
            match answer.await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => answered = true,
                Err(_) => {}
            }
        }
        match answered {
            true => Ok(None),
            false => Err(SessionError::Left(what.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that knows one secret.
    fn client(id: &'static str, secret: &'static [u8]) -> Session {
        let (session, mut asked) = Session::channel();
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                if let Ask::Secret { id: wanted, reply } = ask {
                    let _ = reply.send((wanted == id).then(|| secret.to_vec()));
                }
            }
        });
        session
    }

    #[tokio::test]
    async fn the_first_client_that_has_a_secret_gives_it() {
        let sessions = Sessions::default();
        assert_eq!(sessions.secret("a").await, Ok(None));
        sessions.add(client("a", b"one"));
        sessions.add(client("b", b"two"));
        assert_eq!(sessions.secret("b").await, Ok(Some(b"two".to_vec())));
        assert_eq!(sessions.secret("c").await, Ok(None));
    }

    #[tokio::test]
    async fn clients_of_others_that_wait_for_a_part_are_asked_too() {
        let (whole, part) = (Sessions::default(), Sessions::default());
        part.add_all(&whole);
        assert_eq!(part.secret("a").await, Ok(None));
        // One that comes later.
        whole.add(client("a", b"one"));
        assert_eq!(part.secret("a").await, Ok(Some(b"one".to_vec())));
    }

    #[tokio::test]
    async fn clients_that_left_are_passed_over() {
        let sessions = Sessions::default();
        drop({
            let (session, asked) = Session::channel();
            sessions.add(session);
            asked
        });
        assert_eq!(
            sessions.secret("a").await,
            Err(SessionError::Left("secret a".to_owned()))
        );
        sessions.add(client("a", b"one"));
        assert_eq!(sessions.secret("a").await, Ok(Some(b"one".to_vec())));
    }
}
