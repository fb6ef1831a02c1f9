//! What members say to each other, and its form on the wire.
//!
//! ```text
//! kind u8 | from u64 | to u64 | body            integers little endian
//!
//! 1 raft     a raft message as the raft crate encodes it; never a proposal, never a snapshot
//! 2 chunk    term u64 | snapshot index u64 | snapshot term u64 | offset u64 | total u64 | bytes
//! 3 ack      term u64 | snapshot index u64 | snapshot term u64 | next u64
//! 4 removed  (nothing): the receiver is no member any more
//! ```
//!
//! Decoding trusts nothing: a message that decodes is well formed, not necessarily sensible; what makes no sense is dropped
//! by [`Node::receive`](super::Node::receive).

use std::fmt::Write as _;

use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::membership::RaftId;

/// No message on the wire is longer.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Entries of one append message, unless a single entry is larger.
pub(super) const MAX_APPEND: usize = 1 << 20;

/// Part of a snapshot in one message.
pub const MAX_CHUNK: usize = 512 << 10;

const RAFT: u8 = 1;
const CHUNK: u8 = 2;
const ACK: u8 = 3;
const REMOVED: u8 = 4;

/// A message between two members.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage {
    /// Who says it.
    pub from: RaftId,
    /// Who is to hear it.
    pub to: RaftId,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Raft(Box<Message>),
    Chunk(SnapshotChunk),
    Ack(SnapshotAck),
    Removed,
}

/// A piece of a snapshot on its way to a member that is too far behind for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SnapshotChunk {
    /// The leader's term.
    pub(super) term: u64,
    pub(super) stream: StreamId,
    /// Where in the encoded snapshot the piece belongs.
    pub(super) offset: u64,
    /// Length of the encoded snapshot.
    pub(super) total: u64,
    pub(super) bytes: Vec<u8>,
}

/// Which snapshot a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId {
    pub(super) index: u64,
    pub(super) term: u64,
}

/// How far a snapshot has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotAck {
    pub(super) term: u64,
    pub(super) stream: StreamId,
    /// The offset wanted next; the length of the whole when all is there.
    pub(super) next: u64,
}

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too long.
    #[error("a message of {0} bytes is longer than the {MAX_MESSAGE} allowed")]
    TooLong(usize),
    /// Too short for what it says it is.
    #[error("the message ends in the middle of {0}")]
    Short(&'static str),
    /// A kind of a newer version, or garbage.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// The raft part is no raft message.
    #[error("malformed raft message: {0}")]
    Raft(String),
    /// Sender within and without do not agree.
    #[error("the envelope says {envelope}, the message within {within}")]
    Address {
        /// From and to outside.
        envelope: String,
        /// From and to inside.
        within: String,
    },
}

impl PeerMessage {
    pub(super) fn raft(message: Message) -> Self {
        Self {
            from: message.from,
            to: message.to,
            body: Body::Raft(Box::new(message)),
        }
    }

    /// The form on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match &self.body {
            Body::Raft(_) => RAFT,
            Body::Chunk(_) => CHUNK,
            Body::Ack(_) => ACK,
            Body::Removed => REMOVED,
        };
        let mut out = vec![kind];
        let mut put = |value: u64| out.extend_from_slice(&value.to_le_bytes());
        put(self.from);
        put(self.to);
        match &self.body {
            Body::Raft(message) => {
                out.extend_from_slice(
                    &message
                        .write_to_bytes()
                        .expect("encoding into memory cannot fail"),
                );
            }
            Body::Chunk(chunk) => {
                let head = [
                    chunk.term,
                    chunk.stream.index,
                    chunk.stream.term,
                    chunk.offset,
                    chunk.total,
                ];
                head.into_iter().for_each(put);
                out.extend_from_slice(&chunk.bytes);
            }
            Body::Ack(ack) => {
                [ack.term, ack.stream.index, ack.stream.term, ack.next]
                    .into_iter()
                    .for_each(put);
            }
            Body::Removed => {}
        }
        out
    }

    /// Reads the form on the wire.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing of it is used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        let (&kind, mut rest) = bytes.split_first().ok_or(DecodeError::Short("the kind"))?;
        let from = take(&mut rest, "the sender")?;
        let to = take(&mut rest, "the receiver")?;
        let body = match kind {
            RAFT => {
                let mut message = Message::default();
                message
                    .merge_from_bytes(rest)
                    .map_err(|error| DecodeError::Raft(error.to_string()))?;
                if (message.from, message.to) != (from, to) {
                    return Err(DecodeError::Address {
                        envelope: format!("{from} to {to}"),
                        within: format!("{} to {}", message.from, message.to),
                    });
                }
                Body::Raft(Box::new(message))
            }
            CHUNK => Body::Chunk(SnapshotChunk {
                term: take(&mut rest, "a chunk")?,
                stream: StreamId {
                    index: take(&mut rest, "a chunk")?,
                    term: take(&mut rest, "a chunk")?,
                },
                offset: take(&mut rest, "a chunk")?,
                total: take(&mut rest, "a chunk")?,
                bytes: rest.to_vec(),
            }),
            ACK => Body::Ack(SnapshotAck {
                term: take(&mut rest, "an acknowledgement")?,
                stream: StreamId {
                    index: take(&mut rest, "an acknowledgement")?,
                    term: take(&mut rest, "an acknowledgement")?,
                },
                next: take(&mut rest, "an acknowledgement")?,
            }),
            REMOVED => Body::Removed,
            kind => return Err(DecodeError::Kind(kind)),
        };
        Ok(Self { from, to, body })
    }

    /// One line for people: `1→2 append term=3 prev=7@2 commit=6 [8@3 "x"]`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut line = format!("{}→{} ", self.from, self.to);
        let said = match &self.body {
            Body::Raft(message) => describe_raft(&mut line, message),
            Body::Chunk(chunk) => write!(
                line,
                "snapshot-chunk term={} snapshot={}@{} bytes={}..{} of {}",
                chunk.term,
                chunk.stream.index,
                chunk.stream.term,
                chunk.offset,
                chunk.offset + chunk.bytes.len() as u64,
                chunk.total
            ),
            Body::Ack(ack) => write!(
                line,
                "snapshot-ack term={} snapshot={}@{} next={}",
                ack.term, ack.stream.index, ack.stream.term, ack.next
            ),
            Body::Removed => write!(line, "removed"),
        };
        said.expect("writing to a string cannot fail");
        line
    }
}

