//! What a sandbox does itself for the networks that span hosts: it sends connections to virtual
//! addresses to a backend, and answers to clients that came through another host back through that
//! host.
//!
//! Every refresh computes the whole from what is assigned now, and applies the difference; so it does
//! not matter which of several changes at the same time comes last.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::flows;
use super::returns::{Returns, Way};
use super::spec::{Backend, Balanced};
use crate::conntrack;
use crate::firewall::{BalancerTable, Contents, Elements};
use crate::netns::has_ipv6;
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

/// By virtual address.
type Served = flows::Served<IpAddr>;

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
                served: Served::default(),
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
        if wanted.served.may_have_stale(&balancer.served) {
            let (before, now) = (&balancer.served, &wanted.served);
            conntrack::forget_matching(balancer.table.socket(), |flow| {
                flows::is_stale_at_vip(flow, before, now)
            })
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
                    endpoint
                        .ipv6
                        .filter(|_| has_ipv6())
                        .map(|net| IpAddr::V6(net.addr())),
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
            let of_family = |backend: &Backend| backend.address(vip.is_ipv6());
            served.add(*vip, &one.backends, of_family);
        }
    }
}
