//! Which build cache records and images go when the disk is to be emptied, in which order. Pure: no clock, no disk.
//!
//! Two rules of two origins:
//!
//! - `builder.gc` of daemon.json, as BuildKit reads it: a list of [`CacheRule`]s, applied one after the other to the build
//!   cache. Source: moby `daemon/config/builder.go`, buildkit `cache/manager.go` (`calculateKeepBytes`),
//!   `cmd/buildkitd/config/gcpolicy.go`.
//! - `image-gc-budget`: images and build cache together, least recently used first, until both fit.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::builder::{Bounds, CacheRecord, least_recently_used};

/// An amount of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that holds the data root.
    Percent(u8),
}

/// The file system that holds the data root, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) size: u64,
    pub(super) free: u64,
}

impl Limit {
    pub(super) fn bytes(self, disk: Disk) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk.size / 100 * u64::from(percent),
        }
    }
}

/// What a [`CacheRule`] is about; all must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFilter {
    /// Of one of these kinds: `regular`, `source.local`, `exec.cachemount` …
    Kind(Vec<String>),
    /// This one.
    Id(String),
    /// With this description.
    Description(String),
    /// Images have it, too; or not.
    Shared(bool),
}

/// One rule of `builder.gc.policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// Also what the builder needs for itself (`internal`, `frontend`), and what images have, too.
    pub all: bool,
    /// What the rule is about.
    pub filters: Vec<CacheFilter>,
    /// Only what was not used for so long.
    pub unused_for: Duration,
    /// The cache may always have as much.
    pub reserved: Option<Limit>,
    /// It may never have more.
    pub max_used: Option<Limit>,
    /// So much of the disk shall stay free.
    pub min_free: Option<Limit>,
}

impl CacheRule {
    /// BuildKit's rules when nobody says otherwise. `reserved`, `max_used` and `min_free` replace its amounts.
    #[must_use]
    pub fn defaults(
        reserved: Option<Limit>,
        max_used: Option<Limit>,
        min_free: Option<Limit>,
    ) -> Vec<Self> {
        let (reserved, max_used, min_free) = match (reserved, max_used, min_free) {
            (None, None, None) => (
                Some(Limit::Percent(10)),
                Some(Limit::Percent(60)),
                Some(Limit::Percent(20)),
            ),
            given => given,
        };
        let rule = |all, unused_for| Self {
            all,
            filters: Vec::new(),
            unused_for,
            reserved,
            max_used,
            min_free,
        };
        let easy = ["source.local", "exec.cachemount", "source.git.checkout"];
        vec![
            Self {
                all: false,
                filters: vec![CacheFilter::Kind(easy.map(str::to_owned).to_vec())],
                unused_for: Duration::from_secs(48 * 3600),
                reserved: None,
                max_used: Some(Limit::Bytes(512_000_000)),
                min_free: None,
            },
            rule(false, Duration::from_secs(60 * 24 * 3600)),
            rule(false, Duration::ZERO),
            rule(true, Duration::ZERO),
        ]
    }

    fn concerns(&self, record: &CacheRecord) -> bool {
        (self.all || !(record.shared || matches!(record.kind, "internal" | "frontend")))
            && self.filters.iter().all(|filter| match filter {
                CacheFilter::Kind(kinds) => kinds.iter().any(|kind| kind == record.kind),
                CacheFilter::Id(id) => *id == record.id,
                CacheFilter::Description(text) => *text == record.description,
                CacheFilter::Shared(shared) => *shared == record.shared,
            })
    }

    fn bounds(&self, disk: Disk) -> Bounds {
        let bytes = |limit: Option<Limit>| limit.map_or(0, |limit| limit.bytes(disk));
        Bounds {
            reserved: bytes(self.reserved),
            max_used: bytes(self.max_used),
            min_free: bytes(self.min_free),
        }
    }
}

/// The records that a rule lets go, least recently used first, and none before what is made on it. Their sizes are what
/// removing them frees at most: who removes them asks again afterwards.
pub(super) fn cache_victims(
    rule: &CacheRule,
    records: &[CacheRecord],
    disk: Disk,
    now: Timestamp,
) -> Vec<String> {
    let concerned = records.iter().filter(|record| {
        rule.concerns(record) && !record.in_use && is_older(last_used(record), rule.unused_for, now)
    });
    least_recently_used(records, concerned.collect(), rule.bounds(disk), disk.free)
}

