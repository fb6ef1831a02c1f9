//! Tests of the driver with its log: a group of nodes, a network and disks, all of it in this file and in the hands of the
//! tests. Transcripts are in `cases`, known bugs of the raft crate in `bugs`, random schedules in `random`.

mod bugs;
mod random;
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use cluster_api::IdSource;

use super::log::disk::MemoryDisk;
use super::log::{Key, Log, Start};
use super::{
    Config, Event, Member, Membership, Node, PeerMessage, ProposalId, RaftId, ReadId, ReadOutcome,
    State, Suffrage, Unresolved,
};

const CLUSTER: &str = "test";

fn key() -> Key {
    Key::new([3; 32])
}

pub(super) fn membership(voters: impl IntoIterator<Item = RaftId>) -> Membership {
    let member = |id| Member {
        node_id: format!("n{id}"),
        address: format!("n{id}:2377"),
        suffrage: Suffrage::Voter,
    };
    Membership {
        members: voters.into_iter().map(|id| (id, member(id))).collect(),
        ..Membership::default()
    }
}

/// One member with its disk and what it applied.
pub(super) struct Host {
    pub(super) disk: MemoryDisk,
    pub(super) running: Option<(Node, Log<MemoryDisk>)>,
    /// Writes are not synced until it is told to.
    slow: bool,
    unsynced: Option<u64>,
    /// The replicated state: index, term and data of all that was applied.
    pub(super) state: Vec<(u64, u64, String)>,
    /// Answers to its own proposals and reads.
    pub(super) answers: Vec<Event>,
    lives: u64,
}

impl Host {
    pub(super) fn node(&mut self) -> &mut Node {
        &mut self
            .running
            .as_mut()
            .expect("the test speaks to a node that runs")
            .0
    }

    pub(super) fn data(&self) -> Vec<&str> {
        self.state
            .iter()
            .map(|(_, _, data)| data.as_str())
            .collect()
    }
}

/// Members, and the messages between them.
pub(super) struct Group {
    pub(super) hosts: BTreeMap<RaftId, Host>,
    pub(super) network: VecDeque<PeerMessage>,
    /// Links that carry nothing.
    cut: BTreeSet<(RaftId, RaftId)>,
    config: Config,
    trace: Option<String>,
    next: u64,
    pub(super) oracle: Oracle,
}

/// What must hold of every group at any time, checked whenever a member says something.
#[derive(Default)]
pub(super) struct Oracle {
    /// Term and data of every index any member has applied.
    applied: BTreeMap<u64, (u64, String)>,
    leaders: BTreeMap<u64, RaftId>,
    /// Indices acknowledged to a proposer.
    acknowledged: BTreeSet<u64>,
    dropped: BTreeSet<ProposalId>,
    /// Proposals by what they say, and the index a read asked now must see.
    proposed: BTreeMap<String, ProposalId>,
    reads: BTreeMap<ReadId, u64>,
    pub(super) counts: BTreeMap<&'static str, usize>,
}

impl Oracle {
    fn see(&mut self, id: RaftId, event: &Event) {
        let counted = match event {
            Event::Committed(committed) => {
                let data = String::from_utf8(committed.data.clone()).unwrap();
                let proposal = self.proposed.get(&data);
                assert!(
                    proposal.is_none_or(|id| !self.dropped.contains(id)),
                    "{data} was dropped, and was committed"
                );
                let said = (committed.term, data);
                let first = self
                    .applied
                    .entry(committed.index)
                    .or_insert_with(|| said.clone());
                assert_eq!(
                    *first, said,
                    "two members disagree on index {}",
                    committed.index
                );
                if let Some(id) = committed.proposal {
                    assert_eq!(proposal, Some(&id), "an answer to another's proposal");
                    self.acknowledged.insert(committed.index);
                }
                "committed"
            }
            Event::Role(role) if role.state == State::Leader => {
                let leader = *self.leaders.entry(role.term).or_insert(id);
                assert_eq!(leader, id, "two leaders in term {}", role.term);
                "leader"
            }
            Event::Resolved {
                proposal,
                outcome: Unresolved::Dropped,
            } => {
                self.dropped.insert(*proposal);
                "dropped"
            }
            Event::Resolved { .. } => "unknown",
            Event::Read {
                read,
                outcome: ReadOutcome::Ready { index },
            } => {
                assert!(
                    *index >= self.reads[read],
                    "read {} sees {index}, not {}",
                    read.0,
                    self.reads[read]
                );
                "read"
            }
            Event::Membership(event) if event.outcome.is_ok() => "membership",
            Event::Restore(snapshot) if snapshot.index > 1 => "restored",
            _ => return,
        };
        *self.counts.entry(counted).or_default() += 1;
    }

