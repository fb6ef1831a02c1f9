//! Entries in and out: a writer whose headers carry a name, a mode and a length and nothing else, and a list of what
//! an archive holds, made from the headers alone.
//!
//! The reader takes the writer's subset of ustar: regular files with names of [`super::name`], each once, then two empty
//! blocks. Links, devices, sparse files, long-name and pax records are refused, whatever a tar program would do with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};

use ring::digest::{Context, SHA256};
use tar::{EntryType, Header};

use super::{BundleError, MAX_ENTRIES, name};

/// Bytes of a block.
const BLOCK: u64 = 512;
/// Bytes that are copied at a time.
const PIECE: usize = 256 << 10;

/// Writes entries one after the other.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    written: BTreeSet<String>,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub const fn new(output: W) -> Self {
        Self {
            output,
            written: BTreeSet::new(),
        }
    }

    /// Whether an entry of this name has been written.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.written.contains(name)
    }

    /// An entry of bytes.
    ///
    /// # Errors
    /// When the archive cannot be written, or the name cannot be in it, or is in it.
    pub fn bytes(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), BundleError> {
        self.stream(name, mode, bytes.len() as u64, &mut &*bytes, &mut |_| {})
            .map(drop)
    }

    /// An entry of `size` bytes from a reader; gives their digest. `progress` hears of every piece.
    ///
    /// # Errors
    /// As [`Writer::bytes`], and when the reader has fewer or more bytes.
    pub fn stream(
        &mut self,
        name: &str,
        mode: u32,
        size: u64,
        input: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<String, BundleError> {
        self.header(name, mode, size)?;
        let digest = copy(name, size, input, &mut self.output, progress)?;
        let mut more = [0; 1];
        let read = input.read(&mut more);
        if read.map_err(BundleError::io(format!("read {name}")))? != 0 {
            return Err(BundleError::Unsuited(format!(
                "{name} has grown while it was read: try again when nobody writes to it"
            )));
        }
        let padding = (size.next_multiple_of(BLOCK) - size) as usize;
        self.write(&[0; BLOCK as usize][..padding])?;
        Ok(digest)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W, BundleError> {
        self.write(&[0; 2 * BLOCK as usize])?;
        let flushed = self.output.flush();
        flushed.map_err(BundleError::io("write the archive"))?;
        Ok(self.output)
    }

    fn header(&mut self, name: &str, mode: u32, size: u64) -> Result<(), BundleError> {
        if name::kind(name).is_none() || !self.written.insert(name.to_owned()) {
            return Err(BundleError::Unsuited(format!(
                "{name} cannot be the name of an entry: it is too long, has odd parts, or is there twice"
            )));
        }
        let mut header = Header::new_ustar();
        header
            .set_path(name)
            .map_err(BundleError::io(format!("name an entry {name}")))?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let written = self.output.write_all(bytes);
        written.map_err(BundleError::io("write the archive"))
    }
}

/// Digests what is written to it.
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    /// `sha256:<hex>` of all of it.
    #[must_use]
    pub fn finish(self) -> String {
        format!("sha256:{}", hex::encode(self.0.finish()))
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies exactly `size` bytes and gives their digest.
pub(super) fn copy(
    name: &str,
    size: u64,
    input: &mut dyn Read,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<String, BundleError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE)).max(1)];
    let mut left = size;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(PIECE));
        let read = match input.read(&mut buffer[..want]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(BundleError::io(format!("read {name}")))?,
        };
        if read == 0 {
            return Err(BundleError::damaged(
                name,
                format!("{left} bytes are missing"),
            ));
        }
        hasher.0.update(&buffer[..read]);
        let written = output.write_all(&buffer[..read]);
        written.map_err(BundleError::io(format!("write {name}")))?;
        left -= read as u64;
        progress(read as u64);
    }
    Ok(hasher.finish())
}

/// One entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its bytes begin.
    pub offset: u64,
    /// How many they are.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By name.
    pub entries: BTreeMap<String, Entry>,
}

impl Index {
    /// Lists an archive. Reads headers and skips contents.
    ///
    /// # Errors
    /// Whatever is not exactly what [`Writer`] writes.
    pub fn read(input: &mut (impl Read + Seek)) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Io {
            what: "read the archive".to_owned(),
            source,
        };
        let length = input.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut index = Self::default();
        let mut at = 0;
        loop {
            if at + BLOCK > length {
                return Err(cut_short(&index));
            }
            let mut header = Header::new_old();
            input.seek(SeekFrom::Start(at)).map_err(failed)?;
            input.read_exact(header.as_mut_bytes()).map_err(failed)?;
            at += BLOCK;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                break;
            }
            let (name, entry) = entry(&header, at)?;
            let padded = entry.size.checked_next_multiple_of(BLOCK);
            let end = padded.and_then(|padded| at.checked_add(padded));
            at = match end {
                Some(end) if end <= length => end,
                _ => {
                    return Err(BundleError::damaged(
                        name,
                        "the archive ends in the middle of it: copy the bundle again",
                    ));
                }
            };
            if index.entries.insert(name.clone(), entry).is_some() {
                return Err(BundleError::damaged(name, "it is there twice"));
            }
            if index.entries.len() > MAX_ENTRIES {
                let reason = format!("it holds more than {MAX_ENTRIES} entries");
                return Err(BundleError::NotABundle(reason));
            }
        }
        let mut last = [1; BLOCK as usize];
        if length != at + BLOCK {
            return Err(match length < at + BLOCK {
                true => cut_short(&index),
                false => BundleError::NotABundle("bytes follow its end".to_owned()),
            });
        }
        input.read_exact(&mut last).map_err(failed)?;
        if last.iter().any(|byte| *byte != 0) {
            return Err(BundleError::NotABundle("bytes follow its end".to_owned()));
        }
        Ok(index)
    }
}

