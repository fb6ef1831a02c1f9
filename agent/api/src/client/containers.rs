//! Containers.

use super::error::{ClientError, Result};
use super::hijack::Hijacked;
use super::request::{Query, segment};
use super::stream::{ByteStream, JsonStream, OutputStream, bytes_of, is_multiplexed};
use super::{Client, decode, empty};
use crate::types::{
    ContainerCreateRequest, ContainerCreateResponse, ContainerInspect, ContainerSummary,
    ContainerTopResponse, ContainerUpdateRequest, ContainerUpdateResponse, ContainerWaitResponse,
    FilesystemChange, Filters, PruneResponse,
};
use futures_util::StreamExt;
use http::Method;

/// Whether a request changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Done,
    /// The container was in that state already.
    AlreadyThere,
}

/// What `GET /containers/json` is to list.
#[derive(Debug, Clone, Default)]
pub struct ListContainersOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest so many, running or not.
    pub limit: Option<i64>,
    /// With sizes (slow).
    pub size: bool,
    /// See the API reference.
    pub filters: Filters,
}

/// How to stop or restart.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// In place of the container's own stop signal.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; -1 waits without end, `None` is the container's own.
    pub timeout: Option<i64>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveContainerOptions {
    /// Kill it when it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Remove a link, not the container.
    pub link: bool,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (now or later).
    #[default]
    NotRunning,
    /// Its next exit, even when it does not run now.
    NextExit,
    /// It is gone.
    Removed,
}

impl WaitCondition {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

/// A wait the daemon has taken note of: nothing that happens from now on is missed.
pub struct Wait {
    body: ByteStream,
}

impl Wait {
    /// The result; pending until the condition is met.
    ///
    /// # Errors
    /// When the connection is lost or the daemon ends the wait without a result.
    pub async fn result(mut self) -> Result<ContainerWaitResponse> {
        let mut reply = Vec::new();
        while let Some(chunk) = self.body.next().await {
            reply.extend_from_slice(&chunk?);
        }
        if reply.is_empty() {
            let reason = "no result: did the daemon stop?".to_owned();
            return Err(ClientError::Protocol {
                path: "wait".to_owned(),
                reason,
            });
        }
        decode("wait", &reply)
    }
}

/// What to attach to.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive standard output.
    pub stdout: bool,
    /// Receive standard error.
    pub stderr: bool,
    /// What was written so far first.
    pub logs: bool,
    /// What is written from now on.
    pub stream: bool,
    /// Keys that detach from a terminal, `ctrl-p,ctrl-q` when `None`.
    pub detach_keys: Option<String>,
}

/// Whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Until its object ends.
    Yes,
    /// One item.
    No,
}

/// Which part of the logs.
#[derive(Debug, Clone, Default)]
pub struct LogsOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// From this time on: seconds since the epoch with an optional fraction.
    pub since: Option<String>,
    /// Up to this time.
    pub until: Option<String>,
    /// A time in front of every line.
    pub timestamps: bool,
    /// Only so many lines of the end; `None` is all.
    pub tail: Option<u64>,
    /// Labels and environment that the log driver was told to keep.
    pub details: bool,
}

pub(super) fn of(id: &str, verb: &str) -> String {
    format!("/containers/{}{verb}", segment(id))
}

impl Client {
    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    /// 404 without the image, 409 when the name is taken, 400 for what the engine does not support.
    pub async fn create_container(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: &ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        let query = Query::new().maybe("name", name).maybe("platform", platform);
        self.post("/containers/create", &query, request).await
    }

