//! A container's `hostname`, `hosts` and `resolv.conf`: files in its directory that are mounted over the image's.
//!
//! They are written in place, because a running container has them mounted. Content comes from netdriver; with the
//! host's network it is the host's own. Blocks.

use std::fs;
use std::net::IpAddr;

use super::container::{Container, Definition};
use super::endpoint::parse_address;
use super::exec::hostname_of;
use super::shared::Shared;
use crate::error::{Error, Result};

/// Writes `hostname`, `hosts` and `resolv.conf` in place: they may be mounted already.
pub(crate) fn write(shared: &Shared, container: &Container) -> Result<()> {
    let definition = &container.definition;
    let directory = shared.records.directory(&definition.id);
    let put = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).map_err(Error::io("write", &path))
    };
    let hostname = hostname_of(container);
    let extra = extra_hosts(shared, definition)?;
    let hosts = shared.networks.hosts(
        &definition.id,
        &hostname,
        &definition.config.domainname,
        &extra,
    )?;
    let hosts = match definition.host.network_mode.as_str() {
        "host" => host_file("/etc/hosts", &extra).unwrap_or(hosts),
        _ => hosts,
    };
    put("hostname", &format!("{hostname}\n"))?;
    put("hosts", &hosts)?;
    put("resolv.conf", &shared.networks.resolv_conf(&definition.id)?)
}

/// The host's own file with the additions.
fn host_file(path: &str, extra: &[(String, IpAddr)]) -> Option<String> {
    let mut text = fs::read_to_string(path).ok()?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Some(text)
}

fn extra_hosts(shared: &Shared, definition: &Definition) -> Result<Vec<(String, IpAddr)>> {
    let mut extra = Vec::new();
    for entry in definition.host.extra_hosts.iter().flatten() {
        let bad = || Error::invalid(format!("bad format for add-host: {entry:?}"));
        let (name, address) = entry
            .split_once('=')
            .or_else(|| entry.split_once(':'))
            .ok_or_else(bad)?;
        let address = match address {
            "host-gateway" => shared.networks.host_gateway().ok_or_else(|| {
                Error::invalid("unable to derive the IP value for host-gateway: the bridge network has no gateway")
            })?,
            text => parse_address(text)?,
        };
        extra.push((name.to_owned(), address));
    }
    Ok(extra)
}
