//! The portable half of a container: process, environment, health check, ports it exposes, labels; and hooks.

use std::time::Duration;

use agent_api::{ContainerConfig, Empty, ExecCreateRequest, HealthConfig, Set};
use compose_model::{Healthcheck, ServiceConfig, ServiceHook};

use super::{ContainerSpec, container_labels};

/// `ContainerConfig` of a service's container.
pub(super) fn config(spec: &ContainerSpec<'_>) -> ContainerConfig {
    let service = spec.service;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    ContainerConfig {
        hostname: text(&service.hostname),
        domainname: text(&service.domainname),
        user: text(&service.user),
        attach_stdout: true,
        attach_stderr: true,
        exposed_ports: exposed_ports(service),
        tty: service.tty,
        open_stdin: service.stdin_open,
        env: Some(environment(&service.environment)),
        cmd: service.command.clone(),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        image: service.image_or_default(&spec.project.name, spec.name),
        working_dir: text(&service.working_dir),
        entrypoint: service.entrypoint.clone(),
        labels: container_labels(spec),
        stop_signal: text(&service.stop_signal),
        stop_timeout: service.stop_grace_period.map(|period| seconds(period.0)),
        ..ContainerConfig::default()
    }
}

/// The exec request of a `post_start` or `pre_stop` hook.
#[must_use]
pub fn hook(hook: &ServiceHook) -> ExecCreateRequest {
    ExecCreateRequest {
        user: hook.user.clone().unwrap_or_default(),
        privileged: hook.privileged,
        attach_stdout: true,
        attach_stderr: true,
        env: environment(&hook.environment),
        working_dir: hook.working_dir.clone().unwrap_or_default(),
        cmd: hook.command.clone().unwrap_or_default(),
        ..ExecCreateRequest::default()
    }
}

/// Whole seconds, rounded up: half a second of grace must not become none.
pub(crate) fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// `KEY=value`; a key without value removes the image's variable.
fn environment(variables: &std::collections::BTreeMap<String, Option<String>>) -> Vec<String> {
    let line = |(key, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    variables.iter().map(line).collect()
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos = |duration: Option<compose_model::Duration>| {
        duration.map_or(0, |duration| {
            i64::try_from(duration.0.as_nanos()).unwrap_or(i64::MAX)
        })
    };
    let test = if check.disable {
        vec!["NONE".to_owned()]
    } else {
        check.test.clone()
    };
    HealthConfig {
        test: (!test.is_empty()).then_some(test),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: check
            .retries
            .map_or(0, |retries| i64::try_from(retries).unwrap_or(i64::MAX)),
    }
}

/// `PORT/PROTOCOL` of everything in `expose` and `ports`, ranges expanded.
fn exposed_ports(service: &ServiceConfig) -> Option<Set> {
    let mut ports = Set::new();
    for text in &service.expose {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) => {
                for port in from..=to {
                    ports.insert(format!("{port}/{protocol}"), Empty {});
                }
            }
            // The loader checks the form; the engine names what it cannot read.
            _ => {
                ports.insert(text.clone(), Empty {});
            }
        }
    }
    for port in &service.ports {
        ports.insert(format!("{}/{}", port.target, port.protocol()), Empty {});
    }
    (!ports.is_empty()).then_some(ports)
}
