//! One step: the request behind each operation. "Already so" is success; everything else the engine says is a failure
//! in its own words.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use agent_api::client::build::BuildError;
use agent_api::client::{
    ClientError, LogsOptions, OutputStream, RemoveContainerOptions, RemoveImageOptions, StopOptions,
};
use agent_api::{Client, ExecCreateRequest, ExecStartRequest};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use super::wait::Events;
use crate::convert;
use crate::convert::build::ServiceBuild;
use crate::plan::{ContainerHandle, NewContainer, Operation, Plan, Step};

/// Lines of output that go with a failure.
const TAIL_LINES: usize = 10;
/// Bytes of output that are looked at for them.
const TAIL_BYTES: usize = 64 << 10;

/// A step that was carried out.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What the engine had to say about it.
    pub(super) detail: String,
}

/// A step that was not.
#[derive(Debug, Default)]
pub(super) struct StepError {
    pub(super) reason: String,
    pub(super) log_tail: Vec<String>,
    /// It ended because the run was cancelled.
    pub(super) cancelled: bool,
}

impl StepError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }
}

impl From<ClientError> for StepError {
    fn from(error: ClientError) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::new(reason)
    }
}

/// News of a step that runs.
#[derive(Debug)]
pub(super) struct Note {
    /// Index of the step.
    pub(super) index: usize,
    pub(super) detail: String,
}

/// What all steps of a run share.
pub(super) struct Runner<'a> {
    pub(super) client: &'a Client,
    pub(super) events: Events,
    pub(super) wait_timeout: Option<Duration>,
    pub(super) cancel: watch::Receiver<bool>,
    pub(super) notes: mpsc::Sender<Note>,
    /// Ids of the containers this run created.
    created: Mutex<HashMap<(String, u32), String>>,
}

impl<'a> Runner<'a> {
    /// Subscribes to the engine's events if the plan has anything that waits.
    pub(super) async fn new(
        client: &'a Client,
        plan: &Plan,
        wait_timeout: Option<Duration>,
        cancel: watch::Receiver<bool>,
        notes: mpsc::Sender<Note>,
    ) -> Result<Self, StepError> {
        let waits = |step: &Step| {
            matches!(
                step.operation,
                Operation::Wait { .. } | Operation::RunHook { .. }
            )
        };
        let events = if plan.steps.iter().any(waits) {
            Events::subscribe(client, &plan.project).await?
        } else {
            Events::none()
        };
        Ok(Self {
            client,
            events,
            wait_timeout,
            cancel,
            notes,
            created: Mutex::default(),
        })
    }

    /// Takes in events as long as the run lasts; never ends.
    pub(super) async fn pump(&self) {
        self.events.pump().await;
    }

    pub(super) async fn run(&self, index: usize, step: &Step) -> Result<Done, StepError> {
        match &step.operation {
            Operation::CreateNetwork { request, .. } => {
                let reply = self.client.create_network(request).await?;
                Ok(Done {
                    detail: reply.warning,
                })
            }
            Operation::RemoveNetwork { id, .. } => gone(self.client.remove_network(id).await),
            Operation::CreateVolume { request, .. } => {
                self.client.create_volume(request).await?;
                Ok(Done::default())
            }
            Operation::RemoveVolume { name } => gone(self.client.remove_volume(name, false).await),
            Operation::CreateContainer { container, new } => self.create(container, new).await,
            Operation::StartContainer { container } => {
                self.client.start_container(&self.id(container)?).await?;
                Ok(Done::default())
            }
            Operation::StopContainer {
                container,
                timeout_seconds,
            } => {
                let options = StopOptions {
                    signal: None,
                    timeout: *timeout_seconds,
                };
                gone(
                    self.client
                        .stop_container(&self.id(container)?, &options)
                        .await,
                )
            }
            Operation::KillContainer { container, signal } => {
                self.client
                    .kill_container(&self.id(container)?, Some(signal))
                    .await?;
                Ok(Done::default())
            }
            Operation::RemoveContainer {
                container,
                anonymous_volumes,
                force,
            } => {
                let options = RemoveContainerOptions {
                    force: *force,
                    volumes: *anonymous_volumes,
                    link: false,
                };
                gone(
                    self.client
                        .remove_container(&self.id(container)?, options)
                        .await,
                )
            }
            Operation::RenameContainer { container, .. } => {
                self.client
                    .rename_container(&self.id(container)?, &container.name)
                    .await?;
                Ok(Done::default())
            }
            Operation::Wait {
                containers,
                condition,
                ..
            } => self.wait(index, containers, *condition).await,
            Operation::RunHook {
                container, request, ..
            } => self.hook(&self.id(container)?, request).await,
            Operation::BuildImage { build } => self.build(index, build).await,
            Operation::RemoveImage { reference } => gone(
                self.client
                    .remove_image(reference, &RemoveImageOptions::default())
                    .await,
            ),
        }
    }

