//! Where the data of a layer's files is now, when later entries of the same layer replaced some of them.
//!
//! A layer may name one file many times; the recipe needs every version, and asks for each of its files.

use std::collections::HashMap;

use super::Move;

/// The list of `layer.json`, for looking up.
pub(super) struct Moves<'a> {
    /// From where, and for each the entries before which that happened with the places in the list; both ascend.
    from: HashMap<Vec<u8>, Vec<(u64, usize)>>,
    list: &'a [Move],
}

impl<'a> Moves<'a> {
    /// `None`: a name is not hex.
    pub(super) fn new(list: &'a [Move]) -> Option<Self> {
        let mut from: HashMap<_, Vec<_>> = HashMap::new();
        for (place, step) in list.iter().enumerate() {
            let path = hex::decode(&step.from).ok()?;
            from.entry(path).or_default().push((step.entry, place));
        }
        Some(Self { from, list })
    }

    /// Where the data that tar entry `entry` put at `path` is now, relative to the layer's directory: the first move after
    /// it of the file, or of a directory above, took it away.
    pub(super) fn located(&self, entry: u64, path: &[u8]) -> Vec<u8> {
        let slashes = (0..path.len()).filter(|at| path[*at] == b'/');
        let above_and_itself = slashes.chain([path.len()]);
        let first = above_and_itself
            .filter_map(|end| {
                let moves = self.from.get(&path[..end])?;
                let after = moves.partition_point(|(at, _)| *at <= entry);
                moves.get(after).map(|(_, place)| (*place, end))
            })
            .min();
        match first {
            Some((place, end)) => {
                [b"spill/", self.list[place].to.as_bytes(), &path[end..]].concat()
            }
            None => [b"diff/", path].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(moves: &[(u64, &str)]) -> Vec<Move> {
        let step = |(number, (entry, from)): (usize, &(u64, &str))| Move {
            entry: *entry,
            from: hex::encode(from),
            to: number.to_string(),
        };
        moves.iter().enumerate().map(step).collect()
    }

    #[test]
    fn each_version_of_a_file_is_found() {
        let list = list(&[(2, "a"), (3, "a"), (5, "d"), (7, "d/x"), (9, "d")]);
        let moves = Moves::new(&list).unwrap();
        for (entry, path, place) in [
            (1, "a", "spill/0"),
            (2, "a", "spill/1"),
            (3, "a", "diff/a"),
            (1, "ab", "diff/ab"),
            (4, "d/x", "spill/2/x"),
            (4, "d/y/z", "spill/2/y/z"),
            (6, "d/x", "spill/3"),
            (7, "d/x", "spill/4/x"),
            (9, "d/x", "diff/d/x"),
        ] {
            let found = String::from_utf8(moves.located(entry, path.as_bytes())).unwrap();
            assert_eq!(found, place, "{path} of entry {entry}");
        }
    }

    #[test]
    fn many_versions_are_found_quickly() {
        let all: Vec<(u64, &str)> = (1..200_000).map(|entry| (entry, "a/b")).collect();
        let list = list(&all);
        let moves = Moves::new(&list).unwrap();
        // One after the other this is 20,000,000,000 comparisons.
        for entry in 0..199_999 {
            let place = format!("spill/{entry}");
            assert_eq!(moves.located(entry, b"a/b"), place.as_bytes());
        }
    }

    #[test]
    fn a_list_that_was_not_written_here_is_refused() {
        let mut list = list(&[(1, "a")]);
        list[0].from = "zz".to_owned();
        assert!(Moves::new(&list).is_none());
    }
}
