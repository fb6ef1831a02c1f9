//! Bodies compared with what docker 28.2.2 sent for the same command lines (`tests/recorded/services.json`, taken from its
//! `service create` and `service update` by a recorder on a socket; updates are of the service at its head).

use super::words::split;
use super::*;
use crate::flags::bools::as_pflag;
use clap::{Args, Parser};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Parser)]
struct Create {
    #[command(flatten)]
    flags: CreateFlags,
    image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Parser)]
struct Update {
    #[command(flatten)]
    flags: UpdateFlags,
    name: String,
}

fn parse<T: Parser + Args>(words: Vec<String>) -> Result<T, clap::Error> {
    let matches = as_pflag(T::command()).try_get_matches_from(words)?;
    T::from_arg_matches(&matches)
}

fn known() -> Known {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, id)| ((*name).to_owned(), (*id).to_owned()))
            .collect()
    };
    Known {
        networks: map(&[("mynet", "net1"), ("ext", "net2")]),
        secrets: map(&[("token", "sec1")]),
        configs: map(&[("app", "conf1")]),
    }
}

fn body(line: &str, service: &Value) -> Result<ServiceSpec, String> {
    let words = split(line)?;
    if words[0] == "create" {
        let create: Create = parse(words).map_err(|error| error.to_string())?;
        let named = create.flags.named()?;
        assert!(named.secrets.len() < 3);
        create.flags.spec(&create.image, &create.args, &known())
    } else {
        let update: Update = parse(words).map_err(|error| error.to_string())?;
        let mut spec =
            serde_json::from_value(service.clone()).map_err(|error| error.to_string())?;
        update.flags.apply(&mut spec, &known())?;
        Ok(spec)
    }
}

/// Without empty fields, lists whose order means nothing sorted, and members sorted.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter_map(|(key, value)| {
                let mut value = normal(value);
                if let ("Env" | "GenericResources" | "Secrets" | "Configs", Value::Array(list)) =
                    (key.as_str(), &mut value)
                {
                    list.sort_by_key(ToString::to_string);
                }
                let kept = ["Parallelism", "Replicas", "MaxAttempts"].contains(&key.as_str());
                let empty = match &value {
                    Value::Null => true,
                    Value::Bool(on) => !on && key != "Init",
                    Value::String(text) => text.is_empty(),
                    Value::Number(number) => number.as_f64() == Some(0.0) && !kept,
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

#[test]
fn flags_ask_for_what_dockers_ask_for() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/services.json");
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    let mut wrong = Vec::new();
    for case in cases {
        let line = case["line"].as_str().unwrap();
        let spec = match body(line, &recorded["service"]) {
            Ok(spec) => spec,
            Err(reason) => {
                wrong.push(format!("{line}\n  {reason}"));
                continue;
            }
        };
        let ours = normal(serde_json::to_value(spec).unwrap());
        let theirs = normal(case["body"].clone());
        if ours != theirs {
            let text = |value| serde_json::to_string_pretty(value).unwrap();
            wrong.push(format!(
                "{line}\nours {}\ntheirs {}",
                text(&ours),
                text(&theirs)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for (line, reason) in [
        ("create -p 127.0.0.1:80:80 x", "hostip is not supported"),
        (
            "create -p published=80 x",
            "missing mandatory field 'target'",
        ),
        (
            "create -p target=80,mode=mesh x",
            "must be either 'ingress' or 'host'",
        ),
        (
            "create --mode global --replicas 2 x",
            "replicas can only be used",
        ),
        (
            "create --max-concurrent 2 x",
            "max-concurrent can only be used",
        ),
        ("create --mode cron x", "Unknown mode: cron"),
        (
            "create --mode global-job --update-parallelism 2 x",
            "not supported for jobs",
        ),
        (
            "create --placement-pref binpack=x x",
            "only spread is supported",
        ),
        (
            "create --generic-resource gpu=uuid x",
            "Named Generic Resources",
        ),
        ("create --network nowhere x", "network nowhere not found"),
        (
            "create --network name=ext,ip=10.0.0.1 x",
            "only alias and driver-opt",
        ),
        (
            "create --secret source=token --secret token x",
            "duplicate secret target",
        ),
        ("create --config nothing x", "config not found: nothing"),
        (
            "create --no-healthcheck --health-cmd x x",
            "conflicts with --health-*",
        ),
        ("create --credential-spec file://x x", "it is for Windows"),
        ("create --isolation hyperv x", "it is for Windows"),
        (
            "create --memory-swap 1g x",
            "--memory-swap is not supported yet",
        ),
        ("create --host alpha x", "bad format for add-host"),
        (
            "create --dns nowhere x",
            "IP address is not correctly formatted",
        ),
        ("create --entrypoint 'a x", "is not closed"),
        (
            "update --network-add mynet web",
            "already attached to network mynet",
        ),
        (
            "update --generic-resource-rm fpga web",
            "could not find generic-resource `fpga`",
        ),
        (
            "update --mount-add type=volume,target=/a --mount-add type=volume,target=/a web",
            "duplicate mount target",
        ),
    ] {
        let service =
            json!({"TaskTemplate": {"Networks": [{"Target": "net1"}]}, "Mode": {"Replicated": {}}});
        let error = body(line, &service).expect_err(line);
        assert!(error.contains(reason), "{line}: {error}");
    }
    let global = json!({"Mode": {"Global": {}}});
    assert!(body("update --replicas 2 web", &global).is_err());
}
