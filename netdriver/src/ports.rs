//! Host ports: which are given out, each held by a socket bound to it, so that neither another
//! container nor another program gets the same one. Packets never reach these sockets (the firewall
//! sends them on), except IPv6 ones a [relay](crate::relay) serves.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::spec::{PortBinding, PortRequest, Protocol};
use crate::{Error, Result};

/// Docker's range when the kernel does not tell.
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Connections that may wait for a relay.
const BACKLOG: i32 = 128;

/// Which families a container can be reached in without a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

/// A host port given out.
pub(crate) struct HeldPort {
    pub(crate) binding: PortBinding,
    /// Bound, and listening if it is TCP.
    pub(crate) socket: OwnedFd,
}

type Key = (IpAddr, Protocol, u16);

/// All host ports of this daemon, with the words for who has each.
#[derive(Default)]
pub(crate) struct Ports {
    holders: HashMap<Key, String>,
    next_ephemeral: u16,
}

impl Ports {
    /// Takes the host ports for a sandbox's requests, all or none. `holder` says whose they are, to
    /// whoever wants one of them later.
    pub(crate) fn allocate(
        &mut self,
        holder: &str,
        requests: &[PortRequest],
        default_address: Option<IpAddr>,
        families: Families,
    ) -> Result<Vec<HeldPort>> {
        let mut held = Vec::new();
        for request in requests {
            match self.allocate_one(request, default_address, families) {
                Ok(ports) => {
                    for port in &ports {
                        self.holders.insert(key(&port.binding), holder.to_owned());
                    }
                    held.extend(ports);
                }
                Err(error) => {
                    self.release(held.iter().map(|port| &port.binding));
                    return Err(error);
                }
            }
        }
        Ok(held)
    }

    /// Binds a port given out in an earlier life again.
    pub(crate) fn adopt(&mut self, holder: &str, binding: &PortBinding) -> Result<HeldPort> {
        self.holders.insert(key(binding), holder.to_owned());
        let socket =
            hold(binding.host_ip, binding.host_port, binding.protocol).map_err(|source| {
                bind_error(binding.host_ip, binding.host_port, binding.protocol, source)
            })?;
        Ok(HeldPort {
            binding: binding.clone(),
            socket,
        })
    }

