//! Subnets, identifiers, the ingress network and the removal of networks.

use cluster_api::{Cluster, DesiredState, Subnet, TaskState};

use super::{networks, stage};
use crate::allocator::Allocator;
use crate::stage::{Stage, network, node, service, task};

fn subnet(text: &str) -> Subnet {
    Subnet {
        subnet: text.parse().unwrap(),
        gateway: None,
        range: None,
    }
}

#[test]
fn the_ingress_network_is_made_and_every_node_has_a_place_on_it() {
    let (mut stage, mut allocator) = stage();
    insta::assert_snapshot!(networks(&stage), @r"
    ingress 4096 10.0.0.0/20 via 10.0.0.1 
    net 4097 10.0.16.0/20 via 10.0.16.1
    ");
    let events = stage.create(node("n2"));
    stage.settle_after(events, &mut allocator);
    let ingress = stage.store.networks().find(|n| n.spec.ingress).unwrap();
    let places: Vec<String> = stage
        .store
        .nodes()
        .map(|node| node.attachments[&ingress.id][0].to_string())
        .collect();
    assert_eq!(places, ["10.0.0.2/20", "10.0.0.3/20"]);
}

#[test]
fn the_ingress_network_comes_with_the_cluster_and_only_once() {
    let mut stage = Stage::new();
    let cluster = stage.store.cluster().unwrap().clone();
    stage.remove(cluster.clone().into());
    let mut allocator = Allocator::new();
    stage.start(&mut allocator);
    assert_eq!(stage.settle(&mut allocator), 0);
    let events = stage.create(Cluster::clone(&cluster));
    stage.settle_after(events, &mut allocator);
    assert_eq!(stage.store.networks().count(), 1);
    let mut next_leader = Allocator::new();
    stage.start(&mut next_leader);
    assert_eq!(stage.settle(&mut next_leader), 0);
}

#[test]
fn nothing_is_written_when_everything_is_allocated() {
    let (mut stage, _) = stage();
    stage.create(service("web", &["net"], &[(0, 80)]));
    let mut allocator = Allocator::new();
    stage.start(&mut allocator);
    assert!(stage.settle(&mut allocator) > 0);
    let mut next_leader = Allocator::new();
    stage.start(&mut next_leader);
    assert_eq!(stage.settle(&mut next_leader), 0);
}

#[test]
fn named_subnets_are_taken_as_they_are_and_chosen_ones_go_around_them() {
    let (mut stage, mut allocator) = stage();
    let mut named = network("x1", "named");
    named.spec.subnets = vec![
        Subnet {
            gateway: Some("10.0.33.7".parse().unwrap()),
            range: Some("10.0.33.128/25".parse().unwrap()),
            ..subnet("10.0.33.0/24")
        },
        subnet("fd00:1::/64"),
    ];
    let mut events = stage.create(named);
    events.extend(stage.create(network("x2", "next")));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(networks(&stage), @r"
    ingress 4096 10.0.0.0/20 via 10.0.0.1 
    named 4098 10.0.33.0/24 via 10.0.33.7, fd00:1::/64 via fd00:1::1 
    net 4097 10.0.16.0/20 via 10.0.16.1 
    next 4099 10.0.48.0/20 via 10.0.48.1
    ");
}

#[test]
fn an_overlap_is_refused_and_gone_with_the_other_network() {
    let (mut stage, mut allocator) = stage();
    let mut named = network("x1", "named");
    named.spec.subnets = vec![subnet("10.0.24.0/24")];
    let events = stage.create(named);
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(networks(&stage), @r"
    ingress 4096 10.0.0.0/20 via 10.0.0.1 
    named -  subnet 10.0.24.0/24 overlaps with 10.0.16.0/20 of net
    net 4097 10.0.16.0/20 via 10.0.16.1
    ");
    let mut net = cluster_api::Network::clone(stage.store.network("net").unwrap());
    net.pending_delete = true;
    let events = stage.update(net);
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(networks(&stage), @r"
    ingress 4096 10.0.0.0/20 via 10.0.0.1 
    named 4098 10.0.24.0/24 via 10.0.24.1
    ");
}

#[test]
fn chosen_subnets_avoid_the_addresses_of_nodes() {
    let mut stage = Stage::new();
    let mut host = node("n1");
    host.data_path_addr = Some("10.0.3.4".parse().unwrap());
    stage.create(host);
    let mut allocator = Allocator::new();
    stage.start(&mut allocator);
    stage.settle(&mut allocator);
    insta::assert_snapshot!(networks(&stage), @"ingress 4096 10.0.16.0/20 via 10.0.16.1");
}

#[test]
fn pools_of_the_user_are_kept_to_and_their_end_is_said() {
    let mut stage = Stage::new();
    let mut cluster = Cluster::clone(stage.store.cluster().unwrap());
    cluster.address_pools = vec!["172.30.0.0/24".parse().unwrap()];
    cluster.subnet_size = 25;
    stage.update(cluster);
    let mut allocator = Allocator::new();
    stage.start(&mut allocator);
    let mut events = stage.create(network("x1", "one"));
    events.extend(stage.create(network("x2", "two")));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(networks(&stage), @r"
    ingress 4096 172.30.0.0/25 via 172.30.0.1 
    one 4097 172.30.0.128/25 via 172.30.0.129 
    two -  no IPv4 subnet is left in the swarm's default address pools
    ");
}

#[test]
fn ipv6_networks_get_a_subnet_of_the_clusters_own() {
    let (mut stage, mut allocator) = stage();
    let mut dual = network("x1", "dual");
    dual.spec.ipv6 = true;
    let mut events = stage.create(dual);
    let web = service("web", &["dual"], &[]);
    events.extend(stage.create(task(&web, 1)));
    events.extend(stage.create(web));
    stage.settle_after(events, &mut allocator);
    let dual = stage.store.network("x1").unwrap();
    assert_eq!(dual.subnets.len(), 2);
    assert!(dual.subnets[1].subnet.to_string().starts_with("fd"));
    assert_eq!(dual.subnets[1].subnet.prefix_len(), 64);
    let addresses = &stage.store.task("web.1").unwrap().networks[0].addresses;
    assert_eq!(addresses.len(), 2);
    assert!(dual.subnets[1].subnet.contains(&addresses[1].addr()));
    assert_eq!(
        stage
            .store
            .service("web")
            .unwrap()
            .endpoint
            .virtual_ips
            .len(),
        2
    );
}

#[test]
fn a_network_is_removed_when_its_last_task_has_ended_and_no_service_names_it() {
    let (mut stage, mut allocator) = stage();
    let web = service("web", &["net"], &[]);
    let mut events = stage.create(task(&web, 1));
    events.extend(stage.create(web));
    stage.settle_after(events, &mut allocator);
    let mut net = cluster_api::Network::clone(stage.store.network("net").unwrap());
    net.pending_delete = true;
    let events = stage.update(net);
    stage.settle_after(events, &mut allocator);
    assert!(stage.store.network("net").is_some());

    let service = stage.store.service("web").unwrap().clone();
    let events = stage.remove(service.into());
    stage.settle_after(events, &mut allocator);
    assert!(stage.store.network("net").is_some(), "its task still runs");

    stage.want("web.1", DesiredState::Remove);
    let events = stage.report("web.1", TaskState::Shutdown);
    stage.settle_after(events, &mut allocator);
    assert!(stage.store.network("net").is_none());
}

#[test]
fn a_network_of_each_node_needs_nothing() {
    let (mut stage, mut allocator) = stage();
    let mut host = network("x1", "host");
    host.spec.driver.name = "host".to_owned();
    let mut events = stage.create(host);
    let web = service("web", &["x1"], &[]);
    events.extend(stage.create(task(&web, 1)));
    events.extend(stage.create(web));
    stage.settle_after(events, &mut allocator);
    let task = stage.store.task("web.1").unwrap();
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!(task.networks[0].network_id, "x1");
    assert!(task.networks[0].addresses.is_empty());
    assert!(stage.store.network("x1").unwrap().vni.is_none());
}
