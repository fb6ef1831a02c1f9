//! The only reader that feeds a plan: a handful of list calls to the Engine API become an [`ObservedState`].

use agent_api::Client;
use agent_api::client::ClientError;
use compose_model::Project;

use crate::contents::ContentsError;
use crate::state::ObservedState;

/// Why the state of the engine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The engine could not be asked.
    #[error("cannot list the {what} of project {project}")]
    Engine {
        /// `containers`, `networks` …
        what: &'static str,
        /// Project.
        project: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// A file that is part of the project cannot be read.
    #[error(transparent)]
    Contents(#[from] ContentsError),
}

/// What the engine holds of a project. With `project`, also what its files refer to: images, external networks and
/// volumes, and the contents of its configs and secrets; without, only what carries the project's label.
///
/// # Errors
/// See [`ObserveError`].
pub async fn observe(
    client: &Client,
    name: &str,
    project: Option<&Project>,
) -> Result<ObservedState, ObserveError> {
    todo!()
}
