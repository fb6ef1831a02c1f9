//! From a `RUN` and what was resolved for it to the runtime's launch specification.
//!
//! Pure but for [`devices`]. Choices: buildkit `executor/oci/spec.go` and `spec_linux.go`, containerd's defaults without
//! `/run`: Docker's default capabilities, seccomp filter and masked paths, the command as process 1, no terminal.

use std::path::{Path, PathBuf};

use agent_build::plan::{RunOp, SecurityMode};
use agent_runtime::spec::{
    Capabilities, CapabilitySet, CgroupPath, CgroupSpec, DefaultMounts, Device, DeviceAccess,
    DeviceRule, LaunchSpec, Mount, MountKind, MountOptions, Namespace, Namespaces, Process,
    Resources, Rlimit, Rootfs, SeccompPolicy, default_device_rules, default_masked_paths,
    default_mounts, default_readonly_paths,
};

use super::RunError;

/// What a step is called inside unless it chooses a name.
pub(super) const HOSTNAME: &str = "buildkitsandbox";
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was found out and made for one run.
pub(super) struct Resolved<'a> {
    pub(super) op: &'a RunOp,
    /// Layers of the root, uppermost first; at least one.
    pub(super) root: Vec<PathBuf>,
    /// Has the directories `upper` and `overlay`.
    pub(super) work: &'a Path,
    /// Has the files `hosts` and `resolv.conf`.
    pub(super) place: &'a Path,
    pub(super) net: Namespace,
    pub(super) cgroup: CgroupPath,
    pub(super) shm_bytes: u64,
    /// Limits of processes unless the step sets them.
    pub(super) default_ulimits: &'a [agent_api::Ulimit],
    /// As containers have it: with version 2 of cgroups.
    pub(super) own_cgroup_namespace: bool,
    /// Devices of the host, for a step that is not confined.
    pub(super) devices: Vec<Device>,
    /// The step's own mounts, in the order of mounting.
    pub(super) mounts: Vec<Mount>,
    /// `NAME=value` besides the step's own variables: secrets.
    pub(super) env: Vec<String>,
}

/// Makes the specification.
pub(super) fn launch_spec(resolved: Resolved<'_>) -> Result<LaunchSpec, RunError> {
    let op = resolved.op;
    let confined = op.security == SecurityMode::Sandbox;
    let mut mounts = system_mounts(&resolved, confined);
    let env = environment(op, resolved.env);
    mounts.extend(resolved.mounts);
    Ok(LaunchSpec {
        rootfs: Rootfs::Overlay {
            lower: resolved.root,
            upper: resolved.work.join("upper"),
            work: resolved.work.join("overlay"),
        },
        readonly_rootfs: false,
        rootfs_propagation: None,
        namespaces: Namespaces {
            net: resolved.net,
            cgroup: match resolved.own_cgroup_namespace {
                true => Namespace::New,
                false => Namespace::Host,
            },
            ..Namespaces::default()
        },
        hostname: Some(op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned())),
        domainname: None,
        mounts,
        masked_paths: match confined {
            true => default_masked_paths(),
            false => Vec::new(),
        },
        readonly_paths: match confined {
            true => default_readonly_paths(),
            false => Vec::new(),
        },
        devices: resolved.devices,
        sysctls: std::collections::BTreeMap::new(),
        process: Process {
            args: op.args.clone(),
            env,
            cwd: PathBuf::from(if op.cwd.is_empty() { "/" } else { &op.cwd }),
            user: op.user.clone(),
            additional_groups: Vec::new(),
            umask: None,
            rlimits: rlimits(op, resolved.default_ulimits),
            capabilities: capabilities(confined)?,
            no_new_privileges: false,
            seccomp: match confined {
                true => SeccompPolicy::Default,
                false => SeccompPolicy::Unconfined,
            },
            oom_score_adj: Some(0),
            terminal: None,
            preserve_fds: 0,
            keep_keyring: false,
        },
        cgroup: Some(CgroupSpec {
            path: resolved.cgroup,
            resources: limits(op, confined),
        }),
        init: false,
    })
}

