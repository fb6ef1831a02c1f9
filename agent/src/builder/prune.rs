//! Which records a prune removes. Pure but for the last step.
//!
//! Without a bound on space everything goes that the filters leave and that is old enough; with one the least recently
//! used goes first, as long as there is too much. Unless `all` is asked for, what images have, too, stays: it would free
//! nothing, and does not count as the cache's. The collector (`space`) chooses by the same bounds and in the same order.
//!
//! Source: moby `builder-next/builder.go` (`toBuildkitPruneInfo`), buildkit `cache/manager.go` (`prune`,
//! `calculateKeepBytes`). Unlike there a bound on free space that is kept already removes nothing.

use std::collections::HashMap;

use agent_api::Filters;
use jiff::Timestamp;

use super::Builder;
use super::cache::CacheRecord;
use crate::error::{Error, Result};

/// What is to go.
#[derive(Debug, Clone, Default)]
pub(crate) struct PruneOptions {
    /// Also what images have.
    pub(crate) all: bool,
    /// Not what was used since.
    pub(crate) until: Option<Timestamp>,
    /// `id`, `parent`, `type`, `description`, `inuse`, `shared`, `private`.
    pub(crate) filters: Filters,
    /// Bytes that are always kept; 0 for none.
    pub(crate) reserved_space: u64,
    /// Bytes that the cache may have; 0 for any number.
    pub(crate) max_used_space: u64,
    /// Bytes that should be free on the disk; 0 for any number.
    pub(crate) min_free_space: u64,
}

impl Builder {
    /// Removes what the options choose. Returns what went and the bytes that came free. Blocks.
    ///
    /// # Errors
    /// Something cannot be removed; the rest is gone.
    pub(crate) fn prune(&self, options: &PruneOptions) -> Result<(Vec<String>, u64)> {
        if !self.has_cache() {
            return Ok((Vec::new(), 0));
        }
        let (root, begun) = (self.root(), Timestamp::now());
        let (mut removed, mut freed) = (Vec::new(), 0);
        // What came free is known afterwards only: records may have files in common.
        loop {
            let disk = rustix::fs::statvfs(&root)
                .map_err(|error| Error::io("look at", &root)(error.into()))?;
            // What builds make and use meanwhile is no prey: otherwise this might never end.
            let mut records = self.usage()?;
            for record in &mut records {
                record.in_use |= record.last_used.unwrap_or(record.created) > begun;
            }
            let chosen = choose(&records, options, disk.f_bavail * disk.f_frsize);
            let (gone, bytes) = self.remove_records(&chosen)?;
            if gone.is_empty() {
                break;
            }
            removed.extend(gone);
            freed += bytes;
        }
        let reclaimed = freed.to_string();
        let events = &self.inner.engine.shared().events;
        events.other("builder", "", "prune", &[("reclaimed", &reclaimed)]);
        Ok((removed, freed))
    }
}

/// The ids of what goes; `free` are the bytes that are free on the disk.
fn choose(records: &[CacheRecord], options: &PruneOptions, free: u64) -> Vec<String> {
    let may_go = |record: &&CacheRecord| {
        !record.in_use
            && (options.all || !record.shared)
            && options
                .until
                .is_none_or(|until| record.last_used.unwrap_or(record.created) <= until)
            && matches(record, &options.filters)
    };
    let candidates: Vec<&CacheRecord> = records.iter().filter(may_go).collect();
    let bounds = Bounds {
        reserved: options.reserved_space,
        max_used: options.max_used_space,
        min_free: options.min_free_space,
    };
    least_recently_used(records, candidates, bounds, free)
}

/// How much disk the cache may have, in bytes; 0 is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// It may always have as much. On its own it is what it may have at most, as Docker's `keepStorage`.
    pub(crate) reserved: u64,
    /// It may never have more.
    pub(crate) max_used: u64,
    /// So much of the disk shall stay free.
    pub(crate) min_free: u64,
}

impl Bounds {
    /// How many of its `total` bytes the cache keeps when `free` are free on the disk; `None`: nothing bounds it.
    pub(crate) fn keep(self, total: u64, free: u64) -> Option<u64> {
        if self == Self::default() {
            return None;
        }
        let lacking = self.min_free.saturating_sub(free);
        let keep = match (self.max_used, lacking) {
            (0, 0) if self.min_free == 0 => 0,
            (0, lacking) => total.saturating_sub(lacking),
            (most, 0) => most,
            (most, lacking) => most.min(total.saturating_sub(lacking)),
        };
        Some(keep.max(self.reserved))
    }
}

/// Of the candidates among all `records` the least recently used that no other record is made on, again and again, until the
/// bounds are kept; without bounds all of them. The sizes are what removing frees at most: several records may have the same
/// files, so whoever is after space asks again afterwards.
pub(crate) fn least_recently_used(
    records: &[CacheRecord],
    candidates: Vec<&CacheRecord>,
    bounds: Bounds,
    free: u64,
) -> Vec<String> {
    let mut waiting = candidates;
    waiting.sort_by(|a, b| age(a).cmp(&age(b)));
    let own = records.iter().filter(|record| !record.shared);
    let mut left: u64 = own.map(|record| record.size).sum();
    let Some(keep) = bounds.keep(left, free) else {
        let ids = waiting.into_iter().map(|record| record.id.clone());
        return ids.collect();
    };
    let mut children: HashMap<&str, usize> = HashMap::new();
    for parent in records.iter().flat_map(|record| &record.parents) {
        *children.entry(parent).or_default() += 1;
    }
    let mut chosen = Vec::new();
    while left > keep {
        let leaf = |record: &&CacheRecord| {
            children
                .get(record.id.as_str())
                .is_none_or(|count| *count == 0)
        };
        let Some(place) = waiting.iter().position(leaf) else {
            break;
        };
        let record = waiting.remove(place);
        chosen.push(record.id.clone());
        if !record.shared {
            left = left.saturating_sub(record.size);
        }
        for parent in &record.parents {
            if let Some(count) = children.get_mut(parent.as_str()) {
                *count -= 1;
            }
        }
    }
    chosen
}

