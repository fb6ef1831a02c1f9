//! Directories as contexts: opened once, and written as a tar when the daemon cannot read them itself.
//!
//! The tar holds what the ignore file leaves, in the order of names, so that it is the same for the same tree. Nothing
//! larger than one directory's names is held. Every file is opened relative to its directory and without following a
//! link, so that a tree that changes meanwhile cannot lead out of itself.
//! Source of the rules: moby/patternmatcher, tonistiigi/fsutil `walker.go`.

use crate::types::build::IgnoreFile;
use agent_build::pattern::Patterns;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::ffi::{CStr, CString};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// A directory that is a context, with its ignore file.
#[derive(Debug)]
pub struct OpenDirectory {
    fd: OwnedFd,
    device: u64,
    inode: u64,
    shown: String,
    ignore: Option<IgnoreFile>,
    patterns: Patterns,
}

impl OpenDirectory {
    /// Opens a directory. `ignore` is what is left out of it.
    ///
    /// # Errors
    /// It cannot be opened or is no directory; a pattern of the ignore file is malformed.
    pub fn open(path: &Path, ignore: Option<IgnoreFile>) -> io::Result<Self> {
        let fd = rustix::fs::open(
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let patterns = match &ignore {
            None => Patterns::default(),
            Some(file) => agent_build::ignore::parse(file.text.as_bytes()).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{}: {error}", file.name),
                )
            })?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self {
            fd,
            device: stat.st_dev,
            inode: stat.st_ino,
            shown: path.display().to_string(),
            ignore,
            patterns,
        })
    }

    /// Descriptor, device and inode.
    pub(super) fn identity(&self) -> (i32, u64, u64) {
        (self.fd.as_raw_fd(), self.device, self.inode)
    }

    /// As the user wrote it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn ignore(&self) -> Option<&IgnoreFile> {
        self.ignore.as_ref()
    }
}

/// Writes the directory's files as a tar.
///
/// # Errors
/// A file cannot be read or changes while it is; `to` fails.
pub(super) fn write(root: &OpenDirectory, to: &mut impl Write) -> io::Result<()> {
    let mut walk = Walk {
        tar: Builder::new(to),
        patterns: &root.patterns,
        parents: Vec::new(),
    };
    walk.directory(root.fd.as_fd(), "")?;
    walk.tar.into_inner()?.flush()
}

/// Writes the parts of an OCI layout as a tar, and nothing else that may lie beside them.
///
/// # Errors
/// As [`write`]; also when the directory is no layout.
pub(super) fn write_layout(path: &Path, to: &mut impl Write) -> io::Result<()> {
    let at =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let root = OpenDirectory::open(path, None).map_err(at)?;
    let no_patterns = Patterns::default();
    let mut walk = Walk {
        tar: Builder::new(to),
        patterns: &no_patterns,
        parents: Vec::new(),
    };
    for name in [c"oci-layout", c"index.json"] {
        let shown = name.to_str().expect("constant names are ASCII");
        walk.entry(root.fd.as_fd(), name, shown).map_err(|error| {
            at(io::Error::new(
                error.kind(),
                format!("is no OCI layout: {shown}: {error}"),
            ))
        })?;
    }
    walk.entry(root.fd.as_fd(), c"blobs", "blobs").map_err(at)?;
    walk.tar.into_inner()?.flush()
}

struct Walk<'a, W: Write> {
    tar: Builder<W>,
    patterns: &'a Patterns,
    /// Directories on the way that are ignored themselves and written only when something below them is not.
    parents: Vec<(String, Stat)>,
}

