//! From a container and what was resolved for this start to the runtime's launch specification.
//!
//! Pure: what depends on the host (devices, namespaces of other containers, addresses) is in [`Resolved`]. Choices are
//! moby's `daemon/oci_linux.go` and `daemon/oci_utils.go`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent_api::{ContainerConfig, HostConfig, Ulimit};
use agent_runtime::cgroup::BlkioThrottle;
use agent_runtime::spec::{
    Capabilities, CapabilitySet, CgroupPath, CgroupSpec, DefaultMounts, Device, DeviceAccess,
    DeviceRule, LaunchSpec, Mount, MountKind, MountOptions, Namespace, Namespaces, Process,
    Propagation, RecursiveReadonly, Resources, Rlimit, Rootfs, SeccompPolicy, TerminalSize,
    default_device_rules, default_mounts,
};

use super::container::Definition;
use super::mounts::{self, MountPlan, MountSource};
use super::validate::SecurityOption;
use crate::error::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Soft and hard limit of open files unless chosen: systemd's, which old programs that loop over all descriptors bear.
const NOFILE: (i64, i64) = (1024, 524_288);

/// What was found out about the host and other containers for this start.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// Unpacked image layers, top first.
    pub(crate) layers: Vec<PathBuf>,
    /// The container's own directory.
    pub(crate) directory: PathBuf,
    pub(crate) net: Namespace,
    pub(crate) pid: Namespace,
    pub(crate) ipc: Namespace,
    /// What is bound to `/dev/shm` when the container's shm is not its own: the host's, or one that containers share.
    pub(crate) shm: Option<PathBuf>,
    /// Host name inside; empty with the host's UTS namespace.
    pub(crate) hostname: String,
    /// `hosts`, `hostname` and `resolv.conf` are to be mounted from here, unless the user mounts something there.
    pub(crate) files: PathBuf,
    /// Devices of the host to be made inside.
    pub(crate) devices: Vec<Device>,
    /// Rules for those devices.
    pub(crate) device_rules: Vec<DeviceRule>,
    /// Rate limits of block devices.
    pub(crate) throttles: Vec<BlkioThrottle>,
    /// Where the cgroup goes.
    pub(crate) cgroup: CgroupPath,
    /// What this engine itself may do.
    pub(crate) available: CapabilitySet,
    /// Limits for those that the container does not set.
    pub(crate) default_ulimits: Vec<Ulimit>,
    /// Whether an init runs as PID 1.
    pub(crate) init: bool,
}

/// Makes the specification.
pub(crate) fn launch_spec(definition: &Definition, resolved: Resolved) -> Result<LaunchSpec> {
    let (config, host) = (&definition.config, &definition.host);
    let mounts = all_mounts(definition, &resolved);
    let namespaces = namespaces(host, &resolved);
    let resources = Resources {
        devices: device_rules(host, &resolved)?,
        blkio_throttle: resolved.throttles.clone(),
        ..limits(&host.resources)
    };
    let own_uts = namespaces.uts == Namespace::New;
    let own_net = !matches!(namespaces.net, Namespace::Host);
    let shared_net = host.network_mode.starts_with("container:");
    Ok(LaunchSpec {
        rootfs: Rootfs::Overlay {
            lower: resolved.layers,
            upper: resolved.directory.join("upper"),
            work: resolved.directory.join("work"),
        },
        readonly_rootfs: host.readonly_rootfs,
        rootfs_propagation: rootfs_propagation(&definition.mounts),
        hostname: own_uts.then_some(resolved.hostname.clone()),
        domainname: (own_uts && !config.domainname.is_empty()).then(|| config.domainname.clone()),
        mounts,
        masked_paths: host
            .masked_paths
            .iter()
            .flatten()
            .map(PathBuf::from)
            .collect(),
        readonly_paths: host
            .readonly_paths
            .iter()
            .flatten()
            .map(PathBuf::from)
            .collect(),
        devices: resolved.devices,
        sysctls: sysctls(host, own_net && !shared_net),
        process: Process {
            args: definition.command.clone(),
            env: environment(config, &resolved.hostname, config.tty),
            cwd: working_directory(&config.working_dir),
            user: config.user.clone(),
            additional_groups: host.group_add.clone().unwrap_or_default(),
            umask: None,
            rlimits: rlimits(&host.resources.ulimits, &resolved.default_ulimits),
            capabilities: capabilities(host, resolved.available)?,
            no_new_privileges: no_new_privileges(host)?,
            seccomp: seccomp(host)?,
            oom_score_adj: Some(host.oom_score_adj),
            terminal: config.tty.then(|| terminal_size(host.console_size)),
            preserve_fds: 0,
            keep_keyring: false,
        },
        cgroup: Some(CgroupSpec {
            path: resolved.cgroup,
            resources,
        }),
        init: resolved.init,
        namespaces,
    })
}

