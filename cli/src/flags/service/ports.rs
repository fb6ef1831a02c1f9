//! `--publish`: `[PUBLISHED[-PUBLISHED]:]TARGET[-TARGET][/PROTOCOL]` or `target=…,published=…,protocol=…,mode=…`.
//! Source: docker/cli `opts/swarmopts/port.go`.

use crate::flags::mounts::csv;
use crate::flags::ports::Ports;
use agent_api::swarm::PortConfig;

/// The ports one flag publishes.
pub(super) fn publish(flag: &str) -> Result<Vec<PortConfig>, String> {
    if flag.contains('=') {
        return long(flag).map(|port| vec![port]);
    }
    let ports = Ports::parse(&[flag.to_owned()], &[])?;
    let mut all = Vec::new();
    for (key, bindings) in ports.bindings {
        let (target, protocol) = key.split_once('/').unwrap_or((&key, "tcp"));
        let target = number("target port", target)?;
        for binding in bindings.unwrap_or_default() {
            if !binding.host_ip.is_empty() {
                return Err(format!(
                    "invalid port {flag:?}: hostip is not supported: a service is published on all addresses"
                ));
            }
            let (from, to) = range(&binding.host_port)?;
            all.extend((from..=to).map(|published_port| PortConfig {
                name: String::new(),
                protocol: protocol.to_owned(),
                target_port: target,
                published_port,
                publish_mode: "ingress".to_owned(),
            }));
        }
    }
    Ok(all)
}

fn range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Ok((
        number("published port", from)?,
        number("published port", to)?,
    ))
}

fn number(what: &str, text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("invalid {what} ({text}): it is a number up to 65535"))
}

fn long(flag: &str) -> Result<PortConfig, String> {
    let mut port = PortConfig {
        protocol: "tcp".to_owned(),
        publish_mode: "ingress".to_owned(),
        ..PortConfig::default()
    };
    for field in csv(&flag.to_lowercase())? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field: {field}"))?;
        match (key, value) {
            ("protocol", "tcp" | "udp" | "sctp") => value.clone_into(&mut port.protocol),
            ("protocol", _) => return Err(format!("invalid protocol value '{value}'")),
            ("mode", "ingress" | "host") => value.clone_into(&mut port.publish_mode),
            ("mode", _) => {
                return Err(format!(
                    "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                ));
            }
            ("target", _) => port.target_port = number("target port", value)?,
            ("published", _) => port.published_port = number("published port", value)?,
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if port.target_port == 0 {
        return Err("missing mandatory field 'target'".to_owned());
    }
    Ok(port)
}

/// Puts `add` into the ports of a service and takes `remove` out, sorted so that the order of flags means nothing.
pub(super) fn change(
    ports: &[PortConfig],
    add: &[String],
    remove: &[String],
) -> Result<Vec<PortConfig>, String> {
    let mut gone = Vec::new();
    for flag in remove {
        gone.extend(target(flag)?);
    }
    let is_gone = |port: &PortConfig| {
        gone.iter().any(|gone| {
            (port.target_port, protocol(port), mode(port))
                == (gone.target_port, protocol(gone), mode(gone))
        })
    };
    let mut result: Vec<PortConfig> = Vec::new();
    for port in ports {
        if !is_gone(port) && !result.iter().any(|other| words(other) == words(port)) {
            result.push(port.clone());
        }
    }
    for flag in add {
        for port in publish(flag)? {
            if !ports.iter().any(|other| words(other) == words(&port)) {
                result.push(port);
            }
        }
    }
    result.sort_by_key(words);
    Ok(result)
}

/// What `--publish-rm` names: a target port, also in the forms of `--publish`.
fn target(flag: &str) -> Result<Vec<PortConfig>, String> {
    publish(flag).map_err(|reason| format!("invalid port {flag:?} to remove: {reason}"))
}

fn protocol(port: &PortConfig) -> &str {
    if port.protocol.is_empty() {
        "tcp"
    } else {
        &port.protocol
    }
}

fn mode(port: &PortConfig) -> &str {
    if port.publish_mode.is_empty() {
        "ingress"
    } else {
        &port.publish_mode
    }
}

/// As Docker compares ports.
fn words(port: &PortConfig) -> String {
    let (published, target) = (port.published_port, port.target_port);
    format!("{published}:{target}/{}/{}", protocol(port), mode(port))
}