fn last_used(record: &CacheRecord) -> Timestamp {
    record.last_used.unwrap_or(record.created)
}

/// When each record was last used, be it through one that is made on it; ordered so that none comes before what is made on
/// it.
pub(super) fn uses(records: &[CacheRecord]) -> Vec<(&CacheRecord, Timestamp)> {
    let places: HashMap<&str, usize> = records
        .iter()
        .enumerate()
        .map(|(place, record)| (record.id.as_str(), place))
        .collect();
    let parents = |record: &CacheRecord| {
        let known = record.parents.iter();
        known
            .filter_map(|parent| places.get(parent.as_str()).copied())
            .collect::<Vec<_>>()
    };
    let mut children = vec![0_usize; records.len()];
    for record in records {
        for parent in parents(record) {
            children[parent] += 1;
        }
    }
    let mut times: Vec<Timestamp> = records.iter().map(last_used).collect();
    let mut ready: Vec<usize> = (0..records.len())
        .filter(|place| children[*place] == 0)
        .collect();
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(place) = ready.pop() {
        ordered.push((&records[place], times[place]));
        for parent in parents(&records[place]) {
            times[parent] = times[parent].max(times[place]);
            children[parent] -= 1;
            if children[parent] == 0 {
                ready.push(parent);
            }
        }
    }
    ordered
}

/// Something that the budget can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<T> {
    pub(super) what: T,
    pub(super) last_used: Timestamp,
}

/// What may go for the budget, in the order in which it goes: least recently used first, and nothing that was used within
/// `grace`, so that an image which was just pulled is there when it is to be run.
pub(super) fn by_age<T>(
    mut candidates: Vec<Candidate<T>>,
    grace: Duration,
    now: Timestamp,
) -> Vec<Candidate<T>> {
    candidates.retain(|candidate| is_older(candidate.last_used, grace, now));
    candidates.sort_by_key(|candidate| candidate.last_used);
    candidates
}

/// Whether at least `age` has passed since `time`. A time ahead of the clock is now.
fn is_older(time: Timestamp, age: Duration, now: Timestamp) -> bool {
    let passed = Duration::try_from(now.duration_since(time)).unwrap_or_default();
    passed >= age
}