    /// Lists containers, newest first.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn list_containers(
        &self,
        options: &ListContainersOptions,
    ) -> Result<Vec<ContainerSummary>> {
        let query = Query::new()
            .flag("all", options.all)
            .maybe("limit", options.limit)
            .flag("size", options.size)
            .filters(&options.filters);
        self.get("/containers/json", &query).await
    }

    /// Everything about one container.
    ///
    /// # Errors
    /// 404 when there is none of this name, id or unique id prefix.
    pub async fn inspect_container(&self, id: &str) -> Result<ContainerInspect> {
        self.get(&of(id, "/json"), &Query::new()).await
    }

    /// Starts a container.
    ///
    /// # Errors
    /// 400 when its command cannot run, 500 when the engine could not set it up.
    pub async fn start_container(&self, id: &str) -> Result<Outcome> {
        self.act(Method::POST, &of(id, "/start"), &Query::new())
            .await
    }

    /// Stops a container and waits until it has ended.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn stop_container(&self, id: &str, options: &StopOptions) -> Result<Outcome> {
        self.act(Method::POST, &of(id, "/stop"), &stop_query(options))
            .await
    }

    /// Stops and starts a container.
    ///
    /// # Errors
    /// As stop and start.
    pub async fn restart_container(&self, id: &str, options: &StopOptions) -> Result<()> {
        self.act(Method::POST, &of(id, "/restart"), &stop_query(options))
            .await
            .map(drop)
    }

    /// Sends a signal; `None` is SIGKILL.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        self.act(
            Method::POST,
            &of(id, "/kill"),
            &Query::new().maybe("signal", signal),
        )
        .await
        .map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// 409 when it runs and `force` is not set.
    pub async fn remove_container(&self, id: &str, options: RemoveContainerOptions) -> Result<()> {
        let query = Query::new()
            .flag("force", options.force)
            .flag("v", options.volumes)
            .flag("link", options.link);
        self.act(Method::DELETE, &of(id, ""), &query)
            .await
            .map(drop)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// 409 when the name is taken.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        self.act(
            Method::POST,
            &of(id, "/rename"),
            &Query::new().with("name", name),
        )
        .await
        .map(drop)
    }

    /// Freezes every process of a container.
    ///
    /// # Errors
    /// 409 when it does not run or is paused.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        self.act(Method::POST, &of(id, "/pause"), &Query::new())
            .await
            .map(drop)
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// 409 when it is not paused.
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        self.act(Method::POST, &of(id, "/unpause"), &Query::new())
            .await
            .map(drop)
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn resize_container(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let query = Query::new().with("h", rows).with("w", columns);
        self.act(Method::POST, &of(id, "/resize"), &query)
            .await
            .map(drop)
    }

    /// The processes of a container, in the columns of `ps` with these arguments.
    ///
    /// # Errors
    /// 409 when it does not run.
    pub async fn top_container(
        &self,
        id: &str,
        ps_args: Option<&str>,
    ) -> Result<ContainerTopResponse> {
        self.get(&of(id, "/top"), &Query::new().maybe("ps_args", ps_args))
            .await
    }

    /// Changes limits and the restart policy.
    ///
    /// # Errors
    /// 400 for limits the engine does not support.
    pub async fn update_container(
        &self,
        id: &str,
        request: &ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        self.post(&of(id, "/update"), &Query::new(), request).await
    }

    /// Begins to wait: returns as soon as the daemon has taken note, [`Wait::result`] is the end.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<Wait> {
        let query = Query::new().with("condition", condition.as_str());
        let request = self
            .request(Method::POST, &of(id, "/wait"), &query, empty())
            .await?;
        Ok(Wait {
            body: bytes_of(self.stream(request).await?, "wait"),
        })
    }

    /// Connects to a container's standard streams, also before it is started.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn attach_container(&self, id: &str, options: &AttachOptions) -> Result<Hijacked> {
        let query = Query::new()
            .flag("stdin", options.stdin)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("logs", options.logs)
            .flag("stream", options.stream)
            .maybe("detachKeys", options.detach_keys.as_deref());
        let request = self
            .request(Method::POST, &of(id, "/attach"), &query, empty())
            .await?;
        self.hijack(request).await
    }

    /// What a container wrote.
    ///
    /// # Errors
    /// 404 when there is no such container, 501 when its log driver cannot read.
    pub async fn logs(&self, id: &str, options: &LogsOptions) -> Result<OutputStream> {
        let query = Query::new()
            .flag("follow", options.follow)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .maybe("since", options.since.as_deref())
            .maybe("until", options.until.as_deref())
            .flag("timestamps", options.timestamps)
            .maybe("tail", options.tail)
            .flag("details", options.details);
        let request = self
            .request(Method::GET, &of(id, "/logs"), &query, empty())
            .await?;
        let response = self.stream(request).await?;
        let multiplexed = is_multiplexed(&response);
        Ok(OutputStream::new(bytes_of(response, "logs"), multiplexed))
    }

    /// The container's file system as a tar archive.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn export_container(&self, id: &str) -> Result<ByteStream> {
        let request = self
            .request(Method::GET, &of(id, "/export"), &Query::new(), empty())
            .await?;
        Ok(bytes_of(self.stream(request).await?, "export"))
    }

    /// What differs from the image in a container's file system.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn container_changes(&self, id: &str) -> Result<Vec<FilesystemChange>> {
        let changes: Option<Vec<FilesystemChange>> =
            self.get(&of(id, "/changes"), &Query::new()).await?;
        Ok(changes.unwrap_or_default())
    }

    /// What a container uses, as the daemon describes it: one sample a second until the container ends, or one that
    /// has its predecessor in it.
    ///
    /// # Errors
    /// 404 when there is no such container.
    pub async fn container_stats(
        &self,
        id: &str,
        follow: Follow,
    ) -> Result<JsonStream<serde_json::Value>> {
        let query = Query::new().with("stream", u8::from(follow == Follow::Yes));
        let request = self
            .request(Method::GET, &of(id, "/stats"), &query, empty())
            .await?;
        Ok(JsonStream::new(self.stream(request).await?, "/stats"))
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// 409 while another prune is at work.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<PruneResponse> {
        self.post("/containers/prune", &Query::new().filters(filters), &())
            .await
    }
}

fn stop_query(options: &StopOptions) -> Query {
    Query::new()
        .maybe("signal", options.signal.as_deref())
        .maybe("t", options.timeout)
}
