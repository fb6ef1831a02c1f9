//! Compose files as bake files: every service with a build is a target, `x-bake` adds what Compose has no words for.
//! Paths stay as they are written: bake's are relative to the current directory. Source: buildx `bake/compose.go`.
//!
//! Must not: resolve paths or look at services without a build.

use super::target::csv_field;
use crate::out;
use crate::render::units::bytes_size;
use agent_api::client::build::is_remote;
use compose_model::{Build, LoadOptions, Project, ServiceConfig, Stages, Style};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What Compose files are called, in the order in which they are looked for.
pub(super) const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

/// What `x-bake` may say.
const EXTENSION_KEYS: [&str; 11] = [
    "tags",
    "cache-from",
    "cache-to",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "no-cache-filter",
    "contexts",
];

/// Compose files, and what they are to be read with.
pub(super) struct Files<'a> {
    pub(super) names: Vec<PathBuf>,
    /// Content of the file `-`.
    pub(super) stdin: Option<String>,
    pub(super) here: &'a Path,
    pub(super) environment: BTreeMap<String, String>,
}

/// The targets of files that are merged as Compose merges them, by name.
pub(super) fn targets(files: Files<'_>) -> Result<BTreeMap<String, Map<String, Value>>, String> {
    let named = files.environment.get("COMPOSE_PROJECT_NAME");
    let name = named.filter(|name| !name.is_empty()).cloned();
    let options = LoadOptions {
        files: files.names,
        stdin: files.stdin,
        current_dir: files.here.to_owned(),
        project_directory: Some(files.here.to_owned()),
        project_name: Some(name.unwrap_or_else(|| "bake".to_owned())),
        profiles: vec!["*".to_owned()],
        environment: files.environment,
        stages: Stages {
            normalize: false,
            resolve_paths: false,
            check_consistency: false,
            ..Stages::default()
        },
        ..LoadOptions::default()
    };
    let loaded = compose_model::load(&options)
        .map_err(|problems| problems.render(Style::Plain).trim_end().to_owned())?;
    let project = &loaded.project;
    let mut targets = BTreeMap::new();
    for (service, config) in &project.services {
        let Some(build) = &config.build else { continue };
        let name = target_name(service)?;
        let target = target(project, config, build)
            .map_err(|reason| format!("service {service}: {reason}"))?;
        if targets.insert(name.clone(), target).is_some() {
            return Err(format!("two services are the target {name}"));
        }
    }
    Ok(targets)
}

/// A service's name with what targets cannot have in theirs replaced.
fn target_name(service: &str) -> Result<String, String> {
    let name = service.replace('.', "_");
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || !name.chars().all(valid) {
        return Err(format!(
            "invalid service name {service:?}: targets are named by letters, digits, - and _"
        ));
    }
    Ok(name)
}

/// The attributes of one target.
fn target(
    project: &Project,
    service: &ServiceConfig,
    build: &Build,
) -> Result<Map<String, Value>, String> {
    let mut target = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        if !empty {
            target.insert(key.to_owned(), value);
        }
    };
    set("context", json!(build.context.as_deref().map(cleaned)));
    set("contexts", contexts(&build.additional_contexts)?);
    set(
        "dockerfile",
        json!(build.dockerfile.as_deref().map(cleaned)),
    );
    set("dockerfile-inline", json!(build.dockerfile_inline));
    set("args", args(project, service, build));
    set("labels", json!(build.labels));
    let tags = match (&build.tags[..], &service.image) {
        ([], Some(image)) => vec![image.clone()],
        (tags, _) => tags.to_vec(),
    };
    set("tags", json!(tags));
    set("cache-from", json!(build.cache_from));
    set("cache-to", json!(build.cache_to));
    set("target", json!(build.target));
    set("secret", secrets(project, build)?);
    let agent = |(id, path): (&String, &Option<String>)| match path {
        Some(path) => format!("{id}={}", cleaned(path)),
        None => id.clone(),
    };
    set("ssh", build.ssh.0.iter().map(agent).collect());
    set("platforms", json!(build.platforms));
    set("pull", json!(build.pull.then_some(true)));
    set("no-cache", json!(build.no_cache.then_some(true)));
    set("network", json!(build.network));
    let size = build.shm_size.map(|size| bytes_size(size.0));
    set("shm-size", json!(size));
    let limit = |(name, limit): (&String, &compose_model::Ulimit)| {
        format!("{name}={}:{}", limit.soft, limit.hard)
    };
    set("ulimits", build.ulimits.iter().map(limit).collect());
    let hosts = build.extra_hosts.0.iter();
    let hosts: BTreeMap<_, _> = hosts.map(|(host, to)| (host, to.join(","))).collect();
    set("extra-hosts", json!(hosts));
    set("attest", attestations(build));
    if let Some(extension) = build.extensions.get("x-bake") {
        extend(&mut target, extension).map_err(|reason| format!("x-bake: {reason}"))?;
    }
    Ok(target)
}

