//! The short forms of ports and volumes, as text in and parts out.
//!
//! Grammar: docker/go-connections `nat.ParsePortSpec` and compose-go `format/volume.go`. No tree, no defaults.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// One port of a short form, ranges expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShortPort {
    pub(crate) host_ip: Option<String>,
    pub(crate) published: Option<String>,
    pub(crate) target: u16,
    pub(crate) protocol: String,
}

/// `[IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]`.
pub(crate) fn ports(text: &str) -> Result<Vec<ShortPort>, String> {
    let (address, protocol) = match text.split_once('/') {
        Some((address, protocol)) => (address, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!(
            "invalid protocol {protocol:?} in port {text:?}: use tcp, udp or sctp"
        ));
    }
    let (host_ip, host, container) = split(address);
    if container.is_empty() {
        return Err(format!("no container port in {text:?}"));
    }
    let host_ip = match host_ip {
        "" => None,
        written => {
            let bare = written
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or(written);
            if bare.parse::<IpAddr>().is_err() {
                return Err(format!("invalid address {written:?} in port {text:?}"));
            }
            Some(bare.to_owned())
        }
    };
    let container = range(container).ok_or_else(|| {
        format!("invalid container port {container:?} in {text:?}: use 1 to 65535")
    })?;
    let port = |published: Option<String>, target: u16| ShortPort {
        host_ip: host_ip.clone(),
        published,
        target,
        protocol: protocol.clone(),
    };
    if host.is_empty() {
        return Ok(container.map(|target| port(None, target)).collect());
    }
    let bounds = range(host)
        .ok_or_else(|| format!("invalid host port {host:?} in {text:?}: use 0 to 65535"))?;
    if bounds.len() != container.len() {
        if container.len() == 1 {
            return Ok(vec![port(Some(host.to_owned()), *container.start())]);
        }
        return Err(format!(
            "port ranges of different length in {text:?}: {} host ports, {} container ports",
            bounds.len(),
            container.len()
        ));
    }
    Ok(bounds
        .zip(container)
        .map(|(published, target)| port(Some(published.to_string()), target))
        .collect())
}

/// Address, host part, container part; the address may contain colons.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((front, container)) = text.rsplit_once(':') else {
        return ("", "", text);
    };
    match front.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", front, container),
    }
}

/// `N` or `FROM-TO`, not descending.
pub(crate) fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let digits = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u16>().ok(),
        false => None,
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (digits(from)?, digits(to)?);
    (from <= to).then_some(from..=to)
}

/// The parts of a short volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortVolume {
    pub(crate) source: Option<String>,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) nocopy: bool,
    pub(crate) propagation: Option<String>,
    pub(crate) selinux: Option<String>,
    /// The source is a path of the host.
    pub(crate) bind: bool,
    /// Options that mean nothing to Compose.
    pub(crate) unknown: Vec<String>,
}

/// `[SOURCE:]TARGET[:OPTIONS]`. Colons inside `${…}` do not count, nor does that of a Windows drive.
pub(crate) fn volume(text: &str) -> Result<ShortVolume, String> {
    let invalid = |why: &str| format!("invalid volume {text:?}: {why}");
    if text.is_empty() {
        return Err(invalid("it is empty"));
    }
    if text.chars().count() <= 2 {
        return Ok(ShortVolume {
            target: text.to_owned(),
            ..ShortVolume::default()
        });
    }
    let fields = fields(text);
    if fields.iter().any(|field| field.is_empty()) {
        return Err(invalid("empty section between colons"));
    }
    let (source, target, options) = match fields.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(invalid("too many colons")),
    };
    let mut volume = ShortVolume {
        source: source.map(str::to_owned),
        target: target.to_owned(),
        bind: source.is_some_and(is_host_path),
        ..ShortVolume::default()
    };
    for option in options.split(',') {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.nocopy = true,
            "z" | "Z" => volume.selinux = Some(option.to_owned()),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                volume.propagation = Some(option.to_owned());
            }
            "" | "cached" | "delegated" | "consistent" => {}
            other => volume.unknown.push(other.to_owned()),
        }
    }
    Ok(volume)
}

fn fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let (mut start, mut depth) = (0, 0u32);
    for (at, char) in text.char_indices() {
        match char {
            '$' if text[at + 1..].starts_with('{') => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ':' if depth == 0 && !is_drive(&text[start..at]) => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[start..]);
    fields
}

fn is_drive(field: &str) -> bool {
    let mut chars = field.chars();
    matches!((chars.next(), chars.next()), (Some(letter), None) if letter.is_alphabetic())
}

fn is_host_path(source: &str) -> bool {
    let mut chars = source.chars();
    source.starts_with(['.', '/', '~'])
        || source.starts_with("\\\\")
        || matches!((chars.next(), chars.next()), (Some(letter), Some(':')) if letter.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: Option<&str>, published: Option<&str>, target: u16, protocol: &str) -> ShortPort {
        ShortPort {
            host_ip: ip.map(str::to_owned),
            published: published.map(str::to_owned),
            target,
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn short_ports_expand() {
        assert_eq!(ports("80"), Ok(vec![port(None, None, 80, "tcp")]));
        assert_eq!(
            ports("8080:80/UDP"),
            Ok(vec![port(None, Some("8080"), 80, "udp")])
        );
        assert_eq!(
            ports("127.0.0.1:8001-8002:81-82"),
            Ok(vec![
                port(Some("127.0.0.1"), Some("8001"), 81, "tcp"),
                port(Some("127.0.0.1"), Some("8002"), 82, "tcp"),
            ])
        );
        assert_eq!(
            ports("[::1]:6001:6001"),
            Ok(vec![port(Some("::1"), Some("6001"), 6001, "tcp")])
        );
        assert_eq!(
            ports("::1::6001"),
            Ok(vec![port(Some("::1"), None, 6001, "tcp")])
        );
        assert_eq!(
            ports("8083-9000:80"),
            Ok(vec![port(None, Some("8083-9000"), 80, "tcp")])
        );
        assert_eq!(ports("3000-3002").map(|list| list.len()), Ok(3));
        for text in [
            "",
            "a",
            "80:",
            ":",
            "1-3:1-2",
            "70000",
            "3-1",
            "999.0.0.1:1:1",
            "80/foo",
            "+80",
        ] {
            assert!(ports(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn short_volumes_split() {
        let parsed = volume("./data:/var/lib:ro,z").expect("valid");
        assert_eq!(parsed.source.as_deref(), Some("./data"));
        assert_eq!(parsed.target, "/var/lib");
        assert!(parsed.read_only && parsed.bind);
        assert_eq!(parsed.selinux.as_deref(), Some("z"));
        let named = volume("db:/data").expect("valid");
        assert!(!named.bind);
        assert_eq!(volume("/data").expect("valid").source, None);
        let windows = volume("C:\\data:/data").expect("valid");
        assert_eq!(windows.source.as_deref(), Some("C:\\data"));
        assert!(windows.bind);
        assert_eq!(
            volume("${A:-x}:/y").expect("valid").source.as_deref(),
            Some("${A:-x}")
        );
        for text in ["", "ab::cd", "aa:bb:cc:dd", ":/x1", "abc:"] {
            assert!(volume(text).is_err(), "{text:?}");
        }
    }
}
