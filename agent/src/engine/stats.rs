//! What a container uses: the samples of `docker stats`. Reading blocks for some cgroup and proc files.
//!
//! Field names and units: Engine API `ContainerStatsResponse`; v1 and v2 differences as in moby `daemon/stats_unix.go`.
//! Networks are read from the container's first process' `/proc/PID/net/dev`: no namespace has to be entered.

use std::collections::BTreeMap;
use std::fs;

use agent_runtime::cgroup::{self, Cgroup};
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};

/// One sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Of the container, with slash.
    pub name: String,
    /// Of the container.
    pub id: String,
    /// When it was taken, RFC 3339.
    pub read: String,
    /// When the sample before was taken.
    pub preread: String,
    /// Number of tasks.
    pub pids_stats: PidsStats,
    /// Block I/O.
    pub blkio_stats: BlkioStats,
    /// Always 0: processes are counted in `pids_stats`.
    pub num_procs: u32,
    /// Empty: Windows only.
    pub storage_stats: Empty,
    /// Processor time.
    pub cpu_stats: CpuStats,
    /// Of the sample before.
    pub precpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// By interface; absent for containers without own network.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
}

/// The object `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// At most; 2^64-1 without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Block I/O; only the two lists that clients read are filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    /// Operations.
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
}

/// One number of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `read` or `write`.
    pub op: &'static str,
    /// The number.
    pub value: u64,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// In nanoseconds.
    pub cpu_usage: CpuUsage,
    /// Of the whole host, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_cpu_usage: Option<u64>,
    /// Processors of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online_cpus: Option<u32>,
    /// Throttling by quota.
    pub throttling_data: Throttling,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All.
    pub total_usage: u64,
    /// Per processor, v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user mode.
    pub usage_in_usermode: u64,
}

/// Throttling by quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Throttling {
    /// Enforcement periods.
    pub periods: u64,
    /// Those in which the quota ran out.
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// Highest so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usage: Option<u64>,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failcnt: Option<u64>,
    /// The limit, or the host's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Counters of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names are the kernel's
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Takes a sample of a container that runs as process `pid`, following `before`.
pub(crate) fn sample(
    id: &str,
    name: &str,
    cgroup: &Cgroup,
    pid: i32,
    own_network: bool,
    before: Option<&Stats>,
) -> Result<Stats> {
    let used = cgroup.stats().map_err(|error| {
        Error::system(format!("cannot read the usage of container {id}: {error}"))
    })?;
    let networks = match own_network {
        true => fs::read_to_string(format!("/proc/{pid}/net/dev"))
            .map(|text| parse_net_dev(&text))
            .unwrap_or_default(),
        false => BTreeMap::new(),
    };
    let blkio = |pick: fn(&cgroup::BlkioStats) -> (u64, u64)| {
        let entries = used.blkio.iter().flat_map(|device| {
            let (read, write) = pick(device);
            [("read", read), ("write", write)].map(|(op, value)| BlkioEntry {
                major: device.major,
                minor: device.minor,
                op,
                value,
            })
        });
        Some(entries.collect::<Vec<_>>()).filter(|entries| !entries.is_empty())
    };
    Ok(Stats {
        name: format!("/{name}"),
        id: id.to_owned(),
        read: Timestamp::now().to_string(),
        preread: before.map_or_else(
            || "0001-01-01T00:00:00Z".to_owned(),
            |before| before.read.clone(),
        ),
        pids_stats: used
            .pids
            .map(|pids| PidsStats {
                current: Some(pids.current),
                limit: Some(pids.limit.unwrap_or(u64::MAX)),
            })
            .unwrap_or_default(),
        blkio_stats: BlkioStats {
            io_service_bytes_recursive: blkio(|device| (device.read_bytes, device.write_bytes)),
            io_serviced_recursive: blkio(|device| {
                (device.read_operations, device.write_operations)
            }),
        },
        cpu_stats: cpu(used.cpu.unwrap_or_default()),
        precpu_stats: before
            .map(|before| before.cpu_stats.clone())
            .unwrap_or_default(),
        memory_stats: used.memory.map(memory).unwrap_or_default(),
        networks,
        ..Stats::default()
    })
}

/// The answer for a container that does not run.
pub(crate) fn stopped(id: &str, name: &str) -> Stats {
    let never = "0001-01-01T00:00:00Z".to_owned();
    Stats {
        name: format!("/{name}"),
        id: id.to_owned(),
        read: never.clone(),
        preread: never,
        ..Stats::default()
    }
}

/// How many processors the machine has online, whatever this daemon itself may use of them.
fn online_cpus() -> Option<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count_of(list.trim())
}

/// How many numbers a list such as `0-3,6` has.
fn count_of(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

fn cpu(used: cgroup::CpuStats) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: used.usage_ns,
            percpu_usage: used.per_cpu_ns,
            usage_in_kernelmode: used.system_ns,
            usage_in_usermode: used.user_ns,
        },
        system_cpu_usage: system_cpu_ns(),
        online_cpus: online_cpus(),
        throttling_data: Throttling {
            periods: used.periods,
            throttled_periods: used.throttled_periods,
            throttled_time: used.throttled_ns,
        },
    }
}

fn memory(used: cgroup::MemoryStats) -> MemoryStats {
    let host = host_memory();
    MemoryStats {
        usage: Some(used.usage_bytes),
        max_usage: used.max_usage_bytes,
        stats: used.detail,
        failcnt: Some(used.failcnt),
        limit: used
            .limit_bytes
            .filter(|limit| host.is_none_or(|host| *limit <= host))
            .or(host),
    }
}

/// Bytes of memory this host has.
pub(crate) fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The first seven columns of the `cpu` line, as moby sums them, in nanoseconds.
fn system_cpu_ns() -> Option<u64> {
    const NS_PER_TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/stat").ok()?;
    let columns = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    Some(
        columns
            .take(7)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum::<u64>()
            * NS_PER_TICK,
    )
}

/// `/proc/net/dev` without loopback.
fn parse_net_dev(text: &str) -> BTreeMap<String, NetworkStats> {
    let mut all = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            continue;
        };
        let name = name.trim();
        if name != "lo" {
            all.insert(
                name.to_owned(),
                NetworkStats {
                    rx_bytes,
                    rx_packets,
                    rx_errors,
                    rx_dropped,
                    tx_bytes,
                    tx_packets,
                    tx_errors,
                    tx_dropped,
                },
            );
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_the_kernels_lists() {
        for (list, count) in [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-1,4,6-7", Some(5)),
            ("", None),
        ] {
            assert_eq!(count_of(list), count, "{list}");
        }
        assert!(online_cpus() >= Some(1));
    }

    #[test]
    fn interfaces_are_read_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo:  9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 10 1 2 3 0 0 0 0 20 4 5 6 0 0 0 0\n";
        let all = parse_net_dev(text);
        assert_eq!(all.len(), 1);
        let eth0 = &all["eth0"];
        assert_eq!(
            (
                eth0.rx_bytes,
                eth0.rx_dropped,
                eth0.tx_bytes,
                eth0.tx_dropped
            ),
            (10, 3, 20, 6)
        );
    }

    #[test]
    fn a_limit_beyond_the_host_is_the_hosts_memory() {
        let host = host_memory().unwrap();
        let shown = |limit| {
            memory(cgroup::MemoryStats {
                limit_bytes: limit,
                ..cgroup::MemoryStats::default()
            })
            .limit
        };
        assert_eq!(shown(None), Some(host));
        assert_eq!(shown(Some(u64::MAX)), Some(host));
        assert_eq!(shown(Some(1 << 20)), Some(1 << 20));
    }
}