/// Everything the collector is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What images and build cache may have together; `None`: as much as there is.
    pub budget: Option<Limit>,
    /// Names of images that stay, as patterns of `docker images`.
    pub keep_names: Vec<String>,
    /// Labels (`name` or `name=value`) of images that stay.
    pub keep_labels: Vec<String>,
    /// What was used within this time stays.
    pub grace: Duration,
    /// Rules of the build cache; none: nothing of it goes but for the budget.
    pub cache: Vec<CacheRule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            budget: None,
            keep_names: Vec::new(),
            keep_labels: Vec::new(),
            grace: Duration::from_secs(3600),
            cache: CacheRule::defaults(None, None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk {
        size: 100_000,
        free: 50_000,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn record(id: &str, kind: &'static str, size: u64, used: i64) -> CacheRecord {
        CacheRecord {
            id: id.to_owned(),
            parents: Vec::new(),
            kind,
            mutable: false,
            description: String::new(),
            in_use: false,
            shared: false,
            size,
            loose: size,
            created: at(0),
            last_used: Some(at(used)),
            uses: 1,
        }
    }

    fn rule(max_used: Option<u64>) -> CacheRule {
        CacheRule {
            all: false,
            filters: Vec::new(),
            unused_for: Duration::ZERO,
            reserved: None,
            max_used: max_used.map(Limit::Bytes),
            min_free: None,
        }
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let records = [
            record("new", "regular", 100, 30),
            record("old", "regular", 100, 10),
            record("middle", "regular", 100, 20),
        ];
        let victims = |max| cache_victims(&rule(max), &records, DISK, at(100));
        assert_eq!(victims(Some(300)), [""; 0]);
        assert_eq!(victims(Some(299)), ["old"]);
        assert_eq!(victims(Some(200)), ["old"]);
        assert_eq!(victims(Some(199)), ["old", "middle"]);
        assert_eq!(victims(Some(0)), ["old", "middle", "new"]);
        assert_eq!(
            victims(None),
            ["old", "middle", "new"],
            "no limit: all that fits"
        );
    }

    #[test]
    fn what_is_in_use_young_or_internal_stays() {
        let mut records = [
            record("used", "regular", 100, 10),
            record("young", "regular", 100, 95),
            record("own", "internal", 100, 10),
            record("old", "regular", 100, 10),
            record("ahead", "regular", 100, 1000),
        ];
        records[0].in_use = true;
        let mut rule = CacheRule {
            unused_for: Duration::from_secs(10),
            ..rule(Some(0))
        };
        assert_eq!(cache_victims(&rule, &records, DISK, at(100)), ["old"]);
        rule.all = true;
        assert_eq!(
            cache_victims(&rule, &records, DISK, at(100)),
            ["old", "own"]
        );
    }

    #[test]
    fn a_limit_in_hundredths_is_one_of_the_disk() {
        assert_eq!(Limit::Percent(10).bytes(DISK), 10_000);
        let rule = CacheRule {
            min_free: Some(Limit::Percent(51)),
            ..rule(None)
        };
        let records = [
            record("a", "regular", 1500, 1),
            record("b", "regular", 1, 2),
        ];
        assert_eq!(cache_victims(&rule, &records, DISK, at(9)), ["a"]);
    }

    /// `base` ← `middle` ← `top`; `top` was used last, and through it the others.
    fn chain() -> Vec<CacheRecord> {
        let mut records = vec![
            record("base", "regular", 100, 10),
            record("middle", "regular", 100, 20),
            record("top", "regular", 100, 90),
            record("other", "regular", 100, 50),
        ];
        records[1].parents = vec!["base".to_owned()];
        records[2].parents = vec!["middle".to_owned()];
        records
    }

    #[test]
    fn nothing_goes_before_what_is_made_on_it() {
        let victims = |max| cache_victims(&rule(Some(max)), &chain(), DISK, at(100));
        assert_eq!(victims(350), ["other"]);
        assert_eq!(victims(250), ["other", "top"]);
        assert_eq!(victims(1), ["other", "top", "middle", "base"]);
    }

    #[test]
    fn a_record_was_used_when_what_is_made_on_it_was() {
        let records = chain();
        let mut uses = uses(&records);
        uses.sort_by_key(|(_, time)| *time);
        let shown: Vec<(&str, i64)> = uses
            .iter()
            .map(|(record, time)| (record.id.as_str(), time.as_second()))
            .collect();
        assert_eq!(
            shown,
            [("other", 50), ("top", 90), ("middle", 90), ("base", 90)]
        );
    }

    #[test]
    fn what_images_have_is_not_counted_and_stays_unless_the_rule_is_about_all() {
        let mut records = chain();
        records[0].shared = true;
        records[3].shared = true;
        let mut rule = rule(Some(200));
        assert_eq!(cache_victims(&rule, &records, DISK, at(100)), [""; 0]);
        rule.max_used = Some(Limit::Bytes(1));
        assert_eq!(
            cache_victims(&rule, &records, DISK, at(100)),
            ["top", "middle"]
        );
    }

    #[test]
    fn filters_must_all_fit() {
        let records = [
            record("a", "source.local", 1, 1),
            record("b", "exec.cachemount", 1, 2),
            record("c", "regular", 1, 3),
        ];
        let rule = CacheRule {
            filters: vec![
                CacheFilter::Kind(vec!["source.local".to_owned(), "regular".to_owned()]),
                CacheFilter::Shared(false),
            ],
            ..rule(Some(0))
        };
        assert_eq!(cache_victims(&rule, &records, DISK, at(9)), ["a", "c"]);
        let defaults = CacheRule::defaults(Some(Limit::Bytes(2)), None, None);
        assert_eq!(defaults.len(), 4);
        assert_eq!(defaults[1].max_used, None);
        assert_eq!(cache_victims(&defaults[2], &records, DISK, at(9)), ["a"]);
    }

    #[test]
    fn the_budget_takes_the_oldest_first_and_nothing_young() {
        let candidate = |what: &'static str, last_used| Candidate {
            what,
            last_used: at(last_used),
        };
        let all = vec![candidate("b", 20), candidate("c", 95), candidate("a", 10)];
        let chosen = by_age(all, Duration::from_secs(10), at(100));
        let chosen: Vec<&str> = chosen.iter().map(|candidate| candidate.what).collect();
        assert_eq!(chosen, ["a", "b"]);
    }
}
