//! The facade's operations on execs.

use agent_api::{ExecCreateRequest, ExecInspect, ExecStartRequest};

use super::exec::{self, StartOptions};
use super::lifecycle::{Decision, Request, decide};
use super::{Engine, ExecStarted};
use crate::error::{Error, Result};

impl Engine {
    /// Prepares an exec and returns its id.
    pub async fn create_exec(&self, container: &str, request: ExecCreateRequest) -> Result<String> {
        let picture = self.shared.registry.find(container)?.container();
        if request.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        if let Some(entry) = request
            .env
            .iter()
            .find(|entry| entry.is_empty() || entry.starts_with('='))
        {
            return Err(Error::invalid(format!(
                "invalid environment variable: {entry}"
            )));
        }
        if let Decision::Refused(refusal) = decide(picture.state.status, Request::Exec) {
            return Err(refusal.error(picture.id(), container));
        }
        let line = format!("exec_create: {}", request.cmd.join(" "));
        let id = self.shared.execs.prepare(picture.id(), request)?;
        self.shared
            .events
            .container(&picture.definition, &line, &[("execID", &id)]);
        Ok(id)
    }

    /// Runs a prepared exec, once.
    pub async fn start_exec(&self, id: &str, request: ExecStartRequest) -> Result<ExecStarted> {
        let container = self.shared.execs.container_of(id)?;
        let picture = self.shared.registry.find(&container)?.container();
        if let Decision::Refused(refusal) = decide(picture.state.status, Request::Exec) {
            return Err(refusal.error(picture.id(), picture.name()));
        }
        let options = StartOptions {
            detach: request.detach,
            console_size: request.console_size,
        };
        exec::start(&self.shared, &picture, id, options).await
    }

    /// Waits until an exec has ended, so that what is asked about it afterwards tells its exit code.
    pub async fn wait_exec(&self, id: &str) -> Result<()> {
        let mut phase = self.shared.execs.watch(id)?;
        // The sender goes with the container: then there is no exit code to wait for.
        let _ = phase
            .wait_for(|phase| matches!(phase, exec::Phase::Ended { .. }))
            .await;
        Ok(())
    }

    /// State of an exec.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        self.shared.execs.inspect(id)
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        self.shared.execs.container_of(id)?;
        self.shared.keeper.resize(id, rows, columns).await
    }
}
