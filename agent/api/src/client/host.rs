//! Addresses of daemons.
//!
//! | address | means |
//! |---|---|
//! | `unix:///path`, `/path` | a socket of this host |
//! | `ssh://[user@]host[:port][/path]` | `ssh` to the host, where `muster system dial-stdio` reaches the daemon (at the socket `/path`) |
//! | `tcp://host:port` | an address without or, when `DOCKER_TLS_VERIFY` is set, with TLS |
//! | `muster://host[:port]` | an address with TLS, port 2376 unless given |

use super::error::{ClientError, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a daemon listens when nothing else is said.
pub const DEFAULT_HOST: &str = "unix:///run/muster/muster.sock";
/// Ports of the API, as Docker's.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub(super) way: Way,
}

/// How it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Unix(PathBuf),
    Ssh(SshHost),
    Tcp {
        host: String,
        port: u16,
        /// Whether TLS is spoken there.
        tls: bool,
    },
}

/// A host that `ssh` reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshHost {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Of the daemon's socket there, if it is not the default one.
    pub(super) socket: Option<String>,
}

impl Host {
    /// Reads one of the forms above.
    ///
    /// # Errors
    /// [`ClientError::Host`] for other schemes, and for what cannot be an address.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |reason: &str| ClientError::Host {
            host: text.to_owned(),
            reason: reason.to_owned(),
        };
        let way = match text.split_once("://") {
            Some(("unix", path)) => unix(path).map_err(refuse)?,
            None => unix(text).map_err(refuse)?,
            Some(("ssh", rest)) => Way::Ssh(ssh(rest).map_err(refuse)?),
            Some(("tcp", rest)) => {
                let tls =
                    std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|text| !text.is_empty());
                let port = if tls { TLS_PORT } else { PLAIN_PORT };
                tcp(rest, port, tls).map_err(refuse)?
            }
            Some(("muster", rest)) => tcp(rest, TLS_PORT, true).map_err(refuse)?,
            Some(("http" | "https", _)) => {
                return Err(refuse(
                    "write tcp://host:port, or muster://host:port for TLS",
                ));
            }
            Some(_) => {
                return Err(refuse(
                    "unknown scheme: write unix:///path/to/socket, ssh://host, tcp://host:port or muster://host",
                ));
            }
        };
        Ok(Self { way })
    }

    /// Path of the socket, if it is one of this host.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match &self.way {
            Way::Unix(path) => Some(path),
            _ => None,
        }
    }
}

fn unix(path: &str) -> std::result::Result<Way, &'static str> {
    if !path.starts_with('/') {
        return Err("the path of a unix socket must be absolute: write unix:///path/to/socket");
    }
    // sun_path holds 108 bytes with its terminating zero.
    if path.len() > 107 {
        return Err("the path of a unix socket has at most 107 bytes: use a shorter unix:///path");
    }
    Ok(Way::Unix(PathBuf::from(path)))
}

fn ssh(rest: &str) -> std::result::Result<SshHost, &'static str> {
    let (address, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, address) = match address.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, address),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err("a password in an address is not supported: let ssh ask, or use a key");
    }
    let (host, port) = host_and_port(address)?;
    // What begins with a dash would be an option to ssh.
    if host.is_empty() || host.starts_with('-') || user.is_some_and(|user| user.starts_with('-')) {
        return Err("write ssh://[user@]host[:port]");
    }
    let socket = Some(path).filter(|path| path.len() > 1);
    Ok(SshHost {
        user: user.filter(|user| !user.is_empty()).map(str::to_owned),
        host: host.to_owned(),
        port,
        socket: socket.map(str::to_owned),
    })
}

fn tcp(rest: &str, default: u16, tls: bool) -> std::result::Result<Way, &'static str> {
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains(['/', '@']) {
        return Err("write host:port, without user and path");
    }
    let (host, port) = host_and_port(address)?;
    if host.is_empty() {
        return Err("the host is missing: write host:port");
    }
    Ok(Way::Tcp {
        host: host.to_owned(),
        port: port.unwrap_or(default),
        tls,
    })
}

/// `host`, `host:port`, `[address]:port`.
fn host_and_port(text: &str) -> std::result::Result<(&str, Option<u16>), &'static str> {
    let number = |port: &str| port.parse::<u16>().map_err(|_| "the port is no number");
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(number(port)?))),
            None => Ok((host, None)),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => Ok((host, Some(number(port)?))),
        _ => Ok((text, None)),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Unix(path) => write!(f, "unix://{}", path.display()),
            Way::Ssh(ssh) => {
                f.write_str("ssh://")?;
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&ssh.host)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(ssh.socket.as_deref().unwrap_or_default())
            }
            Way::Tcp { host, port, tls } => {
                let scheme = if *tls { "muster" } else { "tcp" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}"),
                    false => write!(f, "{scheme}://{host}:{port}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_are_refused_with_a_way_out() {
        assert_eq!(Host::parse(DEFAULT_HOST).unwrap().to_string(), DEFAULT_HOST);
        for (text, same) in [
            ("/run/x.sock", "unix:///run/x.sock"),
            ("ssh://there", "ssh://there"),
            (
                "ssh://me@there:22/run/m.sock",
                "ssh://me@there:22/run/m.sock",
            ),
            ("ssh://[2001:db8::1]:22/", "ssh://2001:db8::1:22"),
            ("muster://there", "muster://there:2376"),
            ("muster://[::1]:7/", "muster://[::1]:7"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), same);
        }
        for bad in [
            "unix://relative",
            "relative",
            "gopher://x",
            "",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@there",
            "ssh://me:password@there",
            "ssh://there:x",
            "muster://",
            "muster://there/path",
            "muster://[::1",
            "https://there",
        ] {
            Host::parse(bad).expect_err(bad);
        }
        let message = Host::parse("gopher://x").unwrap_err().to_string();
        assert!(message.contains("unix:///"), "{message}");
        assert!(Host::parse(&format!("unix:///{}", "x".repeat(108))).is_err());
    }
}
