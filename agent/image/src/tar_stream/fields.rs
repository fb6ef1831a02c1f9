//! The fields of a header block (Go `archive/tar/strconv.go`, GNU tar manual, "Basic Tar Format").

use super::{BLOCK, Fragment};

pub(super) fn checksum_matches(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = numeric(&block[148..156]) else {
        return false;
    };
    let mut unsigned = 0i64;
    let mut signed = 0i64;
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    stored == unsigned || stored == signed
}

/// A numeric header field: octal text, or base-256 when the first bit is set.
pub(super) fn numeric(field: &[u8]) -> Option<i64> {
    if let Some(first) = field.first()
        && first & 0x80 != 0
    {
        // Two's complement, big endian; the marker bit is not part of the number.
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let text = field
        .split(|b| *b == 0)
        .find(|part| !part.iter().all(|b| *b == b' '));
    let text = std::str::from_utf8(text.unwrap_or_default())
        .ok()?
        .trim_matches(' ');
    if text.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(text, 8).ok()
}

/// Offset/length pairs of 12 bytes each, ended by an empty offset.
pub(super) fn old_sparse(pairs: &[u8], fragments: &mut Vec<Fragment>) -> Option<()> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        fragments.push(Fragment {
            offset: u64::try_from(numeric(&pair[..12])?).ok()?,
            len: u64::try_from(numeric(&pair[12..])?).ok()?,
        });
    }
    Some(())
}