    /// Takes this very port.
    pub(crate) fn take(&mut self, holder: &str, binding: &PortBinding) -> Result<HeldPort> {
        let PortBinding {
            host_ip,
            host_port,
            protocol,
            ..
        } = *binding;
        match hold(host_ip, host_port, protocol) {
            Ok(socket) => {
                self.holders.insert(key(binding), holder.to_owned());
                Ok(HeldPort {
                    binding: binding.clone(),
                    socket,
                })
            }
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                Err(self.clash(host_ip, host_port, protocol))
            }
            Err(source) => Err(bind_error(host_ip, host_port, protocol, source)),
        }
    }

    fn clash(&self, address: IpAddr, port: u16, protocol: Protocol) -> Error {
        let holder = self
            .holder(address, port, protocol)
            .map(|holder| format!(" (by {holder})"));
        Error::PortAllocated {
            address,
            port,
            holder: holder.unwrap_or_default(),
        }
    }

    /// Forgets ports whose sockets are closed or about to be.
    pub(crate) fn release<'a>(&mut self, bindings: impl IntoIterator<Item = &'a PortBinding>) {
        for binding in bindings {
            self.holders.remove(&key(binding));
        }
    }

    fn allocate_one(
        &mut self,
        request: &PortRequest,
        default_address: Option<IpAddr>,
        families: Families,
    ) -> Result<Vec<HeldPort>> {
        let protocol = request.protocol;
        let served = |address: &IpAddr| {
            // No relay for datagrams.
            let direct = if address.is_ipv4() {
                families.ipv4
            } else {
                families.ipv6
            };
            protocol == Protocol::Tcp || direct
        };
        let addresses: Vec<IpAddr> = match request.host_ip.or(default_address) {
            Some(address) if !served(&address) => {
                let text = format!(
                    "UDP port {} on {address}: the container has no address of that family",
                    request.container_port
                );
                return Err(Error::Invalid(text));
            }
            Some(address) => vec![address],
            None => {
                let any = [
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                ];
                any.into_iter().filter(served).collect()
            }
        };
        let optional_v6 = request.host_ip.is_none() && default_address.is_none();
        let (first, last) = request.host_ports.unwrap_or_else(ephemeral_range);
        let reserved = if request.host_ports.is_none() {
            reserved_ports()
        } else {
            Vec::new()
        };
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = match request.host_ports {
            Some(_) => 0,
            None => u32::from(self.next_ephemeral.saturating_sub(first)) % count,
        };
        for step in 0..count {
            let port = first + u16::try_from((start + step) % count).expect("ports have 16 bits");
            if request.host_ports.is_none() && reserved.iter().any(|range| range.contains(&port)) {
                continue;
            }
            match self.hold_all(&addresses, port, protocol, optional_v6) {
                Ok(sockets) => {
                    if request.host_ports.is_none() {
                        self.next_ephemeral = port.wrapping_add(1);
                    }
                    let held = sockets.into_iter().map(|(host_ip, socket)| HeldPort {
                        binding: PortBinding {
                            container_port: request.container_port,
                            protocol,
                            host_ip,
                            host_port: port,
                        },
                        socket,
                    });
                    return Ok(held.collect());
                }
                Err((_, source)) if source.kind() == io::ErrorKind::AddrInUse && count > 1 => {
                    continue;
                }
                Err((address, source)) if source.kind() == io::ErrorKind::AddrInUse => {
                    return Err(self.clash(address, port, protocol));
                }
                Err((address, source)) => return Err(bind_error(address, port, protocol, source)),
            }
        }
        Err(Error::PortsExhausted {
            address: addresses[0],
            first,
            last,
            protocol: protocol.name(),
        })
    }

    fn hold_all(
        &self,
        addresses: &[IpAddr],
        port: u16,
        protocol: Protocol,
        optional_v6: bool,
    ) -> std::result::Result<Vec<(IpAddr, OwnedFd)>, (IpAddr, io::Error)> {
        let mut sockets = Vec::new();
        for address in addresses {
            // Who had it before a restart of the daemon keeps it, also when it could not be bound then.
            if self.holder(*address, port, protocol).is_some() {
                return Err((*address, io::ErrorKind::AddrInUse.into()));
            }
            match hold(*address, port, protocol) {
                Ok(socket) => sockets.push((*address, socket)),
                // A host without IPv6 publishes on IPv4 alone.
                Err(error)
                    if optional_v6
                        && address.is_ipv6()
                        && error.kind() != io::ErrorKind::AddrInUse => {}
                Err(error) => return Err((*address, error)),
            }
        }
        Ok(sockets)
    }

    fn holder(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<&String> {
        self.holders
            .iter()
            .find(|((held, held_protocol, held_port), _)| {
                *held_port == port
                    && *held_protocol == protocol
                    && held.is_ipv4() == address.is_ipv4()
                    && (*held == address || held.is_unspecified() || address.is_unspecified())
            })
            .map(|(_, holder)| holder)
    }
}

fn key(binding: &PortBinding) -> Key {
    (binding.host_ip, binding.protocol, binding.host_port)
}

fn bind_error(address: IpAddr, port: u16, protocol: Protocol, source: io::Error) -> Error {
    Error::PortBind {
        address,
        port,
        protocol: protocol.name(),
        source,
    }
}

/// Binds and, for TCP, listens: only then another program cannot bind the port with `SO_REUSEADDR`,
/// which we need ourselves to be able to take a port back whose last connections still linger.
fn hold(address: IpAddr, port: u16, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(address, port))?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

