//! Opening a log: everything is read and checked first; only when all is well, or nothing but a torn end is wrong, is
//! anything changed.

use std::sync::Arc;

use cluster_api::IdSource;
use protobuf::Message as _;
use raft::eraftpb::Entry;

use super::super::output::Snapshot;
use super::super::write::Recovered;
use super::directory::Directory;
use super::error::LogError;
use super::key::Key;
use super::record::{self, Header, Kind, Raw, Seal};
use super::{Hard, Log, META, Meta, Segment, VERSION, names, stored};

/// Before a log is made: what an attempt that did not come to its end has left. Anything more is somebody's log.
pub(super) fn clear_unfinished<D: Directory>(dir: &mut D) -> Result<(), LogError> {
    let names = names(dir)?;
    if names.iter().any(|name| name == META) {
        let Meta {
            cluster_id,
            raft_id,
            ..
        } = read_meta(dir)?;
        return Err(LogError::Exists {
            cluster_id,
            raft_id,
        });
    }
    let mut left = Vec::new();
    for name in names {
        let mut begun = name.ends_with(".tmp");
        if first_record(&name) == Some(1) {
            // Nothing but its header was ever written to it.
            let file = dir.read(&name).map_err(LogError::disk("read", &name))?;
            begun = record::read(&file).is_some_and(|raw| raw.length == file.len());
        }
        begun |= stored::place(&name) == Some((1, 1));
        if begun {
            left.push(name);
        } else if first_record(&name).is_some() || stored::place(&name).is_some() {
            return Err(LogError::Orphaned { name });
        }
    }
    for name in left {
        dir.remove(&name).map_err(LogError::disk("remove", &name))?;
    }
    Ok(())
}

pub(super) fn open<D: Directory>(
    mut dir: D,
    cluster_id: &str,
    key: &Key,
    nonces: IdSource,
) -> Result<(Log<D>, Recovered), LogError> {
    let names = names(&mut dir)?;
    if !names.iter().any(|name| name == META) {
        return Err(LogError::NotFound);
    }
    let meta = read_meta(&mut dir)?;
    if meta.cluster_id != cluster_id {
        return Err(LogError::WrongCluster {
            expected: cluster_id.to_owned(),
            found: meta.cluster_id,
        });
    }
    let seal = Seal::new(cluster_id, key, nonces);

    let mut replay = Replay::default();
    let firsts: Vec<u64> = names.iter().filter_map(|name| first_record(name)).collect();
    let mut cuts = Vec::new();
    for (place, first) in firsts.iter().enumerate() {
        let next = firsts.get(place + 1).copied();
        cuts.push(read_segment(
            &mut dir,
            &seal,
            meta.raft_id,
            *first,
            next,
            &mut replay,
        )?);
    }
    let Some(last_cut) = cuts.last() else {
        return Err(LogError::Missing {
            what: "every segment".into(),
        });
    };
    let size = last_cut.length;

    let mut places: Vec<(u64, u64)> = names
        .iter()
        .filter_map(|name| stored::place(name))
        .collect();
    places.sort_unstable();
    let newest = places.pop();
    let snapshot = newest
        .map(|place| stored::read(&mut dir, &seal, place))
        .transpose()?;
    let replaced = replay.join(snapshot.as_ref())?;

    let mut log = Log {
        dir,
        seal,
        raft_id: meta.raft_id,
        segments: replay.segments,
        size,
        buffer: Vec::new(),
        next: replay.next,
        durable: replay.next,
        state: replay.state,
        snapshot: newest,
        obsolete: Vec::new(),
        failed: false,
    };
    log.mend(&cuts, &firsts)?;
    if replaced && let Some((index, term)) = newest {
        log.put(Kind::Restored, index, term, &[]);
        log.flush()?;
    }
    log.obsolete.extend(places.into_iter().map(stored::name));
    log.obsolete
        .extend(names.into_iter().filter(|name| name.ends_with(".tmp")));
    log.sync()?;

    let mut recovered = Recovered {
        id: meta.raft_id,
        entries: replay.entries,
        ..Recovered::default()
    };
    recovered.snapshot = snapshot.map(Arc::new);
    recovered.set_state(log.state);
    Ok((log, recovered))
}

