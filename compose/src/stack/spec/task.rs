//! The task template of a service: container, networks, mounts, placement.

use agent_api::swarm::{
    ContainerSpec, DnsConfig, Driver, NetworkAttachmentConfig, Placement, PlacementPreference,
    Platform, Privileges, SeccompOpts, SpreadOver, TaskSpec,
};
use agent_api::{
    BindOptions, HealthConfig, ImageOptions, Mount, MountType, TmpfsOptions, Ulimit,
    VolumeDriverConfig, VolumeOptions,
};
use compose_model::{DependencyCondition, Healthcheck, Project, ServiceConfig, VolumeMount};

use super::{PayloadNames, configs, of_stack, pairs, resources, rollout, secrets};
use crate::stack::{capabilities, image};

pub(super) fn template(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
    names: &PayloadNames,
) -> TaskSpec {
    TaskSpec {
        container_spec: Some(container(project, name, service, names)),
        resources: Some(resources::requirements(service)),
        restart_policy: rollout::restart(service, is_awaited(project, name)),
        placement: Some(placement(service)),
        networks: networks(project, name, service),
        log_driver: service.logging.as_ref().map(|logging| Driver {
            name: logging.driver.clone().unwrap_or_default(),
            options: pairs(&logging.options),
        }),
        ..TaskSpec::default()
    }
}

/// Whether a service of the project waits for this one to complete.
fn is_awaited(project: &Project, name: &str) -> bool {
    project.services.values().any(|other| {
        other.depends_on.get(name).is_some_and(|dependency| {
            dependency.condition == DependencyCondition::ServiceCompletedSuccessfully
        })
    })
}

fn container(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
    names: &PayloadNames,
) -> ContainerSpec {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (capability_add, capability_drop) =
        capabilities::effective(&service.cap_add, &service.cap_drop);
    ContainerSpec {
        image: image::tagged(&service.image_or_default(&project.name, name)),
        labels: of_stack(&project.name, &service.labels),
        command: service.entrypoint.clone().unwrap_or_default(),
        args: service.command.clone().unwrap_or_default(),
        hostname: text(&service.hostname),
        env: environment(service),
        dir: text(&service.working_dir),
        user: text(&service.user),
        groups: service.group_add.clone(),
        privileges: Some(privileges(service)),
        init: service.init,
        stop_signal: text(&service.stop_signal),
        tty: service.tty,
        open_stdin: service.stdin_open,
        read_only: service.read_only,
        mounts: mounts(project, service),
        stop_grace_period: service.stop_grace_period.map(rollout::nanoseconds),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        hosts: hosts(service),
        dns_config: dns(service),
        secrets: secrets(service, names),
        configs: configs(service, names),
        isolation: text(&service.isolation),
        sysctls: pairs(&service.sysctls),
        capability_add,
        capability_drop,
        ulimits: ulimits(service),
        oom_score_adj: service.oom_score_adj.unwrap_or(0),
        ..ContainerSpec::default()
    }
}

/// `KEY=value`, sorted by the loader; a key without value removes the image's variable.
fn environment(service: &ServiceConfig) -> Vec<String> {
    let mut lines: Vec<_> = service
        .environment
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    lines.sort_unstable();
    lines
}

/// One thing that `security_opt` can ask of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stack) enum SecurityOption {
    NoNewPrivileges(bool),
    SeccompUnconfined,
    AppArmorDisabled,
    /// What a task has anyway.
    Default,
}

