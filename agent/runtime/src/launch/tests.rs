//! Plans are decided without root: golden texts, refusals, and the rules of the child's source.

use super::*;
use crate::spec::{
    Capabilities, DefaultMounts, LaunchSpec, Mount, MountKind, MountOptions, Namespace, Namespaces,
    Process, Rootfs, SeccompPolicy, default_mounts,
};

fn spec() -> LaunchSpec {
    LaunchSpec {
        rootfs: Rootfs::Overlay {
            lower: vec!["/l/2".into(), "/l/1".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
        },
        readonly_rootfs: true,
        rootfs_propagation: None,
        namespaces: Namespaces {
            ipc: Namespace::Host,
            net: Namespace::Join("/run/netns/x".into()),
            ..Namespaces::default()
        },
        hostname: Some("web".into()),
        domainname: None,
        mounts: vec![
            default_mounts(DefaultMounts::default()).remove(0),
            Mount {
                target: "/data/../logs//x".into(),
                kind: MountKind::Bind {
                    source: "/srv".into(),
                    recursive: true,
                },
                options: MountOptions {
                    readonly: true,
                    ..MountOptions::default()
                },
            },
        ],
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        devices: Vec::new(),
        sysctls: Default::default(),
        process: Process {
            args: vec!["server".into()],
            env: Vec::new(),
            cwd: "/srv".into(),
            user: String::new(),
            additional_groups: Vec::new(),
            umask: None,
            rlimits: Vec::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            seccomp: SeccompPolicy::Default,
            oom_score_adj: Some(100),
            terminal: None,
            preserve_fds: 0,
            keep_keyring: false,
        },
        cgroup: None,
        init: false,
    }
}

#[test]
fn a_plan_reads_as_what_will_be_done() {
    let expected = "\
open 0: overlay of 2 layers with upper /c/upper
open 1: namespace /run/netns/x
open 2: rbind /srv
  0 join net namespace /run/netns/x
  1 start a session keyring
  2 make all mounts rprivate
  3 mount the root on /c/upper
  4 mount proc on /proc source=proc nosuid nodev noexec
  5 bind /srv on /logs/x
  6 make /proc/sys read-only
  7 mask /proc/kcore
  8 remount / ro
  9 set host name web
 10 pivot into the root
 11 set oom_score_adj to 100
 12 start a session
 13 arrange file descriptors
 14 change directory to /srv
 15 limit the capability bounding set
 16 set user and groups
 17 load the seccomp filter
 18 set capabilities
 19 reset signals, set umask 0022
 20 execute
";
    assert_eq!(prepare(&spec()).unwrap().to_string(), expected);
}

#[test]
fn with_no_new_privileges_the_filter_comes_last() {
    let mut spec = spec();
    spec.process.no_new_privileges = true;
    let plan = prepare(&spec).unwrap().to_string();
    let places = [
        "set capabilities",
        "forbid new privileges",
        "reset signals",
        "load the seccomp filter",
        "execute",
    ]
    .map(|step| plan.find(step).unwrap());
    assert!(places.is_sorted(), "{plan}");
}

#[test]
fn a_session_keyring_is_made_unless_the_callers_is_kept() {
    let mut spec = spec();
    let starts_one = |spec: &LaunchSpec| {
        let plan = prepare(spec).unwrap().to_string();
        plan.contains("start a session keyring")
    };
    assert!(starts_one(&spec));
    spec.process.keep_keyring = true;
    assert!(!starts_one(&spec));
}

#[test]
fn a_plan_survives_serialisation() {
    let plan = prepare(&spec()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    let back: LaunchPlan = serde_json::from_str(&text).unwrap();
    assert_eq!(back.to_string(), plan.to_string());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |edit: &dyn Fn(&mut LaunchSpec)| {
        let mut spec = spec();
        edit(&mut spec);
        prepare(&spec).unwrap_err().to_string()
    };
    assert_eq!(refused(&|s| s.process.args.clear()), "no command specified");
    assert_eq!(
        refused(&|s| s.process.cwd = "srv".into()),
        "working directory \"srv\" is not absolute"
    );
    assert_eq!(
        refused(&|s| s.namespaces.uts = Namespace::Host),
        "cannot set host name \"web\" in the host's UTS namespace"
    );
    assert_eq!(
        refused(&|s| s.hostname = Some("a".repeat(65))),
        format!(
            "host name {:?} is longer than 64 characters",
            "a".repeat(65)
        )
    );
    assert_eq!(
        refused(&|s| s.process.terminal = Some(Default::default())),
        "a terminal needs a devpts mount on /dev/pts"
    );
    assert_eq!(
        refused(&|s| s.process.oom_score_adj = Some(1001)),
        "oom_score_adj 1001 is not between -1000 and 1000"
    );
    assert_eq!(
        refused(&|s| s.mounts[1].target = "x".into()),
        "path \"x\" in the container is not absolute"
    );
    assert_eq!(
        refused(&|s| s.hostname = Some("a\0b".into())),
        "host name \"a\\0b\" contains a zero byte"
    );
    assert!(
        refused(&|s| s.rootfs = Rootfs::Overlay {
            lower: vec![],
            upper: "/u".into(),
            work: "/w".into()
        })
        .contains("at least one layer")
    );
}

/// The child shares its parent's memory: nothing there may allocate, lock, unwind or use thread-local storage.
/// The part of a source that is not its tests.
fn rules_only(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn the_childs_source_keeps_its_rules() {
    for (name, source) in [
        ("child.rs", include_str!("child.rs")),
        ("missing.rs", rules_only(include_str!("missing.rs"))),
        ("remount.rs", include_str!("remount.rs")),
        ("raw.rs", include_str!("../sys/raw.rs")),
    ] {
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for forbidden in [
                "std::",
                "format!",
                "vec!",
                "Box",
                "String",
                "to_owned",
                "unwrap()",
                "expect(",
                "panic!",
                "println",
                "libc::syscall",
                ".push(",
            ] {
                let type_only = forbidden == "std::" && code.contains("serde::");
                assert!(
                    !code.contains(forbidden) || type_only,
                    "{name}:{}: {forbidden} in {line}",
                    number + 1
                );
            }
        }
    }
}
