//! Execs: further processes in running containers.
//!
//! An exec is prepared, started once, and remembered after its end until its container is removed or many newer ones
//! have come. Exits arrive from the keeper and are entered here; whoever waits for one watches it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_api::{ExecCreateRequest, ExecInspect, ExecProcessConfig};
use agent_runtime::keeper::{AttachOptions, Exit, Launch, LaunchKind, StdinMode};
use agent_runtime::spec::{Capabilities, CapabilitySet, ExecSpec, Process};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::container::{Container, new_id};
use super::keeper::stream_pair;
use super::requests::{Attached, ExecStarted};
use super::shared::Shared;
use super::spec;
use crate::error::{Error, Result};

/// Ended execs that are remembered, over all containers.
const REMEMBERED: usize = 512;
/// Execs that may be prepared or running in one container.
const PER_CONTAINER_MAX: usize = 4096;
/// After this time an exec that was not started may be forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    execs: HashMap<String, Exec>,
    /// Ids in the order of ending.
    ended: std::collections::VecDeque<String>,
}

#[derive(Debug, Clone)]
struct Exec {
    container: String,
    request: Arc<ExecCreateRequest>,
    phase: watch::Sender<Phase>,
    prepared: Instant,
}

/// The life of an exec: it only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Prepared,
    Starting,
    Running { pid: i32 },
    Ended { exit_code: i32 },
}

impl Inner {
    /// The oldest exec of a container that was prepared long ago and never ran: its client has gone away.
    fn forgotten_in(&self, container: &str, now: Instant) -> Option<String> {
        let is_forgotten = |exec: &Exec| {
            exec.container == container
                && *exec.phase.borrow() <= Phase::Starting
                && now.duration_since(exec.prepared) >= FORGOTTEN_AFTER
        };
        let forgotten = self.execs.iter().filter(|(_, exec)| is_forgotten(exec));
        let oldest = forgotten.min_by_key(|(_, exec)| exec.prepared);
        oldest.map(|(id, _)| id.clone())
    }
}

impl Execs {
    /// Prepares an exec. One that was prepared long ago and never started makes room for it where there is none.
    pub(crate) fn prepare(&self, container: &str, request: ExecCreateRequest) -> Result<String> {
        let id = new_id();
        let mut inner = self.inner.lock();
        let unfinished = inner.execs.values().filter(|exec| {
            exec.container == container && !matches!(*exec.phase.borrow(), Phase::Ended { .. })
        });
        if unfinished.count() >= PER_CONTAINER_MAX {
            let forgotten = inner.forgotten_in(container, Instant::now()).ok_or_else(|| {
                Error::Unavailable(format!(
                    "container {container} has {PER_CONTAINER_MAX} unfinished execs: start or end some first"
                ))
            })?;
            inner.execs.remove(&forgotten);
        }
        let exec = Exec {
            container: container.to_owned(),
            request: Arc::new(request),
            phase: watch::Sender::new(Phase::Prepared),
            prepared: Instant::now(),
        };
        inner.execs.insert(id.clone(), exec);
        Ok(id)
    }

    /// Ids of all that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let running = |exec: &Exec| matches!(*exec.phase.borrow(), Phase::Running { .. });
        let ids = inner.execs.iter().filter(|(_, exec)| running(exec));
        ids.map(|(id, _)| id.clone()).collect()
    }

    fn get(&self, id: &str) -> Result<Exec> {
        let none = || Error::not_found(format!("No such exec instance: {id}"));
        self.inner.lock().execs.get(id).cloned().ok_or_else(none)
    }

    /// The container of an exec.
    pub(crate) fn container_of(&self, id: &str) -> Result<String> {
        self.get(id).map(|exec| exec.container)
    }

    /// Takes the one right to start it.
    fn claim(&self, id: &str) -> Result<Exec> {
        let exec = self.get(id)?;
        let mut error = None;
        exec.phase.send_if_modified(|phase| match *phase {
            Phase::Prepared => {
                *phase = Phase::Starting;
                true
            }
            Phase::Starting | Phase::Running { .. } => {
                error = Some(Error::conflict(format!(
                    "exec command {id} is already running"
                )));
                false
            }
            Phase::Ended { .. } => {
                error = Some(Error::conflict(format!(
                    "exec command {id} has already run"
                )));
                false
            }
        });
        match error {
            None => Ok(exec),
            Some(error) => Err(error),
        }
    }

    /// Enters an exit. `None` when the id is no exec's.
    pub(crate) fn ended(&self, id: &str, exit_code: i32) -> Option<String> {
        let mut inner = self.inner.lock();
        let exec = inner.execs.get(id)?.clone();
        advance(&exec, Phase::Ended { exit_code });
        inner.ended.push_back(id.to_owned());
        while inner.ended.len() > REMEMBERED {
            if let Some(oldest) = inner.ended.pop_front() {
                inner.execs.remove(&oldest);
            }
        }
        Some(exec.container)
    }

    /// Forgets the execs of a removed container.
    pub(crate) fn forget_container(&self, container: &str) {
        let mut inner = self.inner.lock();
        inner.execs.retain(|_, exec| exec.container != container);
        let Inner { execs, ended } = &mut *inner;
        ended.retain(|id| execs.contains_key(id));
    }

    /// Ids of a container's execs that run.
    pub(crate) fn running_in(&self, container: &str) -> Vec<String> {
        let inner = self.inner.lock();
        let running = inner.execs.iter().filter(|(_, exec)| {
            exec.container == container && matches!(*exec.phase.borrow(), Phase::Running { .. })
        });
        let mut ids: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    }

    /// Watches an exec.
    pub(crate) fn watch(&self, id: &str) -> Result<watch::Receiver<Phase>> {
        self.get(id).map(|exec| exec.phase.subscribe())
    }

    /// As the API shows it.
    pub(crate) fn inspect(&self, id: &str) -> Result<ExecInspect> {
        let exec = self.get(id)?;
        let phase = *exec.phase.borrow();
        let request = &exec.request;
        Ok(ExecInspect {
            id: id.to_owned(),
            running: matches!(phase, Phase::Running { .. }),
            exit_code: match phase {
                Phase::Ended { exit_code } => Some(exit_code.into()),
                _ => None,
            },
            process_config: ExecProcessConfig {
                tty: request.tty,
                entrypoint: request.cmd.first().cloned().unwrap_or_default(),
                arguments: request.cmd.iter().skip(1).cloned().collect(),
                privileged: request.privileged,
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: matches!(phase, Phase::Ended { .. }),
            container_id: exec.container,
            detach_keys: request.detach_keys.clone(),
            pid: match phase {
                Phase::Running { pid } => pid,
                _ => 0,
            },
        })
    }
}

