//! A host: a thread in network and mount namespaces of its own, from which everything of a scenario is started.
//!
//! ```text
//!   test thread ──work──► host thread (unshare: net, mnt) ──spawn──► muster daemon, muster …, ip, nft
//! ```
//! Children inherit the thread's namespaces; the socket and the roots are ordinary files below a temporary directory,
//! so that clients may also connect from outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::Leftovers;
use crate::{Output, busybox};

/// The executable under test: `MUSTER`, else the one beside the test's own executable.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn muster_executable() -> PathBuf {
    if let Some(path) = std::env::var_os("MUSTER") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a process knows its executable");
    let found = own
        .ancestors()
        .map(|dir| dir.join("muster"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no muster executable above {}: run `cargo build -p cli`",
            own.display()
        )
    })
}

type Work = Box<dyn FnOnce() + Send>;

/// A host with at most one daemon.
#[derive(Debug)]
pub struct Host {
    worker: Option<Sender<Work>>,
    directory: tempfile::TempDir,
    name: String,
    daemon: Option<Daemon>,
    before: Mutex<Option<Leftovers>>,
    finished: bool,
}

/// A daemon's process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Host {
    /// Makes the namespaces; no daemon yet.
    ///
    /// # Panics
    /// When that is not possible (no root).
    #[must_use]
    pub fn bare() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests need root"
        );
        let (worker, work) = channel::<Work>();
        let (ready, is_ready) = channel();
        std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || {
                ready
                    .send(enter_namespaces())
                    .expect("the test waits for it");
                for item in work {
                    item();
                }
            })
            .expect("start a thread");
        is_ready
            .recv()
            .expect("the thread reports")
            .expect("make namespaces");
        let directory = tempfile::Builder::new()
            .prefix("me2e-")
            .tempdir()
            .expect("make a temporary directory");
        // Process ids come again; what a killed run left must not be taken for ours.
        let name = directory
            .path()
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let host = Self {
            worker: Some(worker),
            directory,
            name,
            daemon: None,
            before: Mutex::default(),
            finished: false,
        };
        host.tool("ip", &["link", "set", "lo", "up"]).ok();
        host.note_before();
        host
    }

    /// From now on what is there counts as having been there before.
    pub fn note_before(&self) {
        let name = self.name.clone();
        let now = self.on_host(move || Leftovers::here(&name));
        *self.before.lock().expect("nobody panics with it") = Some(now);
    }

    /// A host with a running daemon and the image `busybox`.
    #[must_use]
    pub fn start() -> Self {
        let mut host = Self::bare();
        host.start_daemon(&[]);
        host.muster(&["import", path(&busybox()), "busybox"]).ok();
        host
    }

    /// Starts the daemon with further flags and waits until it serves.
    pub fn start_daemon(&mut self, flags: &[&str]) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("daemon.log"))
            .expect("make the log");
        let mut command = Command::new(muster_executable());
        command
            .args([
                "daemon",
                "--data-root",
                path(&self.path("data")),
                "--exec-root",
                path(&self.path("run")),
            ])
            .args([
                "--host",
                &self.socket(),
                "--pidfile",
                path(&self.path("pid")),
            ])
            .args(["--cgroup-parent", &format!("/{}", self.name)])
            .args(flags)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        let (notify, address) = notify_socket(&self.path("notify"));
        command.env("NOTIFY_SOCKET", address);
        let mut child = self
            .on_host(move || command.spawn())
            .expect("start the daemon");
        wait_ready(&notify, &mut child, &self.path("daemon.log"));
        self.daemon = Some(Daemon { child });
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.child.kill().expect("kill the daemon");
        daemon.child.wait().expect("reap the daemon");
    }

    /// Stops the daemon with SIGTERM and gives its exit code.
    pub fn stop_daemon(&mut self) -> i32 {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        kill(Pid::from_raw(daemon.pid()), Signal::SIGTERM).expect("signal the daemon");
        code(daemon.child.wait().expect("reap the daemon"))
    }

    /// Whether a daemon runs.
    #[must_use]
    pub const fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// The daemon that runs.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon runs")
    }

    /// Starts a command line of muster whose two outputs are one, so that what it says can be read while it goes on, and whose
    /// input stays open.
    #[track_caller]
    #[must_use]
    pub fn begin(&self, arguments: &str) -> Child {
        let line = format!("exec {} {arguments} 2>&1", muster_executable().display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &line])
            .env("MUSTER_HOST", self.socket())
            .env("HOME", self.path(""))
            .current_dir(self.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        self.spawn(command)
    }

    /// A path in the host's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Name that is unique to this host on this machine; also its cgroup.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Address of the daemon's socket for `-H` and `DOCKER_HOST`.
    #[must_use]
    pub fn socket(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// Writes a file below the host's directory, with its parents.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        fs::create_dir_all(file.parent().expect("it is below the directory"))
            .expect("make directories");
        fs::write(&file, text).expect("write a file");
        file
    }

    /// Runs `muster ARGUMENTS` to its end.
    #[track_caller]
    pub fn muster(&self, arguments: &[&str]) -> Output {
        self.run(self.muster_command(arguments))
    }

    /// Runs `muster ARGUMENTS` in a directory below the host's own.
    #[track_caller]
    pub fn muster_in(&self, directory: &str, arguments: &[&str]) -> Output {
        let mut command = self.muster_command(arguments);
        command.current_dir(self.path(directory));
        self.run(command)
    }

    /// The command `muster ARGUMENTS` for this host's daemon.
    #[must_use]
    pub fn muster_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(muster_executable());
        command
            .args(arguments)
            .env("MUSTER_HOST", self.socket())
            .env_remove("DOCKER_HOST");
        command
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a tool of the system on this host.
    #[track_caller]
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments);
        self.run(command)
    }

    /// Runs a command on this host to its end, at most two minutes.
    #[track_caller]
    pub fn run(&self, mut command: Command) -> Output {
        let line = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn(command);
        finish(line, child, Duration::from_secs(120))
    }

    /// Starts a command on this host.
    #[track_caller]
    pub fn spawn(&self, mut command: Command) -> Child {
        let line = format!("{command:?}");
        self.on_host(move || command.spawn())
            .unwrap_or_else(|error| panic!("start {line}: {error}"))
    }

    /// Runs a function on the host's thread, inside its namespaces.
    pub fn on_host<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let worker = self
            .worker
            .as_ref()
            .expect("the thread lives as long as the host");
        worker
            .send(Box::new(move || {
                let _ = sender.send(work());
            }))
            .expect("the host's thread runs");
        receiver
            .recv()
            .expect("work on the host's thread ended with a panic")
    }

    /// A client of the daemon.
    #[must_use]
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("sock")).expect("connect to the daemon")
    }

    /// Removes every container, network and volume, stops the daemon and asserts that nothing of it is left.
    pub fn finish(mut self) {
        if self.daemon.is_none() {
            self.start_daemon(&[]);
        }
        self.clear();
        let keeper = self.keeper();
        assert_eq!(self.stop_daemon(), 0, "{}", self.daemon_log());
        if let Some(keeper) = keeper {
            wait_gone(keeper);
        }
        self.assert_nothing_left();
    }

    /// The end of a host that never had a daemon.
    pub fn finish_bare(mut self) {
        self.finished = true;
    }

    fn assert_nothing_left(&mut self) {
        let name = self.name.clone();
        let now = self.on_host(move || Leftovers::here(&name));
        let before = self.before.lock().expect("nobody panics with it").take();
        self.finished = true;
        now.assert_same_as(&before.expect("taken once"));
    }

    fn clear(&self) {
        let ids = self.muster(&["ps", "--all", "--quiet"]).ok();
        if !ids.is_empty() {
            let mut arguments = vec!["rm", "--force", "--volumes"];
            arguments.extend(ids.lines());
            self.muster(&arguments).ok();
        }
        self.muster(&["network", "prune", "--force"]).ok();
        self.muster(&["volume", "prune", "--all", "--force"]).ok();
    }

    /// Process id of the keeper, if one runs.
    #[must_use]
    pub fn keeper(&self) -> Option<i32> {
        let run = self.path("run");
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let ours = words.get(1) == Some(&&b"keeper"[..])
                && words
                    .iter()
                    .any(|word| *word == run.as_os_str().as_encoded_bytes());
            ours.then_some(pid)
        })
    }

    /// What the daemon has logged.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

