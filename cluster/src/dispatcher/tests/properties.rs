//! Over any order of events: what an agent was told piece by piece is what it would be told at once, and no task is
//! unbound while a live node may still send to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_api::swarm::NodeState;
use cluster_api::{DesiredState, Task, TaskState};
use proptest::prelude::*;

use super::World;
use crate::dispatcher::{BackendState, Change, Endpoints, ItemKind, assignments};

#[derive(Debug, Clone)]
enum Move {
    Put { service: u8, node: u8 },
    Advance { task: u8 },
    End { task: u8 },
    Unwant { task: u8 },
    Delete { task: u8 },
    Acknowledge { node: u8 },
    Join { node: u8 },
    Close { node: u8 },
    Resync { node: u8 },
    Pass { tenths: u8 },
    NewLeader,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let node = 1..=3u8;
    let one = prop_oneof![
        4 => (0..2u8, node.clone()).prop_map(|(service, node)| Move::Put { service, node }),
        5 => any::<u8>().prop_map(|task| Move::Advance { task }),
        2 => any::<u8>().prop_map(|task| Move::End { task }),
        3 => any::<u8>().prop_map(|task| Move::Unwant { task }),
        1 => any::<u8>().prop_map(|task| Move::Delete { task }),
        6 => node.clone().prop_map(|node| Move::Acknowledge { node }),
        3 => node.clone().prop_map(|node| Move::Join { node }),
        1 => node.clone().prop_map(|node| Move::Close { node }),
        1 => node.prop_map(|node| Move::Resync { node }),
        4 => (1..20u8).prop_map(|tenths| Move::Pass { tenths }),
        1 => Just(Move::NewLeader),
    ];
    proptest::collection::vec(one, 1..80)
}

fn pick(world: &World, number: u8, suitable: impl Fn(&Task) -> bool) -> Option<String> {
    let tasks: Vec<_> = world
        .stage
        .store
        .tasks()
        .filter(|task| suitable(task))
        .collect();
    let count = tasks.len();
    (count > 0).then(|| tasks[usize::from(number) % count].id.clone())
}

/// What the kernel of each node has: the last endpoint state it has acknowledged. Survives sessions and leaders.
type Programmed = BTreeMap<String, Arc<Endpoints>>;

fn endpoints_of(world: &World, node_id: &str) -> Option<Arc<Endpoints>> {
    let key = (ItemKind::Endpoints, "net".to_owned());
    match world.agents.get(node_id)?.items.get(&key)? {
        Change::Endpoints(endpoints) => Some(endpoints.clone()),
        _ => None,
    }
}

fn perform(world: &mut World, step: &Move, slot: u64, programmed: &mut Programmed) {
    match step {
        Move::Put { service, node } => {
            let id = ["a", "b"][usize::from(*service)];
            let service = world.stage.store.service(id).unwrap().clone();
            world.put(&service, slot, &format!("n{node}"), TaskState::Assigned);
        }
        Move::Advance { task } => {
            let next = |task: &Task| match task.status.state {
                TaskState::Assigned => Some(TaskState::Starting),
                TaskState::Starting => Some(TaskState::Running),
                _ => None,
            };
            if let Some(id) = pick(world, *task, |task| next(task).is_some()) {
                let state = next(&world.task(&id)).unwrap();
                world.report(&id, state);
            }
        }
        Move::End { task } => {
            if let Some(id) = pick(world, *task, |task| !task.status.state.is_terminal()) {
                world.report(&id, TaskState::Failed);
            }
        }
        Move::Unwant { task } => {
            if let Some(id) = pick(world, *task, |task| task.desired < DesiredState::Shutdown) {
                world.want(&id, DesiredState::Shutdown);
            }
        }
        Move::Delete { task } => {
            if let Some(id) = pick(world, *task, |task| task.status.state.is_terminal()) {
                let task = world.task(&id);
                let events = world.stage.remove(task.into());
                world.happened(&events);
            }
        }
        Move::Acknowledge { node } => {
            let id = format!("n{node}");
            if let Some(agent) = world.agents.get(&id)
                && !agent.over
            {
                let (session, at) = (agent.session.clone(), agent.at.clone());
                if let Some(endpoints) = endpoints_of(world, &id) {
                    programmed.insert(id.clone(), endpoints);
                } else {
                    programmed.remove(&id);
                }
                // Refused when the session has been closed; the kernel has it nevertheless.
                let _ = world
                    .dispatcher
                    .acknowledge(&id, &session, &at, world.stage.now);
                world.run();
            }
        }
        Move::Join { node } => world.join(&format!("n{node}")),
        Move::Close { node } => {
            let id = format!("n{node}");
            if let Some(agent) = world.agents.remove(&id) {
                world
                    .dispatcher
                    .disconnected(&id, &agent.session, world.stage.now);
                world.run();
            }
        }
        Move::Resync { node } => {
            let id = format!("n{node}");
            if let Some(agent) = world.agents.get(&id)
                && !agent.over
            {
                let session = agent.session.clone();
                world
                    .dispatcher
                    .open_assignments(&id, &session, world.stage.now)
                    .unwrap();
                world.run();
            }
        }
        Move::Pass { tenths } => world.pass(u64::from(*tenths) * 100, &[]),
        Move::NewLeader => world.new_leader(),
    }
}

