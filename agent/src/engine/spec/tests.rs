//! Golden launch specifications, and the pieces that have rules of their own.

use super::*;
use crate::engine::EngineOptions;
use crate::engine::container::DEFINITION_FORMAT;
use crate::engine::defaults;

fn definition(host: HostConfig, config: ContainerConfig) -> Definition {
    let mut host = host;
    host.masked_paths
        .get_or_insert_with(|| vec!["/proc/kcore".into()]);
    defaults::fill_host(
        &mut host,
        &EngineOptions::new("/data", "/run", "/muster"),
        true,
    );
    let mut count = 0;
    let mounts = mounts::plan(
        &config,
        &host,
        |_| unreachable!(),
        || {
            count += 1;
            format!("anonymous{count}")
        },
    )
    .unwrap();
    Definition {
        format: DEFINITION_FORMAT,
        id: "0123456789ab".repeat(5) + "cdef",
        name: "web".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        image: "sha256:00".into(),
        command: vec!["sleep".into(), "1".into()],
        config,
        host,
        mounts,
        endpoints: indexmap::IndexMap::new(),
    }
}

fn resolved() -> Resolved {
    Resolved {
        layers: vec!["/layers/top".into(), "/layers/base".into()],
        directory: "/data/containers/c".into(),
        net: Namespace::Join("/run/netns/c".into()),
        pid: Namespace::New,
        ipc: Namespace::New,
        shm: None,
        hostname: "0123456789ab".into(),
        files: "/data/containers/c".into(),
        devices: Vec::new(),
        device_rules: Vec::new(),
        throttles: Vec::new(),
        cgroup: CgroupPath::try_from(PathBuf::from("muster/c")).unwrap(),
        available: CapabilitySet::ALL,
        default_ulimits: Vec::new(),
        init: false,
    }
}

fn spec(host: HostConfig, config: ContainerConfig) -> LaunchSpec {
    launch_spec(&definition(host, config), resolved()).unwrap()
}