impl Daemon {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids are positive")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
        if !self.finished {
            if std::thread::panicking() {
                eprintln!("---- daemon.log of {}\n{}", self.name, self.daemon_log());
                let keeper_log =
                    fs::read_to_string(self.path("run/keeper.log")).unwrap_or_default();
                eprintln!("---- keeper.log\n{keeper_log}");
            }
            // Containers end with their keeper's cgroups; mounts end with the namespace.
            crate::leftovers::kill_all(&self.name, self.keeper());
        }
    }
}

fn enter_namespaces() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    // As on any host that runs containers; a daemon that has to turn forwarding on itself leaves a guard behind.
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{family}"), "1")?;
    }
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    Ok(())
}

fn notify_socket(file: &Path) -> (std::os::unix::net::UnixDatagram, PathBuf) {
    let _ = fs::remove_file(file);
    (
        std::os::unix::net::UnixDatagram::bind(file).expect("bind the notification socket"),
        file.to_owned(),
    )
}

fn wait_ready(notify: &std::os::unix::net::UnixDatagram, child: &mut Child, log: &Path) {
    let started = Instant::now();
    let mut message = [0; 512];
    notify
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set a timeout");
    loop {
        match notify.recv(&mut message) {
            Ok(length) if message[..length].windows(7).any(|word| word == b"READY=1") => return,
            _ => {}
        }
        let ended = child.try_wait().expect("ask for the daemon's state");
        let said = || fs::read_to_string(log).unwrap_or_default();
        assert!(
            ended.is_none(),
            "the daemon ended with {ended:?}:\n{}",
            said()
        );
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "the daemon is not ready after 30 s:\n{}",
            said()
        );
    }
}

