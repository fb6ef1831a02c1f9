//! Plans `down`, `stop`, `start`, `restart`, `kill` and `rm`.

use compose_model::Project;

use super::options::{DownOptions, RemoveOptions, Selection};
use super::{Plan, PlanError};
use crate::state::ObservedState;

/// Plans `down`. Without a project (`-p` alone) the labels of what is there say what belongs to it.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn down(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    options: &DownOptions,
) -> Result<Plan, PlanError> {
    todo!()
}
/// Plans `stop`: dependants before dependencies.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn stop(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    todo!()
}
/// Plans `start` of existing containers, dependencies first.
///
/// # Errors
/// A service that neither the project nor the engine knows, or that has no container.
pub fn start(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    todo!()
}
/// Plans `restart`.
///
/// # Errors
/// A service that neither the project nor the engine knows, or that has no container.
pub fn restart(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    todo!()
}
/// Plans `kill`.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn kill(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    services: &[String],
    signal: &str,
) -> Result<Plan, PlanError> {
    todo!()
}
/// Plans `rm`.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn remove(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    options: &RemoveOptions,
) -> Result<Plan, PlanError> {
    todo!()
}
