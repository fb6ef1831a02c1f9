//! Which slots a replicated service has: as many as it has replicas, under the lowest numbers that are free (SwarmKit
//! `manager/orchestrator/replicated/{services,slot}.go`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::slot::SlotKey;
use super::stand::Stand;

/// What becomes of the slots there are.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// They stay, in the order of their keys.
    pub(super) kept: Vec<Stand<'a>>,
    /// They go, with all their tasks.
    pub(super) dropped: Vec<Stand<'a>>,
    /// Slots to be made, in this order; some may have ended tasks.
    pub(super) missing: Vec<Stand<'a>>,
    /// How many more are to be made, under numbers nobody has.
    pub(super) fresh: u64,
}

/// Chooses among the slots of the service, which are in the order of their numbers.
pub(super) fn choose(stands: Vec<Stand<'_>>, replicas: u64) -> Choice<'_> {
    let (mut occupied, free): (Vec<_>, Vec<_>) = stands.into_iter().partition(Stand::is_occupied);
    let mut choice = Choice::default();
    let surplus = (occupied.len() as u64).saturating_sub(replicas);
    if surplus > 0 {
        let (kept, dropped) = scale_down(occupied, replicas);
        occupied = kept;
        choice.dropped = dropped;
    }
    let lacking = replicas - occupied.len() as u64;
    choice.fresh = lacking;
    // Numbers that are free are taken before new ones, but only the lowest: 1 and 2 of 1, 2, 7.
    let numbers = Lowest::new(&occupied, lacking);
    for stand in free {
        if numbers.takes(&stand.key) {
            choice.fresh -= 1;
            choice.missing.push(stand);
        } else {
            choice.dropped.push(stand);
        }
    }
    choice.kept = occupied;
    choice
}

/// Keeps the balance over the nodes: each slot is the nth copy on its node, slots that run counted first and lower
/// numbers before higher ones; the highest n go first. Slots that have no node, or two tasks, go before all.
fn scale_down(mut stands: Vec<Stand<'_>>, replicas: u64) -> (Vec<Stand<'_>>, Vec<Stand<'_>>) {
    stands.sort_by_key(|stand| Reverse(stand.is_running()));
    let mut copies: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ranked: Vec<_> = stands
        .into_iter()
        .map(|stand| (rank(&stand, &mut copies), stand))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let keep = usize::try_from(replicas).unwrap_or(usize::MAX);
    let dropped = ranked.split_off(keep.min(ranked.len()));
    let unranked = |ranked: Vec<(u64, _)>| {
        let mut stands: Vec<Stand<'_>> = ranked.into_iter().map(|(_, stand)| stand).collect();
        stands.sort_by(|a, b| a.key.cmp(&b.key));
        stands
    };
    (unranked(ranked), unranked(dropped))
}

fn rank<'a>(stand: &Stand<'a>, copies: &mut BTreeMap<&'a str, u64>) -> u64 {
    let mut tasks = stand.slot.live().chain(stand.finished());
    let only = match (tasks.next(), tasks.next()) {
        (Some(task), None) if !task.node_id.is_empty() => task,
        _ => return u64::MAX,
    };
    let copy = copies.entry(&only.node_id).or_default();
    *copy += 1;
    *copy
}

/// The lowest numbers that no slot has.
struct Lowest {
    taken: Vec<u64>,
    /// The highest number that is needed.
    last: u64,
}

impl Lowest {
    fn new(occupied: &[Stand<'_>], count: u64) -> Self {
        let taken: Vec<u64> = occupied
            .iter()
            .filter_map(|stand| number(&stand.key))
            .collect();
        let mut last = count;
        for number in &taken {
            if *number <= last {
                last = last.saturating_add(1);
            }
        }
        Self { taken, last }
    }

    fn takes(&self, key: &SlotKey) -> bool {
        number(key)
            .is_some_and(|number| number <= self.last && self.taken.binary_search(&number).is_err())
    }
}

/// The `count` lowest numbers that are not among `taken`, which is in order.
pub(super) fn lowest_free(taken: &[u64], count: u64) -> impl Iterator<Item = u64> + '_ {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    (1..)
        .filter(|number| taken.binary_search(number).is_err())
        .take(count)
}

pub(super) const fn number(key: &SlotKey) -> Option<u64> {
    match key {
        SlotKey::Number(number) => Some(*number),
        SlotKey::Node(_) => None,
    }
}