fn namespaces(host: &HostConfig, resolved: &Resolved) -> Namespaces {
    let choose = |is_host: bool| {
        if is_host {
            Namespace::Host
        } else {
            Namespace::New
        }
    };
    Namespaces {
        pid: resolved.pid.clone(),
        net: resolved.net.clone(),
        ipc: resolved.ipc.clone(),
        uts: choose(host.uts_mode == "host"),
        cgroup: choose(host.cgroupns_mode != "private"),
    }
}

/// The engine's mounts, then the user's; what the user mounts replaces what the engine would.
///
/// `/sys` and `/dev/mqueue` are mounted new also where the namespace they show is the host's: a bind of the host's would
/// bring what is mounted below it (debugfs, tracefs, all cgroups), and need not be there.
fn all_mounts(definition: &Definition, resolved: &Resolved) -> Vec<Mount> {
    let host = &definition.host;
    let shm_bytes = u64::try_from(host.shm_size).unwrap_or(0);
    let mut mounts = default_mounts(DefaultMounts {
        shm_bytes,
        privileged: host.privileged,
    });
    let shared = |target: &str, source: &Path| Mount {
        target: target.into(),
        kind: MountKind::Bind {
            source: source.into(),
            recursive: true,
        },
        options: MountOptions {
            nosuid: true,
            nodev: true,
            noexec: true,
            ..MountOptions::default()
        },
    };
    for mount in &mut mounts {
        if let Some(shm) = &resolved.shm
            && mount.target == Path::new("/dev/shm")
        {
            *mount = shared("/dev/shm", shm);
        }
    }
    mounts.retain(|mount| !(host.ipc_mode == "none" && mount.target == Path::new("/dev/shm")));
    let users: Vec<&str> = definition
        .mounts
        .iter()
        .map(|plan| plan.target.as_str())
        .collect();
    mounts.retain(|mount| !users.iter().any(|target| mount.target == Path::new(target)));
    for (target, file) in [
        ("/etc/resolv.conf", "resolv.conf"),
        ("/etc/hostname", "hostname"),
        ("/etc/hosts", "hosts"),
    ] {
        if !users.contains(&target) {
            mounts.push(Mount {
                target: target.into(),
                kind: MountKind::Bind {
                    source: resolved.files.join(file),
                    recursive: false,
                },
                // The container could write to the host's disk through them otherwise.
                options: MountOptions {
                    readonly: host.readonly_rootfs,
                    ..MountOptions::default()
                },
            });
        }
    }
    mounts.extend(definition.mounts.iter().map(user_mount));
    mounts
}

