//! The facade's operations on containers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{
    ContainerCreateRequest, ContainerCreateResponse, ContainerInspect, ContainerStatus,
    ContainerSummary, ContainerTopResponse, ContainerUpdateRequest, ContainerUpdateResponse,
    ContainerWaitResponse, EndpointSettings, Filters, PruneResponse, StreamKind,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::container::Container;
use super::driver::Command;
use super::inspect::{Surroundings, inspect, summary};
use super::keeper::stream_pair;
use super::lifecycle::{Decision, Request, decide};
use super::list::{self, Lookup};
use super::registry::Handle;
use super::shared::blocking;
use super::signal::SIGKILL;
use super::{
    AttachOptions, Attached, Change, Engine, ListOptions, LogOptions, Logs, RemoveOptions,
    StartOutcome, Stats, StopOptions, StopOutcome, WaitCondition, create, diff, disk, logs, signal,
    stats, top,
};
use crate::error::{Error, Result};

/// Time between two samples of a stream.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    /// Creates a container. `name` without a name makes one up; `platform` is `os[/arch[/variant]]`.
    pub async fn create_container(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        let some = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        create::create(&self.shared, some(name), some(platform), request).await
    }

    /// Starts a container.
    pub async fn start_container(&self, reference: &str) -> Result<StartOutcome> {
        let handle = self.shared.registry.find(reference)?;
        handle.ask(|reply| Command::Start { reply }).await
    }

    /// Stops a container and waits for it to be stopped.
    pub async fn stop_container(
        &self,
        reference: &str,
        options: StopOptions,
    ) -> Result<StopOutcome> {
        let handle = self.shared.registry.find(reference)?;
        let StopOptions { signal, timeout } = options;
        let signal = parse_signal(signal.as_deref())
            .map_err(|error| in_context(error, "stop", reference))?;
        handle
            .ask(|reply| Command::Stop {
                signal,
                timeout,
                reply,
            })
            .await
    }

    /// Stops a container if it runs, then starts it.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        let StopOptions { signal, timeout } = options;
        let signal = parse_signal(signal.as_deref())
            .map_err(|error| in_context(error, "restart", reference))?;
        handle
            .ask(|reply| Command::Restart {
                signal,
                timeout,
                reply,
            })
            .await
    }

    /// Sends a signal (`None`: SIGKILL) to a container's first process.
    pub async fn kill_container(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        let signal = parse_signal(signal).map_err(|error| in_context(error, "kill", reference))?;
        let signal = signal.unwrap_or(SIGKILL);
        let killed = handle.ask(|reply| Command::Kill { signal, reply }).await;
        killed.map_err(|error| in_context(error, "kill", reference))
    }

    /// Removes a container.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        let reference = reference.to_owned();
        handle
            .ask(|reply| Command::Remove {
                options,
                reference,
                reply,
            })
            .await
    }

    /// Registers a wait. When this returns, no exit from now on is missed; the future inside gives the exit code.
    pub async fn wait_container(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<ContainerWaitResponse>> + Send + 'static + use<>> {
        let mut picture = self.shared.registry.find(reference)?.picture;
        let exits = picture.borrow_and_update().state.exits;
        Ok(async move {
            let reached = |container: &Container| match condition {
                WaitCondition::NotRunning => !matches!(
                    container.state.status,
                    ContainerStatus::Running
                        | ContainerStatus::Paused
                        | ContainerStatus::Restarting
                ),
                WaitCondition::NextExit => container.state.exits > exits,
                WaitCondition::Removed => false,
            };
            // An error means that the container is removed, which ends every wait.
            let _ = picture.wait_for(|container| reached(container)).await;
            let exit_code = picture.borrow().state.exit_code;
            Ok(ContainerWaitResponse {
                status_code: exit_code.into(),
                error: None,
            })
        })
    }

    /// Everything about a container. `size` costs a walk over its writable layer.
    pub async fn inspect_container(&self, reference: &str, size: bool) -> Result<ContainerInspect> {
        let container = self.shared.registry.find(reference)?.container();
        let shared = Arc::clone(&self.shared);
        let shown = move || {
            let directory = shared.records.directory(container.id());
            let image = container.definition.image.parse().ok();
            let layers = image
                .and_then(|id| shared.images.layers(&id).ok())
                .unwrap_or_default();
            let around = Surroundings {
                directory: &directory,
                log_path: &shared.log_path(container.id()),
                layers: &layers,
                execs: shared.execs.running_in(container.id()),
            };
            let mut shown = inspect(&container, around);
            if size {
                let (rw, root) = sizes(&shared, &container);
                shown.size_rw = Some(rw);
                shown.size_root_fs = Some(root);
            }
            shown
        };
        match size {
            true => blocking(move || Ok(shown())).await,
            false => Ok(shown()),
        }
    }

    /// Lists containers, newest first.
    pub async fn list_containers(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let chosen = self.select(&options)?;
        let now = Timestamp::now();
        if !options.size {
            let row = |container: &Arc<Container>| row(&self.shared, container, now);
            return Ok(chosen.iter().map(row).collect());
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let with_size = |container: &Arc<Container>| {
                let (rw, root) = sizes(&shared, container);
                ContainerSummary {
                    size_rw: Some(rw),
                    size_root_fs: Some(root),
                    ..row(&shared, container, now)
                }
            };
            Ok(chosen.iter().map(with_size).collect())
        })
        .await
    }

    fn select(&self, options: &ListOptions) -> Result<Vec<Arc<Container>>> {
        let shared = &self.shared;
        let lookup = Lookup {
            created: &|reference| {
                Ok(shared
                    .registry
                    .find(reference)?
                    .container()
                    .definition
                    .created)
            },
            descendants: &|reference| create::descendants(&shared.images, reference),
        };
        list::select(shared.registry.pictures(), options, &lookup)
    }

    /// A container's log.
    pub async fn container_logs(&self, reference: &str, options: LogOptions) -> Result<Logs> {
        let handle = self.shared.registry.find(reference)?;
        let path = self.shared.log_path(handle.container().id());
        logs::read(path, handle.picture, options)
    }

    /// Attaches to a container; before its start too, and then nothing of its output is missed.
    pub async fn attach_container(
        &self,
        reference: &str,
        options: AttachOptions,
    ) -> Result<Attached> {
        let handle = self.shared.registry.find(reference)?;
        let tty = handle.container().definition.config.tty;
        let past = match options.logs && (options.stdout || options.stderr) {
            true => {
                let wanted = LogOptions {
                    stdout: options.stdout,
                    stderr: options.stderr,
                    ..LogOptions::default()
                };
                Some(self.container_logs(reference, wanted).await?)
            }
            false => None,
        };
        let live = match options.stream {
            true => Some(self.attach_live(&handle, &options).await?),
            false => None,
        };
        let stream = match (past, live) {
            (None, Some(live)) => live,
            (past, live) => {
                let (ours, theirs) = UnixStream::pair().map_err(|error| {
                    Error::system(format!("cannot make a socket pair for attaching: {error}"))
                })?;
                self.shared.tasks.spawn(past_then_live(past, live, theirs));
                ours
            }
        };
        Ok(Attached { tty, stream })
    }

    async fn attach_live(&self, handle: &Handle, options: &AttachOptions) -> Result<UnixStream> {
        let config = handle.container();
        let stdin = options.stdin && config.definition.config.open_stdin;
        let (ours, fd) = stream_pair()?;
        let options = agent_runtime::keeper::AttachOptions {
            stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        handle
            .ask(|reply| Command::Attach { fd, options, reply })
            .await?;
        Ok(ours)
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_container(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.touch(reference)?;
        self.shared
            .keeper
            .resize(container.id(), rows, columns)
            .await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        let size = size.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.shared
            .events
            .container(&container.definition, "resize", &size);
        Ok(())
    }

    /// The container, whose processes are to be looked at.
    fn touch(&self, reference: &str) -> Result<Arc<Container>> {
        let container = self.shared.registry.find(reference)?.container();
        match decide(container.state.status, Request::Touch) {
            Decision::Refused(refusal) => Err(refusal.error(container.id(), reference)),
            _ => Ok(container),
        }
    }

    /// Gives a container another name.
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let name = name.strip_prefix('/').unwrap_or(name).to_owned();
        handle.ask(|reply| Command::Rename { name, reply }).await
    }

    /// Freezes all processes of a container.
    pub async fn pause_container(&self, reference: &str) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        handle.ask(|reply| Command::Pause { reply }).await
    }

    /// Thaws a container.
    pub async fn unpause_container(&self, reference: &str) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        handle.ask(|reply| Command::Unpause { reply }).await
    }

    /// Processes of a container; `ps_args` in the words of ps(1), empty means `-ef`.
    pub async fn top_container(
        &self,
        reference: &str,
        ps_args: &str,
    ) -> Result<ContainerTopResponse> {
        let container = self.touch(reference)?;
        let cgroup = self.shared.cgroup(&container.definition)?;
        let ps_args = ps_args.to_owned();
        let listed = blocking(move || {
            let pids = cgroup
                .processes()
                .map_err(|error| Error::system(error.to_string()))?;
            top::top(&pids, &ps_args)
        });
        let listed = listed.await?;
        self.shared
            .events
            .container(&container.definition, "top", &[]);
        Ok(listed)
    }

    /// One sample of a container's use of resources. Unless `one_shot`, it follows one taken a second before, so that
    /// rates can be computed.
    pub async fn container_stats(&self, reference: &str, one_shot: bool) -> Result<Stats> {
        let picture = self.shared.registry.find(reference)?.picture;
        let first = self.sample(&picture, None).await?;
        if one_shot || !picture.borrow().is_alive() {
            return Ok(first);
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        self.sample(&picture, Some(first)).await
    }

    /// A sample a second, until the container is removed or the stream dropped.
    pub async fn container_stats_stream(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<Stats>>> {
        let picture = self.shared.registry.find(reference)?.picture;
        let engine = self.clone();
        let samples = futures_util::stream::unfold((picture, None), move |(picture, before)| {
            let engine = engine.clone();
            async move {
                if before.is_some() {
                    tokio::time::sleep(SAMPLE_INTERVAL).await;
                }
                if picture.has_changed().is_err() {
                    return None;
                }
                let sample = engine.sample(&picture, before).await;
                let before = sample
                    .as_ref()
                    .ok()
                    .cloned()
                    .or_else(|| Some(Stats::default()));
                Some((sample, (picture, before)))
            }
        });
        Ok(samples.boxed())
    }

    async fn sample(
        &self,
        picture: &watch::Receiver<Arc<Container>>,
        before: Option<Stats>,
    ) -> Result<Stats> {
        let container = Arc::clone(&picture.borrow());
        if !container.is_alive() {
            return Ok(stats::stopped(container.id(), container.name()));
        }
        let cgroup = self.shared.cgroup(&container.definition)?;
        blocking(move || {
            let own_network = container
                .attachment
                .as_ref()
                .is_some_and(|attachment| !attachment.netns.is_empty());
            let pid = container.state.pid;
            stats::sample(
                container.id(),
                container.name(),
                &cgroup,
                pid,
                own_network,
                before.as_ref(),
            )
        })
        .await
    }

    /// Changes limits and the restart policy.
    pub async fn update_container(
        &self,
        reference: &str,
        request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        let handle = self.shared.registry.find(reference)?;
        let request = Box::new(request);
        let warnings = handle
            .ask(|reply| Command::Update { request, reply })
            .await?;
        Ok(ContainerUpdateResponse { warnings })
    }

    /// What the container changed in its file system.
    pub async fn container_changes(&self, reference: &str) -> Result<Vec<Change>> {
        let container = self.shared.registry.find(reference)?.container();
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let id = container
                .definition
                .image
                .parse()
                .map_err(|_| Error::system("malformed image id"))?;
            let layers = shared.images.layers(&id)?;
            let upper = shared.records.directory(container.id()).join("upper");
            diff::changes(&upper, &layers).map_err(Error::io("compare", &upper))
        })
        .await
    }

    /// The stopped containers that filters choose.
    pub(super) fn prunable_containers(&self, filters: &Filters) -> Result<Vec<Arc<Container>>> {
        filters.allow(&["label", "label!", "until"])?;
        let until = list::until(filters)?;
        let mut containers = self.shared.registry.pictures();
        containers.retain(|container| {
            let definition = &container.definition;
            let stopped = matches!(
                container.state.status,
                ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Dead
            );
            stopped
                && filters.labels_match(&definition.config.labels)
                && until.is_none_or(|until| definition.created < until)
        });
        Ok(containers)
    }

    /// Removes all containers that do not run.
    pub async fn prune_containers(&self, filters: Filters) -> Result<PruneResponse> {
        let mut deleted = Vec::new();
        let mut space_reclaimed = 0;
        for container in self.prunable_containers(&filters)? {
            let shared = Arc::clone(&self.shared);
            let pruned = Arc::clone(&container);
            let size = blocking(move || Ok(sizes(&shared, &pruned).0)).await?;
            // One that was started meanwhile stays.
            if self
                .remove_container(container.id(), RemoveOptions::default())
                .await
                .is_ok()
            {
                space_reclaimed += u64::try_from(size).unwrap_or(0);
                deleted.push(container.id().to_owned());
            }
        }
        self.shared.events.pruned("container", space_reclaimed);
        Ok(PruneResponse {
            containers_deleted: Some(deleted),
            space_reclaimed,
            ..PruneResponse::default()
        })
    }

    /// Connects a container to a network.
    pub(super) async fn connect_container(
        &self,
        reference: &str,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        let (network, settings) = (network.to_owned(), Box::new(settings));
        handle
            .ask(|reply| Command::Connect {
                network,
                settings,
                reply,
            })
            .await
    }

    /// Disconnects a container from a network.
    pub(super) async fn disconnect_container(
        &self,
        reference: &str,
        network: &str,
        force: bool,
    ) -> Result<()> {
        let handle = self.shared.registry.find(reference)?;
        let network = network.to_owned();
        handle
            .ask(|reply| Command::Disconnect {
                network,
                force,
                reply,
            })
            .await
    }
}

