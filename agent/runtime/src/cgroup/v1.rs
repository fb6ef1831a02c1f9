//! Limits on v1 hierarchies.
//!
//! Order matters in three places: a new cpuset is empty and must be filled from its parent before anybody joins; memory
//! may never be above memory+swap, so raising writes the sum first and lowering writes it last; a device list starts
//! from its parent's. Sources: kernel `Documentation/admin-guide/cgroup-v1`, `opencontainers/cgroups` `fs/*.go`.

use std::path::Path;

use super::files::{failed, is_missing, read, read_limit, write};
use super::{BlkioRate, Cgroup, CgroupError, DeviceKind, DeviceRule, Resources};

/// Writes what is set.
pub(super) fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<Vec<String>, CgroupError> {
    let mut warnings = Vec::new();
    if let Some((file, _)) = resources.unified.iter().next() {
        return Err(CgroupError::Invalid {
            what: format!("unified resource {file}"),
            reason: "this host has cgroup v1; only v2 has such files".into(),
        });
    }
    let target = Writer { cgroup };
    cpu(&target, resources)?;
    cpuset(&target, resources)?;
    memory(&target, resources, &mut warnings)?;
    if let Some(limit) = resources.pids {
        let value = if limit <= 0 {
            "max".to_owned()
        } else {
            limit.to_string()
        };
        target.write("pids limit", "pids", "pids.max", &value)?;
    }
    blkio(&target, resources, &mut warnings)?;
    for (size, bytes) in &resources.hugepages {
        target.write(
            "huge page limit",
            "hugetlb",
            &format!("hugetlb.{size}.limit_in_bytes"),
            &bytes.to_string(),
        )?;
    }
    devices(&target, &resources.devices)?;
    Ok(warnings)
}

/// Writes into the directory of a controller.
struct Writer<'a> {
    cgroup: &'a Cgroup,
}

impl<'a> Writer<'a> {
    fn directory(
        &self,
        limit: &'static str,
        controller: &'static str,
    ) -> Result<&'a Path, CgroupError> {
        self.cgroup
            .v1_directory(controller)
            .ok_or(CgroupError::NoController { limit, controller })
    }

    fn write(
        &self,
        limit: &'static str,
        controller: &'static str,
        file: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        write(&self.directory(limit, controller)?.join(file), value)
    }
}

fn cpu(target: &Writer<'_>, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
        target.write("cpu shares", "cpu", "cpu.shares", &shares.to_string())?;
    }
    if let Some(idle) = resources.cpu_idle {
        target.write("cpu idle", "cpu", "cpu.idle", &idle.to_string())?;
    }
    // Period and quota limit each other: whichever write fails first is tried again after the other one.
    let period = resources.cpu_period_us.filter(|period| *period != 0);
    let quota = resources.cpu_quota_us.filter(|quota| *quota != 0);
    let write_period = |period: u64| {
        target.write(
            "cpu period",
            "cpu",
            "cpu.cfs_period_us",
            &period.to_string(),
        )
    };
    let write_quota =
        |quota: i64| target.write("cpu quota", "cpu", "cpu.cfs_quota_us", &quota.to_string());
    match (period, quota) {
        (Some(period), Some(quota)) => {
            if write_period(period).is_err() {
                write_quota(quota)?;
                write_period(period)?;
            } else {
                write_quota(quota)?;
            }
        }
        (Some(period), None) => write_period(period)?,
        (None, Some(quota)) => write_quota(quota)?,
        (None, None) => {}
    }
    if let Some(burst) = resources.cpu_burst_us {
        target.write("cpu burst", "cpu", "cpu.cfs_burst_us", &burst.to_string())?;
    }
    if let Some(period) = resources.cpu_rt_period_us.filter(|period| *period != 0) {
        target.write(
            "cpu real-time period",
            "cpu",
            "cpu.rt_period_us",
            &period.to_string(),
        )?;
    }
    if let Some(runtime) = resources.cpu_rt_runtime_us.filter(|runtime| *runtime != 0) {
        target.write(
            "cpu real-time runtime",
            "cpu",
            "cpu.rt_runtime_us",
            &runtime.to_string(),
        )?;
    }
    Ok(())
}

fn cpuset(target: &Writer<'_>, resources: &Resources) -> Result<(), CgroupError> {
    let set = |value: &Option<String>| value.clone().filter(|list| !list.is_empty());
    if let Some(cpus) = set(&resources.cpuset_cpus) {
        target.write("cpuset cpus", "cpuset", "cpuset.cpus", &cpus)?;
    }
    if let Some(mems) = set(&resources.cpuset_mems) {
        target.write("cpuset mems", "cpuset", "cpuset.mems", &mems)?;
    }
    Ok(())
}

