//! The files of a bundle in their place, `bundles/PROJECT`: a directory that stays the same from one bundle of a project
//! to the next, since containers have its files mounted and keep data beside them.
//!
//! ```text
//! bundles/shop/         the user's alone
//!   compose.yaml        the model, for people
//!   project/…           files of the bundle, and whatever the site puts beside them
//!   outside/<n>/…
//!   lock.json           lock of the bundle that was unpacked last; written last
//! ```
//! A file is written when it is missing, or is as a former bundle left it. One that was changed here is not overwritten:
//! the bundle is refused, or, if it is bind-mounted, the file is the site's now. Everything is decided before anything is
//! written. Names are resolved below the directory and never through a symbolic link (openat2), as containers may make
//! links in what they have mounted.

use crate::failure::Failure;
use anyhow::Context as _;
use compose::bundle::{Bundle, Lock, digest, name};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

/// Name of the model in the directory.
pub(super) const MODEL: &str = "compose.yaml";
const LOCK: &str = "lock.json";
/// Name of a file that is being written.
const PART: &str = ".muster-part";
/// Largest lock that is read back.
const MAX_LOCK: u64 = compose::bundle::MAX_DOCUMENT;

/// What is at a file's place.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    File {
        digest: String,
        mode: u32,
    },
    /// A directory, a link, a socket.
    Other,
}

/// Whether every file of the bundle is in its place: then nothing is going to be read from it.
pub(super) fn is_in_place(directory: &Path, lock: &Lock) -> anyhow::Result<bool> {
    if !directory.exists() {
        return Ok(false);
    }
    let root = Root::open(directory)?;
    let former = root.former()?;
    Ok(root.to_write(former.as_ref(), lock)?.is_empty())
}

/// Brings the directory to what the bundle says.
pub(super) fn unpack(directory: &Path, bundle: &mut Bundle<File>) -> anyhow::Result<()> {
    let root = Root::open(directory)?;
    let former = root.former()?;
    let lock = bundle.lock.clone();
    for place in root.to_write(former.as_ref(), &lock)? {
        let mut bytes = bundle.file(place)?;
        root.write(place, lock.files[place].mode, &mut bytes)?;
    }
    for place in lock
        .directories
        .iter()
        .filter(|place| name::is_unpacked(place))
    {
        root.directory(place)?;
    }
    root.remove_former(former.as_ref(), &lock)?;
    let bytes = lock.to_bytes();
    for (place, bytes) in [(MODEL, bundle.model.as_bytes()), (LOCK, &bytes)] {
        let same = matches!(root.look(place)?, Found::File { digest: known, .. } if known == digest(bytes));
        if !same {
            root.write(place, 0o600, &mut &*bytes)?;
        }
    }
    Ok(())
}

/// The directory, open.
struct Root<'a> {
    path: &'a Path,
    directory: OwnedFd,
}

