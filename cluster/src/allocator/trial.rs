//! One step of the allocator: what it decides, and what it has taken meanwhile and gives back at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent_api::swarm::{Annotations, Driver};
use cluster_api::{Cluster, IdSource, Kind, Network, NetworkSpec, Node, Now, Service};
use ipnet::IpNet;

use super::network::{self, is_allocated};
use super::space::{Family, Space};
use super::{AllocationError, Outcome, service};
use crate::batch::Batch;
use crate::control_loop::Context;
use crate::store::{Store, StoreAction};

/// Name of the network that carries published ports.
const INGRESS: &str = "ingress";

/// One step: what it decides and what it has taken meanwhile.
pub(super) struct Trial<'a> {
    pub(super) store: &'a Store,
    cluster: Option<&'a Arc<Cluster>>,
    pub(super) now: Now,
    pub(super) batch: Batch,
    pub(super) taken: Vec<(String, IpAddr)>,
    subnets: Vec<IpNet>,
    vnis: BTreeSet<u32>,
    pub(super) ports: BTreeMap<(String, u16), String>,
    /// Networks without a free address; looked for once a step.
    exhausted: BTreeMap<(String, Family), netdriver_ipam::Error>,
    /// Whether a service has all it needs; asked by each of its tasks.
    pub(super) settled: BTreeMap<String, bool>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(context: &Context<'a>) -> Self {
        Self {
            store: context.store,
            cluster: context.store.cluster(),
            now: context.now,
            batch: Batch::new(context.now.wall),
            taken: Vec::new(),
            subnets: Vec::new(),
            vnis: BTreeSet::new(),
            ports: BTreeMap::new(),
            exhausted: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    /// Makes the ingress network where there is none. Whether it has to be looked at again. A user who removed it to
    /// make another one has until the leader changes.
    pub(super) fn ingress(&mut self, ids: &mut IdSource) -> bool {
        let exists = self.ingress_network().is_some();
        let taken = self.store.id_of(Kind::Network, INGRESS).is_some();
        if self.cluster.is_none() || exists || taken {
            return false;
        }
        let network = Network {
            id: ids.id(),
            spec: NetworkSpec {
                annotations: Annotations {
                    name: INGRESS.to_owned(),
                    ..Annotations::default()
                },
                driver: Driver {
                    name: "overlay".to_owned(),
                    ..Driver::default()
                },
                ingress: true,
                ..NetworkSpec::default()
            },
            ..Network::default()
        };
        let _ = self.batch.push(StoreAction::Create(network.into()));
        true
    }

    pub(super) fn ingress_network(&self) -> Option<&'a Arc<Network>> {
        self.store.networks().find(|network| network.spec.ingress)
    }

    pub(super) fn network(
        &mut self,
        id: &str,
        (highest, vnis): (u32, &BTreeSet<u32>),
        spaces: &BTreeMap<String, Space>,
    ) -> Outcome {
        let Some(network) = self.store.network(id) else {
            return Outcome::Done;
        };
        if network.pending_delete {
            return self.remove_network(network, spaces);
        }
        let Some(cluster) = self.cluster else {
            return Outcome::Stuck;
        };
        if is_allocated(network) {
            return Outcome::Done;
        }
        let mut wanted = Network::clone(network);
        let taken: BTreeSet<u32> = vnis.union(&self.vnis).copied().collect();
        let highest = self.vnis.last().map_or(highest, |last| highest.max(*last));
        let chosen =
            network::choose_subnets(network, cluster, self.store, &self.subnets).and_then(|s| {
                Ok((
                    s,
                    network::next_vni(highest, &taken).ok_or(AllocationError::NoVni)?,
                ))
            });
        match chosen {
            Ok((subnets, vni)) => {
                wanted.subnets = subnets;
                wanted.vni = Some(vni);
                wanted.error = String::new();
            }
            Err(error) => wanted.error = error.to_string(),
        }
        if wanted == **network {
            return Outcome::Stuck;
        }
        let (subnets, vni) = (wanted.subnets.clone(), wanted.vni);
        if !self.batch.update(wanted) {
            return Outcome::Full;
        }
        self.subnets.extend(subnets.iter().map(|s| s.subnet));
        self.vnis.extend(vni);
        Outcome::Written
    }

    /// A network goes when no service names it and no task or service has an address on it.
    fn remove_network(
        &mut self,
        network: &Arc<Network>,
        spaces: &BTreeMap<String, Space>,
    ) -> Outcome {
        let named = |service: &&Arc<Service>| {
            service::targets(&service.spec)
                .iter()
                .any(|t| t.target == network.id || t.target == network.spec.annotations.name)
        };
        let used = spaces.get(&network.id).is_some_and(Space::is_used)
            || self.store.services().any(|service| named(&service));
        if used {
            return Outcome::Stuck;
        }
        let action = StoreAction::Remove {
            kind: Kind::Network,
            id: network.id.clone(),
            version: network.meta.version,
        };
        if self.batch.push(action) {
            Outcome::Written
        } else {
            Outcome::Full
        }
    }

    /// A node has one address of each family on the ingress network.
    pub(super) fn node(&mut self, id: &str, spaces: &mut BTreeMap<String, Space>) -> Outcome {
        let Some(node) = self.store.node(id) else {
            return Outcome::Done;
        };
        let mut attachments = BTreeMap::new();
        let mut short = false;
        if let Some(ingress) = self.ingress_network().filter(|n| is_allocated(n)) {
            let current = node.attachments.get(&ingress.id);
            let current = current.map_or(&[][..], Vec::as_slice);
            let mut nets = Vec::new();
            for family in families(spaces, &ingress.id) {
                match self.keep_or_take(ingress, family, current, spaces) {
                    Ok(net) => nets.push(net),
                    Err(_) => short = true,
                }
            }
            if !nets.is_empty() {
                attachments.insert(ingress.id.clone(), nets);
            }
        }
        if attachments != node.attachments {
            let mut wanted = Node::clone(node);
            wanted.attachments = attachments;
            return if self.batch.update(wanted) {
                Outcome::Written
            } else {
                Outcome::Full
            };
        }
        if short { Outcome::Stuck } else { Outcome::Done }
    }

    /// The address of the family among `current`, if it is one of the network's, or a new one.
    pub(super) fn keep_or_take(
        &mut self,
        network: &Network,
        family: Family,
        current: &[IpNet],
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<IpNet, AllocationError> {
        let space = spaces.get(&network.id);
        let kept = current.iter().find(|net| {
            Family::of(net.addr()) == family && space.is_some_and(|s| s.contains(net.addr()))
        });
        match kept {
            Some(net) => Ok(*net),
            None => self.take(network, family, spaces),
        }
    }

    pub(super) fn take(
        &mut self,
        network: &Network,
        family: Family,
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<IpNet, AllocationError> {
        let name = &network.spec.annotations.name;
        let key = (network.id.clone(), family);
        if let Some(source) = self.exhausted.get(&key) {
            return Err(AllocationError::Exhausted {
                name: name.clone(),
                source: source.clone(),
            });
        }
        let taken = match spaces.get_mut(&network.id) {
            Some(space) => space.take(family),
            None => Err(None),
        };
        match taken {
            Ok(net) => {
                self.taken.push((network.id.clone(), net.addr()));
                Ok(net)
            }
            Err(Some(source)) => {
                self.exhausted.insert(key, source.clone());
                Err(AllocationError::Exhausted {
                    name: name.clone(),
                    source,
                })
            }
            Err(None) => Err(AllocationError::Network {
                name: name.clone(),
                error: "it has no subnet".to_owned(),
            }),
        }
    }
}

/// Families a network has addresses of.
pub(super) fn families(spaces: &BTreeMap<String, Space>, network_id: &str) -> Vec<Family> {
    spaces
        .get(network_id)
        .map_or_else(Vec::new, Space::families)
}
