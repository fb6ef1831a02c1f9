//! Has a service become what its spec says? [`judge`] answers for one moment, from data; [`watch()`] asks again whenever
//! something changes, until it is settled for every service it was given.
//!
//! Docker's client waits too (docker/cli `cli/command/service/progress`), one service after the other, and for ever when
//! tasks keep failing or cannot be placed. Here all services are watched at once, ended one-shot tasks count as done, and
//! what will not come about by itself is an answer, with the reason of each task.

pub mod changes;
mod judge;
mod watch;

pub use judge::{Expected, Outlook, Progress, Reason, Row, judge};
pub use watch::{Ended, Watched, Watcher, watch};
