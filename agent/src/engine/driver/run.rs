//! Runs of a container: how one begins, what its end brings, and its health meanwhile.

use std::sync::Arc;

use agent_api::{ContainerStatus, HealthStatus};
use agent_runtime::keeper::Exit;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Driver, Flow, Parked, Resume};
use crate::engine::container::{Attachment, Definition};
use crate::engine::health::{self, Check, ProbeResult};
use crate::engine::lifecycle::{self, AfterExit, Decision, Next, Request};
use crate::engine::probe::Probe;
use crate::engine::requests::{StartOutcome, StopOutcome};
use crate::engine::restart::Policy;
use crate::engine::steps;
use crate::error::Result;

impl Driver {
    /// Starts because somebody asked for it.
    pub(super) async fn start_by_hand(&mut self) -> Result<StartOutcome> {
        match self.decide(Request::Start) {
            Decision::Already => return Ok(StartOutcome::AlreadyRunning),
            Decision::Refused(refusal) => return Err(self.refused(refusal)),
            Decision::Do(_) => {}
        }
        self.restart_at = None;
        self.backoff.reset();
        self.container.state.restart_count = 0;
        self.launch().await?;
        Ok(StartOutcome::Started)
    }

    /// Starts because the policy asks for it. A start that fails counts as a run that failed.
    pub(super) async fn start_by_policy(&mut self) -> Flow {
        self.container.state.restart_count += 1;
        if let Err(error) = self.launch().await {
            tracing::warn!(container.id = self.container.id(), %error, "restart failed");
            self.container.state.exits += 1;
            self.container.state.finished_at = Some(Timestamp::now());
            return self.after_run(None).await;
        }
        Flow::Continue
    }

    async fn launch(&mut self) -> Result<()> {
        self.after_exit = AfterExit::Policy;
        let clients = std::mem::take(&mut self.waiting_clients);
        let files = self.shared.registry.files(self.container.id());
        let _unused_from_outside = files.lock().await;
        match steps::start(&self.shared, &self.container, clients).await {
            Ok(started) => {
                let state = &mut self.container.state;
                state.pid = started.pid;
                state.started_at = Some(started.started_at);
                state.exit_code = 0;
                state.error.clear();
                state.oom_killed = false;
                state.stopped_by_user = false;
                remember_networks(
                    Arc::make_mut(&mut self.container.definition),
                    &started.attachment,
                );
                self.container.attachment = Some(Arc::new(started.attachment));
                self.container.health = self.check().map(|_| Arc::new(health::starting()));
                self.set_status(ContainerStatus::Running);
                // Not waited for: until it is written, the keeper's list says the same.
                self.record().await;
                self.publish();
                self.event("start", &[]);
                self.start_monitor();
                Ok(())
            }
            Err(failure) => {
                let state = &mut self.container.state;
                state.exit_code = failure.exit_code;
                state.error = failure.error.to_string();
                if state.status == ContainerStatus::Restarting {
                    state.status = ContainerStatus::Exited;
                }
                self.record().await;
                self.publish();
                Err(failure.error)
            }
        }
    }

    /// The keeper reports the end of the process; all output is in the log.
    pub(super) async fn exited(&mut self, exit: Exit) -> Flow {
        if !self.container.is_alive() {
            self.shared.keeper.forget(self.container.id()).await;
            return Flow::Continue;
        }
        self.stop_monitor();
        let attachment = self
            .container
            .attachment
            .take()
            .unwrap_or_else(|| Arc::new(Attachment::default()));
        // Before anybody hears of the exit: its addresses and ports are free by then.
        steps::tear_down(&self.shared, &self.container.definition, &attachment).await;
        let finished_at = Timestamp::from_nanosecond(exit.finished_at.into())
            .unwrap_or_else(|_| Timestamp::now());
        let state = &mut self.container.state;
        state.pid = 0;
        state.exit_code = exit.exit_code;
        state.oom_killed = exit.oom_killed;
        state.finished_at = Some(finished_at);
        state.exits += 1;
        let uptime = state
            .started_at
            .map(|started| finished_at.duration_since(started))
            .unwrap_or_default();
        let uptime: std::time::Duration = uptime.try_into().unwrap_or_default();
        self.set_status(ContainerStatus::Exited);
        self.after_run(Some(uptime)).await
    }

