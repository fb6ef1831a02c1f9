//! One task's container: carries out what is asked, one thing after the other, and tells what happens.
//!
//! ```text
//! jobs ──▶ Runner (one async task per task) ──▶ engine
//!             │ prepare: image, files, container        Stop and Remove cut a preparation short
//!             │ start, adopt: a follower watches ─────▶ Started · Healthy · Unhealthy · Ended
//!             ▼
//!          happenings (to the worker)
//! ```
//!
//! Decides nothing: what comes next is the worker's word. May be told everything twice.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{ContainerStatus, HealthStatus, Mount};
use cluster::worker::{Happened, Preparation};
use cluster_api::ContainerStatus as TaskContainer;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::container::{self, Node, Place};
use super::files::Files;
use super::images::Images;
use super::networks;
use crate::engine::{Engine, Follow, Moment, RemoveOptions, StopOptions};
use crate::error::{Error, Result};

/// Jobs of one task that may wait; each is asked for once by the worker.
const QUEUE: usize = 16;

/// Containers of tasks that are made or started at the same time, so that what a whole node has to do after a reboot or a
/// failure of another leaves the engine free for others.
const MADE_AT_ONCE: usize = 8;

/// How long a network may take to be there.
const NETWORK_WAIT: Duration = Duration::from_secs(30);
/// Pause before a stop that failed is tried again.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// What can be asked of a task's container.
#[derive(Debug)]
pub(crate) enum Job {
    /// With one answer for each network: whether it is there.
    Prepare(Box<Preparation>, Vec<watch::Receiver<bool>>),
    Start,
    Adopt,
    Stop,
    Release,
    Remove,
}

/// What every task needs.
pub(crate) struct Surroundings {
    pub(crate) engine: Engine,
    pub(crate) files: Files,
    pub(crate) images: Images,
    pub(crate) node: Node,
    pub(crate) making: Making,
    /// Task id and what happened to it.
    pub(crate) happenings: mpsc::Sender<(String, Happened)>,
}

/// Room for containers that are made or started.
pub(crate) struct Making(Semaphore);

impl Default for Making {
    fn default() -> Self {
        Self(Semaphore::new(MADE_AT_ONCE))
    }
}

impl Making {
    /// Waits for room, which is free again when what it gives is dropped.
    async fn room(&self) -> SemaphorePermit<'_> {
        let room = self.0.acquire().await;
        room.expect("the semaphore is never closed")
    }
}

/// The way to one task's container.
pub(crate) struct Handle {
    jobs: mpsc::Sender<Job>,
    preparing: CancellationToken,
}

impl Handle {
    /// Begins to serve a task. `container` is the name or id of its container if there is one.
    pub(crate) fn spawn(
        surroundings: Arc<Surroundings>,
        task_id: String,
        container: Option<String>,
    ) -> Self {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let preparing = CancellationToken::new();
        let runner = Runner {
            surroundings,
            task_id,
            container,
            preparing: preparing.clone(),
            follower: None,
        };
        tokio::spawn(runner.run(receiver));
        Self { jobs, preparing }
    }

    /// Asks for something. Never waits.
    pub(crate) fn ask(&self, job: Job) {
        if matches!(job, Job::Stop | Job::Remove) {
            self.preparing.cancel();
        }
        if let Err(error) = self.jobs.try_send(job) {
            tracing::error!(%error, "a task was asked for more than it can remember");
        }
    }
}

struct Runner {
    surroundings: Arc<Surroundings>,
    task_id: String,
    container: Option<String>,
    preparing: CancellationToken,
    follower: Option<tokio::task::JoinHandle<()>>,
}

