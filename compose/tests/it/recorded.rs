//! Requests compared with what docker compose 2.40.3 sent for the same project. `tests/recorded/project.json` is the
//! project in canonical form (`docker compose config`), `requests.json` the bodies of its `up -d`, without empty fields
//! and with the project at `/project`. Differences on purpose are taken out in [`expected`], each with its reason.

use compose::convert::{self, ContainerSpec};
use compose::{labels, plan::hash};
use compose_model::Project;
use serde_json::{Value, json};

fn read(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recorded")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn project() -> Project {
    let mut project: Project = serde_json::from_value(read("project.json")).unwrap();
    project.working_dir = "/project".into();
    project.compose_files = vec!["/project/compose.yaml".into()];
    project
}

/// Without empty fields, lists whose order means nothing sorted, and labels that are ours to fill.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter_map(|(key, value)| {
                if [labels::CONFIG_HASH, labels::ATTRIBUTES, labels::VERSION]
                    .contains(&key.as_str())
                {
                    return None;
                }
                let mut value = normal(value);
                if let (true, Value::Array(list)) = (
                    ["Env", "Binds", "Mounts", "Links", "ExtraHosts"].contains(&key.as_str()),
                    &mut value,
                ) {
                    list.sort_by_key(ToString::to_string);
                }
                let empty = match &value {
                    Value::Null => true,
                    Value::Bool(on) => !on,
                    Value::String(text) => text.is_empty(),
                    Value::Number(number) => number.as_f64() == Some(0.0),
                    Value::Object(fields) => fields.is_empty(),
                    Value::Array(list) => {
                        (list.is_empty() && key != "Entrypoint") || key == "ConsoleSize"
                    }
                };
                (!empty).then_some((key, value))
            });
            let sorted: std::collections::BTreeMap<String, Value> = fields.collect();
            serde_json::to_value(sorted).unwrap()
        }
        Value::Array(list) => Value::Array(list.into_iter().map(normal).collect()),
        other => other,
    }
}

/// What was recorded, as it would be with our deliberate differences.
fn expected(name: &str) -> Value {
    let mut value = read("requests.json")[name].clone();
    match name {
        "containers/rec-web" => {
            // `expose` is resolved to port/protocol, where compose sends the text as it is.
            value["ExposedPorts"] = [
                "80/tcp", "443/tcp", "444/tcp", "53/udp", "90/tcp", "7000/tcp", "7001/udp",
                "7002/udp",
            ]
            .map(|port| (port.to_owned(), json!({"": {}})))
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into();
            // The address is in IPAMConfig; the endpoint's own field is the engine's to fill.
            value["NetworkingConfig"]["EndpointsConfig"]["rec_front"]
                .as_object_mut()
                .unwrap()
                .remove("IPAddress");
            // A bind that needs the long form makes its host directory all the same.
            for mount in value["HostConfig"]["Mounts"].as_array_mut().unwrap() {
                if mount["Target"] == "/b3" {
                    mount["BindOptions"]["CreateMountpoint"] = json!(true);
                }
            }
        }
        "containers/rec-plain-1" => {
            // Names that DNS knows anyway are not asked for as links.
            value["HostConfig"]["Links"] = json!(["rec-db-1:database"]);
            value["NetworkingConfig"]["EndpointsConfig"]["rec_default"]["Links"] =
                json!(["rec-db-1:database"]);
        }
        "containers/rec-res-1" | "containers/rec-res-2" => {
            // Ids are filled in when the plan runs; `:ro` of volumes_from is kept, where compose loses it.
            value["HostConfig"]["NetworkMode"] = json!("service:db");
            value["HostConfig"]["IpcMode"] = json!("service:share");
            value["HostConfig"]["VolumesFrom"] = json!(["db:ro"]);
            // In order of names.
            value["Labels"][labels::DEPENDS_ON] =
                json!("db:service_started:true,share:service_started:true");
        }
        _ => {}
    }
    normal(value)
}

#[test]
fn containers_are_asked_for_as_docker_compose_does() {
    let project = project();
    let image_id = "sha256:63caa373f578f690f1581d2d11f2d0f5d58d333c3bedcb2ba83975bb28a66223";
    for (service, number, name) in [
        ("db", 1, "rec-db-1"),
        ("plain", 1, "rec-plain-1"),
        ("res", 1, "rec-res-1"),
        ("res", 2, "rec-res-2"),
        ("share", 1, "rec-share-1"),
        ("web", 1, "rec-web"),
    ] {
        let config = &project.services[service];
        assert_eq!(
            convert::container_name(&project.name, service, config, number),
            name
        );
        let request = convert::container(&ContainerSpec {
            project: &project,
            name: service,
            service: config,
            number,
            image_id,
            config_hash: "",
            attributes: "",
            inherited: &[],
            replaces: None,
        });
        let mut ours = serde_json::to_value(request).unwrap();
        if let Some(ports) = ours["ExposedPorts"].as_object_mut() {
            ports
                .values_mut()
                .for_each(|value| *value = json!({"": {}}));
        }
        let (ours, theirs) = (normal(ours), expected(&format!("containers/{name}")));
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        assert_eq!(
            pretty(&ours),
            pretty(&theirs),
            "{name}: ours is on the left"
        );
    }
}

#[test]
fn networks_and_volumes_are_asked_for_as_docker_compose_does() {
    let project = project();
    for (key, network) in &project.networks {
        let print = hash::network(network);
        let request = convert::network(&project, key, network, &print.hash, &print.attributes);
        let ours = normal(serde_json::to_value(request).unwrap());
        assert_eq!(
            ours,
            expected(&format!("networks/{}", network.name)),
            "{key}"
        );
    }
    for (key, volume) in &project.volumes {
        let print = hash::volume(volume);
        let request = convert::volume(&project, key, volume, &print.hash, &print.attributes);
        let ours = normal(serde_json::to_value(request).unwrap());
        assert_eq!(ours, expected(&format!("volumes/{}", volume.name)), "{key}");
    }
}