/// What goes first has the least.
fn age(record: &CacheRecord) -> (Timestamp, u64, &str) {
    let last_used = record.last_used.unwrap_or(record.created);
    (last_used, record.uses, &record.id)
}

fn matches(record: &CacheRecord, filters: &Filters) -> bool {
    let flag = |name: &str, is: bool| {
        filters.any(name, |wanted| match wanted {
            "" | "1" | "true" => is,
            "0" | "false" => !is,
            _ => false,
        })
    };
    filters.any("id", |wanted| record.id.contains(wanted))
        && filters.any("parent", |wanted| {
            record.parents.iter().any(|parent| parent == wanted)
        })
        && filters.any("type", |wanted| record.kind == wanted)
        && filters.any("description", |wanted| record.description == wanted)
        && flag("inuse", record.in_use)
        && flag("shared", record.shared)
        && flag("private", !record.shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, parent: &str, size: u64, used: i64) -> CacheRecord {
        CacheRecord {
            id: id.to_owned(),
            parents: Some(parent.to_owned())
                .filter(|parent| !parent.is_empty())
                .into_iter()
                .collect(),
            kind: "regular",
            mutable: false,
            description: format!("step {id}"),
            in_use: false,
            shared: false,
            size,
            loose: size,
            created: Timestamp::UNIX_EPOCH,
            last_used: Some(Timestamp::from_second(used).unwrap()),
            uses: 1,
        }
    }

    /// `base` ← `middle` ← `top`, and `other`, which is older than all.
    fn records() -> Vec<CacheRecord> {
        let mut records = vec![
            record("base", "", 100, 10),
            record("middle", "base", 10, 20),
            record("top", "middle", 1, 30),
            record("other", "", 1000, 5),
        ];
        records[0].shared = true;
        records
    }

    fn chosen(options: &PruneOptions, free: u64) -> String {
        choose(&records(), options, free).join(" ")
    }

    #[test]
    fn what_images_have_stays_unless_all_is_asked_for() {
        assert_eq!(chosen(&PruneOptions::default(), 0), "other middle top");
        let all = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        assert_eq!(chosen(&all, 0), "other base middle top");
    }

    #[test]
    fn filters_choose() {
        for (name, value, expected) in [
            ("id", "mid", "middle"),
            ("parent", "middle", "top"),
            ("type", "exec.cachemount", ""),
            ("description", "step top", "top"),
            ("inuse", "", ""),
            ("private", "true", "other middle top"),
            ("shared", "true", ""),
        ] {
            let options = PruneOptions {
                filters: Filters::new().with(name, value),
                ..PruneOptions::default()
            };
            assert_eq!(chosen(&options, 0), expected, "{name}={value}");
        }
        let options = PruneOptions {
            until: Some(Timestamp::from_second(20).unwrap()),
            ..PruneOptions::default()
        };
        assert_eq!(chosen(&options, 0), "other middle");
    }

    #[test]
    fn under_a_budget_the_oldest_goes_and_nothing_before_what_is_made_on_it() {
        let budget = |max_used_space| PruneOptions {
            max_used_space,
            ..PruneOptions::default()
        };
        // What images have, too, is not counted: 1011 are the cache's own.
        assert_eq!(chosen(&budget(2000), 0), "");
        assert_eq!(chosen(&budget(1010), 0), "other");
        assert_eq!(chosen(&budget(10), 0), "other top");
        assert_eq!(chosen(&budget(1), 0), "other top middle");
    }

    #[test]
    fn free_space_and_reserved_space_bound_each_other() {
        let options = PruneOptions {
            min_free_space: 500,
            ..PruneOptions::default()
        };
        assert_eq!(chosen(&options, 600), "");
        assert_eq!(chosen(&options, 400), "other");
        let options = PruneOptions {
            reserved_space: 5,
            ..PruneOptions::default()
        };
        assert_eq!(chosen(&options, 0), "other top middle");
        let options = PruneOptions {
            reserved_space: 2000,
            ..PruneOptions::default()
        };
        assert_eq!(chosen(&options, 0), "");
    }

    #[test]
    fn amounts_are_weighed_as_in_buildkit() {
        let kept = |reserved, max_used, min_free| {
            let bounds = Bounds {
                reserved,
                max_used,
                min_free,
            };
            bounds.keep(10_000, 50_000)
        };
        assert_eq!(kept(0, 0, 0), None);
        assert_eq!(kept(0, 4000, 0), Some(4000));
        assert_eq!(kept(6000, 4000, 0), Some(6000), "what is reserved stays");
        assert_eq!(kept(0, 0, 53_000), Some(7000), "3000 more are to be free");
        assert_eq!(kept(0, 0, 50_000), Some(10_000), "enough is free");
        assert_eq!(kept(0, 8000, 53_000), Some(7000));
        assert_eq!(kept(9000, 0, 53_000), Some(9000));
        assert_eq!(kept(5000, 0, 0), Some(5000), "keepStorage alone is a cap");
    }
}
