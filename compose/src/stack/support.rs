//! What a stack cannot carry, said aloud: a problem where a task would be something else than the file asks for, a
//! warning where the file stays true without it. Docker drops all of these, most with one line for the whole file
//! (docker/cli `cli/compose/types/types.go`); what it drops and a cluster can carry after all is carried, see `spec`.

use compose_model::{MountType, Project, ServiceConfig};

use crate::convert::support::Finding;

/// Everything about a service that is refused or has no effect in a cluster.
#[must_use]
pub fn check(project: &Project, service: &ServiceConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    refuse(service, &mut findings);
    refuse_values(service, &mut findings);
    mounts(service, &mut findings);
    ports(service, &mut findings);
    networks(project, service, &mut findings);
    ignore(service, &mut findings);
    findings
}

/// Attributes without which a task would not be what the file asks for.
fn refuse(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let of_hosts = "a task of a cluster cannot have it";
    let reserved = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.resources.as_ref())
        .and_then(|resources| resources.reservations.as_ref());
    let attributes = [
        ("privileged", service.privileged, of_hosts),
        ("devices", !service.devices.is_empty(), of_hosts),
        (
            "device_cgroup_rules",
            !service.device_cgroup_rules.is_empty(),
            of_hosts,
        ),
        (
            "gpus",
            !service.gpus.is_empty(),
            "reserve deploy.resources.reservations.generic_resources",
        ),
        (
            "deploy.resources.reservations.devices",
            reserved.is_some_and(|reserved| !reserved.devices.is_empty()),
            "reserve generic_resources",
        ),
        (
            "volumes_from",
            !service.volumes_from.is_empty(),
            "its containers may be on other nodes: name the volumes in both services",
        ),
        (
            "external_links",
            !service.external_links.is_empty(),
            "share a network with an alias",
        ),
        (
            "post_start",
            !service.post_start.is_empty(),
            "nobody would run it when a task starts",
        ),
        (
            "pre_stop",
            !service.pre_stop.is_empty(),
            "nobody would run it when a task stops",
        ),
        (
            "pre_start",
            !service.pre_start.is_empty(),
            "make it a service and depend on it with condition service_completed_successfully",
        ),
        (
            "provider",
            service.provider.is_some(),
            "no cluster knows it",
        ),
        ("use_api_socket", service.use_api_socket, of_hosts),
        (
            "models",
            !service.models.is_empty(),
            "no cluster knows them",
        ),
        (
            "credential_spec",
            service.credential_spec.is_some(),
            "it is for Windows",
        ),
        ("runtime", service.runtime.is_some(), of_hosts),
    ];
    for (attribute, _, instead) in attributes.iter().filter(|(_, set, _)| *set) {
        findings.push(Finding::Refused(format!(
            "{attribute} is not possible in a stack: {instead}"
        )));
    }
    let deploy_mode = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.mode.as_deref());
    let counted = service.scale.is_some()
        || service
            .deploy
            .as_ref()
            .is_some_and(|deploy| deploy.replicas.is_some());
    if matches!(deploy_mode, Some("global" | "global-job")) && counted {
        findings.push(Finding::Refused(
            "replicas can only be used with replicated or replicated-job mode".to_owned(),
        ));
    }
    if service.build.is_some() && service.image.is_none() {
        findings.push(Finding::Refused(
            "it has a build but no image: nodes fetch images by name, so give it one with `image:` and build it first"
                .to_owned(),
        ));
    }
}

/// Attributes that can be carried with some values only.
fn refuse_values(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let mut refuse = |attribute: &str, value: &str, instead: &str| {
        findings.push(Finding::Refused(format!(
            "{attribute}: {value} is not possible in a stack: {instead}"
        )));
    };
    if let Some(mode) = &service.network_mode
        && !matches!(mode.as_str(), "host" | "none" | "bridge")
    {
        refuse(
            "network_mode",
            mode,
            "the other container may be on another node",
        );
    }
    for (attribute, value, harmless) in [
        ("ipc", &service.ipc, &["private", "shareable", "none"][..]),
        ("pid", &service.pid, &[]),
        ("uts", &service.uts, &[]),
        ("userns_mode", &service.userns_mode, &[]),
        ("cgroup", &service.cgroup, &["private"]),
    ] {
        if let Some(value) = value
            && !harmless.contains(&value.as_str())
        {
            refuse(attribute, value, "tasks have namespaces of their own");
        }
    }
    for option in &service.security_opt {
        if super::spec::security_option(option).is_none() {
            refuse(
                "security_opt",
                option,
                "a task may have no-new-privileges, seccomp=unconfined and apparmor=unconfined",
            );
        }
    }
    for link in &service.links {
        if let Some((name, alias)) = link.split_once(':')
            && name != alias
        {
            refuse(
                "links",
                link,
                "give the other service that alias on a network",
            );
        }
    }
}

