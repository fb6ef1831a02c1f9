//! Known bugs and traps of raft 0.7, each kept from doing harm, and each shown to be there: when the crate mends one, its test
//! says so.

use cluster_api::IdSource;
use protobuf::Message as _;
use raft::GetEntriesContext;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType,
    Message, MessageType,
};

use super::super::log::Start;
use super::super::message::Body;
use super::super::{Config, Event, Halt, MemberChange, PeerMessage, ProposalId, State};
use super::Group;

/// A group whose member 1 leads and has committed a few entries.
fn group(config: Config) -> Group {
    let mut group = Group::new(3, config);
    group.timeout(1);
    group.deliver();
    for data in ["a", "b", "c", "d", "e", "f", "g"] {
        group.propose(1, data);
        group.run(1);
        group.deliver();
    }
    group
}

fn kinds(group: &Group) -> Vec<MessageType> {
    let kind = |message: &PeerMessage| {
        if let Body::Raft(message) = &message.body {
            Some(message.get_msg_type())
        } else {
            None
        }
    };
    group.network.iter().filter_map(kind).collect()
}

/// <https://github.com/tikv/raft-rs/pull/557>: after a late rejection the leader probes at or below what the follower has.
#[test]
fn a_late_rejection_does_not_send_the_leader_back() {
    let late = |matched| {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppendResponse);
        (message.from, message.to, message.term) = (2, 1, 2);
        message.reject = true;
        message.index = matched;
        message.reject_hint = matched - 3;
        message.log_term = 2;
        message
    };
    let next = |group: &mut Group| {
        let progress = group.node(1).raw.raft.prs().get(2).unwrap();
        (progress.matched, progress.next_idx)
    };
    let prepared = || {
        let mut group = group(Config {
            snapshot_entries: 4,
            keep_entries: 0,
            ..Config::default()
        });
        // A lost message: the leader asks again where the follower stands.
        group.node(1).unreachable(2);
        group.run(1);
        let (matched, next) = next(&mut group);
        assert_eq!(next, matched + 1);
        (group, matched)
    };

    let (mut mended, matched) = prepared();
    mended.node(1).receive(PeerMessage::raft(late(matched)));
    mended.run(1);
    assert_eq!(next(&mut mended), (matched, matched + 1));
    mended.settle(5);
    assert!(!kinds(&mended).contains(&MessageType::MsgSnapshot));

    let (mut bare, matched) = prepared();
    bare.node(1).raw.step(late(matched)).unwrap();
    assert!(
        next(&mut bare).1 <= matched,
        "the crate is mended: the guard can go"
    );
}

/// <https://github.com/tikv/raft-rs/pull/530>: an election looks at every entry committed and not applied. There are none
/// after a start, however many were in the log, and no more than a window's worth on a slow disk.
#[test]
fn an_election_has_few_entries_to_look_at() {
    let unapplied = |group: &mut Group, id| {
        let raft = &group.node(id).raw.raft;
        let (low, high) = (raft.raft_log.applied + 1, raft.raft_log.committed + 1);
        raft.raft_log
            .slice(low, high, None, GetEntriesContext::empty(false))
            .unwrap()
            .len()
    };
    let mut group = Group::new(3, Config::default());
    group.timeout(1);
    group.deliver();
    for batch in 0..300 {
        for one in 0..10 {
            group.propose(1, &format!("{batch}/{one}"));
        }
        group.run(1);
        group.deliver();
    }
    group.crash(2, &mut IdSource::seeded(1));
    group.start(2);
    let applied = group.node(2).status().applied;
    assert!(
        applied > 2900,
        "the commit index was written with the entries: {applied}"
    );
    assert_eq!(unapplied(&mut group, 2), 0);

    group.set_slow(2, true);
    for one in 0..500 {
        group.propose(1, &format!("more {one}"));
        group.run(1);
        group.deliver();
    }
    let left = unapplied(&mut group, 2);
    assert!((1..=64 + 1).contains(&left), "{left} entries");
}

/// An entry that leaves a joint configuration has no data and is no empty entry; one that enters one is nobody's here.
#[test]
fn an_empty_change_is_passed_over_and_no_joint_configuration_entered() {
    let mut group = group(Config::default());
    let last = group.node(2).status().last_index;
    let mut leave = Entry::default();
    leave.set_entry_type(EntryType::EntryConfChangeV2);
    (leave.index, leave.term) = (last + 1, 2);
    let mut joint = ConfChangeV2::default();
    joint.set_transition(ConfChangeTransition::Implicit);
    let single = |id, kind| {
        let mut single = ConfChangeSingle {
            node_id: id,
            ..ConfChangeSingle::default()
        };
        single.set_change_type(kind);
        single
    };
    let changes = vec![
        single(3, ConfChangeType::RemoveNode),
        single(4, ConfChangeType::AddNode),
        single(5, ConfChangeType::AddNode),
    ];
    joint.set_changes(changes);
    let mut enter = Entry::default();
    enter.set_entry_type(EntryType::EntryConfChangeV2);
    enter.data = joint.write_to_bytes().unwrap();
    (enter.index, enter.term) = (last + 2, 2);
    let mut after = Entry {
        data: b"after".to_vec(),
        ..Entry::default()
    };
    (after.index, after.term) = (last + 3, 2);

    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgAppend);
    (message.from, message.to, message.term) = (1, 2, 2);
    (message.index, message.log_term, message.commit) = (last, 2, last + 3);
    message.set_entries(vec![leave, enter, after]);
    let before = group.node(2).membership().clone();
    group.node(2).receive(PeerMessage::raft(message));
    group.run(2);
    assert_eq!(group.hosts[&2].data().last(), Some(&"after"));
    assert_eq!(*group.node(2).membership(), before);
    let raft = &group.node(2).raw.raft;
    assert!(!raft.prs().conf().to_conf_state().auto_leave);
    assert_eq!(raft.raft_log.applied, last + 3);
}

