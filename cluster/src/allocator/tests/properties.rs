//! Over any order of requests, ends, conflicts and leaders: nothing has two owners, what is free is given, and nobody
//! waits without being told why.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::EndpointSpec;
use cluster_api::{DesiredState, Network, Service, Subnet, Task, TaskState};
use proptest::prelude::*;

use crate::allocator::Allocator;
use crate::control_loop::ControlLoop as _;
use crate::stage::{Stage, network, node, service, task};
use crate::store::StoreEvent;

#[derive(Debug, Clone)]
enum Move {
    AddNetwork {
        number: u8,
        small: bool,
    },
    DropNetwork {
        number: u8,
    },
    AddService {
        number: u8,
        network: u8,
        port: u16,
    },
    DropService {
        number: u8,
    },
    Ports {
        number: u8,
        port: u16,
        dnsrr: bool,
    },
    AddTask {
        service: u8,
    },
    EndTask {
        task: u8,
        orphaned: bool,
    },
    DropTask {
        task: u8,
    },
    ToggleNode {
        number: u8,
    },
    NewLeader,
    /// The first transaction after the next move is refused.
    Conflict,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let port = prop_oneof![Just(0_u16), 8000..8003_u16, 30_000..30_002_u16];
    let one = prop_oneof![
        2 => (0..3u8, any::<bool>()).prop_map(|(number, small)| Move::AddNetwork { number, small }),
        1 => (0..3u8).prop_map(|number| Move::DropNetwork { number }),
        3 => (0..4u8, 0..3u8, port.clone()).prop_map(|(number, network, port)| Move::AddService { number, network, port }),
        1 => (0..4u8).prop_map(|number| Move::DropService { number }),
        2 => (0..4u8, port, any::<bool>()).prop_map(|(number, port, dnsrr)| Move::Ports { number, port, dnsrr }),
        6 => (0..4u8).prop_map(|service| Move::AddTask { service }),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(task, orphaned)| Move::EndTask { task, orphaned }),
        1 => any::<u8>().prop_map(|task| Move::DropTask { task }),
        2 => (0..4u8).prop_map(|number| Move::ToggleNode { number }),
        1 => Just(Move::NewLeader),
        2 => Just(Move::Conflict),
    ];
    proptest::collection::vec(one, 1..80)
}

fn perform(stage: &mut Stage, step: &Move, slot: u64) -> Vec<StoreEvent> {
    match step {
        Move::AddNetwork { number, small } => {
            let id = format!("net{number}");
            if stage.store.network(&id).is_some() {
                return Vec::new();
            }
            let mut network = network(&id, &id);
            if *small {
                // Two of the three overlap.
                let subnet = format!("192.168.{}.0/29", number / 2);
                network.spec.subnets = vec![Subnet {
                    subnet: subnet.parse().unwrap(),
                    gateway: None,
                    range: None,
                }];
            }
            stage.create(network)
        }
        Move::DropNetwork { number } => {
            let Some(network) = stage.store.network(&format!("net{number}")).cloned() else {
                return Vec::new();
            };
            stage.update(Network {
                pending_delete: true,
                ..Network::clone(&network)
            })
        }
        Move::AddService {
            number,
            network,
            port,
        } => {
            let id = format!("s{number}");
            if stage.store.service(&id).is_some() {
                return Vec::new();
            }
            let target = format!("net{network}");
            stage.create(service(&id, &[&target], &[(*port, 80)]))
        }
        Move::DropService { number } => match stage.store.service(&format!("s{number}")).cloned() {
            Some(service) => stage.remove(service.into()),
            None => Vec::new(),
        },
        Move::Ports {
            number,
            port,
            dnsrr,
        } => {
            let id = format!("s{number}");
            if stage.store.service(&id).is_none() {
                return Vec::new();
            }
            stage.change_service(&id, |service: &mut Service| {
                let spec = Arc::make_mut(&mut service.spec);
                let endpoint = spec.endpoint_spec.get_or_insert_default();
                if *dnsrr {
                    *endpoint = EndpointSpec {
                        mode: "dnsrr".to_owned(),
                        ..EndpointSpec::default()
                    };
                } else {
                    endpoint.mode = String::new();
                    let ports = [(*port, 80), (0, 81)];
                    let other = crate::stage::service("x", &[], &ports);
                    endpoint.ports = other.spec.endpoint_spec.clone().unwrap().ports;
                }
            })
        }
        Move::AddTask { service } => match stage.store.service(&format!("s{service}")).cloned() {
            Some(service) => stage.create(task(&service, slot)),
            None => Vec::new(),
        },
        Move::EndTask { task, orphaned } => {
            match pick(stage, *task, |t| !t.status.state.is_terminal()) {
                Some(task) if *orphaned => stage.report(&task.id, TaskState::Orphaned),
                Some(task) => stage.report(&task.id, TaskState::Shutdown),
                None => Vec::new(),
            }
        }
        Move::DropTask { task } => match pick(stage, *task, |_| true) {
            Some(task) => stage.remove(task.into()),
            None => Vec::new(),
        },
        Move::ToggleNode { number } => {
            let id = format!("n{number}");
            match stage.store.node(&id).cloned() {
                Some(node) => stage.remove(node.into()),
                None => stage.create(node(&id)),
            }
        }
        Move::NewLeader | Move::Conflict => Vec::new(),
    }
}

