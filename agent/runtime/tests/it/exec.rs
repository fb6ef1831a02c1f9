//! Further processes in a running container.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;

use agent_runtime::exec;
use agent_runtime::launch::{LaunchError, Launched, Stdio};
use agent_runtime::spec::{ExecSpec, TerminalSize};

use crate::box_::{Container, process, wait};
use crate::need_root;

struct Running {
    container: Container,
    launched: Launched,
}

impl Running {
    fn new() -> Running {
        let container = Container::new(&["sleep", "100"]);
        let (launched, _) = container.start().unwrap();
        Running {
            container,
            launched,
        }
    }

    fn spec(&self, script: &str) -> ExecSpec {
        ExecSpec {
            target_pid: self.launched.pid,
            cgroup: Some(self.container.spec.cgroup.as_ref().unwrap().path.clone()),
            process: process(&["sh", "-c", script]),
        }
    }

    fn run(&self, spec: &ExecSpec) -> Result<(i32, String), LaunchError> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let stdio = Stdio {
            stdin: null.as_fd(),
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
        };
        let started = exec::spawn(spec, self.launched.pidfd.as_fd(), Some(stdio))?;
        drop(writer);
        let mut output = String::new();
        fs::File::from(reader).read_to_string(&mut output).unwrap();
        Ok((wait(&started), output.trim_end().to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.container.cgroup().kill();
        wait(&self.launched);
    }
}

#[test]
fn an_exec_shares_everything_with_the_container() {
    need_root!();
    let running = Running::new();
    let (code, output) = running
        .run(&running.spec(
            "for n in pid net ipc uts mnt; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n differs; done; \
             cat /proc/1/comm; grep Cap /proc/self/status | head -2 | tail -1 | tr -d '\\t'; grep Seccomp: /proc/self/status | tr -d '\\t'; \
             ls /proc/$$/fd; exit 9",
        ))
        .unwrap();
    assert_eq!(
        (code, output.as_str()),
        (9, "sleep\nCapPrm:00000000a80425fb\nSeccomp:2\n0\n1\n2")
    );
}

#[test]
fn an_exec_is_accounted_to_the_containers_cgroup() {
    need_root!();
    let running = Running::new();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let started = exec::spawn(
        &running.spec("sleep 100"),
        running.launched.pidfd.as_fd(),
        Some(stdio),
    )
    .unwrap();
    let processes = running.container.cgroup().processes().unwrap();
    assert!(
        processes.contains(&started.pid) && processes.contains(&running.launched.pid),
        "{processes:?}"
    );
    let places = fs::read_to_string(format!("/proc/{}/cgroup", started.pid)).unwrap();
    let path = running
        .container
        .spec
        .cgroup
        .as_ref()
        .unwrap()
        .path
        .as_path()
        .to_string_lossy()
        .into_owned();
    for line in places
        .lines()
        .filter(|line| !line.contains("net_") && !line.contains("perf_event"))
    {
        assert!(line.ends_with(&path), "{line}");
    }
    running.container.cgroup().kill().unwrap();
    assert_eq!(wait(&started), 137);
}

#[test]
fn an_exec_has_a_user_a_directory_and_a_terminal_of_its_own() {
    need_root!();
    let running = Running::new();
    let mut spec = running.spec("id -u; pwd; tty; stty size");
    spec.process.user = "app".into();
    spec.process.cwd = "/etc".into();
    spec.process.terminal = Some(TerminalSize {
        rows: 10,
        columns: 20,
    });
    let started = exec::spawn(&spec, running.launched.pidfd.as_fd(), None).unwrap();
    let mut master = fs::File::from(started.terminal.as_ref().unwrap().try_clone().unwrap());
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 256];
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(wait(&started), 0);
    assert_eq!(
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n"),
        "1000\n/etc\n/dev/pts/0\n10 20\n"
    );
}

#[test]
fn failures_of_an_exec_are_told_apart() {
    need_root!();
    let running = Running::new();
    let mut spec = running.spec("");
    spec.process.cwd = "/tmp/missing".into();
    let error = running.run(&spec).unwrap_err();
    assert_eq!(error.exit_code(), 127);
    assert_eq!(
        error.to_string(),
        "change directory to /tmp/missing: no such file or directory"
    );
    spec.process.cwd = "/".into();
    let untouched = running.spec("test ! -e /tmp/missing");
    assert_eq!(running.run(&untouched).unwrap().0, 0);
    spec.process.args = vec!["nothing".into()];
    let error = running.run(&spec).unwrap_err();
    assert_eq!(
        (error.exit_code(), error.to_string()),
        (
            127,
            "exec: \"nothing\": executable file not found in $PATH".into()
        )
    );
    spec.process.args = vec!["/proc/self/fd/3/../../bin/true".into()];
    assert_eq!(running.run(&spec).unwrap_err().exit_code(), 127);
    running.container.cgroup().kill().unwrap();
    wait_end(&running.launched);
    let error = running.run(&running.spec("true")).unwrap_err().to_string();
    assert!(
        error.contains("has ended") || error.contains("no such"),
        "{error}"
    );
}

#[test]
fn the_session_of_an_exec_is_killed_and_nobody_else() {
    need_root!();
    let running = Running::new();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: writer.as_fd(),
        stderr: null.as_fd(),
    };
    // The last one outlives its parent, which ends at once.
    let script = "sleep 100 & (sleep 100 | sleep 100) & sh -c 'sleep 100 & sleep 100' & echo made";
    let spec = running.spec(script);
    let started = exec::spawn(&spec, running.launched.pidfd.as_fd(), Some(stdio)).unwrap();
    drop(writer);
    let mut output = fs::File::from(reader);
    let mut made = [0; 5];
    output.read_exact(&mut made).unwrap();
    wait_end(&started);
    running
        .container
        .cgroup()
        .kill_session(started.pid)
        .unwrap();
    // The end of the output comes when nobody holds it open any more.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    wait(&started);
    let left = running.container.cgroup().processes().unwrap();
    assert!(left.contains(&running.launched.pid), "{left:?}");
}

/// Until the process has ended, without reaping it.
fn wait_end(launched: &Launched) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    waitid(
        WaitId::PidFd(launched.pidfd.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .unwrap();
}
