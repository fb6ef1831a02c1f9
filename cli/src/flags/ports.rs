//! `-p` and `--expose`. Source: docker/go-connections `nat/nat.go`, docker/cli `opts/port.go`.

use agent_api::{Empty, PortBinding, PortMap, Set};

/// A range of ports, both ends included.
type Range = (u16, u16);

/// Ports that are exposed and how they are published.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Ports {
    pub(crate) exposed: Set,
    pub(crate) bindings: PortMap,
}

impl Ports {
    /// Reads all `-p` and `--expose` flags.
    pub(crate) fn parse(publish: &[String], expose: &[String]) -> Result<Self, String> {
        let mut ports = Self::default();
        for flag in publish {
            let result = if flag.contains("target=") {
                ports.publish_long(flag)
            } else {
                ports.publish(flag)
            };
            result.map_err(|reason| format!("invalid port {flag:?}: {reason}"))?;
        }
        for flag in expose {
            let (range, protocol) = protocol(flag);
            let (range, protocol) = range_and_protocol(range, protocol)
                .map_err(|reason| format!("invalid port {flag:?}: {reason}"))?;
            for port in range.0..=range.1 {
                ports.exposed.insert(format!("{port}/{protocol}"), Empty {});
            }
        }
        Ok(ports)
    }

    /// `[[address:][host]:]container[/protocol]`
    fn publish(&mut self, flag: &str) -> Result<(), String> {
        let (text, protocol) = protocol(flag);
        let (rest, container) = text
            .rsplit_once(':')
            .map_or(("", text), |(rest, container)| (rest, container));
        let (address, host) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (address, host) = bracketed
                    .split_once(']')
                    .ok_or("the bracket of the address is not closed")?;
                (address, host.strip_prefix(':').unwrap_or(host))
            }
            None => rest.rsplit_once(':').unwrap_or(("", rest)),
        };
        self.add(address, host, container, protocol)
    }

    /// `target=80,published=8080,protocol=tcp,mode=host`
    fn publish_long(&mut self, flag: &str) -> Result<(), String> {
        let (mut target, mut published, mut kind) = ("", "", "tcp");
        for field in flag.split(',') {
            match field
                .split_once('=')
                .ok_or_else(|| format!("{field:?} is not key=value"))?
            {
                ("target", value) => target = value,
                ("published", value) => published = value,
                ("protocol", value) => kind = value,
                ("mode", "host" | "ingress") => {}
                (key, value) => return Err(format!("unknown or invalid field {key}={value}")),
            }
        }
        self.add("", published, target, kind)
    }

    fn add(
        &mut self,
        address: &str,
        host: &str,
        container: &str,
        protocol: &str,
    ) -> Result<(), String> {
        if container.is_empty() {
            return Err("no container port".to_owned());
        }
        if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
        let (range, protocol) = range_and_protocol(container, protocol)?;
        let host = if host.is_empty() {
            None
        } else {
            Some(self::range(host)?)
        };
        let count = range.1 - range.0;
        let several = host.filter(|(start, end)| end - start != count);
        if several.is_some() && count != 0 {
            return Err("the ranges of container and host ports have different lengths".to_owned());
        }
        for (offset, port) in (range.0..=range.1).enumerate() {
            let host_port = match (host, several) {
                (None, _) => String::new(),
                (Some(_), Some((start, end))) => format!("{start}-{end}"),
                (Some((start, _)), None) => (usize::from(start) + offset).to_string(),
            };
            let key = format!("{port}/{protocol}");
            self.exposed.insert(key.clone(), Empty {});
            let binding = PortBinding {
                host_ip: address.to_owned(),
                host_port,
            };
            self.bindings
                .entry(key)
                .or_default()
                .get_or_insert_default()
                .push(binding);
        }
        Ok(())
    }
}

fn protocol(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, "tcp"))
}

fn range_and_protocol<'a>(text: &str, protocol: &'a str) -> Result<(Range, &'a str), String> {
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => {
            return Err(format!(
                "invalid protocol {protocol:?}: there are tcp, udp and sctp"
            ));
        }
    };
    Ok((range(text)?, protocol))
}

fn range(text: &str) -> Result<Range, String> {
    let port = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("{text:?} is no port number"))
    };
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let range = (port(start)?, port(end)?);
    if range.0 > range.1 {
        Err(format!("the range {text} ends before it begins"))
    } else {
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(flag: &str) -> Result<Vec<String>, String> {
        let ports = Ports::parse(&[flag.to_owned()], &[])?;
        let mut lines = Vec::new();
        for (port, bindings) in &ports.bindings {
            for binding in bindings.iter().flatten() {
                lines.push(format!("{}:{}->{port}", binding.host_ip, binding.host_port));
            }
        }
        Ok(lines)
    }

    #[test]
    fn every_form_of_publish_is_read() {
        for (flag, expected) in [
            ("80", vec![":->80/tcp"]),
            ("8080:80", vec![":8080->80/tcp"]),
            ("8080:80/udp", vec![":8080->80/udp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1:8080->80/tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1:->80/tcp"]),
            ("[::1]:8080:80", vec!["::1:8080->80/tcp"]),
            ("::1:8080:80", vec!["::1:8080->80/tcp"]),
            ("8080-8081:80-81", vec![":8080->80/tcp", ":8081->81/tcp"]),
            ("8080-8090:80", vec![":8080-8090->80/tcp"]),
            (
                "target=80,published=8080,protocol=udp",
                vec![":8080->80/udp"],
            ),
        ] {
            assert_eq!(bindings(flag).unwrap(), expected, "{flag}");
        }
        for bad in [
            "",
            "x",
            "80:",
            "1-2:3-5",
            "70000",
            "80/xyz",
            "256.1.1.1:1:1",
            "9-8",
            "[::1:80:80",
            "target=80,foo=1",
        ] {
            assert!(bindings(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expose_adds_without_publishing() {
        let ports = Ports::parse(&[], &["3000-3001".into(), "53/udp".into()]).unwrap();
        assert_eq!(
            ports.exposed.keys().collect::<Vec<_>>(),
            ["3000/tcp", "3001/tcp", "53/udp"]
        );
        assert!(ports.bindings.is_empty());
    }
}