fn pick(stage: &Stage, number: u8, suitable: impl Fn(&Task) -> bool) -> Option<Arc<Task>> {
    let tasks: Vec<_> = stage.store.tasks().filter(|task| suitable(task)).collect();
    let count = tasks.len();
    (count > 0).then(|| tasks[usize::from(number) % count].clone())
}

/// Everything that has one owner, with it.
fn owned(stage: &Stage) -> Vec<(String, String)> {
    let mut owned = Vec::new();
    for network in stage.store.networks() {
        if let Some(vni) = network.vni {
            owned.push((format!("vni {vni}"), network.id.clone()));
        }
        for subnet in &network.subnets {
            let gateway = subnet.gateway.unwrap();
            owned.push((format!("{} {gateway}", network.id), "gateway".to_owned()));
        }
    }
    for node in stage.store.nodes() {
        for (network, nets) in &node.attachments {
            owned.extend(
                nets.iter()
                    .map(|net| (format!("{network} {}", net.addr()), node.id.clone())),
            );
        }
    }
    for service in stage.store.services() {
        for ip in &service.endpoint.virtual_ips {
            owned.push((
                format!("{} {}", ip.network_id, ip.address.addr()),
                service.id.clone(),
            ));
        }
        for port in service
            .endpoint
            .ports
            .iter()
            .filter(|p| p.published_port != 0)
        {
            owned.push((format!("port {}", port.published_port), service.id.clone()));
        }
    }
    for task in stage
        .store
        .tasks()
        .filter(|t| !t.status.state.is_terminal())
    {
        for attachment in &task.networks {
            let network = &attachment.network_id;
            let nets = attachment.addresses.iter();
            owned.extend(nets.map(|net| (format!("{network} {}", net.addr()), task.id.clone())));
        }
    }
    owned
}

fn check(stage: &Stage) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for (thing, owner) in owned(stage) {
        if let Some(other) = owners.insert(thing.clone(), owner.clone()) {
            prop_assert!(false, "{thing} is {owner}'s and {other}'s");
        }
    }
    let networks: Vec<_> = stage.store.networks().collect();
    for (number, a) in networks.iter().enumerate() {
        for b in &networks[number + 1..] {
            for (x, y) in a
                .subnets
                .iter()
                .flat_map(|x| b.subnets.iter().map(move |y| (x, y)))
            {
                prop_assert!(
                    !netdriver_ipam::overlaps(&x.subnet, &y.subnet),
                    "{} and {}",
                    a.id,
                    b.id
                );
            }
        }
        let named = stage
            .store
            .services()
            .any(|s| s.spec.task_template.networks[0].target == a.id);
        let unused = stage.store.tasks().all(|t| {
            t.status.state.is_terminal() || t.networks.iter().all(|n| n.network_id != a.id)
        });
        prop_assert!(
            !a.pending_delete || named || !unused,
            "{} should be gone",
            a.id
        );
        prop_assert!(
            a.pending_delete || !a.subnets.is_empty() || !a.error.is_empty(),
            "{} waits",
            a.id
        );
    }
    for task in stage
        .store
        .tasks()
        .filter(|t| t.status.state == TaskState::New)
    {
        let wanted = task.desired < DesiredState::Shutdown;
        let network = &task.spec.networks[0].target;
        let going = stage
            .store
            .network(network)
            .is_some_and(|n| n.pending_delete);
        let orphan = stage.store.service(&task.service_id).is_none();
        prop_assert!(
            !wanted || orphan || going || !task.status.error.is_empty(),
            "{} waits silently",
            task.id
        );
    }
    let ingress = stage.store.networks().find(|n| n.spec.ingress).unwrap();
    for node in stage.store.nodes() {
        prop_assert!(
            node.attachments.contains_key(&ingress.id),
            "{} has no place",
            node.id
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_has_two_owners_and_nobody_waits_silently(moves in moves()) {
        let mut stage = Stage::new();
        let mut allocator = Allocator::new();
        stage.start(&mut allocator);
        let mut conflict = false;
        for (slot, step) in (1..).zip(&moves) {
            for event in perform(&mut stage, step, slot) {
                allocator.observe(&event);
            }
            if matches!(step, Move::NewLeader) {
                allocator = Allocator::new();
                stage.start(&mut allocator);
            }
            if std::mem::replace(&mut conflict, matches!(step, Move::Conflict)) {
                // Decided, and never applied.
                let _ = allocator.step(&mut stage.context());
            }
            stage.settle(&mut allocator);
            check(&stage)?;
        }
    }
}
