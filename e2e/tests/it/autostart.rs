//! Commands at the default address start the daemon they need.

use std::process::Command;

use e2e::{Host, Output, muster_executable};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

/// A host with a `/run` and a `/var/lib` of its own, so that its default address is nobody else's.
struct Machine {
    host: Host,
}

impl Machine {
    fn new() -> Option<Self> {
        let executable = muster_executable();
        if ["/run", "/var/lib"]
            .iter()
            .any(|dir| executable.starts_with(dir))
        {
            eprintln!("skipped: {} would be hidden", executable.display());
            return None;
        }
        let host = Host::bare();
        host.on_host(|| {
            for dir in ["/run", "/var/lib"] {
                mount(
                    Some("tmpfs"),
                    dir,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    None::<&str>,
                )
                .expect("mount a tmpfs");
            }
        });
        Some(Self { host })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(muster_executable());
        command
            .args(arguments)
            .env_remove("DOCKER_HOST")
            .env_remove("MUSTER_HOST")
            .env_remove("NOTIFY_SOCKET")
            .env("HOME", self.host.path(""))
            .current_dir(self.host.path(""));
        command
    }

    #[track_caller]
    fn muster(&self, arguments: &[&str]) -> Output {
        self.host.run(self.command(arguments))
    }

    /// Process id of the daemon that serves the default address.
    fn daemon(&self) -> Option<i32> {
        let text = self
            .host
            .on_host(|| std::fs::read_to_string("/run/muster/muster.pid"));
        text.ok()?.trim().parse().ok()
    }

    /// Stops the daemon and waits until it is gone.
    fn stop(&self) {
        let Some(pid) = self.daemon() else {
            return;
        };
        let gone = rustix::process::Pid::from_raw(pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if let Some(gone) = gone {
            let mut waiting = [rustix::event::PollFd::new(
                &gone,
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec {
                tv_sec: 20,
                tv_nsec: 0,
            };
            let _ = rustix::event::poll(&mut waiting, Some(&limit));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn the_first_command_starts_a_daemon_and_the_next_finds_it() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let first = machine.muster(&["ps", "-q"]);
    assert!(
        first
            .stderr
            .contains("no daemon is running, started one (pid "),
        "{first}"
    );
    assert!(first.stderr.contains("/run/muster/daemon.log"), "{first}");
    assert_eq!(first.ok(), "");
    let daemon = machine.daemon();
    assert!(daemon.is_some());
    let second = machine.muster(&["version", "-f", "{{.Server.Version}}"]);
    assert_eq!(second.stderr, "");
    assert_eq!(second.ok(), env!("CARGO_PKG_VERSION"));
    assert_eq!(machine.daemon(), daemon);
}

#[test]
fn commands_that_come_at_once_start_one_daemon() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = machine.command(&["ps", "-q"]);
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            machine.host.spawn(command)
        })
        .collect();
    let mut started = 0;
    for child in children {
        let output = child.wait_with_output().expect("wait for a command");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        started += said.matches("started one").count();
    }
    assert_eq!(started, 1);
}

#[test]
fn a_daemon_that_cannot_start_is_an_error_with_its_reason() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.host.on_host(|| {
        mount(
            None::<&str>,
            "/var/lib",
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            None::<&str>,
        )
        .expect("make it read-only");
    });
    let refused = machine.muster(&["ps"]).fails(1, "the daemon did not start");
    assert!(refused.stderr.contains("/var/lib/muster"), "{refused}");
    assert!(
        refused.stderr.contains("Read-only file system"),
        "{refused}"
    );
}

#[test]
fn at_an_address_that_was_given_nothing_is_started() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine
        .muster(&["--host", "unix:///run/other.sock", "ps"])
        .fails(
            1,
            "cannot connect to the muster daemon at unix:///run/other.sock",
        );
    for name in ["MUSTER_HOST", "DOCKER_HOST"] {
        let mut command = machine.command(&["ps"]);
        command.env(name, "unix:///run/other.sock");
        machine.host.run(command).fails(1, "unix:///run/other.sock");
    }
    assert_eq!(machine.daemon(), None);
}
