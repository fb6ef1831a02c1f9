//! Addresses out of one subnet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Error;

/// The addresses of one subnet: which are taken, and where to look for the next one.
///
/// Dynamic addresses go upwards from the last one given and start over at the end of the range, so
/// that an address that was just released is given again as late as possible: peers' neighbour
/// caches and connection tracking still know it.
#[derive(Debug, Clone)]
pub struct Addresses {
    subnet: IpNet,
    range: IpNet,
    taken: BTreeSet<u128>,
    /// Where the next search starts.
    next: u128,
}

impl Addresses {
    /// All addresses free but the network's and broadcast one.
    ///
    /// # Errors
    /// [`Error::TooSmall`], [`Error::RangeOutside`].
    pub fn new(subnet: IpNet, range: Option<IpNet>) -> Result<Addresses, Error> {
        let subnet = subnet.trunc();
        if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
            return Err(Error::TooSmall(subnet));
        }
        let range = range.map_or(subnet, |range| range.trunc());
        if !subnet.contains(&range) {
            return Err(Error::RangeOutside { range, subnet });
        }
        let mut addresses = Addresses {
            subnet,
            range,
            taken: BTreeSet::new(),
            next: 0,
        };
        addresses.next = addresses.first();
        Ok(addresses)
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Takes the next free address of the range.
    ///
    /// # Errors
    /// [`Error::Exhausted`].
    pub fn allocate(&mut self) -> Result<IpAddr, Error> {
        let (first, last) = (self.first(), self.last());
        let start = self.next.clamp(first, last);
        let found = self
            .free_in(start, last)
            .or_else(|| self.free_in(first, start))
            .ok_or(Error::Exhausted {
                family: if self.is_v6() { 6 } else { 4 },
                range: self.range,
                capacity: last - first + 1,
            })?;
        self.taken.insert(found);
        self.next = if found == last { first } else { found + 1 };
        Ok(self.address(found))
    }

    /// Takes this very address; it need not be in the range.
    ///
    /// # Errors
    /// [`Error::OutOfSubnet`], [`Error::InUse`].
    pub fn allocate_static(&mut self, address: IpAddr) -> Result<(), Error> {
        if !self.usable(address) {
            return Err(Error::OutOfSubnet {
                address,
                subnet: self.subnet,
            });
        }
        if self.taken.insert(bits(address)) {
            Ok(())
        } else {
            Err(Error::InUse(address))
        }
    }

    /// Takes the first free address of the subnet for the gateway: of the range when one is set, as
    /// Docker does.
    ///
    /// # Errors
    /// [`Error::Exhausted`].
    pub fn allocate_gateway(&mut self) -> Result<IpAddr, Error> {
        self.next = self.first();
        self.allocate()
    }

    /// Continues after this address: used when the endpoints of an earlier life are known.
    pub fn continue_after(&mut self, address: IpAddr) {
        if self.usable(address) {
            self.next = bits(address).saturating_add(1);
        }
    }

    /// Frees an address. Freeing a free one does nothing.
    pub fn release(&mut self, address: IpAddr) {
        if self.usable(address) {
            self.taken.remove(&bits(address));
        }
    }

