//! `deploy`: replicas and resources (used everywhere), and the rules a cluster applies.

use std::collections::BTreeMap;

use super::record::record;
use super::{Bytes, DeviceRequest, Duration, Text};

record! {
    /// `deploy` of a service.
    pub struct Deploy {
        /// `replicated`, `global`, `replicated-job` or `global-job`.
        pub mode: Option<String>,
        /// Number of containers.
        pub replicas: Option<u32>,
        /// Labels of the service (not of its containers).
        pub labels: BTreeMap<String, String>,
        /// How an update proceeds (cluster).
        pub update_config: Option<UpdateConfig>,
        /// How a rollback proceeds (cluster).
        pub rollback_config: Option<UpdateConfig>,
        /// Limits and reservations.
        pub resources: Option<Resources>,
        /// What happens when a container ends.
        pub restart_policy: Option<DeployRestartPolicy>,
        /// Where containers may run (cluster).
        pub placement: Option<Placement>,
        /// `vip` or `dnsrr` (cluster).
        pub endpoint_mode: Option<String>,
    }
}

record! {
    /// `update_config` and `rollback_config`.
    pub struct UpdateConfig {
        /// Containers changed at once; 0 = all.
        pub parallelism: Option<u64>,
        /// Pause between groups.
        pub delay: Option<Duration>,
        /// `continue`, `rollback` or `pause`.
        pub failure_action: Option<String>,
        /// How long a new container is watched for failure.
        pub monitor: Option<Duration>,
        /// Tolerated ratio of failures, 0 to 1.
        pub max_failure_ratio: Option<f64>,
        /// `stop-first` or `start-first`.
        pub order: Option<String>,
    }
}

record! {
    /// `deploy.resources`.
    pub struct Resources {
        /// Upper bounds.
        pub limits: Option<Resource>,
        /// Guaranteed amounts.
        pub reservations: Option<Resource>,
    }
}

record! {
    /// `limits` or `reservations`.
    pub struct Resource {
        /// Number of processors, fractions allowed.
        pub cpus: Option<f64>,
        /// Memory.
        pub memory: Option<Bytes>,
        /// Limit of processes.
        pub pids: Option<i64>,
        /// Device requests (reservations only).
        pub devices: Vec<DeviceRequest>,
        /// User-defined resources (reservations only).
        pub generic_resources: Vec<GenericResource>,
    }
}

record! {
    /// One entry of `generic_resources`.
    pub struct GenericResource {
        /// A countable resource.
        pub discrete_resource_spec: Option<DiscreteResource>,
    }
}

record! {
    /// A countable resource.
    pub struct DiscreteResource {
        /// Its name.
        pub kind: Option<String>,
        /// How many.
        pub value: Option<i64>,
    }
}

record! {
    /// `deploy.restart_policy`.
    pub struct DeployRestartPolicy {
        /// `none`, `on-failure` or `any`.
        pub condition: Option<String>,
        /// Pause before a restart.
        pub delay: Option<Duration>,
        /// Attempts before giving up.
        pub max_attempts: Option<u64>,
        /// Time after which a start counts as successful.
        pub window: Option<Duration>,
    }
}

record! {
    /// `deploy.placement`.
    pub struct Placement {
        /// Expressions such as `node.role == worker`.
        pub constraints: Vec<String>,
        /// Spreading rules.
        pub preferences: Vec<PlacementPreference>,
        /// Limit per node.
        pub max_replicas_per_node: Option<u64>,
    }
}

record! {
    /// One spreading rule.
    pub struct PlacementPreference {
        /// Node label to spread over.
        pub spread: Option<Text>,
    }
}
