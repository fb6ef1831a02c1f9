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

/// Period of heartbeats, unless the user sets one.
pub const DEFAULT_PERIOD_MS: u64 = 1_000;

/// How long nodes may be silent, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// After the node closed its connection.
    pub closed_ms: u64,
    /// While the connection seems to be there.
    pub silent_ms: u64,
    /// After the leader changed.
    pub election_ms: u64,
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
        }
    }
}

const fn at_least(value: u64, floor: u64) -> u64 {
    if value < floor { floor } else { value }
}
