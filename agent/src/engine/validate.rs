//! Whether a create or update request can be carried out on this host: limits, formats, and options that are not there.
//!
//! Pure: what must be known of the host is in [`Host`]. Texts are dockerd's where it has one (moby
//! `daemon/daemon_unix.go:verifyPlatformContainerResources`, `daemon/container.go`, `runconfig/hostconfig_unix.go`).
//! An option that is not supported is refused by name, never ignored.

use agent_api::{ContainerConfig, HealthConfig, HostConfig, Resources, RestartPolicy};
use agent_runtime::spec::{Capabilities, CapabilitySet, DeviceRule};

use super::signal;
use crate::error::{Error, Result};

const MIN_MEMORY: i64 = 6 << 20;
const MILLISECOND_NS: i64 = 1_000_000;

/// What validation has to know of the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    pub(crate) cpus: usize,
    /// Whether the kernel can limit swap.
    pub(crate) swap_limit: bool,
    /// Whether the kernel knows block I/O weights.
    pub(crate) blkio_weight: bool,
}

impl Host {
    /// Looks at this host. Blocks for a few system calls.
    pub(crate) fn detect() -> Self {
        let exists = |path: &str| std::path::Path::new(path).exists();
        let v2 = exists("/sys/fs/cgroup/cgroup.controllers");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            swap_limit: v2 || exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
            blkio_weight: exists("/sys/fs/cgroup/blkio/blkio.weight")
                || (v2 && exists("/sys/fs/cgroup/io.weight")),
        }
    }
}

/// Checks a request as it came in; what the host cannot do and Docker forgives is taken out with a warning.
pub(crate) fn create(
    config: &ContainerConfig,
    host: &mut HostConfig,
    facts: Host,
) -> Result<Vec<String>> {
    container_config(config)?;
    unsupported(config, host)?;
    modes(config, host)?;
    restart_policy(&host.restart_policy, host.auto_remove)?;
    security(host)?;
    log_driver(host)?;
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    for entry in host.extra_hosts.iter().flatten() {
        if !entry.contains([':', '=']) {
            return Err(Error::invalid(format!(
                "bad format for add-host: {entry:?}"
            )));
        }
    }
    let mut warnings = resources(&mut host.resources, facts)?;
    if host.network_mode == "host" && !host.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(warnings)
}

fn container_config(config: &ContainerConfig) -> Result<()> {
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {entry}"
            )));
        }
        if entry.contains('\0') {
            return Err(Error::invalid(
                "invalid environment variable: it contains a NUL byte",
            ));
        }
    }
    let name = &config.hostname;
    if name.len() > 63 || name.contains(['\0', '\n', '/']) {
        return Err(Error::invalid(format!(
            "invalid hostname {name:?}: at most 63 letters, digits, dots and hyphens"
        )));
    }
    match &config.healthcheck {
        Some(check) => healthcheck(check),
        None => Ok(()),
    }
}

