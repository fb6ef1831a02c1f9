//! What is planned: goldens of whole plans, tables of rules, and that nothing makes the planner panic.

mod contexts;
mod corpus;
mod errors;
mod goldens;
mod lints;
mod names;
mod properties;
mod rules;

use super::*;
use crate::dockerfile::Dockerfile;

/// The image that every name stands for: one layer, a `PATH`, and what a test adds.
fn image(config: &str) -> BaseImage {
    BaseImage {
        id: "sha256:base".to_owned(),
        digest: None,
        layers: 1,
        config: ImageConfig::from_json(config.as_bytes()).unwrap(),
    }
}

const BASE: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},
    "rootfs":{"type":"layers","diff_ids":["sha256:1"]},"history":[{"created_by":"base"}]}"#;

fn options() -> BuildOptions {
    BuildOptions {
        build_platform: Some("linux/amd64".parse().unwrap()),
        ..BuildOptions::default()
    }
}

fn with_args(args: &[(&str, &str)]) -> BuildOptions {
    let pairs = args
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BuildOptions {
        build_args: pairs.collect(),
        ..options()
    }
}

/// Plans with every base image the same; `images` gives others by part of their name.
fn planned_with(
    text: &str,
    options: &BuildOptions,
    images: &[(&str, &str)],
) -> Result<Plan, PlanError> {
    let dockerfile = Dockerfile::parse(text, "Dockerfile").unwrap();
    let mut known = Bases::default();
    for _ in 0..5 {
        let missing = bases(&dockerfile, options, &known)?;
        if missing.is_empty() {
            return plan(&dockerfile, options, &known);
        }
        for request in missing {
            let named = |(name, _): &&(&str, &str)| format!("{:?}", request.source).contains(name);
            let config = images.iter().find(named).map_or(BASE, |(_, config)| config);
            let mut image = image(config);
            image.id = format!("id of {}", request.written);
            known.insert(&request, image);
        }
    }
    panic!("bases never end");
}

fn planned(text: &str) -> Plan {
    planned_with(text, &options(), &[]).unwrap()
}

fn error(text: &str) -> PlanError {
    planned_with(text, &options(), &[]).unwrap_err()
}

/// Lines of history that the build added.
fn history(plan: &Plan) -> Vec<&str> {
    let added = plan
        .config
        .history
        .iter()
        .filter(|line| !line.comment.is_empty());
    added.map(|line| line.created_by.as_str()).collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.vertices
        .iter()
        .map(|vertex| vertex.name.as_str())
        .collect()
}

fn env(plan: &Plan) -> Vec<&str> {
    plan.config.config.env.iter().map(String::as_str).collect()
}

fn runs(plan: &Plan) -> Vec<&RunOp> {
    let mut found = Vec::new();
    for vertex in &plan.vertices {
        if let Op::Run(run) = &vertex.op {
            found.push(&**run);
        }
    }
    found
}

fn copies(plan: &Plan) -> Vec<&CopyOp> {
    let mut found = Vec::new();
    for vertex in &plan.vertices {
        if let Op::Copy(copy) = &vertex.op {
            found.push(copy);
        }
    }
    found
}
