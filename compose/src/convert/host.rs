//! The host's half of a container: mounts, ports, namespaces, security, restart policy.

use agent_api::{HostConfig, LogConfig, PortBinding, PortMap, RestartPolicy};
use compose_model::{DeployRestartPolicy, ServiceConfig};

use super::{ContainerSpec, mounts, networks, resources};

/// `HostConfig` of a service's container.
pub(super) fn host_config(spec: &ContainerSpec<'_>) -> HostConfig {
    let service = spec.service;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    let (binds, mounts) = mounts::mounts(spec);
    HostConfig {
        binds: (!binds.is_empty()).then_some(binds),
        log_config: log_config(service),
        network_mode: networks::mode(spec),
        port_bindings: port_bindings(service),
        restart_policy: restart_policy(service),
        volumes_from: list(&volumes_from(service)),
        annotations: (!service.annotations.is_empty()).then(|| {
            service
                .annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }),
        cap_add: list(&capabilities(&service.cap_add)),
        cap_drop: list(&capabilities(&service.cap_drop)),
        cgroupns_mode: text(&service.cgroup),
        dns: service.dns.clone(),
        dns_options: service.dns_opt.clone(),
        dns_search: service.dns_search.clone(),
        extra_hosts: list(&extra_hosts(&service.extra_hosts)),
        group_add: list(&service.group_add),
        ipc_mode: text(&service.ipc),
        links: list(&networks::links(spec)),
        oom_score_adj: service
            .oom_score_adj
            .map_or(0, |score| i32::try_from(score).unwrap_or(i32::MAX)),
        pid_mode: text(&service.pid),
        privileged: service.privileged,
        readonly_rootfs: service.read_only,
        security_opt: list(&service.security_opt),
        storage_opt: (!service.storage_opt.is_empty()).then(|| {
            service
                .storage_opt
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }),
        tmpfs: (!service.tmpfs.is_empty())
            .then(|| service.tmpfs.iter().map(|entry| tmpfs(entry)).collect()),
        uts_mode: text(&service.uts),
        userns_mode: text(&service.userns_mode),
        shm_size: service.shm_size.map_or(0, |size| size.0),
        sysctls: (!service.sysctls.is_empty()).then(|| {
            service
                .sysctls
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        }),
        runtime: service.runtime.clone(),
        isolation: text(&service.isolation),
        resources: resources::resources(service),
        mounts: (!mounts.is_empty()).then_some(mounts),
        init: service.init,
        ..HostConfig::default()
    }
}

/// `deploy.restart_policy` wins over `restart`, as in docker compose.
fn restart_policy(service: &ServiceConfig) -> RestartPolicy {
    let deploy = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.restart_policy.as_ref());
    if let Some(policy) = deploy {
        return deploy_restart_policy(policy);
    }
    let policy = |name: &str, maximum_retry_count| RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    };
    match service.restart {
        None => RestartPolicy::default(),
        Some(compose_model::RestartPolicy::No) => policy("no", 0),
        Some(compose_model::RestartPolicy::Always) => policy("always", 0),
        Some(compose_model::RestartPolicy::UnlessStopped) => policy("unless-stopped", 0),
        Some(compose_model::RestartPolicy::OnFailure { max_retries }) => {
            policy("on-failure", max_retries.map_or(0, i64::from))
        }
    }
}

fn deploy_restart_policy(policy: &DeployRestartPolicy) -> RestartPolicy {
    let name = match policy.condition.as_deref() {
        Some("none" | "no") => "no",
        Some("on-failure") => "on-failure",
        Some("unless-stopped") => "unless-stopped",
        // `any`, and the default of the specification.
        _ => "always",
    };
    let attempts = policy
        .max_attempts
        .filter(|_| name == "on-failure")
        .unwrap_or(0);
    RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count: i64::try_from(attempts).unwrap_or(i64::MAX),
    }
}

fn log_config(service: &ServiceConfig) -> LogConfig {
    service
        .logging
        .as_ref()
        .map_or_else(LogConfig::default, |logging| LogConfig {
            kind: logging.driver.clone().unwrap_or_default(),
            config: logging
                .options
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        })
}

fn port_bindings(service: &ServiceConfig) -> PortMap {
    let mut map = PortMap::new();
    for port in &service.ports {
        let binding = PortBinding {
            host_ip: port.host_ip.clone().unwrap_or_default(),
            host_port: port.published.clone().unwrap_or_default(),
        };
        map.entry(format!("{}/{}", port.target, port.protocol()))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_default()
            .push(binding);
    }
    map
}

/// `NET_ADMIN` → `CAP_NET_ADMIN`, upper case, `ALL` alone as it is.
fn capabilities(names: &[String]) -> Vec<String> {
    let normal = |name: &String| {
        let name = name.to_ascii_uppercase();
        if name == "ALL" || name.starts_with("CAP_") {
            name
        } else {
            format!("CAP_{name}")
        }
    };
    names.iter().map(normal).collect()
}

/// `HOST:ADDRESS`, one per address.
/// `host:address`, one for each address.
pub(super) fn extra_hosts(hosts: &compose_model::ExtraHosts) -> Vec<String> {
    let lines = hosts.0.iter();
    lines
        .flat_map(|(host, addresses)| {
            addresses
                .iter()
                .map(move |address| format!("{host}:{address}"))
        })
        .collect()
}

/// `PATH[:OPTIONS]` → path and options.
fn tmpfs(entry: &str) -> (String, String) {
    let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
    (path.to_owned(), options.to_owned())
}

/// `container:NAME[:MODE]` loses its prefix; `SERVICE[:MODE]` stays until the container is known.
fn volumes_from(service: &ServiceConfig) -> Vec<String> {
    let plain = |from: &String| from.strip_prefix("container:").unwrap_or(from).to_owned();
    service.volumes_from.iter().map(plain).collect()
}
