//! Flags of `service create`, and the spec of a new service.

use super::scalars::Scalars;
use super::{Known, Named, container, network, ports, references, small};
use crate::flags::devices::ulimit;
use crate::flags::{env, mounts};
use agent_api::swarm::{
    Annotations, ContainerSpec, DnsConfig, EndpointSpec, GlobalService, Limit, Placement,
    ReplicatedJob, ReplicatedService, ResourceRequirements, Resources, ServiceMode, ServiceSpec,
    TaskSpec,
};
use clap::Args;
use compose::stack::{capabilities, image};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CreateFlags {
    #[command(flatten)]
    pub(crate) scalars: Scalars,
    /// Specify configurations to expose to the service
    #[arg(long)]
    config: Vec<String>,
    /// Placement constraints
    #[arg(long)]
    constraint: Vec<String>,
    /// Container labels
    #[arg(long, value_name = "NAME=VALUE")]
    container_label: Vec<String>,
    /// Set custom DNS servers
    #[arg(long)]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long)]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    dns_search: Vec<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// User defined resources
    #[arg(long, value_name = "KIND=NUMBER")]
    generic_resource: Vec<String>,
    /// Set one or more supplementary user groups for the container
    #[arg(long)]
    group: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long, value_name = "HOST:IP")]
    host: Vec<String>,
    /// Service labels
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Service mode ("replicated", "global", "replicated-job", "global-job")
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// Attach a filesystem mount to the service
    #[arg(long, value_name = "type=…,source=…,target=…")]
    mount: Vec<String>,
    /// Service name
    #[arg(long)]
    name: Option<String>,
    /// Network attachments
    #[arg(long)]
    network: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref: Vec<String>,
    /// Publish a port as a node port
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Specify secrets to expose to the service
    #[arg(long)]
    secret: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
}

impl CreateFlags {
    /// What has to be looked up.
    pub(crate) fn named(&self) -> Result<Named, String> {
        let name = |flag: &String| references::parse(flag).map(|reference| reference.name);
        let networks = self.network.iter();
        Ok(Named {
            networks: networks
                .map(|flag| network(flag).map(|network| network.target))
                .collect::<Result<_, _>>()?,
            secrets: self.secret.iter().map(name).collect::<Result<_, _>>()?,
            configs: self.config.iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    /// The spec of a service with this image and command.
    pub(crate) fn spec(
        &self,
        image: &str,
        args: &[String],
        known: &Known,
    ) -> Result<ServiceSpec, String> {
        let mut spec = ServiceSpec {
            annotations: Annotations {
                name: self.name.clone().unwrap_or_default(),
                labels: env::labels(&[], &self.label)?,
            },
            task_template: TaskSpec {
                container_spec: Some(self.container(image, args, known)?),
                resources: Some(ResourceRequirements {
                    limits: Some(Limit::default()),
                    reservations: Some(Resources {
                        generic_resources: small::generic_resources(&self.generic_resource)?,
                        ..Resources::default()
                    }),
                }),
                placement: Some(self.placement()?),
                ..TaskSpec::default()
            },
            mode: self.mode()?,
            endpoint_spec: Some(EndpointSpec {
                mode: "vip".to_owned(),
                ports: self.ports()?,
            }),
            ..ServiceSpec::default()
        };
        for flag in &self.network {
            let mut attachment = network(flag)?;
            attachment.target = known.network(&attachment.target)?;
            spec.task_template.networks.push(attachment);
        }
        spec.task_template
            .networks
            .sort_by(|a, b| a.target.cmp(&b.target));
        self.scalars.apply(&mut spec)?;
        let is_job = spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some();
        if is_job && self.scalars.says_rollout() {
            return Err("update and rollback configuration is not supported for jobs".to_owned());
        }
        let container = container(&mut spec);
        // Docker says what it means: no init unless it is asked for.
        container.init.get_or_insert(false);
        Ok(spec)
    }

    fn container(
        &self,
        image: &str,
        args: &[String],
        known: &Known,
    ) -> Result<ContainerSpec, String> {
        let (capability_add, capability_drop) =
            capabilities::effective(&self.scalars.cap_add, &self.scalars.cap_drop);
        Ok(ContainerSpec {
            image: image::tagged(image),
            args: args.to_vec(),
            labels: env::labels(&[], &self.container_label)?,
            env: self.environment()?,
            groups: self.group.clone(),
            mounts: all(&self.mount, mounts::mount)?,
            hosts: all(&self.host, small::host)?,
            dns_config: Some(DnsConfig {
                nameservers: all(&self.dns, small::address)?,
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            }),
            secrets: references::secrets(&self.secret, known)?,
            configs: references::configs(&self.config, known)?,
            sysctls: env::options(&self.sysctl),
            capability_add,
            capability_drop,
            ulimits: {
                let mut limits = all(&self.ulimit, ulimit)?;
                limits.sort_by(|a, b| a.name.cmp(&b.name));
                limits
            },
            ..ContainerSpec::default()
        })
    }

    /// The last value of a variable wins, in its place.
    fn environment(&self) -> Result<Vec<String>, String> {
        let mut result: Vec<String> = Vec::new();
        for line in env::environment(&self.env_file, &self.env)? {
            let name = line.split('=').next().unwrap_or(&line).to_owned();
            result.retain(|other| other.split('=').next() != Some(&name));
            result.push(line);
        }
        Ok(result)
    }

    fn placement(&self) -> Result<Placement, String> {
        Ok(Placement {
            constraints: self.constraint.clone(),
            preferences: all(&self.placement_pref, small::preference)?,
            ..Placement::default()
        })
    }

    fn ports(&self) -> Result<Vec<agent_api::swarm::PortConfig>, String> {
        let lists = all(&self.publish, ports::publish)?;
        Ok(lists.into_iter().flatten().collect())
    }

    fn mode(&self) -> Result<ServiceMode, String> {
        let scalars = &self.scalars;
        let counted = matches!(self.mode.as_str(), "replicated" | "replicated-job");
        if !counted && scalars.replicas.is_some() {
            return Err(
                "replicas can only be used with replicated or replicated-job mode".to_owned(),
            );
        }
        if !counted && scalars.replicas_max_per_node.is_some_and(|most| most > 0) {
            return Err(
                "replicas-max-per-node can only be used with replicated or replicated-job mode"
                    .to_owned(),
            );
        }
        if self.mode != "replicated-job" && scalars.max_concurrent.is_some() {
            return Err("max-concurrent can only be used with replicated-job mode".to_owned());
        }
        let mut mode = ServiceMode::default();
        match self.mode.as_str() {
            "replicated" => {
                mode.replicated = Some(ReplicatedService {
                    replicas: scalars.replicas,
                });
            }
            "global" => mode.global = Some(GlobalService {}),
            "replicated-job" => {
                mode.replicated_job = Some(ReplicatedJob {
                    max_concurrent: scalars.max_concurrent.or(scalars.replicas),
                    total_completions: scalars.replicas,
                });
            }
            "global-job" => mode.global_job = Some(GlobalService {}),
            other => {
                return Err(format!(
                    "Unknown mode: {other}, only replicated and global supported"
                ));
            }
        }
        Ok(mode)
    }
}

/// Reads all flags of one name.
pub(super) fn all<T>(
    flags: &[String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    flags.iter().map(|flag| read(flag)).collect()
}
