//! `doctor`: tries what containers need on this machine, and says what is missing and what to do about it.
//!
//! Every check asks the kernel for the thing itself (a file system context, a bridge in a network namespace of its own,
//! the nf_tables generation), so that modules are loaded as they would be later. Nothing that is made survives the check.

mod probe;

use crate::connect::Session;
use crate::failure::Outcome;
use crate::out;
use agent_runtime::cgroup::Hierarchy;
use clap::Args;

/// Check whether this machine can run containers, and say what is missing
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sudo muster doctor")]
pub(crate) struct DoctorArgs {}

/// How a check ended.
enum Verdict {
    Good(String),
    /// Containers run; something is less than it could be.
    Weak(String),
    /// Containers do not run.
    Bad(String),
}

pub(crate) async fn run(session: &Session, _args: &DoctorArgs) -> Outcome {
    let checks = [
        ("user", user()),
        ("kernel", kernel()),
        ("namespaces", namespaces()),
        ("file systems", file_systems()),
        ("cgroups", cgroups()),
        ("seccomp", seccomp()),
        ("bridge and veth", links()),
        ("nftables", nftables()),
        ("forwarding", forwarding()),
        ("daemon", daemon(session).await),
    ];
    let mut failed = false;
    for (name, verdict) in checks {
        let (mark, text) = match verdict {
            Verdict::Good(text) => ("ok  ", text),
            Verdict::Weak(text) => ("weak", text),
            Verdict::Bad(text) => {
                failed = true;
                ("FAIL", text)
            }
        };
        out::line(format!("{mark}  {name:<16} {text}"))?;
    }
    Ok(u8::from(failed))
}

fn user() -> Verdict {
    if rustix::process::geteuid().is_root() {
        Verdict::Good("root".to_owned())
    } else {
        Verdict::Bad(
            "the daemon runs as root only: use sudo (some checks below need root, too)".to_owned(),
        )
    }
}

/// The oldest long-term kernel with everything that is called without an alternative: the mount API (5.2), clone3 and
/// pidfds (5.3), `openat2` (5.6), `setns` by pidfd (5.8), `close_range` (5.9). `e2e/vm` runs on it.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

fn kernel() -> Verdict {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            Verdict::Good(release.into_owned())
        }
        _ => Verdict::Bad(format!(
            "{release} is older than {}.{}: upgrade the kernel",
            OLDEST_KERNEL.0, OLDEST_KERNEL.1
        )),
    }
}

fn namespaces() -> Verdict {
    let missing: Vec<_> = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .into_iter()
        .filter(|name| !std::path::Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if missing.is_empty() {
        Verdict::Good("cgroup ipc mnt net pid uts".to_owned())
    } else {
        Verdict::Bad(format!(
            "the kernel lacks {}: use one built with CONFIG_NAMESPACES",
            missing.join(", ")
        ))
    }
}

fn file_systems() -> Verdict {
    let mut missing = Vec::new();
    for name in ["overlay", "tmpfs", "proc", "sysfs", "devpts", "mqueue"] {
        if let Err(error) = probe::file_system(name) {
            missing.push(format!("{name} ({error})"));
        }
    }
    if missing.is_empty() {
        Verdict::Good("overlay tmpfs proc sysfs devpts mqueue".to_owned())
    } else {
        Verdict::Bad(format!(
            "cannot be mounted: {}: load the modules, e.g. \"modprobe overlay\"",
            missing.join(", ")
        ))
    }
}

fn cgroups() -> Verdict {
    let hierarchy = match Hierarchy::detect() {
        Ok(hierarchy) => hierarchy,
        Err(error) => return Verdict::Bad(format!("{error}: mount cgroup2 at /sys/fs/cgroup")),
    };
    let found = hierarchy.controllers();
    let missing: Vec<_> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !found.contains(name))
        .collect();
    let version = format!("{:?}", hierarchy.version()).to_lowercase();
    if missing.is_empty() {
        Verdict::Good(format!("{version}: {}", found.join(" ")))
    } else {
        Verdict::Weak(format!(
            "{version} without {}: such limits are refused",
            missing.join(", ")
        ))
    }
}

fn seccomp() -> Verdict {
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Verdict::Good("filters".to_owned()),
        _ => Verdict::Bad("the kernel has no filters (CONFIG_SECCOMP_FILTER): containers need --security-opt seccomp=unconfined".to_owned()),
    }
}

fn links() -> Verdict {
    match probe::links() {
        Ok(()) => Verdict::Good("can be made".to_owned()),
        Err(error) => Verdict::Bad(format!(
            "{error}: load the modules, \"modprobe bridge veth\""
        )),
    }
}

fn nftables() -> Verdict {
    match probe::nftables() {
        Ok(()) => Verdict::Good("nf_tables answers".to_owned()),
        Err(error) => Verdict::Bad(format!(
            "nf_tables does not answer ({error}): load it, \"modprobe nf_tables\""
        )),
    }
}

fn forwarding() -> Verdict {
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").map(|text| text.trim() == "1") {
        Ok(true) => Verdict::Good("IPv4 packets are forwarded".to_owned()),
        Ok(false) => Verdict::Weak(
            "net.ipv4.ip_forward is 0: the daemon turns it on when it makes a network".to_owned(),
        ),
        Err(error) => Verdict::Bad(format!("cannot read net.ipv4.ip_forward: {error}")),
    }
}

async fn daemon(session: &Session) -> Verdict {
    match session.running().await {
        Ok(client) => match client.version().await {
            Ok(version) => Verdict::Good(format!("{} at {}", version.version, session.host())),
            Err(error) => Verdict::Bad(error.to_string()),
        },
        Err(error) => Verdict::Weak(format!("{error:#}")),
    }
}
