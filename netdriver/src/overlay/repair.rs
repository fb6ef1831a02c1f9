//! Everything of overlays and ingress compared with the kernel, and put right.

use super::balance::Depth;
use super::spec::Repaired;
use crate::networks::{Inner, Networks};
use crate::spec::Driver;
use crate::{Error, Result};

impl Networks {
    /// Compares everything of overlays and ingress with the kernel and puts right what differs.
    /// Changes by others to peers and devices are noticed and repaired without this; a call now and
    /// then (10 s) covers the rest.
    pub fn repair(&self) -> Repaired {
        let mut done = Repaired::default();
        for id in self.inner.overlay_ids() {
            match self.repair_overlay(&id) {
                Ok(repaired) => done.repaired.extend(repaired),
                Err(Error::NetworkNotFound(_)) => {}
                Err(error) => done.problems.push(error),
            }
        }
        match self.inner.firewall.lock().repair() {
            Ok(false) => {}
            Ok(true) => done.repaired.push(format!("table {}", self.inner.table)),
            Err(error) => done.problems.push(error),
        }
        let mut ingress = self.inner.ingress.lock();
        match self.apply_ingress(&mut ingress) {
            Ok(problems) => done.problems.extend(problems),
            Err(error) => done.problems.push(error),
        }
        drop(ingress);
        for sandbox in self.sandboxes_on_overlays() {
            match self.repair_sandbox(&sandbox) {
                Ok(repaired) => {
                    let repaired = repaired.into_iter();
                    done.repaired
                        .extend(repaired.map(|what| format!("sandbox {sandbox}: {what}")));
                }
                Err(Error::SandboxNotFound(_)) => {}
                Err(error) => done.problems.push(error),
            }
        }
        for what in &done.repaired {
            tracing::warn!(what, "network state that others changed is repaired");
        }
        done
    }

    /// Devices, entries and ports of one overlay.
    pub(crate) fn repair_overlay(&self, network: &str) -> Result<Vec<String>> {
        let mut repaired = Vec::new();
        {
            let mut live = self.inner.live(network)?;
            let name = live.record.overlay.name.clone();
            let path = self.inner.records.overlay_netns(network);
            let made = live.ensure_devices(&path)?;
            repaired.extend(
                made.into_iter()
                    .map(|what| format!("network {name}: {what}")),
            );
            let differing = live.sync_peers()?;
            if differing > 0 {
                repaired.push(format!("network {name}: {differing} entries of peers"));
            }
            self.listen(&mut live)?;
        }
        let remade = !repaired.is_empty();
        for sandbox in self.sandboxes_on(network) {
            if self.replug(&sandbox, network, remade)? {
                repaired.push(format!("sandbox {sandbox}: interface"));
            }
        }
        if !repaired.is_empty() {
            self.push_mtu(network)?;
            let mut live = self.inner.live(network)?;
            live.repairs += 1;
            tracing::warn!(
                network.id = network,
                repaired = repaired.join(", "),
                "an overlay was not as it was left"
            );
        }
        Ok(repaired)
    }

    /// Connects a sandbox again whose interface somebody deleted; returns whether that was so. One
    /// that is there may have lost its place in the bridge (`remade`).
    fn replug(&self, sandbox: &str, network: &str, remade: bool) -> Result<bool> {
        let mut work = match self.lock(sandbox) {
            Err(Error::SandboxNotFound(_)) => return Ok(false),
            work => work?,
        };
        if work.netns.is_none() {
            // Not adopted yet.
            return Ok(false);
        }
        let (endpoint, record) = {
            let state = self.inner.state.lock();
            let endpoints = &state.sandbox(sandbox)?.record.endpoints;
            let mut endpoints = endpoints.iter();
            let found = endpoints.find(|endpoint| endpoint.endpoint.network_id == network);
            match (found.cloned(), state.networks.get(network)) {
                (Some(endpoint), Some(entry)) => (endpoint, entry.record.clone()),
                _ => return Ok(false),
            }
        };
        let Some(port) = &endpoint.host_interface else {
            return Ok(false);
        };
        {
            let mut live = self.inner.live(network)?;
            if live.has_port(port)? {
                return match endpoint.endpoint.mac {
                    Some(mac) if remade => live.pin(port, mac).map(|()| false),
                    _ => Ok(false),
                };
            }
        }
        self.plug(&mut work, sandbox, &endpoint, &record)?;
        // What depends on the interface, routes for one, went with it.
        self.sync_balancer(&mut work, sandbox, Depth::Kernel)?;
        Ok(true)
    }

    fn repair_sandbox(&self, sandbox: &str) -> Result<Vec<&'static str>> {
        let mut work = self.lock(sandbox)?;
        self.sync_balancer(&mut work, sandbox, Depth::Kernel)
    }

    fn sandboxes_on_overlays(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .inner
            .overlay_ids()
            .iter()
            .flat_map(|network| self.sandboxes_on(network))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// At start-up: overlays as they were recorded. Sandboxes are adopted after.
    pub(crate) fn adopt_overlays(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        let adopt = |network: &str| {
            let mut live = self.inner.live(network)?;
            live.ensure_devices(&self.inner.records.overlay_netns(network))?;
            live.sync_peers()?;
            self.listen(&mut live)
        };
        for id in self.inner.overlay_ids() {
            problems.extend(adopt(&id).err());
        }
        problems.extend(self.adopt_mesh().err());
        problems
    }

    /// At start-up, after sandboxes were adopted: the ingress, and what is left of one.
    pub(crate) fn adopt_ingress(&self) -> Vec<Error> {
        let mut ingress = self.inner.ingress.lock();
        let result = if ingress.is_wanted() {
            self.apply_ingress(&mut ingress)
        } else {
            self.remove_interface().map(|()| Vec::new())
        };
        result.unwrap_or_else(|error| vec![error])
    }

    /// Takes overlays without endpoints, and the ingress if no overlay has any, out of the kernel;
    /// they stay recorded.
    pub(crate) fn retire_overlays(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        let in_use: Vec<String> = {
            let state = self.inner.state.lock();
            let overlays = state
                .networks
                .values()
                .filter(|entry| entry.record.driver == Driver::Overlay)
                .map(|entry| entry.record.id.clone());
            overlays
                .filter(|id| !state.info(id).endpoints.is_empty())
                .collect()
        };
        if in_use.is_empty() {
            let mut ingress = self.inner.ingress.lock();
            problems.extend(self.withdraw(&mut ingress).err());
        }
        for id in self.inner.overlay_ids() {
            let carries_ingress = || self.inner.ingress.lock().uses(&id) && !in_use.is_empty();
            if in_use.contains(&id) || carries_ingress() {
                continue;
            }
            if let Ok(mut live) = self.inner.live(&id) {
                problems.extend(live.tear_down(&self.inner.records.overlay_netns(&id)).err());
            }
        }
        problems
    }

    /// Namespaces of overlays without a record.
    pub(crate) fn remove_overlay_leftovers(&self) -> Result<()> {
        for id in self.inner.records.overlay_netns_files()? {
            if !self.inner.is_overlay(&id) {
                super::live::remove_namespace(&self.inner.records.overlay_netns(&id))?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn is_overlay(&self, id: &str) -> bool {
        self.overlay_ids().iter().any(|known| known == id)
    }
}
