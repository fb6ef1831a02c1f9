//! The Compose planner: what is there, what should be there, and the steps from one to the other.
//!
//! ```text
//!   compose_model::load ─▶ Project ─┐
//!                                   ├─▶ plan::reconcile ─▶ Plan ─▶ execute ─▶ Engine API
//!   Engine API ─▶ observe ─▶ ObservedState ─┘               └─▶ Display, JSON
//! ```
//!
//! [`mod@observe`] is the only reader that feeds a plan, [`mod@plan`] does no I/O and has no handle to write with, and
//! [`mod@execute`] runs a plan without deciding anything. So a plan that is printed is exactly the plan that would be
//! run, and a dry run cannot write. [`read`] serves the verbs that only look (`ps`, `ls`, `logs`).
//!
//! [`mod@stack`] brings the same project to a cluster, with a plan of its own, and [`mod@converge`] says when services have
//! become what their specs say.
//!
//! A project's footprint in an engine is labels ([`labels`]), the ones Docker Compose uses: either tool sees the
//! other's projects. This package prints nothing and reads no environment variables.

pub mod bundle;
pub mod contents;
pub mod converge;
pub mod convert;
pub mod event;
pub mod execute;
pub mod labels;
pub mod lock;
pub mod observe;
pub mod plan;
pub mod read;
pub mod stack;
pub mod state;

pub use event::{Event, Phase};
pub use execute::{ExecuteError, ExecuteOptions, Failure, execute};
pub use lock::{LockError, ProjectLock};
pub use observe::{ObserveError, observe};
pub use plan::{Cause, Operation, Plan, PlanError, Step, Warning};
pub use state::ObservedState;