fn mounts(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    for volume in &service.volumes {
        let target = &volume.target;
        match volume.r#type {
            MountType::Npipe => findings.push(Finding::Refused(format!(
                "a volume of type npipe ({target}) is for Windows"
            ))),
            MountType::Cluster => findings.push(Finding::Refused(format!(
                "a volume of type cluster ({target}) is not supported yet: use a volume or a bind mount"
            ))),
            MountType::Bind if volume.bind.as_ref().is_some_and(|bind| bind.selinux.is_some()) => {
                findings.push(Finding::Ignored(
                    "the SELinux label of a bind mount",
                    format!("mounts of tasks ({target}) are not labelled"),
                ));
            }
            _ => {}
        }
    }
}

fn ports(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    for port in &service.ports {
        let target = port.target;
        if let Some(address) = &port.host_ip
            && !matches!(address.as_str(), "" | "0.0.0.0" | "::")
        {
            findings.push(Finding::Refused(format!(
                "port {target} is published on the address {address} only, and in a cluster it would be on all: leave the address out"
            )));
        }
        if let Some(range) = port.published_range()
            && range.start() != range.end()
        {
            findings.push(Finding::Refused(format!(
                "port {target} is to be published on one of {}-{}: name one port, or none to let the cluster choose",
                range.start(),
                range.end()
            )));
        }
    }
}

fn networks(project: &Project, service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let fixed = service.networks.values().flatten().any(|network| {
        network.ipv4_address.is_some()
            || network.ipv6_address.is_some()
            || network.mac_address.is_some()
            || !network.link_local_ips.is_empty()
    });
    if fixed {
        findings.push(Finding::Ignored(
            "a fixed address on a network",
            "the cluster gives every task its own".to_owned(),
        ));
    }
    let ordered = service.networks.values().flatten().any(|network| {
        network.interface_name.is_some()
            || network.gw_priority.is_some()
            || network.priority.is_some()
    });
    if ordered {
        findings.push(Finding::Ignored(
            "interface_name, priority or gw_priority of a network",
            "the cluster decides how tasks are attached".to_owned(),
        ));
    }
    for key in service.networks.keys() {
        if let Some(network) = project.networks.get(key)
            && network.enable_ipv4 == Some(false)
            && network.enable_ipv6 != Some(true)
        {
            findings.push(Finding::Refused(format!(
                "network {key} has neither IPv4 nor IPv6 addresses"
            )));
        }
    }
}

/// Attributes that tune a host, or that nothing depends on.
fn ignore(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let limits = "set deploy.resources.limits";
    let host = "it belongs to a host";
    for (attribute, set, reason) in [
        (
            "build",
            service.build.is_some() && service.image.is_some(),
            "nothing is built: the image must be there, or in a registry",
        ),
        (
            "container_name",
            service.container_name.is_some(),
            "tasks have names of their own",
        ),
        ("domainname", service.domainname.is_some(), host),
        ("cgroup_parent", service.cgroup_parent.is_some(), host),
        ("mac_address", service.mac_address.is_some(), host),
        ("annotations", !service.annotations.is_empty(), host),
        ("storage_opt", !service.storage_opt.is_empty(), host),
        ("blkio_config", service.blkio_config.is_some(), host),
        ("oom_kill_disable", service.oom_kill_disable, host),
        ("cpuset", service.cpuset.is_some(), host),
        ("cpu_shares", service.cpu_shares.is_some(), limits),
        (
            "cpu_quota or cpu_period",
            service.cpu_quota.is_some() || service.cpu_period.is_some(),
            limits,
        ),
        (
            "cpu_rt_period or cpu_rt_runtime",
            service.cpu_rt_period.is_some() || service.cpu_rt_runtime.is_some(),
            limits,
        ),
        (
            "cpu_count or cpu_percent",
            service.cpu_count.is_some() || service.cpu_percent.is_some(),
            limits,
        ),
        (
            "memswap_limit or mem_swappiness",
            service.memswap_limit.is_some() || service.mem_swappiness.is_some(),
            "limits of tasks are about memory alone",
        ),
        (
            "pull_policy",
            service.pull_policy.is_some(),
            "--resolve-image says when the image is looked up again",
        ),
    ] {
        if set {
            findings.push(Finding::Ignored(attribute, reason.to_owned()));
        }
    }
}