fn user_mount(plan: &MountPlan) -> Mount {
    let mut options = MountOptions {
        readonly: plan.read_only,
        propagation: propagation(&plan.propagation),
        ..MountOptions::default()
    };
    let kind = match &plan.source {
        MountSource::Bind {
            path, recursive, ..
        } => {
            options.recursive_readonly = match plan.recursive_readonly {
                mounts::RecursiveReadonly::No => RecursiveReadonly::No,
                mounts::RecursiveReadonly::IfPossible => RecursiveReadonly::IfPossible,
                mounts::RecursiveReadonly::Force => RecursiveReadonly::Force,
            };
            MountKind::Bind {
                source: path.into(),
                recursive: *recursive,
            }
        }
        MountSource::Volume(volume) => MountKind::Bind {
            source: Path::new(&volume.mountpoint).join(&volume.subpath),
            recursive: true,
        },
        MountSource::Tmpfs { data, flags } => {
            options = MountOptions {
                nosuid: true,
                nodev: true,
                noexec: true,
                ..options
            };
            for flag in flags {
                match flag.as_str() {
                    "exec" => options.noexec = false,
                    "suid" => options.nosuid = false,
                    "dev" => options.nodev = false,
                    "noatime" => options.atime = Some(agent_runtime::spec::Atime::Noatime),
                    "strictatime" => options.atime = Some(agent_runtime::spec::Atime::Strictatime),
                    "nodiratime" => options.nodiratime = true,
                    // The others name what is so already.
                    _ => {}
                }
            }
            MountKind::Filesystem {
                fstype: "tmpfs".into(),
                source: "tmpfs".into(),
                data: data.clone(),
            }
        }
    };
    Mount {
        target: plan.target.clone().into(),
        kind,
        options,
    }
}

fn propagation(name: &str) -> Option<Propagation> {
    match name {
        "private" => Some(Propagation::Private),
        "shared" => Some(Propagation::Shared),
        "rshared" => Some(Propagation::Rshared),
        "slave" => Some(Propagation::Slave),
        "rslave" => Some(Propagation::Rslave),
        _ => None,
    }
}

/// A shared or slave mount inside needs a root mount that lets events through.
fn rootfs_propagation(plans: &[MountPlan]) -> Option<Propagation> {
    let wanted = |names: &[&str]| {
        plans
            .iter()
            .any(|plan| names.contains(&plan.propagation.as_str()))
    };
    if wanted(&["shared", "rshared"]) {
        Some(Propagation::Shared)
    } else if wanted(&["slave", "rslave"]) {
        Some(Propagation::Rslave)
    } else {
        None
    }
}

/// Environment of the first process: the engine's variables, the container's over them, names alone taken out.
pub(crate) fn environment(config: &ContainerConfig, hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    override_env(&mut env, config.env.as_deref().unwrap_or_default());
    env
}

/// Lets `NAME=value` replace and `NAME` remove.
pub(crate) fn override_env(env: &mut Vec<String>, with: &[String]) {
    for entry in with {
        let name = entry.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(name);
        match (entry.contains('='), env.iter().position(same)) {
            (true, Some(index)) => env[index].clone_from(entry),
            (true, None) => env.push(entry.clone()),
            (false, Some(index)) => drop(env.remove(index)),
            (false, None) => {}
        }
    }
}

pub(crate) fn working_directory(directory: &str) -> PathBuf {
    PathBuf::from(if directory.is_empty() { "/" } else { directory })
}

pub(crate) fn terminal_size([rows, columns]: [u32; 2]) -> TerminalSize {
    let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    TerminalSize {
        rows: small(rows),
        columns: small(columns),
    }
}

/// The capabilities of the container's processes.
pub(crate) fn capabilities(host: &HostConfig, available: CapabilitySet) -> Result<Capabilities> {
    let add = host.cap_add.as_deref().unwrap_or_default();
    let drop = host.cap_drop.as_deref().unwrap_or_default();
    Capabilities::resolve(add, drop, host.privileged, available)
        .map_err(|error| Error::invalid(error.to_string()))
}

fn security_options(host: &HostConfig) -> Result<Vec<SecurityOption>> {
    host.security_opt
        .iter()
        .flatten()
        .map(|text| SecurityOption::parse(text))
        .collect()
}

pub(crate) fn no_new_privileges(host: &HostConfig) -> Result<bool> {
    Ok(security_options(host)?.contains(&SecurityOption::NoNewPrivileges(true)))
}