    /// Decides and does what follows a run, or (`None`) a start by policy that failed.
    async fn after_run(&mut self, run: Option<std::time::Duration>) -> Flow {
        self.deadline = None;
        let host = &self.container.definition.host;
        let state = &self.container.state;
        let policy = Policy::of(&host.restart_policy);
        let restarts =
            !state.stopped_by_user && policy.restarts(state.exit_code, state.restart_count);
        let next = lifecycle::after_exit(
            std::mem::take(&mut self.after_exit),
            host.auto_remove,
            restarts,
        );
        if next == Next::Restart {
            self.set_status(ContainerStatus::Restarting);
            self.restart_at = Some(Instant::now() + self.backoff.next(run.unwrap_or_default()));
        }
        // Whoever hears of the exit and looks finds the state it led to, so events come second.
        self.publish();
        if let Some(uptime) = run {
            self.tell_exit(uptime);
        }
        if next != Next::Delete {
            // Recorded before the keeper may forget it, and before a stop is answered.
            if self.record().await.await == Ok(true) {
                self.shared.keeper.forget(self.container.id()).await;
            }
        }
        self.answer_stops();
        match next {
            Next::Rest | Next::Restart => Flow::Continue,
            Next::Launch => {
                let result = self.start_by_hand().await.map(drop);
                if result.is_ok() {
                    self.event("restart", &[]);
                }
                for parked in self.parked.drain(..) {
                    match (parked, &result) {
                        (Parked::Restart(reply), result) => drop(reply.send(result.clone())),
                        (other, Err(error)) => other.fail(error.clone()),
                        (other, Ok(())) => {
                            other.fail(crate::error::Error::conflict("the container was restarted"))
                        }
                    }
                }
                Flow::Continue
            }
            Next::Delete => {
                let volumes = self.remove_volumes || self.container.definition.host.auto_remove;
                self.remove(volumes).await
            }
        }
    }

    /// The events of an exit, in Docker's order.
    fn tell_exit(&self, uptime: std::time::Duration) {
        let state = &self.container.state;
        if state.oom_killed {
            self.event("oom", &[]);
        }
        let (code, seconds) = (state.exit_code.to_string(), uptime.as_secs().to_string());
        self.event("die", &[("execDuration", &seconds), ("exitCode", &code)]);
        let stopped = |parked: &Parked| matches!(parked, Parked::Stop(_));
        if self.parked.iter().any(stopped) {
            self.event("stop", &[]);
        }
    }

    fn answer_stops(&mut self) {
        for parked in std::mem::take(&mut self.parked) {
            match parked {
                Parked::Stop(reply) => drop(reply.send(Ok(StopOutcome::Stopped))),
                other => self.parked.push(other),
            }
        }
    }

    pub(super) async fn resume(&mut self, resume: Resume) -> Flow {
        match resume {
            Resume::Adopt => {
                self.container.health = self.check().map(|_| Arc::new(health::starting()));
                self.publish();
                if self.container.state.status == ContainerStatus::Running {
                    self.start_monitor();
                }
                Flow::Continue
            }
            Resume::Start => {
                if let Err(error) = self.launch().await {
                    tracing::error!(container.id = self.container.id(), %error, "cannot start by restart policy");
                }
                Flow::Continue
            }
            Resume::Remove => {
                let volumes = self.container.state.remove_volumes;
                self.remove(volumes).await
            }
        }
    }

    fn check(&self) -> Option<Check> {
        let config = &self.container.definition.config;
        Check::of(config.healthcheck.as_ref(), config.shell.as_deref())
    }

    pub(super) fn start_monitor(&mut self) {
        self.stop_monitor();
        let (Some(check), Some(started_at)) = (self.check(), self.container.state.started_at)
        else {
            return;
        };
        let Some(mailbox) = self.own.upgrade() else {
            return;
        };
        let probe = Probe::new(
            Arc::clone(&self.shared),
            mailbox.downgrade(),
            self.published.subscribe(),
            self.container.state.exits,
        );
        let monitor = self
            .shared
            .tasks
            .spawn(health::monitor(Arc::new(probe), check, started_at));
        self.monitor = Some(monitor.abort_handle());
    }

    pub(super) fn stop_monitor(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            monitor.abort();
        }
    }

    /// Enters the result of a probe; no answer tells the monitor that its run is over.
    pub(super) fn probed(
        &mut self,
        run: u64,
        result: ProbeResult,
        reply: oneshot::Sender<HealthStatus>,
    ) {
        let state = &self.container.state;
        if run != state.exits || state.status != ContainerStatus::Running {
            return;
        }
        let (Some(check), Some(before), Some(started_at)) = (
            self.check(),
            self.container.health.clone(),
            state.started_at,
        ) else {
            return;
        };
        let (health, changed) = health::enter(&before, &check, result, started_at);
        let status = health.status;
        self.container.health = Some(Arc::new(health));
        self.publish();
        if let Some(status) = changed {
            let word = match status {
                HealthStatus::Healthy => "healthy",
                HealthStatus::Unhealthy => "unhealthy",
                HealthStatus::Starting => "starting",
                HealthStatus::None => "none",
            };
            self.event(&format!("health_status: {word}"), &[]);
        }
        let _ = reply.send(status);
    }
}

/// Keeps the ids of the networks it is connected to, which inspection shows after the exit too.
fn remember_networks(definition: &mut Definition, attachment: &Attachment) {
    for endpoint in &attachment.endpoints {
        if let Some(settings) = definition.endpoints.get_mut(&endpoint.network_name) {
            settings.network_id.clone_from(&endpoint.network_id);
        }
    }
}