/// What an option asks for; `None` when a task cannot have it.
pub(in crate::stack) fn security_option(option: &str) -> Option<SecurityOption> {
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => Some(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Some(SecurityOption::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Some(SecurityOption::SeccompUnconfined),
        ("apparmor", "unconfined") => Some(SecurityOption::AppArmorDisabled),
        ("seccomp", "default" | "builtin") | ("apparmor", "docker-default") => {
            Some(SecurityOption::Default)
        }
        _ => None,
    }
}

fn privileges(service: &ServiceConfig) -> Privileges {
    let mut privileges = Privileges::default();
    // Others have been refused.
    for option in service
        .security_opt
        .iter()
        .filter_map(|option| security_option(option))
    {
        match option {
            SecurityOption::NoNewPrivileges(on) => privileges.no_new_privileges = on,
            SecurityOption::SeccompUnconfined => {
                privileges.seccomp = Some(SeccompOpts {
                    mode: "unconfined".to_owned(),
                    profile: String::new(),
                });
            }
            SecurityOption::AppArmorDisabled => {
                privileges.apparmor = Some(serde_json::json!({"Mode": "disabled"}));
            }
            SecurityOption::Default => {}
        }
    }
    privileges
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    if check.disable {
        return HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        };
    }
    let nanoseconds =
        |duration: Option<compose_model::Duration>| duration.map_or(0, rollout::nanoseconds);
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: check
            .retries
            .map_or(0, |retries| i64::try_from(retries).unwrap_or(i64::MAX)),
    }
}

/// Lines of /etc/hosts.
fn hosts(service: &ServiceConfig) -> Vec<String> {
    let hosts = service.extra_hosts.0.iter();
    hosts
        .flat_map(|(host, addresses)| addresses.iter().map(move |ip| format!("{ip} {host}")))
        .collect()
}

fn dns(service: &ServiceConfig) -> Option<DnsConfig> {
    let config = DnsConfig {
        nameservers: service.dns.clone(),
        search: service.dns_search.clone(),
        options: service.dns_opt.clone(),
    };
    (config != DnsConfig::default()).then_some(config)
}

fn ulimits(service: &ServiceConfig) -> Vec<Ulimit> {
    let limits = service.ulimits.iter();
    limits
        .map(|(name, limit)| Ulimit {
            name: name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        })
        .collect()
}

fn placement(service: &ServiceConfig) -> Placement {
    let rules = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.placement.clone())
        .unwrap_or_default();
    let spread = |preference: &compose_model::PlacementPreference| PlacementPreference {
        spread: Some(SpreadOver {
            spread_descriptor: preference
                .spread
                .as_ref()
                .map(|text| text.0.clone())
                .unwrap_or_default(),
        }),
    };
    Placement {
        constraints: rules.constraints.clone(),
        preferences: rules.preferences.iter().map(spread).collect(),
        max_replicas: rules.max_replicas_per_node.unwrap_or(0),
        platforms: service
            .platform
            .as_deref()
            .map(platform)
            .into_iter()
            .collect(),
    }
}

/// `os[/arch[/variant]]`; clusters do not tell variants apart.
fn platform(text: &str) -> Platform {
    let mut words = text.split('/');
    Platform {
        os: words.next().unwrap_or_default().to_owned(),
        architecture: words.next().unwrap_or_default().to_owned(),
    }
}

/// Attachments, sorted by network as Docker sorts them; the service is known on each by its short name too.
fn networks(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
) -> Vec<NetworkAttachmentConfig> {
    if let Some(mode) = &service.network_mode {
        return vec![NetworkAttachmentConfig {
            target: mode.clone(),
            ..NetworkAttachmentConfig::default()
        }];
    }
    let attachment = |(key, own): (&String, &Option<compose_model::ServiceNetwork>)| {
        let own = own.clone().unwrap_or_default();
        let target = project
            .networks
            .get(key)
            .map_or(key, |network| &network.name)
            .clone();
        let mut aliases = own.aliases.clone();
        if !is_predefined(&target) {
            aliases.push(name.to_owned());
        }
        NetworkAttachmentConfig {
            target,
            aliases,
            driver_opts: pairs(&own.driver_opts),
        }
    };
    let mut all: Vec<_> = service.networks.iter().map(attachment).collect();
    all.sort_by(|a, b| a.target.cmp(&b.target));
    all
}

/// Networks that every node has by itself.
pub(in crate::stack) fn is_predefined(name: &str) -> bool {
    matches!(name, "host" | "none" | "bridge" | "default")
}

