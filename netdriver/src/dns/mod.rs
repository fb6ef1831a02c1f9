//! Names for sandboxes: a DNS server at 127.0.0.11 inside every sandbox on a network with names
//! (all but `bridge`, `host`, `none`).
//!
//! A query takes this way: client → 127.0.0.11:53, redirected to our socket in the sandbox →
//! [`message::answer`] → [`zone`] for names of endpoints, else [`forward`]. The files a sandbox
//! needs for it are made in [`files`].

mod files;
mod forward;
mod message;
mod server;
mod zone;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

pub(crate) use files::{Configuration as ResolverConfiguration, Resolver, hosts, hosts_of_host};
pub(crate) use server::{Server, Sockets, View, open};
pub(crate) use zone::{Entry, Zone};

/// Where sandboxes find their server.
pub(crate) const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The host's own upstream servers. Reads one or two small files; called for each forwarded query,
/// so that a change of the host's network holds at once.
fn host_upstreams(path: &Path) -> Vec<forward::Upstream> {
    files::host_configuration(path)
        .nameservers
        .into_iter()
        .map(|address| forward::Upstream {
            address,
            on_host: address.is_loopback(),
        })
        .collect()
}

/// The addresses of the host's upstream servers.
pub(crate) fn host_servers(path: &Path) -> Vec<IpAddr> {
    files::host_configuration(path).nameservers
}

/// Content of a sandbox's resolv.conf; `host` is the path of the host's.
pub(crate) fn resolv_conf(resolver: Resolver, host: &Path, own: &ResolverConfiguration) -> String {
    files::resolv_conf(resolver, &files::host_configuration(host), own)
}