fn cut_short(index: &Index) -> BundleError {
    match index.entries.is_empty() {
        true => BundleError::NotABundle("it is too short to be an archive".to_owned()),
        false => BundleError::damaged("end of the archive", "it is missing: copy the bundle again"),
    }
}

fn entry(header: &Header, offset: u64) -> Result<(String, Entry), BundleError> {
    let not_ours = |reason: &str| BundleError::NotABundle(reason.to_owned());
    let sum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        .fold(0, |sum, (at, byte)| {
            // The sum itself counts as spaces.
            sum + u32::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        });
    if header.cksum().ok() != Some(sum) {
        return Err(match offset {
            BLOCK => not_ours("it is not a tar archive (a compressed bundle is unpacked first)"),
            _ => BundleError::damaged(
                format!("header at byte {}", offset - BLOCK),
                "its checksum is wrong",
            ),
        });
    }
    let path = header.path_bytes();
    let name = String::from_utf8_lossy(&path).into_owned();
    if header.as_ustar().is_none() || !matches!(header.entry_type(), EntryType::Regular) {
        return Err(BundleError::damaged(
            name,
            "it is not a regular file, and a bundle holds nothing else",
        ));
    }
    if name::kind(&name).is_none() || name.as_bytes() != &*path {
        return Err(BundleError::damaged(
            name,
            "this is no name that an entry of a bundle has",
        ));
    }
    let number = |number: io::Result<u64>| {
        number.map_err(|error| BundleError::damaged(name.clone(), error.to_string()))
    };
    let size = number(header.size())?;
    let mode = number(header.mode().map(u64::from))? as u32 & 0o777;
    let entry = Entry { offset, size, mode };
    Ok((name, entry))
}

/// Reads an entry from its place.
///
/// # Errors
/// When the archive cannot be read.
pub fn at<'a, R: Read + Seek>(
    input: &'a mut R,
    entry: &Entry,
) -> Result<io::Take<&'a mut R>, BundleError> {
    input
        .seek(SeekFrom::Start(entry.offset))
        .map_err(BundleError::io("read the archive"))?;
    Ok(input.take(entry.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.bytes(name::MODEL, 0o644, b"services: {}\n").unwrap();
        writer.bytes("muster/project/a", 0o755, &[7; 700]).unwrap();
        writer.bytes(name::LOCK, 0o644, b"{}").unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Index, BundleError> {
        Index::read(&mut io::Cursor::new(bytes))
    }

    #[test]
    fn what_was_written_is_listed_and_a_tar_program_reads_it() {
        let bytes = sample();
        let index = read(&bytes).unwrap();
        assert_eq!(index.entries["muster/project/a"].size, 700);
        assert_eq!(index.entries["muster/project/a"].mode, 0o755);
        let mut cursor = io::Cursor::new(&bytes);
        let mut text = String::new();
        at(&mut cursor, &index.entries[name::MODEL])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "services: {}\n");
        let mut tar = tar::Archive::new(&bytes[..]);
        let names: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, [name::MODEL, "muster/project/a", name::LOCK]);
    }

    #[test]
    fn an_archive_that_was_cut_anywhere_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(read(&[bytes, vec![0; 512]].concat()).is_err());
    }

    #[test]
    fn foreign_entries_are_refused_by_name() {
        let with = |kind: EntryType, path: &str, link: &str| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_entry_type(kind);
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
            builder.into_inner().unwrap()
        };
        for (kind, path, link) in [
            (EntryType::Regular, "../escape", ""),
            (EntryType::Regular, "muster/project/../../escape", ""),
            (EntryType::Regular, "/etc/passwd", ""),
            (EntryType::Regular, "unknown", ""),
            (EntryType::Symlink, "muster/project/a", "/etc"),
            (EntryType::Link, "muster/project/a", "muster/lock.json"),
            (EntryType::Directory, "muster/project/d", ""),
            (EntryType::GNULongName, "muster/project/a", ""),
            (EntryType::XHeader, "muster/project/a", ""),
            (EntryType::Char, "muster/project/a", ""),
        ] {
            let message = read(&with(kind, path, link)).unwrap_err().to_string();
            assert!(message.contains(path), "{message}");
        }
        let twice = {
            let one = sample();
            let mut both = one[..one.len() - 1024].to_vec();
            both.extend_from_slice(&one);
            both
        };
        assert!(read(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_size_beyond_all_bounds_is_refused() {
        let mut header = Header::new_ustar();
        header.set_path("muster/project/a").unwrap();
        header.set_mode(0o644);
        header.set_size(u64::MAX);
        header.set_cksum();
        let bytes = [&header.as_bytes()[..], &[0; 1024]].concat();
        let message = read(&bytes).unwrap_err().to_string();
        assert!(message.contains("muster/project/a"), "{message}");
    }

    #[test]
    fn a_reader_that_is_not_as_long_as_was_said_is_refused() {
        let mut writer = Writer::new(Vec::new());
        for (size, bytes) in [(3, &b"ab"[..]), (1, b"ab")] {
            let name = format!("muster/project/{size}");
            let stream = writer.stream(&name, 0o644, size, &mut &*bytes, &mut |_| {});
            assert!(stream.unwrap_err().to_string().contains(&name));
        }
        assert!(writer.bytes("muster/project/../x", 0o644, b"").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(
            mut bytes in Just(sample()),
            changes in proptest::collection::vec((0usize..4096, any::<u8>()), 1..8),
        ) {
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(index) = read(&bytes) {
                for entry in index.entries.values() {
                    prop_assert!(entry.offset + entry.size <= bytes.len() as u64);
                }
            }
        }
    }
}
