//! Which result is made on which, and whose bytes are whose.
//!
//! A result is made on another one if its file system begins with all of the other's. Results may add the same layers, as images
//! with a base in common do, and copies that are laid on several roots: each layer counts once, for the oldest of the results
//! that add it, so that sums are what the disk has. The two have nothing to do with each other: when the result goes that a layer
//! counts for, the layer stays, and counts for the next.
//!
//! Pure. BuildKit has a record for every single layer, from which much the same follows.

use std::collections::{HashMap, HashSet};

use agent_image::build::Entry;

use super::records::Record;

/// What of a result counts as its own.
#[derive(Debug, PartialEq)]
pub(crate) struct Share<'r> {
    /// Id of the result that it is made on.
    pub(crate) parent: Option<&'r str>,
    /// The entries that count for it, lowest first.
    pub(crate) entries: Vec<&'r Entry>,
}

/// The shares of all results, in their order; the oldest come first.
pub(crate) fn shares<'r>(records: &[&'r Record]) -> Vec<Share<'r>> {
    let mut owners: HashMap<&Entry, &'r str> = HashMap::new();
    let mut stacks = Stacks::default();
    let mut ends = HashMap::new();
    for record in records {
        for entry in record.own_entries() {
            owners.entry(entry).or_insert(&record.id);
        }
        if let Some(end) = stacks.add(&record.stack.entries).last() {
            ends.entry(end).or_insert(record.id.as_str());
        }
    }
    let share = |record: &&'r Record| {
        let counts = |entry: &&Entry| owners.get(entry) == Some(&record.id.as_str());
        let mut prefixes: Vec<usize> = stacks.known(&record.stack.entries).collect();
        prefixes.pop();
        let mut parents = prefixes.iter().rev().filter_map(|end| ends.get(end));
        Share {
            parent: parents.next().copied(),
            entries: record.own_entries().iter().filter(counts).collect(),
        }
    };
    records.iter().map(share).collect()
}

/// Which of the results can go when all the others stay: those that none of the others is made on, again and again until nothing
/// is left to refuse. `going` are places in `records`.
pub(crate) fn removable(records: &[&Record], going: &mut HashSet<usize>) {
    loop {
        let mut needed = Stacks::default();
        for (place, record) in records.iter().enumerate() {
            if !going.contains(&place) {
                needed.add(record.below()).for_each(drop);
            }
        }
        let before = going.len();
        going.retain(|place| {
            let stack = &records[*place].stack.entries;
            stack.is_empty() || needed.known(stack).count() < stack.len()
        });
        if going.len() == before {
            return;
        }
    }
}

/// Stacks by their beginnings: every different one has a number.
#[derive(Default)]
struct Stacks<'e> {
    numbers: HashMap<(usize, &'e Entry), usize>,
}

impl<'e> Stacks<'e> {
    /// Adds a stack; gives the numbers of its beginnings, the shortest first.
    fn add(&mut self, stack: &'e [Entry]) -> impl Iterator<Item = usize> {
        let mut below = 0;
        stack.iter().map(move |entry| {
            let next = self.numbers.len() + 1;
            below = *self.numbers.entry((below, entry)).or_insert(next);
            below
        })
    }

    /// The numbers of the beginnings of a stack, the shortest first, as far as there are stacks that begin so.
    fn known(&self, stack: &'e [Entry]) -> impl Iterator<Item = usize> {
        let mut below = 0;
        stack.iter().map_while(move |entry| {
            below = *self.numbers.get(&(below, entry))?;
            Some(below)
        })
    }
}

#[cfg(test)]
mod tests {
    use agent_image::Digest;
    use agent_image::build::Stack;
    use jiff::Timestamp;

    use super::*;
    use crate::builder::records::{Kind, Made};

    fn record(layers: &str, own: usize) -> Record {
        let layers = layers.bytes().map(|layer| Digest::of(&[layer]));
        let made = Made {
            stack: Stack::of_layers(layers),
            times: Vec::new(),
            own,
        };
        let keys = Vec::new();
        Record::new(Kind::Regular, String::new(), keys, Timestamp::now(), made)
    }

    #[test]
    fn a_layer_counts_for_the_first_that_adds_it() {
        let (base, step) = (record("ab", 2), record("abc", 1));
        let (other, same) = (record("abd", 3), record("ab", 2));
        let alone = record("xa", 1);
        let shares = shares(&[&base, &step, &other, &same, &alone]);
        let text = |share: &Share<'_>| (share.parent.map(str::to_owned), share.entries.len());
        let found: Vec<_> = shares.iter().map(text).collect();
        let of = |record: &Record| Some(record.id.clone());
        assert_eq!(
            found,
            [
                (None, 2),
                (of(&base), 1),
                (of(&base), 1),
                (None, 0),
                (None, 0),
            ]
        );
        assert_eq!(shares[2].entries, [&other.stack.entries[2]]);
    }

    /// `L` was made on the root `a` and laid on the root `b` later; `x` is made on that.
    #[test]
    fn a_layer_on_two_roots_holds_neither_of_them() {
        let (a, on_a) = (record("a", 1), record("aL", 1));
        let (b, on_b, top) = (record("b", 1), record("bL", 1), record("bLx", 1));
        let records = [&a, &on_a, &b, &on_b, &top];
        let parents = shares(&records);
        let parents: Vec<_> = parents
            .iter()
            .map(|share| share.parent.map(str::to_owned))
            .collect();
        let of = |record: &'_ Record| Some(record.id.clone());
        assert_eq!(parents, [None, of(&a), None, of(&b), of(&on_b)]);
        let going = |places: &[usize]| {
            let mut going = places.iter().copied().collect();
            removable(&records, &mut going);
            let mut going: Vec<usize> = going.into_iter().collect();
            going.sort_unstable();
            going
        };
        assert_eq!(going(&[0, 1]), [0, 1], "the old root and what is on it");
        assert_eq!(going(&[1]), [1]);
        assert_eq!(going(&[0]), [0; 0], "something is made on it");
        assert_eq!(going(&[2, 3]), [0; 0], "the top needs both");
        assert_eq!(going(&[2, 3, 4]), [2, 3, 4]);
        // When what it counted for is gone, the layer counts for the other.
        let left = [&b, &on_b, &top];
        let entries: Vec<usize> = shares(&left).iter().map(|s| s.entries.len()).collect();
        assert_eq!(entries, [1, 1, 1]);
    }
}
