//! Members of a tar archive, in the one way in which this program writes them: ustar headers, PAX records only for what
//! does not fit, whole seconds.
//!
//! Must not: decide what is archived, or in which order.

use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::Stat;
use tar::{EntryType, Header};

use super::pack::PackError;

/// Takes an archive as it is written.
pub(crate) trait TarSink {
    /// Headers, padding, and content that [`TarSink::file`] did not announce.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The next `len` bytes of [`TarSink::data`] are the content of the file that the archive calls `name`.
    fn file(&mut self, name: &[u8], len: u64) -> io::Result<()>;
    /// Content of a file.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// An archive that is only a stream of bytes.
pub(crate) struct Stream<'a>(pub(crate) &'a mut dyn Write);

impl TarSink for Stream<'_> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn file(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes members.
pub(crate) struct TarWriter<'a> {
    sink: &'a mut dyn TarSink,
    /// No modification time is later, in seconds since 1970.
    clamp: Option<i64>,
    buffer: Vec<u8>,
}

/// One member of the archive.
pub(crate) struct Member<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) stat: &'a Stat,
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> TarWriter<'a> {
    pub(crate) fn new(sink: &'a mut dyn TarSink, clamp: Option<i64>) -> Self {
        Self {
            sink,
            clamp,
            buffer: vec![0; 256 << 10],
        }
    }

    /// The end-of-archive mark.
    pub(crate) fn finish(&mut self) -> Result<(), PackError> {
        self.write(&[0; 1024])?;
        self.sink.flush().map_err(PackError::Write)
    }

    /// The member of a regular file with its content.
    pub(crate) fn file(
        &mut self,
        member: &Member<'_>,
        file: &mut std::fs::File,
        path: &Path,
    ) -> Result<(), PackError> {
        self.member(member, EntryType::Regular)?;
        if member.size > 0 {
            self.sink
                .file(member.name, member.size)
                .map_err(PackError::Write)?;
        }
        self.content(file, member.size, path)
    }

    fn content(
        &mut self,
        file: &mut std::fs::File,
        size: u64,
        path: &Path,
    ) -> Result<(), PackError> {
        let mut left = size;
        while left > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let len = match file.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    self.buffer[..want].fill(0);
                    want
                }
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(PackError::Read {
                        path: path.to_owned(),
                        source: error,
                    });
                }
            };
            self.sink
                .data(&self.buffer[..len])
                .map_err(PackError::Write)?;
            left -= len as u64;
        }
        self.pad(size)
    }

    pub(crate) fn member(&mut self, member: &Member<'_>, kind: EntryType) -> Result<(), PackError> {
        let stat = member.stat;
        let mut header = Header::new_ustar();
        header.set_mode(stat.st_mode & 0o7777);
        let mut pax = Vec::new();
        for (key, value, set) in [
            ("uid", stat.st_uid, Header::set_uid as fn(&mut Header, u64)),
            ("gid", stat.st_gid, Header::set_gid),
        ] {
            // Seven octal digits is what the header holds.
            if value >= 1 << 21 {
                pax.push((key.as_bytes().to_vec(), value.to_string().into_bytes()));
                set(&mut header, 0);
            } else {
                set(&mut header, u64::from(value));
            }
        }
        let mtime = self
            .clamp
            .map_or(stat.st_mtime, |latest| stat.st_mtime.min(latest));
        match u64::try_from(mtime) {
            Ok(time) if time < 1 << 33 => header.set_mtime(time),
            _ => pax.push((b"mtime".to_vec(), mtime.to_string().into_bytes())),
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            );
            header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor))
                .map_err(PackError::Write)?;
        }
        for (key, value) in &member.xattrs {
            pax.push(([b"SCHILY.xattr.", &key[..]].concat(), value.clone()));
        }
        self.header(header, member.name, member.link, kind, member.size, pax)
    }

    pub(crate) fn header(
        &mut self,
        mut header: Header,
        name: &[u8],
        link: &[u8],
        kind: EntryType,
        size: u64,
        mut pax: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), PackError> {
        let fields = header.as_old_mut();
        for (key, value, field) in [
            (&b"path"[..], name, &mut fields.name),
            (b"linkpath", link, &mut fields.linkname),
        ] {
            let len = value.len().min(field.len());
            field[..len].copy_from_slice(&value[..len]);
            if value.len() > field.len() {
                pax.push((key.to_vec(), value.to_vec()));
            }
        }
        if size >= 1 << 33 {
            pax.push((b"size".to_vec(), size.to_string().into_bytes()));
            header.set_size(0);
        } else {
            header.set_size(size);
        }
        header.set_entry_type(kind);
        header.set_cksum();
        if !pax.is_empty() {
            let mut body = Vec::new();
            for (key, value) in &pax {
                body.extend(record(key, value));
            }
            let mut extension = Header::new_ustar();
            extension.as_old_mut().name[..12].copy_from_slice(b"PaxHeaders.0");
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_size(body.len() as u64);
            extension.set_cksum();
            self.write(extension.as_bytes())?;
            self.write(&body)?;
            self.pad(body.len() as u64)?;
        }
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), PackError> {
        self.write(&[0; 512][..(size.next_multiple_of(512) - size) as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.sink.raw(bytes).map_err(PackError::Write)
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}
