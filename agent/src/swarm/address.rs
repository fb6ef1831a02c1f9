//! Which addresses a node listens on and tells others: what `--listen-addr`, `--advertise-addr` and `--data-path-addr`
//! mean on this host (moby `daemon/cluster/listen_addr.go`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::error::{Error, Result};

/// Where managers and agents talk, unless a port is given.
pub(crate) const DEFAULT_PORT: u16 = 2377;

/// An address of an interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) listen: &'a str,
    pub(crate) advertise: &'a str,
    pub(crate) data_path: &'a str,
}

/// What it means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: SocketAddr,
    pub(crate) data_path: IpAddr,
}

/// Finds out the addresses. `interfaces` are those of this host without the engine's own.
pub(crate) fn resolve(asked: Asked<'_>, interfaces: &[Interface]) -> Result<Addresses> {
    let listen = match asked.listen {
        "" => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
        text => host_and_port(text, DEFAULT_PORT, "listen address", interfaces)?,
    };
    let advertise = match asked.advertise {
        "" if !listen.ip().is_unspecified() => listen,
        "" => SocketAddr::new(the_only_address(interfaces)?, listen.port()),
        text => host_and_port(text, listen.port(), "advertise address", interfaces)?,
    };
    if advertise.ip().is_unspecified() {
        return Err(Error::invalid(
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ));
    }
    let data_path = match asked.data_path {
        "" => advertise.ip(),
        text => host(text, "data path address", interfaces)?,
    };
    if data_path.is_unspecified() {
        return Err(Error::invalid(
            "data path address must be a non-zero IP address or network interface",
        ));
    }
    Ok(Addresses {
        listen,
        advertise,
        data_path,
    })
}

/// `HOST[:PORT]` of another node; the host is an address or a name.
pub(crate) fn remote(text: &str) -> Result<String> {
    let bad = |reason: &str| {
        Error::invalid(format!(
            "invalid remote address {text:?}: {reason}; expected HOST[:PORT] of a manager"
        ))
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DEFAULT_PORT).to_string());
    }
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "2377"));
    let port: u16 = port.parse().map_err(|_| bad("the port is no number"))?;
    if name.is_empty() || name.contains(['/', ':', ' ']) {
        return Err(bad("it has no host"));
    }
    Ok(format!("{name}:{port}"))
}

/// The addresses of this host that could be told others.
pub(crate) fn interfaces() -> Result<Vec<Interface>> {
    let all = nix::ifaddrs::getifaddrs()
        .map_err(|error| Error::system(format!("cannot list network interfaces: {error}")))?;
    let found = all.filter_map(|interface| {
        let address = interface.address?;
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) if !is_link_local(v6.ip()) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        let name = interface.interface_name;
        (!address.is_loopback() && !is_own(&name)).then_some(Interface { name, address })
    });
    Ok(found.collect())
}

fn is_link_local(address: std::net::Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// Interfaces container engines make.
fn is_own(name: &str) -> bool {
    ["docker", "br-", "veth", "vx", "muster", "cni", "podman"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn host_and_port(
    text: &str,
    default_port: u16,
    what: &str,
    interfaces: &[Interface],
) -> Result<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(SocketAddr::new(host(text, what, interfaces)?, default_port));
    }
    let (name, port) = match text.rsplit_once(':') {
        None => (text, default_port),
        Some((name, port)) => {
            let port = port.parse().map_err(|_| {
                Error::invalid(format!("invalid {what} {text:?}: the port is no number"))
            })?;
            (name, port)
        }
    };
    Ok(SocketAddr::new(host(name, what, interfaces)?, port))
}

fn host(text: &str, what: &str, interfaces: &[Interface]) -> Result<IpAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let mut of_interface = interfaces
        .iter()
        .filter(|interface| interface.name == text)
        .map(|interface| interface.address);
    // As in Docker, an interface stands for its IPv4 address if it has one.
    let first = of_interface.clone().find(IpAddr::is_ipv4);
    let address = first.or_else(|| of_interface.next()).ok_or_else(|| {
        Error::invalid(format!(
            "invalid {what} {text:?}: no IP address, and no interface of this host with an address"
        ))
    })?;
    let others: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| interface.name == text && interface.address.is_ipv4())
        .map(|interface| interface.address)
        .filter(|other| *other != address)
        .collect();
    match others.first() {
        None => Ok(address),
        Some(other) => Err(Error::invalid(format!(
            "interface {text} has more than one IPv4 address ({address} and {other}): give the address itself as {what}"
        ))),
    }
}

