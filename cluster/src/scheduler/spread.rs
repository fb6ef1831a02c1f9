//! Which of the suitable nodes gets the next task of a service.
//!
//! Preferences make a tree, one level for each label tasks are to be spread over; a node is at the leaf of its values
//! (an absent label is the empty one). The next task goes down the branch with the fewest tasks of the service at each
//! level, and at the leaf to the node with, in this order, no recent failures, the fewest tasks of the service, the fewest
//! tasks at all, the smallest id. Without preferences there is one leaf.
//! Source: moby/swarmkit `manager/scheduler/{nodeset,decision_tree}.go`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use agent_api::swarm::PlacementPreference;
use cluster_api::{Node, Timestamp};

use super::usage::{Group, Usage};

/// How good a node is; the least is the best. The last member is its place in the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    faults: usize,
    replicas: u64,
    tasks: u64,
    place: usize,
}

#[derive(Debug)]
enum Shape {
    Leaf(BinaryHeap<Reverse<Rank>>),
    Branches(BTreeMap<String, Tree>),
}

/// Suitable nodes, arranged.
#[derive(Debug)]
pub(super) struct Tree {
    /// Of the service, in all nodes below, suitable or not.
    replicas: u64,
    shape: Shape,
}

/// A label tasks are spread over.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Descriptor {
    Node(String),
    Engine(String),
}

/// What the nodes are ranked for.
pub(super) struct Purpose<'a> {
    group: &'a Group,
    descriptors: Vec<Descriptor>,
    now: Timestamp,
}

impl<'a> Purpose<'a> {
    pub(super) fn new(
        group: &'a Group,
        preferences: &[PlacementPreference],
        now: Timestamp,
    ) -> Self {
        let descriptors = preferences
            .iter()
            .filter_map(|preference| descriptor(&preference.spread.as_ref()?.spread_descriptor));
        Self {
            group,
            descriptors: descriptors.collect(),
            now,
        }
    }

    fn rank(&self, usage: &Usage, place: usize) -> Rank {
        Rank {
            faults: usage.faults(self.group, self.now),
            replicas: usage.replicas(&self.group.service_id),
            tasks: usage.tasks(),
            place,
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            replicas: 0,
            shape: Shape::Leaf(BinaryHeap::new()),
        }
    }

    /// Puts a node in its place. One that is not suitable counts and is never chosen.
    pub(super) fn add(
        &mut self,
        usage: &Usage,
        place: usize,
        suitable: bool,
        purpose: &Purpose<'_>,
    ) {
        let replicas = usage.replicas(&purpose.group.service_id);
        let mut tree = self;
        for descriptor in &purpose.descriptors {
            tree.replicas += replicas;
            if !matches!(tree.shape, Shape::Branches(_)) {
                tree.shape = Shape::Branches(BTreeMap::new());
            }
            let Shape::Branches(branches) = &mut tree.shape else {
                return;
            };
            let value = value_of(descriptor, &usage.node).to_owned();
            tree = branches.entry(value).or_insert_with(Self::new);
        }
        tree.replicas += replicas;
        if suitable && let Shape::Leaf(heap) = &mut tree.shape {
            heap.push(Reverse(purpose.rank(usage, place)));
        }
    }

    /// Chooses a node for one task, and lets `assign` put the task there. `assign` says whether the node had room; one
    /// without is not asked again. `None` when no node is left.
    pub(super) fn choose(
        &mut self,
        nodes: &mut [Usage],
        purpose: &Purpose<'_>,
        assign: &mut impl FnMut(&mut Usage) -> bool,
    ) -> Option<usize> {
        let chosen = match &mut self.shape {
            Shape::Leaf(heap) => loop {
                let Reverse(rank) = heap.pop()?;
                let usage = &mut nodes[rank.place];
                if assign(usage) {
                    heap.push(Reverse(purpose.rank(usage, rank.place)));
                    break rank.place;
                }
            },
            Shape::Branches(branches) => loop {
                let (value, branch) = branches.iter_mut().min_by_key(|(_, b)| b.replicas)?;
                if let Some(place) = branch.choose(nodes, purpose, assign) {
                    break place;
                }
                let value = value.clone();
                branches.remove(&value);
            },
        };
        self.replicas += 1;
        Some(chosen)
    }
}

fn descriptor(text: &str) -> Option<Descriptor> {
    let label = |prefix: &str| {
        let head = text.get(..prefix.len())?;
        let rest = &text[prefix.len()..];
        (head.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then(|| rest.to_owned())
    };
    label("node.labels.")
        .map(Descriptor::Node)
        .or_else(|| label("engine.labels.").map(Descriptor::Engine))
}

fn value_of<'a>(descriptor: &Descriptor, node: &'a Node) -> &'a str {
    let value = match descriptor {
        Descriptor::Node(key) => node.spec.annotations.labels.get(key),
        Descriptor::Engine(key) => node
            .description
            .as_ref()
            .and_then(|description| description.engine.labels.get(key)),
    };
    value.map_or("", String::as_str)
}