impl Runner {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Prepare(preparation, present) => self.prepare(*preparation, present).await,
                Job::Start => self.start().await,
                Job::Adopt => self.adopt().await,
                Job::Stop => self.stop().await,
                Job::Release => self.release().await,
                Job::Remove => self.remove().await,
            }
        }
    }

    async fn tell(&self, happened: Happened) {
        let message = (self.task_id.clone(), happened);
        // An error means that the worker is being stopped: containers go on.
        let _ = self.surroundings.happenings.send(message).await;
    }

    async fn prepare(&mut self, preparation: Preparation, present: Vec<watch::Receiver<bool>>) {
        let cut_short = self.preparing.clone();
        let outcome = tokio::select! {
            outcome = self.make(&preparation, present) => outcome,
            () = cut_short.cancelled() => Err(Error::Unavailable("preparing was given up".into())),
        };
        match outcome {
            Ok(()) => self.tell(Happened::Prepared).await,
            Err(error) => {
                let error = error.to_string();
                self.tell(Happened::NotPrepared { error }).await;
            }
        }
    }

    async fn make(
        &mut self,
        preparation: &Preparation,
        present: Vec<watch::Receiver<bool>>,
    ) -> Result<()> {
        let around = Arc::clone(&self.surroundings);
        let task = &preparation.task;
        let spec = task
            .spec
            .container_spec
            .as_ref()
            .ok_or_else(|| Error::invalid(container::SpecError::NoContainer.to_string()))?;
        around.images.ensure(&around.engine, spec).await?;
        let mut places = std::collections::BTreeMap::new();
        for (network, mut present) in preparation.networks.iter().zip(present) {
            let place =
                networks::place(network).map_err(|error| Error::invalid(error.to_string()))?;
            let there = present.wait_for(|present| *present);
            if !matches!(tokio::time::timeout(NETWORK_WAIT, there).await, Ok(Ok(_))) {
                return Err(Error::system(format!(
                    "network {} could not be made on this node; look at the daemon's log",
                    network.spec.annotations.name
                )));
            }
            places.insert(network.id.clone(), place);
        }
        // What has to be waited for is here.
        let _room = around.making.room().await;
        let mounts = self.place_files(preparation).await?;
        let name = container::name(task);
        // What an earlier attempt left, cut short by a crash: it was never started.
        match around.engine.remove_container(&name, FORCE).await {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let request = container::request(task, &around.node, mounts, |id| {
            places.get(id).cloned().unwrap_or(Place::Overlay)
        })
        .map_err(|error| Error::invalid(error.to_string()))?;
        let created = around
            .engine
            .create_container(Some(&name), None, request)
            .await?;
        self.container = Some(created.id);
        Ok(())
    }

    async fn place_files(&self, preparation: &Preparation) -> Result<Vec<Mount>> {
        let files = self.surroundings.files.clone();
        let task_id = self.task_id.clone();
        let (task, secrets, configs) = (
            Arc::clone(&preparation.task),
            preparation.secrets.clone(),
            preparation.configs.clone(),
        );
        let placed = tokio::task::spawn_blocking(move || {
            let spec = task.spec.container_spec.clone().unwrap_or_default();
            files.place(&task_id, &spec, &secrets, &configs)
        });
        placed
            .await
            .map_err(|error| Error::system(format!("cannot place secrets: {error}")))?
            .map_err(|error| Error::system(error.to_string()))
    }

    async fn start(&mut self) {
        let Some(container) = self.container.clone() else {
            return self.ended(-1, "the container of the task is gone").await;
        };
        let around = Arc::clone(&self.surroundings);
        let _room = tokio::select! {
            room = around.making.room() => room,
            // To be stopped before it was started: that is the next job.
            () = self.preparing.cancelled() => return,
        };
        let engine = &around.engine;
        let follow = match engine.follow_container(&container) {
            Ok(follow) => follow,
            Err(error) => return self.ended(-1, &error.to_string()).await,
        };
        match engine.start_container(&container).await {
            Ok(_) => self.watch(container, follow),
            Err(error) => self.ended(start_code(&error), &error.to_string()).await,
        }
    }

    async fn adopt(&mut self) {
        let found = self.container.clone().and_then(|container| {
            let follow = self.surroundings.engine.follow_container(&container);
            Some((container, follow.ok()?))
        });
        match found {
            Some((container, follow)) => self.watch(container, follow),
            None => self.ended(-1, "the container of the task is gone").await,
        }
    }

    fn watch(&mut self, container: String, follow: Follow) {
        let follower = Follower {
            task_id: self.task_id.clone(),
            container,
            happenings: self.surroundings.happenings.clone(),
        };
        if let Some(earlier) = self.follower.replace(tokio::spawn(follower.run(follow))) {
            earlier.abort();
        }
    }

    /// The follower tells the end of what it watches; here only what nobody watches.
    async fn stop(&mut self) {
        let watched = self.follower.is_some();
        let Some(container) = &self.container else {
            return self.ended(0, "").await;
        };
        let engine = &self.surroundings.engine;
        while let Err(error) = engine
            .stop_container(container, StopOptions::default())
            .await
        {
            if matches!(error, Error::NotFound(_)) {
                break;
            }
            tracing::error!(task.id = self.task_id, %error, "cannot stop the container of a task");
            tokio::time::sleep(STOP_RETRY).await;
        }
        if !watched {
            self.ended(0, "").await;
        }
    }

    async fn release(&self) {
        self.remove_files().await;
    }

    async fn remove(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.abort();
        }
        if let Some(container) = &self.container {
            let removed = self.surroundings.engine.remove_container(container, FORCE);
            match removed.await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => {
                    let error = error.to_string();
                    return self.tell(Happened::NotRemoved { error }).await;
                }
            }
        }
        self.container = None;
        self.remove_files().await;
        self.tell(Happened::Removed).await;
    }

    async fn remove_files(&self) {
        let (files, id) = (self.surroundings.files.clone(), self.task_id.clone());
        let removed = tokio::task::spawn_blocking(move || files.remove(&id)).await;
        if let Ok(Err(error)) = removed {
            tracing::error!(task.id = self.task_id, %error, "cannot wipe the secrets of a task");
        }
    }

    async fn ended(&self, exit_code: i64, error: &str) {
        let error = error.to_owned();
        self.tell(Happened::Ended { exit_code, error }).await;
    }
}

