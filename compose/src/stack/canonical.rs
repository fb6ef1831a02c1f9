//! One form for specs that mean the same: defaults filled in, what says nothing left out, ids of networks as names,
//! order only where it matters. A cluster may give a spec back with its defaults written out (Docker does), or from a
//! client that wrote them; comparing must not see a difference there, or every deployment would restart everything.

use std::collections::BTreeMap;

use agent_api::swarm::{
    ContainerSpec, EndpointSpec, ReplicatedService, RestartPolicy, ServiceSpec, UpdateConfig,
};
use serde_json::{Map, Value};

const SECOND: i64 = 1_000_000_000;
/// Between the end of a task and its successor.
const RESTART_DELAY: i64 = 5 * SECOND;
/// Between the stop signal and SIGKILL.
const STOP_GRACE: i64 = 10 * SECOND;
/// How long a new task is watched.
const MONITOR: i64 = 5 * SECOND;

/// The canonical form of a spec. `networks` maps ids to names.
pub(super) fn spec(spec: &ServiceSpec, networks: &BTreeMap<&str, &str>) -> Value {
    let mut spec = spec.clone();
    let template = &mut spec.task_template;
    if template.networks.is_empty() {
        template.networks = std::mem::take(&mut spec.networks);
    }
    for attachment in &mut template.networks {
        if let Some(name) = networks.get(attachment.target.as_str()) {
            (*name).clone_into(&mut attachment.target);
        }
        attachment.aliases.sort();
    }
    if template.runtime.is_empty() {
        template.runtime = "container".to_owned();
    }
    restart(template.restart_policy.get_or_insert_default());
    if let Some(placement) = &mut template.placement {
        // Filled in when the image was looked up.
        placement.platforms.clear();
    }
    if let Some(container) = &mut template.container_spec {
        self::container(container);
    }
    if let Some(replicated) = &mut spec.mode.replicated {
        *replicated = ReplicatedService {
            replicas: Some(replicated.replicas.unwrap_or(1)),
        };
    }
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        config.as_mut().map(rollout);
    }
    endpoint(spec.endpoint_spec.get_or_insert_default());
    let mut value = serde_json::to_value(&spec).expect("a spec serialises");
    environment(&mut value);
    said(value).unwrap_or_default()
}

fn restart(policy: &mut RestartPolicy) {
    or_default(&mut policy.condition, "any");
    policy.delay = Some(policy.delay.unwrap_or(RESTART_DELAY));
    policy.max_attempts = Some(policy.max_attempts.unwrap_or(0));
    policy.window = Some(policy.window.unwrap_or(0));
}

fn rollout(config: &mut UpdateConfig) {
    or_default(&mut config.failure_action, "pause");
    or_default(&mut config.order, "stop-first");
    if config.monitor == 0 {
        config.monitor = MONITOR;
    }
}

fn endpoint(endpoint: &mut EndpointSpec) {
    or_default(&mut endpoint.mode, "vip");
    for port in &mut endpoint.ports {
        or_default(&mut port.protocol, "tcp");
        or_default(&mut port.publish_mode, "ingress");
    }
    endpoint.ports.sort();
}

fn container(container: &mut ContainerSpec) {
    or_default(&mut container.isolation, "default");
    container.stop_grace_period = Some(container.stop_grace_period.unwrap_or(STOP_GRACE));
    for secret in &mut container.secrets {
        secret.secret_id.clear();
    }
    for config in &mut container.configs {
        config.config_id.clear();
    }
    container
        .secrets
        .sort_by(|a, b| a.secret_name.cmp(&b.secret_name));
    container
        .configs
        .sort_by(|a, b| a.config_name.cmp(&b.config_name));
    container.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
}

fn or_default(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

/// `["A=1", "B"]` → `{"A": "=1", "B": ""}`: the order means nothing, and the last one of a name wins.
fn environment(value: &mut Value) {
    let Some(variables) = value.pointer_mut("/TaskTemplate/ContainerSpec/Env") else {
        return;
    };
    let lines = variables.as_array().cloned().unwrap_or_default();
    let pairs = lines.iter().filter_map(Value::as_str).map(|line| {
        let name = line.split('=').next().unwrap_or(line);
        (name.to_owned(), Value::from(&line[name.len()..]))
    });
    *variables = Value::Object(pairs.collect());
}

/// Without what says nothing (null, false, empty), members sorted; numbers and `Init`, which may be off or unset, stay.
fn said(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(list) => {
            // An element that says nothing still has its place.
            let list: Vec<_> = list
                .into_iter()
                .map(|element| said(element).unwrap_or_default())
                .collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(members) => {
            let mut sorted = BTreeMap::new();
            for (key, value) in members {
                let kept = match (key.as_str(), value) {
                    ("Init", value @ Value::Bool(_)) => Some(value),
                    // What is set to nothing is still set.
                    ("Env" | "Labels" | "Sysctls" | "Options", Value::Object(pairs)) => {
                        (!pairs.is_empty()).then(|| sorted_object(pairs))
                    }
                    (_, value) => said(value),
                };
                if let Some(value) = kept {
                    sorted.insert(key, value);
                }
            }
            let members: Map<_, _> = sorted.into_iter().collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}

fn sorted_object(pairs: Map<String, Value>) -> Value {
    let sorted: BTreeMap<_, _> = pairs.into_iter().collect();
    Value::Object(sorted.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn canonical(value: Value) -> Value {
        let spec: ServiceSpec = serde_json::from_value(value).unwrap();
        super::spec(&spec, &BTreeMap::from([("n1", "app_default")]))
    }

    #[test]
    fn written_defaults_are_no_difference() {
        let short = json!({
            "Name": "app_web",
            "TaskTemplate": {"ContainerSpec": {"Image": "web", "Env": ["B=2", "A=1"]},
                "Networks": [{"Target": "app_default", "Aliases": ["web"]}]},
            "Mode": {"Replicated": {}},
            "UpdateConfig": {"Parallelism": 1},
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
        });
        let long = json!({
            "Name": "app_web", "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "web", "Env": ["A=1", "B=2"], "Isolation": "default", "DNSConfig": {},
                    "StopGracePeriod": 10_000_000_000_i64, "Privileges": {"CredentialSpec": null, "NoNewPrivileges": false}},
                "Resources": {"Limits": {}, "Reservations": {}},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0},
                "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
                "Networks": [{"Target": "n1", "Aliases": ["web"]}],
                "ForceUpdate": 0, "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
                "MaxFailureRatio": 0.0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
        });
        assert_eq!(canonical(short), canonical(long));
    }

    #[test]
    fn what_means_something_else_stays_different() {
        let base = json!({"TaskTemplate": {"ContainerSpec": {"Image": "web"}}, "Mode": {"Replicated": {"Replicas": 1}}});
        for (pointer, value) in [
            ("/TaskTemplate/ContainerSpec/Init", json!(false)),
            ("/TaskTemplate/ContainerSpec/Env", json!(["A="])),
            ("/TaskTemplate/ContainerSpec/Command", json!([""])),
            ("/Mode/Replicated/Replicas", json!(0)),
            ("/UpdateConfig", json!({"Parallelism": 0})),
        ] {
            let mut other = base.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            other.pointer_mut(parent).unwrap()[key] = value;
            assert_ne!(canonical(base.clone()), canonical(other), "{pointer}");
        }
    }
}
