//! The keeper as a process of its own: streams, logs, exits, and what a killed daemon finds again.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use agent_runtime::keeper::{
    AttachOptions, Client, ClientError, Event, Exit, Launch, LaunchKind, LogOptions, StdinMode,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::box_::Container;
use crate::need_root;

const ALL: AttachOptions = AttachOptions {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// The example that hands over to the keeper; built together with the tests.
fn executable() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/runtime");
    assert!(path.exists(), "{} is not built", path.display());
    path
}

async fn connect(run_dir: &Path) -> (Client, UnboundedReceiver<Event>) {
    Client::connect_or_start(run_dir, &executable())
        .await
        .unwrap()
}

fn launch(id: &str, container: &Container, stdin: StdinMode) -> Launch {
    let log = LogOptions {
        path: container.dir.path().join("log"),
        max_size: None,
        max_file: 1,
    };
    let kind = LaunchKind::Container(container.spec.clone());
    Launch {
        id: id.to_owned(),
        kind,
        stdin,
        log: Some(log),
        attach: Vec::new(),
    }
}

async fn exit_of(events: &mut UnboundedReceiver<Event>, wanted: &str) -> Exit {
    let limit = std::time::Duration::from_secs(20);
    let Event::Exited { id, exit } = tokio::time::timeout(limit, events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(id, wanted);
    exit
}

fn logged(container: &Container) -> String {
    let text = std::fs::read_to_string(container.dir.path().join("log")).unwrap();
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records
        .map(|record| record["log"].as_str().unwrap().to_owned())
        .collect()
}

fn read_all(mut stream: UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[tokio::test]
async fn output_is_logged_and_framed_and_input_ends_with_the_client() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let container = Container::sh("cat; echo done >&2; exit 4");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client
        .launch(
            launch("c", &container, StdinMode::Once),
            vec![(theirs.into(), ALL)],
        )
        .await
        .unwrap();
    ours.write_all(b"hello\n").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let frames = tokio::task::spawn_blocking(move || read_all(ours))
        .await
        .unwrap();
    assert_eq!(
        frames,
        b"\x01\0\0\0\0\0\0\x06hello\n\x02\0\0\0\0\0\0\x05done\n"
    );
    let exit = exit_of(&mut events, "c").await;
    assert_eq!((exit.exit_code, exit.oom_killed), (4, false));
    assert_eq!(logged(&container), "hello\ndone\n");
    client.forget("c").await.unwrap();
    assert!(client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_terminal_is_raw_and_can_be_resized() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let mut container = Container::sh("read line; stty size; echo got $line");
    container.spec.process.terminal = Some(Default::default());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client
        .launch(
            launch("t", &container, StdinMode::Open),
            vec![(theirs.into(), ALL)],
        )
        .await
        .unwrap();
    client.resize("t", 33, 101).await.unwrap();
    ours.write_all(b"x\n").unwrap();
    assert_eq!(exit_of(&mut events, "t").await.exit_code, 0);
    let text = tokio::task::spawn_blocking(move || read_all(ours))
        .await
        .unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "x\r\n33 101\r\ngot x\r\n");
}

#[tokio::test]
async fn everything_is_there_after_the_daemon_was_gone() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, events) = connect(run.path()).await;
    let stays = Container::sh("read x");
    let ends =
        Container::sh("read x; i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo $i; done; exit 6");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let started = client
        .launch(launch("stays", &stays, StdinMode::Open), Vec::new())
        .await
        .unwrap();
    let stdin = AttachOptions {
        stdin: true,
        stdout: false,
        stderr: false,
    };
    client
        .launch(
            launch("ends", &ends, StdinMode::Open),
            vec![(theirs.into(), stdin)],
        )
        .await
        .unwrap();
    let pid = client.pid();
    drop((client, events));
    ours.write_all(b"go\n").unwrap();
    // The client's socket is closed when all output is read.
    tokio::task::spawn_blocking(move || read_all(ours))
        .await
        .unwrap();

    let (client, mut events) = connect(run.path()).await;
    assert_eq!(client.pid(), pid, "the same keeper");
    let mut held = client.list().await.unwrap();
    held.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(held[0].exit.unwrap().exit_code, 6);
    assert_eq!(
        (held[1].id.as_str(), &held[1].started, held[1].exit),
        ("stays", &started, None)
    );
    let expected: String = (1..=500).map(|number| format!("{number}\n")).collect();
    assert_eq!(logged(&ends), expected);
    client.signal("stays", 9).await.unwrap();
    assert_eq!(exit_of(&mut events, "stays").await.exit_code, 137);
}