/// Gives a new cpuset, and every one between it and the hierarchy's root, its parent's processors and nodes.
pub(super) fn fill_cpuset(mount: &Path, path: &Path) -> Result<(), CgroupError> {
    let Ok(relative) = path.strip_prefix(mount) else {
        return Ok(());
    };
    let mut parent = mount.to_owned();
    for name in relative.components() {
        let child = parent.join(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&child.join(file))?.trim().is_empty() {
                let inherited = read(&parent.join(file))?;
                write(&child.join(file), inherited.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

fn memory(
    target: &Writer<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), CgroupError> {
    let limit = resources.memory_bytes.filter(|bytes| *bytes != 0);
    let mut sum = resources.memory_swap_bytes.filter(|bytes| *bytes != 0);
    if limit == Some(-1) && sum.is_none() {
        sum = Some(-1);
    }
    if limit.is_some() || sum.is_some() {
        let directory = target.directory("memory limit", "memory")?;
        if sum.is_some() && !directory.join("memory.memsw.limit_in_bytes").exists() {
            sum = None;
            warnings.push("Your kernel does not support swap limit capabilities. Memory limited without swap.".into());
        }
        if let (Some(limit), Some(sum)) = (limit, sum)
            && sum > 0
            && sum < limit
        {
            return Err(CgroupError::Invalid {
                what: format!("memory+swap limit {sum}"),
                reason: format!(
                    "it is below the memory limit {limit}; it counts memory and swap together"
                ),
            });
        }
        memory_and_sum(directory, limit, sum)?;
    }
    if let Some(reservation) = resources
        .memory_reservation_bytes
        .filter(|bytes| *bytes != 0)
    {
        target.write(
            "memory reservation",
            "memory",
            "memory.soft_limit_in_bytes",
            &reservation.to_string(),
        )?;
    }
    if resources.oom_kill_disable {
        target.write("oom kill disable", "memory", "memory.oom_control", "1")?;
    }
    if let Some(swappiness) = resources.memory_swappiness {
        if swappiness > 100 {
            return Err(CgroupError::Invalid {
                what: format!("memory swappiness {swappiness}"),
                reason: "it is between 0 and 100".into(),
            });
        }
        target.write(
            "memory swappiness",
            "memory",
            "memory.swappiness",
            &swappiness.to_string(),
        )?;
    }
    Ok(())
}

/// The kernel keeps memory ≤ memory+swap at every moment.
fn memory_and_sum(
    directory: &Path,
    limit: Option<i64>,
    sum: Option<i64>,
) -> Result<(), CgroupError> {
    let limit_file = directory.join("memory.limit_in_bytes");
    let sum_file = directory.join("memory.memsw.limit_in_bytes");
    let write_limit = |value: i64| write(&limit_file, &value.to_string());
    match (limit, sum) {
        (Some(limit), Some(sum)) => {
            let current = read_limit(&limit_file)?.unwrap_or(u64::MAX);
            let raising = sum < 0 || u64::try_from(sum).is_ok_and(|sum| sum >= current);
            if raising {
                write(&sum_file, &sum.to_string())?;
                write_limit(limit)
            } else {
                write_limit(limit)?;
                write(&sum_file, &sum.to_string())
            }
        }
        (Some(limit), None) => write_limit(limit).map_err(|error| explain_in_use(error, directory)),
        (None, Some(sum)) => write(&sum_file, &sum.to_string()),
        (None, None) => Ok(()),
    }
}

/// Says why the kernel refuses a limit that memory in use exceeds already.
fn explain_in_use(error: CgroupError, directory: &Path) -> CgroupError {
    match error {
        CgroupError::Io {
            action,
            path,
            source,
        } if source.raw_os_error() == Some(libc::EBUSY) => {
            let usage = read(&directory.join("memory.usage_in_bytes")).unwrap_or_default();
            failed(
                action,
                &path,
                std::io::Error::other(format!("{} bytes are in use", usage.trim())),
            )
        }
        other => other,
    }
}

fn blkio(
    target: &Writer<'_>,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), CgroupError> {
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        let directory = target.directory("block I/O weight", "blkio")?;
        // The name depends on the scheduler; with none that weighs, the file does not exist.
        let written =
            ["blkio.bfq.weight", "blkio.weight"]
                .into_iter()
                .find_map(
                    |file| match write(&directory.join(file), &weight.to_string()) {
                        Err(error) if is_missing(&error) => None,
                        other => Some(other),
                    },
                );
        match written {
            Some(result) => result?,
            None => warnings
                .push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into()),
        }
    }
    for throttle in &resources.blkio_throttle {
        let file = match throttle.kind {
            BlkioRate::ReadBytes => "blkio.throttle.read_bps_device",
            BlkioRate::WriteBytes => "blkio.throttle.write_bps_device",
            BlkioRate::ReadOperations => "blkio.throttle.read_iops_device",
            BlkioRate::WriteOperations => "blkio.throttle.write_iops_device",
        };
        let value = format!("{}:{} {}", throttle.major, throttle.minor, throttle.rate);
        target.write("block I/O limit", "blkio", file, &value)?;
    }
    Ok(())
}

fn devices(target: &Writer<'_>, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if rules.is_empty() {
        return Ok(());
    }
    let directory = target.directory("device rules", "devices")?;
    let allow = super::files::open_for_writing(&directory.join("devices.allow"))?;
    let deny = super::files::open_for_writing(&directory.join("devices.deny"))?;
    for rule in super::resources::closed(rules) {
        let (file, name) = if rule.allow {
            (&allow, "devices.allow")
        } else {
            (&deny, "devices.deny")
        };
        let text = rule_text(&rule);
        rustix::io::write(file, text.as_bytes())
            .map_err(|errno| failed(format!("write {text:?} to"), &directory.join(name), errno))?;
    }
    Ok(())
}

/// A rule as the kernel reads it. `a` alone stands for everything.
fn rule_text(rule: &DeviceRule) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let kind = match rule.kind {
        None => return "a".to_owned(),
        Some(DeviceKind::Block) => 'b',
        Some(DeviceKind::Char | DeviceKind::Fifo) => 'c',
    };
    format!(
        "{kind} {}:{} {}",
        number(rule.major),
        number(rule.minor),
        rule.access
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_written_as_the_kernel_reads_them() {
        let texts: Vec<String> = crate::spec::default_device_rules()
            .iter()
            .map(rule_text)
            .collect();
        assert_eq!(texts[..4], ["a", "c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(texts.last().unwrap(), "c 136:* rwm");
    }
}