fn sends_to(endpoints: &Endpoints, task_id: &str) -> bool {
    let backends = endpoints
        .services
        .iter()
        .flat_map(|service| &service.backends);
    backends
        .into_iter()
        .any(|b| b.task_id == task_id && b.state == BackendState::Ready)
}

/// What the leader lets stop.
fn unbound(world: &World) -> BTreeSet<String> {
    let ids = world.stage.store.tasks().map(|task| task.id.clone());
    ids.filter(|id| world.dispatcher.drains.is_unbound(id))
        .collect()
}

/// Newly unbound tasks to which a live node would still send, within the time nodes are waited for. A node that was down
/// when a task was unbound was not waited for, and may come back with what it had.
fn check_unbound(
    world: &World,
    before: &BTreeSet<String>,
    programmed: &Programmed,
    since: &BTreeMap<String, u64>,
) -> Result<(), TestCaseError> {
    for task_id in unbound(world).difference(before) {
        let waited = world.stage.now.mono.0 - since.get(task_id).copied().unwrap_or(0);
        for (node_id, endpoints) in programmed {
            let node = world.stage.store.node(node_id).unwrap();
            let is_concerned = world.stage.store.tasks_of_node(node_id).next().is_some();
            if node.status.state == NodeState::Down || !is_concerned || waited >= 10_000 {
                continue;
            }
            prop_assert!(
                !sends_to(endpoints, task_id),
                "{node_id} sends to {task_id} after {waited} ms"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn increments_add_up_and_nothing_is_unbound_too_early(moves in moves()) {
        let mut world = World::in_session(3);
        world.serve("a");
        world.serve_at("b", "10.0.0.101/24");
        let mut programmed = Programmed::new();
        let mut since = BTreeMap::new();
        for (slot, step) in (1..).zip(&moves) {
            let mut before = unbound(&world);
            perform(&mut world, step, slot, &mut programmed);
            if matches!(step, Move::NewLeader) {
                // Each leader counts, and decides, for itself.
                since.clear();
                before.clear();
            }
            for task in world.stage.store.tasks() {
                if task.desired >= DesiredState::Shutdown {
                    since.entry(task.id.clone()).or_insert(world.stage.now.mono.0);
                }
            }
            for (node_id, agent) in world.agents.iter().filter(|(_, agent)| !agent.over) {
                let dispatcher = &world.dispatcher;
                let items = assignments::items_of_node(
                    node_id,
                    &world.stage.store,
                    &dispatcher.endpoints,
                    &dispatcher.drains,
                );
                let keys = |items: &super::Items| items.keys().cloned().collect::<Vec<_>>();
                prop_assert_eq!(keys(&agent.items), keys(&items));
                for (key, item) in &items {
                    let told = &agent.items[key];
                    let same = match (told, item) {
                        (Change::Task(a), Change::Task(b)) => assignments::is_same_for_agent(a, b),
                        (a, b) => a == b,
                    };
                    prop_assert!(same, "{} of {node_id} is out of date", key.1);
                }
            }
            check_unbound(&world, &before, &programmed, &since)?;
        }
    }
}

/// Nobody hears the leader for seven seconds: all are down, so nothing is waited for, and one comes back that still sends.
#[test]
fn a_node_that_was_down_is_not_waited_for() {
    let mut world = World::in_session(3);
    let service = world.serve("a");
    let id = world.put(&service, 1, "n3", TaskState::Running);
    world.acknowledge("n3");
    world.want(&id, DesiredState::Shutdown);
    assert!(unbound(&world).is_empty());
    world.pass(7_000, &[]);
    assert_eq!(unbound(&world), BTreeSet::from([id.clone()]));
    world.join("n3");
    let told = &world.agents["n3"].items;
    assert!(told.contains_key(&(ItemKind::Unbound, id)));
    assert_eq!(world.backends("n3", "a"), "a.1 draining");
}