/// Kill it if it runs; its anonymous volumes go with it.
const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    volumes: true,
};

/// What a shell would say of a program that could not be started.
fn start_code(error: &Error) -> i64 {
    let text = error.to_string();
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") {
        126
    } else {
        128
    }
}

/// Watches one running container until it ends.
struct Follower {
    task_id: String,
    container: String,
    happenings: mpsc::Sender<(String, Happened)>,
}

impl Follower {
    async fn run(self, mut follow: Follow) {
        let mut moment = Some(follow.now());
        let mut told = Told::default();
        while let Some(now) = moment {
            for happened in told.news(&self.container, &now) {
                let end = matches!(happened, Happened::Ended { .. });
                let message = (self.task_id.clone(), happened);
                if self.happenings.send(message).await.is_err() || end {
                    return;
                }
            }
            moment = follow.next().await;
        }
        let removed = Happened::Ended {
            exit_code: -1,
            error: "the container was removed by somebody else".to_owned(),
        };
        let _ = self.happenings.send((self.task_id, removed)).await;
    }
}

/// What was told of a run already.
#[derive(Debug, Default)]
struct Told {
    started: bool,
    healthy: bool,
    unhealthy: bool,
}

impl Told {
    fn news(&mut self, container: &str, now: &Moment) -> Vec<Happened> {
        let mut news = Vec::new();
        match now.status {
            ContainerStatus::Running | ContainerStatus::Paused => {
                if !self.started {
                    self.started = true;
                    news.push(Happened::Started {
                        container: TaskContainer {
                            id: container.to_owned(),
                            pid: now.pid.into(),
                            exit_code: 0,
                        },
                    });
                }
                let healthy = matches!(now.health, None | Some(HealthStatus::Healthy));
                let unhealthy = now.health == Some(HealthStatus::Unhealthy);
                if healthy && !self.healthy {
                    news.push(Happened::Healthy);
                }
                if unhealthy && !self.unhealthy {
                    let error = match now.probe_output.as_str() {
                        "" => "unhealthy container".to_owned(),
                        output => format!("unhealthy container: {output}"),
                    };
                    news.push(Happened::Unhealthy { error });
                }
                (self.healthy, self.unhealthy) = (healthy, unhealthy);
            }
            // Not started yet, as far as this picture knows.
            ContainerStatus::Created => {}
            _ => news.push(Happened::Ended {
                exit_code: now.exit_code.into(),
                error: if now.oom_killed {
                    "the kernel killed it for want of memory".to_owned()
                } else {
                    now.error.clone()
                },
            }),
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_containers_are_made_at_once() {
        let making = Making::default();
        let mut rooms = Vec::new();
        for _ in 0..MADE_AT_ONCE {
            rooms.push(making.room().await);
        }
        let mut next = Box::pin(making.room());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        rooms.pop();
        drop(next.await);
    }

    fn moment(status: ContainerStatus, health: Option<HealthStatus>) -> Moment {
        Moment {
            status,
            pid: 7,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            health,
            probe_output: "refused".into(),
            exits: 0,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        use ContainerStatus::{Created, Exited, Running};
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let mut told = Told::default();
        let mut words = Vec::new();
        for (status, health) in [
            (Created, None),
            (Running, Some(Starting)),
            (Running, Some(Starting)),
            (Running, Some(Healthy)),
            (Running, Some(Unhealthy)),
            (Running, Some(Unhealthy)),
            (Exited, None),
        ] {
            words.push(
                told.news("c", &moment(status, health))
                    .iter()
                    .map(|happened| match happened {
                        Happened::Started { .. } => "started",
                        Happened::Healthy => "healthy",
                        Happened::Unhealthy { error } => {
                            assert_eq!(error, "unhealthy container: refused");
                            "unhealthy"
                        }
                        Happened::Ended { .. } => "ended",
                        _ => "other",
                    })
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        assert_eq!(
            words,
            ["", "started", "", "healthy", "unhealthy", "", "ended"]
        );
    }

    #[test]
    fn a_container_without_checks_is_healthy_when_it_runs() {
        let news = Told::default().news("c", &moment(ContainerStatus::Running, None));
        assert!(matches!(
            news[..],
            [Happened::Started { .. }, Happened::Healthy]
        ));
    }
}
