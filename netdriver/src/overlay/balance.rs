//! What a sandbox does itself for the networks that span hosts: it sends connections to virtual
//! addresses to a backend, and answers to clients that came through another host back through that
//! host.
//!
//! Every refresh computes the whole from what is assigned now, and applies the difference; so it does
//! not matter which of several changes at the same time comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::returns::{Returns, Way};
use super::spec::{BackendState, Balanced};
use crate::conntrack::{self, Flow};
use crate::firewall::{BalancerTable, Contents, Elements};
use crate::networks::{Networks, Work};
use crate::{Error, Result};

/// The part of a sandbox that is on overlays.
pub(crate) struct Balancer {
    table: BalancerTable,
    /// What flows were checked against last.
    served: Served,
    /// What routing was brought to last.
    ways: BTreeSet<Way>,
}

/// Virtual addresses and who may answer for them.
type Served = BTreeMap<IpAddr, Backends>;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Backends {
    ready: BTreeSet<IpAddr>,
    /// Also those that drain.
    all: BTreeSet<IpAddr>,
}

/// All a sandbox shall have.
#[derive(Default)]
struct Wanted {
    contents: Contents,
    served: Served,
    ways: BTreeSet<Way>,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What was applied is still there.
    Difference,
    /// The kernel is asked.
    Kernel,
}

impl Networks {
    /// Brings every sandbox on a network to what is assigned. Goes on after a failure and returns
    /// the first.
    pub(super) fn refresh_sandboxes(&self, network: &str) -> Result<()> {
        let mut result = Ok(());
        for sandbox in self.sandboxes_on(network) {
            let refreshed = match self.lock(&sandbox) {
                Ok(mut work) => self.refresh_balancer(&mut work, &sandbox),
                Err(Error::SandboxNotFound(_)) => Ok(()),
                Err(error) => Err(error),
            };
            result = result.and(refreshed);
        }
        result
    }

    /// Brings one sandbox to what is assigned to its networks.
    pub(crate) fn refresh_balancer(&self, work: &mut Work, sandbox: &str) -> Result<()> {
        self.sync_balancer(work, sandbox, Depth::Difference)
            .map(|_| ())
    }

    /// Returns what had to be put right, looking as deep as asked.
    pub(super) fn sync_balancer(
        &self,
        work: &mut Work,
        sandbox: &str,
        depth: Depth,
    ) -> Result<Vec<&'static str>> {
        let Some(netns) = work.netns.clone() else {
            return Ok(Vec::new());
        };
        let wanted = self.wanted(sandbox)?;
        if work.balancer.is_none() {
            if wanted.contents.parts.is_empty() {
                return Ok(Vec::new());
            }
            let open = || BalancerTable::open().map_err(failed(sandbox, "open the packet filter"));
            work.balancer = Some(Balancer {
                table: netns.enter(open)?,
                served: Served::new(),
                ways: BTreeSet::new(),
            });
        }
        let balancer = work
            .balancer
            .as_mut()
            .expect("made above if there was none");
        let mut repaired = Vec::new();
        let table = &mut balancer.table;
        if depth == Depth::Kernel && table.applied().is_some() {
            let intact = table
                .is_intact()
                .map_err(failed(sandbox, "read the packet filter"))?;
            if !intact {
                repaired.push("table muster_overlay");
                table
                    .install(wanted.contents.clone())
                    .map_err(failed(sandbox, "write the packet filter"))?;
            }
        }
        table
            .apply(wanted.contents)
            .map_err(failed(sandbox, "write the packet filter"))?;
        if balancer.ways != wanted.ways || (depth == Depth::Kernel && !wanted.ways.is_empty()) {
            let changed = netns.enter(|| Returns::open()?.sync(&wanted.ways))?;
            if changed && balancer.ways == wanted.ways {
                repaired.push("routing rules");
            }
            balancer.ways = wanted.ways;
        }
        if may_have_stale_flows(&balancer.served, &wanted.served) {
            let (before, now) = (&balancer.served, &wanted.served);
            conntrack::forget_matching(balancer.table.socket(), |flow| is_stale(flow, before, now))
                .map_err(failed(sandbox, "forget connections"))?;
        }
        balancer.served = wanted.served;
        Ok(repaired)
    }

    fn wanted(&self, sandbox: &str) -> Result<Wanted> {
        let endpoints = {
            let state = self.inner.state.lock();
            state.sandbox(sandbox)?.record.endpoints.clone()
        };
        let mut wanted = Wanted::default();
        for endpoint in endpoints.iter().map(|record| &record.endpoint) {
            let live = match self.inner.live(&endpoint.network_id) {
                Err(Error::NetworkNotFound(_)) => continue,
                live => live?,
            };
            if !live.record.balanced.is_empty() {
                wanted.contents.parts.push(live.elements.clone());
                add_served(&mut wanted.served, &live.record.balanced);
            }
            if let Some(mesh) = &live.mesh {
                let mut own = Elements::default();
                let subnets = live
                    .record
                    .overlay
                    .ipam
                    .iter()
                    .filter_map(|config| config.subnet);
                own.add_ingress(&endpoint.ifname, &subnets.collect::<Vec<IpNet>>());
                wanted.contents.parts.push(Arc::new(own));
                wanted.contents.parts.push(mesh.elements.clone());
                wanted.contents.on_ingress = true;
                let addresses = [
                    endpoint.ipv4.map(|net| IpAddr::V4(net.addr())),
                    endpoint.ipv6.map(|net| IpAddr::V6(net.addr())),
                ];
                wanted.ways = mesh.ways(&endpoint.ifname, addresses);
            }
        }
        Ok(wanted)
    }
}

