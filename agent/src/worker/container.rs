//! A task as the engine's container: what moby's `daemon/cluster/executor/container/container.go` does. Pure.

use agent_api::swarm::{ContainerSpec, Privileges};
use agent_api::types::{
    ContainerConfig, ContainerCreateRequest, EndpointIpamConfig, EndpointSettings, HostConfig,
    Labels, LogConfig, Mount, MountType, NetworkingConfig, PortBinding, PortMap, Resources, Set,
};
use base64::Engine as _;
use cluster_api::Task;

use super::template::{self, TemplateError, Values};

/// What the node adds to a task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// A network a task is on, as this node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An overlay: name of the network, the ids of the attachment.
    Overlay,
    /// A network every node has for itself: `host`, `bridge`, `none`.
    Local(String),
}

/// A task that cannot be a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("the task has no container")]
    NoContainer,
    #[error("{place}: {source}")]
    Template {
        place: &'static str,
        #[source]
        source: TemplateError,
    },
    #[error("{0} is not supported in a service")]
    Unsupported(String),
    #[error("the seccomp profile of the service is not base64 of a text")]
    Profile,
    #[error("host {0:?}: expected an address and names")]
    Host(String),
}

/// The container's name: the task's and its id.
pub(crate) fn name(task: &Task) -> String {
    format!("{}.{}", task.name(), task.id)
}

/// What placeholders mean in this task.
pub(crate) fn values(task: &Task, node: &Node) -> Values {
    Values {
        service_id: task.service_id.clone(),
        service_name: task.service.name.clone(),
        service_labels: task.service.labels.clone(),
        node_id: node.id.clone(),
        node_hostname: node.hostname.clone(),
        architecture: node.architecture.clone(),
        os: node.os.clone(),
        task_id: task.id.clone(),
        task_name: name(task),
        task_slot: if task.slot == 0 {
            node.id.clone()
        } else {
            task.slot.to_string()
        },
    }
}

/// The request that makes the task's container. `files` are the mounts of its secrets and configs; `place` says what a
/// network of the cluster is on this node.
pub(crate) fn request(
    task: &Task,
    node: &Node,
    files: Vec<Mount>,
    place: impl Fn(&str) -> Place,
) -> Result<ContainerCreateRequest, SpecError> {
    let spec = task
        .spec
        .container_spec
        .as_ref()
        .ok_or(SpecError::NoContainer)?;
    refuse_unsupported(spec)?;
    let values = values(task, node);
    let fill = |place: &'static str, text: &str| {
        template::expand(text, &values).map_err(|source| SpecError::Template { place, source })
    };
    let env = spec
        .env
        .iter()
        .map(|line| fill("environment", line))
        .collect::<Result<Vec<_>, _>>()?;
    let mut mounts = Vec::with_capacity(spec.mounts.len() + files.len());
    for mount in &spec.mounts {
        mounts.push(Mount {
            source: fill("mount", &mount.source)?,
            target: fill("mount", &mount.target)?,
            ..mount.clone()
        });
    }
    mounts.extend(files);
    let (network_mode, endpoints) = networks(task, place);
    let config = ContainerConfig {
        hostname: fill("hostname", &spec.hostname)?,
        user: spec.user.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: (!env.is_empty()).then_some(env),
        entrypoint: (!spec.command.is_empty()).then(|| spec.command.clone()),
        cmd: (!spec.args.is_empty()).then(|| spec.args.clone()),
        image: spec.image.clone(),
        working_dir: spec.dir.clone(),
        labels: labels(task, spec, node),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace_period.map(seconds_up),
        healthcheck: spec.healthcheck.clone(),
        exposed_ports: exposed_ports(task),
        ..ContainerConfig::default()
    };
    let dns = spec.dns_config.clone().unwrap_or_default();
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let host_config = HostConfig {
        network_mode,
        port_bindings: host_ports(task),
        mounts: (!mounts.is_empty()).then_some(mounts),
        group_add: some(&spec.groups),
        readonly_rootfs: spec.read_only,
        init: spec.init,
        dns: dns.nameservers,
        dns_search: dns.search,
        dns_options: dns.options,
        extra_hosts: Some(extra_hosts(&spec.hosts)?).filter(|hosts| !hosts.is_empty()),
        cap_add: some(&spec.capability_add),
        cap_drop: some(&spec.capability_drop),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone()),
        oom_score_adj: i32::try_from(spec.oom_score_adj).unwrap_or(0),
        security_opt: security_options(spec.privileges.as_ref())?,
        log_config: task
            .spec
            .log_driver
            .as_ref()
            .map_or_else(LogConfig::default, |driver| LogConfig {
                kind: driver.name.clone(),
                config: driver.options.clone(),
            }),
        resources: resources(task, spec),
        ..HostConfig::default()
    };
    Ok(ContainerCreateRequest {
        config,
        host_config,
        networking_config: NetworkingConfig {
            endpoints_config: endpoints,
        },
    })
}

