//! Variables of a stage, in the order of their last assignment (BuildKit's `llb.EnvList`).

use std::collections::HashMap;

use crate::words::Environment;

/// Variables in the order of their last assignment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct EnvList {
    /// Value of each, and the number of the assignment that made it.
    values: HashMap<String, (u64, String)>,
    assignments: u64,
}

impl EnvList {
    /// Sets a variable; it becomes the last one.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.assignments += 1;
        let value = (self.assignments, value.to_owned());
        self.values.insert(name.to_owned(), value);
    }

    /// Value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// Names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.in_order().into_iter().map(|(name, _)| name)
    }

    /// `NAME=value` in order.
    pub(super) fn to_vec(&self) -> Vec<String> {
        let pairs = self.in_order().into_iter();
        pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// How many bytes it holds.
    pub(super) fn weight(&self) -> usize {
        let pairs = self.values.iter();
        pairs
            .map(|(name, (_, value))| name.len() + value.len() + 2)
            .sum()
    }

    fn in_order(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<(u64, &str, &str)> = self
            .values
            .iter()
            .map(|(name, (number, value))| (*number, name.as_str(), value.as_str()))
            .collect();
        pairs.sort_unstable();
        pairs
            .into_iter()
            .map(|(_, name, value)| (name, value))
            .collect()
    }
}

impl Environment for EnvList {
    fn get(&self, name: &str) -> Option<&str> {
        EnvList::get(self, name)
    }
}

/// Some variables over others.
pub(super) struct Masked<'a> {
    /// Looked up first.
    pub(super) mask: EnvList,
    /// Looked up then.
    pub(super) base: &'a EnvList,
}

impl Environment for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.mask.get(name).or_else(|| self.base.get(name))
    }
}

/// `NAME=value` taken apart; a text without `=` is a name with an empty value.
pub(super) fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets a variable in an image's list: in its old place, or at the end.
pub(super) fn set_in_image(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|known| split_pair(known).0 == name) {
        Some(known) => *known = pair,
        None => env.push(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_orders_by_last_assignment_and_an_image_by_the_first() {
        let mut stage = EnvList::default();
        let mut image = Vec::new();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            stage.set(name, value);
            set_in_image(&mut image, name, value);
        }
        assert_eq!(stage.to_vec(), ["B=2", "A=3"]);
        assert_eq!(image, ["A=3", "B=2"]);
    }
}