impl<'a> Root<'a> {
    fn open(path: &'a Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot use {}", path.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(failed)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).with_context(failed)?;
        let metadata = File::from(directory.try_clone()?).metadata()?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            let reason = format!(
                "{} belongs to somebody else, or others may write to it: make it yours alone",
                path.display()
            );
            return Err(Failure::new(1, reason).into());
        }
        Ok(Self { path, directory })
    }

    /// The lock of the bundle that was unpacked last.
    fn former(&self) -> anyhow::Result<Option<Lock>> {
        let Some(file) = self.file(LOCK)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(MAX_LOCK).read_to_end(&mut bytes)?;
        // One that cannot be read says nothing: then nothing here counts as the bundle's.
        Ok(Lock::parse(&bytes).ok())
    }

    /// The files that are missing or as a former bundle left them. Nothing is written for as long as this is decided.
    fn to_write<'l>(
        &self,
        former: Option<&Lock>,
        lock: &'l Lock,
    ) -> anyhow::Result<Vec<&'l String>> {
        let mut writes = Vec::new();
        let mut changed = Vec::new();
        for (place, file) in lock
            .files
            .iter()
            .filter(|(place, _)| name::is_unpacked(place))
        {
            let before = former.and_then(|lock| lock.files.get(place));
            match self.look(place)? {
                Found::File { digest, mode } if digest == file.digest && mode == file.mode => {}
                Found::Nothing => writes.push(place),
                Found::File { digest, .. }
                    if digest == file.digest
                        || before.is_some_and(|file| file.digest == digest) =>
                {
                    writes.push(place);
                }
                _ if file.bind => {}
                _ => changed.push(self.path.join(place).display().to_string()),
            }
        }
        if changed.is_empty() {
            return Ok(writes);
        }
        let reason = format!(
            "changed since it was unpacked: {}: move it out of the way, and the bundle's own takes its place",
            changed.join(", ")
        );
        Err(Failure::new(1, reason).into())
    }

    /// What only the former bundle had goes, unless somebody has made something else of it.
    fn remove_former(&self, former: Option<&Lock>, lock: &Lock) -> anyhow::Result<()> {
        for (place, file) in former.iter().flat_map(|lock| &lock.files) {
            let gone = name::is_unpacked(place) && !lock.files.contains_key(place);
            let ours = |found| matches!(found, Found::File { digest, .. } if digest == file.digest);
            if gone && ours(self.look(place)?) {
                self.remove(place)?;
            }
        }
        Ok(())
    }

    /// Makes a directory; what else is at its place stays, and the engine says what it thinks of it.
    fn directory(&self, place: &str) -> anyhow::Result<()> {
        let failed = || format!("cannot make {}", self.path.join(place).display());
        let (parent, own) = self.parent(place).with_context(failed)?;
        match mkdirat(&parent, own, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).with_context(failed),
        }
    }

    fn look(&self, place: &str) -> anyhow::Result<Found> {
        let failed = || format!("cannot read {}", self.path.join(place).display());
        let mut file = match self.file(place) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Found::Nothing),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Ok(Found::Other);
            }
            Err(error) => return Err(error).with_context(failed),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Found::Other);
        }
        let mut hasher = compose::bundle::archive::Hasher::default();
        io::copy(&mut file, &mut hasher).with_context(failed)?;
        Ok(Found::File {
            digest: hasher.finish(),
            mode: metadata.mode() & 0o777,
        })
    }

    /// The file at a place; `None`: there is nothing.
    fn file(&self, place: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match below(&self.directory, place, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a file in place, whole.
    fn write(&self, place: &str, mode: u32, bytes: &mut dyn Read) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.path.join(place).display());
        let (parent, own) = self.parent(place).with_context(failed)?;
        // A part that a killed run left.
        match unlinkat(&parent, PART, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(failed),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = below(&parent, PART, flags, Mode::from_raw_mode(0o600)).with_context(failed)?;
        let mut file = File::from(file);
        let written = io::copy(bytes, &mut file)
            .and_then(|_| file.flush())
            .and_then(|()| Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&parent, PART, &parent, own)?));
        if written.is_err() {
            let _ = unlinkat(&parent, PART, AtFlags::empty());
        }
        written.with_context(failed)
    }

    fn remove(&self, place: &str) -> anyhow::Result<()> {
        let failed = || format!("cannot remove {}", self.path.join(place).display());
        let (parent, own) = self.parent(place).with_context(failed)?;
        unlinkat(&parent, own, AtFlags::empty()).with_context(failed)
    }

    /// The directory of a place, made where it is missing, and the last part of the name.
    fn parent<'n>(&self, place: &'n str) -> io::Result<(OwnedFd, &'n str)> {
        let (directories, own) = place.rsplit_once('/').unwrap_or(("", place));
        let mut at = self.directory.try_clone()?;
        for part in directories.split('/').filter(|part| !part.is_empty()) {
            match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = below(
                &at,
                part,
                OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
        }
        Ok((at, own))
    }
}