fn advance(exec: &Exec, to: Phase) {
    exec.phase.send_if_modified(|phase| {
        let forward = to > *phase;
        if forward {
            *phase = to;
        }
        forward
    });
}

/// How to start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StartOptions {
    pub(crate) detach: bool,
    /// Rows and columns of the terminal.
    pub(crate) console_size: Option<[u32; 2]>,
}

/// Starts a prepared exec in its container, which runs.
pub(crate) async fn start(
    shared: &Shared,
    container: &Container,
    id: &str,
    options: StartOptions,
) -> Result<ExecStarted> {
    let (_, started) = start_process(shared, container, id, options).await?;
    Ok(started)
}

/// As [`start`]; also gives the process id, which is the number of the session, too.
pub(crate) async fn start_process(
    shared: &Shared,
    container: &Container,
    id: &str,
    options: StartOptions,
) -> Result<(i32, ExecStarted)> {
    let exec = shared.execs.claim(id)?;
    let outcome = launch(shared, container, id, &exec.request, options).await;
    match outcome {
        Ok((pid, started)) => {
            advance(&exec, Phase::Running { pid });
            Ok((pid, started))
        }
        Err((error, exit_code)) => {
            shared.execs.ended(id, exit_code);
            Err(error)
        }
    }
}

async fn launch(
    shared: &Shared,
    container: &Container,
    id: &str,
    request: &ExecCreateRequest,
    options: StartOptions,
) -> Result<(i32, ExecStarted), (Error, i32)> {
    let plain = |error| (error, 126);
    let spec = exec_spec(shared, container, request, options).map_err(plain)?;
    let attach = AttachOptions {
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
    };
    let (stream, clients) = match options.detach {
        true => (None, Vec::new()),
        false => {
            let (ours, theirs) = stream_pair().map_err(plain)?;
            (Some(ours), vec![(theirs, attach)])
        }
    };
    let launch = Launch {
        id: id.to_owned(),
        kind: LaunchKind::Exec {
            container: container.id().to_owned(),
            spec,
        },
        stdin: if request.attach_stdin && !options.detach {
            StdinMode::Once
        } else {
            StdinMode::Null
        },
        log: None,
        attach: Vec::new(),
    };
    let line = request.cmd.join(" ");
    shared.events.container(
        &container.definition,
        &format!("exec_start: {line}"),
        &[("execID", id)],
    );
    let started = shared
        .keeper
        .launch(launch, clients)
        .await
        .map_err(|failure| (failure.error, failure.exit_code))?;
    let outcome = match stream {
        None => ExecStarted::Detached,
        Some(stream) => ExecStarted::Attached(Attached {
            tty: request.tty,
            stream,
        }),
    };
    Ok((started.pid, outcome))
}

