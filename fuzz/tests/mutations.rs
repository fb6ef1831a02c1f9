//! The targets without a fuzzer: seeds, and some thousand random changes to them. FUZZ_ROUNDS asks for more.

use std::path::Path;

use fuzz::{TARGETS, Target};

/// Xorshift: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound.max(1)
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let entries = std::fs::read_dir(&dir).expect("every target has seeds");
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths
        .iter()
        .map(|p| std::fs::read(p).expect("readable"))
        .collect();
    assert!(!seeds.is_empty(), "{name}");
    seeds
}

/// One change: a byte, a piece that goes, or a piece of another seed that comes in.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(data.len() + 1);
    match random.below(4) {
        0 if !data.is_empty() => {
            let at = at % data.len();
            data[at] = u8::try_from(random.below(256)).unwrap_or(0);
        }
        1 => {
            let end = data.len().min(at + random.below(8));
            data.drain(at..end);
        }
        2 => {
            let from = random.below(other.len());
            let to = other.len().min(from + random.below(32));
            data.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let special = b" \n\0\\$\"'`{}[]<-=#:/*!";
            data.insert(at, special[random.below(special.len())]);
        }
    }
}

fn run(name: &str, target: Target, rounds: usize) {
    let seeds = seeds(name);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    seeds.iter().for_each(|seed| target(seed));
    for _ in 0..rounds {
        let mut data = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        for _ in 0..=random.below(8) {
            mutate(&mut data, other, &mut random);
        }
        target(&data);
    }
}

#[test]
fn no_target_fails_on_its_seeds_or_their_mutations() {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(2_000, |n| n.parse().expect("a number"));
    for (name, target) in TARGETS {
        // Targets that write files are slower.
        let slow = matches!(name, "archive" | "layer" | "extract");
        run(name, target, if slow { rounds / 20 } else { rounds });
    }
}
