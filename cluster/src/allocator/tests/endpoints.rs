//! Virtual addresses and ports of services.

use std::sync::Arc;

use agent_api::swarm::EndpointSpec;
use cluster_api::Service;

use super::{endpoint, stage};
use crate::allocator::Allocator;
use crate::stage::{Stage, network, service};

fn with_spec(
    stage: &mut Stage,
    allocator: &mut Allocator,
    id: &str,
    change: impl FnOnce(&mut EndpointSpec),
) {
    let events = stage.change_service(id, |service: &mut Service| {
        let spec = Arc::make_mut(&mut service.spec);
        change(spec.endpoint_spec.get_or_insert_default());
    });
    stage.settle_after(events, allocator);
}

#[test]
fn a_service_has_an_address_on_each_network_and_on_ingress_when_it_publishes() {
    let (mut stage, mut allocator) = stage();
    let mut events = stage.create(network("x1", "back"));
    events.extend(stage.create(service("api", &["net", "back"], &[])));
    events.extend(stage.create(service("web", &["net"], &[(8080, 80), (0, 443)])));
    events.extend(stage.create(service("job", &[], &[])));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "api"), @"net 10.0.16.3/20, back 10.0.32.2/20; ;");
    insta::assert_snapshot!(endpoint(&stage, "web"), @"ingress 10.0.0.3/20, net 10.0.16.2/20; 8080:80/tcp 30000:443/tcp;");
    insta::assert_snapshot!(endpoint(&stage, "job"), @"; ;");
}

#[test]
fn an_update_keeps_addresses_and_ports() {
    let (mut stage, mut allocator) = stage();
    let events = stage.create(service("web", &["net"], &[(0, 80)]));
    stage.settle_after(events, &mut allocator);
    let before = endpoint(&stage, "web");
    let events = stage.change_service("web", |service| {
        let spec = Arc::make_mut(&mut service.spec);
        spec.task_template
            .container_spec
            .get_or_insert_default()
            .image = "web:2".to_owned();
        service.spec_version = 2;
    });
    assert_eq!(stage.settle_after(events, &mut allocator), 0);
    assert_eq!(endpoint(&stage, "web"), before);

    with_spec(&mut stage, &mut allocator, "web", |spec| {
        let mut port = spec.ports[0].clone();
        port.target_port = 443;
        spec.ports.push(port);
    });
    insta::assert_snapshot!(endpoint(&stage, "web"), @"ingress 10.0.0.3/20, net 10.0.16.2/20; 30000:80/tcp 30001:443/tcp;");
}

#[test]
fn a_port_of_another_service_is_refused_until_that_gives_it_up() {
    let (mut stage, mut allocator) = stage();
    let mut events = stage.create(service("web", &[], &[(8080, 80)]));
    events.extend(stage.create(service("xyz", &[], &[(8080, 80)])));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "xyz"), @"; ; port 8080/tcp is already in use by service web");
    with_spec(&mut stage, &mut allocator, "web", |spec| {
        spec.ports[0].published_port = 8081
    });
    insta::assert_snapshot!(endpoint(&stage, "web"), @"ingress 10.0.0.3/20; 8081:80/tcp;");
    insta::assert_snapshot!(endpoint(&stage, "xyz"), @"ingress 10.0.0.4/20; 8080:80/tcp;");
}

#[test]
fn the_same_number_of_another_protocol_is_another_port() {
    let (mut stage, mut allocator) = stage();
    let mut events = stage.create(service("tcp", &[], &[(53, 53)]));
    let mut udp = service("udp", &[], &[(53, 53)]);
    let spec = Arc::make_mut(&mut udp.spec).endpoint_spec.as_mut().unwrap();
    spec.ports[0].protocol = "udp".to_owned();
    events.extend(stage.create(udp));
    events.extend(stage.create(service("twice", &[], &[(54, 53), (54, 54)])));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "udp"), @"ingress 10.0.0.4/20; 53:53/udp;");
    insta::assert_snapshot!(endpoint(&stage, "twice"), @"; ; port 54/tcp is published twice");
}

#[test]
fn ports_of_the_host_are_nobodys_concern_here() {
    let (mut stage, mut allocator) = stage();
    let mut events = Vec::new();
    for id in ["a", "b"] {
        let mut service = service(id, &[], &[(8080, 80)]);
        let spec = Arc::make_mut(&mut service.spec)
            .endpoint_spec
            .as_mut()
            .unwrap();
        spec.ports[0].publish_mode = "host".to_owned();
        events.extend(stage.create(service));
    }
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "a"), @"; 8080:80/tcp;");
    insta::assert_snapshot!(endpoint(&stage, "b"), @"; 8080:80/tcp;");
}

#[test]
fn dnsrr_has_no_address_and_changing_to_it_frees_the_one_there_was() {
    let (mut stage, mut allocator) = stage();
    let events = stage.create(service("web", &["net"], &[]));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "web"), @"net 10.0.16.2/20; ;");
    with_spec(&mut stage, &mut allocator, "web", |spec| {
        spec.mode = "dnsrr".to_owned()
    });
    insta::assert_snapshot!(endpoint(&stage, "web"), @"; ;");
    with_spec(&mut stage, &mut allocator, "web", |spec| {
        spec.mode = "vip".to_owned()
    });
    insta::assert_snapshot!(endpoint(&stage, "web"), @"net 10.0.16.3/20; ;");
}

#[test]
fn a_network_that_comes_later_is_found_then() {
    let (mut stage, mut allocator) = stage();
    let events = stage.create(service("web", &["later"], &[]));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "web"), @"; ; network later not found");
    let events = stage.create(network("x1", "later"));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "web"), @"later 10.0.32.2/20; ;");
}

#[test]
fn ports_that_are_chosen_end_at_some_point() {
    let (mut stage, mut allocator) = stage();
    let ports: Vec<(u16, u16)> = (1..=2769).map(|target| (0, target)).collect();
    let events = stage.create(service("web", &[], &ports));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(endpoint(&stage, "web"), @"; ; no tcp port is left between 30000 and 32767");
}