#[tokio::test]
async fn exec_joins_and_ends_with_its_own_code() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let container = Container::sh("read x");
    client
        .launch(launch("c", &container, StdinMode::Open), Vec::new())
        .await
        .unwrap();
    let spec = agent_runtime::spec::ExecSpec {
        target_pid: 0,
        cgroup: container
            .spec
            .cgroup
            .as_ref()
            .map(|cgroup| cgroup.path.clone()),
        process: crate::box_::process(&["sh", "-c", "hostname; exit 3"]),
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let exec = Launch {
        id: "e".to_owned(),
        kind: LaunchKind::Exec {
            container: "c".to_owned(),
            spec,
        },
        stdin: StdinMode::Null,
        log: None,
        attach: Vec::new(),
    };
    client
        .launch(exec, vec![(theirs.into(), ALL)])
        .await
        .unwrap();
    let frames = tokio::task::spawn_blocking(move || read_all(ours))
        .await
        .unwrap();
    assert_eq!(&frames[8..], b"box\n");
    assert_eq!(exit_of(&mut events, "e").await.exit_code, 3);
    client.signal("c", 9).await.unwrap();
    exit_of(&mut events, "c").await;
}

#[tokio::test]
async fn failures_carry_dockers_exit_codes() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, _events) = connect(run.path()).await;
    for (program, code) in [("no-such-program", 127), ("/etc", 126)] {
        let container = Container::new(&[program]);
        let error = client
            .launch(launch("f", &container, StdinMode::Null), Vec::new())
            .await
            .unwrap_err();
        let ClientError::Refused(failure) = error else {
            panic!("{error}")
        };
        assert_eq!(failure.exit_code, code, "{failure}");
    }
    assert!(client.list().await.unwrap().is_empty());
}

/// Processor time a process has used, in clock ticks (10 ms).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<u64> = fields.split(' ').filter_map(|f| f.parse().ok()).collect();
    fields[10] + fields[11]
}

#[tokio::test]
async fn a_process_that_closes_its_streams_costs_nothing() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let quiet = "exec </dev/null >/dev/null 2>&1; sleep 1";
    for terminal in [false, true] {
        let mut container = Container::sh(quiet);
        container.spec.process.terminal = terminal.then(Default::default);
        let before = ticks(client.pid());
        client
            .launch(launch("c", &container, StdinMode::Open), Vec::new())
            .await
            .unwrap();
        assert_eq!(exit_of(&mut events, "c").await.exit_code, 0);
        let used = ticks(client.pid()) - before;
        assert!(
            used < 30,
            "{used} ticks in one second, terminal: {terminal}"
        );
    }
}

#[tokio::test]
async fn death_by_a_real_time_signal_is_reported() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let mut container = Container::new(&["sleep", "1000"]);
    container.spec.namespaces.pid = agent_runtime::spec::Namespace::Host;
    client
        .launch(launch("c", &container, StdinMode::Null), Vec::new())
        .await
        .unwrap();
    client.signal("c", 40).await.unwrap();
    assert_eq!(exit_of(&mut events, "c").await.exit_code, 128 + 40);
}

