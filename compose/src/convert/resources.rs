//! Limits and shares of a container. `deploy.resources` wins over the attributes of the service; the loader has
//! checked that they do not contradict each other.

use agent_api::{DeviceMapping, DeviceRequest, Resources, ThrottleDevice, Ulimit, WeightDevice};
use compose_model::{Bytes, DeviceCount, ServiceConfig};

/// `Resources` of a service's container.
pub(super) fn resources(service: &ServiceConfig) -> Resources {
    let bytes = |value: Option<Bytes>| value.map_or(0, |bytes| bytes.0);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (devices, cdi) = devices(service);
    let mut resources = Resources {
        cpu_shares: service.cpu_shares.unwrap_or(0),
        memory: bytes(service.mem_limit),
        nano_cpus: nano(service.cpus),
        cgroup_parent: text(&service.cgroup_parent),
        cpu_period: service.cpu_period.unwrap_or(0),
        cpu_quota: service.cpu_quota.unwrap_or(0),
        cpu_realtime_period: service.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: service.cpu_rt_runtime.unwrap_or(0),
        cpuset_cpus: text(&service.cpuset),
        devices,
        device_cgroup_rules: (!service.device_cgroup_rules.is_empty())
            .then(|| service.device_cgroup_rules.clone()),
        memory_reservation: bytes(service.mem_reservation),
        memory_swap: bytes(service.memswap_limit),
        memory_swappiness: service.mem_swappiness.map(|bytes| bytes.0),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        pids_limit: service.pids_limit,
        ulimits: service
            .ulimits
            .iter()
            .map(|(name, limit)| Ulimit {
                name: name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        ..Resources::default()
    };
    block_io(service, &mut resources);
    let mut requests: Vec<DeviceRequest> = service
        .gpus
        .iter()
        .map(|request| device_request(request, Some("gpu")))
        .chain(cdi)
        .collect();
    if let Some(deploy) = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.resources.as_ref())
    {
        if let Some(limits) = &deploy.limits {
            resources.nano_cpus = limits
                .cpus
                .map_or(resources.nano_cpus, |cpus| nano(Some(cpus)));
            resources.memory = limits.memory.map_or(resources.memory, |bytes| bytes.0);
            resources.pids_limit = limits
                .pids
                .filter(|pids| *pids != 0)
                .or(resources.pids_limit);
        }
        if let Some(reservations) = &deploy.reservations {
            resources.memory_reservation = reservations
                .memory
                .map_or(resources.memory_reservation, |bytes| bytes.0);
            requests.extend(
                reservations
                    .devices
                    .iter()
                    .map(|request| device_request(request, None)),
            );
        }
    }
    resources.device_requests = (!requests.is_empty()).then_some(requests);
    resources
}

/// CPUs in units of 1e-9.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of processors times 1e9 fits, and casts saturate"
)]
fn nano(cpus: Option<f64>) -> i64 {
    cpus.map_or(0, |cpus| (cpus * 1e9).round() as i64)
}

/// Device nodes, and requests for names in CDI form (`vendor.com/class=name`).
fn devices(service: &ServiceConfig) -> (Vec<DeviceMapping>, Vec<DeviceRequest>) {
    let (paths, names): (Vec<_>, Vec<_>) = service
        .devices
        .iter()
        .partition(|device| device.source.starts_with('/'));
    let mapping = |device: &&compose_model::DeviceMapping| DeviceMapping {
        path_on_host: device.source.clone(),
        path_in_container: device
            .target
            .clone()
            .unwrap_or_else(|| device.source.clone()),
        cgroup_permissions: device
            .permissions
            .clone()
            .unwrap_or_else(|| "rwm".to_owned()),
    };
    let cdi = (!names.is_empty()).then(|| DeviceRequest {
        driver: "cdi".to_owned(),
        device_ids: Some(names.iter().map(|device| device.source.clone()).collect()),
        ..DeviceRequest::default()
    });
    (
        paths.iter().map(mapping).collect(),
        cdi.into_iter().collect(),
    )
}

fn device_request(
    request: &compose_model::DeviceRequest,
    capability: Option<&str>,
) -> DeviceRequest {
    let mut capabilities = request.capabilities.clone();
    if let Some(capability) =
        capability.filter(|name| !capabilities.iter().any(|known| known == name))
    {
        capabilities.push(capability.to_owned());
    }
    let ids = &request.device_ids;
    DeviceRequest {
        driver: request.driver.clone().unwrap_or_default(),
        count: match request.count {
            Some(DeviceCount::Number(count)) => i64::from(count),
            None if !ids.is_empty() => 0,
            Some(DeviceCount::All) | None => -1,
        },
        device_ids: (!ids.is_empty()).then(|| ids.clone()),
        capabilities: Some(vec![capabilities]),
        options: (!request.options.is_empty()).then(|| {
            request
                .options
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }),
    }
}

fn block_io(service: &ServiceConfig, resources: &mut Resources) {
    let Some(config) = &service.blkio_config else {
        return;
    };
    let throttle = |devices: &[compose_model::ThrottleDevice]| {
        let limit = |device: &compose_model::ThrottleDevice| ThrottleDevice {
            path: device.path.clone(),
            rate: device
                .rate
                .map_or(0, |rate| u64::try_from(rate.0).unwrap_or(0)),
        };
        devices.iter().map(limit).collect()
    };
    resources.blkio_weight = config.weight.unwrap_or(0);
    resources.blkio_weight_device = config
        .weight_device
        .iter()
        .map(|device| WeightDevice {
            path: device.path.clone(),
            weight: device.weight.unwrap_or(0),
        })
        .collect();
    resources.blkio_device_read_bps = throttle(&config.device_read_bps);
    resources.blkio_device_read_iops = throttle(&config.device_read_iops);
    resources.blkio_device_write_bps = throttle(&config.device_write_bps);
    resources.blkio_device_write_iops = throttle(&config.device_write_iops);
}
