//! One task per container: it owns the container, carries out what [`lifecycle`] decides, and publishes a picture after
//! every change.
//!
//! ```text
//!  facade, keeper events, probes ──bounded mailbox──▶ Driver ──watch──▶ pictures (inspect, list, wait)
//!                                                       │
//!                                    run (start, exit, restart) · edit (rename, update, networks) · removal
//! ```
//!
//! A request that has to wait for the process to exit (stop, restart, remove by force) is parked and answered from the
//! exit, so the mailbox never stands still for it. Dropping the driver ends every wait for the container.

mod edit;
mod removal;
mod run;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{ContainerStatus, ContainerUpdateRequest, EndpointSettings};
use agent_runtime::keeper::{AttachOptions, Exit};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::container::Container;
use super::health::ProbeResult;
use super::lifecycle::{self, Action, AfterExit, Decision, Refusal, Request};
use super::registry::Handle;
use super::requests::{RemoveOptions, StartOutcome, StopOutcome};
use super::restart::Backoff;
use super::shared::{Shared, blocking};
use super::signal::{self, SIGKILL};
use super::steps::Waiting;
use crate::error::{Error, Result};

pub(crate) use edit::attachment;

/// Messages that may wait for a driver.
const MAILBOX: usize = 64;
/// Clients that may attach before the start.
const WAITING_CLIENTS_MAX: usize = 64;
/// How long after SIGKILL an exit is waited for before a stop is answered with an error.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What a driver is told.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        reply: Reply<StartOutcome>,
    },
    Stop {
        signal: Option<i32>,
        timeout: Option<i64>,
        reply: Reply<StopOutcome>,
    },
    Restart {
        signal: Option<i32>,
        timeout: Option<i64>,
        reply: Reply<()>,
    },
    Kill {
        signal: i32,
        reply: Reply<()>,
    },
    Remove {
        options: RemoveOptions,
        reference: String,
        reply: Reply<()>,
    },
    Pause {
        reply: Reply<()>,
    },
    Unpause {
        reply: Reply<()>,
    },
    Rename {
        name: String,
        reply: Reply<()>,
    },
    Update {
        request: Box<ContainerUpdateRequest>,
        reply: Reply<Vec<String>>,
    },
    Connect {
        network: String,
        settings: Box<EndpointSettings>,
        reply: Reply<()>,
    },
    Disconnect {
        network: String,
        force: bool,
        reply: Reply<()>,
    },
    /// A client's end of a socket pair; kept until the start if the container does not run.
    Attach {
        fd: OwnedFd,
        options: AttachOptions,
        reply: Reply<()>,
    },
    /// From the keeper.
    Exited {
        exit: Exit,
    },
    /// From the health monitor of the run that began with so many exits before it.
    Probed {
        run: u64,
        result: ProbeResult,
        reply: oneshot::Sender<agent_api::HealthStatus>,
    },
    /// At the start of the engine: go on where the last one stopped.
    Resume(Resume),
}

/// What is left to do for a container that was found at the start of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Its process runs: watch its health.
    Adopt,
    /// Start it by policy.
    Start,
    /// Finish its removal.
    Remove,
}

/// A request parked until the exit.
#[derive(Debug)]
enum Parked {
    Stop(Reply<StopOutcome>),
    Restart(Reply<()>),
    Remove(Reply<()>),
}

/// Whether the driver goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Gone,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    container: Container,
    published: watch::Sender<Arc<Container>>,
    mailbox: mpsc::Receiver<Command>,
    /// For tasks that report back; weak, so that a removed container's mailbox closes.
    own: mpsc::WeakSender<Command>,
    parked: Vec<Parked>,
    after_exit: AfterExit,
    /// Options of a removal that waits for the exit.
    remove_volumes: bool,
    /// When the patience of a stop ends.
    deadline: Option<Deadline>,
    restart_at: Option<Instant>,
    backoff: Backoff,
    waiting_clients: Waiting,
    monitor: Option<AbortHandle>,
}

#[derive(Debug, Clone, Copy)]
enum Deadline {
    /// Then SIGKILL.
    Kill(Instant),
    /// Then the parked stops are answered with an error.
    GiveUp(Instant),
}

