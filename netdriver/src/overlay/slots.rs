//! Which backend each slot of a virtual address or published port points to. Pure.
//!
//! The packet filter picks a slot at random, so the shares of backends are their shares of slots:
//! the number of slots is chosen so that they are equal or nearly so. The filling is Maglev's
//! (Eisenbud and others, NSDI 2016): it depends on the set of backends alone, so that every host
//! and every restart arrive at the same, and a backend that comes or goes moves few slots of others.

use std::net::IpAddr;

/// How many slots there can be, ascending; the packet filter has a map and a rule for each.
pub(crate) const SIZES: [u32; 3] = [12, 420, 10080];

/// With fewer slots for each backend than this, shares would differ by more than a quarter.
const PER_BACKEND: usize = 4;

/// The number of slots for so many backends: 12 divides by 1, 2, 3, 4 and 6 and serves nearly every
/// service at little cost; 420 divides also by 5, 7, 10, 14 and 15.
pub(crate) fn size_for(backends: usize) -> u32 {
    match backends {
        1..=4 | 6 => SIZES[0],
        _ if backends * PER_BACKEND <= SIZES[1] as usize => SIZES[1],
        _ => SIZES[2],
    }
}

/// One backend for each slot; empty without backends. The order of `backends` does not matter.
pub(crate) fn fill(backends: &[IpAddr]) -> Vec<IpAddr> {
    let mut backends = backends.to_vec();
    backends.sort();
    backends.dedup();
    if backends.is_empty() {
        return Vec::new();
    }
    let size = size_for(backends.len());
    let mut walks: Vec<Walk> = backends
        .iter()
        .map(|backend| Walk::new(*backend, size))
        .collect();
    let mut slots = vec![None; size as usize];
    let mut left = slots.len();
    // Each backend in turn takes the next free slot of its own walk through all of them.
    'full: loop {
        for (backend, walk) in backends.iter().zip(&mut walks) {
            let slot = loop {
                let slot = walk.step();
                if slots[slot].is_none() {
                    break slot;
                }
            };
            slots[slot] = Some(*backend);
            left -= 1;
            if left == 0 {
                break 'full;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// A backend's order of preference: from a slot of its own, in steps of its own.
struct Walk {
    next: u32,
    stride: u32,
    size: u32,
}

impl Walk {
    fn new(backend: IpAddr, size: u32) -> Walk {
        let hash = hash(backend);
        let mut stride = ((hash >> 32) as u32) % size;
        // Without a common divisor the walk comes by every slot.
        while gcd(stride, size) != 1 {
            stride = (stride + 1) % size;
        }
        Walk {
            next: (hash as u32) % size,
            stride,
            size,
        }
    }

    fn step(&mut self) -> usize {
        let slot = self.next;
        self.next = (self.next + self.stride) % self.size;
        slot as usize
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// FNV-1a with a final mix (that of MurmurHash3), for neighbouring addresses differ in few bits.
fn hash(address: IpAddr) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let start = 0xcbf2_9ce4_8422_2325;
    let mut hash = match address {
        IpAddr::V4(v4) => v4.octets().iter().fold(start, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(start, step),
    };
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn backends(count: u32) -> Vec<IpAddr> {
        (0..count)
            .map(|n| IpAddr::from((0x0a00_0002 + n).to_be_bytes()))
            .collect()
    }

    fn shares(slots: &[IpAddr]) -> BTreeMap<IpAddr, usize> {
        let mut shares = BTreeMap::new();
        for backend in slots {
            *shares.entry(*backend).or_default() += 1;
        }
        shares
    }

    #[test]
    fn small_numbers_of_backends_share_equally() {
        for count in [1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 15, 20, 21, 30] {
            let slots = fill(&backends(count));
            let shares = shares(&slots);
            assert_eq!(shares.len(), count as usize);
            let share = slots.len() / count as usize;
            assert!(
                shares.values().all(|found| *found == share),
                "{count}: {shares:?}"
            );
        }
        assert!(fill(&[]).is_empty());
    }

    #[test]
    fn sizes_are_small_for_what_is_common() {
        let sizes: Vec<u32> = [1, 2, 4, 5, 6, 8, 105, 106, 500].map(size_for).into();
        assert_eq!(sizes, [12, 12, 12, 420, 12, 420, 420, 10080, 10080]);
    }

    #[test]
    fn a_backend_that_leaves_moves_little_else() {
        let all = backends(21);
        let (before, after) = (fill(&all), fill(&all[..20]));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| **before != all[20] && before != after)
            .count();
        // A twentieth has to move; Maglev moves little more.
        assert!(
            moved < before.len() / 4,
            "{moved} of {} moved",
            before.len()
        );
    }

    proptest! {
        #[test]
        fn shares_differ_by_one_slot_at_most(count in 1u32..400, seed in any::<u32>()) {
            let mut list: Vec<IpAddr> = (0..count)
                .map(|n| IpAddr::from(seed.wrapping_add(n.wrapping_mul(2_654_435_761)).to_be_bytes()))
                .collect();
            let slots = fill(&list);
            let shares = shares(&slots);
            prop_assert_eq!(shares.len(), list.len());
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            prop_assert!(most - least <= 1);
            prop_assert!(*least * 5 >= *most * 4);
            list.reverse();
            prop_assert_eq!(slots, fill(&list));
        }
    }
}