#[tokio::test]
async fn a_new_run_replaces_the_record_of_the_last_one() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    for code in [3, 4] {
        let container = Container::sh(&format!("exit {code}"));
        client
            .launch(launch("c", &container, StdinMode::Null), Vec::new())
            .await
            .unwrap();
        assert_eq!(exit_of(&mut events, "c").await.exit_code, code);
        let held = client.list().await.unwrap();
        let codes: Vec<i32> = held
            .iter()
            .map(|process| process.exit.unwrap().exit_code)
            .collect();
        assert_eq!(codes, [code]);
    }
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_its_process_alone() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    let (noisy, other) = (Container::sh("yes"), Container::sh("echo fine"));
    let (_never_read, theirs) = UnixStream::pair().unwrap();
    client
        .launch(
            launch("noisy", &noisy, StdinMode::Null),
            vec![(theirs.into(), ALL)],
        )
        .await
        .unwrap();
    client
        .launch(launch("other", &other, StdinMode::Null), Vec::new())
        .await
        .unwrap();
    assert_eq!(exit_of(&mut events, "other").await.exit_code, 0);
    client.signal("noisy", 9).await.unwrap();
    assert_eq!(exit_of(&mut events, "noisy").await.exit_code, 137);
    let status = std::fs::read_to_string(format!("/proc/{}/status", client.pid())).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 40 << 10, "{kib} KiB");
}

#[tokio::test]
async fn a_throttled_container_holds_up_nobody_else() {
    need_root!();
    let run = tempfile::tempdir().unwrap();
    let (client, mut events) = connect(run.path()).await;
    // One hundredth of a processor, and many who want it: whoever joins waits long for a turn.
    let busy = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); while :; do :; done & done; echo up; wait";
    let mut container = Container::sh(busy);
    let cgroup = container.spec.cgroup.as_mut().unwrap();
    let path = cgroup.path.clone();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client
        .launch(
            launch("busy", &container, StdinMode::Null),
            vec![(theirs.into(), ALL)],
        )
        .await
        .unwrap();
    tokio::task::spawn_blocking(move || ours.read_exact(&mut [0; 11]).unwrap())
        .await
        .unwrap();
    let throttle = agent_runtime::cgroup::Resources {
        cpu_period_us: Some(100_000),
        cpu_quota_us: Some(1_000),
        ..Default::default()
    };
    let hierarchy = agent_runtime::cgroup::Hierarchy::detect().unwrap();
    hierarchy.open(&path).apply(&throttle).unwrap();
    let exec = Launch {
        id: "slow".to_owned(),
        kind: LaunchKind::Exec {
            container: "busy".to_owned(),
            spec: agent_runtime::spec::ExecSpec {
                target_pid: 0,
                cgroup: Some(path),
                process: crate::box_::process(&["true"]),
            },
        },
        stdin: StdinMode::Null,
        log: None,
        attach: Vec::new(),
    };
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.launch(exec, Vec::new()).await }
    });
    // The shell, its loops, and then the exec on its way.
    let cgroup = hierarchy.open(&container.spec.cgroup.as_ref().unwrap().path);
    while cgroup.processes().unwrap().len() < 32 {
        tokio::task::yield_now().await;
    }
    let other = Container::sh("exit 3");
    let begun = std::time::Instant::now();
    client
        .launch(launch("other", &other, StdinMode::Null), Vec::new())
        .await
        .unwrap();
    assert_eq!(exit_of(&mut events, "other").await.exit_code, 3);
    let took = begun.elapsed();
    assert!(!slow.is_finished(), "the exec was not slow at all");
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    let free = agent_runtime::cgroup::Resources {
        cpu_quota_us: Some(-1),
        ..Default::default()
    };
    cgroup.apply(&free).unwrap();
    slow.await.unwrap().unwrap();
    client.signal("busy", 9).await.unwrap();
    // The exec's end and the container's, in any order.
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let Some(Event::Exited { id, .. }) = events.recv().await else {
            panic!("the keeper is gone")
        };
        ended.push(id);
    }
    ended.sort();
    assert_eq!(ended, ["busy", "slow"]);
}
