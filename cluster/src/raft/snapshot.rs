//! Snapshots on their way between members: in pieces of bounded size, a few in flight, each acknowledged.
//!
//! ```text
//! leader                                    follower
//!   | chunk 0..512K, chunk 512K..1M, …  --->  |   as many as the window holds
//!   | <---  ack next=512K, ack next=1M, …     |   each ack opens the window further
//!   |  (nothing for a while: send again from the last ack)
//!   | <---  ack next=total                    |   the follower has it all, and hands it to the algorithm
//! ```
//!
//! Progress is judged per piece, not per snapshot: a large one may take long, as long as something arrives.
//!
//! The encoded snapshot: `length u32 | head | data`, the head being index, term and membership as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::membership::{Membership, RaftId};
use super::message::{Body, MAX_CHUNK, PeerMessage, SnapshotAck, SnapshotChunk, StreamId};
use super::output::Snapshot;

/// Pieces in flight to one member.
const WINDOW: u64 = 4 * MAX_CHUNK as u64;
/// No acknowledgement for this many ticks: send again.
const RESEND_TICKS: u64 = 10;
/// No acknowledgement for this many ticks: give up, for now.
const FAIL_TICKS: u64 = 100;
/// The head is a list of managers; it is not larger.
const MAX_HEAD: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    index: u64,
    term: u64,
    membership: Membership,
}

/// A snapshot in the form it travels and is stored in, without a copy of its data.
pub(super) struct Encoded {
    head: Vec<u8>,
    snapshot: Arc<Snapshot>,
}

/// A snapshot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed snapshot: {0}")]
pub(crate) struct MalformedSnapshot(String);

impl Encoded {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        let head = Head {
            index: snapshot.index,
            term: snapshot.term,
            membership: snapshot.membership.clone(),
        };
        let json = serde_json::to_vec(&head).expect("numbers and strings are valid JSON");
        let mut head = (json.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(&json);
        Self { head, snapshot }
    }

    pub(super) fn len(&self) -> u64 {
        (self.head.len() + self.snapshot.data.len()) as u64
    }

    /// At most `length` bytes from `offset` on.
    pub(super) fn piece(&self, offset: u64, length: usize) -> Vec<u8> {
        let offset = offset as usize;
        let head = self.head.get(offset..).unwrap_or_default();
        let data = self
            .snapshot
            .data
            .get(offset.saturating_sub(self.head.len())..)
            .unwrap_or_default();
        head.iter().chain(data).take(length).copied().collect()
    }
}

pub(super) fn decode(mut bytes: Vec<u8>) -> Result<Snapshot, MalformedSnapshot> {
    let short = || MalformedSnapshot("it ends in its head".into());
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_HEAD {
        return Err(MalformedSnapshot(format!("its head has {length} bytes")));
    }
    let json = rest.get(..length).ok_or_else(short)?;
    let head: Head =
        serde_json::from_slice(json).map_err(|error| MalformedSnapshot(error.to_string()))?;
    bytes.drain(..4 + length);
    Ok(Snapshot {
        index: head.index,
        term: head.term,
        membership: head.membership,
        data: bytes,
    })
}

/// Snapshots this leader is sending.
#[derive(Default)]
pub(super) struct Outgoing {
    streams: BTreeMap<RaftId, Stream>,
}

struct Stream {
    encoded: Arc<Encoded>,
    id: StreamId,
    term: u64,
    acknowledged: u64,
    sent: u64,
    /// Tick of the last progress, and of the last time something was sent again.
    progress_at: u64,
    sent_at: u64,
}

/// What became of a snapshot sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Arrived(RaftId),
    Failed(RaftId),
}

