//! Sessions on a real terminal, with our own command line and with Docker's where that is installed.

use std::path::PathBuf;
use std::process::Command;

use e2e::{Host, muster_executable};
use rexpect::process::WaitStatus;
use rexpect::session::PtySession;
use rustix::termios::Winsize;

/// Milliseconds until something that was expected counts as missing.
const PATIENCE: u64 = 20_000;

/// A command line and the host whose daemon it speaks to.
struct Client {
    program: PathBuf,
    host: Host,
}

/// Runs a scenario with every command line there is.
fn with_each_client(scenario: impl Fn(&Client)) {
    let docker = Command::new("docker").arg("--version").output().is_ok();
    if !docker {
        eprintln!("skipped for docker: there is no docker command in PATH");
    }
    let programs = [Some(muster_executable()), docker.then(|| "docker".into())];
    for program in programs.into_iter().flatten() {
        let client = Client {
            program,
            host: Host::start(),
        };
        scenario(&client);
        client.host.finish();
    }
}

impl Client {
    /// Runs the command on a terminal of 33 rows and 101 columns.
    fn on_terminal(&self, arguments: &[&str]) -> PtySession {
        let mut command = Command::new("sh");
        command
            .args(["-c", "stty rows 33 cols 101 && exec \"$0\" \"$@\""])
            .arg(&self.program)
            .args(arguments)
            .env("DOCKER_HOST", self.host.socket())
            .env("MUSTER_HOST", self.host.socket())
            .env("HOME", self.host.path(""));
        rexpect::session::spawn_command(command, Some(PATIENCE)).expect("start on a terminal")
    }
}

trait Session {
    fn see(&mut self, text: &str) -> &mut Self;
    fn type_in(&mut self, text: &str) -> &mut Self;
    fn ends_with(&mut self, code: i32);
}

impl Session for PtySession {
    #[track_caller]
    fn see(&mut self, text: &str) -> &mut Self {
        if let Err(error) = self.exp_string(text) {
            panic!("{text:?} is not shown: {error}");
        }
        self
    }

    #[track_caller]
    fn type_in(&mut self, text: &str) -> &mut Self {
        self.send(text).expect("write to the terminal");
        self.flush().expect("write to the terminal");
        self
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        if let Err(error) = self.exp_eof() {
            panic!("it does not end: {error}");
        }
        match self.process().wait().expect("reap the command") {
            WaitStatus::Exited(_, given) => assert_eq!(given, code, "exit code"),
            other => panic!("ended with {other:?}"),
        }
    }
}

#[test]
fn a_container_has_the_size_of_the_callers_terminal() {
    with_each_client(|client| {
        let script = "trap 'stty size; exit 7' WINCH; tty; stty size; while :; do sleep 0.05; done";
        let line = ["run", "--rm", "-it", "busybox", "sh", "-c", script];
        let mut session = client.on_terminal(&line);
        session.see("/dev/pts/0\r\n").see("33 101\r\n");
        let terminal = session.process().get_file_handle().expect("the terminal");
        let size = Winsize {
            ws_row: 40,
            ws_col: 90,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(terminal, size).expect("resize the terminal");
        session.see("40 90\r\n").ends_with(7);
    });
}

#[test]
fn detach_keys_leave_a_container_running_and_attach_comes_back() {
    with_each_client(|client| {
        let mut session = client.on_terminal(&["run", "-it", "--name", "tt", "busybox", "sh"]);
        session
            .see("# ")
            .type_in("A=kept; echo on''e\n")
            .see("one\r\n/ # ");
        session.type_in("\x10\x11").ends_with(0);
        let state = [
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "tt",
        ];
        assert_eq!(client.host.muster(&state).ok(), "running 0");

        let mut session = client.on_terminal(&["attach", "tt"]);
        session.type_in("echo $A\n").see("kept\r\n");
        session.type_in("exit 6\n").ends_with(6);
        assert_eq!(client.host.muster(&state).ok(), "exited 6");

        let mut session = client.on_terminal(&["start", "-ai", "tt"]);
        session.type_in("exit 4\n").ends_with(4);
    });
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    with_each_client(|client| {
        client
            .host
            .muster(&[
                "run", "-d", "-t", "--name", "tt", "busybox", "sleep", "1000",
            ])
            .ok();
        let mut session = client.on_terminal(&["exec", "-it", "-e", "TERM=dumb", "tt", "sh"]);
        session.see("# ").type_in("stty size; tty; echo $TERM\n");
        session
            .see("33 101\r\n")
            .see("/dev/pts/1\r\n")
            .see("dumb\r\n");
        session.type_in("exit 9\n").ends_with(9);

        let mut session =
            client.on_terminal(&["exec", "-it", "--detach-keys", "ctrl-a,b", "tt", "sh"]);
        session.see("# ").type_in("\x01b");
        session.see("read escape sequence").ends_with(1);
    });
}

#[test]
fn ctrl_c_is_a_character_on_a_terminal_and_a_signal_without() {
    with_each_client(|client| {
        let script = "trap 'echo INT; exit 5' INT; echo ready; while :; do sleep 0.05; done";
        for flag in ["--tty=true", "--tty=false"] {
            let interactive = format!("--interactive={}", flag.ends_with("true"));
            let line = [
                "run",
                "--rm",
                flag,
                &interactive,
                "busybox",
                "sh",
                "-c",
                script,
            ];
            let mut session = client.on_terminal(&line);
            session.see("ready").type_in("\x03");
            session.see("INT").ends_with(5);
        }
    });
}
