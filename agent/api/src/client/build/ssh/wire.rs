//! Strings and numbers as SSH writes them (RFC 4251 §5).

/// What has not been read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// `uint32`
    pub(super) fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// `string`
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// `mpint` that is not negative, without leading zeros.
    pub(super) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        match bytes.first() {
            Some(first) if *first >= 0x80 => None,
            _ => Some(without_zeros(bytes)),
        }
    }
}

/// Without leading zeros.
pub(super) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0);
    &bytes[start.unwrap_or(bytes.len())..]
}

/// Writes a `string`.
pub(super) fn put_string(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("messages are shorter than 4 GiB");
    to.extend(length.to_be_bytes());
    to.extend(bytes);
}

/// Writes an unsigned number as `mpint`.
pub(super) fn put_unsigned(to: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = without_zeros(bytes);
    let mut padded = Vec::with_capacity(bytes.len() + 1);
    if bytes.first().is_some_and(|first| *first >= 0x80) {
        padded.push(0);
    }
    padded.extend(bytes);
    put_string(to, &padded);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unsigned_and_as_short_as_they_can_be() {
        for (bytes, written) in [
            (&[0, 0, 1][..], &[0, 0, 0, 1, 1][..]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[], &[0, 0, 0, 0]),
        ] {
            let mut text = Vec::new();
            put_unsigned(&mut text, bytes);
            assert_eq!(text, written);
            assert_eq!(Reader(&text).unsigned(), Some(without_zeros(bytes)));
        }
        assert_eq!(Reader(&[0, 0, 0, 1, 0xff]).unsigned(), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        for bytes in [
            &[0, 0, 0][..],
            &[0, 0, 0, 2, 1],
            &[0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(Reader(bytes).string(), None, "{bytes:?}");
        }
    }
}