impl Outgoing {
    /// Begins to send; replaces what was on its way to that member.
    pub(super) fn start(&mut self, to: RaftId, encoded: Arc<Encoded>, term: u64, now: u64) {
        let id = StreamId {
            index: encoded.snapshot.index,
            term: encoded.snapshot.term,
        };
        let stream = Stream {
            encoded,
            id,
            term,
            acknowledged: 0,
            sent: 0,
            progress_at: now,
            sent_at: now,
        };
        self.streams.insert(to, stream);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A member is gone, or this node leads no more.
    pub(super) fn stop(&mut self, to: RaftId) {
        self.streams.remove(&to);
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }

    pub(super) fn acknowledged(
        &mut self,
        from: RaftId,
        ack: SnapshotAck,
        now: u64,
    ) -> Option<Arrival> {
        let stream = self.streams.get_mut(&from)?;
        if (ack.stream, ack.term) != (stream.id, stream.term) || ack.next > stream.encoded.len() {
            return None;
        }
        if ack.next == stream.encoded.len() {
            self.streams.remove(&from);
            return Some(Arrival::Arrived(from));
        }
        if ack.next < stream.acknowledged {
            // The receiver began anew.
            stream.sent = ack.next;
        }
        if ack.next != stream.acknowledged {
            stream.acknowledged = ack.next;
            stream.sent = stream.sent.max(ack.next);
            stream.progress_at = now;
            stream.sent_at = now;
        }
        None
    }

    pub(super) fn tick(&mut self, now: u64) -> Vec<Arrival> {
        let mut failed = Vec::new();
        self.streams.retain(|to, stream| {
            if now.saturating_sub(stream.progress_at) >= FAIL_TICKS {
                failed.push(Arrival::Failed(*to));
                return false;
            }
            if now.saturating_sub(stream.sent_at) >= RESEND_TICKS {
                stream.sent = stream.acknowledged;
                stream.sent_at = now;
            }
            true
        });
        failed
    }

    /// The pieces the windows have room for.
    pub(super) fn pieces(&mut self, from: RaftId, out: &mut Vec<PeerMessage>) {
        for (to, stream) in &mut self.streams {
            let total = stream.encoded.len();
            while stream.sent < total && stream.sent < stream.acknowledged + WINDOW {
                let bytes = stream.encoded.piece(stream.sent, MAX_CHUNK);
                let length = bytes.len() as u64;
                let chunk = SnapshotChunk {
                    term: stream.term,
                    stream: stream.id,
                    offset: stream.sent,
                    total,
                    bytes,
                };
                out.push(PeerMessage {
                    from,
                    to: *to,
                    body: Body::Chunk(chunk),
                });
                stream.sent += length;
            }
        }
    }
}

/// The snapshot this follower is receiving; one at a time.
#[derive(Default)]
pub(super) struct Incoming {
    partial: Option<Partial>,
    /// The one completed last, whose pieces may still arrive twice.
    done: Option<(RaftId, u64, StreamId)>,
}

struct Partial {
    from: RaftId,
    term: u64,
    stream: StreamId,
    bytes: Vec<u8>,
}

/// What a piece led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It made no sense.
    Nonsense,
    /// More is needed; this much is there.
    More { next: u64 },
    /// All is there.
    Complete(Box<Snapshot>),
    /// All was there before.
    Again,
}

