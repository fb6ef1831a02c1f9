//! The keeper: one small process per daemon that starts containers and holds what must outlive the daemon.
//!
//! ```text
//!   muster daemon ──SEQPACKET <run>/keeper.sock──► muster keeper ──clone3──► container processes
//!        │  launch, attach, signal, list, forget        │  parent (subreaper), pidfds, pty masters, pipes
//!        ◄──────────────── exited ─────────────────────┤
//!        └─ socketpair per attach: Docker frames ◄──────┘──► <root>/containers/<id>/<id>-json.log
//! ```
//!
//! The keeper is the *only* reader of a container's output and the only writer of its log. So no byte is lost or
//! doubled when the daemon is killed and started again: there is nothing to hand over. Exit records are kept, in memory
//! and in a journal beside the socket, until the daemon says [`protocol::Request::Forget`]; after a restart it asks
//! [`protocol::Request::List`] and knows everything. The keeper quits when it holds nothing and nobody is connected.
//!
//! One thread does everything but the launches, which have one each while they last. It never allocates per idle
//! container more than its descriptors and a map entry, and knows nothing of images, networks, restart policies or health: those are the engine's.
//!
//! | file | topic |
//! |---|---|
//! | `protocol` | messages and their framing |
//! | `process` | the event loop of the keeper process, one file per topic: connection, starting, launches, streams, ending |
//! | `held` | one held process: stdio, attached clients, exit |
//! | `attach` | one attached client: framing out, stdin in, back-pressure |
//! | `log_file` | Docker's json-file format with rotation |
//! | `journal` | exit records on disk |
//! | `client` | the daemon's side |

mod attach;
pub mod client;
mod held;
mod journal;
mod log_file;
mod process;
pub mod protocol;

pub use client::{Client, ClientError};
pub use process::main;
pub use protocol::{
    AttachOptions, Event, Exit, HeldProcess, Launch, LaunchFailure, LaunchKind, LogOptions,
    Started, StdinMode,
};
