//! An image out of a container. Source: moby `daemon/commit.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_api::{ContainerConfig, ContainerStatus, Set};
use agent_image::{CommitOptions, Healthcheck, RunConfig};

use super::driver::Command;
use super::shared::blocking;
use super::{Engine, defaults, diff, images};
use crate::error::{Error, Result};

/// What image to make of a container.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Name of the new image; empty for none.
    pub repository: String,
    /// Its tag; empty means `latest`.
    pub tag: String,
    /// Author.
    pub author: String,
    /// Message.
    pub comment: String,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile, if it runs.
    pub pause: bool,
    /// Configuration in place of the container's; what it leaves out is the container's.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes an image of a container's changes and gives its id.
    pub async fn commit_container(&self, reference: &str, commit: Commit) -> Result<String> {
        let handle = self.shared.registry.find(reference)?;
        let container = handle.container();
        let refused = |why: &str| {
            let id = container.id();
            Err(Error::conflict(format!(
                "You cannot commit container {id} which is {why}"
            )))
        };
        match container.state.status {
            ContainerStatus::Dead => return refused("Dead"),
            ContainerStatus::Removing => return refused("being removed"),
            _ => {}
        }
        let definition = Arc::clone(&container.definition);
        let name = match commit.repository.as_str() {
            "" => None,
            repository => Some(images::named(repository, &commit.tag)?),
        };
        let own = run_config(&definition.config);
        let config = match commit.config {
            None => own,
            Some(mut config) => {
                let program = config.entrypoint.is_some() || config.cmd.is_some();
                defaults::merge_image(&mut config, &own);
                let mut merged = run_config(&config);
                if !program {
                    (merged.entrypoint, merged.cmd) = (own.entrypoint, own.cmd);
                }
                merged
            }
        };
        let mut options = CommitOptions {
            parent: definition.image.parse().ok(),
            config,
            changes: commit.changes,
            created_by: definition.command.join(" "),
            author: commit.author,
            message: commit.comment.clone(),
            reference: name.clone(),
            without: BTreeSet::new(),
        };
        let freeze = commit.pause && container.state.status == ContainerStatus::Running;
        if freeze {
            handle.ask(|reply| Command::Pause { reply }).await?;
        }
        let shared = Arc::clone(&self.shared);
        let upper = self.shared.records.directory(&definition.id).join("upper");
        let made = blocking(move || {
            if let Some(parent) = &options.parent {
                let layers = shared.images.layers(parent)?;
                options.without = diff::own_mount_points(&upper, &layers)
                    .map_err(Error::io("compare", &upper))?;
            }
            let id = shared.images.commit(&upper, &options)?;
            shared.image_event(&id, "create");
            if let Some(name) = &options.reference {
                shared.image_named(&id, name);
            }
            Ok(id)
        })
        .await;
        if freeze && let Err(error) = handle.ask(|reply| Command::Unpause { reply }).await {
            tracing::warn!(container.id = definition.id, %error, "a committed container stays paused");
        }
        let registry = &self.shared.registry;
        let is_going = || match registry.get(&definition.id) {
            None => true,
            Some(handle) => handle.container().state.status == ContainerStatus::Removing,
        };
        if made.is_err() && is_going() {
            return refused("being removed");
        }
        let image = made?.to_string();
        let name = name.map(|name| name.familiar()).unwrap_or_default();
        let attributes = [
            ("comment", commit.comment.as_str()),
            ("imageID", &image),
            ("imageRef", &name),
        ];
        self.shared
            .events
            .container(&definition, "commit", &attributes);
        Ok(image)
    }
}

/// The part of a container's configuration that an image keeps.
fn run_config(config: &ContainerConfig) -> RunConfig {
    let set = |set: &Option<Set>| {
        let names = set.iter().flatten().map(|(name, _)| name.clone());
        names.map(|name| (name, agent_image::Empty {})).collect()
    };
    RunConfig {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone().unwrap_or_default(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        on_build: config.on_build.clone().unwrap_or_default(),
        shell: config.shell.clone().unwrap_or_default(),
        args_escaped: config.args_escaped,
    }
}
