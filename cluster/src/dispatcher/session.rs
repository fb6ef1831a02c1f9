//! One session of one agent: what it was told and what it has acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Whether the node has followed a complete message: what it had before the session is gone.
    is_known: bool,
    /// What was sent of endpoint states and not yet acknowledged: message, network, version. No version when the
    /// network was taken away.
    unacknowledged: VecDeque<(u64, String, Option<u64>)>,
    /// Version of each network's endpoint state that the node has programmed; until it has acknowledged that the
    /// network is taken away.
    programmed: BTreeMap<String, u64>,
}

/// What a node may balance by, of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It has not yet followed this leader: perhaps a state of an older one, perhaps nothing.
    Unknown,
    /// No state older than this version.
    Since(u64),
    Nothing,
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
            is_known: false,
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
        let told = self.told();
        let assigned = self.assigned.as_mut()?;
        let complete = self.wants_complete;
        let changes = changes(if complete { None } else { Some(assigned) }, &items);
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
        for network_id in told {
            if !items.contains_key(&(ItemKind::Endpoints, network_id.clone())) {
                self.unacknowledged
                    .push_back((self.sequence, network_id, None));
            }
        }
        for change in &changes {
            if let Change::Endpoints(endpoints) = change {
                self.unacknowledged.push_back((
                    self.sequence,
                    endpoints.network_id.clone(),
                    Some(endpoints.version),
                ));
            }
        }
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

    /// All endpoint states up to this message are programmed. Something else than the number of one that was sent says
    /// nothing.
    pub(super) fn acknowledge(&mut self, results_in: &str) {
        let Some(sequence) = results_in
            .parse::<u64>()
            .ok()
            .filter(|sequence| (1..=self.sequence).contains(sequence))
        else {
            return;
        };
        // The first message of a session is complete.
        self.is_known = true;
        while let Some((sent, _, _)) = self.unacknowledged.front()
            && *sent <= sequence
        {
            match self.unacknowledged.pop_front() {
                Some((_, network_id, Some(version))) => {
                    self.programmed.insert(network_id, version);
                }
                Some((_, network_id, None)) => {
                    self.programmed.remove(&network_id);
                }
                None => {}
            }
        }
    }

    /// What the node may balance by on the network, as far as it has acknowledged.
    pub(super) fn held(&self, network_id: &str) -> Held {
        if !self.is_known {
            return Held::Unknown;
        }
        let of_network = |(_, id, version): &(u64, String, Option<u64>)| {
            version.filter(|_| id.as_str() == network_id)
        };
        let programmed = self.programmed.get(network_id).copied();
        programmed
            .or_else(|| self.unacknowledged.iter().find_map(of_network))
            .map_or(Held::Nothing, Held::Since)
    }

    /// Networks whose endpoint state the node has, or will have when it has followed everything.
    fn told(&self) -> BTreeSet<String> {
        let mut told: BTreeSet<String> = self.programmed.keys().cloned().collect();
        for (_, network_id, version) in &self.unacknowledged {
            if version.is_some() {
                told.insert(network_id.clone());
            } else {
                told.remove(network_id);
            }
        }
        told
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
