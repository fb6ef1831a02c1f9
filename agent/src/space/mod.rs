//! What takes the disk below the data root, and what of it may go.
//!
//! ```text
//! places     pure: which path belongs to what
//! explain    one walk over the data root, every byte to its owner           (`system df --explain`)
//! policy     pure: which build cache records and images go, in which order
//! collector  one task: after what makes the disk fuller, and at start, until the budget is kept
//! ```
//!
//! Removing is done by those who own the things (the image store, the builder), one at a time, each removal whole or not at
//! all: the collector can be killed anywhere. Must not: remove a file itself, look at the disk when nothing has happened, or
//! decide anything that a container or a running build would miss.

mod collector;
mod explain;
mod places;
mod policy;

pub(crate) use collector::start;
pub(crate) use explain::explain;
pub(crate) use policy::{CacheFilter, CacheRule, Limit, Policy};