/// Devices of the host that the step is given. Blocks.
pub(super) fn devices(op: &RunOp) -> Result<Vec<Device>, RunError> {
    match op.security {
        SecurityMode::Sandbox => Ok(Vec::new()),
        SecurityMode::Insecure => Ok(crate::engine::all_devices()?),
    }
}

/// Everything but the step's own mounts.
fn system_mounts(resolved: &Resolved<'_>, confined: bool) -> Vec<Mount> {
    let mut mounts = default_mounts(DefaultMounts {
        shm_bytes: resolved.shm_bytes,
        privileged: !confined,
    });
    for name in ["resolv.conf", "hosts"] {
        mounts.push(Mount {
            target: Path::new("/etc").join(name),
            kind: MountKind::Bind {
                source: resolved.place.join(name),
                recursive: false,
            },
            options: MountOptions {
                readonly: true,
                nosuid: true,
                nodev: true,
                noexec: true,
                ..MountOptions::default()
            },
        });
    }
    mounts
}

/// The step's variables, then those of proxies and secrets, then a path if there is none. A name that is there already
/// stays as it is, because programs take the first.
fn environment(op: &RunOp, secrets: Vec<String>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let path = DEFAULT_PATH.to_owned();
    // A secret is meant to be seen, whatever a variable of the image says.
    let all = secrets
        .into_iter()
        .chain(op.env.iter().chain(&op.proxy_env).cloned())
        .chain([path]);
    for variable in all {
        let name = variable.split('=').next().unwrap_or_default();
        if !env
            .iter()
            .any(|known| known.split('=').next() == Some(name))
        {
            env.push(variable);
        }
    }
    env
}

fn capabilities(confined: bool) -> Result<Capabilities, RunError> {
    Capabilities::resolve::<&str>(&[], &[], !confined, CapabilitySet::available())
        .map_err(|error| RunError::System(error.to_string()))
}

fn rlimits(op: &RunOp, defaults: &[agent_api::Ulimit]) -> Vec<Rlimit> {
    // -1 is "no limit".
    let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    let own = op.ulimits.iter().map(|limit| Rlimit {
        name: limit.name.clone(),
        soft: value(limit.soft),
        hard: value(limit.hard),
    });
    let defaults = defaults
        .iter()
        .filter(|limit| !op.ulimits.iter().any(|own| own.name == limit.name))
        .map(|limit| Rlimit {
            name: limit.name.clone(),
            soft: value(limit.soft),
            hard: value(limit.hard),
        });
    own.chain(defaults).collect()
}

