//! The registry of networks and sandboxes: the only place that changes either.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::Result;
use crate::spec::*;

/// All networks and sandboxes of one daemon. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Networks {}

impl Networks {
    /// Reads the records; creates the predefined networks the first time. Call [`reconcile`](Self::reconcile) before anything else
    /// when sandboxes may be left from an earlier daemon.
    pub fn open(config: Config) -> Result<Networks> {
        todo!()
    }

    /// Adopts the sandboxes in `live` (addresses, ports, DNS, firewall) and removes all others and every other leftover of this daemon.
    /// Goes on after a failure and lists it.
    pub fn reconcile(&self, live: &HashSet<String>) -> Reconciled {
        todo!()
    }

    /// Creates a network.
    pub fn create(&self, spec: NetworkSpec) -> Result<NetworkInfo> {
        todo!()
    }

    /// Removes a network without endpoints, by name, id or unique id prefix. Returns what it was.
    pub fn remove(&self, reference: &str) -> Result<NetworkInfo> {
        todo!()
    }

    /// All networks, in order of creation.
    pub fn list(&self) -> Vec<NetworkInfo> {
        todo!()
    }

    /// One network by name, id or unique id prefix, in this order.
    pub fn inspect(&self, reference: &str) -> Result<NetworkInfo> {
        todo!()
    }

    /// Makes a sandbox with loopback up and no endpoint.
    pub fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        todo!()
    }

    /// The sandbox of this exact id.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        todo!()
    }

    /// Connects a sandbox to a network, also while its processes run. Default route and published ports move to the new
    /// endpoint if it is the best gateway.
    pub fn connect(&self, sandbox: &str, network: &str, spec: EndpointSpec) -> Result<Endpoint> {
        todo!()
    }

    /// Undoes [`connect`](Self::connect), also while processes run.
    pub fn disconnect(&self, sandbox: &str, network: &str) -> Result<()> {
        todo!()
    }

    /// Publishes ports, all or none, replacing those published before. The result is empty while no endpoint leads outside
    /// (internal, `host` and `none` networks), as in Docker.
    pub fn publish(&self, sandbox: &str, ports: &[PortRequest]) -> Result<Vec<PortBinding>> {
        todo!()
    }

    /// Removes the sandbox with its endpoints and ports. Removing one that does not exist is no error. Collects failures and goes on;
    /// the first is returned once everything else is gone.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        todo!()
    }

    /// A container was renamed: DNS answers the new name from now on.
    pub fn rename_sandbox(&self, id: &str, name: &str) -> Result<()> {
        todo!()
    }

    /// Content for the sandbox's `/etc/resolv.conf`. Depends on the endpoints: ask again after connect and disconnect.
    pub fn resolv_conf(&self, sandbox: &str) -> Result<String> {
        todo!()
    }

    /// Content for the sandbox's `/etc/hosts`: loopback, its addresses, and `extra` (`--add-host`) as `(name, address)`.
    pub fn hosts(
        &self,
        sandbox: &str,
        hostname: &str,
        domainname: &str,
        extra: &[(String, IpAddr)],
    ) -> Result<String> {
        todo!()
    }

    /// The address that `host-gateway` in `--add-host` stands for.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        todo!()
    }

    /// Conditions on this host that break networking and that we do not change, each worded for the user
    /// (for instance another table that drops forwarded packets). Reads the kernel's tables: a few milliseconds.
    pub fn warnings(&self) -> Vec<String> {
        todo!()
    }
}
