//! Whose bytes are whose. Results may add the same layers, as images with a base in common do: each layer counts once, for the
//! oldest of the results that add it, and the others are made on that one. So sums are what the disk has.
//!
//! Pure. BuildKit has a record for every single layer, from which the same follows.

use std::collections::HashMap;

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
    for record in records {
        for entry in record.own_entries() {
            owners.entry(entry).or_insert(&record.id);
        }
    }
    let share = |record: &&'r Record| {
        let own = record.own_entries();
        let counts = |entry: &&Entry| owners.get(entry) == Some(&record.id.as_str());
        let first = own.iter().position(|entry| counts(&entry));
        let above = record.below().len() + first.unwrap_or(own.len());
        let below = above.checked_sub(1).map(|at| &record.stack.entries[at]);
        Share {
            parent: below.and_then(|entry| owners.get(entry).copied()),
            entries: own.iter().filter(counts).collect(),
        }
    };
    records.iter().map(share).collect()
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
            size: 0,
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
                (of(&base), 0),
                (of(&base), 0),
            ]
        );
        assert_eq!(shares[2].entries, [&other.stack.entries[2]]);
    }
}
