//! What "changed" means: digests of services, networks and volumes.
//!
//! The digest in [`crate::labels::CONFIG_HASH`] plays the role it has in docker/compose (`pkg/compose/hash.go`), and like
//! there it leaves out what does not make a different container: `build`, `pull_policy`, `scale`, `replicas`,
//! `depends_on`, `profiles`. Unlike there it covers the contents of configs and secrets and the real names of networks
//! and volumes. Beside it, [`crate::labels::ATTRIBUTES`] holds a short digest per attribute, so that a plan can name
//! those that differ. Both depend on nothing but their input: fields that are absent do not count, so a later version
//! with more attributes computes the same.

use std::collections::BTreeMap;

use compose_model::{Network, Project, ServiceConfig, Volume};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use crate::convert;
use crate::state::{Content, Contents};

/// Attributes of a service that do not make a different container.
const WITHOUT_EFFECT: [&str; 8] = [
    "attach",
    "build",
    "depends_on",
    "develop",
    "profiles",
    "pull_policy",
    "pull_refresh_after",
    "scale",
];
/// Parts of `deploy` that make a different container.
const DEPLOY_WITH_EFFECT: [&str; 2] = ["resources", "restart_policy"];
/// Bytes of a digest that are kept per attribute: enough to tell a change, too few to guess a value from.
const ATTRIBUTE_BYTES: usize = 4;

/// Digests of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256 of everything, hex.
    pub hash: String,
    /// `name=digest,…`, by name.
    pub attributes: String,
}

/// Fingerprint of a service's containers.
#[must_use]
pub fn service(project: &Project, service: &ServiceConfig, contents: &Contents) -> Fingerprint {
    let mut parts = object(service);
    parts.retain(|name, _| !WITHOUT_EFFECT.contains(&name.as_str()));
    if let Some(Value::Object(deploy)) = parts.get_mut("deploy") {
        deploy.retain(|name, _| DEPLOY_WITH_EFFECT.contains(&name.as_str()));
        if deploy.is_empty() {
            parts.remove("deploy");
        }
    }
    let names: Value = convert::network_names(project, service).into();
    parts.insert("network names".to_owned(), names);
    for (name, target) in convert::named_volumes(project, service) {
        parts.insert(format!("volume {target}"), name.into());
    }
    let files = service
        .configs
        .iter()
        .map(|reference| ("config", &contents.configs, &reference.source));
    let files = files.chain(
        service
            .secrets
            .iter()
            .map(|reference| ("secret", &contents.secrets, &reference.source)),
    );
    for (kind, contents, key) in files {
        if let Some(Content::Digest(digest)) = contents.get(key) {
            parts.insert(format!("content of {kind} {key}"), digest.as_str().into());
        }
    }
    fingerprint(&parts)
}

/// Fingerprint of a network.
#[must_use]
pub fn network(network: &Network) -> Fingerprint {
    fingerprint(&object(network))
}

/// Fingerprint of a volume.
#[must_use]
pub fn volume(volume: &Volume) -> Fingerprint {
    fingerprint(&object(volume))
}

/// Names of the attributes in which two values of [`Fingerprint::attributes`] differ; `None` when nothing can be said.
#[must_use]
pub fn changed(before: Option<&str>, after: &str) -> Option<Vec<String>> {
    let (before, after) = (parse(before?), parse(after));
    let names: std::collections::BTreeSet<&str> =
        before.keys().chain(after.keys()).copied().collect();
    let changed: Vec<String> = names
        .into_iter()
        .filter(|name| before.get(name) != after.get(name))
        .map(str::to_owned)
        .collect();
    (!changed.is_empty()).then_some(changed)
}

fn parse(attributes: &str) -> BTreeMap<&str, &str> {
    attributes
        .split(',')
        .filter_map(|entry| entry.rsplit_once('='))
        .collect()
}

/// The attributes that are set, without extensions.
fn object(value: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(value).expect("the model serialises: it has string keys only") {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !name.starts_with("x-"))
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn fingerprint(parts: &BTreeMap<String, Value>) -> Fingerprint {
    let mut all = String::new();
    let mut attributes = Vec::with_capacity(parts.len());
    for (name, value) in parts {
        let digest = digest(&SHA256, value.to_string().as_bytes());
        all.push_str(&format!("{name}={}\n", hex::encode(digest)));
        attributes.push(format!(
            "{name}={}",
            hex::encode(&digest.as_ref()[..ATTRIBUTE_BYTES])
        ));
    }
    Fingerprint {
        hash: hex::encode(digest(&SHA256, all.as_bytes())),
        attributes: attributes.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project(service: Value) -> Project {
        serde_json::from_value(json!({
            "name": "p",
            "services": {"web": service},
            "networks": {"default": {"name": "p_default"}},
            "secrets": {"token": {"name": "token", "file": "/token"}},
        }))
        .unwrap()
    }

    fn of(service: Value) -> Fingerprint {
        let project = project(service);
        super::service(&project, &project.services["web"], &Contents::default())
    }

    #[test]
    fn it_is_the_same_in_every_process() {
        let fingerprint = of(
            json!({"image": "a", "environment": {"B": "1", "A": null}, "networks": {"default": null}}),
        );
        assert_eq!(
            fingerprint.hash,
            "282c5d467802427c4abadeeb86030788c11f27583d7f75a384b2cf5cc8c4a07b"
        );
    }

    #[test]
    fn what_makes_no_other_container_does_not_count() {
        let plain = of(json!({"image": "a"}));
        for same in [
            json!({"image": "a", "scale": 3}),
            json!({"image": "a", "deploy": {"replicas": 2, "labels": {"a": "b"}}}),
            json!({"image": "a", "depends_on": {"db": {"condition": "service_started"}}}),
            json!({"image": "a", "profiles": ["x"], "build": {"context": "/src"}}),
            json!({"image": "a", "x-note": 1}),
        ] {
            assert_eq!(of(same.clone()), plain, "{same}");
        }
    }

    #[test]
    fn what_makes_another_container_is_named() {
        let plain = of(json!({"image": "a", "environment": {"A": "1"}}));
        for (other, names) in [
            (
                json!({"image": "b", "environment": {"A": "1"}}),
                vec!["image"],
            ),
            (
                json!({"image": "a", "environment": {"A": "2"}}),
                vec!["environment"],
            ),
            (json!({"image": "a"}), vec!["environment"]),
            (
                json!({"image": "a", "environment": {"A": "1"}, "command": []}),
                vec!["command"],
            ),
            (
                json!({"image": "a", "environment": {"A": "1"}, "deploy": {"resources": {"limits": {"cpus": 1}}}}),
                vec!["deploy"],
            ),
            (
                json!({"image": "b", "tty": true}),
                vec!["environment", "image", "tty"],
            ),
        ] {
            let other = of(other);
            assert_ne!(other.hash, plain.hash);
            assert_eq!(
                changed(Some(&plain.attributes), &other.attributes).unwrap(),
                names
            );
        }
        assert_eq!(changed(None, &plain.attributes), None);
        assert_eq!(changed(Some(&plain.attributes), &plain.attributes), None);
    }

    #[test]
    fn the_content_of_a_secret_counts() {
        let project = project(json!({"image": "a", "secrets": [{"source": "token"}]}));
        let with = |digest: &str| {
            let mut contents = Contents::default();
            contents
                .secrets
                .insert("token".into(), Content::Digest(digest.into()));
            super::service(&project, &project.services["web"], &contents)
        };
        let changed = changed(Some(&with("1").attributes), &with("2").attributes);
        assert_eq!(changed.unwrap(), ["content of secret token"]);
    }
}