fn read_meta<D: Directory>(dir: &mut D) -> Result<Meta, LogError> {
    let bytes = dir.read(META).map_err(LogError::disk("read", META))?;
    let meta: Meta = serde_json::from_slice(&bytes)
        .map_err(|error| LogError::damaged(META, 0, error.to_string()))?;
    if meta.version != VERSION {
        return Err(LogError::Version {
            found: meta.version,
            known: VERSION,
        });
    }
    Ok(meta)
}

/// The number in a segment's name.
fn first_record(name: &str) -> Option<u64> {
    let number = name.strip_prefix("log-")?;
    if number.len() == 16 {
        u64::from_str_radix(number, 16).ok()
    } else {
        None
    }
}

/// What is to be mended of a segment.
struct Cut {
    /// Bytes of it that are good.
    length: usize,
    /// Whether there is more behind them.
    torn: bool,
    /// Whether it says that there is a next one.
    ended: bool,
}

impl<D: Directory> Log<D> {
    fn mend(&mut self, cuts: &[Cut], firsts: &[u64]) -> Result<(), LogError> {
        for (place, (cut, first)) in cuts.iter().zip(firsts).enumerate() {
            let name = Segment {
                first: *first,
                highest: 0,
            }
            .name();
            if cut.torn {
                tracing::warn!(
                    file = name,
                    kept = cut.length,
                    "the end of the log was torn by a crash and is cut off"
                );
                self.dir
                    .truncate(&name, cut.length as u64)
                    .map_err(LogError::disk("cut", &name))?;
                self.dir
                    .sync(&name)
                    .map_err(LogError::disk("make durable", &name))?;
            }
            if let Some(next) = firsts.get(place + 1)
                && !cut.ended
            {
                self.end_segment(&name, *next)?;
            }
        }
        Ok(())
    }
}

/// What the records say, one after the other.
#[derive(Default)]
struct Replay {
    segments: Vec<Segment>,
    state: Hard,
    entries: Vec<Entry>,
    /// Where the leader's snapshot replaced the log, if it did and no entry came since.
    restored: Option<u64>,
    /// Number of the next record.
    next: u64,
}

fn read_segment<D: Directory>(
    dir: &mut D,
    seal: &Seal,
    raft_id: u64,
    first: u64,
    following: Option<u64>,
    replay: &mut Replay,
) -> Result<Cut, LogError> {
    let segment = Segment { first, highest: 0 };
    let name = segment.name();
    if !replay.segments.is_empty() && first != replay.next {
        let what = format!("the segment with record {} (before {name})", replay.next);
        return Err(LogError::Missing { what });
    }
    replay.next = first;
    replay.segments.push(segment);
    let file = dir.read(&name).map_err(LogError::disk("read", &name))?;
    let mut cut = Cut {
        length: 0,
        torn: false,
        ended: false,
    };
    while cut.length < file.len() {
        let rest = &file[cut.length..];
        let Some(raw) = record::read(rest) else {
            cut.torn = true;
            check_torn(&name, cut.length, rest, replay.next, following)?;
            break;
        };
        if cut.ended {
            return Err(LogError::damaged(
                &name,
                cut.length,
                "there are records behind its end",
            ));
        }
        if raw.label.number != replay.next {
            let why = format!(
                "record {} is where {} should be",
                raw.label.number, replay.next
            );
            return Err(LogError::damaged(&name, cut.length, why));
        }
        let body = seal
            .open(&raw)
            .ok_or_else(|| LogError::WrongKey { name: name.clone() })?;
        if raw.label.kind == Kind::End {
            cut.ended = true;
        } else {
            replay
                .record(&raw, &body, cut.length == 0, raft_id)
                .map_err(|why| LogError::damaged(&name, cut.length, why))?;
            replay.next += 1;
        }
        cut.length += raw.length;
    }
    if cut.length == 0 {
        return Err(LogError::damaged(&name, 0, "it has no header"));
    }
    match following {
        None if cut.ended => Err(LogError::Missing {
            what: format!("the segment after {name}"),
        }),
        Some(following) if following != replay.next => Err(LogError::Missing {
            what: format!("the segment with record {} (after {name})", replay.next),
        }),
        _ => Ok(cut),
    }
}

