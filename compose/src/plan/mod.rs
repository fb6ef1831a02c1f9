//! Plans: what to do to an engine so that it holds what a project says, as data.
//!
//! Nothing in this module does I/O, is async, or looks at a clock: the same project, observed state and options give
//! the same plan, byte for byte. A [`Plan`] is a graph of [`Step`]s; each names its [`Operation`] and the [`Cause`]
//! that made it necessary. Steps are listed in one valid order, so that edges always point to earlier steps.
//!
//! * [`images()`] plans what is built; [`reconcile()`] plans `up` and `create`; [`lifecycle`] plans `down`, `stop`, `start`, `restart`, `kill` and `rm`.
//! * [`hash`] says what "changed" means; [`order`] orders services and names cycles.
//!
//! The idea of a printable plan between observing and executing is docker/compose's (`pkg/compose/plan.go`).

mod cause;
mod display;
mod graph;
pub mod hash;
pub mod images;
pub mod lifecycle;
mod operation;
pub mod options;
pub mod order;
mod problem;
mod reconcile;
mod steps;

pub use cause::{Cause, SharedResource};
pub use graph::{Edge, Plan, Step};
pub use images::images;
pub use lifecycle::{down, kill, remove, restart, start, stop};
pub use operation::{
    Condition, ContainerHandle, HookKind, NewContainer, Operation, Share, ShareField,
};
pub use problem::{PlanError, Problem, Warning};
pub use reconcile::reconcile;
