//! Addresses of daemons.

use super::error::{ClientError, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a daemon listens when nothing else is said.
pub const DEFAULT_HOST: &str = "unix:///run/muster/muster.sock";

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    socket: PathBuf,
}

impl Host {
    /// Reads `unix:///path` or a bare absolute path.
    ///
    /// # Errors
    /// [`ClientError::Host`] for other schemes and for paths that cannot be a socket's.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            Err(ClientError::Host {
                host: text.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(("tcp" | "http" | "https" | "ssh" | "npipe" | "fd", _)) => {
                return refuse(
                    "only unix sockets can be connected to so far: write unix:///path/to/socket",
                );
            }
            Some(_) => return refuse("unknown scheme: write unix:///path/to/socket"),
            None => text,
        };
        if !path.starts_with('/') {
            return refuse(
                "the path of a unix socket must be absolute: write unix:///path/to/socket",
            );
        }
        // sun_path holds 108 bytes with its terminating zero.
        if path.len() > 107 {
            return refuse("the path of a unix socket has at most 107 bytes");
        }
        Ok(Self {
            socket: PathBuf::from(path),
        })
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_addresses_are_read_and_others_are_refused_with_a_way_out() {
        assert_eq!(Host::parse(DEFAULT_HOST).unwrap().to_string(), DEFAULT_HOST);
        assert_eq!(
            Host::parse("/run/x.sock").unwrap().to_string(),
            "unix:///run/x.sock"
        );
        for bad in [
            "tcp://1.2.3.4:2375",
            "ssh://me@there",
            "unix://relative",
            "relative",
            "gopher://x",
            "",
        ] {
            let message = Host::parse(bad).unwrap_err().to_string();
            assert!(message.contains("unix:///"), "{bad}: {message}");
        }
        assert!(Host::parse(&format!("unix:///{}", "x".repeat(108))).is_err());
    }
}
