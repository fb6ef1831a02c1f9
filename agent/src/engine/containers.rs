//! The facade's operations on containers.

use std::future::Future;

use agent_api::{
    ContainerCreateRequest, ContainerCreateResponse, ContainerInspect, ContainerSummary,
    ContainerTopResponse, ContainerUpdateRequest, ContainerUpdateResponse, ContainerWaitResponse,
    Filters, PruneResponse,
};

use super::{
    AttachOptions, Attached, Change, Engine, ListOptions, LogOptions, Logs, RemoveOptions,
    StartOutcome, Stats, StopOptions, StopOutcome, WaitCondition,
};
use crate::error::Result;

impl Engine {
    /// Creates a container. `name` without a name makes one up; `platform` is `os[/arch[/variant]]`.
    pub async fn create_container(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        todo!()
    }

    /// Starts a container.
    pub async fn start_container(&self, reference: &str) -> Result<StartOutcome> {
        todo!()
    }

    /// Stops a container and waits for it to be stopped.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<StopOutcome> {
        todo!()
    }

    /// Stops a container if it runs, then starts it.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        todo!()
    }

    /// Sends a signal (`None`: SIGKILL) to a container's first process.
    pub async fn kill_container(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        todo!()
    }

    /// Removes a container.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        todo!()
    }

    /// Registers a wait. When this returns, no exit from now on is missed; the future inside gives the exit code.
    pub async fn wait_container(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<ContainerWaitResponse>> + Send + 'static> {
        Ok(async { todo!() })
    }

    /// Everything about a container. `size` costs a walk over its writable layer.
    pub async fn inspect_container(&self, reference: &str, size: bool) -> Result<ContainerInspect> {
        todo!()
    }

    /// Lists containers, newest first.
    pub async fn list_containers(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        todo!()
    }

    /// A container's log.
    pub async fn container_logs(&self, reference: &str, options: LogOptions) -> Result<Logs> {
        todo!()
    }

    /// Attaches to a container; before its start too, and then nothing of its output is missed.
    pub async fn attach_container(&self, reference: &str, options: AttachOptions) -> Result<Attached> {
        todo!()
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_container(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        todo!()
    }

    /// Gives a container another name.
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<()> {
        todo!()
    }

    /// Freezes all processes of a container.
    pub async fn pause_container(&self, reference: &str) -> Result<()> {
        todo!()
    }

    /// Thaws a container.
    pub async fn unpause_container(&self, reference: &str) -> Result<()> {
        todo!()
    }

    /// Processes of a container; `ps_args` in the words of ps(1), empty means `-ef`.
    pub async fn top_container(&self, reference: &str, ps_args: &str) -> Result<ContainerTopResponse> {
        todo!()
    }

    /// One sample of a container's use of resources.
    pub async fn container_stats(&self, reference: &str, one_shot: bool) -> Result<Stats> {
        todo!()
    }

    /// A sample a second, until the container is removed or the stream dropped.
    pub async fn container_stats_stream(&self, reference: &str) -> Result<futures_util::stream::BoxStream<'static, Result<Stats>>> {
        todo!()
    }

    /// Changes limits and the restart policy.
    pub async fn update_container(
        &self,
        reference: &str,
        request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        todo!()
    }

    /// What the container changed in its file system; `None` is answered as `null`.
    pub async fn container_changes(&self, reference: &str) -> Result<Vec<Change>> {
        todo!()
    }

    /// Removes all containers that do not run.
    pub async fn prune_containers(&self, filters: Filters) -> Result<PruneResponse> {
        todo!()
    }
}
