//! Flags that both `service create` and `service update` have. Each sets one thing of the spec, and only when it is
//! given.

use super::{container, words};
use crate::flags::bools;
use crate::flags::devices::{memory, nano_cpus};
use crate::flags::duration;
use crate::flags::env;
use agent_api::HealthConfig;
use agent_api::swarm::{
    Driver, Limit, ReplicatedService, ResourceRequirements, Resources, RestartPolicy, ServiceSpec,
    UpdateConfig,
};
use clap::Args;

/// How long a new task is watched unless it is said.
const MONITOR: i64 = 5_000_000_000;
/// Between the end of a task and its successor unless it is said.
const RESTART_DELAY: i64 = 5_000_000_000;

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct Scalars {
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_drop: Vec<String>,
    /// Credential spec for managed service account (Windows only; not supported)
    #[arg(long, hide = true)]
    credential_spec: Option<String>,
    /// Endpoint mode (vip or dnsrr) (default vip)
    #[arg(long)]
    pub(super) endpoint_mode: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    health_start_interval: Option<i64>,
    /// Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    health_timeout: Option<i64>,
    /// Container hostname
    #[arg(long)]
    hostname: Option<String>,
    /// Use an init inside each service container to forward signals and reap processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    init: Option<bool>,
    /// Service container isolation mode
    #[arg(long)]
    isolation: Option<String>,
    /// Limit CPUs
    #[arg(long, value_name = "DECIMAL", value_parser = nano_cpus)]
    limit_cpu: Option<i64>,
    /// Limit Memory
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    limit_pids: Option<i64>,
    /// Logging driver for service
    #[arg(long)]
    log_driver: Option<String>,
    /// Logging driver options
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Number of job tasks to run concurrently (default equal to --replicas)
    #[arg(long)]
    pub(super) max_concurrent: Option<u64>,
    /// Swap limit (not supported: the API of this version has none)
    #[arg(long, hide = true)]
    memory_swap: Option<String>,
    /// Swappiness (not supported: the API of this version has none)
    #[arg(long, hide = true)]
    memory_swappiness: Option<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Do not query the registry to resolve image digest and supported platforms
    #[arg(long)]
    pub(crate) no_resolve_image: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long)]
    oom_score_adj: Option<i64>,
    /// Suppress progress output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    read_only: Option<bool>,
    /// Number of tasks
    #[arg(long)]
    pub(super) replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long)]
    pub(super) replicas_max_per_node: Option<u64>,
    /// Reserve CPUs
    #[arg(long, value_name = "DECIMAL", value_parser = nano_cpus)]
    reserve_cpu: Option<i64>,
    /// Reserve Memory
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    reserve_memory: Option<i64>,
    /// Restart when condition is met ("none", "on-failure", "any") (default "any")
    #[arg(long)]
    restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    restart_delay: Option<i64>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    restart_window: Option<i64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    rollback_delay: Option<i64>,
    /// Action on rollback failure ("pause", "continue") (default "pause")
    #[arg(long)]
    rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback (default 0)
    #[arg(long)]
    rollback_max_failure_ratio: Option<f32>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    rollback_monitor: Option<i64>,
    /// Rollback order ("start-first", "stop-first") (default "stop-first")
    #[arg(long)]
    rollback_order: Option<String>,
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1)
    #[arg(long)]
    rollback_parallelism: Option<u64>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_grace_period: Option<i64>,
    /// Signal to stop the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    tty: Option<bool>,
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    update_delay: Option<i64>,
    /// Action on update failure ("pause", "continue", "rollback") (default "pause")
    #[arg(long)]
    update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update (default 0)
    #[arg(long)]
    update_max_failure_ratio: Option<f32>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    update_monitor: Option<i64>,
    /// Update order ("start-first", "stop-first") (default "stop-first")
    #[arg(long)]
    update_order: Option<String>,
    /// Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long)]
    user: Option<String>,
    /// Send registry authentication details to swarm agents
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
}