/// Arguments with their values. One that is named alone has the service's value for it, else the environment's, else it
/// is left out.
fn args(project: &Project, service: &ServiceConfig, build: &Build) -> Value {
    let value = |(name, value): (&String, &Option<String>)| {
        let own = || service.environment.get(name).cloned().flatten();
        let outer = || project.environment.get(name).cloned();
        Some((
            name.clone(),
            json!(value.clone().or_else(own).or_else(outer)?),
        ))
    };
    build
        .args
        .iter()
        .filter_map(value)
        .collect::<Map<_, _>>()
        .into()
}

fn contexts(all: &BTreeMap<String, String>) -> Result<Value, String> {
    let mut contexts = Map::new();
    for (name, place) in all {
        let service = place.strip_prefix("service:");
        let place = match service.or_else(|| place.strip_prefix("target:")) {
            Some(other) => format!("target:{}", target_name(other)?),
            None => cleaned(place),
        };
        contexts.insert(name.clone(), json!(place));
    }
    Ok(contexts.into())
}

fn secrets(project: &Project, build: &Build) -> Result<Value, String> {
    let entry = |reference: &compose_model::FileReference| {
        let source = &reference.source;
        let secret = project.secrets.get(source);
        let secret = secret.ok_or_else(|| format!("there is no secret {source}"))?;
        if secret.external {
            return Err(format!("unsupported external secret {source}"));
        }
        // BuildKit's own name for it is the one of the project: what Compose calls its target is a path.
        let mut entry = csv_field("id", source);
        if let Some(file) = &secret.file {
            entry += &format!(",{}", csv_field("src", &cleaned(file)));
        }
        if let Some(variable) = &secret.environment {
            entry += &format!(",{}", csv_field("env", variable));
        }
        Ok(Value::String(entry))
    };
    build.secrets.iter().map(entry).collect()
}

fn attestations(build: &Build) -> Value {
    let entry = |(kind, value): (&str, &Option<compose_model::Text>)| {
        let text = value.as_ref()?.0.as_str();
        Some(match text {
            "true" => format!("type={kind}"),
            "false" => format!("type={kind},disabled=true"),
            attributes => format!("type={kind},{attributes}"),
        })
    };
    let both = [("sbom", &build.sbom), ("provenance", &build.provenance)];
    both.into_iter().filter_map(entry).collect()
}

/// Puts `x-bake` on top: lists are added to, the rest is replaced.
fn extend(target: &mut Map<String, Value>, extension: &Value) -> Result<(), String> {
    let members = match extension {
        Value::Null => return Ok(()),
        Value::Object(members) => members,
        _ => return Err("it is no mapping".to_owned()),
    };
    for (key, value) in members {
        match key.as_str() {
            "pull" | "no-cache" => {
                if !value.is_boolean() {
                    return Err(format!("{key} is neither true nor false"));
                }
                target.insert(key.clone(), value.clone());
            }
            "contexts" => {
                let given = serde_json::from_value(value.clone())
                    .map_err(|error| format!("contexts: {error}"))?;
                let added = contexts(&given)?;
                let all = target.entry(key).or_insert_with(|| json!({}));
                if let (Value::Object(all), Value::Object(added)) = (all, added) {
                    all.extend(added);
                }
            }
            list if EXTENSION_KEYS.contains(&list) => {
                let added = words(value).map_err(|reason| format!("{key}: {reason}"))?;
                let all = target.entry(key).or_insert_with(|| json!([]));
                if let Value::Array(all) = all {
                    for word in added {
                        if !all.contains(&word) {
                            all.push(word);
                        }
                    }
                }
            }
            other => out::note(format!(
                "WARNING: x-bake has no attribute {other:?}: ignored"
            )),
        }
    }
    Ok(())
}

/// A list, or one text with words between spaces.
fn words(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::String(text) => Ok(text.split_whitespace().map(Value::from).collect()),
        Value::Array(items) if items.iter().all(Value::is_string) => Ok(items.clone()),
        _ => Err("it is neither a text nor a list of them".to_owned()),
    }
}

/// A path without what means nothing in it; addresses stay as they are.
fn cleaned(place: &str) -> String {
    if is_remote(place) || place.contains("://") {
        return place.to_owned();
    }
    let parts = Path::new(place).components();
    let path: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    match path.to_string_lossy() {
        empty if empty.is_empty() => ".".to_owned(),
        path => path.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_means_nothing() {
        for (written, cleaned_path) in [
            (".", "."),
            ("./", "."),
            ("./sub/", "sub"),
            ("../a/./b", "../a/b"),
            ("/a/b", "/a/b"),
            ("https://host/a.git#main:./x", "https://host/a.git#main:./x"),
            ("docker-image://a", "docker-image://a"),
        ] {
            assert_eq!(cleaned(written), cleaned_path, "{written}");
        }
    }

    #[test]
    fn names_that_targets_cannot_have_are_refused() {
        assert_eq!(target_name("web.app").unwrap(), "web_app");
        assert!(target_name("a b").unwrap_err().contains("\"a b\""));
    }
}
