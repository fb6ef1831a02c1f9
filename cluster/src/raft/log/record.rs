//! One record: sealing, and reading back. The layout is drawn in the module above.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use cluster_api::IdSource;

use super::crc::crc32c;
use super::key::Key;
use super::{Hard, RaftId};

/// Before the sealed body.
const HEAD: usize = 65;
const NONCE: usize = 24;
const TAG: usize = 16;
/// No record is longer; a proposal is not, and a snapshot comes in pieces.
const MAX_BODY: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Entry = 2,
    State = 3,
    Commit = 4,
    Restored = 5,
    End = 6,
    Piece = 7,
    Whole = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Header,
        Self::Entry,
        Self::State,
        Self::Commit,
        Self::Restored,
        Self::End,
        Self::Piece,
        Self::Whole,
    ];
}

/// What is said of a record in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) number: u64,
    pub(super) durable: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) kind: Kind,
}

impl Label {
    const BYTES: usize = 33;

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let numbers = [self.number, self.durable, self.index, self.term];
        for (place, number) in out.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        out[32] = self.kind as u8;
        out
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number = |place: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[place * 8..place * 8 + 8]);
            u64::from_le_bytes(value)
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == bytes[32])?;
        Some(Self {
            number: number(0),
            durable: number(1),
            index: number(2),
            term: number(3),
            kind,
        })
    }
}

/// A record as it lies on disk: whole, not yet opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) label: Label,
    label_bytes: &'a [u8],
    nonce: &'a [u8],
    sealed: &'a [u8],
    /// Bytes it takes.
    pub(super) length: usize,
}

/// The record at the beginning of `bytes`, if there is a whole one.
pub(super) fn read(bytes: &[u8]) -> Option<Raw<'_>> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    let word = |place: usize| {
        u32::from_le_bytes([
            head[place],
            head[place + 1],
            head[place + 2],
            head[place + 3],
        ])
    };
    let length = word(4) as usize;
    if length > MAX_BODY + TAG {
        return None;
    }
    let sealed = body.get(..length)?;
    let label_bytes = &head[8..8 + Label::BYTES];
    let label = Label::decode(label_bytes.try_into().ok()?)?;
    if crc32c(&bytes[4..HEAD + length]) != word(0) {
        return None;
    }
    Some(Raw {
        label,
        label_bytes,
        nonce: &head[HEAD - NONCE..],
        sealed,
        length: HEAD + length,
    })
}

/// Numbers of records that are whole anywhere in `bytes`, and what they say was durable. For the search behind a damaged
/// record: `plausible` is asked before the checksum, which is dear.
pub(super) fn search(bytes: &[u8], plausible: impl Fn(u64) -> bool) -> impl Iterator<Item = Label> {
    (0..bytes.len().saturating_sub(HEAD)).filter_map(move |offset| {
        let rest = &bytes[offset..];
        let number = u64::from_le_bytes(rest[8..16].try_into().ok()?);
        if plausible(number) {
            read(rest).map(|raw| raw.label)
        } else {
            None
        }
    })
}

/// Seals and opens the bodies of one cluster's log on one manager.
pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
    cluster_id: Vec<u8>,
    nonces: IdSource,
}

impl Seal {
    pub(super) fn new(cluster_id: &str, key: &Key, nonces: IdSource) -> Self {
        let cipher = XChaCha20Poly1305::new(key.expose().into());
        Self {
            cipher,
            cluster_id: cluster_id.as_bytes().to_vec(),
            nonces,
        }
    }

    fn bound(&self, label: &[u8]) -> Vec<u8> {
        [self.cluster_id.as_slice(), label].concat()
    }

    /// Adds a record to the end of `out`.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, label: &Label, body: &[u8]) {
        let mut nonce = [0; NONCE];
        for part in nonce.chunks_exact_mut(8) {
            part.copy_from_slice(&self.nonces.bits().to_le_bytes());
        }
        let label = label.encode();
        let payload = Payload {
            msg: body,
            aad: &self.bound(&label),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("records are far below the cipher's limit");
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        out.extend_from_slice(&label);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        let crc = crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The body of a record, or nothing when key or cluster are others.
    pub(super) fn open(&self, raw: &Raw<'_>) -> Option<Vec<u8>> {
        let payload = Payload {
            msg: raw.sealed,
            aad: &self.bound(raw.label_bytes),
        };
        let nonce: [u8; NONCE] = raw.nonce.try_into().ok()?;
        self.cipher.decrypt(&XNonce::from(nonce), payload).ok()
    }
}

/// Body of a segment's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) raft_id: RaftId,
    pub(super) state: Hard,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.raft_id,
            self.state.term,
            self.state.vote,
            self.state.commit,
        ];
        let mut out = self.version.to_le_bytes().to_vec();
        numbers
            .iter()
            .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let numbers: Vec<u64> = rest
            .chunks_exact(8)
            .filter_map(|part| part.try_into().ok().map(u64::from_le_bytes))
            .collect();
        let [raft_id, term, vote, commit] = numbers.try_into().ok()?;
        Some(Self {
            version: u32::from_le_bytes(*version),
            raft_id,
            state: Hard { term, vote, commit },
        })
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::IdSource;
    use proptest::prelude::*;

    use super::{Kind, Label, Seal, read};
    use crate::raft::log::Key;

    fn seal(cluster: &str, key: u8) -> Seal {
        Seal::new(cluster, &Key::new([key; 32]), IdSource::seeded(1))
    }

    const LABEL: Label = Label {
        number: 7,
        durable: 5,
        index: 3,
        term: 2,
        kind: Kind::Entry,
    };

    #[test]
    fn a_record_opens_with_its_key_in_its_cluster_only() {
        let mut out = Vec::new();
        seal("c1", 1).append(&mut out, &LABEL, b"secret");
        let raw = read(&out).unwrap();
        assert_eq!((raw.label, raw.length), (LABEL, out.len()));
        assert_eq!(seal("c1", 1).open(&raw).unwrap(), b"secret");
        assert_eq!(seal("c1", 2).open(&raw), None);
        assert_eq!(seal("c2", 1).open(&raw), None);
        assert!(!out.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn equal_bodies_are_sealed_differently() {
        let (mut out, mut seal) = (Vec::new(), seal("c1", 1));
        seal.append(&mut out, &LABEL, b"same");
        let one = out.len();
        seal.append(&mut out, &LABEL, b"same");
        assert_ne!(out[..one], out[one..]);
    }

    proptest! {
        #[test]
        fn no_flipped_bit_and_no_cut_goes_unnoticed(body in proptest::collection::vec(any::<u8>(), 0..64), at: prop::sample::Index, bit in 0..8) {
            let mut out = Vec::new();
            seal("c1", 1).append(&mut out, &LABEL, &body);
            let at = at.index(out.len());
            prop_assert!(read(&out[..at]).is_none());
            out[at] ^= 1_u8 << bit;
            prop_assert!(read(&out).is_none());
        }
    }
}
