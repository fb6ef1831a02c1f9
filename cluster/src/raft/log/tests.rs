//! The log on a disk that forgets.

use std::sync::Arc;

use cluster_api::IdSource;
use proptest::prelude::*;
use raft::eraftpb::Entry;

use super::super::membership::Membership;
use super::super::output::Snapshot;
use super::super::write::{Operation, Recovered, WriteBatch};
use super::disk::MemoryDisk;
use super::{Directory as _, Files, Key, Log, LogError, Start};

const CLUSTER: &str = "cluster-1";

fn key() -> Key {
    Key::new([7; 32])
}

fn founder() -> Membership {
    Membership::founded_by(1, "node-a".into(), "a:2377".into())
}

fn create(disk: &MemoryDisk) -> Log<MemoryDisk> {
    Log::create(
        disk.clone(),
        CLUSTER,
        1,
        &key(),
        IdSource::seeded(1),
        Start::Found(founder()),
    )
    .unwrap()
    .0
}

fn open(disk: &MemoryDisk) -> Result<(Log<MemoryDisk>, Recovered), LogError> {
    Log::open(disk.clone(), CLUSTER, &key(), IdSource::seeded(2))
}

fn reopen(disk: &MemoryDisk) -> Recovered {
    disk.kill();
    open(disk).unwrap().1
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (index, term, data.to_vec());
    entry
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Operation {
    Operation::Append(
        range
            .map(|index| entry(index, term, format!("entry {index}").as_bytes()))
            .collect(),
    )
}

fn batch(operations: Vec<Operation>) -> WriteBatch {
    WriteBatch {
        number: 1,
        operations,
    }
}

fn state(term: u64, vote: u64) -> Operation {
    Operation::State { term, vote }
}

fn snapshot(index: u64, term: u64) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        index,
        term,
        membership: founder(),
        data: format!("state at {index}").into_bytes(),
    })
}

fn places(recovered: &Recovered) -> Vec<(u64, u64)> {
    recovered
        .entries
        .iter()
        .map(|entry| (entry.index, entry.term))
        .collect()
}

#[test]
fn what_was_synced_is_there_again() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    log.append(&batch(vec![
        state(3, 1),
        entries(2..=4, 3),
        Operation::Commit(3),
    ]))
    .unwrap();
    log.sync().unwrap();
    drop(log);
    let recovered = reopen(&disk);
    assert_eq!(places(&recovered), [(2, 3), (3, 3), (4, 3)]);
    assert_eq!(recovered.entries[1].data, b"entry 3");
    assert_eq!(
        (
            recovered.state.term,
            recovered.state.vote,
            recovered.state.commit
        ),
        (3, 1, 3)
    );
    assert_eq!(recovered.snapshot.unwrap().membership, founder());
    assert_eq!(recovered.id, 1);
}

#[test]
fn entries_of_another_leader_replace_and_the_commit_index_speaks_of_the_new() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    log.append(&batch(vec![state(1, 1), entries(2..=9, 1)]))
        .unwrap();
    log.append(&batch(vec![
        state(2, 3),
        entries(5..=6, 2),
        Operation::Commit(6),
    ]))
    .unwrap();
    log.sync().unwrap();
    let recovered = reopen(&disk);
    assert_eq!(places(&recovered), [(2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]);
    assert_eq!(recovered.state.commit, 6);
}

#[test]
fn the_leaders_snapshot_replaces_the_log() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    log.append(&batch(vec![state(1, 1), entries(2..=9, 1)]))
        .unwrap();
    log.append(&batch(vec![
        state(4, 0),
        Operation::Restore(snapshot(7, 3)),
    ]))
    .unwrap();
    log.sync().unwrap();
    let recovered = reopen(&disk);
    assert_eq!(places(&recovered), []);
    assert_eq!(recovered.snapshot.unwrap().data, b"state at 7");
    let (mut log, _) = {
        disk.kill();
        open(&disk).unwrap()
    };
    log.append(&batch(vec![entries(8..=9, 4)])).unwrap();
    log.sync().unwrap();
    assert_eq!(places(&reopen(&disk)), [(8, 4), (9, 4)]);
}

