//! `state`, `list`, `ps`, `events` and `features`: what can be seen, as JSON or a table.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::args::{EventsArgs, Format, ListArgs, PsArgs};
use super::state::{Container, OCI_VERSION, Status, Store};
use super::{OciError, failed};
use crate::capabilities::CapabilitySet;
use crate::cgroup::{BlkioStats, Stats};

fn print(text: &str) -> Result<(), OciError> {
    writeln!(std::io::stdout(), "{text}").map_err(failed("write to standard output"))
}

fn print_json(value: &serde_json::Value) -> Result<(), OciError> {
    print(&format!("{value:#}"))
}

/// The state of one container.
pub(super) fn state(store: &Store, id: &str) -> Result<(), OciError> {
    let container = store.open(id)?;
    print_json(&container.record.to_state(container.status()))
}

/// All containers.
pub(super) fn list(store: &Store, args: &ListArgs) -> Result<(), OciError> {
    let mut containers = Vec::new();
    for id in store.ids()? {
        match store.open(&id) {
            Ok(container) => containers.push(container.record.to_state(container.status())),
            // Being created, or deleted meanwhile.
            Err(OciError::NoSuchContainer(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if args.quiet {
        for container in &containers {
            print(container["id"].as_str().unwrap_or_default())?;
        }
        return Ok(());
    }
    if args.format == Format::Json {
        return print(&json!(containers).to_string());
    }
    let rows: Vec<[String; 5]> = containers
        .iter()
        .map(|c| ["id", "pid", "status", "bundle", "created"].map(|name| plain(&c[name])))
        .collect();
    print_table(["ID", "PID", "STATUS", "BUNDLE", "CREATED"], &rows)
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn print_table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), OciError> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("   ").trim_end().to_owned()
    };
    print(&line(head))?;
    for row in rows {
        print(&line(row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}

/// Processes of a container.
pub(super) fn ps(store: &Store, args: &PsArgs) -> Result<(), OciError> {
    let container = store.open(&args.id)?;
    let pids = container.cgroup()?.processes()?;
    if args.format == Format::Json {
        return print(&json!(pids).to_string());
    }
    let rows: Vec<[String; 3]> = pids
        .iter()
        .map(|pid| {
            let owner = std::fs::metadata(format!("/proc/{pid}"))
                .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta).to_string())
                .unwrap_or_default();
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            [owner, pid.to_string(), command.trim_end().to_owned()]
        })
        .collect();
    print_table(["UID", "PID", "CMD"], &rows)
}

/// Usage and out-of-memory kills until the container ends, or usage once.
pub(super) fn events(store: &Store, args: &EventsArgs) -> Result<(), OciError> {
    let container = store.open(&args.id)?;
    if args.stats {
        return print_stats(&container);
    }
    let interval = duration(&args.interval)?;
    let Some(process) = container.process() else {
        return Err(OciError::Status("the container is not running".into()));
    };
    let cgroup = container.cgroup()?;
    let oom = cgroup.oom_events()?;
    let mut kills = cgroup.oom_kills()?;
    loop {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        if let Some(oom) = &oom {
            fds.push(PollFd::new(oom, PollFlags::IN));
        }
        let limit = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(interval.subsec_nanos()),
        };
        let ready = poll(&mut fds, Some(&limit)).map_err(|errno| failed("wait")(errno.into()))?;
        let ended = !fds[0].revents().is_empty();
        if let Some(oom) = &oom {
            let mut drain = [0u8; 512];
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                let _ = rustix::io::read(oom, &mut drain);
            }
        }
        let now = cgroup.oom_kills().unwrap_or(kills);
        if now > kills {
            kills = now;
            print(&json!({ "type": "oom", "id": container.record.id }).to_string())?;
        }
        if ended {
            return Ok(());
        }
        if ready == 0 {
            print_stats(&container)?;
        }
    }
}

/// `500ms`, `5s`, `1m`.
fn duration(text: &str) -> Result<Duration, OciError> {
    let invalid = || OciError::Invalid(format!("interval {text:?} is not a duration like 5s"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    let duration = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(invalid()),
    };
    if duration.is_zero() {
        Err(invalid())
    } else {
        Ok(duration)
    }
}

fn print_stats(container: &Container) -> Result<(), OciError> {
    if container.status() == Status::Stopped {
        return Err(OciError::Status("the container is not running".into()));
    }
    let stats = container.cgroup()?.stats()?;
    print(
        &json!({ "type": "stats", "id": container.record.id, "data": stats_json(&stats) })
            .to_string(),
    )
}

/// runc's shape of the numbers, which containerd reads.
fn stats_json(stats: &Stats) -> serde_json::Value {
    let cpu = stats.cpu.clone().unwrap_or_default();
    let memory = stats.memory.clone().unwrap_or_default();
    let pids = stats.pids.clone().unwrap_or_default();
    let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let swap = memory.swap_bytes.unwrap_or(0);
    let entries = |read: fn(&BlkioStats) -> u64,
                   write: fn(&BlkioStats) -> u64|
     -> Vec<serde_json::Value> {
        let entry = |device: &BlkioStats, operation: &str, value: u64| json!({ "major": device.major, "minor": device.minor, "op": operation, "value": value });
        stats
            .blkio
            .iter()
            .flat_map(|d| [entry(d, "Read", read(d)), entry(d, "Write", write(d))])
            .collect()
    };
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns, "percpu": cpu.per_cpu_ns, "kernel": cpu.system_ns, "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods, "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "usage": {
                "limit": limit(memory.limit_bytes), "usage": memory.usage_bytes,
                "max": memory.max_usage_bytes.unwrap_or(0), "failcnt": memory.failcnt,
            },
            "swap": { "limit": 0, "usage": memory.usage_bytes.saturating_add(swap), "failcnt": 0 },
            "raw": memory.detail,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": entries(|d| d.read_bytes, |d| d.write_bytes),
            "ioServicedRecursive": entries(|d| d.read_operations, |d| d.write_operations),
        },
        "hugetlb": {},
    })
}

/// What this runtime can do (OCI `features.md`).
pub(super) fn features() -> Result<(), OciError> {
    let capabilities: Vec<String> = CapabilitySet::ALL.names().collect();
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec",
            "nosuid", "nosymfollow", "private", "rbind", "relatime", "ro", "rprivate", "rro", "rshared", "rslave",
            "runbindable", "rw", "shared", "slave", "strictatime", "suid", "symfollow", "tmpcopyup", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    }))
}
