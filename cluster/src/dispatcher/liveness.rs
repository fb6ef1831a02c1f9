//! When a node that says nothing is given up.
//!
//! A process that ends leaves a trace: the kernel closes its sockets, and the leader sees the session's connection end.
//! A node that is cut off, stopped or slow leaves none. The two get different patience:
//!
//! | what is seen | patience (period 1 s) | why |
//! |---|---|---|
//! | connection closed by the node, no new session | 3.5 periods, at least 3.5 s | a restart of the agent takes less; replacements run within 5 s of a crash |
//! | silence | 3.5 periods, at least 7 s | a cable pulled for 5 s and TCP's back-off after it (retransmission 6.2 s after the cut) move nothing |
//! | no session with this leader yet | 6 periods, at least 10 s | the election took its time already, and all agents register at once |
//!
//! A host that loses power is silent, and so is replaced after 7 s: nothing that the leader can observe tells it from
//! one whose cable was pulled for 5 s. SwarmKit: 3 periods of 5 s for everything, 6 after an election.
//!
//! Before a node is given up it is suspected: new connections go to other nodes' backends where there are any, and
//! nothing is moved.
//!
//! The leader's own pauses (a stopped process, a suspended host) are no silence of the nodes: time in which it was not
//! awake does not count.

use std::collections::{BTreeMap, BTreeSet};

use cluster_api::Time;

/// Period of heartbeats, unless the user sets one.
pub const DEFAULT_PERIOD_MS: u64 = 1_000;

/// A wake-up this much too late means that the leader was not running.
const LATE_MS: u64 = 500;

/// How long nodes may be silent, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// After the node closed its connection.
    pub closed_ms: u64,
    /// While the connection seems to be there.
    pub silent_ms: u64,
    /// After the leader changed.
    pub election_ms: u64,
    /// Until a node that closed its connection is suspected.
    pub suspect_closed_ms: u64,
    /// Until a silent node is suspected.
    pub suspect_silent_ms: u64,
}

impl Grace {
    /// For heartbeats of this period.
    #[must_use]
    pub const fn of_period(period_ms: u64) -> Self {
        let periods = period_ms.saturating_mul(7) / 2;
        Self {
            closed_ms: at_least(periods, 3_500),
            silent_ms: at_least(periods, 7_000),
            election_ms: at_least(period_ms.saturating_mul(6), 10_000),
            suspect_closed_ms: 1_000,
            suspect_silent_ms: at_least(period_ms.saturating_mul(5) / 2, 2_500),
        }
    }
}

const fn at_least(value: u64, floor: u64) -> u64 {
    if value < floor { floor } else { value }
}

/// What was last seen of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    /// Nothing since this leader began.
    Awaited,
    /// A call.
    Heard,
    /// The end of its connection.
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    trace: Trace,
    since: Time,
    suspected: bool,
}

impl Watch {
    const fn given_up_at(&self, grace: &Grace) -> Time {
        self.since.after(match self.trace {
            Trace::Awaited => grace.election_ms,
            Trace::Heard => grace.silent_ms,
            Trace::Closed => grace.closed_ms,
        })
    }

    /// `None` while a node is not to be suspected at all.
    const fn suspected_at(&self, grace: &Grace) -> Option<Time> {
        match self.trace {
            Trace::Awaited => None,
            Trace::Heard => Some(self.since.after(grace.suspect_silent_ms)),
            Trace::Closed => Some(self.since.after(grace.suspect_closed_ms)),
        }
    }

    fn next(&self, grace: &Grace) -> Time {
        match self.suspected_at(grace) {
            Some(at) if !self.suspected => at,
            _ => self.given_up_at(grace),
        }
    }
}

/// Who is watched, and when to look.
#[derive(Debug)]
pub(super) struct Liveness {
    period_ms: u64,
    grace: Grace,
    watches: BTreeMap<String, Watch>,
    /// When to look at a node; may be earlier than needed, never later.
    queue: BTreeSet<(Time, String)>,
    /// When this leader last did anything.
    awake: Option<Time>,
    /// Nodes whose suspicion changed since it was asked.
    changed: BTreeSet<String>,
}

impl Liveness {
    pub(super) fn new(period_ms: u64) -> Self {
        Self {
            period_ms,
            grace: Grace::of_period(period_ms),
            watches: BTreeMap::new(),
            queue: BTreeSet::new(),
            awake: None,
            changed: BTreeSet::new(),
        }
    }

    pub(super) const fn period_ms(&self) -> u64 {
        self.period_ms
    }

    /// Heartbeats have another period from now on. A shorter one must not give up nodes that do not know of it yet:
    /// everyone counts as heard now.
    pub(super) fn set_period(&mut self, period_ms: u64, now: Time) {
        if self.period_ms == period_ms {
            return;
        }
        self.period_ms = period_ms;
        self.grace = Grace::of_period(period_ms);
        for (node_id, watch) in &mut self.watches {
            watch.since = watch.since.max(now);
            self.queue
                .insert((watch.next(&self.grace), node_id.clone()));
        }
    }

    /// To be called before anything else at each input: notices that the leader itself was away.
    pub(super) fn wake(&mut self, now: Time) {
        let away = self.awake.map_or(0, |awake| now.since(awake));
        self.awake = Some(self.awake.map_or(now, |awake| awake.max(now)));
        if away > self.period_ms + LATE_MS {
            for watch in self.watches.values_mut() {
                watch.since = watch.since.after(away).min(now);
            }
        }
    }

    /// A node this leader has not heard of yet.
    pub(super) fn await_node(&mut self, node_id: &str, now: Time) {
        if !self.watches.contains_key(node_id) {
            self.set(node_id, Trace::Awaited, now);
        }
    }

