//! Removing a stack, to the end: it is over when no task and no network of it is left, so that deploying it again at
//! once meets nothing of the old one.

use std::time::Duration;

use agent_api::client::ClientError;
use agent_api::swarm::TaskState;
use agent_api::{Client, Filters};
use tokio::time::Instant;

use super::labels;
use crate::converge::changes::Changes;

/// What a removal does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// `Removing service app_web`.
    Removing {
        /// `service`, `secret`, `config` or `network`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Tasks are still ending.
    Waiting {
        /// How many.
        tasks: usize,
    },
}

/// A stack could not be removed, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is nothing of this name.
    #[error("nothing found in stack: {stack}")]
    NoSuchStack {
        /// The name.
        stack: String,
    },
    /// Parts of it stayed.
    #[error("failed to remove some resources from stack {stack}: {}", .reasons.join("; "))]
    Left {
        /// The name.
        stack: String,
        /// What stayed, and why.
        reasons: Vec<String>,
    },
    /// The time that was given is over.
    #[error(
        "{tasks} tasks have not ended yet: the nodes they are on may be away (`muster node ls`)"
    )]
    StillThere {
        /// How many.
        tasks: usize,
    },
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// How long to wait, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until everything is gone.
    UntilGone,
    /// At most so long.
    AtMost(Duration),
    /// Not at all: networks that are still used stay.
    No,
}

/// Removes everything that carries the stack's label: services first, then secrets and configs, and networks when the
/// tasks on them have ended. What cannot be removed does not keep the rest from going.
///
/// # Errors
/// When there is no such stack, or something of it stays.
pub async fn remove(
    client: &Client,
    stack: &str,
    wait: Wait,
    show: &mut dyn FnMut(&Removal),
) -> Result<(), RemoveError> {
    let ours = Filters::new().with("label", format!("{}={stack}", labels::NAMESPACE));
    let (services, secrets, configs, networks) = tokio::try_join!(
        client.list_services(&ours, false),
        client.list_secrets(&ours),
        client.list_configs(&ours),
        client.list_networks(&ours),
    )?;
    if services.is_empty() && secrets.is_empty() && configs.is_empty() && networks.is_empty() {
        return Err(RemoveError::NoSuchStack {
            stack: stack.to_owned(),
        });
    }
    let mut reasons = Vec::new();
    let mut note = |kind: &str, name: &str, result: Result<(), ClientError>| match result {
        Err(error) if !error.is_not_found() => reasons.push(format!("{kind} {name}: {error}")),
        _ => {}
    };
    let mut removing = |kind, name: &str| {
        show(&Removal::Removing {
            kind,
            name: name.to_owned(),
        });
    };
    let mut ids = Vec::new();
    for service in &services {
        let name = &service.spec.annotations.name;
        removing("service", name);
        let result = client.remove_service(&service.id).await.map(drop);
        note("service", name, result);
        ids.push(service.id.clone());
    }
    for secret in &secrets {
        let name = &secret.spec.annotations.name;
        removing("secret", name);
        note(
            "secret",
            name,
            client.remove_secret(&secret.id).await.map(drop),
        );
    }
    for config in &configs {
        let name = &config.spec.annotations.name;
        removing("config", name);
        note(
            "config",
            name,
            client.remove_config(&config.id).await.map(drop),
        );
    }
    if wait != Wait::No {
        let deadline = match wait {
            Wait::AtMost(time) => Some(Instant::now() + time),
            _ => None,
        };
        let mut waiting = |tasks| show(&Removal::Waiting { tasks });
        tasks_gone_shown(client, &ids, deadline, &mut waiting).await?;
    }
    for network in &networks {
        show(&Removal::Removing {
            kind: "network",
            name: network.name.clone(),
        });
        let result = client.remove_network(&network.id).await;
        note("network", &network.name, result);
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(RemoveError::Left {
            stack: stack.to_owned(),
            reasons,
        })
    }
}

/// Waits until no task of these services is left that may still run.
pub(super) async fn tasks_gone(
    client: &Client,
    services: &[String],
    deadline: Option<Instant>,
) -> Result<(), RemoveError> {
    tasks_gone_shown(client, services, deadline, &mut |_| {}).await
}

async fn tasks_gone_shown(
    client: &Client,
    services: &[String],
    deadline: Option<Instant>,
    show: &mut dyn FnMut(usize),
) -> Result<(), RemoveError> {
    if services.is_empty() {
        return Ok(());
    }
    let mut changes = Changes::follow(client).await?;
    let mut told = 0;
    loop {
        let tasks = client.list_tasks(&Filters::new()).await?;
        let left = tasks
            .iter()
            .filter(|task| services.contains(&task.service_id) && !is_over(task.status.state))
            .count();
        if left == 0 {
            return Ok(());
        }
        if left != told {
            show(left);
            told = left;
        }
        if !changes.next(deadline).await {
            return Err(RemoveError::StillThere { tasks: left });
        }
    }
}

fn is_over(state: TaskState) -> bool {
    state.is_terminal()
}
