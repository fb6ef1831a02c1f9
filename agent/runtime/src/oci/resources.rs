//! `linux.resources` of a bundle to limits.

use oci_spec::runtime::{LinuxDeviceType, LinuxResources};

use super::OciError;
use crate::cgroup::{BlkioRate, BlkioThrottle, DeviceAccess, DeviceKind, DeviceRule, Resources};

/// Translates; what cannot be applied is refused by name.
pub(super) fn translate(from: &LinuxResources) -> Result<Resources, OciError> {
    let mut to = Resources::default();
    if from
        .network()
        .as_ref()
        .is_some_and(|network| network.class_id().is_some() || network.priorities().is_some())
    {
        return Err(unsupported("network"));
    }
    if from.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return Err(unsupported("rdma"));
    }
    if let Some(cpu) = from.cpu() {
        to.cpu_shares = cpu.shares();
        to.cpu_quota_us = cpu.quota();
        to.cpu_period_us = cpu.period();
        to.cpu_burst_us = cpu.burst();
        to.cpu_idle = cpu.idle();
        to.cpu_rt_period_us = cpu.realtime_period();
        to.cpu_rt_runtime_us = cpu.realtime_runtime();
        to.cpuset_cpus = cpu.cpus().clone();
        to.cpuset_mems = cpu.mems().clone();
    }
    if let Some(memory) = from.memory() {
        to.memory_bytes = memory.limit();
        to.memory_reservation_bytes = memory.reservation();
        to.memory_swap_bytes = memory.swap();
        to.memory_swappiness = memory.swappiness();
        to.oom_kill_disable = memory.disable_oom_killer().unwrap_or(false);
    }
    to.pids = from
        .pids()
        .as_ref()
        .map(oci_spec::runtime::LinuxPids::limit);
    for limit in from.hugepage_limits().iter().flatten() {
        to.hugepages.insert(
            limit.page_size().clone(),
            u64::try_from(limit.limit()).unwrap_or(u64::MAX),
        );
    }
    for (file, value) in from.unified().iter().flatten() {
        to.unified.insert(file.clone(), value.clone());
    }
    if let Some(io) = from.block_io() {
        to.blkio_weight = io.weight();
        if io.leaf_weight().is_some_and(|weight| weight != 0)
            || io.weight_device().as_ref().is_some_and(|d| !d.is_empty())
        {
            return Err(unsupported("blockIO.leafWeight and weightDevice"));
        }
        for (devices, kind) in [
            (io.throttle_read_bps_device(), BlkioRate::ReadBytes),
            (io.throttle_write_bps_device(), BlkioRate::WriteBytes),
            (io.throttle_read_iops_device(), BlkioRate::ReadOperations),
            (io.throttle_write_iops_device(), BlkioRate::WriteOperations),
        ] {
            for device in devices.iter().flatten() {
                to.blkio_throttle.push(BlkioThrottle {
                    major: u32::try_from(device.major()).unwrap_or(0),
                    minor: u32::try_from(device.minor()).unwrap_or(0),
                    kind,
                    rate: device.rate(),
                });
            }
        }
    }
    for rule in from.devices().iter().flatten() {
        to.devices.push(device_rule(rule)?);
    }
    Ok(to)
}

fn unsupported(what: &str) -> OciError {
    OciError::Invalid(format!("linux.resources.{what} is not supported"))
}

fn device_rule(rule: &oci_spec::runtime::LinuxDeviceCgroup) -> Result<DeviceRule, OciError> {
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let access = rule
        .access()
        .clone()
        .filter(|access| !access.is_empty())
        .unwrap_or_else(|| "rwm".into());
    Ok(DeviceRule {
        allow: rule.allow(),
        kind: match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(DeviceKind::Block),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(DeviceKind::Char),
            LinuxDeviceType::P => {
                return Err(OciError::Invalid(
                    "a device rule for FIFOs makes no sense".into(),
                ));
            }
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: DeviceAccess::parse(&access).ok_or_else(|| {
            OciError::Invalid(format!(
                "device access {access:?} is not made of r, w and m"
            ))
        })?,
    })
}
