//! Addresses of one network and who has them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster_api::Subnet;
use ipnet::IpNet;
use netdriver_ipam::{Addresses, Error};

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Service(String),
    Node(String),
    Task(String),
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The subnets of one network. What is committed has an owner; what is merely tried is taken and has none.
#[derive(Debug)]
pub(super) struct Space {
    pools: Vec<Addresses>,
    owners: BTreeMap<IpAddr, Owner>,
}

impl Space {
    /// With the gateways taken. A subnet that cannot be divided has no addresses.
    pub(super) fn new(subnets: &[Subnet]) -> Self {
        let pools = subnets.iter().filter_map(|subnet| {
            let mut pool = Addresses::new(subnet.subnet, subnet.range).ok()?;
            if let Some(gateway) = subnet.gateway {
                // Outside of its own subnet it takes nothing away.
                let _ = pool.allocate_static(gateway);
            }
            Some(pool)
        });
        Self {
            pools: pools.collect(),
            owners: BTreeMap::new(),
        }
    }

    /// Families it has addresses of, in order.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut families: Vec<_> = self
            .pools
            .iter()
            .map(|pool| Family::of(pool.subnet().addr()))
            .collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    /// The address belongs to the network.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.pools
            .iter()
            .any(|pool| pool.subnet().contains(&address))
    }

    /// An object in the store has the address. The first one that has it keeps it.
    pub(super) fn claim(&mut self, address: IpAddr, owner: Owner) {
        if let Some(pool) = self.pool_of(address) {
            // Taken already when it was tried by the step that led to this.
            let _ = pool.allocate_static(address);
            self.owners.entry(address).or_insert(owner);
        }
    }

    /// An object in the store has the address no longer. Whether that made it free.
    pub(super) fn release(&mut self, address: IpAddr, owner: &Owner) -> bool {
        if self.owners.get(&address) != Some(owner) {
            return false;
        }
        self.owners.remove(&address);
        self.give_back(address);
        true
    }

    /// Tries the next free address of a family, with its subnet's prefix length. To be given back, or claimed when it
    /// was committed.
    ///
    /// # Errors
    ///
    /// The last subnet of the family is exhausted; `None` when there is no subnet of the family.
    pub(super) fn take(&mut self, family: Family) -> Result<IpNet, Option<Error>> {
        let mut error = None;
        let pools = self.pools.iter_mut();
        for pool in pools.filter(|pool| Family::of(pool.subnet().addr()) == family) {
            match pool.allocate() {
                Ok(address) => {
                    let prefix = pool.subnet().prefix_len();
                    return Ok(IpNet::new_assert(address, prefix));
                }
                Err(exhausted) => error = Some(exhausted),
            }
        }
        Err(error)
    }

    /// What was tried is free again.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if self.owners.contains_key(&address) {
            return;
        }
        if let Some(pool) = self.pool_of(address) {
            pool.release(address);
        }
    }

    /// Whether a service or a task has an address.
    pub(super) fn is_used(&self) -> bool {
        self.owners
            .values()
            .any(|owner| !matches!(owner, Owner::Node(_)))
    }

    fn pool_of(&mut self, address: IpAddr) -> Option<&mut Addresses> {
        self.pools
            .iter_mut()
            .find(|pool| pool.subnet().contains(&address))
    }
}
