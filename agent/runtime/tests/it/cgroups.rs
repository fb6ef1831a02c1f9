//! Limits in the kernel's own files, freezing, killing, counting.

use std::fs;
use std::path::PathBuf;

use agent_runtime::cgroup::{CgroupError, CgroupPath, DeviceRule, Hierarchy, Resources, Version};
use agent_runtime::spec::{Device, DeviceKind, Namespace};

use crate::box_::{Container, wait};
use crate::need_root;

/// A file of the container's cgroup, wherever its controller lives.
fn file(container: &Container, v1: (&str, &str), v2: &str) -> String {
    let path = container
        .spec
        .cgroup
        .as_ref()
        .unwrap()
        .path
        .as_path()
        .to_owned();
    let root = PathBuf::from("/sys/fs/cgroup");
    let path = match Hierarchy::detect().unwrap().version() {
        Version::V2 => root.join(path).join(v2),
        Version::V1 | Version::Hybrid => root.join(v1.0).join(path).join(v1.1),
    };
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn need_controllers() -> bool {
    let hierarchy = Hierarchy::detect().unwrap();
    let all = ["cpu", "memory", "pids", "cpuset"]
        .iter()
        .all(|name| hierarchy.controllers().contains(name));
    if !all {
        eprintln!(
            "SKIPPED: this host offers only the controllers {:?}",
            hierarchy.controllers()
        );
    }
    all
}

#[test]
fn limits_arrive_in_the_kernels_files() {
    need_root!();
    if !need_controllers() {
        return;
    }
    let mut container = Container::new(&["sleep", "100"]);
    *container.resources() = Resources {
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(64 << 20),
        pids: Some(33),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpuset_cpus: Some("0".into()),
        ..container.resources().clone()
    };
    let (launched, _output) = container.start().unwrap();
    assert_eq!(
        file(
            &container,
            ("memory", "memory.limit_in_bytes"),
            "memory.max"
        ),
        "67108864"
    );
    assert_eq!(file(&container, ("pids", "pids.max"), "pids.max"), "33");
    assert!(file(&container, ("cpu", "cpu.cfs_quota_us"), "cpu.max").starts_with("50000"));
    assert_eq!(
        file(&container, ("cpuset", "cpuset.cpus"), "cpuset.cpus"),
        "0"
    );

    // Raised and lowered while it runs, each in the order the kernel needs.
    for bytes in [128i64 << 20, 32 << 20] {
        let more = Resources {
            memory_bytes: Some(bytes),
            memory_swap_bytes: Some(bytes),
            ..Resources::default()
        };
        container.cgroup().update(&more).unwrap();
        assert_eq!(
            file(
                &container,
                ("memory", "memory.limit_in_bytes"),
                "memory.max"
            ),
            bytes.to_string()
        );
    }
    let stats = container.cgroup().stats().unwrap();
    assert_eq!(stats.pids.as_ref().unwrap().current, 1);
    assert_eq!(stats.memory.as_ref().unwrap().limit_bytes, Some(32 << 20));
    assert!(stats.cpu.unwrap().usage_ns > 0);
    container.cgroup().kill().unwrap();
    assert_eq!(wait(&launched), 137);
}

#[test]
fn too_much_memory_is_an_out_of_memory_kill() {
    need_root!();
    if !need_controllers() {
        return;
    }
    let mut container = Container::sh("tail -c 100m /dev/zero > /dev/null");
    container.resources().memory_bytes = Some(16 << 20);
    container.resources().memory_swap_bytes = Some(16 << 20);
    let ended = container.run();
    assert_eq!(ended.code, 137, "{ended:?}");
    assert!(container.cgroup().oom_kills().unwrap() >= 1);
    let fine = Container::new(&["true"]);
    assert_eq!(fine.run().code, 0);
    assert_eq!(fine.cgroup().oom_kills().unwrap(), 0);
}

#[test]
fn the_pids_limit_stops_forks() {
    need_root!();
    if !need_controllers() {
        return;
    }
    let mut container = Container::sh("for i in 1 2 3 4 5 6; do sleep 9 & done; echo all");
    container.resources().pids = Some(4);
    let ended = container.run();
    assert!(ended.output.contains("can't fork"), "{ended:?}");
}

#[test]
fn devices_work_only_if_allowed() {
    need_root!();
    let mut container = Container::sh(
        "cat /dev/fuse 2>&1; head -c 3 /dev/zero2 | wc -c; mknod /tmp/x c 10 229 && echo made; cat /tmp/x 2>&1; true",
    );
    let node = |path: &str, major, minor| Device {
        path: path.into(),
        kind: DeviceKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    container.spec.devices = vec![node("/dev/fuse", 10, 229), node("/dev/zero2", 1, 5)];
    let denied = container.output();
    assert_eq!(
        denied,
        "cat: can't open '/dev/fuse': Operation not permitted\n3\nmade\ncat: can't open '/tmp/x': Operation not permitted"
    );
    container
        .resources()
        .devices
        .push(DeviceRule::parse("c 10:229 rw").unwrap());
    let allowed = container.output();
    assert!(
        !allowed.contains("can't open '/dev/fuse': Operation not permitted"),
        "{allowed}"
    );
}

#[test]
fn a_frozen_container_stands_still_and_can_still_be_killed() {
    need_root!();
    let container = Container::sh("while :; do :; done");
    let (launched, _output) = container.start().unwrap();
    let cgroup = container.cgroup();
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let used = || {
        fs::read_to_string(format!("/proc/{}/stat", launched.pid))
            .unwrap()
            .split(' ')
            .nth(13)
            .unwrap()
            .to_owned()
    };
    let before = used();
    for _ in 0..2000 {
        std::thread::yield_now();
    }
    assert_eq!(used(), before);
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(wait(&launched), 137);
}

#[test]
fn a_busy_cgroup_says_so_and_an_absent_one_is_fine() {
    need_root!();
    let container = Container::sh("sleep 100 & sleep 100");
    let (launched, _output) = container.start().unwrap();
    assert!(matches!(
        container.cgroup().remove(),
        Err(CgroupError::Busy { .. })
    ));
    container.cgroup().kill().unwrap();
    wait(&launched);
    container.cgroup().remove().unwrap();
    container.cgroup().remove().unwrap();
    assert!(!container.cgroup().exists());
}

#[test]
fn limits_of_missing_controllers_are_refused_by_name() {
    need_root!();
    let hierarchy = Hierarchy::detect().unwrap();
    let path = CgroupPath::try_from(PathBuf::from(format!(
        "muster-test-none-{}",
        std::process::id()
    )))
    .unwrap();
    let cgroup = hierarchy.create(&path).unwrap();
    let unified = Resources {
        unified: [("memory.high".to_owned(), "1G".to_owned())].into(),
        ..Resources::default()
    };
    let huge = Resources {
        hugepages: [("3MB".to_owned(), 1)].into(),
        ..Resources::default()
    };
    let results = (cgroup.apply(&unified), cgroup.apply(&huge));
    cgroup.remove().unwrap();
    if hierarchy.version() != Version::V2 {
        assert!(
            results
                .0
                .unwrap_err()
                .to_string()
                .contains("this host has cgroup v1")
        );
    }
    assert!(results.1.is_err());
}

#[test]
fn the_containers_view_shows_its_own_cgroup() {
    need_root!();
    let mut container = Container::sh(
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; ls /sys/fs/cgroup | wc -l",
    );
    if !need_controllers() {
        return;
    }
    container.resources().pids = Some(55);
    if Hierarchy::detect().unwrap().version() == Version::V2 {
        // In the host's namespace the view is the host's, as Docker has it.
        container.spec.namespaces.cgroup = Namespace::New;
    }
    let output = container.output();
    assert!(output.starts_with("55\n"), "{output}");
}
