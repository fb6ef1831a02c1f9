//! Flags of `service update`: what there is comes in as a spec, and goes out changed.

use super::create::all;
use super::scalars::Scalars;
use super::{Known, Named, container, network, ports, references, small, words};
use crate::flags::devices::ulimit;
use crate::flags::{env, mounts};
use agent_api::Labels;
use agent_api::swarm::{ContainerSpec, Placement, Resources, ServiceSpec};
use clap::Args;
use compose::stack::{capabilities, image};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct UpdateFlags {
    #[command(flatten)]
    pub(crate) scalars: Scalars,
    /// Service command args
    #[arg(long, value_name = "COMMAND")]
    args: Option<String>,
    /// Add or update a config file on a service
    #[arg(long)]
    config_add: Vec<String>,
    /// Remove a configuration file
    #[arg(long)]
    config_rm: Vec<String>,
    /// Add or update a placement constraint
    #[arg(long)]
    constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long)]
    constraint_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long, value_name = "NAME=VALUE")]
    container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long, value_name = "NAME")]
    container_label_rm: Vec<String>,
    /// Add or update a custom DNS server
    #[arg(long)]
    dns_add: Vec<String>,
    /// Add or update a DNS option
    #[arg(long)]
    dns_option_add: Vec<String>,
    /// Remove a DNS option
    #[arg(long)]
    dns_option_rm: Vec<String>,
    /// Remove a custom DNS server
    #[arg(long)]
    dns_rm: Vec<String>,
    /// Add or update a custom DNS search domain
    #[arg(long)]
    dns_search_add: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long)]
    dns_search_rm: Vec<String>,
    /// Add or update an environment variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Force update even if no changes require it
    #[arg(long)]
    force: bool,
    /// Add a Generic resource
    #[arg(long, value_name = "KIND=NUMBER")]
    generic_resource_add: Vec<String>,
    /// Remove a Generic resource
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Add an additional supplementary user group to the container
    #[arg(long)]
    group_add: Vec<String>,
    /// Remove a previously added supplementary user group from the container
    #[arg(long)]
    group_rm: Vec<String>,
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long, value_name = "HOST:IP")]
    host_add: Vec<String>,
    /// Remove a custom host-to-IP mapping ("host:ip")
    #[arg(long, value_name = "HOST[:IP]")]
    host_rm: Vec<String>,
    /// Service image tag
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Add or update a service label
    #[arg(long, value_name = "NAME=VALUE")]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
    /// Add or update a mount on a service
    #[arg(long, value_name = "type=…,source=…,target=…")]
    mount_add: Vec<String>,
    /// Remove a mount by its target path
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Add a network
    #[arg(long)]
    network_add: Vec<String>,
    /// Remove a network
    #[arg(long)]
    network_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref_add: Vec<String>,
    /// Remove a placement preference
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<String>,
    /// Remove a published port by its target port
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<String>,
    /// Rollback to previous specification
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Add or update a secret on a service
    #[arg(long)]
    secret_add: Vec<String>,
    /// Remove a secret
    #[arg(long)]
    secret_rm: Vec<String>,
    /// Add or update a Sysctl option
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl_add: Vec<String>,
    /// Remove a Sysctl option
    #[arg(long, value_name = "NAME")]
    sysctl_rm: Vec<String>,
    /// Add or update a ulimit option
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit_add: Vec<String>,
    /// Remove a ulimit option
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

impl UpdateFlags {
    /// What has to be looked up.
    pub(crate) fn named(&self) -> Result<Named, String> {
        let name = |flag: &str| references::parse(flag).map(|reference| reference.name);
        let mut networks = all(&self.network_add, |flag| {
            network(flag).map(|network| network.target)
        })?;
        networks.extend(self.network_rm.iter().cloned());
        Ok(Named {
            networks,
            secrets: all(&self.secret_add, name)?,
            configs: all(&self.config_add, name)?,
        })
    }

    /// Whether anything is given that cannot go with `--rollback`.
    pub(crate) fn says_more_than_rollback(&self) -> bool {
        let mut nothing = Self {
            rollback: true,
            ..Self::default()
        };
        nothing.scalars.quiet = self.scalars.quiet;
        nothing.scalars.detach = self.scalars.detach;
        *self != nothing
    }

