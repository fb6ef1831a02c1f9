//! Subnets out of address pools.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A pool that subnets of one size are cut from: one entry of dockerd's `default-address-pools`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// The whole pool.
    pub base: IpNet,
    /// Prefix length of the subnets.
    pub size: u8,
}

impl AddressPool {
    /// Checks that subnets of this size fit and hold a gateway and an endpoint.
    ///
    /// # Errors
    /// [`Error::BadPool`].
    pub fn validate(&self) -> Result<(), Error> {
        let bad = self.size < self.base.prefix_len() || self.size > self.base.max_prefix_len() - 2;
        if bad {
            Err(Error::BadPool {
                base: self.base,
                size: self.size,
            })
        } else {
            Ok(())
        }
    }

    /// The subnet with this index, if the pool reaches that far.
    fn subnet(&self, index: u128) -> Option<IpNet> {
        let bits = self.size.checked_sub(self.base.prefix_len())?;
        if bits < 128 && index >> bits != 0 {
            return None;
        }
        let shift = u32::from(self.base.max_prefix_len() - self.size);
        match self.base {
            IpNet::V4(base) => {
                let address =
                    u32::from(base.network()) | u32::try_from(index.checked_shl(shift)?).ok()?;
                Ipv4Net::new(address.into(), self.size).ok().map(IpNet::V4)
            }
            IpNet::V6(base) => {
                let offset = if shift >= 128 { 0 } else { index << shift };
                Ipv6Net::new((u128::from(base.network()) | offset).into(), self.size)
                    .ok()
                    .map(IpNet::V6)
            }
        }
    }

    /// The index of the first subnet that starts after `net` ends.
    fn index_after(&self, net: &IpNet) -> Option<u128> {
        let shift = u32::from(self.base.max_prefix_len() - self.size);
        let offset = bits(net.broadcast()).checked_sub(bits(self.base.network()))?;
        if shift >= 128 {
            None
        } else {
            Some((offset >> shift) + 1)
        }
    }
}

/// Docker's pools for networks of one host: 172.17.0.0/16 to 172.31.0.0/16 whole, and
/// 192.168.0.0/16 as /20.
pub fn default_pools() -> Vec<AddressPool> {
    let pool = |a: u8, b: u8, prefix: u8, size: u8| AddressPool {
        base: IpNet::V4(Ipv4Net::new_assert([a, b, 0, 0].into(), prefix)),
        size,
    };
    vec![
        pool(172, 17, 16, 16),
        pool(172, 18, 15, 16),
        pool(172, 20, 14, 16),
        pool(172, 24, 13, 16),
        pool(192, 168, 16, 20),
    ]
}

/// The first subnet of the pools, in order, that overlaps nothing in `taken`; `None` when there is
/// none left. Pools of the other address family are passed over. Cost grows with the number of
/// taken networks, not with the pools' size.
pub fn choose_subnet(pools: &[AddressPool], ipv6: bool, taken: &[IpNet]) -> Option<IpNet> {
    pools
        .iter()
        .filter(|pool| matches!(pool.base, IpNet::V6(_)) == ipv6)
        .find_map(|pool| {
            let mut index = 0;
            loop {
                let candidate = pool.subnet(index)?;
                match taken
                    .iter()
                    .filter(|net| overlaps(&candidate, net))
                    .filter_map(|net| pool.index_after(net))
                    .max()
                {
                    None if !taken.iter().any(|net| overlaps(&candidate, net)) => {
                        return Some(candidate);
                    }
                    // Everything up to the end of the overlapping network is taken as well.
                    next => index = next?.max(index + 1),
                }
            }
        })
}

/// Whether two networks share an address.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn bits(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(v4) => u32::from(v4).into(),
        std::net::IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn default_pools_give_31_subnets_in_dockers_order() {
        let mut taken = Vec::new();
        while let Some(net) = choose_subnet(&default_pools(), false, &taken) {
            taken.push(net);
        }
        assert_eq!(taken.len(), 31);
        assert_eq!(taken[0], "172.17.0.0/16".parse::<IpNet>().unwrap());
        assert_eq!(taken[14], "172.31.0.0/16".parse::<IpNet>().unwrap());
        assert_eq!(taken[15], "192.168.0.0/20".parse::<IpNet>().unwrap());
        assert_eq!(taken[30], "192.168.240.0/20".parse::<IpNet>().unwrap());
    }

    #[test]
    fn host_routes_are_passed_over() {
        let cases = [
            (nets(&["172.17.0.0/16"]), "172.18.0.0/16"),
            (nets(&["172.17.5.0/24", "172.16.0.0/12"]), "192.168.0.0/20"),
            (nets(&["172.18.3.4/32"]), "172.17.0.0/16"),
            (
                nets(&["172.16.0.0/12", "192.168.0.0/18", "192.168.70.0/24"]),
                "192.168.80.0/20",
            ),
        ];
        for (taken, expected) in cases {
            let got = choose_subnet(&default_pools(), false, &taken).unwrap();
            assert_eq!(got.to_string(), expected, "{taken:?}");
        }
        assert_eq!(
            choose_subnet(&default_pools(), false, &nets(&["0.0.0.0/0"])),
            None
        );
    }

    #[test]
    fn ipv6_pools_of_any_size_are_fast() {
        let pool = AddressPool {
            base: "fd00:1::/32".parse().unwrap(),
            size: 96,
        };
        let taken = nets(&["fd00:1::/48", "fd00:1:1::/48"]);
        assert_eq!(
            choose_subnet(&[pool], true, &taken).unwrap().to_string(),
            "fd00:1:2::/96"
        );
        let whole = AddressPool {
            base: "::/0".parse().unwrap(),
            size: 0,
        };
        assert_eq!(choose_subnet(&[whole], true, &taken), None);
    }

    #[test]
    fn pools_that_make_no_sense_are_refused() {
        for (base, size) in [("10.0.0.0/24", 16), ("10.0.0.0/24", 31), ("fd00::/64", 127)] {
            let pool = AddressPool {
                base: base.parse().unwrap(),
                size,
            };
            assert!(pool.validate().is_err(), "{base} /{size}");
        }
    }

    proptest! {
        #[test]
        fn chosen_subnets_never_overlap(
            base in any::<u32>(), prefix in 8u8..=20, extra in 0u8..=4,
            taken in prop::collection::vec((any::<u32>(), 4u8..=32), 0..8),
        ) {
            let base = Ipv4Net::new(base.into(), prefix).unwrap().trunc();
            let pool = AddressPool { base: IpNet::V4(base), size: prefix + extra };
            let mut all: Vec<IpNet> = taken.iter()
                .map(|(address, prefix)| IpNet::V4(Ipv4Net::new((*address).into(), *prefix).unwrap().trunc()))
                .collect();
            let given = all.len();
            while let Some(net) = choose_subnet(&[pool], false, &all) {
                prop_assert!(pool.base.contains(&net));
                prop_assert_eq!(net.prefix_len(), pool.size);
                prop_assert!(!all.iter().any(|other| overlaps(other, &net)));
                all.push(net);
            }
            // Complete: whatever was not chosen really overlaps something given.
            for index in 0..(1u128 << extra) {
                let net = pool.subnet(index).unwrap();
                let chosen = all[given..].contains(&net);
                prop_assert_eq!(!chosen, all[..given].iter().any(|other| overlaps(other, &net)));
            }
        }
    }
}
