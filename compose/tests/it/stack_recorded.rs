//! Requests compared with what docker 28.2.2 sent for the same file (`docker stack deploy -c compose.yaml rec`). The file
//! is `tests/stack/recorded/compose.yaml` (docker needs a `version:` line besides), `requests.json` the bodies. Differences
//! on purpose are taken out in [`expected`], each with its reason.

use std::collections::BTreeMap;

use agent_api::Network;
use compose::labels;
use compose::stack::{self, DeployOptions, ObservedStack, StackStep};
use serde_json::{Value, json};

use crate::stacks::{directory, load};

/// Without empty fields, and members sorted.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter_map(|(key, value)| {
                let value = normal(value);
                let empty = match &value {
                    Value::Null => true,
                    Value::Bool(on) => !on && key != "Init",
                    Value::String(text) => text.is_empty(),
                    Value::Number(number) => number.as_f64() == Some(0.0) && key != "Parallelism",
                    Value::Object(fields) => fields.is_empty(),
                    Value::Array(list) => list.is_empty(),
                };
                (!empty).then_some((key, value))
            });
            let sorted: BTreeMap<String, Value> = fields.collect();
            serde_json::to_value(sorted).unwrap()
        }
        Value::Array(list) => Value::Array(list.into_iter().map(normal).collect()),
        other => other,
    }
}

/// What was recorded, as it would be with our deliberate differences.
fn expected() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(directory("recorded").join("requests.json")).unwrap();
    let mut all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    for (name, value) in &mut all {
        match name.as_str() {
            "services/rec_web" => {
                // In the file, and dropped by docker's loader.
                value["TaskTemplate"]["ContainerSpec"]["OomScoreAdj"] = json!(100);
            }
            "services/rec_plain" => {
                // The number that managers take for none is written out, so that a plan can compare it.
                value["Mode"]["Replicated"]["Replicas"] = json!(1);
                // The ids of the recorder's objects.
                for (list, id) in [("Secrets", "SecretID"), ("Configs", "ConfigID")] {
                    let list = value["TaskTemplate"]["ContainerSpec"][list].as_array_mut();
                    for reference in list.unwrap() {
                        reference[id] = Value::Null;
                    }
                }
            }
            // Which file of the project it is.
            "secrets/given-token" => value["Labels"][stack::labels::KEY] = json!("token"),
            "configs/given-app" => value["Labels"][stack::labels::KEY] = json!("app"),
            _ => {}
        }
    }
    all.into_iter()
        .map(|(name, value)| (name, normal(value)))
        .collect()
}

#[test]
fn a_stack_asks_for_what_docker_asks_for() {
    let loaded = load("recorded", "rec");
    let contents = stack::payload::read(&loaded.project);
    let desired = stack::desired(&loaded.project, &loaded.sources, &contents).unwrap();
    let observed = ObservedStack {
        networks: BTreeMap::from([(
            "ext".to_owned(),
            Network {
                name: "ext".into(),
                scope: "swarm".into(),
                ..Network::default()
            },
        )]),
        ..ObservedStack::default()
    };
    let plan = stack::plan(&desired, &observed, DeployOptions::default()).unwrap();
    let mut sent = BTreeMap::new();
    for step in &plan.steps {
        let body = match step {
            StackStep::CreateNetwork { request } => serde_json::to_value(request),
            StackStep::CreateSecret { spec } => serde_json::to_value(spec),
            StackStep::CreateConfig { spec } => serde_json::to_value(spec),
            StackStep::CreateService { spec } => serde_json::to_value(spec),
            other => panic!("{other}"),
        };
        let name = format!("{}s/{}", step.kind(), step.object());
        sent.insert(name, normal(body.unwrap()));
    }
    let expected = expected();
    assert_eq!(
        sent.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, body) in expected {
        assert_eq!(
            serde_json::to_string_pretty(&sent[&name]).unwrap(),
            serde_json::to_string_pretty(&body).unwrap(),
            "{name}"
        );
    }
    assert!(!plan.to_string().contains(labels::PROJECT));
}
