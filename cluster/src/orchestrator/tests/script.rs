//! Golden scripts: what is done to a cluster (`> …`), and what its loops and agents then do. `UPDATE=1` writes the
//! latter anew.
//!
//! ```text
//! > node NAME [state=ready|down] [availability=active|pause|drain] [cpus=N] [label=KEY:VALUE]   makes or changes one
//! > nodes N            n1 … nN
//! > remove-node NAME
//! > service NAME [image=I] [replicas=N] [global] [constraint=EXPR] [port=N (host mode)] [ingress=N] [cpus=N (reserved)]
//!       [restart=none|on-failure|any] [delay=D] [attempts=N] [window=D] [grace=D] [after=GATES] [auth=S] [label=S]
//!       [parallelism=N] [update-delay=D] [monitor=D] [action=A] [ratio=F] [order=O] [rb-parallelism=N …] [max-per-node=N]
//! > rollback NAME      > remove NAME     > history N
//! > task LABEL STATE   the agent reports
//! > run DURATION       > ps NAME         > failover        > quiet DURATION (run, and say only what is left)
//! ```

use std::path::Path;

use agent_api::swarm::gate;
use agent_api::swarm::{
    ContainerSpec, EndpointSpec, GlobalService, NodeAvailability, NodeState, Placement, PortConfig,
    PullOptions, ReplicatedService, ResourceRequirements, Resources, RestartPolicy, ServiceSpec,
    UpdateConfig,
};
use cluster_api::TaskState;

use super::cluster::Cluster;

