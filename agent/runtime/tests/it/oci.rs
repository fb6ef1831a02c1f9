//! The command line of an OCI runtime, through an executable of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::box_::Container;
use crate::need_root;

/// The example executable, built beside the tests.
fn executable() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let path = deps
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/oci");
    assert!(
        path.exists(),
        "{} is missing: build the examples",
        path.display()
    );
    path
}

struct Bundle {
    root: TempDir,
    /// Lends its busybox root and removes its cgroup at the end.
    container: Container,
    config: Value,
    id: String,
}

impl Bundle {
    fn new(args: &[&str]) -> Bundle {
        let root = tempfile::tempdir().unwrap();
        let container = Container::new(&["true"]);
        let path = container
            .spec
            .cgroup
            .as_ref()
            .unwrap()
            .path
            .as_path()
            .to_owned();
        let id = path.parent().unwrap().to_string_lossy().into_owned();
        let made = Command::new(executable())
            .args(["spec", "-b"])
            .arg(root.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = fs::read(root.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["root"] = json!({ "path": container.lower() });
        config["linux"]["cgroupsPath"] = json!(Path::new("/").join(path));
        Bundle {
            root,
            container,
            config,
            id,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        fs::write(
            self.root.path().join("config.json"),
            self.config.to_string(),
        )
        .unwrap();
        let mut command = Command::new(executable());
        command
            .arg("--root")
            .arg(self.root.path().join("state"))
            .args(words)
            .current_dir(self.root.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn fine(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.fine(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// Creates with the output in a file: a pipe would stay open as long as the container.
    fn create(&self) -> PathBuf {
        let out = self.root.path().join("output");
        let file = fs::File::create(&out).unwrap();
        let mut command = self.command(&["create", "--pid-file", "pid", &self.id]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        assert!(
            command.status().unwrap().success(),
            "{}",
            fs::read_to_string(&out).unwrap()
        );
        out
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force", &self.id]);
    }
}

#[test]
fn a_container_goes_through_the_life_cycle() {
    need_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo started; while :; do sleep 1; done"]);
    let id = bundle.id.clone();
    let out = bundle.create();
    let pid: i32 = fs::read_to_string(bundle.root.path().join("pid"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(bundle.status(), "created");
    assert_eq!(fs::read_to_string(&out).unwrap(), "");
    let again = bundle.run(&["create", &id]);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("container with given ID already exists"),
        "{again:?}"
    );
    bundle.fine(&["start", &id]);
    assert_eq!(bundle.status(), "running");
    let exec = bundle.run(&["exec", &id, "sh", "-c", "echo $PPID; exit 3"]);
    assert_eq!(
        (exec.status.code(), exec.stdout.as_slice()),
        (Some(3), b"0\n".as_slice()),
        "{exec:?}"
    );
    let pids: Vec<i32> =
        serde_json::from_str(&bundle.fine(&["ps", "--format", "json", &id])).unwrap();
    assert!(pids.contains(&pid));
    bundle.fine(&["pause", &id]);
    assert_eq!(bundle.status(), "paused");
    bundle.fine(&["resume", &id]);
    let refused = bundle.run(&["delete", &id]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("that is not stopped: running"),
        "{refused:?}"
    );
    bundle.fine(&["kill", &id, "KILL"]);
    bundle.fine(&["delete", "--force", &id]);
    assert_eq!(bundle.run(&["state", &id]).status.code(), Some(1));
    assert!(!bundle.container.cgroup().exists());
    assert_eq!(fs::read_to_string(&out).unwrap(), "started\n");
}

#[test]
fn run_gives_the_exit_code_and_leaves_nothing() {
    need_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 42"]);
    let output = bundle.run(&["run", &bundle.id.clone()]);
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
    assert_eq!(bundle.fine(&["list", "-q"]), "");
    assert!(!bundle.container.cgroup().exists());
}

#[test]
fn a_missing_program_fails_the_creation() {
    need_root!();
    let bundle = Bundle::new(&["nothing"]);
    let output = bundle.run(&[
        "--log",
        "log",
        "--log-format",
        "json",
        "create",
        &bundle.id.clone(),
    ]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let log = fs::read_to_string(bundle.root.path().join("log")).unwrap();
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(
        line["msg"],
        "unable to start container process: exec: \"nothing\": executable file not found in $PATH"
    );
    assert_eq!(bundle.fine(&["list", "-q"]), "");
    assert!(!bundle.container.cgroup().exists());
}

#[test]
fn hooks_run_where_and_when_the_specification_says() {
    need_root!();
    let mut bundle = Bundle::new(&["sh", "-c", "echo program >> /trace"]);
    let trace = bundle.container.lower().join("trace");
    let host = bundle.root.path().join("hooks");
    // A hook in the container's namespaces sees the container's host name.
    let hook = |name: &str| {
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!(
            "read state; echo {name} $(cat /proc/sys/kernel/hostname) $(echo \"$state\" | grep -o '\"status\":\"[a-z]*\"') >> {}", host.display()
        )], "env": ["PATH=/usr/bin:/bin"] }])
    };
    bundle.config["hostname"] = json!("inside");
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    let outside = fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(
        bundle.run(&["run", &bundle.id.clone()]).status.code(),
        Some(0)
    );
    assert_eq!(fs::read_to_string(&trace).unwrap(), "program\n");
    assert_eq!(
        fs::read_to_string(&host).unwrap(),
        format!(
            "prestart {outside} \"status\":\"creating\"\ncreateRuntime {outside} \"status\":\"creating\"\n\
             createContainer inside \"status\":\"creating\"\npoststart {outside} \"status\":\"running\"\n\
             poststop {outside} \"status\":\"stopped\"\n"
        )
    );
    bundle.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    let failed = bundle.run(&["run", &bundle.id.clone()]);
    assert!(
        String::from_utf8_lossy(&failed.stderr)
            .contains("error running createRuntime hook #0 /bin/false"),
        "{failed:?}"
    );
    assert!(!bundle.container.cgroup().exists());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    need_root!();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    let id = bundle.id.clone();
    let output = bundle.run(&["create", &id]);
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("a user namespace (or joining one) is not supported"),
        "{output:?}"
    );
    let output = bundle.run(&["--systemd-cgroup", "create", &id]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--systemd-cgroup is not supported"),
        "{output:?}"
    );
    let output = bundle.run(&["state", "../evil"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("invalid container id"),
        "{output:?}"
    );
}

#[test]
fn limits_can_be_changed_and_read() {
    need_root!();
    let bundle = Bundle::new(&["sleep", "100"]);
    let id = bundle.id.clone();
    bundle.create();
    bundle.fine(&["start", &id]);
    bundle.fine(&["update", "--pids-limit", "44", &id]);
    let stats: Value = serde_json::from_str(&bundle.fine(&["events", "--stats", &id])).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 44);
    let features: Value = serde_json::from_str(&bundle.fine(&["features"])).unwrap();
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
}
