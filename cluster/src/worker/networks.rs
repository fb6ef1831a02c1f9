//! Which networks this node must have, what their balancers must say, and how far that is programmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{Network, Task};

use super::action::Action;
use crate::dispatcher::Endpoints;

#[derive(Debug, Default)]
pub(super) struct Networks {
    known: BTreeMap<String, Arc<Network>>,
    endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// Version asked for, and the one that is in place.
    programmed: BTreeMap<String, Programmed>,
    /// The end of the chain that is not acknowledged yet.
    owed: Option<(u64, String)>,
}

#[derive(Debug, Default)]
struct Programmed {
    asked: Option<Arc<Endpoints>>,
    /// The executor has confirmed `asked`.
    in_place: bool,
}

impl Networks {
    pub(super) fn put(&mut self, network: Arc<Network>) {
        self.known.insert(network.id.clone(), network);
    }

    pub(super) fn put_endpoints(&mut self, endpoints: Arc<Endpoints>) {
        self.endpoints
            .insert(endpoints.network_id.clone(), endpoints);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.known.remove(id);
    }

    pub(super) fn remove_endpoints(&mut self, id: &str) {
        self.endpoints.remove(id);
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.endpoints.clear();
    }

    /// The networks of a task; `None` while one is not known.
    pub(super) fn of_task(&self, task: &Task) -> Option<Vec<Arc<Network>>> {
        task.networks
            .iter()
            .map(|attachment| self.known.get(&attachment.network_id).cloned())
            .collect()
    }

    /// A chain of assignments was followed up to here; its managers want to know when it is carried out.
    pub(super) fn owe_acknowledgement(&mut self, term: u64, results_in: String) {
        self.owed = Some((term, results_in));
    }

    pub(super) fn programmed(&mut self, network_id: &str, version: u64) {
        if let Some(programmed) = self.programmed.get_mut(network_id)
            && programmed
                .asked
                .as_ref()
                .is_some_and(|asked| asked.version == version)
        {
            programmed.in_place = true;
        }
    }

    /// Programs what changed.
    pub(super) fn program(&mut self, actions: &mut Vec<Action>) {
        for (id, endpoints) in &self.endpoints {
            let Some(network) = self.known.get(id) else {
                continue;
            };
            let programmed = self.programmed.entry(id.clone()).or_default();
            if programmed.asked.as_ref() != Some(endpoints) {
                programmed.asked = Some(endpoints.clone());
                programmed.in_place = false;
                actions.push(Action::Program {
                    network: network.clone(),
                    endpoints: endpoints.clone(),
                });
            }
        }
    }

    /// Lets go of networks that neither managers nor tasks need.
    pub(super) fn let_go(&mut self, used: &BTreeSet<&str>, actions: &mut Vec<Action>) {
        let endpoints = &self.endpoints;
        self.programmed.retain(|id, _| {
            let keep = endpoints.contains_key(id) || used.contains(id.as_str());
            if !keep {
                actions.push(Action::Unprogram {
                    network_id: id.clone(),
                });
            }
            keep
        });
    }

    /// What can be acknowledged now, once.
    pub(super) fn acknowledgement(&mut self) -> Option<(u64, String)> {
        if self.programmed.values().all(|one| one.in_place) {
            self.owed.take()
        } else {
            None
        }
    }
}
