//! Start-up after a stop or a crash: what the records and the kernel hold is brought to what the
//! caller says lives.
//!
//! Sandboxes that live keep their interfaces and addresses untouched; host ports are bound again,
//! DNS servers started anew, and the firewall table is replaced in one transaction by one of the
//! same meaning, so that no connection notices.

use std::collections::HashSet;
use std::sync::Arc;

use crate::bridge;
use crate::netlink::{Netlink, Request};
use crate::netns::Netns;
use crate::networks::{Networks, firewall_rules};
use crate::sandboxes::{open_dns, publish_names};
use crate::spec::{Reconciled, SandboxMode};
use crate::{Error, Result};

impl Networks {
    /// Adopts the sandboxes in `live` (addresses, ports, DNS, firewall) and removes all others and
    /// every other leftover of this daemon. Goes on after a failure and lists it.
    pub fn reconcile(&self, live: &HashSet<String>) -> Reconciled {
        let mut done = Reconciled::default();
        let mut ids: Vec<String> = self.inner.state.lock().sandboxes.keys().cloned().collect();
        ids.sort();
        let prepared = self.prepare_firewall(ids.iter().filter(|id| live.contains(*id)));
        let needed = match prepared {
            Ok(needed) => needed,
            Err(error) => {
                done.problems.push(format!("firewall: {error}"));
                true
            }
        };
        let problems = self.adopt_overlays().into_iter();
        done.problems
            .extend(problems.map(|error| format!("overlay networks: {error}")));
        for id in ids.iter().filter(|id| live.contains(*id)) {
            match self.adopt(id) {
                Ok(problems) => {
                    let problems = problems.into_iter();
                    done.problems
                        .extend(problems.map(|error| format!("sandbox {id}: {error}")));
                    done.adopted.push(id.clone());
                }
                Err(error) => done.problems.push(format!("sandbox {id}: {error}")),
            }
        }
        let restored = {
            let mut firewall = self.inner.firewall.lock();
            if needed {
                firewall.install()
            } else {
                firewall.uninstall()
            }
        };
        done.problems
            .extend(restored.err().map(|error| format!("firewall: {error}")));
        let problems = self.adopt_ingress().into_iter();
        done.problems
            .extend(problems.map(|error| format!("published ports: {error}")));
        for id in ids.into_iter().filter(|id| !live.contains(id)) {
            match self.remove_sandbox(&id) {
                Ok(()) => done.removed.push(id),
                Err(error) => done.problems.push(format!("sandbox {id}: {error}")),
            }
        }
        done.problems.extend(
            self.remove_leftovers()
                .into_iter()
                .map(|error| error.to_string()),
        );
        done
    }

    /// Leaves the host as it was found, as far as nothing is connected: removes the interfaces of
    /// networks without endpoints (they are made again when needed), and the firewall table if no
    /// network is left in it. For a daemon that stops on purpose; the networks themselves stay.
    ///
    /// The table stays as long as it keeps apart the host's own interfaces, which it does once this
    /// daemon turned forwarding on: turning that off again could cut somebody else's connections.
    ///
    /// Returns what could not be removed.
    pub fn retire(&self) -> Vec<Error> {
        let idle: Vec<_> = {
            let state = self.inner.state.lock();
            let ids = state
                .networks
                .keys()
                .filter(|id| state.info(id).endpoints.is_empty());
            ids.map(|id| state.networks[id].record.clone()).collect()
        };
        let mut problems = self.retire_overlays();
        for record in idle {
            problems.extend(self.inner.remove_bridge(&record).err());
        }
        let mut firewall = self.inner.firewall.lock();
        if firewall.is_idle() && !firewall.guards_routing() {
            problems.extend(firewall.uninstall().err());
        }
        problems
    }