#[test]
fn scripts_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/orchestrator");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scripts' folder")
        .map(|entry| entry.expect("a script").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut different = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        eprintln!("{}", path.display());
        let actual = play(&text);
        if actual == text {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, actual).expect("a writable script");
        } else {
            let name = path.file_name().expect("a name").to_string_lossy();
            different.push(format!("{name}:\n{}", difference(&text, &actual)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn difference(expected: &str, actual: &str) -> String {
    let mut lines = expected.lines().zip(actual.lines()).enumerate();
    match lines.find(|(_, (expected, actual))| expected != actual) {
        Some((number, (expected, actual))) => format!(
            "line {}:\n  expected {expected:?}\n  actual   {actual:?}",
            number + 1
        ),
        None => "one is longer than the other".to_owned(),
    }
}

fn play(script: &str) -> String {
    let mut cluster = Cluster::new(1);
    let mut out = String::new();
    for line in script.lines() {
        let is_kept = line.is_empty() || line.starts_with('#') || line.starts_with('>');
        if is_kept {
            out.push_str(line);
            out.push('\n');
        }
        if let Some(command) = line.strip_prefix("> ") {
            perform(&mut cluster, command);
            for line in std::mem::take(&mut cluster.log) {
                out.push_str(&line);
                out.push('\n');
            }
        }
    }
    out
}

fn perform(cluster: &mut Cluster, command: &str) {
    let mut words = command.split_whitespace();
    let verb = words.next().expect("a verb");
    let arguments: Vec<&str> = words.collect();
    let name = arguments.first().copied().unwrap_or_default();
    let options = arguments.get(1..).unwrap_or_default();
    match verb {
        "node" => cluster.node(name, |node| {
            for option in options {
                match option.split_once('=').expect("key=value") {
                    ("state", "down") => node.status.state = NodeState::Down,
                    ("state", _) => node.status.state = NodeState::Ready,
                    ("availability", "drain") => {
                        node.spec.availability = NodeAvailability::Drain;
                    }
                    ("availability", "pause") => {
                        node.spec.availability = NodeAvailability::Pause;
                    }
                    ("availability", _) => node.spec.availability = NodeAvailability::Active,
                    ("cpus", cpus) => {
                        let description = node.description.as_mut().expect("made with one");
                        description.resources.nano_cpus = number::<i64>(cpus) * 1_000_000_000;
                    }
                    ("label", label) => {
                        let (key, value) = label.split_once(':').expect("key:value");
                        let labels = &mut node.spec.annotations.labels;
                        labels.insert(key.to_owned(), value.to_owned());
                    }
                    other => panic!("option {other:?}"),
                }
            }
        }),
        "nodes" => {
            for number in 1..=number(name) {
                cluster.node(&format!("n{number}"), |_| {});
            }
        }
        "remove-node" => cluster.remove_node(name),
        "service" => cluster.deploy(name, |spec| {
            for option in options {
                configure(spec, option);
            }
        }),
        "rollback" => cluster.roll_back(name),
        "remove" => cluster.remove_service(name),
        "history" => cluster.settings(|settings| {
            settings.spec.orchestration.task_history_retention_limit = Some(number(name));
        }),
        "task" => {
            let state = TaskState::ALL
                .into_iter()
                .find(|state| state.as_str() == options[0])
                .expect("a state");
            let task = cluster.task(name);
            cluster.report(&task, state, "");
        }
        "run" => cluster.run(nanos(name).unsigned_abs() / 1_000_000),
        "quiet" => {
            cluster.run(nanos(name).unsigned_abs() / 1_000_000);
            cluster.log.clear();
        }
        "failover" => cluster.fail_over(),
        "ps" => {
            let lines = cluster.list(name);
            cluster
                .log
                .extend(lines.into_iter().map(|line| format!("  {line}")));
            if let Some(reason) = cluster
                .service(name)
                .and_then(|service| super::super::waits_for(&cluster.store, &service))
            {
                cluster.log.push(format!("  {reason}"));
            }
        }
        other => panic!("verb {other:?}"),
    }
}

fn configure(spec: &mut ServiceSpec, option: &str) {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    if let Some(key) = key.strip_prefix("rb-") {
        return roll_out(
            spec.rollback_config.get_or_insert_with(by_default),
            key,
            value,
        );
    }
    let template = &mut spec.task_template;
    match key {
        "image" => container(spec).image = value.to_owned(),
        "auth" => {
            container(spec).pull_options = Some(PullOptions {
                registry_auth: value.to_owned(),
            });
        }
        "grace" => container(spec).stop_grace_period = Some(nanos(value)),
        "replicas" => {
            spec.mode.replicated = Some(ReplicatedService {
                replicas: Some(number(value)),
            });
        }
        "global" => spec.mode.global = Some(GlobalService {}),
        "constraint" => {
            let placement = template.placement.get_or_insert_with(Placement::default);
            placement.constraints = match value {
                "" => Vec::new(),
                value => vec![value.replace("!=", " != ").replace("==", " == ")],
            };
        }
        "max-per-node" => {
            let placement = template.placement.get_or_insert_with(Placement::default);
            placement.max_replicas = number(value);
        }
        "cpus" => {
            template.resources = Some(ResourceRequirements {
                reservations: Some(Resources {
                    nano_cpus: number::<i64>(value) * 1_000_000_000,
                    ..Resources::default()
                }),
                ..ResourceRequirements::default()
            });
        }
        "port" | "ingress" => {
            let mode = if key == "port" { "host" } else { "ingress" };
            spec.endpoint_spec = Some(EndpointSpec {
                mode: "vip".to_owned(),
                ports: vec![PortConfig {
                    published_port: number(value),
                    publish_mode: mode.to_owned(),
                    ..PortConfig::default()
                }],
            });
        }
        "restart" => restart(spec).condition = value.to_owned(),
        "delay" => restart(spec).delay = Some(nanos(value)),
        "attempts" => restart(spec).max_attempts = Some(number(value)),
        "window" => restart(spec).window = Some(nanos(value)),
        "after" => {
            let labels = &mut spec.annotations.labels;
            labels.insert(gate::LABEL.to_owned(), value.to_owned());
        }
        "label" => {
            let labels = &mut spec.annotations.labels;
            labels.insert("label".to_owned(), value.to_owned());
        }
        _ => roll_out(
            spec.update_config.get_or_insert_with(by_default),
            key,
            value,
        ),
    }
}

fn by_default() -> UpdateConfig {
    UpdateConfig {
        parallelism: 1,
        ..UpdateConfig::default()
    }
}

fn roll_out(config: &mut UpdateConfig, key: &str, value: &str) {
    match key {
        "parallelism" => config.parallelism = number(value),
        "update-delay" => config.delay = nanos(value),
        "monitor" => config.monitor = nanos(value),
        "action" => config.failure_action = value.to_owned(),
        "ratio" => config.max_failure_ratio = number(value),
        "order" => config.order = value.to_owned(),
        other => panic!("option {other:?}"),
    }
}

fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
    let template = &mut spec.task_template;
    template
        .container_spec
        .get_or_insert_with(ContainerSpec::default)
}

fn restart(spec: &mut ServiceSpec) -> &mut RestartPolicy {
    let template = &mut spec.task_template;
    template
        .restart_policy
        .get_or_insert_with(RestartPolicy::default)
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("number {text:?}"))
}

/// `500ms`, `3s`, `2m`.
fn nanos(text: &str) -> i64 {
    let units = [
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
    ];
    units
        .into_iter()
        .find_map(|(unit, nanos)| Some(text.strip_suffix(unit)?.parse::<i64>().ok()? * nanos))
        .unwrap_or_else(|| panic!("duration {text:?}"))
}
