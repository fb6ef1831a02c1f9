//! `compose ls`: the projects an engine holds, by the labels of their containers.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::client::{ClientError, ListContainersOptions};
use agent_api::{Client, ContainerStatus, Filters};

use crate::labels;

/// One project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectSummary {
    /// Name.
    pub name: String,
    /// Number of containers by state, in order of the state's name: `exited(1), running(2)`.
    pub states: BTreeMap<String, usize>,
    /// Its Compose files, as the containers' labels say; sorted.
    pub config_files: BTreeSet<String>,
}

impl ProjectSummary {
    /// `exited(1), running(2)`.
    #[must_use]
    pub fn status(&self) -> String {
        self.states
            .iter()
            .map(|(state, count)| format!("{state}({count})"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether any of its containers runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.states
            .keys()
            .any(|state| matches!(state.as_str(), "running" | "restarting" | "paused"))
    }
}

/// Projects by name; `all` includes those whose containers are all stopped.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn projects(client: &Client, all: bool) -> Result<Vec<ProjectSummary>, ClientError> {
    let filters = Filters::new()
        .with("label", labels::PROJECT)
        .with("label", labels::CONFIG_HASH);
    let containers = client
        .list_containers(&ListContainersOptions {
            all,
            filters,
            ..Default::default()
        })
        .await?;
    let mut projects: BTreeMap<String, ProjectSummary> = BTreeMap::new();
    for container in containers {
        let Some(name) = container.labels.get(labels::PROJECT) else {
            continue;
        };
        let project = projects
            .entry(name.clone())
            .or_insert_with(|| ProjectSummary {
                name: name.clone(),
                states: BTreeMap::new(),
                config_files: BTreeSet::new(),
            });
        *project
            .states
            .entry(state_name(container.state).to_owned())
            .or_default() += 1;
        if let Some(files) = container.labels.get(labels::CONFIG_FILES) {
            project.config_files.extend(
                files
                    .split(',')
                    .filter(|file| !file.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    Ok(projects.into_values().collect())
}

/// A state as the Engine API writes it.
#[must_use]
pub fn state_name(state: ContainerStatus) -> &'static str {
    match state {
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Removing => "removing",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
    }
}
