//! Published and exposed ports: from requests to what netdriver publishes, and from what it published to what the API
//! shows. Pure.

use std::net::IpAddr;

use agent_api::{ContainerConfig, HostConfig, Port, PortBinding, PortMap};
use netdriver::{PortRequest, Protocol};

use super::container::Container;
use crate::error::{Error, Result};

/// Reads `80/tcp`, `80`, `53/udp`.
fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Err(Error::unsupported("publishing SCTP ports")),
        other => {
            return Err(Error::invalid(format!(
                "invalid port specification: {text:?}: invalid protocol: {other}"
            )));
        }
    };
    match number.parse() {
        Ok(port) if port != 0 => Ok((port, protocol)),
        _ => Err(Error::invalid(format!(
            "invalid port specification: {text:?}"
        ))),
    }
}

fn parse_host_ports(text: &str) -> Result<Option<(u16, u16)>> {
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (
        first.parse().map_err(|_| invalid())?,
        last.parse().map_err(|_| invalid())?,
    );
    if first == 0 || first > last {
        return Err(invalid());
    }
    Ok(Some((first, last)))
}

/// What is to be published.
pub(crate) fn requests(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let (container_port, protocol) = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                address => Some(address.trim_matches(['[', ']']).parse().map_err(|_| {
                    Error::invalid(format!(
                        "invalid port specification: {address:?} is not an IP address"
                    ))
                })?),
            };
            let host_ports = parse_host_ports(&binding.host_port)?;
            requests.push(PortRequest {
                container_port,
                protocol,
                host_ip,
                host_ports,
            });
        }
    }
    if host.publish_all_ports {
        for port in config.exposed_ports.iter().flatten().map(|(port, _)| port) {
            let (container_port, protocol) = parse_port(port)?;
            let taken = |request: &PortRequest| {
                (request.container_port, request.protocol) == (container_port, protocol)
            };
            if !requests.iter().any(taken) {
                requests.push(PortRequest {
                    container_port,
                    protocol,
                    host_ip: None,
                    host_ports: None,
                });
            }
        }
    }
    Ok(requests)
}

/// Ports as `inspect` shows them: published ones with their addresses, exposed ones with `null`.
pub(crate) fn port_map(container: &Container) -> PortMap {
    let mut map = PortMap::new();
    let Some(attachment) = &container.attachment else {
        return map;
    };
    let exposed = container.definition.config.exposed_ports.iter().flatten();
    for (port, _) in exposed {
        map.insert(
            if port.contains('/') {
                port.clone()
            } else {
                format!("{port}/tcp")
            },
            None,
        );
    }
    for port in &attachment.ports {
        let key = format!("{}/{}", port.container_port, port.protocol.name());
        map.entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: port.host_ip.to_string(),
                host_port: port.host_port.to_string(),
            });
    }
    map
}

/// Ports as a list shows them, published ones first.
pub(crate) fn port_list(container: &Container) -> Vec<Port> {
    let Some(attachment) = &container.attachment else {
        return Vec::new();
    };
    let mut list: Vec<Port> = attachment
        .ports
        .iter()
        .map(|port| Port {
            ip: Some(show_address(port.host_ip)),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            protocol: port.protocol.name().to_owned(),
        })
        .collect();
    for (port, _) in container.definition.config.exposed_ports.iter().flatten() {
        if let Ok((private_port, protocol)) = parse_port(port)
            && !list.iter().any(|other| {
                other.private_port == private_port && other.protocol == protocol.name()
            })
        {
            list.push(Port {
                private_port,
                protocol: protocol.name().to_owned(),
                ..Port::default()
            });
        }
    }
    list.sort_by(|a, b| {
        (a.private_port, &a.protocol, &a.ip).cmp(&(b.private_port, &b.protocol, &b.ip))
    });
    list
}

fn show_address(address: IpAddr) -> String {
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::Empty;

    fn bound(port: &str, host_ip: &str, host_port: &str) -> HostConfig {
        let binding = PortBinding {
            host_ip: host_ip.into(),
            host_port: host_port.into(),
        };
        HostConfig {
            port_bindings: [(port.to_owned(), Some(vec![binding]))].into(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn bindings_are_read() {
        let one = |host: HostConfig| {
            requests(&ContainerConfig::default(), &host).map(|mut list| list.remove(0))
        };
        let request = one(bound("53/udp", "127.0.0.1", "8000-8010")).unwrap();
        assert_eq!(request.container_port, 53);
        assert_eq!(request.protocol, Protocol::Udp);
        assert_eq!(request.host_ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(request.host_ports, Some((8000, 8010)));
        assert_eq!(one(bound("80", "", "")).unwrap().host_ports, None);
        for bad in [
            bound("80", "", "x"),
            bound("0", "", ""),
            bound("80", "host", ""),
            bound("80", "", "9-8"),
        ] {
            assert!(matches!(one(bad), Err(Error::InvalidParameter(_))));
        }
        assert!(matches!(
            one(bound("80/sctp", "", "")),
            Err(Error::NotImplemented(_))
        ));
    }

    #[test]
    fn publish_all_adds_what_is_exposed_and_not_bound() {
        let exposed = ["80/tcp", "81/udp"].map(|port| (port.to_owned(), Empty {}));
        let config = ContainerConfig {
            exposed_ports: Some(exposed.into()),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            publish_all_ports: true,
            ..bound("80/tcp", "", "8080")
        };
        let ports: Vec<_> = requests(&config, &host)
            .unwrap()
            .into_iter()
            .map(|request| (request.container_port, request.host_ports))
            .collect();
        assert_eq!(ports, [(80, Some((8080, 8080))), (81, None)]);
    }
}
