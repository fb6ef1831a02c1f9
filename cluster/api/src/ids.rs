//! Ids of a cluster's objects: 25 characters of base 36, 128 random bits, the form SwarmKit gives them
//! (`identity/randomid.go`).

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Where new ids and other random choices come from. Seeded, so that a simulated run can be repeated.
#[derive(Debug)]
pub struct IdSource(StdRng);

impl IdSource {
    /// The same seed gives the same ids.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Seeded by the operating system.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::make_rng())
    }

    /// A new id.
    pub fn id(&mut self) -> String {
        let mut value: u128 = self.0.random();
        let mut id = [b'0'; LENGTH];
        for digit in id.iter_mut().rev() {
            *digit = DIGITS[(value % 36) as usize];
            value /= 36;
        }
        String::from_utf8_lossy(&id).into_owned()
    }

    /// A random number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.random()
    }
}

#[cfg(test)]
mod tests {
    use super::IdSource;

    #[test]
    fn ids_are_25_characters_of_base_36_and_repeat_with_the_seed() {
        let ids: Vec<String> = (0..1000)
            .scan(IdSource::seeded(7), |s, _| Some(s.id()))
            .collect();
        assert!(ids.iter().all(|id| {
            id.len() == 25
                && id
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        }));
        assert_eq!(ids[0], IdSource::seeded(7).id());
        assert_eq!(
            ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
            1000
        );
    }
}