fn boolean(text: &str) -> Result<bool, String> {
    bools::parse(text).ok_or_else(|| "write true or false".to_owned())
}

impl Scalars {
    /// Sets what is given.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        self.refuse()?;
        self.container(spec)?;
        self.health(spec)?;
        self.resources(spec);
        self.restart(spec);
        if let Some(name) = self.log_driver.as_deref().filter(|name| !name.is_empty()) {
            spec.task_template.log_driver = Some(Driver {
                name: name.to_owned(),
                options: env::options(&self.log_opt),
            });
        }
        if let Some(most) = self.replicas_max_per_node {
            let placement = spec.task_template.placement.get_or_insert_default();
            placement.max_replicas = most;
        }
        if let Some(mode) = &self.endpoint_mode {
            let endpoint = spec.endpoint_spec.get_or_insert_default();
            endpoint.mode = mode.to_ascii_lowercase();
        }
        rollout(&self.update(), &mut spec.update_config);
        rollout(&self.rollback(), &mut spec.rollback_config);
        Ok(())
    }

    fn refuse(&self) -> Result<(), String> {
        if self
            .credential_spec
            .as_deref()
            .is_some_and(|spec| !spec.is_empty())
        {
            return Err("--credential-spec is not supported: it is for Windows".to_owned());
        }
        for (flag, given) in [
            ("--memory-swap", self.memory_swap.is_some()),
            ("--memory-swappiness", self.memory_swappiness.is_some()),
        ] {
            if given {
                return Err(format!(
                    "{flag} is not supported yet: it needs API version 1.52"
                ));
            }
        }
        match self.isolation.as_deref() {
            None | Some("" | "default") => Ok(()),
            Some(other) => Err(format!(
                "--isolation {other} is not supported: it is for Windows"
            )),
        }
    }

    fn container(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        let container = container(spec);
        let set = |given: &Option<String>, field: &mut String| {
            if let Some(value) = given {
                field.clone_from(value);
            }
        };
        set(&self.workdir, &mut container.dir);
        set(&self.user, &mut container.user);
        set(&self.hostname, &mut container.hostname);
        set(&self.stop_signal, &mut container.stop_signal);
        set(&self.isolation, &mut container.isolation);
        if let Some(command) = &self.entrypoint {
            container.command = words::split(command)?;
        }
        container.init = self.init.or(container.init);
        container.tty = self.tty.unwrap_or(container.tty);
        container.read_only = self.read_only.unwrap_or(container.read_only);
        container.oom_score_adj = self.oom_score_adj.unwrap_or(container.oom_score_adj);
        container.stop_grace_period = self.stop_grace_period.or(container.stop_grace_period);
        Ok(())
    }

    fn health(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        let numbers = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
            self.health_retries,
        ];
        let is_given = self.health_cmd.is_some() || numbers.iter().any(Option::is_some);
        let check = &mut container(spec).healthcheck;
        if self.no_healthcheck {
            if is_given {
                return Err("--no-healthcheck conflicts with --health-* options".to_owned());
            }
            *check = Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            });
            return Ok(());
        }
        if !is_given {
            return Ok(());
        }
        let check = check.get_or_insert_default();
        if check.test.as_deref().is_some_and(|test| test == ["NONE"]) {
            check.test = None;
        }
        if let Some(command) = &self.health_cmd {
            check.test =
                (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command.clone()]);
        }
        let fields = [
            &mut check.interval,
            &mut check.timeout,
            &mut check.start_period,
            &mut check.start_interval,
            &mut check.retries,
        ];
        for (field, given) in fields.into_iter().zip(numbers) {
            *field = given.unwrap_or(*field);
        }
        Ok(())
    }

    fn resources(&self, spec: &mut ServiceSpec) {
        let limits = [self.limit_cpu, self.limit_memory, self.limit_pids];
        let kept = [self.reserve_cpu, self.reserve_memory];
        if limits.iter().chain(&kept).all(Option::is_none) {
            return;
        }
        let resources: &mut ResourceRequirements =
            spec.task_template.resources.get_or_insert_default();
        let limit: &mut Limit = resources.limits.get_or_insert_default();
        let reserved: &mut Resources = resources.reservations.get_or_insert_default();
        limit.nano_cpus = self.limit_cpu.unwrap_or(limit.nano_cpus);
        limit.memory_bytes = self.limit_memory.unwrap_or(limit.memory_bytes);
        limit.pids = self.limit_pids.unwrap_or(limit.pids);
        reserved.nano_cpus = self.reserve_cpu.unwrap_or(reserved.nano_cpus);
        reserved.memory_bytes = self.reserve_memory.unwrap_or(reserved.memory_bytes);
    }

    fn restart(&self, spec: &mut ServiceSpec) {
        let is_given = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        if !is_given {
            return;
        }
        let default = || RestartPolicy {
            condition: "any".to_owned(),
            delay: Some(RESTART_DELAY),
            max_attempts: Some(0),
            window: None,
        };
        let policy = spec
            .task_template
            .restart_policy
            .get_or_insert_with(default);
        if let Some(condition) = &self.restart_condition {
            policy.condition.clone_from(condition);
        }
        policy.delay = self.restart_delay.or(policy.delay);
        policy.max_attempts = self.restart_max_attempts.or(policy.max_attempts);
        policy.window = self.restart_window.or(policy.window);
    }

    /// Whether anything about updates or rollbacks is given.
    pub(super) fn says_rollout(&self) -> bool {
        self.update().is_given() || self.rollback().is_given()
    }

    fn update(&self) -> Rollout<'_> {
        Rollout {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            monitor: self.update_monitor,
            failure_action: self.update_failure_action.as_ref(),
            max_failure_ratio: self.update_max_failure_ratio,
            order: self.update_order.as_ref(),
        }
    }

    fn rollback(&self) -> Rollout<'_> {
        Rollout {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            monitor: self.rollback_monitor,
            failure_action: self.rollback_failure_action.as_ref(),
            max_failure_ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order.as_ref(),
        }
    }

    /// Sets the number of tasks of a service that has one.
    pub(super) fn set_replicas(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        let Some(replicas) = self.replicas else {
            return Ok(());
        };
        match &mut spec.mode.replicated {
            Some(replicated) => {
                *replicated = ReplicatedService {
                    replicas: Some(replicas),
                };
                Ok(())
            }
            None => Err("replicas can only be used with replicated mode".to_owned()),
        }
    }
}

