//! Logs that are tailed, cut by time, rotated and emptied while somebody follows.

use std::fs;
use std::io::Write as _;

use jiff::Timestamp;

use super::*;
use crate::engine::container::{DEFINITION_FORMAT, Definition, State, new_id};

fn container(alive: bool) -> Arc<Container> {
    let definition = Definition {
        format: DEFINITION_FORMAT,
        id: new_id(),
        name: "web".into(),
        created: Timestamp::UNIX_EPOCH,
        image: String::new(),
        command: Vec::new(),
        config: agent_api::ContainerConfig::default(),
        host: agent_api::HostConfig::default(),
        mounts: Vec::new(),
        endpoints: indexmap::IndexMap::new(),
    };
    let status = if alive {
        agent_api::ContainerStatus::Running
    } else {
        agent_api::ContainerStatus::Exited
    };
    Arc::new(Container::new(
        definition,
        State {
            status,
            ..State::default()
        },
    ))
}

fn write(path: &Path, numbers: std::ops::Range<i64>) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = std::io::BufWriter::new(file.unwrap());
    for number in numbers {
        let stream = if number % 2 == 0 { "stdout" } else { "stderr" };
        let time = Timestamp::from_second(number).unwrap();
        writeln!(
            file,
            r#"{{"log":"line {number}\n","stream":"{stream}","time":"{time}"}}"#
        )
        .unwrap();
    }
}

fn all() -> LogOptions {
    LogOptions {
        stdout: true,
        stderr: true,
        ..LogOptions::default()
    }
}

async fn lines(path: &Path, options: LogOptions) -> Vec<String> {
    let (_sender, receiver) = watch::channel(container(false));
    let logs = read(path.to_owned(), receiver, options).unwrap();
    logs.lines
        .map(|line| String::from_utf8(line.unwrap().1.to_vec()).unwrap())
        .collect()
        .await
}

fn numbered(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| format!("line {number}\n")).collect()
}

#[tokio::test]
async fn rotated_files_are_read_oldest_first_and_tail_reaches_into_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    write(&directory.path().join("x-json.log.2"), 0..3);
    write(&directory.path().join("x-json.log.1"), 3..6);
    write(&path, 6..9);
    assert_eq!(lines(&path, all()).await, numbered(0..9));
    for (tail, first) in [
        (0, 9),
        (1, 8),
        (3, 6),
        (4, 5),
        (6, 3),
        (7, 2),
        (9, 0),
        (99, 0),
    ] {
        let options = LogOptions {
            tail: Some(tail),
            ..all()
        };
        assert_eq!(
            lines(&path, options).await,
            numbered(first..9),
            "tail {tail}"
        );
    }
}

#[tokio::test]
async fn streams_and_times_are_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    write(&path, 0..10);
    let options = LogOptions {
        stderr: false,
        ..all()
    };
    assert_eq!(lines(&path, options).await.len(), 5);
    let options = LogOptions {
        since: Some(Timestamp::from_second(3).unwrap()),
        until: Some(Timestamp::from_second(6).unwrap()),
        ..all()
    };
    assert_eq!(lines(&path, options).await, numbered(3..7));
    let options = LogOptions {
        timestamps: true,
        tail: Some(1),
        ..all()
    };
    assert_eq!(
        lines(&path, options).await,
        ["1970-01-01T00:00:09.000000000Z line 9\n"]
    );
}

#[tokio::test]
async fn no_log_yet_is_empty_and_half_a_record_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    assert_eq!(lines(&path, all()).await, Vec::<String>::new());
    write(&path, 0..1);
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"garbage\n{\"log\":\"half").unwrap();
    assert_eq!(lines(&path, all()).await, numbered(0..1));
}

