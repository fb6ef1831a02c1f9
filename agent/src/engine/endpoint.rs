//! What a user asks of an endpoint, in netdriver's words. Pure.

use std::net::IpAddr;

use agent_api::EndpointSettings;
use netdriver::EndpointSpec;

use crate::error::{Error, Result};

/// What was asked of an endpoint, in netdriver's words.
pub(crate) fn spec(settings: &EndpointSettings) -> Result<EndpointSpec> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    if !ipam.link_local_ips.is_empty() {
        return Err(Error::unsupported("LinkLocalIPs (--link-local-ip)"));
    }
    if settings
        .links
        .as_ref()
        .is_some_and(|links| !links.is_empty())
    {
        return Err(Error::unsupported("Links (--link)"));
    }
    let address = |text: &str| match text {
        "" => Ok(None),
        text => parse_address(text).map(Some),
    };
    let wrong = |text: &str| Error::invalid(format!("{text} is an address of the other family"));
    let ipv4_address = match address(&ipam.ipv4_address)? {
        None => None,
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) => return Err(wrong(&ipam.ipv4_address)),
    };
    let ipv6_address = match address(&ipam.ipv6_address)? {
        None => None,
        Some(IpAddr::V6(address)) => Some(address),
        Some(IpAddr::V4(_)) => return Err(wrong(&ipam.ipv6_address)),
    };
    let mac_address = match settings.mac_address.as_str() {
        "" => None,
        text => Some(parse_mac(text)?),
    };
    Ok(EndpointSpec {
        endpoint_id: None,
        ipv4_address,
        ipv6_address,
        mac_address,
        aliases: settings.aliases.clone().unwrap_or_default(),
        gw_priority: i32::try_from(settings.gw_priority).map_err(|_| {
            Error::invalid(format!(
                "GwPriority {} is out of range",
                settings.gw_priority
            ))
        })?,
        ifname: None,
        driver_options: settings.driver_opts.clone().unwrap_or_default(),
    })
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.len() == 2)
        })
        .collect();
    bytes
        .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
        .ok_or_else(|| Error::invalid(format!("invalid MAC address: {text}")))
}

/// Reads an address, an IPv6 one with or without brackets.
pub(crate) fn parse_address(text: &str) -> Result<IpAddr> {
    text.trim_matches(['[', ']'])
        .parse()
        .map_err(|_| Error::invalid(format!("{text:?} is not an IP address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::EndpointIpamConfig;

    #[test]
    fn endpoint_settings_are_read() {
        let settings = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: "10.0.0.9".into(),
                ..EndpointIpamConfig::default()
            }),
            mac_address: "02:42:ac:11:00:02".into(),
            aliases: Some(vec!["db".into()]),
            ..EndpointSettings::default()
        };
        let read = spec(&settings).unwrap();
        assert_eq!(read.ipv4_address, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(read.mac_address, Some([0x02, 0x42, 0xac, 0x11, 0, 2]));
        for bad in [
            EndpointSettings {
                mac_address: "02:42".into(),
                ..EndpointSettings::default()
            },
            EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: "fd00::1".into(),
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            },
            EndpointSettings {
                links: Some(vec!["a:b".into()]),
                ..EndpointSettings::default()
            },
        ] {
            assert!(spec(&bad).is_err(), "{bad:?}");
        }
    }
}