    pub(super) fn heard(&mut self, node_id: &str, now: Time) {
        self.set(node_id, Trace::Heard, now);
    }

    /// The node's connection ended from its side.
    pub(super) fn closed(&mut self, node_id: &str, now: Time) {
        if self
            .watches
            .get(node_id)
            .is_some_and(|watch| watch.trace == Trace::Heard)
        {
            self.set(node_id, Trace::Closed, now);
        }
    }

    pub(super) fn forget(&mut self, node_id: &str) {
        if let Some(watch) = self.watches.remove(node_id)
            && watch.suspected
        {
            self.changed.insert(node_id.to_owned());
        }
    }

    /// Whether connections had better go elsewhere.
    pub(super) fn is_suspected(&self, node_id: &str) -> bool {
        self.watches
            .get(node_id)
            .is_some_and(|watch| watch.suspected)
    }

    /// Nodes that are given up now; they are no longer watched.
    pub(super) fn expire(&mut self, now: Time) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some((at, node_id)) = self.queue.first().cloned()
            && at <= now
        {
            self.queue.pop_first();
            let Some(watch) = self.watches.get_mut(&node_id) else {
                continue;
            };
            if watch.given_up_at(&self.grace) <= now {
                self.forget(&node_id);
                expired.push(node_id);
                continue;
            }
            if !watch.suspected
                && watch
                    .suspected_at(&self.grace)
                    .is_some_and(|suspected| suspected <= now)
            {
                watch.suspected = true;
                self.changed.insert(node_id.clone());
            }
            self.queue.insert((watch.next(&self.grace), node_id));
        }
        expired
    }

    /// Nodes that are suspected, or are no longer, since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// When to look again. At least once a period, so that the leader notices its own pauses.
    pub(super) fn wake_at(&self, now: Time) -> Option<Time> {
        let (first, _) = self.queue.first()?;
        Some((*first).min(now.after(self.period_ms)))
    }

    fn set(&mut self, node_id: &str, trace: Trace, since: Time) {
        let watch = Watch {
            trace,
            since,
            suspected: false,
        };
        let next = watch.next(&self.grace);
        let old = self.watches.insert(node_id.to_owned(), watch);
        if old.is_some_and(|old| old.suspected) {
            self.changed.insert(node_id.to_owned());
        }
        // A node that is merely heard again has an entry that is early enough.
        if old.is_none_or(|old| next < old.next(&self.grace) || old.suspected) {
            self.queue.insert((next, node_id.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::Time;

    use super::{Grace, Liveness};

    /// Wakes every 100 ms from `from` to `to`; the first moment at which `n` was given up.
    fn given_up(liveness: &mut Liveness, from: u64, to: u64) -> Option<u64> {
        (from..=to).step_by(100).find(|now| {
            liveness.wake(Time(*now));
            !liveness.expire(Time(*now)).is_empty()
        })
    }

    #[test]
    fn a_closed_connection_is_given_less_time_than_silence() {
        let mut liveness = Liveness::new(1_000);
        liveness.heard("n", Time(0));
        assert_eq!(given_up(&mut liveness, 0, 20_000), Some(7_000));

        let mut liveness = Liveness::new(1_000);
        liveness.heard("n", Time(0));
        liveness.closed("n", Time(500));
        assert_eq!(given_up(&mut liveness, 500, 20_000), Some(4_000));
    }

    #[test]
    fn a_blip_of_five_seconds_gives_nobody_up() {
        let mut liveness = Liveness::new(1_000);
        // Last heard just before the cut at 1.0 s; the next segment gets through 6.2 s after it was first sent.
        liveness.heard("n", Time(100));
        assert_eq!(given_up(&mut liveness, 100, 7_000), None);
        liveness.heard("n", Time(7_050));
        assert_eq!(given_up(&mut liveness, 7_100, 14_000), None);
        assert!(liveness.is_suspected("n"));
    }

    #[test]
    fn a_node_that_registers_again_after_closing_is_alive() {
        let mut liveness = Liveness::new(1_000);
        liveness.heard("n", Time(0));
        liveness.closed("n", Time(100));
        assert_eq!(given_up(&mut liveness, 100, 2_000), None);
        assert!(liveness.is_suspected("n"));
        liveness.heard("n", Time(2_000));
        assert!(!liveness.is_suspected("n"));
        assert_eq!(given_up(&mut liveness, 2_000, 20_000), Some(9_000));
    }

    #[test]
    fn after_an_election_nodes_have_longer() {
        let mut liveness = Liveness::new(1_000);
        liveness.await_node("n", Time(0));
        assert_eq!(given_up(&mut liveness, 0, 20_000), Some(10_000));
        assert!(!liveness.is_suspected("n"));
    }

    #[test]
    fn the_leaders_own_pause_is_nobodys_silence() {
        let mut liveness = Liveness::new(1_000);
        liveness.heard("n", Time(0));
        assert_eq!(given_up(&mut liveness, 0, 1_000), None);
        // Stopped for a minute: nothing was read meanwhile.
        assert_eq!(given_up(&mut liveness, 61_000, 80_000), Some(67_000));
    }

    #[test]
    fn a_longer_period_means_more_patience() {
        let grace = Grace::of_period(5_000);
        assert_eq!(
            (grace.closed_ms, grace.silent_ms, grace.election_ms),
            (17_500, 17_500, 30_000)
        );
        let mut liveness = Liveness::new(5_000);
        liveness.heard("n", Time(0));
        assert_eq!(given_up(&mut liveness, 0, 16_000), None);
        liveness.set_period(1_000, Time(16_000));
        assert_eq!(given_up(&mut liveness, 16_100, 40_000), Some(23_000));
    }
}
