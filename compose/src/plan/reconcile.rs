//! Plans `up` and `create`.

use compose_model::{Project, Sources};

use super::options::UpOptions;
use super::{Plan, PlanError};
use crate::state::ObservedState;

/// The steps that make the engine hold what the project says.
///
/// # Errors
/// All problems of the project at once.
pub fn reconcile(
    project: &Project,
    sources: &Sources,
    observed: &ObservedState,
    options: &UpOptions,
) -> Result<Plan, PlanError> {
    todo!()
}