/// Waits for a process that is not our child.
fn wait_gone(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a keeper's pid is positive");
    let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut waiting = [rustix::event::PollFd::new(
        &handle,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let ended = rustix::event::poll(&mut waiting, Some(&limit)).expect("wait for the keeper");
    assert_eq!(
        ended, 1,
        "the keeper still runs 10 s after the daemon has stopped with no container left"
    );
}

/// Collects a child's output; kills it when the time is over.
fn finish(command: String, mut child: Child, limit: Duration) -> Output {
    let reader = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = reader(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = reader(child.stderr.take().map(|stream| Box::new(stream) as _));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pids are positive"));
    let (done, is_done) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let timed_out =
            is_done.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if timed_out {
            let _ = kill(pid, Signal::SIGKILL);
        }
        timed_out
    });
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    let status = child.wait().expect("reap a command");
    drop(done);
    let timed_out = watchdog.join().expect("the watchdog does not panic");
    let output = Output {
        command,
        code: code(status),
        stdout,
        stderr,
    };
    assert!(!timed_out, "not finished after {limit:?}: {output}");
    output
}

fn code(status: std::process::ExitStatus) -> i32 {
    status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Reads lines of a child's stdout until one contains a text; what came before is returned as well.
///
/// # Panics
/// When the output ends first.
pub fn read_until(child: &mut Child, text: &str) -> String {
    let stdout = child.stdout.as_mut().expect("stdout is piped");
    let mut all = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("read a line");
        all.push_str(&line);
        all.push('\n');
        if line.contains(text) {
            return all;
        }
    }
    panic!("{text:?} did not come before the end of:\n{all}");
}
