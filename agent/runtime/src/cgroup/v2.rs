//! Limits on the unified hierarchy.
//!
//! Values given in v1's terms are converted as `opencontainers/cgroups` does it (shares to weight since its 2025
//! formula, memory+swap to swap). Source of the files: kernel `Documentation/admin-guide/cgroup-v2.rst`.

use std::path::Path;

use super::files::{failed, is_missing, make_directory, read, write};
use super::{BlkioRate, CgroupError, Resources, bpf};

/// Makes every directory from the root to `path` and, with `controllers`, hands all controllers down to it.
pub(super) fn make_directories(
    root: &Path,
    path: &Path,
    controllers: bool,
) -> Result<(), CgroupError> {
    if !controllers {
        return make_directory(path);
    }
    let Ok(relative) = path.strip_prefix(root) else {
        return make_directory(path);
    };
    let mut parent = root.to_owned();
    for name in relative.components() {
        hand_down(&parent)?;
        parent.push(name);
        make_directory(&parent)?;
    }
    Ok(())
}

/// Enables every controller a cgroup has for its children. One that cannot be enabled here (a real-time task, a
/// delegation without it) is left out: asking for a limit of it fails later, by name.
fn hand_down(parent: &Path) -> Result<(), CgroupError> {
    let available = read(&parent.join("cgroup.controllers"))?;
    let control = parent.join("cgroup.subtree_control");
    let enabled = read(&control)?;
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|e| e == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() || write(&control, &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in missing {
        let _ = write(&control, &controller);
    }
    Ok(())
}

/// Writes what is set.
pub(super) fn apply(directory: &Path, resources: &Resources) -> Result<Vec<String>, CgroupError> {
    let mut warnings = Vec::new();
    let target = Writer { directory };
    cpu(&target, resources)?;
    memory(&target, resources, &mut warnings)?;
    if let Some(limit) = resources.pids {
        target.write(
            "pids limit",
            "pids",
            "pids.max",
            &limit_text(limit, limit <= 0),
        )?;
    }
    io(&target, resources, &mut warnings)?;
    for (size, bytes) in &resources.hugepages {
        target.write(
            "huge page limit",
            "hugetlb",
            &format!("hugetlb.{size}.max"),
            &bytes.to_string(),
        )?;
    }
    if !resources.devices.is_empty() {
        bpf::restrict_devices(directory, &resources.devices)?;
    }
    for (file, value) in &resources.unified {
        let plain = !file.is_empty() && !file.contains('/') && file.contains('.');
        if !plain || file.starts_with("cgroup.") {
            return Err(CgroupError::Invalid {
                what: format!("unified resource {file:?}"),
                reason: "name a limit file such as memory.high".into(),
            });
        }
        write(&directory.join(file), value)?;
    }
    Ok(warnings)
}

struct Writer<'a> {
    directory: &'a Path,
}

impl Writer<'_> {
    fn write(
        &self,
        limit: &'static str,
        controller: &'static str,
        file: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        match write(&self.directory.join(file), value) {
            Err(error) if is_missing(&error) => {
                Err(CgroupError::NoController { limit, controller })
            }
            other => other,
        }
    }
}

fn limit_text(value: i64, unlimited: bool) -> String {
    if unlimited {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn cpu(target: &Writer<'_>, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
        target.write(
            "cpu shares",
            "cpu",
            "cpu.weight",
            &weight_of_shares(shares).to_string(),
        )?;
    }
    if let Some(idle) = resources.cpu_idle {
        target.write("cpu idle", "cpu", "cpu.idle", &idle.to_string())?;
    }
    let quota = resources.cpu_quota_us.filter(|quota| *quota != 0);
    let period = resources.cpu_period_us.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| limit_text(quota, quota < 0));
        let value = match period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        target.write("cpu quota", "cpu", "cpu.max", &value)?;
    }
    if let Some(burst) = resources.cpu_burst_us {
        target.write("cpu burst", "cpu", "cpu.max.burst", &burst.to_string())?;
    }
    let real_time = resources.cpu_rt_period_us.unwrap_or(0) != 0
        || resources.cpu_rt_runtime_us.unwrap_or(0) != 0;
    if real_time {
        return Err(CgroupError::NoController {
            limit: "cpu real-time limits",
            controller: "cpu (v1)",
        });
    }
    for (list, limit, file) in [
        (&resources.cpuset_cpus, "cpuset cpus", "cpuset.cpus"),
        (&resources.cpuset_mems, "cpuset mems", "cpuset.mems"),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            target.write(limit, "cpuset", file, list)?;
        }
    }
    Ok(())
}

