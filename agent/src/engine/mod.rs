//! The container engine: containers, execs, volumes, and what ties images and networks to them.
//!
//! ```text
//! Engine (facade: one file per resource) ──message──▶ driver (one task per container, owns the Container)
//!                                                        │ lifecycle::decide   pure
//!                                                        │ steps               layers → sandbox → files → launch
//!                                                        │ records             the only writer of <root>/containers
//!                                                        ▼
//!                              snapshot (watch channel) ─▶ inspect, list, wait: never behind a busy container
//! ```
//!
//! Must not: know HTTP, read configuration, or wait for anything by polling.

mod containers;
mod execs;
mod images;
mod networks;
mod options;
mod pipe;
mod requests;
mod system;

pub use options::EngineOptions;
pub use pipe::{ByteReceiver, ByteSender, byte_pipe};
pub use requests::{
    AttachOptions, Attached, EventOptions, ExecStarted, ListOptions, LogOptions, Logs,
    RemoveOptions, StartOutcome, StopOptions, StopOutcome, WaitCondition,
};
pub use images::{ImageImport, ProgressStream};
pub use stats::Stats;
pub use diff::{Change, ChangeKind};

use crate::error::Result;

/// The engine. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
}

impl Engine {
    /// Opens the engine on its directories, adopts the containers that run, finishes or undoes what a crash cut
    /// short, and applies restart policies.
    pub async fn open(options: EngineOptions) -> Result<Engine> {
        todo!()
    }

    /// Ends the engine's tasks. Containers keep running; the next [`Engine::open`] adopts them.
    pub async fn shutdown(&self) {
        todo!()
    }
}
mod stats { #[derive(Debug, Clone, serde::Serialize)] pub struct Stats {} }
mod diff { #[derive(Debug, Clone, serde::Serialize)] pub struct Change {pub path: String, pub kind: ChangeKind} 
#[derive(Debug, Clone, Copy, serde::Serialize)] pub enum ChangeKind { Modified, Added, Deleted } }