/// What the API can say and this node cannot do. The managers refuse most of it before; a task of a newer manager
/// ends here.
fn refuse_unsupported(spec: &ContainerSpec) -> Result<(), SpecError> {
    let unsupported = |what: &str| Err(SpecError::Unsupported(what.to_owned()));
    if !matches!(spec.isolation.as_str(), "" | "default") {
        return unsupported("isolation");
    }
    if let Some(privileges) = &spec.privileges {
        if privileges.credential_spec.is_some() {
            return unsupported("a credential spec");
        }
        if privileges.selinux_context.is_some() {
            return unsupported("an SELinux context");
        }
    }
    Ok(())
}

fn labels(task: &Task, spec: &ContainerSpec, node: &Node) -> Labels {
    let mut labels = spec.labels.clone();
    for (key, value) in [
        ("com.docker.swarm.node.id", node.id.clone()),
        ("com.docker.swarm.service.id", task.service_id.clone()),
        ("com.docker.swarm.service.name", task.service.name.clone()),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", task.id.clone()),
        ("com.docker.swarm.task.name", name(task)),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// The mode, and the endpoints in the order of the attachments.
fn networks(
    task: &Task,
    place: impl Fn(&str) -> Place,
) -> (String, indexmap::IndexMap<String, EndpointSettings>) {
    let mut endpoints = indexmap::IndexMap::new();
    for attachment in &task.networks {
        if let Place::Local(name) = place(&attachment.network_id) {
            return (name, indexmap::IndexMap::new());
        }
        let address = |v6: bool| {
            attachment
                .addresses
                .iter()
                .find(|net| net.addr().is_ipv6() == v6)
                .map_or_else(String::new, |net| net.addr().to_string())
        };
        endpoints.insert(
            attachment.network_id.clone(),
            EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: address(false),
                    ipv6_address: address(true),
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            },
        );
    }
    let mode = endpoints
        .keys()
        .next()
        .cloned()
        .unwrap_or_else(|| "default".to_owned());
    (mode, endpoints)
}

fn exposed_ports(task: &Task) -> Option<Set> {
    let ports: Set = task
        .endpoint
        .ports
        .iter()
        .map(|port| {
            (
                port_key(port.target_port, &port.protocol),
                Default::default(),
            )
        })
        .collect();
    (!ports.is_empty()).then_some(ports)
}

/// Ports published on this node only; those of the whole cluster are not the container's matter.
fn host_ports(task: &Task) -> PortMap {
    let mut ports = PortMap::new();
    for port in &task.endpoint.ports {
        if port.publish_mode != "host" {
            continue;
        }
        let binding = PortBinding {
            host_ip: String::new(),
            host_port: match port.published_port {
                0 => String::new(),
                number => number.to_string(),
            },
        };
        ports
            .entry(port_key(port.target_port, &port.protocol))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    ports
}

fn port_key(port: u16, protocol: &str) -> String {
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    format!("{port}/{protocol}")
}

/// `/etc/hosts` lines (address first) as the engine's `name:address`.
fn extra_hosts(lines: &[String]) -> Result<Vec<String>, SpecError> {
    let mut hosts = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let address = words.next().ok_or_else(|| SpecError::Host(line.clone()))?;
        let before = hosts.len();
        hosts.extend(words.map(|name| format!("{name}:{address}")));
        if hosts.len() == before {
            return Err(SpecError::Host(line.clone()));
        }
    }
    Ok(hosts)
}

fn security_options(privileges: Option<&Privileges>) -> Result<Option<Vec<String>>, SpecError> {
    let Some(privileges) = privileges else {
        return Ok(None);
    };
    let mut options = Vec::new();
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    if let Some(apparmor) = &privileges.apparmor {
        match apparmor["Mode"].as_str() {
            Some("disabled") => options.push("apparmor=unconfined".to_owned()),
            Some("default" | "") | None => {}
            Some(other) => return Err(SpecError::Unsupported(format!("AppArmor mode {other}"))),
        }
    }
    if let Some(seccomp) = &privileges.seccomp {
        match seccomp.mode.as_str() {
            "" | "default" => {}
            "unconfined" => options.push("seccomp=unconfined".to_owned()),
            "custom" => {
                let profile = base64::engine::general_purpose::STANDARD
                    .decode(&seccomp.profile)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or(SpecError::Profile)?;
                options.push(format!("seccomp={profile}"));
            }
            other => return Err(SpecError::Unsupported(format!("seccomp mode {other}"))),
        }
    }
    Ok((!options.is_empty()).then_some(options))
}

fn resources(task: &Task, spec: &ContainerSpec) -> Resources {
    let wanted = task.spec.resources.clone().unwrap_or_default();
    let limits = wanted.limits.unwrap_or_default();
    Resources {
        nano_cpus: limits.nano_cpus,
        memory: limits.memory_bytes,
        pids_limit: (limits.pids > 0).then_some(limits.pids),
        memory_reservation: wanted.reservations.unwrap_or_default().memory_bytes,
        ulimits: spec.ulimits.clone(),
        ..Resources::default()
    }
}

/// Whole seconds, never fewer than asked for.
fn seconds_up(nanos: i64) -> i64 {
    nanos.max(0).div_euclid(1_000_000_000) + i64::from(nanos.max(0) % 1_000_000_000 > 0)
}

/// How a file of a secret or config is mounted.
pub(crate) fn file_mount(source: &std::path::Path, target: &str) -> Mount {
    Mount {
        kind: MountType::Bind,
        source: source.display().to_string(),
        target: target.to_owned(),
        read_only: true,
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_api::swarm::{Annotations, PortConfig, TaskSpec};
    use cluster_api::{Attachment, Endpoint};
    use serde_json::json;

    use super::*;

    fn task(template: serde_json::Value) -> Task {
        Task {
            id: "t1".into(),
            service_id: "s1".into(),
            service: Arc::new(Annotations {
                name: "web".into(),
                ..Annotations::default()
            }),
            slot: 2,
            spec: Arc::new(serde_json::from_value::<TaskSpec>(template).expect("a task template")),
            ..Task::default()
        }
    }

    fn node() -> Node {
        Node {
            id: "n1".into(),
            hostname: "host-1".into(),
            ..Node::default()
        }
    }

    fn made(task: &Task) -> Result<ContainerCreateRequest, SpecError> {
        request(task, &node(), Vec::new(), |id| match id {
            "host-net" => Place::Local("host".into()),
            _ => Place::Overlay,
        })
    }

    #[test]
    fn a_template_becomes_a_container() {
        let mut task = task(json!({
            "ContainerSpec": {
                "Image": "web:1", "Command": ["/srv"], "Args": ["-v"], "Env": ["S={{.Task.Slot}}"],
                "Hostname": "{{.Service.Name}}-{{.Task.Slot}}", "Hosts": ["10.0.0.9 db db.local"],
                "StopGracePeriod": 1_500_000_000, "Labels": {"a": "b"},
                "Mounts": [{"Type": "volume", "Source": "data-{{.Task.Slot}}", "Target": "/data"}]
            },
            "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64, "Pids": 10},
                          "Reservations": {"MemoryBytes": 32}}
        }));
        task.networks = vec![Attachment {
            network_id: "net1".into(),
            addresses: vec!["10.0.1.5/24".parse().expect("an address")],
            aliases: vec![],
        }];
        task.endpoint = Endpoint {
            ports: vec![
                PortConfig {
                    target_port: 80,
                    published_port: 8080,
                    publish_mode: "host".into(),
                    ..PortConfig::default()
                },
                PortConfig {
                    target_port: 81,
                    published_port: 8081,
                    publish_mode: "ingress".into(),
                    ..PortConfig::default()
                },
            ],
            ..Endpoint::default()
        };
        let made = made(&task).expect("a container");
        assert_eq!(name(&task), "web.2.t1");
        assert_eq!(made.config.hostname, "web-2");
        assert_eq!(made.config.env.as_deref(), Some(&["S=2".to_owned()][..]));
        assert_eq!(
            made.config.entrypoint.as_deref(),
            Some(&["/srv".to_owned()][..])
        );
        assert_eq!(made.config.stop_timeout, Some(2));
        assert_eq!(made.config.labels["com.docker.swarm.task.name"], "web.2.t1");
        assert_eq!(made.config.labels["a"], "b");
        let host = &made.host_config;
        assert_eq!(
            host.mounts.as_ref().map(|m| m[0].source.as_str()),
            Some("data-2")
        );
        assert_eq!(
            host.extra_hosts.as_deref(),
            Some(&["db:10.0.0.9".to_owned(), "db.local:10.0.0.9".to_owned()][..])
        );
        assert_eq!(host.port_bindings.keys().collect::<Vec<_>>(), ["80/tcp"]);
        assert_eq!(
            (host.resources.nano_cpus, host.resources.memory),
            (500_000_000, 64)
        );
        assert_eq!(host.resources.memory_reservation, 32);
        assert_eq!(host.network_mode, "net1");
        let endpoint = &made.networking_config.endpoints_config["net1"];
        assert_eq!(
            endpoint
                .ipam_config
                .as_ref()
                .map(|c| c.ipv4_address.as_str()),
            Some("10.0.1.5")
        );
    }

    #[test]
    fn a_network_of_the_node_replaces_all_others() {
        let mut task = task(json!({"ContainerSpec": {"Image": "web:1"}}));
        task.networks = vec![Attachment {
            network_id: "host-net".into(),
            ..Attachment::default()
        }];
        let made = made(&task).expect("a container");
        assert_eq!(made.host_config.network_mode, "host");
        assert!(made.networking_config.endpoints_config.is_empty());
    }

    #[test]
    fn what_a_node_cannot_do_is_refused() {
        for (template, text) in [
            (json!({}), "the task has no container"),
            (
                json!({"ContainerSpec": {"Env": ["A={{.X}}"]}}),
                "environment: {{.X}}: only .Service.ID",
            ),
            (
                json!({"ContainerSpec": {"Isolation": "hyperv"}}),
                "isolation is not supported in a service",
            ),
            (
                json!({"ContainerSpec": {"Privileges": {"Seccomp": {"Mode": "custom", "Profile": "?"}}}}),
                "the seccomp profile",
            ),
            (
                json!({"ContainerSpec": {"Hosts": ["10.0.0.1"]}}),
                "host \"10.0.0.1\"",
            ),
        ] {
            let error = made(&task(template)).expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