#[test]
fn compaction_deletes_whole_segments_and_never_what_is_needed() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    let big = vec![1; super::SEGMENT_BYTES / 2];
    for index in 2..=9 {
        let one = Operation::Append(vec![entry(index, 1, &big)]);
        log.append(&batch(vec![state(index, 1), one, Operation::Commit(index)]))
            .unwrap();
        log.sync().unwrap();
    }
    let segments = |disk: &MemoryDisk| {
        disk.files()
            .keys()
            .filter(|name| name.starts_with("log-"))
            .count()
    };
    let before = segments(&disk);
    assert!(before >= 4, "{before} segments");
    log.append(&batch(vec![Operation::Compact {
        snapshot: snapshot(8, 1),
        keep_from: 7,
    }]))
    .unwrap();
    log.sync().unwrap();
    assert!(segments(&disk) < before);
    assert_eq!(
        disk.files()
            .keys()
            .filter(|name| name.starts_with("snapshot-"))
            .count(),
        1
    );
    let recovered = reopen(&disk);
    let first = recovered.entries[0].index;
    assert!((2..=7).contains(&first), "kept from {first}");
    assert_eq!(recovered.entries.last().unwrap().index, 9);
    assert_eq!(
        recovered.state.term, 9,
        "kept though the record of it may be deleted"
    );
}

#[test]
fn a_log_cannot_be_opened_with_another_key_cluster_or_twice() {
    let disk = MemoryDisk::default();
    let log = create(&disk);
    assert!(matches!(open(&disk), Err(LogError::InUse)));
    drop(log);
    disk.kill();
    let other = Log::open(
        disk.clone(),
        CLUSTER,
        &Key::new([8; 32]),
        IdSource::seeded(1),
    )
    .map(drop);
    assert!(matches!(other, Err(LogError::WrongKey { .. })), "{other:?}");
    disk.kill();
    let other = Log::open(disk.clone(), "cluster-2", &key(), IdSource::seeded(1)).map(drop);
    assert!(
        matches!(other, Err(LogError::WrongCluster { .. })),
        "{other:?}"
    );
    disk.kill();
    let again = Log::create(
        disk.clone(),
        CLUSTER,
        1,
        &key(),
        IdSource::seeded(1),
        Start::Join,
    )
    .map(drop);
    assert!(
        matches!(again, Err(LogError::Exists { raft_id: 1, .. })),
        "{again:?}"
    );
    disk.kill();
    disk.lose("meta");
    disk.tamper("log-0000000000000001", |bytes| {
        bytes.extend_from_slice(b"more")
    });
    let again = Log::create(
        disk.clone(),
        CLUSTER,
        1,
        &key(),
        IdSource::seeded(1),
        Start::Join,
    )
    .map(drop);
    assert!(matches!(again, Err(LogError::Orphaned { .. })), "{again:?}");
    assert!(matches!(
        open(&MemoryDisk::default()),
        Err(LogError::NotFound)
    ));
}

#[test]
fn nothing_readable_of_the_data_is_on_the_disk() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    log.append(&batch(vec![entries(2..=4, 1)])).unwrap();
    log.append(&batch(vec![Operation::Compact {
        snapshot: snapshot(3, 1),
        keep_from: 2,
    }]))
    .unwrap();
    log.sync().unwrap();
    for (name, bytes) in disk.files() {
        for secret in [&b"entry 3"[..], b"state at", b"node-a"] {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{name}"
            );
        }
    }
}

