//! What the allocator gives, keeps, frees and refuses.

mod endpoints;
mod networks;
mod properties;
mod tasks;

use super::Allocator;
use crate::stage::{Stage, network, node};

/// A stage with one node, the ingress network and the network `net`, all of it allocated.
fn stage() -> (Stage, Allocator) {
    let mut stage = Stage::new();
    stage.create(node("n1"));
    stage.create(network("net", "net"));
    let mut allocator = Allocator::new();
    stage.start(&mut allocator);
    stage.settle(&mut allocator);
    (stage, allocator)
}

/// `name vni subnet gateway …`, a line for each network.
fn networks(stage: &Stage) -> String {
    let mut lines: Vec<String> = stage
        .store
        .networks()
        .map(|network| {
            let subnets: Vec<String> = network
                .subnets
                .iter()
                .map(|s| format!("{} via {}", s.subnet, s.gateway.unwrap()))
                .collect();
            let vni = network.vni.map_or("-".to_owned(), |vni| vni.to_string());
            format!(
                "{} {vni} {} {}",
                network.spec.annotations.name,
                subnets.join(", "),
                network.error
            )
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

/// `service: network address, …; published:target/protocol …; error`.
fn endpoint(stage: &Stage, id: &str) -> String {
    let service = stage.store.service(id).unwrap();
    let name = |network_id: &str| {
        let network = stage.store.network(network_id).unwrap();
        network.spec.annotations.name.clone()
    };
    let ips = service.endpoint.virtual_ips.iter();
    let ips: Vec<_> = ips
        .map(|ip| format!("{} {}", name(&ip.network_id), ip.address))
        .collect();
    let ports = service.endpoint.ports.iter();
    let ports: Vec<_> = ports
        .map(|p| format!("{}:{}/{}", p.published_port, p.target_port, p.protocol))
        .collect();
    format!("{}; {}; {}", ips.join(", "), ports.join(" "), service.error)
}

/// `task state address … error`, a line for each task.
fn tasks(stage: &Stage) -> String {
    let line = |task: &std::sync::Arc<cluster_api::Task>| {
        let nets = task.networks.iter().flat_map(|a| &a.addresses);
        let nets: Vec<_> = nets.map(ToString::to_string).collect();
        format!(
            "{} {} {} {}\n",
            task.id,
            task.status.state,
            nets.join(" "),
            task.status.error
        )
    };
    stage.store.tasks().map(line).collect()
}