#[tokio::test]
async fn following_survives_rotation_and_truncation_and_ends_with_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    write(&path, 0..2);
    let running = container(true);
    let (sender, receiver) = watch::channel(Arc::clone(&running));
    let mut logs = read(
        path.clone(),
        receiver,
        LogOptions {
            follow: true,
            ..all()
        },
    )
    .unwrap()
    .lines;
    let mut take = async |count: usize| {
        let mut taken = Vec::new();
        for _ in 0..count {
            let (_, line) = logs.next().await.unwrap().unwrap();
            taken.push(String::from_utf8(line.to_vec()).unwrap());
        }
        taken
    };
    assert_eq!(take(2).await, numbered(0..2));
    write(&path, 2..3);
    assert_eq!(take(1).await, numbered(2..3));
    // Written, rotated twice, and written again before the follower looks.
    write(&path, 3..4);
    fs::rename(&path, directory.path().join("x-json.log.1")).unwrap();
    write(&path, 4..6);
    fs::rename(
        directory.path().join("x-json.log.1"),
        directory.path().join("x-json.log.2"),
    )
    .unwrap();
    fs::rename(&path, directory.path().join("x-json.log.1")).unwrap();
    write(&path, 6..8);
    assert_eq!(take(5).await, numbered(3..8));
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    write(&path, 8..9);
    assert_eq!(take(1).await, numbered(8..9));
    write(&path, 9..10);
    let mut ended = Container::clone(&running);
    ended.state.status = agent_api::ContainerStatus::Exited;
    ended.state.exits = 1;
    sender.send_replace(Arc::new(ended));
    assert_eq!(take(1).await, numbered(9..10));
    assert!(logs.next().await.is_none());
}

#[tokio::test]
async fn following_ends_when_the_container_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    write(&path, 0..1);
    let (sender, receiver) = watch::channel(container(true));
    let logs = read(
        path,
        receiver,
        LogOptions {
            follow: true,
            ..all()
        },
    )
    .unwrap();
    drop(sender);
    assert_eq!(logs.lines.count().await, 1);
}

#[test]
fn options_are_dockers() {
    let log = |kind: &str, pairs: &[(&str, &str)]| {
        limits(&LogConfig {
            kind: kind.into(),
            config: pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        })
    };
    assert_eq!(
        log("json-file", &[]).unwrap(),
        Limits {
            max_size: None,
            max_file: 1
        }
    );
    assert_eq!(
        log("json-file", &[("max-size", "10m"), ("max-file", "3")]).unwrap(),
        Limits {
            max_size: Some(10_000_000),
            max_file: 3
        }
    );
    assert_eq!(log("local", &[]).unwrap().max_file, 5);
    for bad in [
        ("max-size", "x"),
        ("max-size", "0"),
        ("max-file", "0"),
        ("nonsense", "1"),
    ] {
        assert!(
            matches!(log("json-file", &[bad]), Err(Error::InvalidParameter(_))),
            "{bad:?}"
        );
    }
    assert!(matches!(
        log("json-file", &[("tag", "x")]),
        Err(Error::NotImplemented(_))
    ));
}

/// The daemon's other work goes on while gigabytes are read that nobody wants.
#[tokio::test]
async fn reading_a_long_log_holds_nobody_up_and_ends_when_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    write(&path, 0..200_000);
    let (_keep, container) = watch::channel(container(false));
    let options = LogOptions {
        since: Some(Timestamp::from_second(1_000_000).unwrap()),
        ..all()
    };
    let mut logs = read(path.clone(), container.clone(), options.clone()).unwrap();
    // What else the thread has to do gets its turn after each piece.
    let mut turns = 0;
    let none = loop {
        tokio::select! {
            biased;
            line = logs.lines.next() => break line,
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    assert!(none.is_none());
    assert!(turns > 20, "{turns}");

    let mut logs = read(path, container, all()).unwrap();
    assert!(logs.lines.next().await.is_some());
    let tasks = tokio::runtime::Handle::current().metrics();
    assert_eq!(tasks.num_alive_tasks(), 1);
    drop(logs);
    while tasks.num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

/// By the time an older file is sent, its successors may have other names.
#[tokio::test]
async fn a_slow_reader_misses_nothing_that_is_rotated_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let name = |number: u32| directory.path().join(format!("x-json.log.{number}"));
    write(&name(2), 0..20_000);
    write(&name(1), 20_000..40_000);
    write(&path, 40_000..60_000);
    let (_keep, container) = watch::channel(container(false));
    let tail = LogOptions {
        tail: Some(50_000),
        ..all()
    };
    for (options, first) in [(all(), 0), (tail, 10_000)] {
        let mut lines = read(path.clone(), container.clone(), options)
            .unwrap()
            .lines;
        let mut read = vec![lines.next().await.unwrap().unwrap().1];
        for (from, to) in [
            (name(2), name(3)),
            (name(1), name(2)),
            (path.clone(), name(1)),
        ] {
            fs::rename(from, to).unwrap();
        }
        read.extend(lines.map(|line| line.unwrap().1).collect::<Vec<_>>().await);
        assert!(read == numbered(first..60_000), "{} lines", read.len());
        for (from, to) in [
            (name(1), path.clone()),
            (name(2), name(1)),
            (name(3), name(2)),
        ] {
            fs::rename(from, to).unwrap();
        }
    }
}
