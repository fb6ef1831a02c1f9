//! The content of a file in a tar, written to a file.

use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};

use crate::tar_stream::{Entry, Fragment, RawSink, TarError, TarReader};

/// Why it was not, or not completely.
pub(crate) enum PayloadError {
    /// The archive is to blame.
    Tar(TarError),
    /// The file could not be written.
    Write(io::Error),
}

/// Writes the content of `entry`, which is the archive's current one, into an empty file. Holes stay holes.
pub(crate) fn write_payload<R: BufRead, S: RawSink>(
    tar: &mut TarReader<R, S>,
    entry: &Entry,
    file: &mut File,
) -> Result<(), PayloadError> {
    let whole = [Fragment {
        offset: 0,
        len: tar.remaining(),
    }];
    for fragment in entry.fragments.as_deref().unwrap_or(&whole) {
        if entry.fragments.is_some() {
            file.seek(SeekFrom::Start(fragment.offset))
                .map_err(PayloadError::Write)?;
        }
        let mut left = fragment.len;
        while left > 0 {
            let bytes = tar.fill_payload().map_err(PayloadError::Tar)?;
            let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            file.write_all(&bytes[..len]).map_err(PayloadError::Write)?;
            tar.consume_payload(len);
            left -= len as u64;
        }
    }
    if entry.fragments.is_some() {
        file.set_len(entry.size).map_err(PayloadError::Write)?;
    }
    Ok(())
}
