//! Container networks: bridge networks of one host with addresses, firewall, published ports and
//! DNS, and networks that span the hosts of a cluster.
//!
//! The package knows sandboxes (network namespaces) and endpoints (their interfaces), not
//! containers, services or tasks; a sandbox merely carries the id and name of whoever uses it.
//! Everything goes through netlink and nftables messages written here: no program is run. The words
//! are libnetwork's.
//!
//! ```text
//! Networks ──┬─ records     <root>/<network id>.json, <run>/sandboxes/<id>.json    written before the kernel is touched
//!            ├─ bridge      bridge + veth          ─┐
//!            ├─ firewall    one nftables table      ├─ netlink (host sockets, and one thread per entry into a sandbox)
//!            ├─ netns       <run>/netns/<id>       ─┘
//!            ├─ ports       host ports, each held by a bound socket
//!            ├─ overlay     networks that span hosts: VXLAN, virtual addresses, ports published on every host
//!            └─ dns         127.0.0.11 in every sandbox on a network with names; tasks on the given runtime
//! ```
//!
//! All functions block for the time of a few system calls and may be called from any thread that is
//! in the daemon's network and mount namespaces; none may be called from an async task directly.
//! Whatever is not created by this daemon (interfaces, tables, namespaces) is never changed.

#![warn(missing_docs)]

mod bridge;
mod conntrack;
mod dns;
mod endpoints;
mod error;
mod firewall;
mod netlink;
mod netns;
mod networks;
mod overlay;
mod pools;
mod ports;
mod predefined;
mod publish;
mod reconcile;
mod records;
mod relay;
mod sandboxes;
mod spec;

pub use error::{Error, ErrorKind, Result};
pub use networks::Networks;
pub use overlay::*;
pub use spec::*;