    /// Whether the address is taken.
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.usable(address) && self.taken.contains(&bits(address))
    }

    fn is_v6(&self) -> bool {
        matches!(self.subnet, IpNet::V6(_))
    }

    /// Inside the subnet, and neither its network address nor (IPv4) its broadcast address.
    fn usable(&self, address: IpAddr) -> bool {
        self.subnet.contains(&address)
            && address != self.subnet.network()
            && (self.is_v6() || address != self.subnet.broadcast())
    }

    fn first(&self) -> u128 {
        bits(self.range.network()).max(bits(self.subnet.network()) + 1)
    }

    fn last(&self) -> u128 {
        let end = bits(self.subnet.broadcast()) - u128::from(!self.is_v6());
        bits(self.range.broadcast()).min(end)
    }

    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        let mut candidate = from;
        for taken in self.taken.range(from..=to) {
            if *taken != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= to).then_some(candidate)
    }

    fn address(&self, value: u128) -> IpAddr {
        if self.is_v6() {
            IpAddr::V6(value.into())
        } else {
            IpAddr::V4(
                u32::try_from(value)
                    .expect("values of an IPv4 subnet have 32 bits")
                    .into(),
            )
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_go_upwards_and_are_reused_late() {
        let mut pool = Addresses::new(net("10.0.0.0/29"), None).unwrap();
        assert_eq!(pool.allocate_gateway().unwrap(), ip("10.0.0.1"));
        assert_eq!(pool.allocate().unwrap(), ip("10.0.0.2"));
        pool.release(ip("10.0.0.2"));
        for expected in ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"] {
            assert_eq!(pool.allocate().unwrap(), ip(expected));
        }
        let full = pool.allocate().unwrap_err();
        assert_eq!(
            full.to_string(),
            "no available IPv4 addresses in 10.0.0.0/29 of this network's address pools: all 6 are in use"
        );
    }

    #[test]
    fn a_range_restricts_dynamic_addresses_only() {
        let mut pool = Addresses::new(net("10.0.0.0/24"), Some(net("10.0.0.128/30"))).unwrap();
        assert_eq!(pool.allocate_gateway().unwrap(), ip("10.0.0.128"));
        pool.allocate_static(ip("10.0.0.7")).unwrap();
        let dynamic: Vec<_> = std::iter::from_fn(|| pool.allocate().ok()).collect();
        assert_eq!(
            dynamic,
            [ip("10.0.0.129"), ip("10.0.0.130"), ip("10.0.0.131")]
        );
        assert_eq!(
            Addresses::new(net("10.0.0.0/24"), Some(net("10.0.1.0/25"))).unwrap_err(),
            Error::RangeOutside {
                range: net("10.0.1.0/25"),
                subnet: net("10.0.0.0/24")
            }
        );
    }

    #[test]
    fn unusable_static_addresses_are_refused() {
        let mut pool = Addresses::new(net("10.0.0.0/24"), None).unwrap();
        for address in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"] {
            assert!(
                matches!(
                    pool.allocate_static(ip(address)),
                    Err(Error::OutOfSubnet { .. })
                ),
                "{address}"
            );
        }
        pool.allocate_static(ip("10.0.0.9")).unwrap();
        assert_eq!(
            pool.allocate_static(ip("10.0.0.9")),
            Err(Error::InUse(ip("10.0.0.9")))
        );
        for subnet in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127"] {
            assert_eq!(
                Addresses::new(net(subnet), None).unwrap_err(),
                Error::TooSmall(net(subnet))
            );
        }
    }

    #[test]
    fn the_ends_of_the_address_space_hold() {
        let mut top =
            Addresses::new(net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"), None).unwrap();
        assert_eq!(std::iter::from_fn(|| top.allocate().ok()).count(), 3);
        let mut all = Addresses::new(net("0.0.0.0/0"), None).unwrap();
        assert_eq!(all.allocate().unwrap(), ip("0.0.0.1"));
    }

    proptest! {
        /// Against a set of what should be taken: nothing is given twice, nothing free is withheld.
        #[test]
        fn behaves_as_a_set(prefix in 26u8..=30, v6 in any::<bool>(), steps in prop::collection::vec((0u8..4, any::<u8>()), 0..200)) {
            let subnet = if v6 { net("fd00::/64").to_string().replace("/64", &format!("/{}", 96 + prefix)) } else { format!("10.1.2.0/{prefix}") };
            let subnet = net(&subnet);
            let mut pool = Addresses::new(subnet, None).unwrap();
            let usable: Vec<IpAddr> = (0..64u128)
                .map(|offset| pool.address(bits(subnet.network()) + offset))
                .filter(|address| pool.usable(*address))
                .collect();
            let mut taken: HashSet<IpAddr> = HashSet::new();
            for (step, pick) in steps {
                let address = usable[usize::from(pick) % usable.len()];
                match step {
                    0 | 1 => match pool.allocate() {
                        Ok(given) => {
                            prop_assert!(usable.contains(&given));
                            prop_assert!(taken.insert(given));
                        }
                        Err(_) => prop_assert_eq!(taken.len(), usable.len()),
                    },
                    2 => prop_assert_eq!(pool.allocate_static(address).is_ok(), taken.insert(address)),
                    _ => {
                        pool.release(address);
                        taken.remove(&address);
                    }
                }
                prop_assert_eq!(pool.is_taken(address), taken.contains(&address));
            }
        }
    }
}