    /// Builds an image. The environment is the caller's to read: what needs it has to be resolved before.
    async fn build(&self, index: usize, build: &ServiceBuild) -> Result<Done, StepError> {
        let (request, offers) = build
            .spec
            .clone()
            .prepare(&|_| None)
            .map_err(|error| StepError::new(error.to_string()))?;
        let notes = self.notes.clone();
        let built = self.client.build(&request, offers, move |status| {
            if let Some(vertex) = status
                .vertexes
                .iter()
                .rev()
                .find(|vertex| vertex.started.is_some())
            {
                // News that nobody has room for is dropped: it is only news.
                let _ = notes.try_send(Note {
                    index,
                    detail: vertex.name.clone(),
                });
            }
        });
        match built.await {
            Ok(_) => Ok(Done::default()),
            Err(BuildError::Failed(failure)) => Err(StepError {
                reason: failure.message,
                log_tail: failure.tail,
                cancelled: false,
            }),
            Err(BuildError::Client(error)) => Err(error.into()),
            Err(error) => Err(StepError::new(error.to_string())),
        }
    }

    /// Id of a container that was observed, or created earlier in this run.
    pub(super) fn id(&self, container: &ContainerHandle) -> Result<String, StepError> {
        if let Some(id) = &container.id {
            return Ok(id.clone());
        }
        let created = self
            .created
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (container.service.clone(), container.number);
        let missing = || StepError::new(format!("container {} was not created", container.name));
        created.get(&key).cloned().ok_or_else(missing)
    }

    async fn create(
        &self,
        container: &ContainerHandle,
        new: &NewContainer,
    ) -> Result<Done, StepError> {
        let request = new.resolved(|container| self.id(container))?;
        let reply = self
            .client
            .create_container(Some(&new.name), new.platform.as_deref(), &request)
            .await?;
        if let Err(error) = convert::files::write(self.client, &reply.id, &new.files).await {
            // Left there, it would be taken for complete the next time.
            let options = RemoveContainerOptions {
                force: true,
                volumes: true,
                link: false,
            };
            let _ = self.client.remove_container(&reply.id, options).await;
            return Err(error.into());
        }
        let mut created = self
            .created
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        created.insert((container.service.clone(), container.number), reply.id);
        Ok(Done {
            detail: reply.warnings.join("; "),
        })
    }

    /// Runs a command in a container to its end.
    async fn hook(&self, container: &str, request: &ExecCreateRequest) -> Result<Done, StepError> {
        let exec = self.client.create_exec(container, request).await?.id;
        let start = ExecStartRequest {
            detach: false,
            tty: request.tty,
            console_size: None,
        };
        let (output, _input) = self.client.start_exec(&exec, &start).await?.split();
        let log_tail = tail(output).await;
        loop {
            let seen = self.events.seen(container);
            let state = self.client.inspect_exec(&exec).await?;
            match state.exit_code {
                Some(0) if !state.running => return Ok(Done::default()),
                Some(code) if !state.running => {
                    let reason = format!("the hook ended with exit code {code}");
                    return Err(StepError {
                        reason,
                        log_tail,
                        cancelled: false,
                    });
                }
                // The output can end a moment before the engine has recorded the exit.
                _ => self.events.changed(container, seen).await?,
            }
        }
    }

    /// The last lines a container wrote.
    pub(super) async fn log_tail(&self, id: &str) -> Vec<String> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: Some(TAIL_LINES as u64),
            ..LogsOptions::default()
        };
        match self.client.logs(id, &options).await {
            Ok(output) => tail(output).await,
            Err(_) => Vec::new(),
        }
    }
}

/// Being gone, or going, is what was wanted.
fn gone<T>(result: Result<T, ClientError>) -> Result<Done, StepError> {
    match result {
        Ok(_) => Ok(Done::default()),
        Err(error) if error.is_not_found() => Ok(Done {
            detail: "it was gone already".to_owned(),
        }),
        Err(error) if error.is_conflict() && error.to_string().contains("already in progress") => {
            Ok(Done {
                detail: "it is being removed already".to_owned(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads output to its end and keeps the last lines.
async fn tail(mut output: OutputStream) -> Vec<String> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(Ok(chunk)) = output.next().await {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() > 2 * TAIL_BYTES {
            bytes.drain(..bytes.len() - TAIL_BYTES);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
