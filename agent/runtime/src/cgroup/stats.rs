//! What a cgroup has used: the numbers `docker stats` and `events --stats` are made of.

use serde::{Deserialize, Serialize};

/// Usage of one cgroup at one moment. A controller that is not there leaves its part at `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Number of tasks.
    pub pids: Option<PidsStats>,
    /// Block I/O per device.
    pub blkio: Vec<BlkioStats>,
}

/// Processor time in nanoseconds since the cgroup was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Per processor, v1 only.
    pub per_cpu_ns: Vec<u64>,
    /// Enforcement periods with a quota set.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for quota.
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage_bytes: u64,
    /// Highest use so far.
    pub max_usage_bytes: Option<u64>,
    /// The limit; `None` is unlimited.
    pub limit_bytes: Option<u64>,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// Swap in use.
    pub swap_bytes: Option<u64>,
    /// `memory.stat`, names and values as the kernel gives them.
    pub detail: std::collections::BTreeMap<String, u64>,
}

impl MemoryStats {
    /// Use without inactive page cache, as `docker stats` shows it.
    pub fn working_set_bytes(&self) -> u64 {
        let inactive = self
            .detail
            .get("total_inactive_file")
            .or_else(|| self.detail.get("inactive_file"));
        match inactive {
            Some(inactive) if *inactive < self.usage_bytes => self.usage_bytes - inactive,
            _ => self.usage_bytes,
        }
    }
}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
}

/// Block I/O of one device since the cgroup was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioStats {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_operations: u64,
    /// Write operations.
    pub write_operations: u64,
}
