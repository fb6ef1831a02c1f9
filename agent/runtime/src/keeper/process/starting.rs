//! Starting a process: its streams, the launch, and what is held of it from then on.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::EventFlags;
use rustix::pipe::PipeFlags;

use super::{Keeper, Source, nanoseconds, report};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::keeper::held::{Held, Streams};
use crate::keeper::log_file::{LogFile, LogStream};
use crate::keeper::protocol::{Launch, LaunchFailure, LaunchKind, Started, StdinMode};
use crate::launch::{self, LaunchError, Launched, Stdio};
use crate::spec::{ExecSpec, LaunchSpec, Namespace};

impl Keeper {
    pub(super) fn launch(
        &mut self,
        launch: Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<Started, LaunchFailure> {
        let Launch {
            id,
            kind,
            stdin,
            log,
            attach,
        } = launch;
        // A new run of what has ended: whoever asks for it knows of the end.
        self.forget(&id);
        if self.keys_by_id.contains_key(&id) {
            return Err(LaunchFailure::engine(format!("{id} is held already")));
        }
        if fds.len() != attach.len() {
            return Err(LaunchFailure::engine(
                "one descriptor per attached client is needed",
            ));
        }
        let log = match log {
            Some(options) => {
                let path: PathBuf = options.path.clone();
                Some(LogFile::open(options).map_err(|error| {
                    LaunchFailure::engine(format!("open the log {}: {error}", path.display()))
                })?)
            }
            None => None,
        };
        let (launched, streams, cgroup, shares_pids) = match kind {
            LaunchKind::Container(spec) => self.launch_container(&spec, stdin)?,
            LaunchKind::Exec { container, spec } => self.launch_exec(&container, spec, stdin)?,
        };
        let started = Started {
            pid: launched.pid,
            started_at: nanoseconds(jiff::Timestamp::now()),
            warnings: launched.warnings,
        };
        let key = self.fresh_key();
        let mut held = Held::new(id.clone(), started.clone(), launched.pidfd, streams, stdin);
        held.cgroup = cgroup;
        held.shares_pids = shares_pids;
        held.log = log;
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if let Some(fd) = held.output(stream) {
                self.watch(fd, Source::Output(key, stream), EventFlags::IN);
            }
        }
        if let Some(fd) = held.input() {
            self.watch(fd, Source::Input(key), EventFlags::empty());
        }
        self.held.insert(key, held);
        self.keys_by_id.insert(id, key);
        self.keys_by_pid.insert(started.pid, key);
        for (fd, options) in fds.into_iter().zip(attach) {
            if let Err(error) = self.attach(key, fd, options) {
                report(format_args!("attach a client: {error}"));
            }
        }
        Ok(started)
    }

    pub(super) fn launch_container(
        &mut self,
        spec: &LaunchSpec,
        stdin: StdinMode,
    ) -> Result<(Launched, Streams, Option<Cgroup>, bool), LaunchFailure> {
        let plan = launch::prepare(spec).map_err(failure)?;
        let cgroup = match &spec.cgroup {
            Some(cgroup) => Some(self.hierarchy()?.open(&cgroup.path)),
            None => None,
        };
        let shares_pids = spec.namespaces.pid != Namespace::New;
        let (launched, streams) = with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
            launch::spawn(&plan, stdio)
        })?;
        Ok((launched, streams, cgroup, shares_pids))
    }

    pub(super) fn launch_exec(
        &mut self,
        container: &str,
        mut spec: ExecSpec,
        stdin: StdinMode,
    ) -> Result<(Launched, Streams, Option<Cgroup>, bool), LaunchFailure> {
        let held = &self.held[&self.key_of(container)?];
        let Some(target) = &held.pidfd else {
            return Err(LaunchFailure::engine(format!(
                "container {container} is not running"
            )));
        };
        spec.target_pid = held.started.pid;
        let (launched, streams) = with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
            crate::exec::spawn(&spec, target.as_fd(), stdio)
        })?;
        Ok((launched, streams, None, false))
    }

    pub(super) fn hierarchy(&mut self) -> Result<&Hierarchy, LaunchFailure> {
        if self.hierarchy.is_none() {
            self.hierarchy = Some(
                Hierarchy::detect().map_err(|error| LaunchFailure::engine(error.to_string()))?,
            );
        }
        Ok(self.hierarchy.as_ref().expect("set just above"))
    }
}

fn failure(error: LaunchError) -> LaunchFailure {
    LaunchFailure {
        exit_code: error.exit_code(),
        message: error.to_string(),
    }
}

/// Makes the streams of a new process, starts it, and keeps our ends, all non-blocking.
fn with_streams(
    has_terminal: bool,
    stdin: StdinMode,
    start: impl FnOnce(Option<Stdio<'_>>) -> Result<Launched, LaunchError>,
) -> Result<(Launched, Streams), LaunchFailure> {
    let broken = |error: rustix::io::Errno| {
        LaunchFailure::engine(format!("make the standard streams: {error}"))
    };
    if has_terminal {
        let mut launched = start(None).map_err(failure)?;
        let master = launched
            .terminal
            .take()
            .ok_or_else(|| LaunchFailure::engine("the runtime gave no terminal"))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(broken)?;
        let duplicate = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(broken);
        let stdin = if stdin == StdinMode::Null {
            None
        } else {
            Some(duplicate(&master)?)
        };
        let streams = Streams {
            stdin,
            stdout: Some(duplicate(&master)?),
            stderr: None,
            terminal: Some(master),
        };
        return Ok((launched, streams));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(broken);
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    let (child_stdin, stdin) = if stdin == StdinMode::Null {
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        (null.map_err(broken)?, None)
    } else {
        let (read, write) = pipe()?;
        (read, Some(write))
    };
    for ours in [Some(&stdout), Some(&stderr), stdin.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(ours, true).map_err(broken)?;
    }
    let stdio = Stdio {
        stdin: child_stdin.as_fd(),
        stdout: child_stdout.as_fd(),
        stderr: child_stderr.as_fd(),
    };
    let launched = start(Some(stdio)).map_err(failure)?;
    Ok((
        launched,
        Streams {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        },
    ))
}
