//! How large a spec may be.

use std::fmt::Display;

use serde::Serialize;

use super::Refusal;
use crate::batch::size_of;

/// JSON of a spec, in bytes. The managers write an object again and again, with the spec before it, the last one that worked
/// and all that they add (addresses, ports), and each time it must fit into one proposal ([`crate::raft::MAX_PROPOSAL`]).
pub(super) const MAX_SPEC: usize = 256 << 10;

/// Refuses a spec nobody could change any more.
pub(super) fn check(what: impl Display, spec: &impl Serialize) -> Result<(), Refusal> {
    let bytes = size_of(spec);
    if bytes <= MAX_SPEC {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "the spec of {what} has {bytes} bytes, more than the {MAX_SPEC} allowed: put large values into a config or a secret"
    )))
}