#[test]
fn a_missing_file_is_noticed() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    let big = vec![1; super::SEGMENT_BYTES / 2];
    for index in 2..=7 {
        log.append(&batch(vec![Operation::Append(vec![entry(index, 1, &big)])]))
            .unwrap();
        log.sync().unwrap();
    }
    log.append(&batch(vec![Operation::Compact {
        snapshot: snapshot(6, 1),
        keep_from: 5,
    }]))
    .unwrap();
    log.sync().unwrap();
    let oldest = disk
        .files()
        .into_keys()
        .find(|name| name.starts_with("log-"));
    for name in disk.files().keys() {
        let copy = disk.copy();
        copy.lose(name);
        let opened = open(&copy).map(drop);
        match name.as_str() {
            "meta" => assert!(matches!(opened, Err(LogError::NotFound)), "{opened:?}"),
            // The oldest may be gone if a snapshot covers it: that is what compaction does.
            _ if Some(name) == oldest.as_ref() => {
                copy.kill();
                assert_eq!(places(&open(&copy).unwrap().1), [(6, 1), (7, 1)]);
            }
            _ => assert!(
                matches!(opened, Err(LogError::Missing { .. })),
                "without {name}: {opened:?}"
            ),
        }
    }
}

/// Three synced batches, then one that is not.
fn written() -> (MemoryDisk, usize, String) {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    log.append(&batch(vec![state(1, 1), entries(2..=3, 1)]))
        .unwrap();
    log.sync().unwrap();
    log.append(&batch(vec![entries(4..=5, 1), Operation::Commit(4)]))
        .unwrap();
    log.sync().unwrap();
    let name = log.current();
    let synced = disk.files()[&name].len();
    log.append(&batch(vec![
        state(2, 2),
        entries(6..=8, 2),
        Operation::Commit(6),
    ]))
    .unwrap();
    (disk, synced, name)
}

#[test]
fn cut_at_any_byte_it_opens_with_a_beginning_of_what_was_written() {
    let (disk, synced, name) = written();
    let whole = disk.files()[&name].len();
    let all = [(2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2)];
    for length in synced..=whole {
        let copy = disk.copy();
        copy.tamper(&name, |bytes| bytes.truncate(length));
        let (mut log, recovered) = open(&copy).unwrap();
        let got = places(&recovered);
        assert!(
            got.len() >= 4 && all.starts_with(&got),
            "cut at {length}: {got:?}"
        );
        assert!(recovered.state.commit <= got.last().unwrap().0);
        assert!(recovered.state.term >= got.last().unwrap().1);
        // And it can be written to again.
        let next = got.last().unwrap().0 + 1;
        log.append(&batch(vec![state(3, 1), entries(next..=next, 3)]))
            .unwrap();
        log.sync().unwrap();
        assert_eq!(places(&reopen(&copy)).last(), Some(&(next, 3)));
    }
}

#[test]
fn a_byte_changed_anywhere_is_repaired_if_nobody_was_told_and_refused_otherwise() {
    let (disk, synced, name) = written();
    let whole = disk.files()[&name].len();
    let copies = disk.files()[&name].clone();
    let last_synced_batch = {
        // The batch synced last has no witness: nothing was written after its sync but what is torn itself.
        let disk = MemoryDisk::default();
        let mut log = create(&disk);
        log.append(&batch(vec![state(1, 1), entries(2..=3, 1)]))
            .unwrap();
        log.sync().unwrap();
        disk.files()[&name].len()
    };
    for offset in 0..whole {
        let copy = disk.copy();
        copy.tamper(&name, |bytes| bytes[offset] ^= 0x10);
        let opened = open(&copy);
        if offset < synced {
            // Records of the unsynced batch say that everything before them was durable.
            assert!(
                matches!(opened, Err(LogError::Damaged { .. })),
                "byte {offset} of {synced}"
            );
            assert_ne!(
                copy.files()[&name],
                copies,
                "the damaged file is left as it is"
            );
            assert_eq!(copy.files()[&name].len(), copies.len());
        } else {
            let recovered = opened
                .unwrap_or_else(|error| panic!("byte {offset}: {error}"))
                .1;
            assert!(places(&recovered).len() >= 4);
        }
    }
    assert!(last_synced_batch < synced);
}

