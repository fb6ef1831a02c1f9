//! A reader of tar streams that trusts nothing and forgets nothing.
//!
//! Reads V7, ustar, PAX (0.0, 0.1 and 1.0 sparse maps, long names, extended attributes, nanoseconds, wide
//! ids) and GNU (long names, old sparse maps, base-256 numbers) archives strictly in order, with bounds on
//! everything a header may ask for. Whatever is not payload of a regular file is handed to a
//! [`RawSink`] byte for byte, so that the stream can be written again exactly as it was.
//!
//! Which archives are accepted follows Go's `archive/tar` (`reader.go`, `strconv.go`), because that is what
//! Docker reads layers with. Field layout comes from the `tar` crate; its reader is not used, since it
//! knows neither PAX sparse files nor bounds.
//!
//! Must not: touch the file system, or interpret names (see [`crate::layers`]).

mod fields;
mod pax;

use std::io::{self, BufRead};

use crate::limits::Limits;
use fields::{checksum_matches, numeric, old_sparse};

const BLOCK: usize = 512;

/// Why a stream is not an acceptable tar archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ends in the middle of something.
    #[error("unexpected end of the archive after {0} bytes")]
    Truncated(u64),
    /// A header makes no sense.
    #[error("malformed tar at byte {at}: {what}")]
    Malformed {
        /// Offset in the (inflated) tar stream.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A header asks for more than is allowed.
    #[error("too many {what}: the limit is {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// Reading failed, or inflating did.
    #[error(transparent)]
    Read(io::Error),
    /// Recording what was read failed.
    #[error("cannot write the layer's recipe: {0}")]
    Sink(io::Error),
}

/// Takes every byte of the stream except payload that was read with [`TarReader::fill_payload`].
pub(crate) trait RawSink {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Drops the bytes.
impl RawSink for () {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// PAX global header: applies to nothing (as in Docker).
    Global,
}

/// One member of the archive, all extension headers applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Name as written; not cleaned.
    pub(crate) path: Vec<u8>,
    /// Link target as written.
    pub(crate) link: Vec<u8>,
    /// Permission bits, set-id and sticky included.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    /// Size of the file once extracted.
    pub(crate) size: u64,
    /// Where the payload belongs in a sparse file; `None`: all of it from offset 0.
    pub(crate) fragments: Option<Vec<Fragment>>,
    /// Extended attributes: name, value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

pub(crate) struct TarReader<R, S> {
    source: R,
    sink: S,
    limits: Limits,
    /// Offset of the next byte in the stream.
    position: u64,
    /// Payload of the current entry not read yet.
    payload: u64,
    /// Padding behind the payload.
    padding: u64,
    entries: u64,
}

impl<R: BufRead, S: RawSink> TarReader<R, S> {
    pub(crate) fn new(source: R, sink: S, limits: Limits) -> Self {
        Self {
            source,
            sink,
            limits,
            position: 0,
            payload: 0,
            padding: 0,
            entries: 0,
        }
    }

    pub(crate) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Payload bytes of the current entry that are still to be read.
    pub(crate) fn remaining(&self) -> u64 {
        self.payload
    }

    /// The next piece of the current entry's payload; empty at its end.
    pub(crate) fn fill_payload(&mut self) -> Result<&[u8], TarError> {
        if self.payload == 0 {
            return Ok(&[]);
        }
        let position = self.position;
        let bytes = self.source.fill_buf().map_err(TarError::Read)?;
        if bytes.is_empty() {
            return Err(TarError::Truncated(position));
        }
        let len = usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
        Ok(&bytes[..len])
    }

    /// Marks `len` bytes that [`Self::fill_payload`] returned as read.
    pub(crate) fn consume_payload(&mut self, len: usize) {
        self.source.consume(len);
        self.position += len as u64;
        self.payload -= len as u64;
    }