    /// Changes a spec.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec, known: &Known) -> Result<(), String> {
        labels(
            &mut spec.annotations.labels,
            &self.label_add,
            &self.label_rm,
        )?;
        self.container(container(spec), known)?;
        self.scalars.apply(spec)?;
        self.generic_resources(spec)?;
        self.placement(spec)?;
        self.networks(spec, known)?;
        self.scalars.set_replicas(spec)?;
        if !self.publish_add.is_empty() || !self.publish_rm.is_empty() {
            let endpoint = spec.endpoint_spec.get_or_insert_default();
            endpoint.ports = ports::change(&endpoint.ports, &self.publish_add, &self.publish_rm)?;
        }
        if self.scalars.max_concurrent.is_some() {
            return Err("max-concurrent can only be used with replicated-job mode".to_owned());
        }
        if self.force {
            spec.task_template.force_update += 1;
        }
        Ok(())
    }

    fn container(&self, container: &mut ContainerSpec, known: &Known) -> Result<(), String> {
        if let Some(name) = &self.image {
            container.image = image::tagged(name);
        }
        if let Some(args) = &self.args {
            container.args = words::split(args)?;
        }
        labels(
            &mut container.labels,
            &self.container_label_add,
            &self.container_label_rm,
        )?;
        labels(&mut container.sysctls, &self.sysctl_add, &self.sysctl_rm)?;
        self.environment(container)?;
        self.mounts(container)?;
        self.ulimits(container)?;
        self.dns(container)?;
        self.hosts(container)?;
        set(&mut container.groups, &self.group_add, &self.group_rm);
        self.capabilities(container);
        let mut targets = BTreeSet::new();
        container
            .secrets
            .retain(|secret| !self.secret_rm.contains(&secret.secret_name));
        container
            .secrets
            .extend(references::secrets(&self.secret_add, known)?);
        for secret in &container.secrets {
            let target = secret.file.as_ref().map(|file| file.name.clone());
            if !targets.insert(target) {
                let name = &secret.secret_name;
                return Err(format!("duplicate secret target for {name} not allowed"));
            }
        }
        container.configs.retain(|config| {
            config.runtime.is_some() || !self.config_rm.contains(&config.config_name)
        });
        container
            .configs
            .extend(references::configs(&self.config_add, known)?);
        Ok(())
    }

    fn environment(&self, container: &mut ContainerSpec) -> Result<(), String> {
        fn name(line: &str) -> &str {
            line.split('=').next().unwrap_or(line)
        }
        container
            .env
            .retain(|line| !self.env_rm.iter().any(|gone| gone == name(line)));
        for line in env::environment(&[], &self.env_add)? {
            match container
                .env
                .iter_mut()
                .find(|other| name(other) == name(&line))
            {
                Some(other) => *other = line,
                None => container.env.push(line),
            }
        }
        Ok(())
    }

    fn mounts(&self, container: &mut ContainerSpec) -> Result<(), String> {
        if self.mount_add.is_empty() && self.mount_rm.is_empty() {
            return Ok(());
        }
        let mut by_target = BTreeMap::new();
        for flag in &self.mount_add {
            let mount = mounts::mount(flag)?;
            if by_target.insert(mount.target.clone(), mount).is_some() {
                return Err("duplicate mount target".to_owned());
            }
        }
        for mount in std::mem::take(&mut container.mounts) {
            by_target.entry(mount.target.clone()).or_insert(mount);
        }
        by_target.retain(|target, _| !self.mount_rm.contains(target));
        container.mounts = by_target.into_values().collect();
        container
            .mounts
            .sort_by(|a, b| (&a.source, &a.target).cmp(&(&b.source, &b.target)));
        Ok(())
    }

    fn ulimits(&self, container: &mut ContainerSpec) -> Result<(), String> {
        let limits = &mut container.ulimits;
        limits.retain(|limit| !self.ulimit_rm.contains(&limit.name));
        for limit in all(&self.ulimit_add, ulimit)? {
            limits.retain(|other| other.name != limit.name);
            limits.push(limit);
        }
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    fn dns(&self, container: &mut ContainerSpec) -> Result<(), String> {
        let servers = all(&self.dns_add, small::address)?;
        let lists = [
            &servers,
            &self.dns_rm,
            &self.dns_search_add,
            &self.dns_search_rm,
            &self.dns_option_add,
            &self.dns_option_rm,
        ];
        if lists.iter().all(|list| list.is_empty()) {
            return Ok(());
        }
        let config = container.dns_config.get_or_insert_default();
        for (list, add, remove) in [
            (&mut config.nameservers, &servers, &self.dns_rm),
            (
                &mut config.search,
                &self.dns_search_add,
                &self.dns_search_rm,
            ),
            (
                &mut config.options,
                &self.dns_option_add,
                &self.dns_option_rm,
            ),
        ] {
            set(list, add, remove);
            list.sort_unstable();
            list.dedup();
        }
        Ok(())
    }

    /// Lines of /etc/hosts, whose names go one by one: `host` from every line, `host:ip` from those of that address.
    fn hosts(&self, container: &mut ContainerSpec) -> Result<(), String> {
        if self.host_add.is_empty() && self.host_rm.is_empty() {
            return Ok(());
        }
        let mut kept: Vec<String> = Vec::new();
        for line in &container.hosts {
            let mut fields = line.split_whitespace();
            let Some(address) = fields.next() else {
                continue;
            };
            let is_gone = |name: &str| {
                self.host_rm.iter().any(|flag| {
                    let (host, ip) = flag.split_once(':').unwrap_or((flag, ""));
                    host == name && (ip.is_empty() || ip == address)
                })
            };
            let names: Vec<_> = fields.filter(|name| !is_gone(name)).collect();
            if !names.is_empty() {
                kept.push(format!("{address} {}", names.join(" ")));
            }
        }
        kept.extend(all(&self.host_add, small::host)?);
        let mut seen = BTreeSet::new();
        kept.retain(|line| seen.insert(line.clone()));
        container.hosts = kept;
        Ok(())
    }

    /// Dropping takes away what was added and drops the rest, adding takes away what was dropped and adds the rest, and
    /// `RESET` forgets what was there.
    fn capabilities(&self, container: &mut ContainerSpec) {
        let (flags_add, flags_drop) = (&self.scalars.cap_add, &self.scalars.cap_drop);
        if flags_add.is_empty() && flags_drop.is_empty() {
            return;
        }
        let names = |list: &[String]| -> BTreeSet<String> {
            list.iter().map(|name| capabilities::normal(name)).collect()
        };
        let (mut add, mut drop) = (
            names(&container.capability_add),
            names(&container.capability_drop),
        );
        let (mut to_add, mut to_drop) = (names(flags_add), names(flags_drop));
        if to_add.remove("RESET") {
            add.clear();
        }
        if to_drop.remove("RESET") {
            drop.clear();
        }
        for name in to_drop.difference(&to_add) {
            if !add.remove(name) {
                drop.insert(name.clone());
            }
        }
        for name in to_add {
            if !drop.remove(&name) {
                add.insert(name);
            }
        }
        let list = |set: BTreeSet<String>| match set.contains("ALL") {
            true => vec!["ALL".to_owned()],
            false => set.into_iter().collect(),
        };
        container.capability_add = list(add);
        container.capability_drop = list(drop);
    }

    fn generic_resources(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        if self.generic_resource_add.is_empty() && self.generic_resource_rm.is_empty() {
            return Ok(());
        }
        let resources = spec.task_template.resources.get_or_insert_default();
        let reserved: &mut Resources = resources.reservations.get_or_insert_default();
        let kept = &mut reserved.generic_resources;
        for resource in small::generic_resources(&self.generic_resource_add)? {
            kept.retain(|other| small::kind(other) != small::kind(&resource));
            kept.push(resource);
        }
        for name in &self.generic_resource_rm {
            let before = kept.len();
            kept.retain(|resource| small::kind(resource) != name);
            if kept.len() == before {
                return Err(format!(
                    "could not find generic-resource `{name}` to remove it"
                ));
            }
        }
        kept.sort_by(|a, b| small::kind(a).cmp(small::kind(b)));
        Ok(())
    }

    fn placement(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        let constraints = !self.constraint_add.is_empty() || !self.constraint_rm.is_empty();
        let preferences = !self.placement_pref_add.is_empty() || !self.placement_pref_rm.is_empty();
        if !constraints && !preferences {
            return Ok(());
        }
        let placement: &mut Placement = spec.task_template.placement.get_or_insert_default();
        if constraints {
            let list = &mut placement.constraints;
            set(list, &self.constraint_add, &self.constraint_rm);
            list.sort_unstable();
        }
        let gone = all(&self.placement_pref_rm, small::preference)?;
        placement
            .preferences
            .retain(|preference| !gone.contains(preference));
        placement
            .preferences
            .extend(all(&self.placement_pref_add, small::preference)?);
        Ok(())
    }

    fn networks(&self, spec: &mut ServiceSpec, known: &Known) -> Result<(), String> {
        if self.network_add.is_empty() && self.network_rm.is_empty() {
            return Ok(());
        }
        let mut gone = BTreeSet::new();
        for name in &self.network_rm {
            gone.insert(known.network(name)?);
        }
        // Old clients put them beside the template.
        let old = std::mem::take(&mut spec.networks);
        let networks = &mut spec.task_template.networks;
        if networks.is_empty() {
            *networks = old;
        }
        networks.retain(|attachment| !gone.contains(&attachment.target));
        for flag in &self.network_add {
            let mut attachment = network(flag)?;
            let id = known.network(&attachment.target)?;
            if networks.iter().any(|other| other.target == id) {
                let name = &attachment.target;
                return Err(format!("service is already attached to network {name}"));
            }
            attachment.target = id;
            networks.push(attachment);
        }
        networks.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(())
    }
}

fn labels(map: &mut Labels, add: &[String], remove: &[String]) -> Result<(), String> {
    map.retain(|key, _| !remove.contains(key));
    map.extend(env::labels(&[], add)?);
    Ok(())
}

/// Adds, then removes.
fn set(list: &mut Vec<String>, add: &[String], remove: &[String]) {
    list.extend(add.iter().cloned());
    list.retain(|entry| !remove.contains(entry));
}