/// The address to advertise when nobody said.
fn the_only_address(interfaces: &[Interface]) -> Result<IpAddr> {
    let of_family = |v4: bool| {
        interfaces
            .iter()
            .filter(move |interface| interface.address.is_ipv4() == v4)
            .collect::<Vec<_>>()
    };
    let candidates = match of_family(true) {
        v4 if !v4.is_empty() => v4,
        _ => of_family(false),
    };
    match candidates[..] {
        [] => Err(Error::invalid(
            "could not find the system's IP address - specify one with --advertise-addr",
        )),
        [one] => Ok(one.address),
        [first, second, ..] if first.name == second.name => Err(Error::invalid(format!(
            "could not choose an IP address to advertise since this system has multiple addresses on interface {} ({} and {}) - specify one with --advertise-addr",
            first.name, first.address, second.address
        ))),
        [first, second, ..] => Err(Error::invalid(format!(
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({} on {} and {} on {}) - specify one with --advertise-addr",
            first.address, first.name, second.address, second.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_with(interfaces: &[(&str, &str)]) -> Vec<Interface> {
        interfaces
            .iter()
            .map(|(name, address)| Interface {
                name: (*name).to_owned(),
                address: address.parse().unwrap(),
            })
            .collect()
    }

    #[test]
    fn what_is_asked_for_is_understood_as_docker_does() {
        let host = host_with(&[("eth0", "192.0.2.7"), ("eth0", "2001:db8::7")]);
        for (listen, advertise, data_path, expected) in [
            ("", "", "", "0.0.0.0:2377 192.0.2.7:2377 192.0.2.7"),
            ("eth0", "", "", "192.0.2.7:2377 192.0.2.7:2377 192.0.2.7"),
            (
                "0.0.0.0:4000",
                "eth0",
                "",
                "0.0.0.0:4000 192.0.2.7:4000 192.0.2.7",
            ),
            (
                "0.0.0.0",
                "203.0.113.1:5000",
                "eth0",
                "0.0.0.0:2377 203.0.113.1:5000 192.0.2.7",
            ),
            (
                "[::]:2377",
                "2001:db8::7",
                "",
                "[::]:2377 [2001:db8::7]:2377 2001:db8::7",
            ),
            (
                "eth0:2378",
                "",
                "192.0.2.9",
                "192.0.2.7:2378 192.0.2.7:2378 192.0.2.9",
            ),
        ] {
            let asked = Asked {
                listen,
                advertise,
                data_path,
            };
            let found = resolve(asked, &host).unwrap();
            let text = format!("{} {} {}", found.listen, found.advertise, found.data_path);
            assert_eq!(text, expected, "{asked:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_what_to_do() {
        let two = host_with(&[("eth0", "192.0.2.7"), ("eth1", "198.51.100.7")]);
        let same = host_with(&[("eth0", "192.0.2.7"), ("eth0", "192.0.2.8")]);
        for (host, asked, text) in [
            (
                &two,
                Asked::default(),
                "on different interfaces (192.0.2.7 on eth0 and 198.51.100.7 on eth1)",
            ),
            (
                &same,
                Asked::default(),
                "multiple addresses on interface eth0",
            ),
            (
                &Vec::new(),
                Asked::default(),
                "could not find the system's IP address",
            ),
            (
                &same,
                Asked {
                    advertise: "eth0",
                    ..Asked::default()
                },
                "more than one IPv4 address",
            ),
            (
                &two,
                Asked {
                    advertise: "0.0.0.0",
                    ..Asked::default()
                },
                "must be a non-zero IP address",
            ),
            (
                &two,
                Asked {
                    advertise: "eth7",
                    ..Asked::default()
                },
                "invalid advertise address \"eth7\"",
            ),
            (
                &two,
                Asked {
                    listen: "eth0:x",
                    ..Asked::default()
                },
                "the port is no number",
            ),
            (
                &two,
                Asked {
                    advertise: "eth0",
                    data_path: "::",
                    ..Asked::default()
                },
                "data path address must be",
            ),
        ] {
            let error = resolve(asked, host).unwrap_err().to_string();
            assert!(error.contains(text), "{asked:?}: {error}");
        }
    }

    #[test]
    fn other_nodes_have_a_default_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:2377"),
            ("192.0.2.1:99", "192.0.2.1:99"),
            ("2001:db8::1", "[2001:db8::1]:2377"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99"),
            ("manager.example", "manager.example:2377"),
            ("manager.example:99", "manager.example:99"),
        ] {
            assert_eq!(remote(text).unwrap(), expected);
        }
        for text in ["", ":99", "a:b", "http://x:1", "a b:1"] {
            assert!(remote(text).is_err(), "{text}");
        }
    }
}
