//! What a container may use: limits as plain data, named as in the Engine API and the OCI specification.
//!
//! Data and validation only; `v1` and `v2` write it to the kernel.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CgroupError;

/// Limits of a cgroup. A field that is `None` leaves the kernel's value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative share of processor time, 2 to 262144; 1024 is the usual (`cpu.shares`, on v2 converted to `cpu.weight`).
    pub cpu_shares: Option<u64>,
    /// Processor time per period in microseconds; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Length of that period in microseconds, 1,000 to 1,000,000.
    pub cpu_period_us: Option<u64>,
    /// Unused quota that may be saved up, in microseconds.
    pub cpu_burst_us: Option<u64>,
    /// Scheduled as SCHED_IDLE when 1.
    pub cpu_idle: Option<i64>,
    /// Real-time period in microseconds (v1 only).
    pub cpu_rt_period_us: Option<u64>,
    /// Real-time runtime in microseconds (v1 only).
    pub cpu_rt_runtime_us: Option<i64>,
    /// Processors it may run on: `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use: `0,1`.
    pub cpuset_mems: Option<String>,
    /// Memory limit in bytes; -1 is unlimited.
    pub memory_bytes: Option<i64>,
    /// Soft limit in bytes; -1 is unlimited.
    pub memory_reservation_bytes: Option<i64>,
    /// Memory *plus* swap in bytes as Docker counts it; -1 is unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Tendency to swap, 0 to 100 (v1 only).
    pub memory_swappiness: Option<u64>,
    /// Do not kill when out of memory, stop instead (v1 only).
    pub oom_kill_disable: bool,
    /// Number of tasks; -1 is unlimited.
    pub pids: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Limits per block device.
    pub blkio_throttle: Vec<BlkioThrottle>,
    /// Limit in bytes per huge page size (`2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Device accesses in order; a later rule wins over an earlier one. Empty leaves every device allowed.
    pub devices: Vec<DeviceRule>,
    /// Values written to files of the v2 hierarchy as they are (`memory.high` → `1G`). Refused on v1.
    pub unified: BTreeMap<String, String>,
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioThrottle {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Which rate.
    pub kind: BlkioRate,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A rate of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names are Docker's options
pub enum BlkioRate {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

/// Type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character device (`c`, `u`).
    Char,
    /// Block device (`b`).
    Block,
    /// A FIFO (`p`): a node only, never a rule.
    Fifo,
}

/// One rule of the device cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which type; `None` is all types (`a`).
    pub kind: Option<DeviceKind>,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// Reads Docker's `--device-cgroup-rule`: `c 42:* rmw`. Such a rule always allows.
    pub fn parse(text: &str) -> Result<Self, CgroupError> {
        let invalid = || CgroupError::Invalid {
            what: format!("device cgroup rule {text:?}"),
            reason: "write it as TYPE MAJOR:MINOR ACCESS, e.g. 'c 1:3 rwm'".into(),
        };
        let number = |word: &str| match word {
            "*" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| invalid()),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = words.as_slice() else {
            return Err(invalid());
        };
        let kind = match *kind {
            "a" => None,
            "c" => Some(DeviceKind::Char),
            "b" => Some(DeviceKind::Block),
            _ => return Err(invalid()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
        let access = DeviceAccess::parse(access).ok_or_else(invalid)?;
        Ok(DeviceRule {
            allow: true,
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access,
        })
    }
}

/// What may be done with a device: any of read, write and mknod. Serialised as the letters `rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`
    pub mknod: bool,
}

impl DeviceAccess {
    /// Reads a non-empty word of the letters r, w and m.
    pub fn parse(letters: &str) -> Option<Self> {
        let mut access = DeviceAccess {
            read: false,
            write: false,
            mknod: false,
        };
        for letter in letters.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        (!letters.is_empty()).then_some(access)
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl Serialize for DeviceAccess {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceAccess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let letters = String::deserialize(deserializer)?;
        DeviceAccess::parse(&letters).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "device access {letters:?} is not made of r, w and m"
            ))
        })
    }
}

/// The rules with a "deny everything" in front, unless they begin with a rule about everything themselves: a list of
/// devices is a list of exceptions, as in runc.
pub(super) fn closed(rules: &[DeviceRule]) -> impl DoubleEndedIterator<Item = DeviceRule> {
    let everything =
        |rule: &DeviceRule| rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
    let opening = match rules.first() {
        Some(first) if everything(first) => None,
        _ => Some(DeviceRule {
            allow: false,
            kind: None,
            major: None,
            minor: None,
            access: DeviceAccess {
                read: true,
                write: true,
                mknod: true,
            },
        }),
    };
    opening.into_iter().chain(rules.iter().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_cgroup_rules_are_read_as_docker_reads_them() {
        let rule = DeviceRule::parse("c 10:* mr").unwrap();
        assert_eq!(
            (rule.kind, rule.major, rule.minor),
            (Some(DeviceKind::Char), Some(10), None)
        );
        assert_eq!(rule.access.to_string(), "rm");
        assert_eq!(DeviceRule::parse("a *:* rwm").unwrap().kind, None);
        for bad in [
            "", "c", "c 1:3", "x 1:3 r", "c 1 r", "c a:3 r", "c 1:3 x", "c 1:3 ",
        ] {
            assert!(DeviceRule::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