fn failed(sandbox: &str, what: &str) -> impl FnOnce(std::io::Error) -> Error {
    Error::kernel(format!("{what} of sandbox {sandbox}"))
}

fn add_served(served: &mut Served, balanced: &[Balanced]) {
    for one in balanced {
        for vip in &one.vips {
            let entry = served.entry(*vip).or_default();
            for backend in &one.backends {
                let Some(address) = backend.address(vip.is_ipv6()) else {
                    continue;
                };
                entry.all.insert(address);
                if backend.state == BackendState::Ready {
                    entry.ready.insert(address);
                }
            }
        }
    }
}

/// Whether any flow can be stale at all: not if backends were only added. Looking for flows costs
/// milliseconds in each sandbox that has some.
fn may_have_stale_flows(before: &Served, now: &Served) -> bool {
    let lost = |(vip, old): (&IpAddr, &Backends)| {
        let new = now.get(vip);
        new.is_none_or(|new| !old.ready.is_subset(&new.ready) || !old.all.is_subset(&new.all))
    };
    before.iter().any(lost) || now.keys().any(|vip| !before.contains_key(vip))
}

/// Whether a flow would go somewhere else, or nowhere, if it began now and may not go on. A UDP flow
/// has no end, so it moves as soon as its backend drains.
fn is_stale(flow: &Flow, before: &Served, now: &Served) -> bool {
    match now.get(&flow.destination) {
        Some(backends) if flow.is_udp() => !backends.ready.contains(&flow.answered_by),
        Some(backends) => !backends.all.contains(&flow.answered_by),
        None => before.contains_key(&flow.destination),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Backend;

    fn served(vip: &str, backends: &[(&str, BackendState)]) -> Served {
        let backend = |(address, state): &(&str, BackendState)| Backend {
            names: Vec::new(),
            ipv4: Some(address.parse().unwrap()),
            ipv6: None,
            state: *state,
        };
        let mut served = Served::new();
        add_served(
            &mut served,
            &[Balanced {
                names: Vec::new(),
                backend_names: Vec::new(),
                vips: vec![vip.parse().unwrap()],
                backends: backends.iter().map(backend).collect(),
            }],
        );
        served
    }

    #[test]
    fn flows_are_looked_for_only_when_one_can_be_stale() {
        use BackendState::*;
        let one = served("10.0.1.2", &[("10.0.1.5", Ready)]);
        let two = served("10.0.1.2", &[("10.0.1.5", Ready), ("10.0.1.6", Ready)]);
        let drains = served("10.0.1.2", &[("10.0.1.5", Ready), ("10.0.1.6", Draining)]);
        for (before, now, expected) in [
            (&one, &one, false),
            (&one, &two, false),
            (&two, &one, true),
            (&two, &drains, true),
            (&drains, &two, false),
            (&drains, &one, true),
            (&one, &Served::new(), true),
            (&Served::new(), &one, true),
        ] {
            assert_eq!(
                may_have_stale_flows(before, now),
                expected,
                "{before:?} {now:?}"
            );
        }
    }

    #[test]
    fn flows_end_with_their_backends_and_udp_moves_at_once() {
        use BackendState::*;
        let now = served("10.0.1.2", &[("10.0.1.5", Ready), ("10.0.1.6", Draining)]);
        let before = served("10.0.1.9", &[("10.0.1.7", Ready)]);
        // (protocol, destination, answered by, stale)
        for (protocol, destination, answered_by, stale) in [
            (6, "10.0.1.2", "10.0.1.5", false),
            (6, "10.0.1.2", "10.0.1.6", false),
            (6, "10.0.1.2", "10.0.1.7", true),
            (17, "10.0.1.2", "10.0.1.5", false),
            (17, "10.0.1.2", "10.0.1.6", true),
            (17, "10.0.1.2", "10.0.1.2", true),
            // A virtual address that is gone, and what never was one.
            (6, "10.0.1.9", "10.0.1.7", true),
            (17, "10.0.1.5", "10.0.1.5", false),
            (6, "198.51.100.1", "198.51.100.1", false),
        ] {
            let flow = Flow {
                protocol,
                destination: destination.parse().unwrap(),
                port: 80,
                answered_by: answered_by.parse().unwrap(),
            };
            assert_eq!(is_stale(&flow, &before, &now), stale, "{flow:?}");
        }
    }
}
