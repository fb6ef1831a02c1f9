//! Builds as they travel between a client and the daemon: what is asked for, how it goes on, how it ended, and the
//! frames all of that is put into.
//!
//! ```text
//! client                                            daemon
//!   POST /build, Upgrade: muster-build, BuildRequest →
//!                                                    ← 101
//!                                                    ← Message::Progress, again and again      channel 0
//!                                                    ← Message::Open{channel, what}            channel 0
//!   data …, end (or reset: reason)                  ↔ data …, end (or reset: reason)           that channel
//!                                                    ← Message::Done | Message::Failed, end    channel 0
//! ```
//! Only the daemon opens channels; their numbers start at 1 and are not used again. A side that has closed its half of
//! a channel still takes what the other sends. Channels have no windows of their own: a side whose buffer for one is
//! full stops reading the connection, so each channel must be consumed without waiting for another.
//! Closing the connection cancels the build.
//!
//! Must not: resolve, read or check anything beyond shape. Source of the JSON of progress, lints, outlines and
//! targets: BuildKit `client/graph.go`, `frontend/subrequests/{lint,outline,targets}/types.go`.

mod cache;
mod frame;
mod progress;
mod request;
mod result;

pub use cache::*;
pub use frame::*;
pub use progress::*;
pub use request::*;
pub use result::*;