fn targets(spec: &LaunchSpec) -> Vec<String> {
    spec.mounts
        .iter()
        .map(|mount| mount.target.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn an_ordinary_container() {
    let spec = spec(
        HostConfig {
            binds: Some(vec!["/srv:/srv:ro".into(), "data:/data".into()]),
            ..HostConfig::default()
        },
        ContainerConfig {
            env: Some(vec!["A=b".into()]),
            ..ContainerConfig::default()
        },
    );
    insta::assert_snapshot!("ordinary", serde_json::to_string_pretty(&spec).unwrap());
}

#[test]
fn privileged_keeps_its_namespaces_and_loses_the_rest() {
    let spec = spec(
        HostConfig {
            privileged: true,
            ..HostConfig::default()
        },
        ContainerConfig::default(),
    );
    assert_eq!(spec.namespaces.pid, Namespace::New);
    assert!(matches!(spec.process.seccomp, SeccompPolicy::Unconfined));
    assert_eq!(spec.process.capabilities.bounding, CapabilitySet::ALL);
    let rules = spec.cgroup.unwrap().resources.devices;
    assert!(rules.len() == 1 && rules[0].allow && rules[0].kind.is_none());
    assert!(spec.readonly_paths.is_empty());
}

#[test]
fn a_user_mount_replaces_the_engines() {
    let host = HostConfig {
        binds: Some(vec!["/my/hosts:/etc/hosts".into()]),
        tmpfs: Some([("/dev/shm".to_owned(), "size=1m,exec".to_owned())].into()),
        ..HostConfig::default()
    };
    let spec = spec(host, ContainerConfig::default());
    let all = targets(&spec);
    for target in ["/etc/hosts", "/dev/shm"] {
        assert_eq!(
            all.iter().filter(|other| *other == target).count(),
            1,
            "{target}"
        );
    }
    let shm = spec
        .mounts
        .iter()
        .find(|mount| mount.target == Path::new("/dev/shm"))
        .unwrap();
    assert!(!shm.options.noexec && shm.options.nosuid);
    assert!(matches!(&shm.kind, MountKind::Filesystem { data, .. } if data == &["size=1m"]));
}

#[test]
fn ipc_modes_decide_about_shm() {
    let with = |mode: &str, ipc: Namespace, shm: Option<&str>| {
        let host = HostConfig {
            ipc_mode: mode.into(),
            ..HostConfig::default()
        };
        let resolved = Resolved {
            ipc,
            shm: shm.map(PathBuf::from),
            ..resolved()
        };
        launch_spec(&definition(host, ContainerConfig::default()), resolved).unwrap()
    };
    let none = with("none", Namespace::New, None);
    assert!(!targets(&none).contains(&"/dev/shm".to_owned()));
    let other = || Namespace::Join("/proc/7/ns/ipc".into());
    for (mode, ipc, shm) in [
        ("host", Namespace::Host, "/dev/shm"),
        ("shareable", Namespace::New, "/run/shm/own"),
        ("container:x", other(), "/run/shm/x"),
    ] {
        let spec = with(mode, ipc.clone(), Some(shm));
        assert_eq!(spec.namespaces.ipc, ipc, "{mode}");
        let kind = |target: &str| {
            let mount = spec
                .mounts
                .iter()
                .find(|mount| mount.target == Path::new(target));
            mount.unwrap().kind.clone()
        };
        let expected = MountKind::Bind {
            source: shm.into(),
            recursive: true,
        };
        assert_eq!(kind("/dev/shm"), expected, "{mode}");
        // A new queue file system shows the queues of the namespace it is mounted in.
        let is_new = matches!(kind("/dev/mqueue"), MountKind::Filesystem { .. });
        assert!(is_new, "{mode}");
    }
}

#[test]
fn nothing_mounted_below_the_hosts_sys_comes_along() {
    for net in [
        Namespace::Host,
        Namespace::New,
        Namespace::Join("/run/n".into()),
    ] {
        let resolved = Resolved { net, ..resolved() };
        let definition = definition(HostConfig::default(), ContainerConfig::default());
        let spec = launch_spec(&definition, resolved).unwrap();
        let is_sys = |mount: &&Mount| mount.target == Path::new("/sys");
        let sys = spec.mounts.iter().find(is_sys).unwrap();
        let is_new = matches!(&sys.kind, MountKind::Filesystem { fstype, .. } if fstype == "sysfs");
        assert!(is_new && sys.options.readonly, "{:?}", spec.namespaces.net);
    }
}

#[test]
fn the_files_of_names_are_read_only_with_the_root() {
    for readonly_rootfs in [false, true] {
        let host = HostConfig {
            readonly_rootfs,
            ..HostConfig::default()
        };
        let spec = spec(host, ContainerConfig::default());
        let names = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(Path::new);
        let files: Vec<bool> = spec
            .mounts
            .iter()
            .filter(|mount| names.contains(&mount.target.as_path()))
            .map(|mount| mount.options.readonly)
            .collect();
        assert_eq!(files, [readonly_rootfs; 3]);
    }
}

#[test]
fn the_environment_is_overridden_and_cut() {
    let config = ContainerConfig {
        env: Some(vec!["PATH=/mine".into(), "X=1".into(), "HOSTNAME".into()]),
        ..ContainerConfig::default()
    };
    assert_eq!(
        environment(&config, "h", true),
        ["PATH=/mine", "TERM=xterm", "X=1"]
    );
}

#[test]
fn limits_are_translated_and_zero_is_unset() {
    let api = agent_api::Resources {
        nano_cpus: 1_500_000_000,
        memory: 64 << 20,
        memory_swap: -1,
        pids_limit: Some(100),
        ..agent_api::Resources::default()
    };
    let limits = limits(&api);
    assert_eq!(
        (limits.cpu_quota_us, limits.cpu_period_us),
        (Some(150_000), Some(100_000))
    );
    assert_eq!(
        (limits.memory_bytes, limits.memory_swap_bytes),
        (Some(64 << 20), Some(-1))
    );
    assert_eq!(limits.pids, Some(100));
    assert_eq!(limits.cpu_shares, None);
    assert_eq!(
        super::limits(&agent_api::Resources::default()),
        Resources::default()
    );
}

#[test]
fn ulimits_come_from_the_container_then_the_engine_then_the_default() {
    let limit = |name: &str, value| Ulimit {
        name: name.into(),
        soft: value,
        hard: value,
    };
    let limits = rlimits(&[limit("core", -1)], &[limit("core", 5), limit("nproc", 7)]);
    let shown: Vec<_> = limits
        .iter()
        .map(|limit| (limit.name.as_str(), limit.soft))
        .collect();
    assert_eq!(shown, [("core", u64::MAX), ("nproc", 7)]);
}

#[test]
fn shared_mounts_open_the_root_mount() {
    let host = HostConfig {
        binds: Some(vec!["/a:/b:rshared".into()]),
        ..HostConfig::default()
    };
    assert_eq!(
        spec(host, ContainerConfig::default()).rootfs_propagation,
        Some(Propagation::Shared)
    );
}

#[test]
fn open_files_are_limited_by_default_and_never_above_the_daemon() {
    let nofile = |configured: Vec<Ulimit>, hard| {
        let all = default_ulimits(configured, hard);
        let limit = all.iter().find(|limit| limit.name == "nofile").unwrap();
        (limit.soft, limit.hard)
    };
    assert_eq!(nofile(Vec::new(), None), (1024, 524_288));
    assert_eq!(nofile(Vec::new(), Some(20_000)), (1024, 20_000));
    assert_eq!(nofile(Vec::new(), Some(512)), (512, 512));
    let own = Ulimit {
        name: "nofile".to_owned(),
        soft: 1,
        hard: 2,
    };
    assert_eq!(nofile(vec![own], Some(20_000)), (1, 2));
}