fn take(rest: &mut &[u8], what: &'static str) -> Result<u64, DecodeError> {
    let (value, left) = rest
        .split_first_chunk::<8>()
        .ok_or(DecodeError::Short(what))?;
    *rest = left;
    Ok(u64::from_le_bytes(*value))
}

fn describe_raft(line: &mut String, message: &Message) -> std::fmt::Result {
    let term = message.term;
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            write!(
                line,
                "append term={term} prev={}@{} commit={} [",
                message.index, message.log_term, message.commit
            )?;
            for (place, entry) in message.entries.iter().enumerate() {
                let gap = if place == 0 { "" } else { ", " };
                write!(line, "{gap}{}", describe_entry(entry))?;
            }
            line.push(']');
            Ok(())
        }
        MessageType::MsgAppendResponse if message.reject => write!(
            line,
            "append-reject term={term} prev={} hint={}@{}",
            message.index, message.reject_hint, message.log_term
        ),
        MessageType::MsgAppendResponse => {
            write!(
                line,
                "append-ok term={term} has={} commit={}",
                message.index, message.commit
            )
        }
        MessageType::MsgHeartbeat => {
            write!(
                line,
                "heartbeat term={term} commit={}{}",
                message.commit,
                asks(message)
            )
        }
        MessageType::MsgHeartbeatResponse => {
            write!(line, "heartbeat-ok term={term}{}", asks(message))
        }
        MessageType::MsgRequestPreVote => {
            write!(
                line,
                "would-you-vote term={term} last={}@{}",
                message.index, message.log_term
            )
        }
        MessageType::MsgRequestVote => write!(
            line,
            "vote term={term} last={}@{}",
            message.index, message.log_term
        ),
        MessageType::MsgRequestPreVoteResponse => {
            write!(
                line,
                "would-{} term={term}",
                if message.reject { "not" } else { "vote" }
            )
        }
        MessageType::MsgRequestVoteResponse => {
            write!(
                line,
                "vote-{} term={term}",
                if message.reject { "refused" } else { "granted" }
            )
        }
        MessageType::MsgTimeoutNow => write!(line, "take-over term={term}"),
        MessageType::MsgReadIndex => write!(line, "read"),
        MessageType::MsgReadIndexResp => {
            write!(line, "read-ok term={term} index={}", message.index)
        }
        kind => write!(line, "{kind:?} term={term}"),
    }
}

const fn asks(message: &Message) -> &'static str {
    if message.context.is_empty() {
        ""
    } else {
        " +read"
    }
}

/// `index@term what`.
pub(super) fn describe_entry(entry: &Entry) -> String {
    let what = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => "-".to_owned(),
        EntryType::EntryNormal if entry.data.len() <= 32 => {
            String::from_utf8_lossy(&entry.data).into_owned()
        }
        EntryType::EntryNormal => format!("{} bytes", entry.data.len()),
        _ => serde_json::from_slice::<super::MemberChange>(&entry.context)
            .map_or_else(|_| "leave-joint".to_owned(), |change| format!("{change:?}")),
    };
    format!("{}@{} {what}", entry.index, entry.term)
}
