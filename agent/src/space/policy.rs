//! Which build cache records and images go when the disk is to be emptied, in which order. Pure: no clock, no disk.
//!
//! Two rules of two origins:
//!
//! - `builder.gc` of daemon.json, as BuildKit reads it: a list of [`CacheRule`]s, applied one after the other to the build
//!   cache. Source: moby `daemon/config/builder.go`, buildkit `cache/manager.go` (`calculateKeepBytes`),
//!   `cmd/buildkitd/config/gcpolicy.go`.
//! - `image-gc-budget`: images and build cache together, least recently used first, until both fit.

use std::time::Duration;

use jiff::Timestamp;

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
    /// Also what the builder needs for itself (`internal`, `frontend`).
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

    fn concerns(&self, item: &CacheItem<'_>) -> bool {
        (self.all || !matches!(item.kind, "internal" | "frontend"))
            && self.filters.iter().all(|filter| match filter {
                CacheFilter::Kind(kinds) => kinds.iter().any(|kind| kind == item.kind),
                CacheFilter::Id(id) => id == item.id,
                CacheFilter::Description(text) => text == item.description,
                CacheFilter::Shared(shared) => *shared == item.shared,
            })
    }

    /// How much of `total` bytes stays; `None`: nothing limits it, everything that fits the rule goes.
    fn keeps(&self, total: u64, disk: Disk) -> Option<u64> {
        let bytes = |limit: Option<Limit>| limit.map(|limit| limit.bytes(disk));
        let (reserved, max_used, min_free) = (
            bytes(self.reserved),
            bytes(self.max_used),
            bytes(self.min_free),
        );
        if reserved.is_none() && max_used.is_none() && min_free.is_none() {
            return None;
        }
        let excess = min_free.unwrap_or(0).saturating_sub(disk.free);
        let mut keep = max_used;
        if excess > 0 {
            let left = total.saturating_sub(excess);
            keep = Some(keep.map_or(left, |keep| keep.min(left)));
        }
        Some(keep.unwrap_or(0).max(reserved.unwrap_or(0)))
    }
}

/// A record of the build cache, as far as rules look at it.
#[derive(Debug, Clone)]
pub(super) struct CacheItem<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) description: &'a str,
    pub(super) in_use: bool,
    pub(super) shared: bool,
    pub(super) bytes: u64,
    pub(super) last_used: Timestamp,
}

/// The records that a rule lets go, least recently used first. Their sizes are what removing them frees at most: who removes
/// them asks again afterwards.
pub(super) fn cache_victims(
    rule: &CacheRule,
    items: &[CacheItem<'_>],
    disk: Disk,
    now: Timestamp,
) -> Vec<String> {
    let mut concerned: Vec<&CacheItem<'_>> =
        items.iter().filter(|item| rule.concerns(item)).collect();
    let mut total: u64 = concerned.iter().map(|item| item.bytes).sum();
    let keep = rule.keeps(total, disk);
    concerned.retain(|item| !item.in_use && is_older(item.last_used, rule.unused_for, now));
    concerned.sort_by(|a, b| (a.last_used, a.id).cmp(&(b.last_used, b.id)));
    let mut victims = Vec::new();
    for item in concerned {
        if keep.is_some_and(|keep| total <= keep) {
            break;
        }
        total = total.saturating_sub(item.bytes);
        victims.push(item.id.to_owned());
    }
    victims
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
) -> Vec<T> {
    candidates.retain(|candidate| is_older(candidate.last_used, grace, now));
    candidates.sort_by_key(|candidate| candidate.last_used);
    candidates
        .into_iter()
        .map(|candidate| candidate.what)
        .collect()
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

    fn item(
        id: &'static str,
        kind: &'static str,
        bytes: u64,
        last_used: i64,
    ) -> CacheItem<'static> {
        CacheItem {
            id,
            kind,
            description: "",
            in_use: false,
            shared: false,
            bytes,
            last_used: at(last_used),
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
        let items = [
            item("new", "regular", 100, 30),
            item("old", "regular", 100, 10),
            item("middle", "regular", 100, 20),
        ];
        let victims = |max| cache_victims(&rule(max), &items, DISK, at(100));
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
        let mut items = [
            item("used", "regular", 100, 10),
            item("young", "regular", 100, 95),
            item("own", "internal", 100, 10),
            item("old", "regular", 100, 10),
            item("ahead", "regular", 100, 1000),
        ];
        items[0].in_use = true;
        let mut rule = CacheRule {
            unused_for: Duration::from_secs(10),
            ..rule(Some(0))
        };
        assert_eq!(cache_victims(&rule, &items, DISK, at(100)), ["old"]);
        rule.all = true;
        assert_eq!(cache_victims(&rule, &items, DISK, at(100)), ["old", "own"]);
    }

    #[test]
    fn amounts_are_weighed_as_in_buildkit() {
        let kept = |reserved: u64, max: u64, free: u64| {
            let limit = |bytes: u64| (bytes > 0).then_some(Limit::Bytes(bytes));
            CacheRule {
                reserved: limit(reserved),
                max_used: limit(max),
                min_free: limit(free),
                ..rule(None)
            }
            .keeps(10_000, DISK)
        };
        assert_eq!(kept(0, 0, 0), None);
        assert_eq!(kept(0, 4000, 0), Some(4000));
        assert_eq!(kept(6000, 4000, 0), Some(6000), "what is reserved stays");
        assert_eq!(kept(0, 0, 53_000), Some(7000), "3000 more are to be free");
        assert_eq!(kept(0, 8000, 53_000), Some(7000));
        assert_eq!(kept(9000, 0, 53_000), Some(9000));
        assert_eq!(kept(5000, 0, 0), Some(5000), "keepStorage alone is a cap");
        assert_eq!(Limit::Percent(10).bytes(DISK), 10_000);
    }

    #[test]
    fn filters_must_all_fit() {
        let items = [
            item("a", "source.local", 1, 1),
            item("b", "exec.cachemount", 1, 2),
            item("c", "regular", 1, 3),
        ];
        let rule = CacheRule {
            filters: vec![
                CacheFilter::Kind(vec!["source.local".to_owned(), "regular".to_owned()]),
                CacheFilter::Shared(false),
            ],
            ..rule(Some(0))
        };
        assert_eq!(cache_victims(&rule, &items, DISK, at(9)), ["a", "c"]);
        let defaults = CacheRule::defaults(Some(Limit::Bytes(2)), None, None);
        assert_eq!(defaults.len(), 4);
        assert_eq!(defaults[1].max_used, None);
        assert_eq!(cache_victims(&defaults[2], &items, DISK, at(9)), ["a"]);
    }

    #[test]
    fn the_budget_takes_the_oldest_first_and_nothing_young() {
        let candidate = |what: &'static str, last_used| Candidate {
            what,
            last_used: at(last_used),
        };
        let all = vec![candidate("b", 20), candidate("c", 95), candidate("a", 10)];
        assert_eq!(by_age(all, Duration::from_secs(10), at(100)), ["a", "b"]);
    }
}