fn healthcheck(check: &HealthConfig) -> Result<()> {
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < MILLISECOND_NS {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    match check.test.as_deref().unwrap_or_default() {
        [] => Ok(()),
        [word] if word == "NONE" => Ok(()),
        [kind, _, ..] if kind == "CMD" => Ok(()),
        [kind, _] if kind == "CMD-SHELL" => Ok(()),
        [kind, ..] => Err(Error::invalid(format!(
            "invalid healthcheck test {kind:?}: use [\"NONE\"], [\"CMD\", program, argument …] or [\"CMD-SHELL\", command]"
        ))),
    }
}

/// Options that Docker has and this engine does not.
fn unsupported(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let resources = &host.resources;
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    match host.runtime.as_deref() {
        // "runc" is what Docker calls its default runtime, and scripts name it.
        None | Some("" | super::defaults::RUNTIME | "runc") => {}
        Some(other) => {
            return Err(Error::invalid(format!(
                "unknown or invalid runtime name: {other}"
            )));
        }
    }
    for (given, option) in [
        (
            !matches!(host.userns_mode.as_str(), "" | "host"),
            "UsernsMode (--userns)",
        ),
        (
            host.storage_opt
                .as_ref()
                .is_some_and(|options| !options.is_empty()),
            "StorageOpt (--storage-opt)",
        ),
        (
            resources
                .device_requests
                .as_ref()
                .is_some_and(|requests| !requests.is_empty()),
            "DeviceRequests (--gpus)",
        ),
        (some(&host.links), "Links (--link)"),
        (
            !matches!(host.isolation.as_str(), "" | "default"),
            "Isolation",
        ),
        (!host.cgroup.is_empty(), "Cgroup"),
        (
            resources.cpu_realtime_period != 0,
            "CpuRealtimePeriod (--cpu-rt-period)",
        ),
        (
            resources.cpu_realtime_runtime != 0,
            "CpuRealtimeRuntime (--cpu-rt-runtime)",
        ),
        (resources.cpu_count != 0, "CpuCount"),
        (resources.cpu_percent != 0, "CpuPercent"),
        (resources.io_maximum_iops != 0, "IOMaximumIOps"),
        (resources.io_maximum_bandwidth != 0, "IOMaximumBandwidth"),
        (
            !resources.blkio_weight_device.is_empty(),
            "BlkioWeightDevice (--blkio-weight-device)",
        ),
        (
            host.annotations.as_ref().is_some_and(|map| !map.is_empty()),
            "Annotations (--annotation)",
        ),
        (config.network_disabled, "NetworkDisabled"),
    ] {
        if given {
            return Err(Error::unsupported(option));
        }
    }
    Ok(())
}

/// Namespace modes, and what contradicts them.
fn modes(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let container = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    match host.ipc_mode.as_str() {
        "" | "private" | "shareable" | "none" | "host" => {}
        mode if container(mode) => {}
        mode => return Err(Error::invalid(format!("invalid IPC mode: {mode}"))),
    }
    match host.pid_mode.as_str() {
        "" | "host" => {}
        mode if container(mode) => {}
        mode => return Err(Error::invalid(format!("invalid PID mode: {mode}"))),
    }
    match host.uts_mode.as_str() {
        "" => {}
        "host" if config.hostname.is_empty() && config.domainname.is_empty() => {}
        "host" => {
            return Err(Error::invalid(
                "conflicting options: hostname and the UTS mode",
            ));
        }
        mode => return Err(Error::invalid(format!("invalid UTS mode: {mode}"))),
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return Err(Error::invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        )));
    }
    if host.network_mode.starts_with("container:") {
        if !container(&host.network_mode) {
            return Err(Error::invalid(
                "invalid container format container:<name|id>",
            ));
        }
        let addresses = !host.dns.is_empty();
        for (given, text) in [
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (addresses, "dns and the network mode"),
            (
                host.extra_hosts
                    .as_ref()
                    .is_some_and(|list| !list.is_empty()),
                "custom host-to-IP mapping and the network mode",
            ),
            (
                !config.mac_address.is_empty(),
                "mac-address and the network mode",
            ),
            (
                !host.port_bindings.is_empty() || host.publish_all_ports,
                "port publishing and the container type network mode",
            ),
            (
                config
                    .exposed_ports
                    .as_ref()
                    .is_some_and(|ports| !ports.is_empty()),
                "port exposing and the container type network mode",
            ),
        ] {
            if given {
                return Err(Error::invalid(format!("conflicting options: {text}")));
            }
        }
    }
    Ok(())
}

/// Checks a restart policy.
pub(crate) fn restart_policy(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    let retries = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if retries != 0 => Err(Error::invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'{}",
            if retries < 0 {
                " and cannot be negative"
            } else {
                ""
            }
        ))),
        "on-failure" if retries < 0 => Err(Error::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn security(host: &HostConfig) -> Result<()> {
    for (field, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        let names = names.as_deref().unwrap_or_default();
        for name in names {
            Capabilities::resolve(std::slice::from_ref(name), &[], false, CapabilitySet::ALL)
                .map_err(|_| {
                    let upper = name.to_ascii_uppercase();
                    let full = if upper.starts_with("CAP_") {
                        upper
                    } else {
                        format!("CAP_{upper}")
                    };
                    Error::invalid(format!("invalid {field}: unknown capability: {full:?}"))
                })?;
        }
    }
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        DeviceRule::parse(rule).map_err(|error| Error::invalid(error.to_string()))?;
    }
    for option in host.security_opt.iter().flatten() {
        SecurityOption::parse(option)?;
    }
    Ok(())
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    NoNewPrivileges(bool),
    SeccompDefault,
    SeccompUnconfined,
    /// A profile as JSON text; the client has read the file.
    SeccompProfile(String),
    /// Asks for no confinement by AppArmor or SELinux, or for Docker's default: there is none here.
    NoModule,
    /// `systempaths=unconfined`: clients turn it into empty masked and read-only paths.
    SystemPaths,
}