fn parse_signal(text: Option<&str>) -> Result<Option<i32>> {
    text.filter(|text| !text.is_empty())
        .map(signal::parse)
        .transpose()
}

/// `cannot kill container: web: …`, as dockerd words it.
fn in_context(error: Error, verb: &str, reference: &str) -> Error {
    match error {
        Error::NotFound(_) => error,
        other => other.context(format!("cannot {verb} container: {reference}")),
    }
}

/// One row of the list. The name of the image is shown as long as it means that image (moby `daemon/list.go`).
fn row(shared: &super::shared::Shared, container: &Container, now: Timestamp) -> ContainerSummary {
    let mut row = summary(container, now);
    let meant = shared.images.resolve(&row.image);
    if meant.map_or(true, |id| id.to_string() != row.image_id) {
        row.image.clone_from(&row.image_id);
    }
    row
}

/// Bytes of the writable layer, and of it together with the image.
fn sizes(shared: &super::shared::Shared, container: &Container) -> (i64, i64) {
    let rw = disk::size_of(&shared.records.directory(container.id()).join("upper"));
    let image = container.definition.image.parse();
    let image = image.map_or(0, |id| shared.images.image_size(&id));
    let signed = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    (signed(rw), signed(rw.saturating_add(image)))
}

/// Writes the log so far, then passes bytes both ways.
async fn past_then_live(past: Option<Logs>, live: Option<UnixStream>, mut client: UnixStream) {
    if let Some(mut past) = past {
        while let Some(Ok((kind, line))) = past.lines.next().await {
            let header = match past.tty {
                true => Vec::new(),
                false => {
                    StreamKind::header(kind, u32::try_from(line.len()).unwrap_or(u32::MAX)).to_vec()
                }
            };
            if client.write_all(&header).await.is_err() || client.write_all(&line).await.is_err() {
                return;
            }
        }
    }
    if let Some(mut live) = live
        && let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut live).await
    {
        tracing::debug!(%error, "an attached client is gone");
    }
}
