//! `update`: other limits for a running container.

use std::io::Read;

use super::args::UpdateArgs;
use super::log::Log;
use super::state::Store;
use super::{OciError, bundle, failed, resources};
use crate::cgroup::Resources;

/// Applies limits from a file or from flags.
pub(super) fn update(store: &Store, args: &UpdateArgs, log: &Log) -> Result<(), OciError> {
    let container = store.open(&args.id)?;
    let limits = match &args.resources {
        Some(path) => {
            let value = if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin()
                    .take(1 << 20)
                    .read_to_string(&mut text)
                    .map_err(failed("read standard input"))?;
                serde_json::from_str(&text)
                    .map_err(|error| OciError::Invalid(format!("standard input: {error}")))?
            } else {
                bundle::read_json(path)?
            };
            let from = serde_json::from_value(value)
                .map_err(|error| OciError::Invalid(format!("resources: {error}")))?;
            resources::translate(&from)?
        }
        None => Resources {
            cpu_shares: args.cpu_share,
            cpu_quota_us: args.cpu_quota,
            cpu_period_us: args.cpu_period,
            cpu_burst_us: args.cpu_burst,
            cpu_idle: args.cpu_idle,
            cpu_rt_period_us: args.cpu_rt_period,
            cpu_rt_runtime_us: args.cpu_rt_runtime,
            cpuset_cpus: args.cpuset_cpus.clone(),
            cpuset_mems: args.cpuset_mems.clone(),
            memory_bytes: args.memory,
            memory_reservation_bytes: args.memory_reservation,
            memory_swap_bytes: args.memory_swap,
            pids: args.pids_limit,
            blkio_weight: args.blkio_weight,
            ..Resources::default()
        },
    };
    for warning in container.cgroup()?.update(&limits)? {
        log.warning(&warning);
    }
    Ok(())
}