/// Whether a record that is not whole is what a crash leaves: then nobody was told that it is durable.
fn check_torn(
    name: &str,
    offset: usize,
    rest: &[u8],
    number: u64,
    following: Option<u64>,
) -> Result<(), LogError> {
    // A closed segment was durable to its end; only the mark of that end may be torn.
    if let Some(following) = following {
        if following == number {
            return Ok(());
        }
        return Err(LogError::damaged(
            name,
            offset,
            format!("record {number} is incomplete or changed"),
        ));
    }
    let most = number + rest.len() as u64;
    let witness = record::search(&rest[1..], |other| (number + 1..most).contains(&other))
        .find(|label| label.durable > number);
    match witness {
        Some(witness) => {
            let why = format!(
                "record {number} is incomplete or changed, but was durable when {} was written",
                witness.number
            );
            Err(LogError::damaged(name, offset, why))
        }
        None => Ok(()),
    }
}

impl Replay {
    fn record(
        &mut self,
        raw: &Raw<'_>,
        body: &[u8],
        first: bool,
        raft_id: u64,
    ) -> Result<(), String> {
        let label = &raw.label;
        match label.kind {
            Kind::Header if first => {
                let header = Header::decode(body).ok_or("its header is malformed")?;
                if header.version != VERSION || header.raft_id != raft_id {
                    return Err(format!(
                        "its header is of member {}, format {}",
                        header.raft_id, header.version
                    ));
                }
                self.state = header.state;
            }
            _ if first => return Err("it does not begin with a header".into()),
            Kind::State => {
                let vote = body
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| "a vote is malformed")?;
                self.state = Hard {
                    term: label.term,
                    vote,
                    ..self.state
                };
            }
            Kind::Commit => self.state.commit = label.index,
            Kind::Entry => self.entry(label.index, label.term, body)?,
            Kind::Restored => {
                self.entries.clear();
                self.restored = Some(label.index);
                self.state.commit = label.index;
            }
            Kind::Header | Kind::End | Kind::Piece | Kind::Whole => {
                return Err("a record is of a kind that does not belong there".into());
            }
        }
        Ok(())
    }

    fn entry(&mut self, index: u64, term: u64, body: &[u8]) -> Result<(), String> {
        let mut entry = Entry::default();
        entry
            .merge_from_bytes(body)
            .map_err(|error| format!("an entry is malformed: {error}"))?;
        if (entry.index, entry.term) != (index, term) {
            return Err(format!("the entry {} is labelled {index}", entry.index));
        }
        let expected = self
            .entries
            .last()
            .map(|last| last.index)
            .or(self.restored)
            .map(|last| last + 1);
        if expected.is_some_and(|expected| index > expected) {
            return Err(format!(
                "entry {index} follows {}",
                expected.unwrap_or_default() - 1
            ));
        }
        // An index that is there already: the entries from it on were replaced by another leader's.
        if let Some(first) = self.entries.first() {
            let keep = index.saturating_sub(first.index);
            self.entries.truncate(keep as usize);
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.highest = segment.highest.max(index);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Log and snapshot together, as raft would have them. True when the snapshot replaces a log that does not say so:
    /// the leader's snapshot was stored, and then the machine went down.
    fn join(&mut self, snapshot: Option<&Snapshot>) -> Result<bool, LogError> {
        let (index, term) = snapshot.map_or((0, 0), |snapshot| (snapshot.index, snapshot.term));
        if self.restored.is_some_and(|restored| restored > index) {
            return Err(LogError::Missing {
                what: format!("the snapshot at {}", self.restored.unwrap_or_default()),
            });
        }
        let mut replaced =
            self.entries.is_empty() && self.restored.is_some_and(|restored| restored < index);
        if let Some(first) = self.entries.first().map(|first| first.index) {
            if first > index + 1 {
                let what = format!("the snapshot or the entries between {index} and {first}");
                return Err(LogError::Missing { what });
            }
            let at = self.entries.iter().find(|entry| entry.index == index);
            let follows = first == index + 1 || at.is_some_and(|at| at.term == term);
            if !follows {
                self.entries.clear();
                replaced = true;
            }
        }
        let last = self.entries.last().map_or(index, |entry| entry.index);
        self.state.commit = self.state.commit.clamp(index, last);
        let latest = self.entries.last().map_or(term, |entry| entry.term);
        if self.state.term < latest {
            self.state = Hard {
                term: latest,
                vote: 0,
                ..self.state
            };
        }
        Ok(replaced)
    }
}
