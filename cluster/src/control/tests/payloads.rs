//! Secrets and configs: one set of rules, run for both.

use agent_api::swarm::{Annotations, ConfigSpec, Driver, SecretSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_api::Kind;
use serde_json::json;

use super::super::{Reply, Request};
use super::{World, create, with_container};

/// Both kinds, with the first size that is too large.
const KINDS: [(Kind, usize); 2] = [(Kind::Secret, 512_000), (Kind::Config, 1_024_000)];

fn annotations(name: &str) -> Annotations {
    Annotations {
        name: name.into(),
        ..Annotations::default()
    }
}

fn put(kind: Kind, name: &str, data: Option<&[u8]>) -> Request {
    let (annotations, data) = (annotations(name), data.map(|data| STANDARD.encode(data)));
    match kind {
        Kind::Secret => Request::SecretCreate {
            spec: SecretSpec {
                annotations,
                data,
                ..SecretSpec::default()
            },
        },
        _ => Request::ConfigCreate {
            spec: ConfigSpec {
                annotations,
                data,
                ..ConfigSpec::default()
            },
        },
    }
}

fn change(kind: Kind, id: &str, version: u64, name: &str, data: Option<&[u8]>) -> Request {
    match (kind, put(kind, name, data)) {
        (_, Request::SecretCreate { mut spec }) => {
            spec.annotations.labels.insert("a".into(), "b".into());
            Request::SecretUpdate {
                secret: id.into(),
                version,
                spec,
            }
        }
        (_, Request::ConfigCreate { mut spec }) => {
            spec.annotations.labels.insert("a".into(), "b".into());
            Request::ConfigUpdate {
                config: id.into(),
                version,
                spec,
            }
        }
        _ => unreachable!("put makes one of the two"),
    }
}

fn remove(kind: Kind, name: &str) -> Request {
    let name = name.to_owned();
    match kind {
        Kind::Secret => Request::SecretRemove { secret: name },
        _ => Request::ConfigRemove { config: name },
    }
}

#[test]
fn names_and_sizes() {
    let invalid = "400 invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    let mut world = World::new();
    for (kind, limit) in KINDS {
        let size = format!("400 {kind} data must be larger than 0 and less than {limit} bytes");
        let too_large = vec![0; limit];
        let cases: [(&str, Option<&[u8]>, &str); 6] = [
            ("", Some(b"x"), "400 name must be provided"),
            ("-a", Some(b"x"), invalid),
            (&"a".repeat(65), Some(b"x"), invalid),
            ("a", None, &size),
            ("a", Some(b""), &size),
            ("a", Some(&too_large), &size),
        ];
        for (name, data, text) in cases {
            assert_eq!(world.refused(put(kind, name, data)), text);
        }
        world.created(put(kind, &"a".repeat(64), Some(&too_large[1..])));
        world.created(put(kind, "with.dots_and-dashes", Some(b"x")));
        assert_eq!(
            world.refused(put(kind, "with.dots_and-dashes", Some(b"y"))),
            format!("409 {kind} with.dots_and-dashes already exists")
        );
    }
}

#[test]
fn data_never_change_and_labels_do() {
    let mut world = World::new();
    for (kind, _) in KINDS {
        let id = world.created(put(kind, "name", Some(b"data")));
        let version = world.store.index();
        let only = "400 only updates to Labels are allowed";
        assert_eq!(
            world.refused(change(kind, "name", version, "other", None)),
            only
        );
        assert_eq!(
            world.refused(change(kind, "name", version, "name", Some(b"DATA"))),
            only
        );
        assert_eq!(
            world.refused(change(kind, "name", version - 1, "name", None)),
            "500 update out of sequence"
        );
        assert_eq!(
            world.refused(change(kind, "nope", version, "name", None)),
            format!("404 {kind} nope not found")
        );
        assert_eq!(
            world.request(change(kind, "name", version, "name", Some(b"data"))),
            Ok(Reply::Done)
        );
        let version = world.store.index();
        world
            .request(change(kind, &id[..10], version, "name", None))
            .unwrap();
        let (labels, data) = match kind {
            Kind::Secret => {
                let spec = &world.store.secret(&id).unwrap().spec;
                (&spec.annotations.labels, &spec.data)
            }
            _ => {
                let spec = &world.store.config(&id).unwrap().spec;
                (&spec.annotations.labels, &spec.data)
            }
        };
        assert_eq!(labels["a"], "b");
        assert_eq!(data.as_deref(), Some(STANDARD.encode("data").as_str()));
    }
}

#[test]
fn what_is_referred_to_stays() {
    let mut world = World::new();
    for (kind, _) in KINDS {
        let id = world.created(put(kind, "x", Some(b"data")));
        let reference = match kind {
            Kind::Secret => {
                json!({"Secrets": [{"SecretID": id, "SecretName": "x", "File": {"Name": "f"}}]})
            }
            _ => json!({"Configs": [{"ConfigID": id, "ConfigName": "x", "File": {"Name": "f"}}]}),
        };
        let named = |name: &str| {
            let mut spec = with_container(reference.clone());
            spec["Name"] = json!(name);
            create(spec)
        };
        let ids = [world.created(named("one")), world.created(named("two"))];
        let refusal = world.refused(remove(kind, "x"));
        let both = [
            format!("400 {kind} 'x' is in use by the following services: one, two"),
            format!("400 {kind} 'x' is in use by the following services: two, one"),
        ];
        assert!(both.contains(&refusal), "{refusal}");
        world
            .request(Request::ServiceRemove {
                service: ids[0].clone(),
            })
            .unwrap();
        assert_eq!(
            world.refused(remove(kind, "x")),
            format!("400 {kind} 'x' is in use by the following service: two")
        );
        world
            .request(Request::ServiceRemove {
                service: ids[1].clone(),
            })
            .unwrap();
        // Their tasks may still be running; they have their copy.
        world.request(remove(kind, &id)).unwrap();
        assert_eq!(
            world.refused(remove(kind, "x")),
            format!("404 {kind} x not found")
        );
    }
}

#[test]
fn drivers_and_templates_are_refused() {
    let mut world = World::new();
    let driver = |name: &str| {
        Some(Driver {
            name: name.into(),
            ..Driver::default()
        })
    };
    let Request::SecretCreate { spec } = put(Kind::Secret, "a", Some(b"x")) else {
        unreachable!("it was made above");
    };
    let mut with_driver = spec.clone();
    with_driver.driver = driver("vault");
    assert_eq!(
        world.refused(Request::SecretCreate { spec: with_driver }),
        "501 secret driver \"vault\" is not supported"
    );
    let mut templated = spec;
    templated.templating = driver("golang");
    assert_eq!(
        world.refused(Request::SecretCreate { spec: templated }),
        "501 templating of secrets is not supported"
    );
    let Request::ConfigCreate { mut spec } = put(Kind::Config, "a", Some(b"x")) else {
        unreachable!("it was made above");
    };
    spec.templating = driver("golang");
    assert_eq!(
        world.refused(Request::ConfigCreate { spec }),
        "501 templating of configs is not supported"
    );
}

#[test]
fn no_data_of_a_secret_in_what_is_logged() {
    let request = put(Kind::Secret, "a", Some(b"very secret"));
    let debug = format!("{request:?}");
    assert!(!debug.contains(&STANDARD.encode("very secret")), "{debug}");
}
