//! Doing something with a project: lock, observe, plan, execute.

use super::perform;
use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::json;
use agent_api::Client;
use compose::{ObservedState, Plan, PlanError, ProjectLock};
use compose_model::Project;
use std::path::PathBuf;

/// Observes under the project's lock, plans, and either prints the plan or executes it.
pub(super) async fn change(
    session: &Session,
    flags: &ProjectFlags,
    name: &str,
    project: Option<&Project>,
    verb: &str,
    plan: impl FnOnce(&ObservedState) -> Result<Plan, PlanError>,
) -> Outcome {
    let client = session.client().await?;
    let _lock = if flags.dry_run {
        None
    } else {
        Some(lock(client, name, verb)?)
    };
    let plan = plan(&compose::observe(client, name, project).await?)?;
    warn(&plan);
    if flags.dry_run {
        return print(&plan);
    }
    perform::execute(client, &plan, flags, None).await?;
    Ok(0)
}

/// The lock that keeps a second writing command of the same project out.
pub(super) fn lock(client: &Client, name: &str, verb: &str) -> anyhow::Result<ProjectLock> {
    let directory = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run/muster/compose")
    } else {
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        runtime.join(format!("muster-{}", rustix::process::geteuid().as_raw()))
    };
    Ok(ProjectLock::acquire(
        &directory,
        &client.host().to_string(),
        name,
        &format!("muster compose {verb}"),
    )?)
}

pub(super) fn warn(plan: &Plan) {
    for warning in &plan.warnings {
        out::note(format!("warning: {warning}"));
    }
}

/// The plan as text, with a line when there is nothing to do.
pub(super) fn print(plan: &Plan) -> Outcome {
    if plan.is_empty() {
        out::line(format!("project {}: nothing to do", plan.project))?;
    } else {
        out::text(&plan.to_string())?;
    }
    Ok(0)
}

/// The plan in the format asked for.
pub(super) fn print_as(plan: &Plan, format: Option<&str>) -> Outcome {
    match format {
        None | Some("" | "text") => print(plan),
        Some("json") => {
            out::line(json::indented(&plan.to_json()))?;
            Ok(0)
        }
        Some(other) => Err(Failure::new(
            1,
            format!("unknown format {other:?}: there are text and json"),
        )
        .into()),
    }
}
