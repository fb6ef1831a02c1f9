//! Snapshots on disk: the encoded snapshot in pieces, each a record, and a last record that says how long it is.

use std::sync::Arc;

use super::super::output::Snapshot;
use super::super::snapshot::{Encoded, decode};
use super::directory::Directory;
use super::error::LogError;
use super::record::{self, Kind, Label, Seal};

const PIECE: usize = 1 << 20;

pub(super) fn name((index, term): (u64, u64)) -> String {
    format!("snapshot-{index:016x}-{term:016x}")
}

/// Index and term of the snapshot in a file of that name.
pub(super) fn place(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
    if index.len() != 16 || term.len() != 16 {
        return None;
    }
    Some((
        u64::from_str_radix(index, 16).ok()?,
        u64::from_str_radix(term, 16).ok()?,
    ))
}

/// Durable when it returns; under its name only when it is whole.
pub(super) fn write<D: Directory>(
    dir: &mut D,
    seal: &mut Seal,
    snapshot: &Arc<Snapshot>,
) -> Result<(), LogError> {
    let encoded = Encoded::new(snapshot.clone());
    let (index, term) = (snapshot.index, snapshot.term);
    let name = name((index, term));
    let unfinished = format!("{name}.tmp");
    dir.create(&unfinished)
        .map_err(LogError::disk("create", &unfinished))?;
    let mut label = Label {
        number: 0,
        durable: 0,
        index,
        term,
        kind: Kind::Piece,
    };
    let mut offset = 0;
    let mut buffer = Vec::new();
    while offset < encoded.len() {
        let piece = encoded.piece(offset, PIECE);
        offset += piece.len() as u64;
        seal.append(&mut buffer, &label, &piece);
        dir.append(&unfinished, &buffer)
            .map_err(LogError::disk("write to", &unfinished))?;
        buffer.clear();
        label.number += 1;
    }
    seal.append(
        &mut buffer,
        &Label {
            kind: Kind::Whole,
            ..label
        },
        &encoded.len().to_le_bytes(),
    );
    dir.append(&unfinished, &buffer)
        .map_err(LogError::disk("write to", &unfinished))?;
    dir.sync(&unfinished)
        .map_err(LogError::disk("make durable", &unfinished))?;
    dir.rename(&unfinished, &name)
        .map_err(LogError::disk("name", &name))?;
    dir.sync_names()
        .map_err(LogError::disk("make durable the names in", "."))
}

pub(super) fn read<D: Directory>(
    dir: &mut D,
    seal: &Seal,
    place: (u64, u64),
) -> Result<Snapshot, LogError> {
    let name = name(place);
    let file = dir.read(&name).map_err(LogError::disk("read", &name))?;
    let mut encoded: Vec<u8> = Vec::with_capacity(file.len());
    let mut offset = 0;
    for number in 0.. {
        let raw = record::read(&file[offset..]).ok_or_else(|| {
            LogError::damaged(
                &name,
                offset,
                "a record of the snapshot is incomplete or changed",
            )
        })?;
        if (raw.label.number, raw.label.index, raw.label.term) != (number, place.0, place.1) {
            return Err(LogError::damaged(
                &name,
                offset,
                "a record of the snapshot is out of place",
            ));
        }
        let body = seal
            .open(&raw)
            .ok_or_else(|| LogError::WrongKey { name: name.clone() })?;
        offset += raw.length;
        match raw.label.kind {
            Kind::Piece => encoded.extend_from_slice(&body),
            Kind::Whole if offset == file.len() && body == (encoded.len() as u64).to_le_bytes() => {
                break;
            }
            _ => {
                return Err(LogError::damaged(
                    &name,
                    offset,
                    "the snapshot does not end where it says it does",
                ));
            }
        }
    }
    let snapshot =
        decode(encoded).map_err(|error| LogError::damaged(&name, 0, error.to_string()))?;
    if (snapshot.index, snapshot.term) != place {
        return Err(LogError::damaged(
            &name,
            0,
            "the file is named for another snapshot",
        ));
    }
    Ok(snapshot)
}
