//! SSH agents for builds: the user's own, by its socket, or one in here that holds keys read from files.
//!
//! ```text
//! mod.rs   the agent's protocol: identities, signatures      key.rs  private keys: reading them, signing with them
//! wire.rs  the strings and numbers of both
//! ```
//! The agent in here lists its keys and signs, nothing else: keys are never given out, added or removed. Source: IETF
//! draft-miller-ssh-agent, BuildKit `session/sshforward/sshprovider`.

mod key;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use key::Key;
pub use key::KeyError;
use wire::{Reader, put_string};

/// Longest message, as OpenSSH's agent has it.
const MAX_MESSAGE: usize = 256 << 10;
/// Longest file of a key.
const MAX_FILE: u64 = 100 << 10;
/// Keys of one agent.
const MAX_KEYS: usize = 64;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Where an agent is.
#[derive(Debug, Clone)]
pub enum SshSource {
    /// The user's, listening at this socket.
    Socket(PathBuf),
    /// Here.
    Keys(Arc<KeyAgent>),
}

/// Keys, and what answers for them.
#[derive(Debug)]
pub struct KeyAgent {
    keys: Vec<Key>,
}

/// What a client of the agent sent is no message: the connection is of no more use.
#[derive(Debug, thiserror::Error)]
#[error("a message for the SSH agent has {0} bytes, more than {MAX_MESSAGE}")]
pub(super) struct TooLong(usize);

impl KeyAgent {
    /// Reads the keys of files.
    ///
    /// # Errors
    /// A file cannot be read, holds no private key, or one that is encrypted or of a kind that is not supported.
    pub fn read(paths: &[PathBuf]) -> Result<Self, KeyError> {
        if paths.len() > MAX_KEYS {
            return Err(KeyError::TooMany(paths.len()));
        }
        let keys = paths.iter().map(|path| read(path));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Takes whole messages off the front of what a client has sent, and gives what is to be answered.
    pub(super) fn answer(&self, received: &mut BytesMut) -> Result<Vec<u8>, TooLong> {
        let mut answers = Vec::new();
        while let Some(length) = received.get(..4) {
            let length = length.try_into().expect("four bytes were taken");
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_MESSAGE {
                return Err(TooLong(length));
            }
            if received.len() < 4 + length {
                break;
            }
            received.advance(4);
            let message = received.split_to(length);
            let answer = self.message(&message).unwrap_or_else(|| vec![FAILURE]);
            put_string(&mut answers, &answer);
        }
        Ok(answers)
    }

    /// The answer to one message; none when it is refused.
    fn message(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (kind, body) = message.split_first()?;
        match *kind {
            REQUEST_IDENTITIES => {
                let mut answer = vec![IDENTITIES_ANSWER];
                let count = u32::try_from(self.keys.len()).ok()?;
                answer.extend(count.to_be_bytes());
                for key in &self.keys {
                    put_string(&mut answer, key.public());
                    put_string(&mut answer, key.comment().as_bytes());
                }
                Some(answer)
            }
            SIGN_REQUEST => {
                let mut body = Reader(body);
                let (public, data, flags) = (body.string()?, body.string()?, body.number()?);
                let key = self.keys.iter().find(|key| key.public() == public)?;
                let mut answer = vec![SIGN_RESPONSE];
                put_string(&mut answer, &key.sign(data, flags)?);
                Some(answer)
            }
            _ => None,
        }
    }
}

fn read(path: &Path) -> Result<Key, KeyError> {
    use std::io::Read as _;
    let at = |source| KeyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(at)?;
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(at)?;
    let problem = |reason| KeyError::Unusable {
        path: path.to_owned(),
        reason,
    };
    if text.len() as u64 > MAX_FILE {
        return Err(problem(format!("it has more than {MAX_FILE} bytes")));
    }
    let text = std::str::from_utf8(&text);
    let text = text.map_err(|_| problem("it is no private key".to_owned()))?;
    Key::parse(text, &path.to_string_lossy()).map_err(problem)
}

#[cfg(test)]
mod tests;
