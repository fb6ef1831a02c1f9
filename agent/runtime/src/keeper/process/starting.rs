//! Starting a process: its streams, the launch, and what is held of it from then on.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::EventFlags;
use rustix::pipe::PipeFlags;

use super::launches::{Launching, StartedProcess, Work};
use super::{Keeper, Source, nanoseconds, report};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::keeper::held::{Held, Streams};
use crate::keeper::log_file::{LogFile, LogStream};
use crate::keeper::protocol::{Launch, LaunchFailure, LaunchKind, Reply, Started, StdinMode};
use crate::launch::{self, LaunchError, Launched, Stdio};
use crate::spec::{ExecSpec, LaunchSpec, Namespace};

impl Keeper {
    /// Begins a launch; the answer to call `number` is sent when it has succeeded or failed.
    pub(super) fn begin_launch(
        &mut self,
        number: u64,
        launch: Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<(), LaunchFailure> {
        let Launch {
            id,
            kind,
            stdin,
            log,
            attach,
        } = launch;
        // A new run of what has ended: whoever asks for it knows of the end.
        self.forget(&id);
        if self.keys_by_id.contains_key(&id) || self.launches.has(&id) {
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
        let (work, cgroup, shares_pids) = match kind {
            LaunchKind::Container(spec) => self.container_work(spec, stdin)?,
            LaunchKind::Exec { container, spec } => self.exec_work(&container, spec, stdin)?,
        };
        let key = self.fresh_key();
        let launching = Launching {
            generation: self.generation,
            number,
            id,
            stdin,
            log,
            cgroup,
            shares_pids,
            clients: fds.into_iter().zip(attach).collect(),
        };
        self.launches.begin(key, launching, work)
    }

    /// Takes over what the launching threads have started.
    pub(super) fn finish_launches(&mut self) {
        for (key, launching, outcome) in self.launches.finished() {
            let (generation, number) = (launching.generation, launching.number);
            let result = outcome.map(|process| self.hold(key, launching, process));
            if generation == self.generation {
                self.reply(number, result.map(Reply::Started));
            }
            // After the answer: nobody hears of an end before the start.
            if let Some(held) = self.held.get(&key)
                && let Some(code) = self.launches.early_end(held)
            {
                self.keys_by_pid.remove(&held.started.pid);
                self.process_ended(key, code);
            }
        }
        if self.launches.is_empty() {
            self.launches.forget_early();
            for (generation, number) in std::mem::take(&mut self.launches.lists) {
                if generation == self.generation {
                    self.reply(number, Ok(self.list()));
                }
            }
        }
    }

    fn hold(&mut self, key: u32, launching: Launching, process: StartedProcess) -> Started {
        let StartedProcess {
            launched,
            streams,
            started_at,
        } = process;
        let started = Started {
            pid: launched.pid,
            started_at,
            warnings: launched.warnings,
        };
        let Launching {
            id,
            stdin,
            log,
            cgroup,
            shares_pids,
            clients,
            ..
        } = launching;
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
        for (fd, options) in clients {
            if let Err(error) = self.attach(key, fd, options) {
                report(format_args!("attach a client: {error}"));
            }
        }
        started
    }

    fn container_work(
        &mut self,
        spec: LaunchSpec,
        stdin: StdinMode,
    ) -> Result<(Work, Option<Cgroup>, bool), LaunchFailure> {
        let cgroup = match &spec.cgroup {
            Some(cgroup) => Some(self.hierarchy()?.open(&cgroup.path)),
            None => None,
        };
        // The launch takes over what is left of the last run.
        self.doomed_cgroups
            .retain(|doomed| Some(&doomed.cgroup) != cgroup.as_ref());
        let shares_pids = spec.namespaces.pid != Namespace::New;
        let work: Work = Box::new(move || {
            let plan = launch::prepare(&spec).map_err(failure)?;
            with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
                launch::spawn(&plan, stdio)
            })
        });
        Ok((work, cgroup, shares_pids))
    }

    fn exec_work(
        &mut self,
        container: &str,
        mut spec: ExecSpec,
        stdin: StdinMode,
    ) -> Result<(Work, Option<Cgroup>, bool), LaunchFailure> {
        let held = &self.held[&self.key_of(container)?];
        let Some(target) = &held.pidfd else {
            return Err(LaunchFailure::engine(format!(
                "container {container} is not running"
            )));
        };
        let target = target
            .try_clone()
            .map_err(|error| LaunchFailure::engine(format!("duplicate a pidfd: {error}")))?;
        spec.target_pid = held.started.pid;
        let work: Work = Box::new(move || {
            with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
                crate::exec::spawn(&spec, target.as_fd(), stdio)
            })
        });
        Ok((work, None, false))
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
) -> Result<StartedProcess, LaunchFailure> {
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
        return Ok(StartedProcess {
            launched,
            streams,
            started_at: nanoseconds(jiff::Timestamp::now()),
        });
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
    Ok(StartedProcess {
        launched,
        streams: Streams {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        },
        started_at: nanoseconds(jiff::Timestamp::now()),
    })
}