impl<W: Write> Walk<'_, W> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &str) -> io::Result<()> {
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let shown = name.to_str().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{path}/{}: the name is not UTF-8", name.to_string_lossy()),
                )
            })?;
            let below = match path {
                "" => shown.to_owned(),
                path => format!("{path}/{shown}"),
            };
            match self.entry(directory, &name, &below) {
                // Removed since its directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &str) -> io::Result<()> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let ignored = self.patterns.matches(path);
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if ignored && self.patterns.prunes(path) {
                return Ok(());
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(directory, name, flags, Mode::empty())
                .map_err(|error| at(error.into()))?;
            let waiting = self.parents.len();
            if ignored {
                self.parents.push((path.to_owned(), stat));
            } else {
                self.write_parents()?;
                self.header(path, &stat, EntryType::Directory, 0, &[])?;
            }
            self.directory(fd.as_fd(), path)?;
            self.parents.truncate(waiting);
            return Ok(());
        }
        if ignored || kind == FileType::Socket {
            return Ok(());
        }
        self.write_parents()?;
        match kind {
            FileType::RegularFile => self.file(directory, name, path).map_err(at),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(|error| at(error.into()))?;
                self.link(path, &stat, &target)
            }
            FileType::Fifo => self.header(path, &stat, EntryType::Fifo, 0, &[]),
            FileType::CharacterDevice => self.header(path, &stat, EntryType::Char, 0, &[]),
            FileType::BlockDevice => self.header(path, &stat, EntryType::Block, 0, &[]),
            _ => Err(at(io::Error::other("is of a kind that cannot be sent"))),
        }
    }

    fn write_parents(&mut self) -> io::Result<()> {
        for (path, stat) in std::mem::take(&mut self.parents) {
            self.header(&path, &stat, EntryType::Directory, 0, &[])?;
        }
        Ok(())
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &str) -> io::Result<()> {
        // NONBLOCK: should it have become a pipe meanwhile, opening it does not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("was replaced while it was read"));
        }
        let capability = capability(&fd)?;
        let size = u64::try_from(stat.st_size).expect("sizes of files are not negative");
        let mut file = std::fs::File::from(fd).take(size);
        let mut header = header_of(&stat, EntryType::Regular, size);
        self.extensions(&stat, capability.as_deref())?;
        // The header says how much follows: less would shift everything behind it.
        let mut exact = Exact {
            inner: &mut file,
            left: size,
        };
        self.tar.append_data(&mut header, path, &mut exact)
    }

    fn link(&mut self, path: &str, stat: &Stat, target: &CStr) -> io::Result<()> {
        self.extensions(stat, None)?;
        let mut header = header_of(stat, EntryType::Symlink, 0);
        let target = std::ffi::OsStr::from_bytes(target.to_bytes());
        self.tar.append_link(&mut header, path, target)
    }

    fn header(
        &mut self,
        path: &str,
        stat: &Stat,
        kind: EntryType,
        size: u64,
        data: &[u8],
    ) -> io::Result<()> {
        self.extensions(stat, None)?;
        let mut header = header_of(stat, kind, size);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        self.tar.append_data(&mut header, path, data)
    }

    /// What the plain header has no room for: nanoseconds and capabilities.
    fn extensions(&mut self, stat: &Stat, capability: Option<&[u8]>) -> io::Result<()> {
        let mtime = format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
        let mut list: Vec<(&str, &[u8])> = Vec::new();
        if stat.st_mtime >= 0 && stat.st_mtime_nsec != 0 {
            list.push(("mtime", mtime.as_bytes()));
        }
        if let Some(capability) = capability {
            list.push(("SCHILY.xattr.security.capability", capability));
        }
        if list.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(list)
    }
}

/// A header without an owner: contexts have none.
fn header_of(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn capability(fd: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 64];
    match rustix::fs::fgetxattr(fd, c"security.capability", &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A reader that is an error when it is shorter than it was said to be.
struct Exact<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R: io::Read> io::Read for Exact<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left -= read as u64;
        if read == 0 && !buffer.is_empty() && self.left > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "became shorter while it was read",
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn ignore(text: &str) -> Option<IgnoreFile> {
        Some(IgnoreFile {
            name: ".dockerignore".to_owned(),
            text: text.to_owned(),
        })
    }

    fn tar_of(path: &Path, file: Option<IgnoreFile>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&OpenDirectory::open(path, file).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let names = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            entry.path().unwrap().to_str().unwrap().to_owned()
        });
        names.collect()
    }

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let from = tempfile::tempdir().unwrap();
        let long = "n".repeat(120);
        fs::create_dir_all(from.path().join("d/e")).unwrap();
        fs::write(from.path().join("d/e").join(&long), "deep").unwrap();
        fs::write(from.path().join("run.sh"), "#!").unwrap();
        fs::set_permissions(
            from.path().join("run.sh"),
            fs::Permissions::from_mode(0o4755),
        )
        .unwrap();
        symlink("nowhere", from.path().join("l")).unwrap();
        let to = tempfile::tempdir().unwrap();
        let bytes = tar_of(from.path(), None);
        super::super::unpack::unpack(&mut &bytes[..], to.path()).unwrap();
        assert_eq!(
            fs::read(to.path().join("d/e").join(&long)).unwrap(),
            b"deep"
        );
        let metadata = fs::metadata(to.path().join("run.sh")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
        let before = fs::metadata(from.path().join("run.sh")).unwrap();
        assert_eq!(metadata.modified().unwrap(), before.modified().unwrap());
        assert_eq!(
            fs::read_link(to.path().join("l")).unwrap(),
            Path::new("nowhere")
        );
        assert_eq!(
            bytes,
            tar_of(from.path(), None),
            "the same tree, another tar"
        );
    }

    #[test]
    fn ignored_files_are_left_out_and_taken_back_ones_bring_their_parents() {
        let from = tempfile::tempdir().unwrap();
        for path in ["a/keep/x", "a/keep/y", "a/z", "node_modules/m", "top"] {
            let path = from.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names = |text| names(&tar_of(from.path(), ignore(text)));
        assert_eq!(names("node_modules\na\n"), ["top"]);
        assert_eq!(
            names("*\n!a/keep/x\n"),
            ["a", "a/keep", "a/keep/x"].map(str::to_owned)
        );
        let error = OpenDirectory::open(from.path(), ignore("[")).unwrap_err();
        assert!(error.to_string().starts_with(".dockerignore: "), "{error}");
    }

    #[test]
    fn a_layout_is_sent_without_what_lies_beside_it() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.path().join("blobs/sha256")).unwrap();
        for name in ["oci-layout", "index.json", "blobs/sha256/aa", "private"] {
            fs::write(from.path().join(name), "{}").unwrap();
        }
        let mut bytes = Vec::new();
        write_layout(from.path(), &mut bytes).unwrap();
        assert_eq!(
            names(&bytes),
            [
                "oci-layout",
                "index.json",
                "blobs",
                "blobs/sha256",
                "blobs/sha256/aa"
            ]
        );
        fs::remove_file(from.path().join("index.json")).unwrap();
        let error = write_layout(from.path(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is no OCI layout"), "{error}");
    }
}