impl Driver {
    /// Makes the way to a container; [`Driver::run`] must follow. Requests wait meanwhile.
    pub(crate) fn new(shared: &Arc<Shared>, container: Container) -> (Handle, Self) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (published, picture) = watch::channel(Arc::new(container.clone()));
        let driver = Self {
            shared: Arc::clone(shared),
            container,
            published,
            mailbox,
            own: sender.downgrade(),
            parked: Vec::new(),
            after_exit: AfterExit::default(),
            remove_volumes: false,
            deadline: None,
            restart_at: None,
            backoff: Backoff::default(),
            waiting_clients: Vec::new(),
            monitor: None,
        };
        (
            Handle {
                mailbox: sender,
                picture,
            },
            driver,
        )
    }

    /// Replaces the definition before the driver runs: creation fills in what it found out meanwhile.
    pub(crate) fn set_definition(&mut self, definition: super::container::Definition) {
        self.container.definition = Arc::new(definition);
        self.publish();
    }

    /// Lives until the container is removed or the engine shuts down.
    #[tracing::instrument(name = "container", skip_all, fields(container.id = self.container.definition.short_id()))]
    pub(crate) async fn run(mut self) {
        let closing = self.shared.closing.clone();
        loop {
            let wake = [self.restart_at, self.deadline.map(Deadline::at)]
                .into_iter()
                .flatten()
                .min();
            let flow = tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => Box::pin(self.handle(command)).await,
                    None => Flow::Gone,
                },
                () = sleep_until(wake) => Box::pin(self.time_is_up()).await,
                () = closing.cancelled() => Flow::Gone,
            };
            if flow == Flow::Gone {
                break;
            }
        }
        self.stop_monitor();
    }

    async fn handle(&mut self, command: Command) -> Flow {
        match command {
            Command::Start { reply } => {
                let result = self.start_by_hand().await;
                let failed = result.is_err();
                let _ = reply.send(result);
                if failed
                    && self.container.definition.host.auto_remove
                    && !self.container.is_alive()
                {
                    return self.remove(true).await;
                }
            }
            Command::Stop {
                signal,
                timeout,
                reply,
            } => self.stop(signal, timeout, reply).await,
            Command::Restart {
                signal,
                timeout,
                reply,
            } => self.restart(signal, timeout, reply).await,
            Command::Kill { signal, reply } => {
                let result = self.kill(signal).await;
                let _ = reply.send(result);
            }
            Command::Remove {
                options,
                reference,
                reply,
            } => {
                return self.remove_on_request(options, &reference, reply).await;
            }
            Command::Pause { reply } => {
                let result = self.pause().await;
                let _ = reply.send(result);
            }
            Command::Unpause { reply } => {
                let result = self.unpause().await;
                let _ = reply.send(result);
            }
            Command::Rename { name, reply } => {
                let result = self.rename(&name).await;
                let _ = reply.send(result);
            }
            Command::Update { request, reply } => {
                let result = self.update(*request).await;
                let _ = reply.send(result);
            }
            Command::Connect {
                network,
                settings,
                reply,
            } => {
                let result = self.connect(&network, *settings).await;
                let _ = reply.send(result);
            }
            Command::Disconnect {
                network,
                force,
                reply,
            } => {
                let result = self.disconnect(&network, force).await;
                let _ = reply.send(result);
            }
            Command::Attach { fd, options, reply } => {
                let result = self.attach(fd, options).await;
                let _ = reply.send(result);
            }
            Command::Exited { exit } => return self.exited(exit).await,
            Command::Probed { run, result, reply } => self.probed(run, result, reply),
            Command::Resume(resume) => return self.resume(resume).await,
        }
        Flow::Continue
    }

    fn decide(&self, request: Request) -> Decision {
        lifecycle::decide(self.container.state.status, request)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        refusal.error(self.container.id(), self.container.name())
    }

    /// What is to be done, when "already" cannot be.
    fn act(&self, request: Request) -> Result<Action> {
        match self.decide(request) {
            Decision::Do(action) => Ok(action),
            Decision::Already => Ok(Action::Pass),
            Decision::Refused(refusal) => Err(self.refused(refusal)),
        }
    }

    fn publish(&self) {
        self.published
            .send_replace(Arc::new(self.container.clone()));
    }

    fn set_status(&mut self, status: ContainerStatus) {
        let from = self.container.state.status;
        tracing::debug!(container.id = self.container.id(), state.from = ?from, state.to = ?status);
        self.container.state.status = status;
    }

    fn event(&self, action: &str, more: &[(&str, &str)]) {
        self.shared
            .events
            .container(&self.container.definition, action, more);
    }

    /// Records the state; await the result where somebody relies on it.
    async fn record(&self) -> oneshot::Receiver<bool> {
        self.shared
            .records
            .write_state(&self.container.definition, &self.container.state)
            .await
    }

    async fn stop(&mut self, signal: Option<i32>, timeout: Option<i64>, reply: Reply<StopOutcome>) {
        match self.decide(Request::Stop) {
            Decision::Already => {
                let _ = reply.send(Ok(StopOutcome::AlreadyStopped));
            }
            Decision::Refused(refusal) => {
                let _ = reply.send(Err(self.refused(refusal)));
            }
            Decision::Do(Action::CancelRestart) => {
                self.cancel_restart().await;
                let _ = reply.send(Ok(StopOutcome::Stopped));
            }
            Decision::Do(_) => {
                self.after_exit = self.after_exit.max(AfterExit::Rest);
                match self.begin_stop(signal, timeout).await {
                    Ok(()) => self.parked.push(Parked::Stop(reply)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
        }
    }

    async fn restart(&mut self, signal: Option<i32>, timeout: Option<i64>, reply: Reply<()>) {
        match self.decide(Request::Restart) {
            Decision::Do(Action::StopThenLaunch) => {
                self.after_exit = self.after_exit.max(AfterExit::Launch);
                match self.begin_stop(signal, timeout).await {
                    Ok(()) => self.parked.push(Parked::Restart(reply)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Decision::Do(_) | Decision::Already => {
                let result = self.start_by_hand().await.map(drop);
                if result.is_ok() {
                    self.event("restart", &[]);
                }
                let _ = reply.send(result);
            }
            Decision::Refused(refusal) => {
                let _ = reply.send(Err(self.refused(refusal)));
            }
        }
    }

    /// Sends the stop signal and sets the clock.
    async fn begin_stop(&mut self, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
        let signal = match signal {
            Some(signal) => signal,
            None => signal::parse(self.container.definition.stop_signal())?,
        };
        self.container.state.stopped_by_user = true;
        // Before the signal: whoever finds the exit after a crash knows that it was asked for.
        let _ = self.record().await.await;
        let sent = self.signal(signal).await;
        let seconds = timeout
            .or(self.container.definition.config.stop_timeout)
            .unwrap_or_else(|| self.shared.options.stop_timeout.into());
        let now = Instant::now();
        self.deadline = match u64::try_from(seconds) {
            _ if signal == SIGKILL => Some(Deadline::GiveUp(now + KILL_PATIENCE)),
            // A signal that did not go out is not waited for.
            _ if sent.is_err() => Some(Deadline::Kill(now)),
            Ok(seconds) => Some(Deadline::Kill(
                now + Duration::from_secs(seconds.min(1 << 32)),
            )),
            Err(_) => None,
        };
        self.publish();
        Ok(())
    }

    /// Sends a signal; a paused container is thawed so that it can receive it.
    async fn signal(&mut self, signal: i32) -> Result<()> {
        self.shared
            .keeper
            .signal(self.container.id(), signal)
            .await?;
        self.event("kill", &[("signal", &signal.to_string())]);
        if self.container.state.status == ContainerStatus::Paused {
            self.thaw().await?;
        }
        Ok(())
    }

    async fn kill(&mut self, signal: i32) -> Result<()> {
        let action = self.act(Request::Kill)?;
        if action == Action::CancelRestart {
            self.cancel_restart().await;
            return Ok(());
        }
        let stops = signal == SIGKILL
            || signal::parse(self.container.definition.stop_signal()) == Ok(signal);
        if stops {
            self.after_exit = self.after_exit.max(AfterExit::Rest);
            self.container.state.stopped_by_user = true;
            let _ = self.record().await.await;
        }
        if signal == SIGKILL || action == Action::Signal {
            return self.signal(signal).await;
        }
        // Paused, and not to be killed: the signal waits until it is thawed by hand.
        self.shared
            .keeper
            .signal(self.container.id(), signal)
            .await?;
        self.event("kill", &[("signal", &signal.to_string())]);
        Ok(())
    }

    async fn cancel_restart(&mut self) {
        self.restart_at = None;
        self.container.state.stopped_by_user = true;
        self.set_status(ContainerStatus::Exited);
        let _ = self.record().await.await;
        self.publish();
        self.event("stop", &[]);
    }

    async fn pause(&mut self) -> Result<()> {
        self.act(Request::Pause)?;
        let cgroup = self.shared.cgroup(&self.container.definition)?;
        let id = self.container.id().to_owned();
        blocking(move || {
            cgroup
                .freeze()
                .map_err(|error| Error::system(format!("cannot pause container {id}: {error}")))
        })
        .await?;
        self.stop_monitor();
        self.set_status(ContainerStatus::Paused);
        self.record().await;
        self.publish();
        self.event("pause", &[]);
        Ok(())
    }

    async fn unpause(&mut self) -> Result<()> {
        self.act(Request::Unpause)?;
        self.thaw().await?;
        self.event("unpause", &[]);
        Ok(())
    }

    async fn thaw(&mut self) -> Result<()> {
        let cgroup = self.shared.cgroup(&self.container.definition)?;
        let id = self.container.id().to_owned();
        blocking(move || {
            cgroup
                .thaw()
                .map_err(|error| Error::system(format!("cannot unpause container {id}: {error}")))
        })
        .await?;
        self.set_status(ContainerStatus::Running);
        self.start_monitor();
        self.record().await;
        self.publish();
        Ok(())
    }

    async fn attach(&mut self, fd: OwnedFd, options: AttachOptions) -> Result<()> {
        match self.container.state.status {
            ContainerStatus::Running | ContainerStatus::Paused => {
                self.shared
                    .keeper
                    .attach(self.container.id(), fd, options)
                    .await?;
            }
            ContainerStatus::Removing | ContainerStatus::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be attached to",
                ));
            }
            _ if self.waiting_clients.len() >= WAITING_CLIENTS_MAX => {
                return Err(Error::Unavailable(format!(
                    "{WAITING_CLIENTS_MAX} clients wait for container {} to start",
                    self.container.name()
                )));
            }
            _ => self.waiting_clients.push((fd, options)),
        }
        self.event("attach", &[]);
        Ok(())
    }

    async fn time_is_up(&mut self) -> Flow {
        let now = Instant::now();
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            return self.start_by_policy().await;
        }
        match self.deadline {
            Some(Deadline::Kill(at)) if at <= now => {
                self.deadline = Some(Deadline::GiveUp(now + KILL_PATIENCE));
                if let Err(error) = self.signal(SIGKILL).await {
                    tracing::warn!(container.id = self.container.id(), %error, "cannot kill");
                }
            }
            Some(Deadline::GiveUp(at)) if at <= now => {
                self.deadline = None;
                let error = Error::system(format!(
                    "container {} did not exit: it was killed, but its exit was not reported within {} seconds",
                    self.container.id(),
                    KILL_PATIENCE.as_secs()
                ));
                for parked in self.parked.drain(..) {
                    parked.fail(error.clone());
                }
            }
            _ => {}
        }
        Flow::Continue
    }
}

impl Parked {
    fn fail(self, error: Error) {
        match self {
            Self::Stop(reply) => drop(reply.send(Err(error))),
            Self::Restart(reply) | Self::Remove(reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Deadline {
    fn at(self) -> Instant {
        match self {
            Self::Kill(at) | Self::GiveUp(at) => at,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
