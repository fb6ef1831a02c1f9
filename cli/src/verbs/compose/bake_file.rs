//! `compose build --print`: the builds of a project as the bake file that says the same.
//! Source: docker/compose `pkg/compose/build_bake.go`.

use crate::buildx::job::Job;
use agent_api::build::{Call, Entitlement};
use agent_api::client::build::{DockerfilePlace, SecretSpec, SshSpec};
use compose_model::Project;
use serde_json::{Map, Value, json};

/// The file, indented.
pub(super) fn print(project: &Project, jobs: &[Job], push: bool) -> String {
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let mut targets: Vec<(&str, Value)> = jobs
        .iter()
        .map(|job| (job.name.as_str(), target(project, job, push)))
        .collect();
    targets.sort_by_key(|(name, _)| *name);
    let targets: Map<String, Value> = targets
        .into_iter()
        .map(|(name, target)| (name.to_owned(), target))
        .collect();
    let whole = json!({"group": {"default": {"targets": names}}, "target": targets});
    serde_json::to_string_pretty(&whole).expect("JSON has a text")
}

fn target(project: &Project, job: &Job, push: bool) -> Value {
    let (spec, request) = (&job.spec, &job.spec.request);
    let service = project.any_service(&job.name);
    let build = service.and_then(|service| service.build.as_ref());
    let mut target = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(true) | Value::Number(_) => false,
        };
        if !empty {
            target.insert(key.to_owned(), value);
        }
    };
    set("context", json!(spec.context));
    let mut contexts: Vec<(&String, String)> = spec
        .named_contexts
        .iter()
        .map(|(name, place)| match job.from_jobs.get(name) {
            Some(other) => (name, format!("target:{other}")),
            None => (name, place.clone()),
        })
        .collect();
    contexts.sort();
    set("contexts", members(contexts));
    match &spec.dockerfile {
        DockerfilePlace::Inline(text) => set("dockerfile-inline", json!(text)),
        DockerfilePlace::Path(path) => set("dockerfile", json!(path)),
        DockerfilePlace::Default | DockerfilePlace::Stdin => {
            set("dockerfile", json!(format!("{}/Dockerfile", spec.context)));
        }
    }
    set("args", sorted(request.build_args.iter()));
    set("labels", sorted(request.labels.iter()));
    // The image's own name comes last.
    let mut tags = request.tags.clone();
    if !tags.is_empty() {
        tags.rotate_left(1);
    }
    set("tags", json!(tags));
    set("cache-from", json!(build.map(|build| &build.cache_from)));
    set("cache-to", json!(build.map(|build| &build.cache_to)));
    set("target", json!(request.target));
    set("secret", spec.secrets.iter().map(secret).collect());
    set("ssh", spec.ssh.iter().map(agent).collect());
    set("platforms", json!(request.platforms));
    set("pull", json!(request.pull));
    set("no-cache", json!(request.no_cache));
    set("no-cache-filter", json!(request.no_cache_filter));
    set("network", json!(request.network));
    let size = Some(request.shm_size).filter(|size| *size > 0);
    set("shm-size", json!(size.map(|size| size.to_string())));
    let limits = request.ulimits.iter().map(|limit| match limit {
        limit if limit.soft == limit.hard => format!("{}={}", limit.name, limit.soft),
        limit => format!("{}={}:{}", limit.name, limit.soft, limit.hard),
    });
    set("ulimits", limits.collect());
    let mut allow: Vec<&Entitlement> = Vec::new();
    for entitlement in &request.allow {
        if !allow.contains(&entitlement) {
            allow.push(entitlement);
        }
    }
    set("entitlements", json!(allow));
    let hosts = request
        .add_hosts
        .iter()
        .filter_map(|line| line.split_once(':'));
    let mut hosts: Vec<_> = hosts.map(|(host, to)| (host, to.to_owned())).collect();
    hosts.sort();
    set("extra-hosts", members(hosts));
    let several = request.platforms.len() > 1;
    let pushed = push && service.is_some_and(|service| service.image.is_some());
    match (request.call, several, pushed) {
        (Call::Check, ..) => set("call", json!("lint")),
        (_, true, pushed) => set("output", json!([format!("type=image,push={pushed}")])),
        (_, false, true) => set("output", json!(["type=registry"])),
        (_, false, false) => set("output", json!(["type=docker"])),
    }
    Value::Object(target)
}