fn limits(op: &RunOp, confined: bool) -> Resources {
    let asked = &op.resources;
    let everything = DeviceRule {
        allow: true,
        kind: None,
        major: None,
        minor: None,
        access: DeviceAccess {
            read: true,
            write: true,
            mknod: true,
        },
    };
    Resources {
        memory_bytes: asked.memory_bytes,
        memory_swap_bytes: asked.memory_swap_bytes,
        cpu_shares: asked.cpu_shares,
        cpu_period_us: asked.cpu_period_us,
        cpu_quota_us: asked.cpu_quota_us,
        cpuset_cpus: asked.cpuset_cpus.clone(),
        cpuset_mems: asked.cpuset_mems.clone(),
        devices: match confined {
            true => default_device_rules(),
            false => vec![everything],
        },
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_build::plan::{NetworkMode, Platform};

    pub(crate) fn op() -> RunOp {
        RunOp {
            root: None,
            args: vec!["/bin/true".into()],
            env: vec!["A=1".into(), "PATH=/bin".into()],
            cwd: "/src".into(),
            user: "web:www".into(),
            hostname: None,
            network: NetworkMode::Sandbox,
            security: SecurityMode::Sandbox,
            mounts: Vec::new(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            cgroup_parent: None,
            resources: agent_build::plan::Resources::default(),
            proxy_env: vec!["A=2".into(), "http_proxy=p".into()],
            platform: Platform::default(),
        }
    }

    fn resolved(op: &RunOp) -> Resolved<'_> {
        Resolved {
            op,
            root: vec!["/l1".into()],
            work: Path::new("/work"),
            place: Path::new("/place"),
            net: Namespace::New,
            cgroup: CgroupPath::try_from(PathBuf::from("muster/build-1")).unwrap(),
            shm_bytes: 64 << 20,
            default_ulimits: &[],
            own_cgroup_namespace: false,
            devices: Vec::new(),
            mounts: Vec::new(),
            env: vec!["TOKEN=s".into()],
        }
    }

    #[test]
    fn a_confined_step_is_as_any_unprivileged_container() {
        let op = op();
        let spec = launch_spec(resolved(&op)).unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("buildkitsandbox"));
        assert_eq!(
            spec.process.env,
            ["TOKEN=s", "A=1", "PATH=/bin", "http_proxy=p"]
        );
        assert_eq!(spec.process.user, "web:www");
        assert_eq!(spec.process.cwd, Path::new("/src"));
        assert!(!spec.masked_paths.is_empty() && !spec.readonly_paths.is_empty());
        assert_eq!(spec.process.seccomp, SeccompPolicy::Default);
        assert!(!spec.init && spec.process.terminal.is_none());
        let bound: Vec<_> = spec
            .mounts
            .iter()
            .filter(|mount| mount.target.starts_with("/etc"))
            .collect();
        assert_eq!(bound.len(), 2);
        assert!(bound.iter().all(|mount| mount.options.readonly));
        assert!(
            !spec
                .mounts
                .iter()
                .any(|mount| mount.target == Path::new("/run"))
        );
    }

    #[test]
    fn an_insecure_step_has_everything() {
        let mut op = op();
        op.security = SecurityMode::Insecure;
        let spec = launch_spec(resolved(&op)).unwrap();
        assert!(spec.masked_paths.is_empty() && spec.readonly_paths.is_empty());
        assert_eq!(spec.process.seccomp, SeccompPolicy::Unconfined);
        let rules = &spec.cgroup.as_ref().unwrap().resources.devices;
        assert!(rules.len() == 1 && rules[0].allow);
        let sys = spec
            .mounts
            .iter()
            .find(|mount| mount.target == Path::new("/sys"));
        assert!(!sys.unwrap().options.readonly);
    }

    #[test]
    fn limits_and_a_path_are_there_whatever_the_step_says() {
        let mut op = op();
        op.env.clear();
        op.ulimits = vec![agent_build::plan::Ulimit {
            name: "nofile".into(),
            soft: 10,
            hard: -1,
        }];
        op.resources.memory_bytes = Some(7 << 20);
        let defaults = [("nofile", 1), ("nproc", 2)].map(|(name, soft)| agent_api::Ulimit {
            name: name.into(),
            soft,
            hard: 9,
        });
        let spec = launch_spec(Resolved {
            default_ulimits: &defaults,
            net: Namespace::Host,
            ..resolved(&op)
        })
        .unwrap();
        let limits: Vec<_> = spec
            .process
            .rlimits
            .iter()
            .map(|limit| (limit.name.as_str(), limit.soft, limit.hard))
            .collect();
        assert_eq!(limits, [("nofile", 10, u64::MAX), ("nproc", 2, 9)]);
        assert!(spec.process.env.contains(&DEFAULT_PATH.to_owned()));
        let resources = spec.cgroup.unwrap().resources;
        assert_eq!(resources.memory_bytes, Some(7 << 20));
        let sys = spec
            .mounts
            .iter()
            .find(|mount| mount.target == Path::new("/sys"));
        // A bind of the host's would bring everything mounted below it.
        assert!(matches!(sys.unwrap().kind, MountKind::Filesystem { .. }));
    }
}
