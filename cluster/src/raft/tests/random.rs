//! Random schedules: messages lost, repeated and reordered, one-way cuts, slow disks, power failures, changes of the group,
//! snapshots; and after it all, peace, in which every member must come to the same state. What must hold on the way is
//! the oracle's.

use cluster_api::IdSource;
use proptest::prelude::*;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::super::log::Start;
use super::super::message::{Body, SnapshotAck, SnapshotChunk, StreamId};
use super::super::{Config, Halt, MemberChange, PeerMessage, ProposalId, RaftId};
use super::Group;

fn pick(random: &mut IdSource, from: &[RaftId]) -> RaftId {
    from[random.below(from.len() as u64) as usize]
}

/// One step of a schedule.
fn disturb(group: &mut Group, random: &mut IdSource) {
    let all: Vec<RaftId> = group.hosts.keys().copied().collect();
    let running: Vec<RaftId> = all
        .iter()
        .copied()
        .filter(|id| group.hosts[id].running.is_some())
        .collect();
    let Some(id) = (!running.is_empty()).then(|| pick(random, &running)) else {
        group.start(pick(random, &all));
        return;
    };
    match random.below(1000) {
        0..350 => group.tick(id),
        350..650 if !group.network.is_empty() => {
            // Mostly in order.
            let reach = if random.below(4) == 0 {
                group.network.len() as u64
            } else {
                1
            };
            if let Some(message) = group.network.remove(random.below(reach) as usize) {
                if random.below(20) == 0 {
                    group.network.push_back(message.clone());
                }
                if random.below(20) != 0 {
                    group.hand_over(message);
                }
            }
        }
        650..800 => {
            let leader = group.leader().unwrap_or(id);
            for _ in 0..=random.below(4) {
                let data = format!("v{}", group.next + 1);
                group.propose(leader, &data);
            }
            if random.below(4) != 0 {
                group.run(leader);
            }
        }
        800..830 => {
            group.read(id);
            group.run(id);
        }
        830..845 => {
            let other = pick(random, &all);
            if random.below(3) == 0 {
                group.cut.insert((id, other));
            } else {
                let rest: Vec<RaftId> = all.iter().copied().filter(|one| *one != id).collect();
                group.partition(&[id], &rest);
            }
        }
        845..880 => group.heal(),
        880..900 => group.set_slow(id, true),
        900..940 => {
            group.set_slow(id, random.below(2) == 0);
            group.sync(id);
            group.run(id);
        }
        940..950 => group.crash(id, random),
        950..975 => {
            if let Some(down) = all.iter().find(|id| group.hosts[id].running.is_none()) {
                group.start(*down);
            }
        }
        975..980 => {
            group.node(id).unreachable(pick(random, &all));
        }
        980..985 => {
            let _ = group.node(id).transfer_leadership(None);
            group.run(id);
        }
        985..995 => change(group, random),
        _ => {
            group.network.clear();
        }
    }
}

fn change(group: &mut Group, random: &mut IdSource) {
    let Some(leader) = group.leader() else { return };
    let membership = group.node(leader).membership().clone();
    let members: Vec<RaftId> = membership.members.keys().copied().collect();
    let change = if members.len() < 3 || (members.len() < 5 && random.below(2) == 0) {
        let id = membership
            .next_id()
            .max(group.hosts.last_key_value().map_or(0, |(id, _)| *id) + 1);
        group.add_host(id, Start::Join);
        MemberChange::AddLearner {
            id,
            node_id: format!("n{id}"),
            address: format!("n{id}:2377"),
        }
    } else if random.below(3) == 0 {
        MemberChange::UpdateAddress {
            id: pick(random, &members),
            address: format!("a{}", random.below(100)),
        }
    } else {
        MemberChange::Remove {
            id: pick(random, &members),
        }
    };
    group.next += 1;
    let proposal = ProposalId(group.next);
    let _ = group.node(leader).change_membership(proposal, change);
    group.run(leader);
}

/// A group after so many steps of a schedule, all faults over.
fn play(seed: u64, steps: usize) -> Group {
    let mut random = IdSource::seeded(seed);
    let voters = 1 + random.below(5);
    let config = Config {
        seed,
        snapshot_entries: 5 + random.below(40),
        keep_entries: random.below(10),
        ..Config::default()
    };
    let mut group = Group::new(voters, config);
    for _ in 0..steps {
        disturb(&mut group, &mut random);
    }
    group.heal();
    let all: Vec<RaftId> = group.hosts.keys().copied().collect();
    for id in all {
        group.set_slow(id, false);
        if group.hosts[&id].running.is_none() {
            group.start(id);
        }
        group.run(id);
    }
    group
}