fn exec_spec(
    shared: &Shared,
    container: &Container,
    request: &ExecCreateRequest,
    options: StartOptions,
) -> Result<ExecSpec> {
    let definition = &container.definition;
    let (config, host) = (&definition.config, &definition.host);
    let mut env = spec::environment(config, &hostname_of(container), request.tty);
    spec::override_env(&mut env, &request.env);
    let available = CapabilitySet::available();
    let directory = if request.working_dir.is_empty() {
        &config.working_dir
    } else {
        &request.working_dir
    };
    let size = options
        .console_size
        .or(request.console_size)
        .unwrap_or_default();
    Ok(ExecSpec {
        target_pid: 0,
        cgroup: Some(shared.cgroup_path(definition)?),
        process: Process {
            args: request.cmd.clone(),
            env,
            cwd: spec::working_directory(directory),
            user: if request.user.is_empty() {
                config.user.clone()
            } else {
                request.user.clone()
            },
            additional_groups: host.group_add.clone().unwrap_or_default(),
            umask: None,
            rlimits: spec::rlimits(&host.resources.ulimits, &shared.options.default_ulimits),
            capabilities: match request.privileged {
                true => Capabilities::bounded_by(available),
                false => spec::capabilities(host, available)?,
            },
            no_new_privileges: spec::no_new_privileges(host)?,
            // The container's, whoever asks: `--privileged` gives capabilities only, as with Docker.
            seccomp: spec::seccomp(host)?,
            oom_score_adj: Some(host.oom_score_adj),
            terminal: request.tty.then(|| spec::terminal_size(size)),
            preserve_fds: 0,
            keep_keyring: false,
        },
    })
}

/// The host name inside a container.
pub(crate) fn hostname_of(container: &Container) -> String {
    match container.definition.config.hostname.as_str() {
        "" => container.definition.short_id().to_owned(),
        name => name.to_owned(),
    }
}

/// An exec ended: enters it and tells whoever listens. `false` when the id is no exec's.
pub(crate) fn exited(shared: &Shared, id: &str, exit: &Exit) -> bool {
    let Some(container) = shared.execs.ended(id, exit.exit_code) else {
        return false;
    };
    if let Some(handle) = shared.registry.get(&container) {
        let code = exit.exit_code.to_string();
        shared.events.container(
            &handle.container().definition,
            "exec_die",
            &[("execID", id), ("exitCode", &code)],
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExecCreateRequest {
        ExecCreateRequest {
            cmd: vec!["sh".into(), "-c".into()],
            ..ExecCreateRequest::default()
        }
    }

    #[test]
    fn an_exec_starts_once() {
        let execs = Execs::default();
        let id = execs.prepare("c1", request()).unwrap();
        let exec = execs.claim(&id).unwrap();
        assert_eq!(
            execs.claim(&id).unwrap_err(),
            Error::conflict(format!("exec command {id} is already running"))
        );
        advance(&exec, Phase::Running { pid: 7 });
        let shown = execs.inspect(&id).unwrap();
        assert_eq!((shown.running, shown.pid, shown.exit_code), (true, 7, None));
        assert_eq!(shown.process_config.entrypoint, "sh");
        assert_eq!(execs.running_in("c1"), std::slice::from_ref(&id));
        execs.ended(&id, 3).unwrap();
        assert_eq!(execs.inspect(&id).unwrap().exit_code, Some(3));
        assert!(execs.claim(&id).is_err());
    }

    #[test]
    fn execs_that_nobody_starts_make_room_in_the_end() {
        let execs = Execs::default();
        let ids: Vec<String> = (0..PER_CONTAINER_MAX)
            .map(|_| execs.prepare("c1", request()).unwrap())
            .collect();
        let error = execs.prepare("c1", request()).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        let running = execs.claim(&ids[0]).unwrap();
        advance(&running, Phase::Running { pid: 7 });
        let inner = execs.inner.lock();
        let later = Instant::now() + FORGOTTEN_AFTER;
        assert_eq!(inner.forgotten_in("c1", Instant::now()), None);
        assert_eq!(inner.forgotten_in("c2", later), None);
        assert_eq!(inner.forgotten_in("c1", later).as_ref(), Some(&ids[1]));
    }

    #[test]
    fn an_exit_that_overtakes_the_start_is_not_lost() {
        let execs = Execs::default();
        let id = execs.prepare("c1", request()).unwrap();
        let exec = execs.claim(&id).unwrap();
        execs.ended(&id, 0).unwrap();
        advance(&exec, Phase::Running { pid: 7 });
        assert!(!execs.inspect(&id).unwrap().running);
    }

    #[test]
    fn ended_execs_are_remembered_for_a_while_and_go_with_their_container() {
        let execs = Execs::default();
        let ids: Vec<String> = (0..=REMEMBERED)
            .map(|_| {
                let id = execs.prepare("c1", request()).unwrap();
                execs.ended(&id, 0).unwrap();
                id
            })
            .collect();
        assert_eq!(
            execs.inspect(&ids[0]).unwrap_err(),
            Error::not_found(format!("No such exec instance: {}", ids[0]))
        );
        assert!(execs.inspect(&ids[REMEMBERED]).is_ok());
        execs.forget_container("c1");
        assert!(execs.inspect(&ids[REMEMBERED]).is_err());
    }
}