/// 2..262144 to 1..10000 through (2,1), (1024,100), (262144,10000).
fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

fn memory(
    target: &Writer<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), CgroupError> {
    let limit = resources.memory_bytes.filter(|bytes| *bytes != 0);
    let sum = resources.memory_swap_bytes.filter(|bytes| *bytes != 0);
    let swap = swap_of_sum(limit, sum)?;
    if let Some(swap) = swap {
        match target.write("swap limit", "memory", "memory.swap.max", &limit_text(swap, swap < 0)) {
            Err(CgroupError::NoController { .. }) if limit.is_some() => warnings
                .push("Your kernel does not support swap limit capabilities. Memory limited without swap.".into()),
            other => other?,
        }
    }
    if let Some(limit) = limit {
        // The kernel would start killing: say so instead.
        let usage =
            super::files::read_number(&target.directory.join("memory.current")).unwrap_or(0);
        if u64::try_from(limit).is_ok_and(|limit| limit < usage) {
            let in_use = std::io::Error::other(format!("{usage} bytes are in use"));
            return Err(failed(
                format!("write {limit} to"),
                &target.directory.join("memory.max"),
                in_use,
            ));
        }
        target.write(
            "memory limit",
            "memory",
            "memory.max",
            &limit_text(limit, limit < 0),
        )?;
    }
    if let Some(reservation) = resources
        .memory_reservation_bytes
        .filter(|bytes| *bytes != 0)
    {
        let value = limit_text(reservation, reservation < 0);
        target.write("memory reservation", "memory", "memory.low", &value)?;
    }
    if resources.oom_kill_disable {
        warnings
            .push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
    }
    if resources.memory_swappiness.is_some() {
        warnings.push("Your kernel does not support memory swappiness capabilities. Memory swappiness discarded.".into());
    }
    Ok(())
}

/// Swap alone from memory and memory+swap.
fn swap_of_sum(limit: Option<i64>, sum: Option<i64>) -> Result<Option<i64>, CgroupError> {
    let invalid = |reason: &str| CgroupError::Invalid {
        what: format!("memory+swap limit {}", sum.unwrap_or_default()),
        reason: reason.to_owned(),
    };
    match (limit, sum) {
        (Some(-1), None) | (_, Some(-1)) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (None | Some(-1), Some(_)) => Err(invalid("it needs a memory limit too")),
        (Some(limit), Some(sum)) if sum < limit => Err(invalid(
            "it is below the memory limit; it counts memory and swap together",
        )),
        (Some(limit), Some(sum)) => Ok(Some(sum - limit)),
    }
}

fn io(
    target: &Writer<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), CgroupError> {
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        let weight = u64::from(weight);
        let converted = 1 + weight.saturating_sub(10) * 9999 / 990;
        let written = [("io.bfq.weight", weight), ("io.weight", converted)]
            .into_iter()
            .find_map(|(file, value)| {
                match write(&target.directory.join(file), &value.to_string()) {
                    Err(error) if is_missing(&error) => None,
                    other => Some(other),
                }
            });
        match written {
            Some(result) => result?,
            None => warnings
                .push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into()),
        }
    }
    for throttle in &resources.blkio_throttle {
        let key = match throttle.kind {
            BlkioRate::ReadBytes => "rbps",
            BlkioRate::WriteBytes => "wbps",
            BlkioRate::ReadOperations => "riops",
            BlkioRate::WriteOperations => "wiops",
        };
        let value = format!(
            "{}:{} {key}={}",
            throttle.major, throttle.minor, throttle.rate
        );
        target.write("block I/O limit", "io", "io.max", &value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_through_the_three_fixed_points() {
        for (shares, weight) in [
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (512, 59),
            (2048, 174),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn swap_is_what_is_left_of_the_sum() {
        assert_eq!(swap_of_sum(Some(100), Some(300)).unwrap(), Some(200));
        assert_eq!(swap_of_sum(Some(100), Some(100)).unwrap(), Some(0));
        assert_eq!(swap_of_sum(Some(100), Some(-1)).unwrap(), Some(-1));
        assert_eq!(swap_of_sum(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap_of_sum(Some(100), None).unwrap(), None);
        assert!(swap_of_sum(None, Some(300)).is_err());
        assert!(swap_of_sum(Some(100), Some(50)).is_err());
    }
}
