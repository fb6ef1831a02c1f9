//! Docker's defaults for what is mounted, hidden and allowed in a container.
//!
//! Data only. Sources: moby `daemon/pkg/oci/defaults.go` (v28), runc `libcontainer/specconv` for the device rules that
//! are always present.

use std::path::PathBuf;

use crate::cgroup::{DeviceAccess, DeviceKind, DeviceRule};
use crate::spec::{Mount, MountKind, MountOptions};

/// Choices that change the default mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultMounts {
    /// Size of `/dev/shm`.
    pub shm_bytes: u64,
    /// Sysfs and cgroups writable, as for `--privileged`.
    pub privileged: bool,
}

impl Default for DefaultMounts {
    fn default() -> Self {
        DefaultMounts {
            shm_bytes: 64 << 20,
            privileged: false,
        }
    }
}

/// The mounts of every container, in order. Leave out `/dev/shm` or `/dev/mqueue` when the IPC namespace is shared and
/// bind the other container's instead.
pub fn default_mounts(choice: DefaultMounts) -> Vec<Mount> {
    let safe = MountOptions {
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountOptions::default()
    };
    let system = MountOptions {
        readonly: !choice.privileged,
        ..safe.clone()
    };
    let filesystem =
        |target: &str, fstype: &str, source: &str, data: &[&str], options: &MountOptions| Mount {
            target: PathBuf::from(target),
            kind: MountKind::Filesystem {
                fstype: fstype.into(),
                source: source.into(),
                data: data.iter().map(|option| (*option).to_owned()).collect(),
            },
            options: options.clone(),
        };
    let dev = MountOptions {
        nosuid: true,
        atime: Some(crate::spec::Atime::Strictatime),
        ..MountOptions::default()
    };
    let pts = MountOptions {
        nosuid: true,
        noexec: true,
        ..MountOptions::default()
    };
    let shm_size = format!("size={}", choice.shm_bytes);
    vec![
        filesystem("/proc", "proc", "proc", &[], &safe),
        filesystem("/dev", "tmpfs", "tmpfs", &["mode=755", "size=65536k"], &dev),
        filesystem(
            "/dev/pts",
            "devpts",
            "devpts",
            &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            &pts,
        ),
        filesystem("/sys", "sysfs", "sysfs", &[], &system),
        Mount {
            target: "/sys/fs/cgroup".into(),
            kind: MountKind::Cgroup,
            options: system,
        },
        filesystem("/dev/mqueue", "mqueue", "mqueue", &[], &safe),
        filesystem("/dev/shm", "tmpfs", "shm", &["mode=1777", &shm_size], &safe),
    ]
}

/// Paths hidden from an unprivileged container. A name with `*` is a pattern of the host's own `/sys`, expanded when
/// the plan is made by listing the host's processors.
pub fn default_masked_paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    paths.extend(thermal_throttle_paths());
    paths
}

/// `/sys/devices/system/cpu/cpuN/thermal_throttle` of every processor that has it (a covert channel on Intel).
fn thermal_throttle_paths() -> Vec<PathBuf> {
    let Ok(processors) = std::fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = processors
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .collect();
    paths.sort();
    paths
}

/// Paths an unprivileged container can only read.
pub fn default_readonly_paths() -> Vec<PathBuf> {
    [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
    .iter()
    .map(PathBuf::from)
    .collect()
}

/// Device accesses of an unprivileged container: everything denied, any node may be made, the harmless ones used.
pub fn default_device_rules() -> Vec<DeviceRule> {
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: DeviceAccess::parse(access).expect("the letters are r, w and m"),
    };
    let char_device = Some(DeviceKind::Char);
    let mut rules = vec![
        rule(false, None, None, None, "rwm"),
        rule(true, char_device, None, None, "m"),
        rule(true, Some(DeviceKind::Block), None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(rule(true, char_device, Some(major), Some(minor), "rwm"));
    }
    // pseudo terminals
    rules.push(rule(true, char_device, Some(136), None, "rwm"));
    rules
}
