//! Images out of Dockerfiles: obtains what a build starts from, solves its plan, exports the result.
//!
//! ```text
//! Build ─▶ Dockerfile ─▶ bases ─▶ plan (pure, agent-build) ─▶ solve ─▶ export ─▶ image, files, archive
//!                                                               │
//!          records (two keys per step) ◀── find ────────────────┤ flights: equal steps of all builds run once
//!          snapshots (agent-image)     ◀── run · copy · source ─┘
//! ```
//!
//! Sits on top of the engine and uses its images, networks and keeper. Must not: know HTTP, or do anything before the
//! first build asks for it.

mod run;
mod session;

pub(crate) use session::{Session, SessionError, Sessions};

use crate::engine::Engine;

/// Builds images. Cheap to clone; all clones are the same builder. Touches nothing until it is first used.
#[derive(Clone)]
pub struct Builder {
    engine: Engine,
}

impl Builder {
    /// A builder that stores what it makes in the engine's image store.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }
}