/// A lone voter leads at once. Before its term is durable it must not be heard: it could lead the same term again after a
/// crash, with other entries.
#[test]
fn a_lone_leader_is_not_heard_before_its_term_is_durable() {
    let mut group = Group::new(1, Config::default());
    group.timeout(1);
    group.add_host(2, Start::Join);
    let change = MemberChange::AddLearner {
        id: 2,
        node_id: "n2".into(),
        address: "n2:2377".into(),
    };
    group
        .node(1)
        .change_membership(ProposalId(1), change)
        .unwrap();
    group.run(1);
    // The learner is away, and stays one.
    group.network.clear();
    group.crash(2, &mut IdSource::seeded(1));
    group.crash(1, &mut IdSource::seeded(1));
    group.start(1);
    group.set_slow(1, true);
    group.timeout(1);
    assert_eq!(group.node(1).role().state, State::Leader);
    group.propose(1, "early");
    group.run(1);
    assert!(group.network.is_empty(), "{:?}", kinds(&group));
    group.sync(1);
    group.run(1);
    assert!(!group.network.is_empty());
}

/// The crate panics when a member's log is shorter than what it has acknowledged. Here the member halts, and says why.
#[test]
fn a_member_that_lost_its_log_halts() {
    let mut group = group(Config::default());
    let wiped = group.hosts[&3].disk.files();
    let (name, _) = wiped
        .iter()
        .find(|(name, _)| name.starts_with("log-"))
        .unwrap();
    group.crash(3, &mut IdSource::seeded(1));
    // An old copy of its disk.
    group.hosts[&3]
        .disk
        .tamper(name, |bytes| bytes.truncate(bytes.len() / 2));
    group.start(3);
    let last = group.node(3).status().last_index;
    for _ in 0..2 {
        group.tick(1);
    }
    group.deliver();
    let halted = group.node(3).halted().cloned();
    assert!(
        matches!(halted, Some(Halt::LogLost { last: had, .. }) if had == last),
        "{halted:?}"
    );
    assert!(
        group
            .node(3)
            .propose(ProposalId(99), b"x".to_vec())
            .is_err()
    );
    let said = group.network.len();
    group.timeout(3);
    assert_eq!(group.network.len(), said, "it says nothing any more");
    // The others go on.
    group.propose(1, "on");
    group.run(1);
    group.deliver();
    assert_eq!(group.hosts[&2].data().last(), Some(&"on"));
}

/// One change at a time; the crate would make an empty entry of the second.
#[test]
fn a_second_change_is_refused_and_not_swallowed() {
    let mut group = group(Config::default());
    let change = |id: u64| MemberChange::AddLearner {
        id,
        node_id: format!("n{id}"),
        address: String::new(),
    };
    group
        .node(1)
        .change_membership(ProposalId(1), change(4))
        .unwrap();
    let second = group.node(1).change_membership(ProposalId(2), change(5));
    assert!(second.is_err());
    group.run(1);
    group.deliver();
    assert_eq!(
        group.node(2).membership().learners().collect::<Vec<_>>(),
        [4]
    );
    let answers = &group.hosts[&1].answers;
    assert!(
        !answers
            .iter()
            .any(|event| matches!(event, Event::Resolved { .. }))
    );
}

/// Heartbeats write nothing, on nobody's disk.
#[test]
fn an_idle_group_writes_nothing() {
    let mut group = group(Config::default());
    let work = |group: &Group| {
        group
            .hosts
            .values()
            .map(|host| host.disk.work())
            .collect::<Vec<_>>()
    };
    group.settle(5);
    let before = work(&group);
    group.settle(1000);
    assert_eq!(work(&group), before);
    assert_eq!(group.leader(), Some(1));
}

/// Proposals between two looks share one write.
#[test]
fn many_proposals_share_one_write() {
    let mut group = group(Config::default());
    let (before, _) = group.hosts[&1].disk.work();
    for one in 0..10 {
        group.propose(1, &format!("p{one}"));
    }
    group.run(1);
    group.deliver();
    let (after, _) = group.hosts[&1].disk.work();
    assert_eq!(after - before, 1);
    assert_eq!(group.hosts[&3].data().last(), Some(&"p9"));
}

/// The crate says term 0 of an entry it does not have, and so finds that a message which names that term fits after it.
#[test]
fn entries_after_one_that_is_not_there_are_dropped() {
    let mut group = group(Config::default());
    let raft = &group.node(2).raw.raft;
    let (last, term) = (raft.raft_log.last_index(), raft.term);
    for index in [1, last, last + 1, last + 9] {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (1, 2, term);
        (message.index, message.log_term, message.commit) = (index, 0, index);
        group.node(2).receive(PeerMessage::raft(message));
        group.run(2);
        let node = group.node(2);
        assert_eq!(node.raw.raft.raft_log.last_index(), last);
        assert!(node.halted().is_none());
    }
}