pub(crate) fn seccomp(host: &HostConfig) -> Result<SeccompPolicy> {
    let mut policy = match host.privileged {
        true => SeccompPolicy::Unconfined,
        false => SeccompPolicy::Default,
    };
    for option in security_options(host)? {
        match option {
            SecurityOption::SeccompUnconfined => policy = SeccompPolicy::Unconfined,
            SecurityOption::SeccompProfile(text) => {
                let profile = agent_runtime::seccomp::Profile::parse(&text).map_err(|error| {
                    Error::invalid(format!("decoding seccomp profile failed: {error}"))
                })?;
                policy = SeccompPolicy::Profile(Box::new(profile));
            }
            _ => {}
        }
    }
    Ok(policy)
}

/// Defaults that make low ports and ping work without privileges, where the network namespace is the container's own.
fn sysctls(host: &HostConfig, own_net: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if own_net {
        all.insert(
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "0".to_owned(),
        );
        all.insert(
            "net.ipv4.ping_group_range".to_owned(),
            "0 2147483647".to_owned(),
        );
    }
    all.extend(
        host.sysctls
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    all
}

pub(crate) fn rlimits(own: &[Ulimit], defaults: &[Ulimit]) -> Vec<Rlimit> {
    let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    let mut limits: Vec<Rlimit> = Vec::new();
    for limit in own.iter().chain(defaults) {
        if !limits.iter().any(|other| other.name == limit.name) {
            limits.push(Rlimit {
                name: limit.name.clone(),
                soft: value(limit.soft),
                hard: value(limit.hard),
            });
        }
    }
    limits
}

/// The engine's default limits: what is configured, and open files as systemd has them (an unlimited number slows old
/// programs down). `hard` is the daemon's own hard limit, above which only a privileged daemon may go.
pub(crate) fn default_ulimits(mut configured: Vec<Ulimit>, hard: Option<u64>) -> Vec<Ulimit> {
    if !configured.iter().any(|limit| limit.name == "nofile") {
        let own = hard
            .and_then(|hard| i64::try_from(hard).ok())
            .unwrap_or(i64::MAX);
        configured.push(Ulimit {
            name: "nofile".to_owned(),
            soft: NOFILE.0.min(own),
            hard: NOFILE.1.min(own),
        });
    }
    configured
}

fn device_rules(host: &HostConfig, resolved: &Resolved) -> Result<Vec<DeviceRule>> {
    if host.privileged {
        let access = DeviceAccess {
            read: true,
            write: true,
            mknod: true,
        };
        return Ok(vec![DeviceRule {
            allow: true,
            kind: None,
            major: None,
            minor: None,
            access,
        }]);
    }
    let mut rules = default_device_rules();
    rules.extend(resolved.device_rules.iter().cloned());
    for text in host.resources.device_cgroup_rules.iter().flatten() {
        rules.push(DeviceRule::parse(text).map_err(|error| Error::invalid(error.to_string()))?);
    }
    Ok(rules)
}

/// Limits in the runtime's words; zero is "not set".
pub(crate) fn limits(r: &agent_api::Resources) -> Resources {
    const PERIOD_US: u64 = 100_000;
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    let set = |number: i64| (number != 0).then_some(number);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (quota, period) = match r.nano_cpus {
        0 => (set(r.cpu_quota), positive(r.cpu_period)),
        nano => (Some(nano / 10_000), Some(PERIOD_US)),
    };
    Resources {
        cpu_shares: positive(r.cpu_shares),
        cpu_quota_us: quota,
        cpu_period_us: period,
        cpuset_cpus: text(&r.cpuset_cpus),
        cpuset_mems: text(&r.cpuset_mems),
        memory_bytes: set(r.memory),
        memory_reservation_bytes: set(r.memory_reservation),
        memory_swap_bytes: set(r.memory_swap),
        memory_swappiness: r
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: r.oom_kill_disable.unwrap_or(false),
        pids: r.pids_limit.filter(|limit| *limit != 0),
        blkio_weight: (r.blkio_weight != 0).then_some(r.blkio_weight),
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests;