fn members(pairs: Vec<(impl AsRef<str>, String)>) -> Value {
    let pairs = pairs.into_iter();
    let members = pairs.map(|(name, value)| (name.as_ref().to_owned(), Value::String(value)));
    Value::Object(members.collect())
}

fn sorted<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    let mut pairs: Vec<(&String, String)> =
        pairs.map(|(name, value)| (name, value.clone())).collect();
    pairs.sort();
    members(pairs)
}

fn secret(secret: &SecretSpec) -> String {
    match (&secret.src, &secret.env) {
        (Some(path), _) => format!("id={},type=file,src={}", secret.id, path.display()),
        (None, Some(name)) => format!("id={},type=env,env={name}", secret.id),
        (None, None) => format!("id={}", secret.id),
    }
}

fn agent(agent: &SshSpec) -> String {
    let paths: Vec<_> = agent
        .paths
        .iter()
        .map(|path| path.to_string_lossy())
        .collect();
    format!("{}={}", agent.id, paths.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use compose::plan::images::{Building, ImageOptions};
    use compose_model::LoadOptions;
    use std::collections::BTreeSet;

    /// What Compose 2.40.3 prints for this file, but for `ulimits` (it writes none) and the order of the group.
    #[test]
    fn builds_are_printed_as_compose_prints_them() {
        let yaml = "
name: shop
services:
  web:
    image: example/web:1
    build:
      context: /ctx
      args: {A: '1'}
      tags: ['example/web:extra']
      labels: {x: 'y'}
      target: t
      no_cache: true
      pull: true
      cache_from: [example/cache]
      cache_to: ['type=inline']
      secrets: [tok, {source: tok2, target: t2}]
      ssh: [default]
      platforms: [linux/amd64]
      network: host
      shm_size: 64m
      extra_hosts: ['a=1.2.3.4']
      additional_contexts: {base: 'service:db', other: /ctx/sub}
      entitlements: [network.host]
      privileged: true
  db: {build: {context: /ctx, dockerfile_inline: \"FROM busybox\\n\"}}
secrets:
  tok: {file: /ctx/tok}
  tok2: {environment: TOK2}
";
        let options = LoadOptions {
            files: vec!["-".into()],
            stdin: Some(yaml.to_owned()),
            current_dir: "/ctx".into(),
            ..LoadOptions::default()
        };
        let loaded = compose_model::load(&options).unwrap();
        let wanted = ImageOptions {
            services: Vec::new(),
            building: Building::All,
        };
        let plan =
            compose::plan::images(&loaded.project, &loaded.sources, &BTreeSet::new(), &wanted);
        let jobs = super::super::images::jobs(&plan.unwrap());
        let printed = print(&loaded.project, &jobs, false);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let version = |service: &str| {
            let mut labels = json!({
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": service,
            });
            labels["com.docker.compose.version"] =
                printed["target"][service]["labels"]["com.docker.compose.version"].clone();
            labels
        };
        let mut web_labels = version("web");
        web_labels["x"] = json!("y");
        assert_eq!(
            printed,
            json!({
              "group": {"default": {"targets": ["db", "web"]}},
              "target": {
                "db": {
                  "context": "/ctx", "dockerfile-inline": "FROM busybox\n", "labels": version("db"),
                  "tags": ["shop-db"], "output": ["type=docker"]
                },
                "web": {
                  "context": "/ctx",
                  "contexts": {"base": "target:db", "other": "/ctx/sub"},
                  "dockerfile": "/ctx/Dockerfile",
                  "args": {"A": "1"},
                  "labels": web_labels,
                  "tags": ["example/web:extra", "example/web:1"],
                  "cache-from": ["example/cache"],
                  "cache-to": ["type=inline"],
                  "target": "t",
                  "secret": ["id=tok,type=file,src=/ctx/tok", "id=t2,type=env,env=TOK2"],
                  "ssh": ["default="],
                  "platforms": ["linux/amd64"],
                  "pull": true, "no-cache": true, "network": "host", "shm-size": "67108864",
                  "entitlements": ["security.insecure", "network.host"],
                  "extra-hosts": {"a": "1.2.3.4"},
                  "output": ["type=docker"]
                }
              }
            })
        );
        let pushed: Value = serde_json::from_str(&print(&loaded.project, &jobs, true)).unwrap();
        assert_eq!(pushed["target"]["web"]["output"], json!(["type=registry"]));
        assert_eq!(pushed["target"]["db"]["output"], json!(["type=docker"]));
    }
}