fn below(
    directory: impl AsFd,
    name: &str,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, name, flags, mode, resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use compose::bundle::{LockedFile, VERSION, Writer};
    use std::collections::{BTreeMap, BTreeSet};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn bundle(directory: &Path, files: &[(&str, &str, bool)]) -> Bundle<File> {
        let model = b"services: {}\n";
        let mut lock = Lock {
            version: VERSION,
            project: "shop".to_owned(),
            muster: "0".to_owned(),
            created: String::new(),
            model: digest(model),
            variables: None,
            services: BTreeMap::new(),
            images: BTreeMap::new(),
            files: BTreeMap::new(),
            directories: BTreeSet::new(),
            left_out: Vec::new(),
        };
        let path = directory.join("bundle.tar");
        let mut writer = Writer::new(File::create(&path).unwrap());
        writer.bytes(name::MODEL, 0o644, model).unwrap();
        for (place, text, bind) in files {
            let bytes = text.as_bytes();
            writer.bytes(&name::of_file(place), 0o640, bytes).unwrap();
            let file = LockedFile {
                digest: digest(bytes),
                size: bytes.len() as u64,
                mode: 0o640,
                bind: *bind,
            };
            lock.files.insert((*place).to_owned(), file);
        }
        for (name, bytes) in lock.documents() {
            writer.bytes(name, 0o644, &bytes).unwrap();
        }
        writer.bytes(name::LOCK, 0o644, &lock.to_bytes()).unwrap();
        writer.finish().unwrap();
        super::super::site::open(&path).unwrap()
    }

    #[test]
    fn files_follow_the_bundle_and_changes_of_the_site_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("bundles/shop");
        let put =
            |files: &[(&str, &str, bool)]| unpack(&root, &mut bundle(temporary.path(), files));
        let read = |place: &str| std::fs::read_to_string(root.join(place)).ok();
        put(&[
            ("project/conf/app.conf", "one", false),
            ("project/html/a", "one", true),
            ("original/.env", "A=1", false),
        ])
        .unwrap();
        assert_eq!(read("project/conf/app.conf").unwrap(), "one");
        assert_eq!(read("compose.yaml").unwrap(), "services: {}\n");
        assert!(!root.join("original").exists());
        let mode = |place: &str| {
            std::fs::metadata(root.join(place))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("project/conf/app.conf"), mode("")), (0o640, 0o700));

        // The next bundle: one file new, one changed by the site where it may, one gone.
        std::fs::write(root.join("project/html/a"), "theirs").unwrap();
        std::fs::write(root.join("project/html/data"), "theirs").unwrap();
        put(&[
            ("project/conf/other.conf", "two", false),
            ("project/html/a", "two", true),
        ])
        .unwrap();
        assert_eq!(read("project/conf/app.conf"), None);
        assert_eq!(read("project/conf/other.conf").unwrap(), "two");
        assert_eq!(read("project/html/a").unwrap(), "theirs");
        assert_eq!(read("project/html/data").unwrap(), "theirs");

        // Where it may not, nothing happens at all.
        std::fs::write(root.join("project/conf/other.conf"), "edited").unwrap();
        let refused = put(&[
            ("project/a-new-one", "x", false),
            ("project/conf/other.conf", "three", false),
        ]);
        let message = format!("{:#}", refused.unwrap_err());
        assert!(message.contains("project/conf/other.conf"), "{message}");
        assert_eq!(read("project/a-new-one"), None);
        assert_eq!(read("project/conf/other.conf").unwrap(), "edited");
    }

    #[test]
    fn empty_directories_are_made_and_known_files_not_read_again() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("bundles/shop");
        let mut one = bundle(temporary.path(), &[("project/a", "one", false)]);
        one.lock.directories.insert("project/data/empty".to_owned());
        assert!(!is_in_place(&root, &one.lock).unwrap());
        assert!(!root.exists());
        unpack(&root, &mut one).unwrap();
        assert!(root.join("project/data/empty").is_dir());
        assert!(is_in_place(&root, &one.lock).unwrap());
        // Data beside it stays, and nothing is to be read.
        std::fs::write(root.join("project/data/empty/new"), "theirs").unwrap();
        assert!(is_in_place(&root, &one.lock).unwrap());
        unpack(&root, &mut one).unwrap();
        assert!(root.join("project/data/empty/new").exists());
        std::fs::remove_file(root.join("project/a")).unwrap();
        assert!(!is_in_place(&root, &one.lock).unwrap());
    }

    #[test]
    fn links_that_a_container_made_lead_nowhere() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("bundles/shop");
        let elsewhere = temporary.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        unpack(&root, &mut bundle(temporary.path(), &[])).unwrap();
        std::fs::create_dir(root.join("project")).unwrap();
        symlink(&elsewhere, root.join("project/data")).unwrap();
        symlink(elsewhere.join("file"), root.join("project/link")).unwrap();
        for place in ["project/data/file", "project/link"] {
            let refused = unpack(&root, &mut bundle(temporary.path(), &[(place, "x", false)]));
            assert!(refused.is_err(), "{place}");
        }
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
