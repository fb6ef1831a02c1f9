//! `build` of services: what of it becomes a build, which images are planned to be built, and why.

use std::collections::BTreeSet;

use agent_api::build::Entitlement;
use agent_api::client::build::{DockerfilePlace, SecretSpec};
use compose::convert::build::service_build;
use compose::plan::images::{Building, ImageOptions};
use compose::plan::{self, Operation};
use compose_model::Sources;
use serde_json::{Value, json};

use crate::plans::project_with;

fn planned(
    project: Value,
    there: &[&str],
    building: Building,
    services: &[&str],
) -> Result<String, String> {
    let there: BTreeSet<String> = there.iter().map(|image| (*image).to_owned()).collect();
    let options = ImageOptions {
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        building,
    };
    let project = project_with(project);
    plan::images(&project, &Sources::default(), &there, &options)
        .map(|plan| plan.to_string())
        .map_err(|error| error.to_string())
}

fn three() -> Value {
    json!({"services": {
        "base": {"build": {"context": "/base"}},
        "web": {"build": {"context": "/web", "additional_contexts": {"base": "service:base"}}, "image": "me/web"},
        "db": {"image": "postgres"},
    }})
}

#[test]
fn missing_images_are_built_after_those_they_build_on() {
    assert_eq!(
        planned(three(), &[], Building::Missing, &[]).unwrap(),
        "1 build image demo-base for base: does not exist\n\
         2 build image me/web for web (after 1): does not exist\n"
    );
    assert_eq!(
        planned(three(), &["demo-base"], Building::Missing, &["web"]).unwrap(),
        "1 build image demo-base for base: needed by web\n\
         2 build image me/web for web (after 1): does not exist\n"
    );
    assert_eq!(
        planned(three(), &["demo-base", "me/web"], Building::Missing, &[]).unwrap(),
        ""
    );
    assert_eq!(planned(three(), &[], Building::Never, &[]).unwrap(), "");
}

#[test]
fn a_build_that_is_asked_for_is_done_again() {
    assert_eq!(
        planned(three(), &["demo-base", "me/web"], Building::All, &["base"]).unwrap(),
        "1 build image demo-base for base: asked for\n"
    );
    let mut policy = three();
    policy["services"]["base"]["pull_policy"] = json!("build");
    assert_eq!(
        planned(policy, &["demo-base", "me/web"], Building::Missing, &[]).unwrap(),
        "1 build image demo-base for base: pull_policy is build\n"
    );
    let mut never = three();
    never["services"]["base"]["pull_policy"] = json!("never");
    never["services"]["web"] = json!({"image": "x"});
    assert_eq!(planned(never, &[], Building::Missing, &[]).unwrap(), "");
}

#[test]
fn builds_that_cannot_be_are_all_told() {
    let error = planned(
        json!({"services": {
            "a": {"build": {"context": "/a", "additional_contexts": {"x": "service:b"}}},
            "b": {"build": {"context": "/b", "additional_contexts": {"x": "service:a"}}},
            "c": {"build": {"context": "/c", "additional_contexts": {"x": "service:none"}}},
            "d": {"build": {"context": "/d", "isolation": "hyperv"}},
            "e": {"build": {"context": "/e", "cache_to": ["type=gha"]}},
        }}),
        &[],
        Building::All,
        &[],
    )
    .unwrap_err();
    for words in ["a → b → a", "there is no service none", "hyperv", "gha"] {
        assert!(error.contains(words), "{words} in {error}");
    }
}

#[test]
fn every_attribute_reaches_the_build() {
    let project = project_with(json!({
        "services": {"web": {"platform": "linux/amd64", "build": {
            "context": "/web", "dockerfile": "docker/Dockerfile", "args": {"A": "1", "B": null},
            "target": "prod", "labels": {"l": "v"}, "tags": ["me/web:2"], "no_cache": true, "no_cache_filter": ["s"],
            "pull": true, "network": "host", "privileged": true, "shm_size": "64m", "extra_hosts": {"h": ["1.2.3.4"]},
            "ulimits": {"nofile": {"soft": 1, "hard": 2}}, "cache_from": ["type=registry,ref=r"],
            "secrets": [{"source": "token"}, {"source": "file", "target": "renamed"}],
        }}},
        "secrets": {"token": {"name": "demo_token", "environment": "TOKEN"}, "file": {"name": "demo_file", "file": "/s"}},
    }));
    let build = service_build(&project, "web").unwrap().unwrap();
    assert_eq!(
        (build.image.as_str(), build.spec.context.as_str()),
        ("demo-web", "/web")
    );
    assert_eq!(
        build.spec.dockerfile,
        DockerfilePlace::Path("/web/docker/Dockerfile".into())
    );
    let secret = |id: &str, src: Option<&str>, env: Option<&str>| SecretSpec {
        id: id.to_owned(),
        src: src.map(Into::into),
        env: env.map(str::to_owned),
    };
    assert_eq!(
        build.spec.secrets,
        [
            secret("token", None, Some("TOKEN")),
            secret("renamed", Some("/s"), None)
        ]
    );
    let request = &build.spec.request;
    assert_eq!(
        request.build_args.len(),
        1,
        "an argument without a value is left out"
    );
    assert_eq!(
        (request.target.as_str(), request.network.as_str()),
        ("prod", "host")
    );
    assert_eq!(request.tags, ["demo-web", "me/web:2"]);
    assert_eq!(request.platforms, ["linux/amd64"]);
    assert_eq!(request.labels["com.docker.compose.service"], "web");
    assert_eq!(request.labels["l"], "v");
    assert!(request.no_cache && request.pull);
    assert_eq!(
        request.allow,
        [Entitlement::SecurityInsecure, Entitlement::NetworkHost]
    );
    assert_eq!((request.shm_size, request.ulimits[0].hard), (64 << 20, 2));
    assert_eq!(request.add_hosts, ["h:1.2.3.4"]);
    assert_eq!(build.spec.cache_from.len(), 1);
    let inline = project_with(
        json!({"services": {"web": {"build": {"context": "/web", "dockerfile_inline": "FROM a"}}}}),
    );
    let build = service_build(&inline, "web").unwrap().unwrap();
    assert_eq!(
        build.spec.dockerfile,
        DockerfilePlace::Inline("FROM a".to_owned())
    );
    assert!(service_build(&project_with(three()), "db").is_none());
}

#[test]
fn a_plan_shows_builds_before_containers() {
    let project = project_with(three());
    let images = plan::images(
        &project,
        &Sources::default(),
        &BTreeSet::new(),
        &ImageOptions::default(),
    )
    .unwrap();
    let built: Vec<&str> = images.builds().map(|build| build.image.as_str()).collect();
    assert_eq!(built, ["demo-base", "me/web"]);
    let later = images.clone();
    let whole = images.then(later);
    assert_eq!(whole.steps.len(), 4);
    assert!(
        whole.steps[2].after.iter().all(|edge| edge.step < 2) && whole.steps[3].after[0].step == 2
    );
    assert!(matches!(
        whole.steps[3].operation,
        Operation::BuildImage { .. }
    ));
    assert_eq!(whole.to_json()["steps"][0]["operation"], "build_image");
}