    /// The next entry, skipping what is left of the current one. `None`: end-of-archive mark, or a
    /// stream that simply ends between two entries.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.pass(self.payload)?;
        self.payload = 0;
        self.pass(self.padding)?;
        self.padding = 0;
        let mut pax = pax::Records::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let start = self.position;
            let Some(block) = self.header_block()? else {
                return Ok(None);
            };
            let malformed = |what| TarError::Malformed { at: start, what };
            // Extension headers count, too.
            self.entries += 1;
            self.bound(self.entries, self.limits.entries, "entries")?;
            let header = tar::Header::from_byte_slice(&block);
            let size = numeric(&header.as_old().size).ok_or(malformed("bad size"))?;
            let size = u64::try_from(size).map_err(|_| malformed("negative size"))?;
            match block[156] {
                b'x' => {
                    let body =
                        self.extension(size, self.limits.pax_bytes, "bytes of PAX records")?;
                    // As in Go, a second header of the same entry replaces the first.
                    pax = pax::Records::parse(&body).map_err(malformed)?;
                }
                b'L' | b'K' => {
                    let mut body =
                        self.extension(size, self.limits.path_bytes as u64 + 1, "bytes in a name")?;
                    if let Some(end) = body.iter().position(|b| *b == 0) {
                        body.truncate(end);
                    }
                    *(if block[156] == b'L' {
                        &mut long_name
                    } else {
                        &mut long_link
                    }) = Some(body);
                }
                flag => {
                    let mut entry = self.entry(&block, flag, size, start)?;
                    if let Some(name) = long_name {
                        entry.path = name;
                    }
                    if let Some(link) = long_link {
                        entry.link = link;
                    }
                    self.apply_pax(&mut entry, flag, pax, start)?;
                    self.settle(&mut entry, start)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Passes on everything behind the end-of-archive mark and returns the source and the sink.
    pub(crate) fn finish(mut self) -> Result<(R, S), TarError> {
        loop {
            let bytes = self.source.fill_buf().map_err(TarError::Read)?;
            if bytes.is_empty() {
                return Ok((self.source, self.sink));
            }
            let len = bytes.len();
            self.sink.raw(bytes).map_err(TarError::Sink)?;
            self.source.consume(len);
            self.position += len as u64;
        }
    }

    /// The next header block with a right checksum; `None` at the end mark.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let start = self.position;
        let mut block = [0u8; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0u8; BLOCK] {
            if !self.block(&mut block)? || block == [0u8; BLOCK] {
                return Ok(None);
            }
            return Err(TarError::Malformed {
                at: start,
                what: "a single zero block between entries",
            });
        }
        if !checksum_matches(&block) {
            return Err(TarError::Malformed {
                at: start,
                what: "header checksum does not match",
            });
        }
        Ok(Some(block))
    }

    /// Reads one block; false if the stream ends before its first byte.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.source.fill_buf().map_err(TarError::Read)?;
            if bytes.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(TarError::Truncated(self.position));
            }
            let len = bytes.len().min(BLOCK - filled);
            block[filled..filled + len].copy_from_slice(&bytes[..len]);
            self.source.consume(len);
            self.position += len as u64;
            filled += len;
        }
        self.sink.raw(block).map_err(TarError::Sink)?;
        Ok(true)
    }

    /// Hands `len` bytes to the sink.
    fn pass(&mut self, mut len: u64) -> Result<(), TarError> {
        while len > 0 {
            let position = self.position;
            let bytes = self.source.fill_buf().map_err(TarError::Read)?;
            if bytes.is_empty() {
                return Err(TarError::Truncated(position));
            }
            let step = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
            self.sink.raw(&bytes[..step]).map_err(TarError::Sink)?;
            self.source.consume(step);
            self.position += step as u64;
            len -= step as u64;
        }
        Ok(())
    }

    /// The body of an extension header, padding passed over.
    fn extension(
        &mut self,
        size: u64,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, TarError> {
        self.bound(size, limit, what)?;
        let padded = size.next_multiple_of(BLOCK as u64);
        let mut body = Vec::with_capacity(padded as usize);
        let mut block = [0u8; BLOCK];
        while (body.len() as u64) < padded {
            if !self.block(&mut block)? {
                return Err(TarError::Truncated(self.position));
            }
            body.extend_from_slice(&block);
        }
        body.truncate(size as usize);
        Ok(body)
    }

    fn bound(&self, value: u64, limit: u64, what: &'static str) -> Result<(), TarError> {
        if value > limit {
            return Err(TarError::Limit { what, limit });
        }
        Ok(())
    }

    /// What the header block itself says.
    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        start: u64,
    ) -> Result<Entry, TarError> {
        let malformed = |what| TarError::Malformed { at: start, what };
        let header = tar::Header::from_byte_slice(block);
        let path = header.path_bytes().into_owned();
        let kind = match flag {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'g' => Kind::Global,
            _ => return Err(malformed("unknown entry type")),
        };
        let old = header.as_old();
        let id = |field: &[u8]| -> Result<u32, TarError> {
            numeric(field)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or(malformed("bad owner"))
        };
        let device = if header.as_ustar().is_some() || header.as_gnu().is_some() {
            let number = |field: &[u8]| {
                numeric(field)
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or(malformed("bad device number"))
            };
            (number(&block[329..337])?, number(&block[337..345])?)
        } else {
            (0, 0)
        };
        let mut entry = Entry {
            kind,
            path,
            link: header
                .link_name_bytes()
                .map_or_else(Vec::new, std::borrow::Cow::into_owned),
            mode: numeric(&old.mode).ok_or(malformed("bad mode"))? as u32 & 0o7777,
            uid: id(&old.uid)?,
            gid: id(&old.gid)?,
            mtime: (numeric(&old.mtime).ok_or(malformed("bad time"))?, 0),
            device,
            size,
            fragments: None,
            xattrs: Vec::new(),
        };
        if flag == b'S' {
            let gnu = header
                .as_gnu()
                .ok_or(malformed("sparse entry without GNU header"))?;
            let real = numeric(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
            let mut more = gnu.is_extended();
            let mut fragments = Vec::new();
            old_sparse(&block[386..482], &mut fragments).ok_or(malformed("bad sparse map"))?;
            let mut extension = [0u8; BLOCK];
            while more {
                if !self.block(&mut extension)? {
                    return Err(TarError::Truncated(self.position));
                }
                old_sparse(&extension[..504], &mut fragments).ok_or(malformed("bad sparse map"))?;
                self.bound(
                    fragments.len() as u64,
                    self.limits.sparse_fragments as u64,
                    "fragments in a sparse file",
                )?;
                more = extension[504] != 0;
            }
            self.payload = size;
            entry.size = real.ok_or(malformed("bad real size"))?;
            entry.fragments = Some(fragments);
        }
        Ok(entry)
    }

    fn apply_pax(
        &mut self,
        entry: &mut Entry,
        flag: u8,
        pax: pax::Records,
        start: u64,
    ) -> Result<(), TarError> {
        let malformed = |what| TarError::Malformed { at: start, what };
        if let Some(path) = pax.path {
            entry.path = path;
        }
        if let Some(link) = pax.link {
            entry.link = link;
        }
        if flag == 0 && entry.path.ends_with(b"/") {
            // Before ustar, a slash was all that marked a directory.
            entry.kind = Kind::Directory;
        }
        if let Some(uid) = pax.uid {
            entry.uid = uid;
        }
        if let Some(gid) = pax.gid {
            entry.gid = gid;
        }
        if let Some(mtime) = pax.mtime {
            entry.mtime = mtime;
        }
        entry.xattrs = pax.xattrs.into_iter().collect();
        let old_sparse = entry.fragments.is_some();
        if let Some(size) = pax.size {
            if old_sparse {
                self.payload = size;
            } else {
                entry.size = size;
            }
        }
        if !old_sparse {
            self.payload = if entry.kind == Kind::File || entry.kind == Kind::Global {
                entry.size
            } else {
                // Go's isHeaderOnlyType: whatever the size field says, nothing follows.
                entry.size = 0;
                0
            };
        }
        if entry.kind == Kind::File && !old_sparse && pax.sparse.present {
            if let Some(name) = pax.sparse.name {
                entry.path = name;
            }
            let map = match pax.sparse.version {
                (1, 0) => self.sparse_map_from_payload(start)?,
                (0, 0 | 1) => pax.sparse.map,
                _ => return Err(malformed("unknown sparse format")),
            };
            entry.size = pax
                .sparse
                .real_size
                .ok_or(malformed("sparse file without size"))?;
            entry.fragments = Some(map);
        }
        self.bound(self.payload, self.limits.layer_bytes, "bytes in one file")?;
        self.padding = self.payload.next_multiple_of(BLOCK as u64) - self.payload;
        Ok(())
    }

    /// PAX 1.0 keeps the sparse map in front of the data: decimal numbers, one a line, padded to a block.
    fn sparse_map_from_payload(&mut self, start: u64) -> Result<Vec<Fragment>, TarError> {
        let malformed = TarError::Malformed {
            at: start,
            what: "bad sparse map",
        };
        let mut text: Vec<u8> = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted: Option<u64> = None;
        let mut block = [0u8; BLOCK];
        loop {
            if let Some(count) = wanted
                && numbers.len() as u64 > count * 2
            {
                break;
            }
            if self.payload < BLOCK as u64 {
                return Err(malformed);
            }
            if !self.block(&mut block)? {
                return Err(TarError::Truncated(self.position));
            }
            self.payload -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    text.push(byte);
                    if text.len() > 20 {
                        return Err(malformed);
                    }
                    continue;
                }
                let number = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
                let Some(number) = number else {
                    return Err(malformed);
                };
                text.clear();
                if wanted.is_none() {
                    self.bound(
                        number,
                        self.limits.sparse_fragments as u64,
                        "fragments in a sparse file",
                    )?;
                    wanted = Some(number);
                }
                numbers.push(number);
                if wanted.is_some_and(|count| numbers.len() as u64 > count * 2) {
                    break;
                }
            }
        }
        Ok(numbers[1..]
            .chunks_exact(2)
            .map(|pair| Fragment {
                offset: pair[0],
                len: pair[1],
            })
            .collect())
    }

    /// Checks what is known once everything is applied.
    fn settle(&mut self, entry: &mut Entry, start: u64) -> Result<(), TarError> {
        let malformed = |what| TarError::Malformed { at: start, what };
        let path_max = self.limits.path_bytes as u64;
        self.bound(entry.path.len() as u64, path_max, "bytes in a name")?;
        self.bound(entry.link.len() as u64, path_max, "bytes in a link target")?;
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(malformed("a zero byte in a name"));
        }
        self.bound(entry.size, self.limits.layer_bytes, "bytes in one file")?;
        if let Some(fragments) = &entry.fragments {
            self.bound(
                fragments.len() as u64,
                self.limits.sparse_fragments as u64,
                "fragments in a sparse file",
            )?;
            let mut end = 0u64;
            let mut data = 0u64;
            for fragment in fragments {
                let next = fragment.offset.checked_add(fragment.len);
                match next {
                    Some(next) if fragment.offset >= end && next <= entry.size => end = next,
                    _ => return Err(malformed("sparse map out of order or beyond the file")),
                }
                data += fragment.len;
            }
            if data != self.payload {
                return Err(malformed("sparse map does not fit the data"));
            }
        }
        Ok(())
    }
}

/// Whether `block` is a tar header or an end mark: what a tar stream starts with.
pub(crate) fn looks_like_tar(block: &[u8]) -> bool {
    <&[u8; BLOCK]>::try_from(block)
        .is_ok_and(|block| *block == [0u8; BLOCK] || checksum_matches(block))
}

#[cfg(test)]
mod tests;