    fn last_acknowledged(&self) -> u64 {
        self.acknowledged.last().copied().unwrap_or(0)
    }
}

impl Group {
    pub(super) fn new(voters: u64, config: Config) -> Self {
        let mut group = Self {
            hosts: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            config,
            trace: None,
            next: 0,
            oracle: Oracle::default(),
        };
        for id in 1..=voters {
            group.add_host(id, Start::Found(membership(1..=voters)));
        }
        group
    }

    /// A machine with an empty disk.
    pub(super) fn add_host(&mut self, id: RaftId, start: Start) {
        let disk = MemoryDisk::default();
        drop(
            Log::create(
                disk.clone(),
                CLUSTER,
                id,
                &key(),
                IdSource::seeded(id),
                start,
            )
            .unwrap(),
        );
        disk.kill();
        let host = Host {
            disk,
            running: None,
            slow: false,
            unsynced: None,
            state: Vec::new(),
            answers: Vec::new(),
            lives: 0,
        };
        self.hosts.insert(id, host);
        self.start(id);
    }

    pub(super) fn start(&mut self, id: RaftId) {
        let seed = self.config.seed;
        let host = self.hosts.get_mut(&id).unwrap();
        host.lives += 1;
        let nonces = IdSource::seeded(id * 1000 + host.lives);
        let (log, recovered) = Log::open(host.disk.clone(), CLUSTER, &key(), nonces).unwrap();
        assert_eq!(recovered.id(), id);
        host.state.clear();
        host.unsynced = None;
        let config = Config {
            seed: seed + id * 100 + host.lives,
            ..self.config.clone()
        };
        host.running = Some((Node::new(config, recovered), log));
        self.run(id);
    }

    /// The machine loses power.
    pub(super) fn crash(&mut self, id: RaftId, random: &mut IdSource) {
        let host = self.hosts.get_mut(&id).unwrap();
        host.running = None;
        host.disk.crash(random);
    }

