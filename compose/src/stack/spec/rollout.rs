//! How updates proceed, and when an ended task gets a successor.

use agent_api::swarm::RestartPolicy;
use agent_api::swarm::UpdateConfig;
use compose_model::{Duration, ServiceConfig};

/// `update_config` or `rollback_config`.
pub(super) fn config(config: &compose_model::UpdateConfig) -> UpdateConfig {
    UpdateConfig {
        parallelism: config.parallelism.unwrap_or(1),
        delay: config.delay.map_or(0, nanoseconds),
        failure_action: config.failure_action.clone().unwrap_or_default(),
        monitor: config.monitor.map_or(0, nanoseconds),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the API has a 32 bit ratio between 0 and 1"
        )]
        max_failure_ratio: config.max_failure_ratio.unwrap_or(0.0) as f32,
        order: config.order.clone().unwrap_or_default(),
    }
}

pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.0.as_nanos()).unwrap_or(i64::MAX)
}

/// `deploy.restart_policy`, else `restart`. As in Docker a service that says neither is restarted whenever a task ends;
/// but `restart: "no"` means what it says, and a service that another one waits to complete is not run again after it
/// has.
pub(super) fn restart(service: &ServiceConfig, awaited: bool) -> Option<RestartPolicy> {
    let deploy = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.restart_policy.as_ref());
    if let Some(policy) = deploy {
        return Some(RestartPolicy {
            condition: policy.condition.clone().unwrap_or_default(),
            delay: policy.delay.map(nanoseconds),
            max_attempts: policy.max_attempts,
            window: policy.window.map(nanoseconds),
        });
    }
    let policy = |condition: &str, max_attempts| {
        Some(RestartPolicy {
            condition: condition.to_owned(),
            max_attempts,
            ..RestartPolicy::default()
        })
    };
    match service.restart {
        None if awaited => policy("on-failure", None),
        None => None,
        Some(compose_model::RestartPolicy::No) => policy("none", None),
        Some(
            compose_model::RestartPolicy::Always | compose_model::RestartPolicy::UnlessStopped,
        ) => policy("any", None),
        Some(compose_model::RestartPolicy::OnFailure { max_retries }) => {
            policy("on-failure", Some(max_retries.map_or(0, u64::from)))
        }
    }
}