fn mounts(project: &Project, service: &ServiceConfig) -> Vec<Mount> {
    let volumes = service.volumes.iter().map(|volume| mount(project, volume));
    let tmpfs = service.tmpfs.iter().map(|entry| tmpfs(entry));
    let shm = service.shm_size.map(|size| Mount {
        kind: MountType::Tmpfs,
        target: "/dev/shm".to_owned(),
        tmpfs_options: Some(TmpfsOptions {
            size_bytes: Some(size.0),
            ..TmpfsOptions::default()
        }),
        ..Mount::default()
    });
    volumes.chain(tmpfs).chain(shm).collect()
}

fn mount(project: &Project, volume: &VolumeMount) -> Mount {
    let mount = |kind| Mount {
        kind,
        source: volume.source.clone().unwrap_or_default(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        consistency: volume.consistency.clone().unwrap_or_default(),
        ..Mount::default()
    };
    match volume.r#type {
        compose_model::MountType::Bind => Mount {
            bind_options: bind_options(volume),
            ..mount(MountType::Bind)
        },
        compose_model::MountType::Tmpfs => Mount {
            tmpfs_options: volume.tmpfs.as_ref().map(|options| TmpfsOptions {
                size_bytes: options.size.map(|size| size.0),
                mode: options.mode.map(|mode| mode.0.0),
                options: None,
            }),
            ..mount(MountType::Tmpfs)
        },
        compose_model::MountType::Image => Mount {
            image_options: volume.image.as_ref().map(|options| ImageOptions {
                subpath: options.subpath.clone().unwrap_or_default(),
            }),
            ..mount(MountType::Image)
        },
        // The other kinds have been refused.
        _ => named_volume(project, volume, mount(MountType::Volume)),
    }
}

/// As Docker, a task does not make the host's half of a bind mount: on another node than the one the file lies on it
/// would be an empty directory where data is expected. The task is refused there with the path.
fn bind_options(volume: &VolumeMount) -> Option<BindOptions> {
    let options = volume.bind.as_ref()?;
    let recursive = options.recursive.as_deref();
    let options = BindOptions {
        propagation: options.propagation.clone().unwrap_or_default(),
        non_recursive: recursive == Some("disabled"),
        create_mountpoint: false,
        read_only_non_recursive: recursive == Some("writable"),
        read_only_force_recursive: recursive == Some("readonly"),
    };
    (options != BindOptions::default()).then_some(options)
}

fn named_volume(project: &Project, volume: &VolumeMount, mut mount: Mount) -> Mount {
    let Some(key) = &volume.source else {
        return mount;
    };
    let options = volume.volume.clone().unwrap_or_default();
    let mut made = VolumeOptions {
        no_copy: options.nocopy,
        subpath: options.subpath.clone().unwrap_or_default(),
        ..VolumeOptions::default()
    };
    if let Some(definition) = project.volumes.get(key) {
        mount.source.clone_from(&definition.name);
        if !definition.external {
            made.labels = Some(of_stack(&project.name, &definition.labels));
            let has_driver = definition.driver.is_some() || !definition.driver_opts.is_empty();
            made.driver_config = has_driver.then(|| VolumeDriverConfig {
                name: definition.driver.clone().unwrap_or_default(),
                options: (!definition.driver_opts.is_empty())
                    .then(|| pairs(&definition.driver_opts)),
            });
        }
    }
    mount.volume_options = Some(made);
    mount
}

/// `PATH[:OPTIONS]` of the short form; options other than size and mode go as they are.
fn tmpfs(entry: &str) -> Mount {
    let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
    let mut made = TmpfsOptions::default();
    let mut others = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) if size.parse::<compose_model::Bytes>().is_ok() => {
                made.size_bytes = size.parse::<compose_model::Bytes>().ok().map(|size| size.0);
            }
            Some(("mode", mode)) if u32::from_str_radix(mode, 8).is_ok() => {
                made.mode = u32::from_str_radix(mode, 8).ok();
            }
            Some((key, value)) => others.push(vec![key.to_owned(), value.to_owned()]),
            None => others.push(vec![option.to_owned()]),
        }
    }
    made.options = (!others.is_empty()).then_some(others);
    Mount {
        kind: MountType::Tmpfs,
        target: path.to_owned(),
        tmpfs_options: (made != TmpfsOptions::default()).then_some(made),
        ..Mount::default()
    }
}