impl SecurityOption {
    /// Reads `name=value` or `name:value`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((name, value)) => (name, value),
            None if text == "no-new-privileges" => (text, "true"),
            None => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt 1: {text:?}"
                )));
            }
        };
        match (name, value) {
            ("no-new-privileges", "true") => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(Self::NoNewPrivileges(false)),
            ("no-new-privileges", _) => Err(Error::invalid(format!(
                "invalid --security-opt 2: {text:?}"
            ))),
            ("seccomp", "unconfined") => Ok(Self::SeccompUnconfined),
            ("seccomp", "builtin" | "default") => Ok(Self::SeccompDefault),
            ("seccomp", profile) => Ok(Self::SeccompProfile(profile.to_owned())),
            ("apparmor", "unconfined" | "") | ("label", "disable") => Ok(Self::NoModule),
            ("systempaths", "unconfined") => Ok(Self::SystemPaths),
            ("apparmor" | "label", _) => {
                Err(Error::unsupported(format!("security option {text:?}")))
            }
            _ => Err(Error::invalid(format!(
                "invalid --security-opt 2: {text:?}"
            ))),
        }
    }
}

fn log_driver(host: &HostConfig) -> Result<()> {
    let log = &host.log_config;
    match log.kind.as_str() {
        "" | "json-file" | "local" => {}
        "none" => {
            return match log.config.keys().next() {
                None => Ok(()),
                Some(option) => Err(Error::invalid(format!(
                    "unknown log opt '{option}' for none log driver"
                ))),
            };
        }
        "syslog" | "journald" | "gelf" | "fluentd" | "awslogs" | "splunk" | "etwlogs"
        | "gcplogs" => {
            return Err(Error::unsupported(format!("log driver {:?}", log.kind)));
        }
        other => {
            return Err(Error::invalid(format!(
                "error looking up logging plugin {other}: plugin {other:?} not found"
            )));
        }
    }
    super::logs::limits(log).map(drop)
}

/// Checks limits; returns warnings for what was taken out because this host cannot do it.
pub(crate) fn resources(resources: &mut Resources, facts: Host) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let invalid = |text: &str| Err(Error::invalid(text));
    let r = resources;
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if r.memory > 0 && r.memory_swap != -1 && !facts.swap_limit {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
                .to_owned(),
        );
        r.memory_swap = -1;
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(swappiness) = r.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if r.memory_reservation != 0 && r.memory_reservation < MIN_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if r.memory > 0 && r.memory_reservation > 0 && r.memory < r.memory_reservation {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    cpu(r, facts)?;
    if r.blkio_weight > 0 && !facts.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned(),
        );
        r.blkio_weight = 0;
    }
    if r.blkio_weight > 0 && !(10..=1000).contains(&r.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    for limit in &r.ulimits {
        if !RLIMITS.contains(&limit.name.as_str()) {
            return Err(Error::invalid(format!(
                "invalid ulimit type: {}",
                limit.name
            )));
        }
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
    }
    Ok(warnings)
}

/// Names of setrlimit(2).
const RLIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn cpu(r: &Resources, facts: Host) -> Result<()> {
    let invalid = |text: String| Err(Error::invalid(text));
    if r.nano_cpus != 0 {
        for (given, other) in [(r.cpu_period, "CPU Period"), (r.cpu_quota, "CPU Quota")] {
            if given > 0 {
                return invalid(format!(
                    "Conflicting options: Nano CPUs and {other} cannot both be set"
                ));
            }
        }
        let most = i64::try_from(facts.cpus)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000);
        if r.nano_cpus < 0 || r.nano_cpus > most {
            return invalid(format!(
                "range of CPUs is from 0.01 to {}.00, as there are only {} CPUs available",
                facts.cpus, facts.cpus
            ));
        }
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .into(),
        );
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    if let Some(last) = last_in_set(&r.cpuset_cpus, "cpus")?
        && last >= facts.cpus
    {
        return invalid(format!(
            "Requested CPUs are not available - requested {}, available: 0-{}",
            r.cpuset_cpus,
            facts.cpus - 1
        ));
    }
    last_in_set(&r.cpuset_mems, "mems").map(drop)
}

/// Highest number of a list like `0-2,7`; `None` when empty.
fn last_in_set(text: &str, what: &str) -> Result<Option<usize>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || {
        Error::invalid(format!(
            "Invalid value {text} for cpuset {what}: invalid format: {text}"
        ))
    };
    let mut last = 0;
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from: usize = from.trim().parse().map_err(|_| invalid())?;
        let to: usize = to.trim().parse().map_err(|_| invalid())?;
        if from > to {
            return Err(invalid());
        }
        last = last.max(to);
    }
    Ok(Some(last))
}

#[cfg(test)]
mod tests;
