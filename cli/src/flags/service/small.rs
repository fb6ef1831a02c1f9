//! Syntaxes of one line: placement preferences, generic resources, lines of /etc/hosts, addresses.

use agent_api::swarm::{PlacementPreference, SpreadOver};
use serde_json::{Value, json};
use std::net::IpAddr;

/// `spread=node.labels.zone`
pub(super) fn preference(flag: &str) -> Result<PlacementPreference, String> {
    match flag.split_once('=') {
        Some(("spread", descriptor)) => Ok(PlacementPreference {
            spread: Some(SpreadOver {
                spread_descriptor: descriptor.to_owned(),
            }),
        }),
        Some((strategy, _)) if !strategy.is_empty() => Err(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        )),
        _ => Err("placement preference must be of the format \"<strategy>=<arg>\"".to_owned()),
    }
}

/// `gpu=2`
pub(super) fn generic_resources(flags: &[String]) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for entry in flags {
        let (kind, value) = entry
            .split_once('=')
            .filter(|(kind, _)| !kind.is_empty())
            .ok_or_else(|| format!("invalid generic-resource {entry:?}: write kind=number"))?;
        let value: i64 = value.parse().map_err(|_| {
            format!(
                "invalid generic-resource request `{kind}={value}`, Named Generic Resources is not supported for service create or update"
            )
        })?;
        all.push(json!({"DiscreteResourceSpec": {"Kind": kind, "Value": value}}));
    }
    Ok(all)
}

/// Name of a generic resource.
pub(super) fn kind(resource: &Value) -> &str {
    let discrete = resource["DiscreteResourceSpec"]["Kind"].as_str();
    discrete
        .or_else(|| resource["NamedResourceSpec"]["Kind"].as_str())
        .unwrap_or_default()
}

/// `host:ip` → `ip host`
pub(super) fn host(flag: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {flag:?}: write host:ip");
    let (name, address) = flag.split_once(':').ok_or_else(bad)?;
    let plain = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    if name.is_empty() {
        return Err(bad());
    }
    if address != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{address} {name}"))
}

/// An address of a DNS server.
pub(super) fn address(flag: &str) -> Result<String, String> {
    match flag.trim().parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {flag}")),
    }
}
