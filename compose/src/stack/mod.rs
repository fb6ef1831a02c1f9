//! Stacks: a project on a cluster instead of one host, from the very file that `up` takes.
//!
//! ```text
//!   compose_model::load ─▶ Project ─▶ desired ─▶ DesiredStack ─┐
//!                                                              ├─▶ plan ─▶ StackPlan ─▶ apply ─▶ Engine API
//!   Engine API ─▶ observe ─▶ ObservedStack ────────────────────┘     └─▶ Display
//! ```
//!
//! `desired` and `plan` do no I/O; [`observe`] reads the cluster and writes nothing, [`apply`] writes and
//! decides nothing. A stack's footprint in a cluster is labels ([`labels`]), the ones Docker uses: either tool sees the
//! other's stacks. The order of `depends_on` is no order of requests here: it goes to the managers as gates on the
//! services ([`agent_api::swarm::gate`]), which hold whoever deploys and whichever manager leads.
//!
//! Source of the behaviour: docker/cli `cli/compose/convert`, `cli/command/stack`.

mod apply;
mod canonical;
pub mod capabilities;
mod desired;
mod diff;
mod display;
pub mod image;
pub mod labels;
mod observe;
mod observed;
mod options;
pub mod payload;
mod plan;
mod remove;
mod spec;
pub mod support;

pub use apply::{ApplyError, apply};
pub use desired::{DesiredPayload, DesiredService, DesiredStack, External, PayloadName, desired};
pub use diff::{FieldChange, Shown};
pub use observe::{observe, resolve};
pub use observed::{ObservedPayload, ObservedStack, ResolvedImage};
pub use options::{DeployOptions, Leftovers, ResolveImage};
pub use plan::{StackPlan, StackStep, images_to_resolve, plan};
pub use remove::{Removal, RemoveError, Wait, remove};
pub use spec::service_name;