    /// Takes a living sandbox over. The second kind of failure leaves it usable.
    fn adopt(&self, id: &str) -> Result<Vec<Error>> {
        let mut work = self.lock(id)?;
        let record = self.inner.state.lock().sandbox(id)?.record.clone();
        if record.spec.mode == SandboxMode::Host {
            return Ok(Vec::new());
        }
        let netns = Arc::new(Netns::open(&self.inner.records.netns(id))?);
        work.netns = Some(netns.clone());
        let mut problems = Vec::new();
        let mut has_names = false;
        let mut netlink = Netlink::open()?;
        for endpoint in &record.endpoints {
            let network = {
                let state = self.inner.state.lock();
                state
                    .networks
                    .get(&endpoint.endpoint.network_id)
                    .map(|entry| entry.record.clone())
            };
            let Some(network) = network else {
                problems.push(Error::NetworkNotFound(
                    endpoint.endpoint.network_name.clone(),
                ));
                continue;
            };
            has_names |= network.has_names();
            let missing = match (&endpoint.host_interface, &network.overlay) {
                (Some(name), Some(overlay)) => {
                    let live = self.inner.live(&overlay.id);
                    live.and_then(|mut live| live.has_port(name))
                        .map(|there| !there)
                }
                (Some(name), None) => netlink.link(name).map(|link| link.is_none()),
                (None, _) => Ok(false),
            };
            let missing = missing.unwrap_or_else(|error| {
                problems.push(error);
                false
            });
            if missing {
                // The daemon stopped between the record and the interface.
                problems.extend(self.plug(&mut work, id, endpoint, &network).err());
            }
            publish_names(&mut self.inner.zone.write(), &endpoint.endpoint);
        }
        if has_names && work.server.is_none() {
            match netns.enter(open_dns) {
                Ok(sockets) => self.serve_names(&mut work, id, &netns, Some(sockets))?,
                Err(error) => problems.push(error),
            }
        }
        problems.extend(self.adjust_gateway(&mut work, id).err());
        problems.extend(self.refresh_balancer(&mut work, id).err());
        if work.ports.is_empty() {
            problems.extend(self.adopt_ports(&mut work, id));
        }
        Ok(problems)
    }

    /// Tells the firewall of every network whose bridge is there and of the ports of the living, so
    /// that the table is complete whenever it is installed from now on. Returns whether there is
    /// anything to install it for.
    fn prepare_firewall<'a>(&self, live: impl Iterator<Item = &'a String>) -> Result<bool> {
        let ports: Vec<_> = live.flat_map(|id| self.recorded_translation(id)).collect();
        self.recorded_ingress();
        let has_ingress = self.inner.ingress.lock().is_wanted();
        let links = Netlink::open()?.links()?;
        let state = self.inner.state.lock();
        let mut firewall = self.inner.firewall.lock();
        firewall.prepare_ports(ports);
        let mut needed = firewall.guards_routing() || has_ingress;
        for entry in state.networks.values() {
            let Some(bridge) = &entry.record.bridge else {
                continue;
            };
            if links
                .iter()
                .any(|link| link.name == bridge.name && bridge::is_ours(link, &self.inner.alias))
            {
                firewall.prepare_network(&bridge.name, firewall_rules(&entry.record));
                needed = true;
            }
        }
        Ok(needed)
    }

    /// Interfaces and namespaces that carry our mark and have no record.
    fn remove_leftovers(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        let remove_links = || {
            let mut netlink = Netlink::open()?;
            let known: HashSet<String> = {
                let state = self.inner.state.lock();
                state
                    .networks
                    .values()
                    .filter_map(|entry| Some(entry.record.bridge.as_ref()?.name.clone()))
                    .collect()
            };
            for link in netlink.links()? {
                if bridge::is_ours(&link, &self.inner.alias) && !known.contains(&link.name) {
                    netlink.execute(vec![Request::delete_group(link.group)])?;
                }
            }
            Ok(())
        };
        problems.extend(remove_links().err());
        problems.extend(self.remove_overlay_leftovers().err());
        match self.inner.records.netns_files() {
            Ok(names) => {
                for name in names {
                    if !self.inner.state.lock().sandboxes.contains_key(&name) {
                        problems.extend(Netns::remove(&self.inner.records.netns(&name)).err());
                    }
                }
            }
            Err(error) => problems.push(error),
        }
        problems
    }
}
