//! Nodes.

use agent_api::swarm::{
    NodeAvailability, NodeDescription, NodeRole, NodeSpec, NodeState, Reachability,
};
use cluster_api::{Node, Task, TaskState, TaskStatus};

use super::super::{Reply, Request};
use super::World;

const HOST: &str = "host-b";

fn worker(id: &str, state: NodeState) -> Node {
    let mut node = Node {
        id: id.into(),
        description: Some(NodeDescription {
            hostname: HOST.into(),
            ..NodeDescription::default()
        }),
        ..Node::default()
    };
    node.status.state = state;
    node
}

fn update(world: &World, node: &str, role: NodeRole, availability: NodeAvailability) -> Request {
    Request::NodeUpdate {
        node: node.into(),
        version: world.store.node(node).unwrap().meta.version,
        spec: NodeSpec {
            role,
            availability,
            ..NodeSpec::default()
        },
    }
}

fn demote(world: &World, node: &str) -> Request {
    update(world, node, NodeRole::Worker, NodeAvailability::Active)
}

fn remove(node: &str, force: bool) -> Request {
    Request::NodeRemove {
        node: node.into(),
        force,
    }
}

fn set_reachable(world: &mut World, node: &str, reachability: Reachability) {
    let mut changed = Node::clone(world.store.node(node).unwrap());
    changed.member.as_mut().unwrap().reachability = reachability;
    world.put(changed);
}

#[test]
fn the_last_manager_stays() {
    let mut world = World::new();
    world.manager("a", 1);
    assert_eq!(
        world.refused(demote(&world_copy(&world), "a")),
        "400 attempting to demote the last manager of the swarm"
    );
}

/// A second handle on the same store, to make a request from.
fn world_copy(world: &World) -> World {
    World {
        store: world.store.clone(),
        ids: cluster_api::IdSource::seeded(1),
    }
}

#[test]
fn a_quorum_of_managers_that_answer_stays() {
    let quorum = "400 can't remove member from the raft: this would result in a loss of quorum";
    let mut world = World::new();
    for (id, raft_id) in [("a", 1), ("b", 2), ("c", 3)] {
        world.manager(id, raft_id);
    }
    set_reachable(&mut world, "c", Reachability::Unreachable);
    // Of b and c only b would answer.
    let request = demote(&world, "a");
    assert_eq!(world.refused(request), quorum);
    // The one that does not answer may go.
    let request = demote(&world, "c");
    assert_eq!(world.request(request), Ok(Reply::Done));
    // It is on its way out: two are left, and one more may go while both answer.
    let request = demote(&world, "b");
    assert_eq!(world.request(request), Ok(Reply::Done));
    let request = demote(&world, "a");
    assert_eq!(
        world.refused(request),
        "400 attempting to demote the last manager of the swarm"
    );
}

#[test]
fn managers_are_removed_after_they_are_demoted_and_workers_when_they_are_down() {
    let mut world = World::new();
    world.manager("a", 1);
    world.manager("b", 2);
    let member = |id: &str| {
        format!(
            "400 node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )
    };
    assert_eq!(world.refused(remove("a", true)), member("a"));
    let request = demote(&world, "b");
    world.request(request).unwrap();
    // Not yet out of Raft.
    assert_eq!(world.refused(remove("b", true)), member("b"));
    let mut left = Node::clone(world.store.node("b").unwrap());
    left.member = None;
    left.role = NodeRole::Worker;
    world.put(left);
    assert_eq!(
        world.refused(remove("b", false)),
        "400 node b is not down and can't be removed"
    );
    world.request(remove("b", true)).unwrap();
    assert_eq!(world.refused(remove("b", true)), "404 node b not found");
    for (id, state) in [("c", NodeState::Down), ("d", NodeState::Unknown)] {
        world.put(worker(id, state));
        world.request(remove(id, false)).unwrap();
    }
}

/// What its tasks take with them is the reaper's, in as many steps as it needs.
#[test]
fn a_node_with_very_many_tasks_can_be_removed() {
    let mut world = World::new();
    world.put(worker("gone", NodeState::Down));
    for number in 0..5_000 {
        world.put(Task {
            id: format!("t{number}"),
            node_id: "gone".into(),
            status: TaskStatus {
                state: TaskState::Running,
                message: "x".repeat(1_000),
                ..TaskStatus::default()
            },
            ..Task::default()
        });
    }
    let decision = world.decide(&remove(HOST, false)).unwrap();
    let bytes = serde_json::to_vec(&decision.transaction).unwrap().len();
    assert!(bytes <= crate::raft::MAX_PROPOSAL, "{bytes}");
    world.apply(&decision.transaction);
    assert!(world.store.node("gone").is_none());
}

#[test]
fn availability_and_labels_change_with_the_right_version_only() {
    let mut world = World::new();
    world.put(worker("w", NodeState::Ready));
    let request = update(&world, "w", NodeRole::Worker, NodeAvailability::Drain);
    world.request(request.clone()).unwrap();
    let node = world.store.node("w").unwrap();
    assert_eq!(node.spec.availability, NodeAvailability::Drain);
    assert_eq!(node.status.state, NodeState::Ready);
    assert_eq!(world.refused(request), "500 update out of sequence");
}

#[test]
fn two_nodes_of_one_name_need_an_id() {
    let mut world = World::new();
    world.put(worker("aa1", NodeState::Down));
    world.put(worker("aa2", NodeState::Down));
    assert_eq!(
        world.refused(remove(HOST, false)),
        format!("400 node {HOST} is ambiguous (2 matches found)")
    );
    assert_eq!(
        world.refused(remove("aa", false)),
        "400 node aa is ambiguous (2 matches found)"
    );
    world.request(remove("aa1", false)).unwrap();
    world.request(remove(HOST, false)).unwrap();
}
