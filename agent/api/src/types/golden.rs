//! The types against what dockerd 28.5 really sent (`golden/*.json`): read and written again, every reply must be the same
//! value, with the same keys, the same nulls and the same empty lists.

use super::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Lists of `HostConfig` that dockerd echoes as the client sent them. This client had sent none, which dockerd shows as
/// null; here they are shown as the docker command sends them: empty.
const ECHOED: [&str; 11] = [
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Devices",
    "Ulimits",
    "PortBindings",
];

#[track_caller]
fn same<T: DeserializeOwned + Serialize>(text: &str) {
    let mut sent: Value = serde_json::from_str(text).unwrap();
    let read: T = serde_json::from_value(sent.clone()).unwrap();
    if let Some(host) = sent.get_mut("HostConfig").and_then(Value::as_object_mut) {
        for (name, value) in host
            .iter_mut()
            .filter(|(name, value)| ECHOED.contains(&name.as_str()) && value.is_null())
        {
            *value = if name == "PortBindings" {
                serde_json::json!({})
            } else {
                serde_json::json!([])
            };
        }
    }
    let written = serde_json::to_value(&read).unwrap();
    let mut differences = Vec::new();
    compare("", &sent, &written, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn compare(path: &str, sent: &Value, written: &Value, differences: &mut Vec<String>) {
    match (sent, written) {
        (Value::Object(sent), Value::Object(written)) => {
            for (key, value) in sent {
                match written.get(key) {
                    Some(other) => compare(&format!("{path}.{key}"), value, other, differences),
                    None => differences.push(format!("{path}.{key} is missing")),
                }
            }
            for key in written.keys().filter(|key| !sent.contains_key(*key)) {
                differences.push(format!("{path}.{key} is too much"));
            }
        }
        (Value::Array(sent), Value::Array(written)) if sent.len() == written.len() => {
            for (index, (value, other)) in sent.iter().zip(written).enumerate() {
                compare(&format!("{path}[{index}]"), value, other, differences);
            }
        }
        (sent, written) if sent == written => {}
        _ => differences.push(format!("{path}: {sent} became {written}")),
    }
}

#[test]
fn containers() {
    same::<ContainerInspect>(include_str!("golden/container-inspect.json"));
    same::<Vec<ContainerSummary>>(include_str!("golden/container-list.json"));
    same::<ContainerTopResponse>(include_str!("golden/container-top.json"));
}

#[test]
fn execs() {
    same::<ExecInspect>(include_str!("golden/exec-created.json"));
    same::<ExecInspect>(include_str!("golden/exec-exited.json"));
}

/// What an image's configuration has too much is taken away where API versions are known.
#[test]
fn images() {
    same::<Vec<ImageSummary>>(include_str!("golden/image-list.json"));
    same::<Vec<ImageHistoryItem>>(include_str!("golden/image-history.json"));
    same::<Vec<ImageDeleteItem>>(include_str!("golden/image-delete.json"));
    let mut image: Value = serde_json::from_str(include_str!("golden/image-inspect.json")).unwrap();
    let config = image["Config"].take();
    let mut read: ImageInspect = serde_json::from_value(image.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), image);
    read.config = Some(serde_json::from_value(config.clone()).unwrap());
    let written = serde_json::to_value(&read).unwrap();
    for (key, value) in config.as_object().unwrap() {
        assert_eq!(&written["Config"][key], value, "{key}");
    }
}

#[test]
fn networks() {
    same::<Network>(include_str!("golden/network-inspect.json"));
    same::<Vec<Network>>(include_str!("golden/network-list.json"));
}

#[test]
fn volumes() {
    same::<Volume>(include_str!("golden/volume.json"));
    same::<VolumeListResponse>(include_str!("golden/volume-list.json"));
}

/// Fields of a containerd that is not there are not sent.
#[test]
fn the_daemon() {
    same::<VersionResponse>(include_str!("golden/version.json"));
    let mut info: Value = serde_json::from_str(include_str!("golden/info.json")).unwrap();
    info.as_object_mut().unwrap().remove("Containerd");
    same::<SystemInfo>(&info.to_string());
    same::<Vec<EventMessage>>(include_str!("golden/events.json"));
}

/// dockerd sends null for the digests of images in this one reply, and a list everywhere else.
#[test]
fn disk_usage() {
    let text = include_str!("golden/disk-usage.json")
        .replace("\"RepoDigests\": null", "\"RepoDigests\": []");
    same::<DiskUsage>(&text);
}

/// What managers of a swarm answer, down to the order of the members.
#[track_caller]
fn byte_for_byte<T: DeserializeOwned + Serialize>(text: &str) {
    let read: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text.trim_end());
}

#[test]
fn swarms() {
    byte_for_byte::<swarm::Swarm>(include_str!("golden/swarm.json"));
    byte_for_byte::<swarm::Info>(include_str!("golden/swarm-info.json"));
    byte_for_byte::<Vec<swarm::Node>>(include_str!("golden/swarm-nodes.json"));
}

#[test]
fn services() {
    byte_for_byte::<Vec<swarm::Service>>(include_str!("golden/swarm-services.json"));
    byte_for_byte::<Vec<swarm::Service>>(include_str!("golden/swarm-services-updated.json"));
}

#[test]
fn tasks() {
    byte_for_byte::<Vec<swarm::Task>>(include_str!("golden/swarm-tasks.json"));
}

#[test]
fn payloads() {
    byte_for_byte::<Vec<swarm::Secret>>(include_str!("golden/swarm-secrets.json"));
    byte_for_byte::<Vec<swarm::Config>>(include_str!("golden/swarm-configs.json"));
}
