//! Time as an input. What decides never asks a clock: it is told.

use serde::{Deserialize, Serialize};

/// The two clocks at the moment of a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// For durations and deadlines.
    pub mono: Time,
    /// For what people read.
    pub wall: Timestamp,
}

/// Milliseconds on a clock that never goes back, since a start that means nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `milliseconds` later.
    #[must_use]
    pub const fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds since `earlier`, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds since 1970-01-01 UTC; zero means "never".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// RFC 3339 with nanoseconds, trailing zeros left out, as the Engine API writes it.
    #[must_use]
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_nanosecond(i128::from(self.0))
            .map_or_else(|_| String::new(), |time| time.to_string())
    }

    /// Milliseconds since `earlier`, zero if that is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        let nanos = self.0.saturating_sub(earlier.0);
        if nanos > 0 {
            nanos.unsigned_abs() / 1_000_000
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn timestamps_are_written_with_nanoseconds() {
        assert_eq!(
            Timestamp(1_700_000_000_000_000_001).rfc3339(),
            "2023-11-14T22:13:20.000000001Z"
        );
        assert_eq!(
            Timestamp(1_700_000_000_120_000_000).rfc3339(),
            "2023-11-14T22:13:20.12Z"
        );
    }
}
