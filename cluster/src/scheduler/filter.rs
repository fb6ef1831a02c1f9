//! Whether a node may run a task, and if not, why. Order and words: moby/swarmkit `manager/scheduler/filter.go`.

use agent_api::MountType;
use agent_api::swarm::{EngineDescription, Platform};
use cluster_api::Task;

use super::usage::{HostPort, Usage, host_ports};
use crate::constraint::Constraint;
use crate::store::Store;

/// What a node can lack, in the order it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resource,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

const FILTERS: [Filter; 7] = [
    Filter::Ready,
    Filter::Resource,
    Filter::Plugin,
    Filter::Constraint,
    Filter::Platform,
    Filter::HostPort,
    Filter::MaxReplicas,
];

impl Filter {
    fn explain(self, nodes: usize) -> String {
        let on = |what: &str| match nodes {
            1 => format!("{what} on 1 node"),
            _ => format!("{what} on {nodes} nodes"),
        };
        match self {
            Self::Ready if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Self::Ready => format!("{nodes} nodes not available for new tasks"),
            Self::Resource => on("insufficient resources"),
            Self::Plugin => on("missing plugin"),
            Self::Constraint => on("scheduling constraints not satisfied"),
            Self::Platform => on("unsupported platform"),
            Self::HostPort => on("host-mode port already in use"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// How many nodes failed at which filter.
#[derive(Debug, Default)]
pub(super) struct Failures([usize; FILTERS.len()]);

impl Failures {
    pub(super) const fn count(&mut self, filter: Filter) {
        self.0[filter as usize] += 1;
    }

    /// The most frequent reason first; empty when no node failed.
    pub(super) fn explain(&self) -> String {
        let mut reasons: Vec<(usize, Filter)> = FILTERS
            .into_iter()
            .map(|filter| (self.0[filter as usize], filter))
            .filter(|(nodes, _)| *nodes > 0)
            .collect();
        reasons.sort_by_key(|(nodes, filter)| (std::cmp::Reverse(*nodes), *filter));
        let reasons: Vec<String> = reasons
            .into_iter()
            .map(|(nodes, filter)| filter.explain(nodes))
            .collect();
        reasons.join("; ")
    }
}

/// What the tasks of a group need of a node, read once for all of them.
#[derive(Debug)]
pub(super) struct Demand {
    service_id: String,
    nano_cpus: i64,
    memory_bytes: i64,
    /// Resources of kinds that no node can offer here.
    generic: bool,
    /// Kind and name.
    plugins: Vec<(&'static str, String)>,
    /// `None`: an expression cannot be read, so no node satisfies it.
    constraints: Option<Vec<Constraint>>,
    platforms: Vec<Platform>,
    host_ports: Vec<HostPort>,
    max_replicas: u64,
}

impl Demand {
    pub(super) fn of(task: &Task, store: &Store) -> Self {
        let reservations = task
            .spec
            .resources
            .as_ref()
            .and_then(|resources| resources.reservations.as_ref());
        let placement = task.spec.placement.clone().unwrap_or_default();
        Self {
            service_id: task.service_id.clone(),
            nano_cpus: reservations.map_or(0, |r| r.nano_cpus),
            memory_bytes: reservations.map_or(0, |r| r.memory_bytes),
            generic: reservations.is_some_and(|r| !r.generic_resources.is_empty()),
            plugins: plugins(task, store),
            constraints: Constraint::parse_all(&placement.constraints).ok(),
            platforms: placement.platforms.into_iter().map(normalized).collect(),
            host_ports: host_ports(task),
            max_replicas: placement.max_replicas,
        }
    }

    /// The first filter the node fails, all of them considered.
    pub(super) fn first_failure(&self, usage: &Usage) -> Option<Filter> {
        FILTERS
            .into_iter()
            .find(|filter| !self.passes(*filter, usage))
    }

    /// Whether the node still has room after tasks of the same step were given to it.
    pub(super) fn still_fits(&self, usage: &Usage) -> bool {
        [Filter::Resource, Filter::HostPort, Filter::MaxReplicas]
            .into_iter()
            .all(|filter| self.passes(filter, usage))
    }

    fn passes(&self, filter: Filter, usage: &Usage) -> bool {
        let description = usage.node.description.as_ref();
        match filter {
            Filter::Ready => usage.ready,
            Filter::Resource => {
                let cpus = self.nano_cpus == 0 || self.nano_cpus <= usage.free_nano_cpus;
                let memory = self.memory_bytes == 0 || self.memory_bytes <= usage.free_memory_bytes;
                cpus && memory && !self.generic
            }
            Filter::Plugin => description.is_none_or(|description| {
                let wanted = self.plugins.iter();
                wanted
                    .into_iter()
                    .all(|(kind, name)| has_plugin(&description.engine, kind, name))
            }),
            Filter::Constraint => self
                .constraints
                .as_ref()
                .is_some_and(|all| all.iter().all(|c| c.is_met_by(&usage.node))),
            Filter::Platform => {
                let wanted = &self.platforms;
                wanted.is_empty()
                    || description.is_some_and(|description| {
                        let has = normalized(description.platform.clone());
                        wanted.iter().any(|wanted| is_platform(wanted, &has))
                    })
            }
            Filter::HostPort => !self.host_ports.iter().any(|p| usage.is_port_taken(p)),
            Filter::MaxReplicas => {
                self.max_replicas == 0 || usage.replicas(&self.service_id) < self.max_replicas
            }
        }
    }
}

/// Drivers of volumes, networks and logs that come as plugins.
fn plugins(task: &Task, store: &Store) -> Vec<(&'static str, String)> {
    let mut plugins = Vec::new();
    let container = task.spec.container_spec.as_ref();
    for mount in container
        .into_iter()
        .flat_map(|container| &container.mounts)
    {
        let options = mount.volume_options.as_ref();
        let driver = options.and_then(|options| options.driver_config.as_ref());
        if let Some(driver) = driver
            && mount.kind == MountType::Volume
            && !matches!(driver.name.as_str(), "" | "local")
        {
            plugins.push(("Volume", driver.name.clone()));
        }
    }
    for attachment in &task.networks {
        if let Some(network) = store.network(&attachment.network_id) {
            let name = network.spec.driver.name.as_str();
            let name = if name.is_empty() { "overlay" } else { name };
            plugins.push(("Network", name.to_owned()));
        }
    }
    let log_driver = task.spec.log_driver.as_ref().or(task.log_driver.as_ref());
    if let Some(driver) = log_driver
        && !matches!(driver.name.as_str(), "" | "none")
    {
        plugins.push(("Log", driver.name.clone()));
    }
    plugins.sort();
    plugins.dedup();
    plugins
}

/// A node that names no plugin of the kind at all does not say, and passes. SwarmKit does so for log drivers only, since
/// its nodes always name the others.
fn has_plugin(engine: &EngineDescription, kind: &str, name: &str) -> bool {
    let mut of_kind = engine.plugins.iter().filter(|p| p.kind == kind).peekable();
    of_kind.peek().is_none()
        || of_kind.any(|plugin| plugin.name.strip_suffix(":latest").unwrap_or(&plugin.name) == name)
}

fn normalized(mut platform: Platform) -> Platform {
    match platform.architecture.as_str() {
        "x86_64" => platform.architecture = "amd64".to_owned(),
        "aarch64" => platform.architecture = "arm64".to_owned(),
        _ => {}
    }
    platform
}

fn is_platform(wanted: &Platform, has: &Platform) -> bool {
    let is = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
    is(&wanted.architecture, &has.architecture) && is(&wanted.os, &has.os)
}