impl Incoming {
    pub(super) fn receive(&mut self, from: RaftId, chunk: SnapshotChunk, limit: usize) -> Received {
        let SnapshotChunk {
            term,
            stream,
            offset,
            total,
            bytes,
        } = chunk;
        let end = offset.checked_add(bytes.len() as u64);
        if bytes.is_empty()
            || bytes.len() > MAX_CHUNK
            || total > limit as u64
            || end.is_none_or(|end| end > total)
        {
            return Received::Nonsense;
        }
        if self.done == Some((from, term, stream)) {
            return Received::Again;
        }
        let same = |partial: &Partial| {
            (partial.from, partial.term, partial.stream) == (from, term, stream)
        };
        if !self.partial.as_ref().is_some_and(same) {
            self.partial = Some(Partial {
                from,
                term,
                stream,
                bytes: Vec::new(),
            });
        }
        let Some(partial) = &mut self.partial else {
            return Received::Nonsense;
        };
        if partial.bytes.len() as u64 == offset {
            partial.bytes.extend_from_slice(&bytes);
        }
        if partial.bytes.len() as u64 != total {
            return Received::More {
                next: partial.bytes.len() as u64,
            };
        }
        let bytes = self
            .partial
            .take()
            .map(|partial| partial.bytes)
            .unwrap_or_default();
        match decode(bytes) {
            Ok(snapshot) if (snapshot.index, snapshot.term) == (stream.index, stream.term) => {
                self.done = Some((from, term, stream));
                Received::Complete(Box::new(snapshot))
            }
            _ => Received::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::membership::Membership;
    use super::super::message::{
        Body, MAX_CHUNK, PeerMessage, SnapshotAck, SnapshotChunk, StreamId,
    };
    use super::super::output::Snapshot;
    use super::{Arrival, Encoded, FAIL_TICKS, Incoming, Outgoing, RESEND_TICKS, Received};

    fn snapshot(size: usize) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            index: 9,
            term: 3,
            membership: Membership::founded_by(1, "a".into(), "a:1".into()),
            data: (0..size).map(|byte| byte as u8).collect(),
        })
    }

    fn chunks(outgoing: &mut Outgoing) -> Vec<SnapshotChunk> {
        let mut out = Vec::new();
        outgoing.pieces(1, &mut out);
        out.into_iter()
            .map(|PeerMessage { body, .. }| {
                if let Body::Chunk(chunk) = body {
                    chunk
                } else {
                    unreachable!()
                }
            })
            .collect()
    }

    fn ack(next: u64) -> SnapshotAck {
        SnapshotAck {
            term: 5,
            stream: StreamId { index: 9, term: 3 },
            next,
        }
    }

    #[test]
    fn it_arrives_whole_though_pieces_are_lost_repeated_and_reordered() {
        let sent = snapshot(7 * MAX_CHUNK + 13);
        let mut outgoing = Outgoing::default();
        let mut incoming = Incoming::default();
        outgoing.start(2, Arc::new(Encoded::new(sent.clone())), 5, 0);
        let (mut now, mut step, mut peak) = (0, 0_u64, 0);
        let received = 'whole: loop {
            let mut pieces = chunks(&mut outgoing);
            peak = peak.max(pieces.len());
            if step.is_multiple_of(3) {
                pieces.reverse();
            }
            for piece in pieces {
                step += 1;
                if step.is_multiple_of(4) {
                    continue;
                }
                let twice = [piece.clone(), piece];
                for piece in twice {
                    match incoming.receive(1, piece, usize::MAX) {
                        Received::More { next } => {
                            assert_eq!(outgoing.acknowledged(2, ack(next), now), None)
                        }
                        Received::Complete(snapshot) => break 'whole snapshot,
                        other => panic!("{other:?}"),
                    }
                }
            }
            now += RESEND_TICKS;
            assert_eq!(outgoing.tick(now), []);
        };
        assert_eq!(*received, *sent);
        assert!(peak <= 4, "the window bounds what is in flight");
        let total = Encoded::new(sent).len();
        assert_eq!(
            outgoing.acknowledged(2, ack(total), now),
            Some(Arrival::Arrived(2))
        );
    }

    #[test]
    fn silence_fails_a_stream_and_progress_keeps_it() {
        let mut outgoing = Outgoing::default();
        outgoing.start(2, Arc::new(Encoded::new(snapshot(9 * MAX_CHUNK))), 5, 0);
        for piece in 1..5 {
            assert_eq!(outgoing.tick(piece * (FAIL_TICKS - 1)), []);
            outgoing.acknowledged(2, ack(piece * MAX_CHUNK as u64), piece * (FAIL_TICKS - 1));
        }
        assert_eq!(
            outgoing.tick(4 * (FAIL_TICKS - 1) + FAIL_TICKS),
            [Arrival::Failed(2)]
        );
        assert!(outgoing.is_empty());
    }

    #[test]
    fn pieces_that_lie_about_their_place_are_nonsense() {
        let good = SnapshotChunk {
            term: 5,
            stream: StreamId { index: 9, term: 3 },
            offset: 0,
            total: 10,
            bytes: vec![0; 4],
        };
        let cases = [
            SnapshotChunk {
                offset: u64::MAX,
                ..good.clone()
            },
            SnapshotChunk {
                offset: 7,
                ..good.clone()
            },
            SnapshotChunk {
                bytes: Vec::new(),
                ..good.clone()
            },
            SnapshotChunk {
                total: 1001,
                ..good.clone()
            },
            // Whole, but no snapshot.
            SnapshotChunk {
                total: 4,
                bytes: vec![0xff; 4],
                ..good.clone()
            },
        ];
        for case in cases {
            assert_eq!(
                Incoming::default().receive(1, case, 1000),
                Received::Nonsense
            );
        }
        assert_eq!(
            Incoming::default().receive(1, good, 1000),
            Received::More { next: 4 }
        );
    }
}
