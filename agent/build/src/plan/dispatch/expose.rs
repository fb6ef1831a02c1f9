//! EXPOSE: ports, ranges and protocols. Follows BuildKit's `convert_expose.go`.

use super::At;
use crate::plan::planner::Planner;
use crate::plan::{Empty, PlanError, lints};
use crate::quote::quote;

/// What one word of EXPOSE says.
#[derive(Debug, PartialEq, Eq)]
struct PortSpec {
    first: u16,
    last: u16,
    protocol: String,
    /// The protocol was not written in lower case.
    odd_case: bool,
    /// An address or a port of the host was written, which EXPOSE has no use for.
    published: bool,
}

impl Planner<'_> {
    pub(super) fn expose(&mut self, at: At<'_>, words: &[String]) -> Result<(), PlanError> {
        let mut ports = Vec::new();
        for word in words {
            let expanded = self.lexer.expand(word, &self.stages[at.state].env)?;
            for written in expanded.words {
                let spec = PortSpec::parse(&written).map_err(PlanError::invalid)?;
                lints::exposed(
                    self,
                    at.instruction,
                    &written,
                    spec.odd_case,
                    spec.published,
                );
                self.spend(64 * (1 + usize::from(spec.last - spec.first)))?;
                let protocol = spec.protocol.to_lowercase();
                ports.extend((spec.first..=spec.last).map(|port| format!("{port}/{protocol}")));
            }
        }
        self.record(at.state, format!("EXPOSE [{}]", ports.join(" ")), false)?;
        let exposed = &mut self.stages[at.state].image.config.exposed_ports;
        exposed.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }
}

impl PortSpec {
    /// `[[ip:]host:]port[-port][/protocol]`; the error is the message.
    fn parse(written: &str) -> Result<PortSpec, String> {
        let (rest, container) = written.rsplit_once(':').unwrap_or(("", written));
        let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));

        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        let about = |problem: String| format!("invalid port: {}: {problem}", quote(written));
        if port.is_empty() {
            return Err(about("no port specified".to_owned()));
        }
        let protocol = match protocol.to_lowercase().as_str() {
            "" => "tcp",
            "tcp" | "udp" | "sctp" => protocol,
            _ => return Err(about(format!("invalid proto: {protocol}"))),
        };

        let address = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
        let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
        if !host.is_empty() {
            let (low, high) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
            if last - first != high - low && first != last {
                return Err(format!(
                    "invalid ranges specified for container and host Ports: {port} and {host}"
                ));
            }
        }
        Ok(PortSpec {
            first,
            last,
            odd_case: protocol != protocol.to_lowercase(),
            protocol: protocol.to_owned(),
            published: !ip.is_empty() || !host.is_empty(),
        })
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_ports_and_a_protocol() {
        for (word, ports, protocol, published) in [
            ("80", (80, 80), "tcp", false),
            ("80/udp", (80, 80), "udp", false),
            ("8000-8002/sctp", (8000, 8002), "sctp", false),
            ("8080:80", (80, 80), "tcp", true),
            ("127.0.0.1:8080:80", (80, 80), "tcp", true),
            ("[::1]:8080:80", (80, 80), "tcp", true),
            ("8000-8009:80", (80, 80), "tcp", true),
        ] {
            let spec = PortSpec::parse(word).unwrap();
            assert_eq!((spec.first, spec.last), ports, "{word}");
            assert_eq!(
                (spec.protocol.as_str(), spec.published),
                (protocol, published),
                "{word}"
            );
        }
    }

    #[test]
    fn other_words_are_refused_with_the_reason() {
        for (word, message) in [
            ("", r#"invalid port: "": no port specified"#),
            ("/tcp", r#"invalid port: "/tcp": no port specified"#),
            ("80/icmp", r#"invalid port: "80/icmp": invalid proto: icmp"#),
            ("x", "invalid containerPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("9-8", "invalid containerPort: 9-8"),
            ("x:80", "invalid hostPort: x"),
            ("a:1:80", "invalid IP address: a"),
            (
                "1-3:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 1-3",
            ),
        ] {
            assert_eq!(PortSpec::parse(word).unwrap_err(), message, "{word}");
        }
    }
}
