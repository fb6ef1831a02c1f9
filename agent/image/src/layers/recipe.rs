//! How to write a layer's tar stream again, bit for bit, from its unpacked directory.
//!
//! A layer's identity is the digest of its tar, so `save` and `push` must reproduce it exactly, and no two
//! tar writers agree. What could be kept besides the directory, measured with a tar of 469 MB and 10 400 entries:
//!
//! ```text
//!                           more disk          load also writes   save reads
//! the plain tar             469 MB   100 %     469 MB             one file
//! the compressed original   201 MB    43 %     201 MB             one file, and inflates it (none in docker-archives)
//! this recipe               0.6 MB   0.1 %     0.6 MB             every file of the layer
//! ```
//!
//! The recipe holds what the directory does not: headers, padding and other bytes that are no file's data, and
//! the names of the files whose data belongs in between (the idea of Docker's tar-split, in binary).
//! It is one gzip stream (its CRC guards it):
//!
//! ```text
//! "muster layer recipe 1\n"
//! 'R' length:u32 bytes                               raw bytes
//! 'F' entry:u64 path_len:u32 path n:u32 (offset:u64 len:u64)×n   data ranges of diff/<path>
//! 'E' size:u64 digest:32                             end: size and digest of the whole tar
//! ```
//!
//! All numbers little endian. A file that a later entry of the same layer replaced was moved to
//! `spill/`; `layer.json` lists the moves.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::digest::Digest;
use crate::tar_stream::{Fragment, RawSink};

const MAGIC: &[u8] = b"muster layer recipe 1\n";
/// Raw bytes collected before a record is written.
const RAW_MAX: usize = 1 << 20;

/// Writes a recipe while the tar goes by.
pub(super) struct RecipeWriter<W: Write> {
    out: GzEncoder<W>,
    raw: Vec<u8>,
}

impl<W: Write> RecipeWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut out = GzEncoder::new(out, Compression::fast());
        out.write_all(MAGIC)?;
        Ok(Self {
            out,
            raw: Vec::new(),
        })
    }

    /// Here follow `fragments` of the file at `path`, made by tar entry number `entry`.
    pub(super) fn file(
        &mut self,
        entry: u64,
        path: &[u8],
        fragments: &[Fragment],
    ) -> io::Result<()> {
        self.flush_raw()?;
        let mut record = Vec::with_capacity(17 + path.len() + 16 * fragments.len());
        record.push(b'F');
        record.extend_from_slice(&entry.to_le_bytes());
        record.extend_from_slice(&length(path.len())?);
        record.extend_from_slice(path);
        record.extend_from_slice(&length(fragments.len())?);
        for fragment in fragments {
            record.extend_from_slice(&fragment.offset.to_le_bytes());
            record.extend_from_slice(&fragment.len.to_le_bytes());
        }
        self.out.write_all(&record)
    }

    pub(super) fn finish(mut self, size: u64, digest: &Digest) -> io::Result<W> {
        self.flush_raw()?;
        self.out.write_all(b"E")?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(digest.bytes())?;
        self.out.finish()
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.out.write_all(b"R")?;
            self.out.write_all(&length(self.raw.len())?)?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

impl<W: Write> RawSink for RecipeWriter<W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(RAW_MAX) {
            self.raw.extend_from_slice(piece);
            if self.raw.len() >= RAW_MAX {
                self.flush_raw()?;
            }
        }
        Ok(())
    }
}

/// One step of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Raw(Vec<u8>),
    File {
        entry: u64,
        path: Vec<u8>,
        fragments: Vec<Fragment>,
    },
    End {
        size: u64,
        digest: Digest,
    },
}

/// Reads a recipe.
pub(super) struct RecipeReader<R: Read>(GzDecoder<R>);

impl<R: Read> RecipeReader<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let mut reader = Self(GzDecoder::new(source));
        let mut magic = [0u8; MAGIC.len()];
        reader.0.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged("unknown format"));
        }
        Ok(reader)
    }

    pub(super) fn next(&mut self) -> io::Result<Step> {
        match self.array::<1>()? {
            [b'R'] => Ok(Step::Raw(self.bytes(2 * RAW_MAX)?)),
            [b'F'] => {
                let entry = u64::from_le_bytes(self.array()?);
                let path = self.bytes(1 << 16)?;
                let count = u32::from_le_bytes(self.array()?);
                let mut fragments = Vec::new();
                for _ in 0..count {
                    fragments.push(Fragment {
                        offset: u64::from_le_bytes(self.array()?),
                        len: u64::from_le_bytes(self.array()?),
                    });
                }
                Ok(Step::File {
                    entry,
                    path,
                    fragments,
                })
            }
            [b'E'] => {
                let size = u64::from_le_bytes(self.array()?);
                let digest = Digest::from_bytes(self.array()?);
                // Reading to the end makes the decoder check the CRC.
                if self.0.read(&mut [0u8])? != 0 {
                    return Err(damaged("trailing data"));
                }
                Ok(Step::End { size, digest })
            }
            _ => Err(damaged("unknown record")),
        }
    }

    fn bytes(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        if len > max {
            return Err(damaged("oversized record"));
        }
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn length(len: usize) -> io::Result<[u8; 4]> {
    u32::try_from(len)
        .map(u32::to_le_bytes)
        .map_err(|_| damaged("oversized record"))
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("layer recipe: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_reads_back_and_damage_is_noticed() {
        let fragments = [
            Fragment { offset: 0, len: 5 },
            Fragment {
                offset: 4096,
                len: 1,
            },
        ];
        let digest = Digest::of(b"x");
        let mut writer = RecipeWriter::new(Vec::new()).unwrap();
        writer.raw(b"head").unwrap();
        writer.raw(b"er").unwrap();
        writer.file(7, b"a/b", &fragments).unwrap();
        writer.raw(&[0; 512]).unwrap();
        let bytes = writer.finish(99, &digest).unwrap();

        let mut reader = RecipeReader::new(&bytes[..]).unwrap();
        assert_eq!(reader.next().unwrap(), Step::Raw(b"header".to_vec()));
        assert_eq!(
            reader.next().unwrap(),
            Step::File {
                entry: 7,
                path: b"a/b".to_vec(),
                fragments: fragments.to_vec()
            }
        );
        assert_eq!(reader.next().unwrap(), Step::Raw(vec![0; 512]));
        assert_eq!(reader.next().unwrap(), Step::End { size: 99, digest });

        let mut broken = bytes.clone();
        let at = broken.len() - 6;
        broken[at] ^= 1;
        let mut reader = RecipeReader::new(&broken[..]).unwrap();
        assert!((0..4).any(|_| reader.next().is_err()));
        let mut reader = RecipeReader::new(&bytes[..bytes.len() - 9]).unwrap();
        assert!((0..4).any(|_| reader.next().is_err()));
    }
}
