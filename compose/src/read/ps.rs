//! `compose ps`, and finding the container that `exec`, `port` or `top` are for: one list call each, no inspects.

use agent_api::client::{ClientError, ListContainersOptions};
use agent_api::{Client, ContainerStatus, ContainerSummary, Filters};

use crate::labels;

/// A container of a project, as `ps` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name without slash.
    pub name: String,
    /// Service.
    pub service: String,
    /// Number within the service.
    pub number: u32,
    /// Made by `compose run`.
    pub oneoff: bool,
    /// Everything the engine lists.
    pub summary: ContainerSummary,
}

/// Why there is no container to act on.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The engine could not be asked.
    #[error("cannot list the containers of project {project}")]
    Engine {
        /// Project.
        project: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// No container of the service runs.
    #[error("service {service} is not running: start it with `muster compose up -d {service}`")]
    NotRunning {
        /// Service.
        service: String,
    },
    /// The service has containers, but not this one.
    #[error("service {service} has no running container with index {index}: it has {}", known.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchIndex {
        /// Service.
        service: String,
        /// What was asked for.
        index: u32,
        /// Numbers of the containers that run.
        known: Vec<u32>,
    },
}

/// Containers of a project by service and number; `all` includes those that do not run.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn containers(
    client: &Client,
    project: &str,
    all: bool,
) -> Result<Vec<Row>, ClientError> {
    let filters = Filters::new()
        .with("label", format!("{}={project}", labels::PROJECT))
        .with("label", labels::CONFIG_HASH);
    let list = client
        .list_containers(&ListContainersOptions {
            all,
            filters,
            ..Default::default()
        })
        .await?;
    let mut rows: Vec<Row> = list.into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        (&a.service, a.oneoff, a.number, &a.name).cmp(&(&b.service, b.oneoff, b.number, &b.name))
    });
    Ok(rows)
}

/// The running container of a service that a verb acts on: the one with `index`, or the first.
///
/// # Errors
/// See [`SelectError`].
pub async fn select(
    client: &Client,
    project: &str,
    service: &str,
    index: Option<u32>,
) -> Result<Row, SelectError> {
    let rows = containers(client, project, false)
        .await
        .map_err(|source| SelectError::Engine {
            project: project.to_owned(),
            source,
        })?;
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| row.service == service && !row.oneoff)
        .filter(|row| {
            matches!(
                row.summary.state,
                ContainerStatus::Running | ContainerStatus::Paused
            )
        })
        .collect();
    if rows.is_empty() {
        return Err(SelectError::NotRunning {
            service: service.to_owned(),
        });
    }
    let Some(index) = index else {
        return Ok(rows.swap_remove(0));
    };
    match rows.iter().position(|row| row.number == index) {
        Some(at) => Ok(rows.swap_remove(at)),
        None => Err(SelectError::NoSuchIndex {
            service: service.to_owned(),
            index,
            known: rows.iter().map(|row| row.number).collect(),
        }),
    }
}

fn row(summary: ContainerSummary) -> Row {
    let label = |key: &str| summary.labels.get(key).cloned().unwrap_or_default();
    Row {
        name: summary
            .names
            .first()
            .map(|name| name.trim_start_matches('/').to_owned())
            .unwrap_or_default(),
        service: label(labels::SERVICE),
        number: label(labels::CONTAINER_NUMBER).parse().unwrap_or(0),
        oneoff: label(labels::ONEOFF).eq_ignore_ascii_case("true"),
        summary,
    }
}
