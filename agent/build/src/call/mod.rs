//! What `docker build --call=…` answers instead of building: the targets of a file, and what one takes
//! (`--check` is [`crate::lint::Report`]).
//!
//! Must not: find anything out; it only writes down. Follows BuildKit's `frontend/subrequests`.

mod outline;
mod table;
mod targets;

pub use outline::{Argument, Outline, Wanted};
pub use targets::{Target, Targets};