fn peace(seed: u64, group: &mut Group) {
    group.settle(150);
    let leader = group
        .leader()
        .unwrap_or_else(|| panic!("seed {seed}: nobody leads in peace"));
    assert!(group.propose(leader, "the end").is_some(), "seed {seed}");
    group.run(leader);
    group.settle(30);
    let membership = group.node(leader).membership().clone();
    let last = group
        .oracle
        .applied
        .last_key_value()
        .map(|(index, _)| *index)
        .unwrap();
    assert_eq!(group.oracle.applied[&last].1, "the end", "seed {seed}");
    for id in membership.members.keys() {
        let node = group.node(*id);
        assert_eq!(*node.membership(), membership, "seed {seed}: member {id}");
        assert_eq!(node.halted(), None, "seed {seed}: member {id}");
        let state = &group.hosts[id].state;
        let expected: Vec<_> = group
            .oracle
            .applied
            .iter()
            .map(|(index, (term, data))| (*index, *term, data.clone()))
            .collect();
        assert_eq!(
            *state, expected,
            "seed {seed}: member {id} has not what all have"
        );
    }
    assert!(
        membership.learners().next().is_none(),
        "seed {seed}: a learner was left one"
    );
    for (id, host) in &mut group.hosts {
        let Some((node, _)) = &host.running else {
            continue;
        };
        let removed = Some(&Halt::Removed { id: *id });
        assert!(
            node.halted().is_none() || node.halted() == removed,
            "seed {seed}: {id} {:?}",
            node.halted()
        );
    }
}

#[test]
fn members_agree_and_forget_nothing_whatever_happens() {
    let runs: u64 = std::env::var("RAFT_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(150);
    let first: u64 = std::env::var("RAFT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let mut counts = std::collections::BTreeMap::new();
    for seed in first..first + runs {
        let mut group = play(seed, 800);
        peace(seed, &mut group);
        for (what, count) in group.oracle.counts {
            *counts.entry(what).or_insert(0) += count;
        }
    }
    // The schedules must do what they are for.
    for what in [
        "committed",
        "leader",
        "unknown",
        "read",
        "membership",
        "restored",
    ] {
        assert!(
            runs < 100 || counts.get(what).copied().unwrap_or(0) > 20,
            "{what}: {counts:?}"
        );
    }
}

#[test]
fn the_same_schedule_gives_the_same_run() {
    let run = |seed| {
        let mut group = play(seed, 300);
        group.trace = Some(String::new());
        group.settle(50);
        group.trace.unwrap()
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

fn message() -> impl Strategy<Value = Message> {
    let entry = (
        0..3_usize,
        0..6_u64,
        0..12_u64,
        proptest::collection::vec(any::<u8>(), 0..12),
    )
        .prop_map(|(kind, term, index, data)| {
            let mut entry = Entry::default();
            let kinds = [
                EntryType::EntryNormal,
                EntryType::EntryConfChange,
                EntryType::EntryConfChangeV2,
            ];
            entry.set_entry_type(kinds[kind]);
            (entry.term, entry.index) = (term, index);
            entry.context = data.clone();
            entry.data = data;
            entry
        });
    let follows = any::<bool>();
    let numbers = proptest::collection::vec(prop_oneof![0..8_u64, Just(u64::MAX)], 6);
    let kind = 0..19;
    (
        kind,
        1..5_u64,
        numbers,
        proptest::collection::vec(entry, 0..4),
        any::<bool>(),
        follows,
    )
        .prop_map(|(kind, from, numbers, mut entries, reject, follows)| {
            let mut message = Message::default();
            message.set_msg_type(MessageType::from_i32(kind).unwrap_or_default());
            (message.from, message.to) = (from, 1);
            message.term = numbers[0];
            message.log_term = numbers[1];
            message.index = numbers[2];
            message.commit = numbers[3];
            message.reject_hint = numbers[4];
            message.commit_term = numbers[5];
            message.reject = reject;
            if follows {
                // What passes the first checks must be digestible as well.
                for (place, entry) in (1..).zip(&mut entries) {
                    entry.index = message.index.wrapping_add(place);
                    entry.term = message.log_term;
                }
            }
            message.set_entries(entries);
            message
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_message_makes_a_member_panic(messages in proptest::collection::vec(message(), 1..40), role in 0..3, ticks in 0..30_usize) {
        let mut group = Group::new(3, Config::default());
        match role {
            0 => {}
            1 => group.timeout(1),
            _ => {
                group.timeout(1);
                group.deliver();
                group.propose(1, "a");
                group.run(1);
            }
        }
        for (count, message) in messages.into_iter().enumerate() {
            let message = PeerMessage::raft(message);
            prop_assert_eq!(&PeerMessage::decode(&message.encode()).unwrap(), &message);
            group.node(1).receive(message);
            group.run(1);
            if count % 4 == 0 {
                for _ in 0..ticks {
                    group.tick(1);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..6_u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(message) = PeerMessage::decode(&bytes) {
            let mut group = Group::new(1, Config::default());
            group.node(1).receive(message);
            group.run(1);
        }
    }
}

#[test]
fn every_kind_of_message_survives_the_wire() {
    let stream = StreamId { index: 7, term: 3 };
    let chunk = SnapshotChunk {
        term: 4,
        stream,
        offset: 9,
        total: 100,
        bytes: b"abc".to_vec(),
    };
    for body in [
        Body::Chunk(chunk),
        Body::Ack(SnapshotAck {
            term: 4,
            stream,
            next: 12,
        }),
        Body::Removed,
    ] {
        let message = PeerMessage {
            from: 2,
            to: 1,
            body,
        };
        assert_eq!(PeerMessage::decode(&message.encode()).unwrap(), message);
    }
    let mut within = Message::default();
    (within.from, within.to) = (3, 1);
    let mut bytes = vec![1];
    bytes.extend_from_slice(&2_u64.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    bytes.extend_from_slice(&within.write_to_bytes().unwrap());
    assert!(
        PeerMessage::decode(&bytes).is_err(),
        "the sender outside and inside are not the same"
    );
}