fn ephemeral_range() -> (u16, u16) {
    let read = || {
        let text = crate::netns::read_sysctl("ipv4/ip_local_port_range")?;
        let (first, last) = text.split_once(char::is_whitespace)?;
        let range: (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (range.0 > 0 && range.0 <= range.1).then_some(range)
    };
    read().unwrap_or(EPHEMERAL)
}

/// Ports the administrator keeps from being chosen.
fn reserved_ports() -> Vec<RangeInclusive<u16>> {
    crate::netns::read_sysctl("ipv4/ip_local_reserved_ports")
        .map_or_else(Vec::new, |text| port_ranges(&text))
}

/// `80,8000-8010`.
fn port_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families {
        ipv4: true,
        ipv6: true,
    };

    fn request(host_ports: Option<(u16, u16)>) -> PortRequest {
        let host_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip,
            host_ports,
        }
    }

    #[test]
    fn a_clash_names_the_holder_and_leaves_nothing_held() {
        let mut ports = Ports::default();
        let first = ports
            .allocate("container web one", &[request(None)], None, BOTH)
            .unwrap();
        let taken = first[0].binding.host_port;
        let free = ports.allocate("two", &[request(None)], None, BOTH).unwrap();
        let free_port = free[0].binding.host_port;
        ports.release(free.iter().map(|port| &port.binding));
        drop(free);
        let wanted = [
            request(Some((free_port, free_port))),
            request(Some((taken, taken))),
        ];
        let error = ports.allocate("two", &wanted, None, BOTH).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "Bind for 127.0.0.1:{taken} failed: port is already allocated (by container web one)"
            )
        );
        // The port that could be had was given back.
        ports.allocate("three", &wanted[..1], None, BOTH).unwrap();
    }

    #[test]
    fn a_port_of_another_program_clashes_without_a_holder() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let error = Ports::default()
            .allocate(
                "container web one",
                &[request(Some((port, port)))],
                None,
                BOTH,
            )
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let first = other.local_addr().unwrap().port();
        let last = first.saturating_add(20);
        let mut ports = Ports::default();
        let held = ports
            .allocate(
                "container web one",
                &[request(Some((first, last)))],
                None,
                BOTH,
            )
            .unwrap();
        assert!((first + 1..=last).contains(&held[0].binding.host_port));
    }

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(port_ranges("80,8000-8010\n"), [80..=80, 8000..=8010]);
        assert_eq!(port_ranges(""), []);
    }

    #[test]
    fn a_datagram_port_is_not_claimed_in_a_family_nobody_serves() {
        let only_v4 = Families {
            ipv4: true,
            ipv6: false,
        };
        let udp = |host_ip| PortRequest {
            protocol: Protocol::Udp,
            host_ip,
            ..request(None)
        };
        let held = Ports::default()
            .allocate("x", &[udp(None)], None, only_v4)
            .unwrap();
        assert_eq!(held.len(), 1);
        let refused = Ports::default()
            .allocate("x", &[udp(Some(Ipv6Addr::LOCALHOST.into()))], None, only_v4)
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("UDP port 80 on ::1"),
            "{refused}"
        );
    }

    /// Another program had it when the daemon came back, and has given it up since.
    #[test]
    fn a_port_that_could_not_be_bound_again_is_still_its_holders() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let binding = PortBinding {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: Ipv4Addr::LOCALHOST.into(),
            host_port: port,
        };
        let mut ports = Ports::default();
        assert!(ports.adopt("the first", &binding).is_err());
        drop(other);
        let wanted = [request(Some((port, port)))];
        let Err(refused) = ports.allocate("the second", &wanted, None, BOTH) else {
            panic!("it is given out twice");
        };
        assert!(refused.to_string().contains("the first"), "{refused}");
        ports.release([&binding]);
        assert!(ports.allocate("the second", &wanted, None, BOTH).is_ok());
    }
}