/// `--update-…` or `--rollback-…`.
struct Rollout<'a> {
    parallelism: Option<u64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    failure_action: Option<&'a String>,
    max_failure_ratio: Option<f32>,
    order: Option<&'a String>,
}

impl Rollout<'_> {
    fn is_given(&self) -> bool {
        self.parallelism.is_some()
            || self.delay.is_some()
            || self.monitor.is_some()
            || self.failure_action.is_some()
            || self.max_failure_ratio.is_some()
            || self.order.is_some()
    }
}

fn rollout(given: &Rollout<'_>, config: &mut Option<UpdateConfig>) {
    if !given.is_given() {
        return;
    }
    let config = config.get_or_insert_with(|| UpdateConfig {
        parallelism: 1,
        delay: 0,
        failure_action: "pause".to_owned(),
        monitor: MONITOR,
        max_failure_ratio: 0.0,
        order: "stop-first".to_owned(),
    });
    config.parallelism = given.parallelism.unwrap_or(config.parallelism);
    config.delay = given.delay.unwrap_or(config.delay);
    config.monitor = given.monitor.unwrap_or(config.monitor);
    config.max_failure_ratio = given.max_failure_ratio.unwrap_or(config.max_failure_ratio);
    if let Some(action) = given.failure_action {
        config.failure_action.clone_from(action);
    }
    if let Some(order) = given.order {
        config.order.clone_from(order);
    }
}
