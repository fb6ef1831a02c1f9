//! `--network` and the flags beside it. Source: docker/cli `opts/network.go`, `cli/command/container/opts.go`.

use super::mounts::csv;
use agent_api::{EndpointIpamConfig, EndpointSettings};
use indexmap::IndexMap;

/// Flags that belong to the first network.
#[derive(Debug, Default)]
pub(crate) struct FirstNetwork<'a> {
    pub(crate) aliases: &'a [String],
    pub(crate) ipv4: Option<&'a str>,
    pub(crate) ipv6: Option<&'a str>,
    pub(crate) link_local: &'a [String],
    pub(crate) mac_address: Option<&'a str>,
    pub(crate) links: &'a [String],
}

/// The network mode and the endpoints the flags describe.
pub(crate) fn networks(
    flags: &[String],
    first: &FirstNetwork<'_>,
) -> Result<(String, IndexMap<String, EndpointSettings>), String> {
    let mut endpoints = IndexMap::new();
    let mut mode = String::from("default");
    for (index, flag) in flags.iter().enumerate() {
        let (name, endpoint) = network(flag)?;
        if index == 0 {
            mode.clone_from(&name);
        }
        if is_namespace_mode(&name) && flags.len() > 1 {
            return Err(format!(
                "conflicting options: network {name} cannot be combined with other networks"
            ));
        }
        if endpoints.insert(name.clone(), endpoint).is_some() {
            return Err(format!("network {name:?} is given twice"));
        }
    }
    let name = if mode == "default" {
        "default"
    } else {
        mode.as_str()
    }
    .to_owned();
    let user_defined = !matches!(name.as_str(), "default" | "bridge") && !is_namespace_mode(&name);
    if !first.aliases.is_empty() && !user_defined {
        return Err(
            "conflicting options: network aliases are for user-defined networks only".to_owned(),
        );
    }
    let mut endpoint = endpoints.shift_remove(&name).unwrap_or_default();
    if !first.aliases.is_empty() {
        endpoint
            .aliases
            .get_or_insert_default()
            .extend_from_slice(first.aliases);
    }
    if user_defined && !first.links.is_empty() {
        endpoint.links = Some(first.links.to_vec());
    }
    if first.ipv4.is_some() || first.ipv6.is_some() || !first.link_local.is_empty() {
        let ipam: &mut EndpointIpamConfig = endpoint.ipam_config.get_or_insert_default();
        ipam.ipv4_address = first.ipv4.unwrap_or(&ipam.ipv4_address).to_owned();
        ipam.ipv6_address = first.ipv6.unwrap_or(&ipam.ipv6_address).to_owned();
        ipam.link_local_ips.extend_from_slice(first.link_local);
    }
    if let Some(address) = first.mac_address {
        address.clone_into(&mut endpoint.mac_address);
    }
    // Without anything to say about it, the mode alone names the network.
    if endpoint != EndpointSettings::default() || endpoints.len() + 1 > 1 {
        endpoints.shift_insert(0, name, endpoint);
    }
    Ok((mode, endpoints))
}

fn is_namespace_mode(name: &str) -> bool {
    matches!(name, "host" | "none") || name.starts_with("container:")
}

/// A name, or `name=net,alias=a,ip=…`.
pub(crate) fn network(flag: &str) -> Result<(String, EndpointSettings), String> {
    let mut endpoint = EndpointSettings::default();
    if !flag.contains('=') || flag.starts_with("container:") {
        return if flag.is_empty() {
            Err("the name of a network is empty".to_owned())
        } else {
            Ok((flag.to_owned(), endpoint))
        };
    }
    let mut name = String::new();
    for field in csv(flag)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field {field:?} of a network: write key=value"))?;
        match key.trim() {
            "name" => value.clone_into(&mut name),
            "alias" => endpoint
                .aliases
                .get_or_insert_default()
                .push(value.to_owned()),
            "ip" => {
                value.clone_into(&mut endpoint.ipam_config.get_or_insert_default().ipv4_address)
            }
            "ip6" => {
                value.clone_into(&mut endpoint.ipam_config.get_or_insert_default().ipv6_address)
            }
            "link-local-ip" => endpoint
                .ipam_config
                .get_or_insert_default()
                .link_local_ips
                .push(value.to_owned()),
            "mac-address" => value.clone_into(&mut endpoint.mac_address),
            "gw-priority" => {
                endpoint.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority {value:?}: it is a number"))?;
            }
            "driver-opt" => {
                let (option, value) = value
                    .split_once('=')
                    .ok_or("invalid driver-opt: write driver-opt=key=value")?;
                endpoint
                    .driver_opts
                    .get_or_insert_default()
                    .insert(option.to_owned(), value.to_owned());
            }
            other => return Err(format!("invalid field key {other:?} of a network")),
        }
    }
    if name.is_empty() {
        Err(format!("no name in {flag:?}: write name=NETWORK,…"))
    } else {
        Ok((name, endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(flags: &[&str], first: &FirstNetwork<'_>) -> Result<(String, Vec<String>), String> {
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        networks(&flags, first).map(|(mode, endpoints)| (mode, endpoints.into_keys().collect()))
    }

    #[test]
    fn the_first_network_is_the_mode() {
        let none = FirstNetwork::default();
        assert_eq!(list(&[], &none).unwrap().0, "default");
        assert_eq!(list(&["host"], &none).unwrap().0, "host");
        assert_eq!(
            list(&["a", "b"], &none).unwrap(),
            ("a".into(), vec!["a".into(), "b".into()])
        );
        assert!(list(&["host", "a"], &none).is_err());
        assert!(list(&["a", "a"], &none).is_err());
    }

    #[test]
    fn the_long_form_and_the_separate_flags_meet() {
        let aliases = ["y".to_owned()];
        let first = FirstNetwork {
            aliases: &aliases,
            ipv4: Some("10.0.0.2"),
            ..Default::default()
        };
        let (_, endpoints) =
            networks(&["name=a,alias=x,gw-priority=5".to_owned()], &first).unwrap();
        let endpoint = &endpoints["a"];
        assert_eq!(
            endpoint.aliases.as_deref(),
            Some(["x".to_owned(), "y".to_owned()].as_slice())
        );
        assert_eq!(
            endpoint.ipam_config.as_ref().unwrap().ipv4_address,
            "10.0.0.2"
        );
        assert_eq!(endpoint.gw_priority, 5);
        assert!(
            list(
                &["bridge"],
                &FirstNetwork {
                    aliases: &aliases,
                    ..Default::default()
                }
            )
            .is_err()
        );
        assert!(network("alias=x").is_err());
        assert!(network("name=a,foo=x").is_err());
    }
}
