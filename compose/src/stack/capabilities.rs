//! Capabilities added and dropped, in the one form that clusters compare. Source: docker/cli `opts/capabilities.go`.

use std::collections::BTreeSet;

const ALL: &str = "ALL";
/// Only means something while a service is updated: forget what was there.
const RESET: &str = "RESET";

/// A name as clusters keep it: upper case, with its prefix.
#[must_use]
pub fn normal(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    if name == ALL || name == RESET || name.starts_with("CAP_") {
        name
    } else {
        format!("CAP_{name}")
    }
}

/// What remains of the two lists: sorted, without duplicates; adding beats dropping, and `ALL` beats single ones.
#[must_use]
pub fn effective(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let set = |names: &[String]| -> BTreeSet<String> {
        let all: BTreeSet<_> = names.iter().map(|name| normal(name)).collect();
        if all.contains(ALL) {
            BTreeSet::from([ALL.to_owned()])
        } else {
            all
        }
    };
    let (add, mut drop) = (set(add), set(drop));
    drop.retain(|name| !add.contains(name));
    let list = |set: BTreeSet<String>| set.into_iter().filter(|name| name != RESET).collect();
    (list(add), list(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_beats_dropping_and_all_beats_one() {
        let lists = |add: &[&str], drop: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            let (add, drop) = effective(&own(add), &own(drop));
            (add.join(" "), drop.join(" "))
        };
        let pair = |add: &str, drop: &str| (add.to_owned(), drop.to_owned());
        assert_eq!(
            lists(&["net_admin", "CAP_NET_ADMIN"], &[]),
            pair("CAP_NET_ADMIN", "")
        );
        assert_eq!(
            lists(&["chown"], &["chown", "kill"]),
            pair("CAP_CHOWN", "CAP_KILL")
        );
        assert_eq!(lists(&["sys_time", "all"], &["ALL"]), pair("ALL", ""));
        assert_eq!(lists(&["reset", "b", "a"], &[]), pair("CAP_A CAP_B", ""));
    }
}
