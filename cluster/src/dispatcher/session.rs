//! One session of one agent: what it was told and what it has acknowledged.

use std::collections::{BTreeMap, VecDeque};

use super::message::{
    Assignments, AssignmentsKind, Change, Contact, ItemKind, Registration, SessionState,
};

/// What a node was assigned, by kind and id. Never holds a removal.
pub(super) type Items = BTreeMap<(ItemKind, String), Change>;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) registration: Registration,
    pub(super) contact: Contact,
    /// What was sent last; `None` before the first.
    pub(super) state: Option<SessionState>,
    closed: bool,
    /// `None` until the agent asks for its assignments.
    assigned: Option<Items>,
    /// The next message has to be complete.
    wants_complete: bool,
    /// Number of the last message.
    sequence: u64,
    /// Endpoint states that were sent and not yet acknowledged: message, network, version.
    unacknowledged: VecDeque<(u64, String, u64)>,
    /// Version of each network's endpoint state that the node has programmed.
    programmed: BTreeMap<String, u64>,
}

impl Session {
    pub(super) fn new(id: String, node_id: &str, registration: Registration) -> Self {
        let contact = Contact {
            node_id: node_id.to_owned(),
            address: registration.address.clone(),
        };
        Self {
            id,
            registration,
            contact,
            state: None,
            closed: false,
            assigned: None,
            wants_complete: false,
            sequence: 0,
            unacknowledged: VecDeque::new(),
            programmed: BTreeMap::new(),
        }
    }

    pub(super) fn open_assignments(&mut self) {
        self.wants_complete = true;
        self.assigned = Some(Items::new());
    }

    /// Whether assignments can be sent.
    pub(super) const fn is_open(&self) -> bool {
        self.assigned.is_some() && !self.closed
    }

    /// Nothing gets through any more. What the node has programmed stays known.
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The message that makes `items` of what was sent before; `None` when the node has it all.
    pub(super) fn assign(&mut self, items: Items, term: u64, index: u64) -> Option<Assignments> {
        let assigned = self.assigned.as_mut()?;
        let complete = self.wants_complete;
        let mut changes = changes(if complete { None } else { Some(assigned) }, &items);
        if changes.is_empty() && !complete {
            return None;
        }
        let applies_to = if complete {
            String::new()
        } else {
            self.sequence.to_string()
        };
        self.sequence += 1;
        self.wants_complete = false;
        for change in &mut changes {
            if let Change::Endpoints(endpoints) = change {
                self.unacknowledged.push_back((
                    self.sequence,
                    endpoints.network_id.clone(),
                    endpoints.version,
                ));
            }
        }
        self.programmed
            .retain(|network_id, _| items.contains_key(&(ItemKind::Endpoints, network_id.clone())));
        *assigned = items;
        Some(Assignments {
            term,
            index,
            applies_to,
            results_in: self.sequence.to_string(),
            kind: if complete {
                AssignmentsKind::Complete
            } else {
                AssignmentsKind::Incremental
            },
            changes,
        })
    }

    /// All endpoint states up to this message are programmed. Something else than a number that was sent says nothing.
    pub(super) fn acknowledge(&mut self, results_in: &str) -> bool {
        let Some(sequence) = results_in
            .parse::<u64>()
            .ok()
            .filter(|sequence| *sequence <= self.sequence)
        else {
            return false;
        };
        let mut news = false;
        while let Some((sent, _, _)) = self.unacknowledged.front()
            && *sent <= sequence
        {
            if let Some((_, network_id, version)) = self.unacknowledged.pop_front() {
                self.programmed.insert(network_id, version);
                news = true;
            }
        }
        news
    }

    /// Version of the network's endpoint state that the node has programmed; 0 for none.
    pub(super) fn programmed(&self, network_id: &str) -> u64 {
        self.programmed.get(network_id).copied().unwrap_or(0)
    }
}

/// What turns `old` into `new`; all of `new` when there is no old one. In the order of the kinds, removals last and in
/// the opposite order, so that a task goes before what it uses.
fn changes(old: Option<&Items>, new: &Items) -> Vec<Change> {
    let empty = Items::new();
    let old = old.unwrap_or(&empty);
    let updates = new
        .iter()
        .filter(|(key, item)| old.get(*key).is_none_or(|before| !is_same(before, item)))
        .map(|(_, item)| item.clone());
    let removals = old
        .keys()
        .rev()
        .filter(|key| !new.contains_key(*key))
        .map(|(kind, id)| Change::Remove {
            kind: *kind,
            id: id.clone(),
        });
    updates.chain(removals).collect()
}

/// Whether an agent that has `before` need not be told `after`.
fn is_same(before: &Change, after: &Change) -> bool {
    match (before, after) {
        (Change::Network(a), Change::Network(b)) => a.meta.version == b.meta.version,
        (Change::Endpoints(a), Change::Endpoints(b)) => a.version == b.version,
        (Change::Secret(a), Change::Secret(b)) => a.meta.version == b.meta.version,
        (Change::Config(a), Change::Config(b)) => a.meta.version == b.meta.version,
        (Change::Task(a), Change::Task(b)) => super::assignments::is_same_for_agent(a, b),
        (a, b) => a == b,
    }
}