#[test]
fn a_changed_byte_in_snapshot_or_closed_segment_is_refused() {
    let disk = MemoryDisk::default();
    let mut log = create(&disk);
    let big = vec![1; super::SEGMENT_BYTES / 2];
    for index in 2..=4 {
        log.append(&batch(vec![Operation::Append(vec![entry(index, 1, &big)])]))
            .unwrap();
        log.sync().unwrap();
    }
    let files = disk.files();
    let (closed, bytes) = files
        .iter()
        .find(|(name, _)| name.starts_with("log-"))
        .unwrap();
    // The last record is the mark of the end: torn, it is written anew.
    for offset in [0, 100, bytes.len() / 2] {
        let copy = disk.copy();
        copy.tamper(closed, |bytes| bytes[offset] ^= 1);
        assert!(
            matches!(open(&copy).map(drop), Err(LogError::Damaged { .. })),
            "byte {offset}"
        );
    }
    let copy = disk.copy();
    copy.tamper(closed, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    open(&copy).unwrap();
    assert_eq!(copy.files()[closed].len(), bytes.len());
    let (name, bytes) = files
        .iter()
        .find(|(name, _)| name.starts_with("snapshot-"))
        .unwrap();
    for offset in 0..bytes.len() {
        let copy = disk.copy();
        copy.tamper(name, |bytes| bytes[offset] ^= 0x40);
        assert!(
            matches!(open(&copy).map(drop), Err(LogError::Damaged { .. })),
            "byte {offset}"
        );
    }
}

#[test]
fn a_failed_write_ends_the_use_of_the_log_and_loses_nothing_synced() {
    for operations in 0..40 {
        let disk = MemoryDisk::default();
        let mut log = create(&disk);
        log.append(&batch(vec![state(1, 1), entries(2..=3, 1)]))
            .unwrap();
        log.sync().unwrap();
        disk.fail_after(operations);
        let tried = log
            .append(&batch(vec![
                entries(4..=4, 1),
                Operation::Compact {
                    snapshot: snapshot(3, 1),
                    keep_from: 3,
                },
            ]))
            .and_then(|()| log.sync());
        if tried.is_err() {
            assert!(matches!(log.sync(), Err(LogError::Failed)));
        }
        disk.crash(&mut IdSource::seeded(operations as u64));
        let recovered = open(&disk).unwrap().1;
        assert!(
            recovered.last_index() >= 3,
            "after {operations} operations: {:?}",
            places(&recovered)
        );
        assert!(tried.is_err() || recovered.last_index() == 4);
    }
}

#[test]
fn a_real_directory_works_the_same() {
    let path = tempfile::tempdir().unwrap();
    let files = || Files::new(path.path().join("raft")).unwrap();
    let start = Start::Found(founder());
    let (mut log, _) = Log::create(files(), CLUSTER, 1, &key(), IdSource::random(), start).unwrap();
    log.append(&batch(vec![state(1, 1), entries(2..=3, 1)]))
        .unwrap();
    log.sync().unwrap();
    let second = Log::open(files(), CLUSTER, &key(), IdSource::random()).map(drop);
    assert!(matches!(second, Err(LogError::InUse)), "{second:?}");
    log.append(&batch(vec![Operation::Compact {
        snapshot: snapshot(2, 1),
        keep_from: 3,
    }]))
    .unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovered) = Log::open(files(), CLUSTER, &key(), IdSource::random()).unwrap();
    assert_eq!(places(&recovered), [(2, 1), (3, 1)]);
    assert_eq!(recovered.snapshot.unwrap().data, b"state at 2");
    let names = log.into_directory().list().unwrap();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_member_that_joins_begins_with_nothing() {
    let disk = MemoryDisk::default();
    let (log, recovered) = Log::create(
        disk.clone(),
        CLUSTER,
        4,
        &key(),
        IdSource::seeded(1),
        Start::Join,
    )
    .unwrap();
    assert_eq!(
        (recovered.id, recovered.last_index(), &recovered.snapshot),
        (4, 0, &None)
    );
    drop(log);
    assert_eq!(reopen(&disk), recovered);
}

/// What a log may be asked to do.
#[derive(Debug, Clone)]
enum Step {
    Append { back: u64, count: u64, size: usize },
    Sync,
    Compact { back: u64 },
    Restore { ahead: u64 },
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u64, 1..6_u64, 0..900_usize).prop_map(|(back, count, size)| Step::Append { back, count, size }),
        4 => Just(Step::Sync),
        1 => (0..5_u64).prop_map(|back| Step::Compact { back }),
        1 => (1..5_u64).prop_map(|ahead| Step::Restore { ahead }),
        2 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the log should hold: all of what was synced, and possibly a beginning of what came since.
#[derive(Debug, Clone, PartialEq, Default)]
struct Model {
    snapshot: u64,
    entries: Vec<(u64, u64)>,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.snapshot, |last| last.0)
    }

    fn add(&mut self, index: u64, term: u64) {
        self.entries.retain(|entry| entry.0 < index);
        self.entries.push((index, term));
    }

    /// What is seen of it after opening: the entries behind the snapshot.
    fn seen(&self) -> Vec<(u64, u64)> {
        self.entries
            .iter()
            .copied()
            .filter(|entry| entry.0 > self.snapshot)
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn crashes_lose_nothing_that_was_synced(steps in steps(), seed in any::<u64>()) {
        let disk = MemoryDisk::default();
        let mut random = IdSource::seeded(seed);
        let mut log = create(&disk);
        let mut now = Model { snapshot: 1, entries: Vec::new() };
        // Every state since the last sync, oldest first: a crash may leave any of them.
        let mut possible = vec![now.clone()];
        let mut term = 1;
        for step in steps {
            term += 1;
            match step {
                Step::Append { back, count, size } => {
                    let from = (now.last() + 1).saturating_sub(back).max(now.snapshot + 1);
                    let mut list = Vec::new();
                    for index in from..from + count {
                        now.add(index, term);
                        possible.push(now.clone());
                        list.push(entry(index, term, &vec![b'x'; size]));
                    }
                    log.append(&batch(vec![state(term, 1), Operation::Append(list)])).unwrap();
                }
                Step::Sync => {
                    log.sync().unwrap();
                    possible = vec![now.clone()];
                }
                Step::Compact { back } => {
                    // Only what is applied is compacted, and that is durable.
                    log.sync().unwrap();
                    let at = now.last().saturating_sub(back);
                    if at <= now.snapshot {
                        continue;
                    }
                    let at_term = now.entries.iter().find(|entry| entry.0 == at).unwrap().1;
                    now.snapshot = at;
                    let operation = Operation::Compact { snapshot: snapshot(at, at_term), keep_from: at };
                    log.append(&batch(vec![operation])).unwrap();
                    possible = vec![now.clone()];
                }
                Step::Restore { ahead } => {
                    now = Model { snapshot: now.last() + ahead, entries: Vec::new() };
                    log.append(&batch(vec![Operation::Restore(snapshot(now.snapshot, term))])).unwrap();
                    possible = vec![now.clone()];
                }
                Step::Crash => {
                    drop(log);
                    disk.crash(&mut random);
                    let (opened, recovered) = match open(&disk) {
                        Ok(opened) => opened,
                        Err(error) => return Err(TestCaseError::fail(format!("{error} {:?}", disk.files().keys()))),
                    };
                    log = opened;
                    let got = Model {
                        snapshot: recovered.snapshot.as_ref().unwrap().index,
                        entries: places(&recovered),
                    };
                    let known = possible.iter().find(|model| (model.snapshot, model.seen()) == (got.snapshot, got.seen()));
                    prop_assert!(known.is_some(), "{got:?} is none of {possible:?}");
                    now = got;
                    possible = vec![now.clone()];
                }
            }
        }
    }
}
