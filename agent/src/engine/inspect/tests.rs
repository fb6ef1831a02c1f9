//! What clients see, against recordings of dockerd 28.5.

use super::*;
use crate::engine::container::{Attachment, DEFINITION_FORMAT, Definition, State};
use crate::engine::{EngineOptions, defaults, mounts};
use agent_api::{ContainerConfig, Empty, Health, HostConfig};
use std::sync::Arc;

const ID: &str = "095b2425b1023bd41b695996d3cfac332fce2c769d8f2de908ec87f887392415";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_312_796 + second).unwrap()
}

fn container() -> Container {
    let config = ContainerConfig {
        image: "busybox".into(),
        cmd: Some(vec!["sleep".into(), "300".into()]),
        env: Some(vec!["A=b".into()]),
        labels: [("x".to_owned(), "y".to_owned())].into(),
        exposed_ports: Some(
            [
                ("80/tcp".to_owned(), Empty {}),
                ("81/udp".to_owned(), Empty {}),
            ]
            .into(),
        ),
        volumes: Some([("/anon".to_owned(), Empty {})].into()),
        ..ContainerConfig::default()
    };
    let mut host = HostConfig {
        binds: Some(vec!["engvol:/data".into(), "/tmp:/hosttmp:ro".into()]),
        masked_paths: Some(vec!["/proc/kcore".into()]),
        ..HostConfig::default()
    };
    host.resources.memory = 64 << 20;
    defaults::fill_host(
        &mut host,
        &EngineOptions::new("/data", "/run", "/muster"),
        false,
    );
    let mounts = mounts::plan(&config, &host, |_| unreachable!(), || "185b".into()).unwrap();
    let definition = Definition {
        format: DEFINITION_FORMAT,
        id: ID.into(),
        name: "eng1".into(),
        created: at(0),
        image: "sha256:63caa373".into(),
        command: vec!["sleep".into(), "300".into()],
        config,
        host,
        mounts,
        endpoints: [("bridge".to_owned(), EndpointSettings::default())].into(),
    };
    Container::new(definition, State::default())
}

fn running() -> Container {
    let mut container = container();
    container.state = State {
        status: ContainerStatus::Running,
        pid: 23364,
        started_at: Some(at(0)),
        ..State::default()
    };
    let port = |address: &str| netdriver::PortBinding {
        container_port: 80,
        protocol: netdriver::Protocol::Tcp,
        host_ip: address.parse().unwrap(),
        host_port: 18080,
    };
    container.attachment = Some(Arc::new(Attachment {
        netns: "/run/netns/c".into(),
        endpoints: vec![netdriver::Endpoint {
            id: "20685807d976".into(),
            network_id: "48e13b1475dc".into(),
            network_name: "bridge".into(),
            ifname: "eth0".into(),
            ipv4: Some("172.17.0.2/16".parse().unwrap()),
            ipv6: None,
            gateway: Some("172.17.0.1".parse().unwrap()),
            gateway_v6: None,
            mac: Some([0x12, 0x74, 0xda, 0xd0, 0x0d, 0xce]),
            dns_names: Vec::new(),
            gw_priority: 0,
        }],
        ports: vec![port("0.0.0.0"), port("::")],
    }));
    container
}

fn shown(container: &Container) -> ContainerInspect {
    let around = Surroundings {
        directory: Path::new("/data/containers/c"),
        log_path: Path::new("/data/containers/c/c-json.log"),
        layers: &["/data/layers/a/diff".into()],
        execs: Vec::new(),
    };
    inspect(container, around)
}

#[test]
fn a_running_container() {
    insta::assert_snapshot!(
        "running",
        serde_json::to_string_pretty(&shown(&running())).unwrap()
    );
}

#[test]
fn a_stopped_container_keeps_its_networks_and_loses_its_addresses() {
    let mut container = running();
    container.attachment = None;
    container.state.status = ContainerStatus::Exited;
    container.state.pid = 0;
    let inspect = shown(&container);
    assert_eq!(inspect.network_settings.networks["bridge"].ip_address, "");
    assert!(inspect.network_settings.ports.is_empty());
    assert_eq!(inspect.network_settings.sandbox_id, "");
    assert!(!inspect.state.running);
}

#[test]
fn a_row_of_the_list() {
    let row = serde_json::to_value(summary(&running(), at(1))).unwrap();
    assert_eq!(row["Command"], "sleep 300");
    assert_eq!(row["Status"], "Up 1 second");
    assert_eq!(
        row["Ports"],
        serde_json::json!([
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 18080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 18080, "Type": "tcp"},
            {"PrivatePort": 81, "Type": "udp"},
        ])
    );
    assert_eq!(
        row["HostConfig"],
        serde_json::json!({"NetworkMode": "bridge"})
    );
}

#[test]
fn status_texts_are_dockers() {
    let mut container = running();
    for (seconds, expected) in [
        (0, "Up Less than a second"),
        (1, "Up 1 second"),
        (59, "Up 59 seconds"),
        (60, "Up About a minute"),
        (125, "Up 2 minutes"),
        (3540, "Up 59 minutes"),
        (3600, "Up About an hour"),
        (5399, "Up About an hour"),
        (5400, "Up 2 hours"),
        (47 * 3600, "Up 47 hours"),
        (48 * 3600, "Up 2 days"),
        (14 * 86400, "Up 2 weeks"),
        (60 * 86400, "Up 2 months"),
        (800 * 86400, "Up 2 years"),
    ] {
        assert_eq!(status_text(&container, at(seconds)), expected, "{seconds}");
    }
    container.health = Some(Arc::new(Health {
        status: HealthStatus::Starting,
        ..Health::default()
    }));
    assert_eq!(
        status_text(&container, at(1)),
        "Up 1 second (health: starting)"
    );
    container.state.status = ContainerStatus::Paused;
    assert_eq!(status_text(&container, at(1)), "Up 1 second (Paused)");
    container.state.status = ContainerStatus::Exited;
    container.state.exit_code = 137;
    container.state.finished_at = Some(at(0));
    assert_eq!(
        status_text(&container, at(120)),
        "Exited (137) 2 minutes ago"
    );
    container.state.status = ContainerStatus::Restarting;
    assert_eq!(
        status_text(&container, at(2)),
        "Restarting (137) 2 seconds ago"
    );
}