    pub(super) fn node(&mut self, id: RaftId) -> &mut Node {
        self.hosts.get_mut(&id).unwrap().node()
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{}", line()).unwrap();
        }
    }

    /// Does what the node wants done, until it wants nothing.
    pub(super) fn run(&mut self, id: RaftId) {
        loop {
            let host = self.hosts.get_mut(&id).unwrap();
            let Some((node, log)) = &mut host.running else {
                return;
            };
            let output = node.take();
            let idle = output.is_empty();
            if let Some(batch) = &output.write {
                log.append(batch).unwrap();
                host.unsynced = Some(batch.number());
            }
            for message in output.messages {
                let cut = self.cut.contains(&(message.from, message.to));
                self.say(|| format!("{}{}", message.describe(), if cut { "  ✗" } else { "" }));
                if !cut {
                    // Everything that travels can be written and read back.
                    let bytes = message.encode();
                    self.network.push_back(PeerMessage::decode(&bytes).unwrap());
                }
            }
            for event in output.events {
                self.apply(id, event);
            }
            let host = self.hosts.get_mut(&id).unwrap();
            if host.slow {
                if idle {
                    return;
                }
                continue;
            }
            match host.unsynced {
                Some(_) => self.sync(id),
                None if idle => return,
                None => {}
            }
        }
    }

    /// What was written is durable now.
    pub(super) fn sync(&mut self, id: RaftId) {
        let host = self.hosts.get_mut(&id).unwrap();
        let Some((node, log)) = &mut host.running else {
            return;
        };
        log.sync().unwrap();
        if let Some(number) = host.unsynced.take() {
            node.persisted(number);
            self.say(|| format!("{id} synced"));
        }
    }

    fn apply(&mut self, id: RaftId, event: Event) {
        let line = describe(&event);
        self.say(|| format!("{id} {line}"));
        self.oracle.see(id, &event);
        let host = self.hosts.get_mut(&id).unwrap();
        match event {
            Event::Restore(snapshot) => {
                host.state = match snapshot.data.as_slice() {
                    [] => Vec::new(),
                    data => serde_json::from_slice(data).unwrap(),
                };
            }
            Event::Committed(committed) => {
                let data = String::from_utf8(committed.data.clone()).unwrap();
                host.state.push((committed.index, committed.term, data));
                if committed.proposal.is_some() {
                    host.answers.push(Event::Committed(committed));
                }
            }
            Event::SnapshotWanted { index } => {
                let data = serde_json::to_vec(&host.state).unwrap();
                host.node().snapshot_made(index, data);
            }
            Event::Resolved { .. } | Event::Read { .. } => host.answers.push(event),
            Event::Membership(_) | Event::Role(_) | Event::Halted(_) => {}
        }
    }

    pub(super) fn tick(&mut self, id: RaftId) {
        if self.hosts[&id].running.is_some() {
            self.node(id).tick();
            self.run(id);
        }
    }

    /// Ticks until it stands for election.
    pub(super) fn timeout(&mut self, id: RaftId) {
        for _ in 0..100 {
            self.tick(id);
            if self.node(id).role().state != State::Follower {
                return;
            }
        }
    }

    /// Delivers the oldest message.
    pub(super) fn deliver_one(&mut self) -> bool {
        let Some(message) = self.network.pop_front() else {
            return false;
        };
        self.hand_over(message);
        true
    }

    pub(super) fn hand_over(&mut self, message: PeerMessage) {
        let to = message.to;
        let arrives = !self.cut.contains(&(message.from, to));
        if arrives
            && self
                .hosts
                .get(&to)
                .is_some_and(|host| host.running.is_some())
        {
            self.node(to).receive(message);
            self.run(to);
        }
    }

    pub(super) fn deliver(&mut self) {
        let mut bound = 100_000;
        while self.deliver_one() {
            bound -= 1;
            assert!(bound > 0, "the members never stop talking");
        }
    }

    pub(super) fn propose(&mut self, id: RaftId, data: &str) -> Option<ProposalId> {
        self.next += 1;
        let proposal = ProposalId(self.next);
        self.oracle.proposed.insert(data.to_owned(), proposal);
        match self.node(id).propose(proposal, data.as_bytes().to_vec()) {
            Ok(()) => Some(proposal),
            Err(refused) => {
                self.say(|| format!("{id} refused: {refused}"));
                None
            }
        }
    }

    pub(super) fn read(&mut self, id: RaftId) -> ReadId {
        self.next += 1;
        let read = ReadId(self.next);
        self.oracle
            .reads
            .insert(read, self.oracle.last_acknowledged());
        self.node(id).read(read);
        read
    }

    /// Links between the sides carry nothing.
    pub(super) fn partition(&mut self, one: &[RaftId], other: &[RaftId]) {
        for from in one {
            for to in other {
                self.cut.insert((*from, *to));
                self.cut.insert((*to, *from));
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn set_slow(&mut self, id: RaftId, slow: bool) {
        self.hosts.get_mut(&id).unwrap().slow = slow;
    }

    /// All clocks go on, and all messages arrive.
    pub(super) fn settle(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for id in self.hosts.keys().copied().collect::<Vec<_>>() {
                self.tick(id);
            }
            self.deliver();
        }
    }

    pub(super) fn leader(&mut self) -> Option<RaftId> {
        let led = |host: &Host| {
            host.running
                .as_ref()
                .is_some_and(|(node, _)| node.role().established)
        };
        let leaders = self.hosts.iter().filter(|(_, host)| led(host));
        leaders
            .max_by_key(|(_, host)| host.running.as_ref().map(|(node, _)| node.role().term))
            .map(|(id, _)| *id)
    }
}

pub(super) fn describe(event: &Event) -> String {
    match event {
        Event::Restore(snapshot) => {
            let members: Vec<String> = snapshot
                .membership
                .members
                .keys()
                .map(ToString::to_string)
                .collect();
            format!(
                "restores snapshot={}@{} members={}",
                snapshot.index,
                snapshot.term,
                members.join(",")
            )
        }
        Event::Committed(committed) => {
            let own = committed.proposal.map_or_else(String::new, |proposal| {
                format!(" (proposal {})", proposal.0)
            });
            format!(
                "applies {}@{} {}{own}",
                committed.index,
                committed.term,
                String::from_utf8_lossy(&committed.data)
            )
        }
        Event::Membership(event) => {
            let outcome = event
                .outcome
                .as_ref()
                .map_or_else(|error| format!(": {error}"), |()| String::new());
            format!(
                "applies {}@{} {:?}{outcome}",
                event.index, event.term, event.change
            )
        }
        Event::Resolved { proposal, outcome } => format!("proposal {} {outcome:?}", proposal.0),
        Event::Read { read, outcome } => format!("read {} {outcome:?}", read.0),
        Event::Role(role) => {
            let leader = role
                .leader
                .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let established = if role.established {
                ", established"
            } else {
                ""
            };
            format!(
                "is {:?} in term {}, leader {leader}{established}",
                role.state, role.term
            )
        }
        Event::SnapshotWanted { index } => format!("makes snapshot {index}"),
        Event::Halted(halt) => format!("halts: {halt}"),
    }
}
