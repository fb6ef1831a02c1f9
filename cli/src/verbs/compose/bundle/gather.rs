//! The files that go into a bundle: those the model refers to, and the compose and env files as they were written.
//!
//! Regular files only: a symbolic link would mean something else at the site, and is left out with a note. Directories
//! are walked in order of their names, so that the same files make the same bundle.

use crate::failure::Failure;
use anyhow::Context as _;
use compose::bundle::{LockedFile, Portable, Writer, name};
use compose_model::{Loaded, Project};
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Deepest nesting of directories, and most files.
const MAX_DEPTH: usize = 64;
const MAX_FILES: usize = 100_000;
/// Largest env file that is looked at.
const MAX_ENV_FILE: u64 = 1 << 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// By place in the bundle, below `muster/`.
    pub(super) files: BTreeMap<String, Source>,
    /// Directories without any file, by place.
    pub(super) directories: BTreeSet<String>,
    /// What does not go along, for people.
    pub(super) notes: Vec<String>,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(super) enum Source {
    Text(String),
    /// Only as long as it is the file that was found there: whoever can write to a directory (a container, to one that is
    /// bound) may have put another thing or a link in its place.
    Path {
        path: PathBuf,
        bind: bool,
        identity: Identity,
    },
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &std::fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl Source {
    /// Writes the file; gives what the lock says of it.
    pub(super) fn write(
        &self,
        writer: &mut Writer<impl Write>,
        entry: &str,
    ) -> anyhow::Result<LockedFile> {
        let (path, bind, found) = match self {
            Self::Text(text) => {
                writer.bytes(entry, 0o644, text.as_bytes())?;
                return Ok(LockedFile {
                    digest: compose::bundle::digest(text.as_bytes()),
                    size: text.len() as u64,
                    mode: 0o644,
                    bind: false,
                });
            }
            Self::Path {
                path,
                bind,
                identity,
            } => (path, *bind, *identity),
        };
        let mut file = open(path)?;
        let metadata = file.metadata()?;
        if identity(&metadata) != found {
            let reason = format!(
                "{} became another file while the bundle was written: run it again",
                path.display()
            );
            return Err(Failure::new(1, reason).into());
        }
        let mode = metadata.permissions().mode() & 0o777;
        let digest = writer.stream(entry, mode, metadata.len(), &mut file, &mut |_| {})?;
        Ok(LockedFile {
            digest,
            size: metadata.len(),
            mode,
            bind,
        })
    }
}

/// Opens a regular file; what is no longer one since it was listed must not hang or surprise.
fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if !file.metadata()?.is_file() {
        let reason = format!("{} is not a regular file", path.display());
        return Err(Failure::new(1, reason).into());
    }
    Ok(file)
}

/// Finds everything; `raw` is the project with its env files not yet read.
pub(super) fn gather(
    loaded: &Loaded,
    raw: &Project,
    portable: &Portable,
) -> anyhow::Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut excluded: BTreeSet<PathBuf> = portable.excluded.clone();
    excluded.extend(revealing(&env_files(loaded, raw), portable));
    let excluded = Excluded::new(excluded);
    for wanted in &portable.wanted {
        match std::fs::metadata(&wanted.path) {
            Ok(metadata) if metadata.is_dir() => {
                let walk = Walk {
                    excluded: &excluded,
                    bind: wanted.bind,
                };
                walk.top(&wanted.path, &wanted.place, &mut gathered)?;
            }
            Ok(metadata) if wanted.bind && excluded.covers(&wanted.path, &metadata) => {
                gathered.notes.push(format!(
                    "not in the bundle: {}: {} holds a secret",
                    wanted.what,
                    wanted.path.display()
                ));
            }
            Ok(metadata) => gathered.path(&wanted.place, &wanted.path, &metadata, wanted.bind)?,
            // The engine makes a missing directory.
            Err(_) if wanted.bind => gathered.notes.push(format!(
                "not in the bundle: {}: there is no {}",
                wanted.what,
                wanted.path.display()
            )),
            Err(error) => {
                let reason = format!(
                    "cannot read {} of {}: {error}",
                    wanted.path.display(),
                    wanted.what
                );
                return Err(Failure::new(1, reason).into());
            }
        }
    }
    originals(loaded, raw, portable, &mut gathered)?;
    Ok(gathered)
}

/// The files as they were written.
fn originals(
    loaded: &Loaded,
    raw: &Project,
    portable: &Portable,
    gathered: &mut Gathered,
) -> anyhow::Result<()> {
    let project = &loaded.project;
    let current = std::env::current_dir()?;
    let mut outside = 0;
    let mut place = |path: &Path| match path.strip_prefix(&project.working_dir) {
        Ok(below) => format!("original/{}", below.display()),
        Err(_) => {
            outside += 1;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("original/@{outside}/{name}")
        }
    };
    for source in loaded.sources.iter() {
        let path = match source.name.as_str() {
            "-" => project.working_dir.join("stdin.yaml"),
            name => current.join(name),
        };
        gathered.add(place(&path), Source::Text(source.text.clone()))?;
    }
    for path in env_files(loaded, raw) {
        let metadata = std::fs::metadata(&path)?;
        if !metadata.is_file() || metadata.len() > MAX_ENV_FILE {
            let shown = path.display();
            gathered.notes.push(format!(
                "not in the bundle: {shown}, which is no small file"
            ));
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        match hidden_in(&text, portable) {
            Some(variable) => gathered.notes.push(format!(
                "not in the bundle: env file {}, since a secret comes from its variable {variable}",
                path.display()
            )),
            None => gathered.add(place(&path), Source::Text(text))?,
        }
    }
    Ok(())
}

/// The env and label files that are there.
fn env_files(loaded: &Loaded, raw: &Project) -> BTreeSet<PathBuf> {
    let services = raw.services.values();
    let env_files = services.flat_map(|service| service.env_file.iter().map(|file| &file.path));
    let labels = raw
        .services
        .values()
        .flat_map(|service| &service.label_file);
    let mut paths: BTreeSet<PathBuf> = env_files.chain(labels).map(PathBuf::from).collect();
    paths.extend(loaded.project.env_files.iter().cloned());
    paths.retain(|path| path.exists());
    paths
}

/// The variable of a secret that a text speaks of.
fn hidden_in<'p>(text: &str, portable: &'p Portable) -> Option<&'p String> {
    let mut hidden = portable.hidden.iter();
    hidden.find(|name| text.contains(name.as_str()))
}

/// Those that secrets come from, or that cannot be looked into.
fn revealing(env_files: &BTreeSet<PathBuf>, portable: &Portable) -> BTreeSet<PathBuf> {
    if portable.hidden.is_empty() {
        return BTreeSet::new();
    }
    let reveals = |path: &&PathBuf| match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_ENV_FILE => {
            let text = std::fs::read(path);
            text.map_or(true, |text| {
                hidden_in(&String::from_utf8_lossy(&text), portable).is_some()
            })
        }
        _ => true,
    };
    env_files.iter().filter(reveals).cloned().collect()
}

/// Files that never go along, by whatever name a directory has them: a link to a directory, or a hard link, is another
/// name of the same file.
struct Excluded {
    paths: BTreeSet<PathBuf>,
    files: BTreeSet<Identity>,
}

impl Excluded {
    fn new(paths: BTreeSet<PathBuf>) -> Self {
        let files = paths.iter().filter_map(|path| std::fs::metadata(path).ok());
        Self {
            files: files.map(|file| identity(&file)).collect(),
            paths,
        }
    }

    fn covers(&self, path: &Path, metadata: &std::fs::Metadata) -> bool {
        self.paths.contains(path) || self.files.contains(&identity(metadata))
    }
}

struct Walk<'a> {
    excluded: &'a Excluded,
    bind: bool,
}

impl Walk<'_> {
    /// A directory that the project names.
    fn top(&self, path: &Path, place: &str, gathered: &mut Gathered) -> anyhow::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("cannot read {}", path.display()))?;
        self.directory(&opened, path, place, 0, gathered)
    }

    /// What is in an open directory; `path` is what it is called.
    fn directory(
        &self,
        opened: &OwnedFd,
        directory: &Path,
        place: &str,
        depth: usize,
        gathered: &mut Gathered,
    ) -> anyhow::Result<()> {
        if depth > MAX_DEPTH {
            let reason = format!(
                "{} is nested more than {MAX_DEPTH} deep",
                directory.display()
            );
            return Err(Failure::new(1, reason).into());
        }
        let cannot = || format!("cannot read {}", directory.display());
        let listed = std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let entries: std::io::Result<Vec<_>> = listed.with_context(cannot)?.collect();
        let mut entries = entries.with_context(cannot)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        if entries.is_empty() {
            return gathered.directory(place);
        }
        for entry in entries {
            let name = entry.file_name();
            let path = directory.join(&name);
            // Of the entry itself, not of what a link points to.
            let metadata = entry.metadata()?;
            if self.excluded.covers(&path, &metadata) {
                continue;
            }
            let Some(name) = name.to_str() else {
                let reason = format!("the name of {} is not UTF-8", path.display());
                return Err(Failure::new(1, reason).into());
            };
            let place = format!("{place}/{name}");
            let kind = metadata.file_type();
            if kind.is_dir() {
                // Not a link that has been put there since.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(opened, name, flags, Mode::empty())
                    .with_context(|| format!("cannot read {}", path.display()))?;
                self.directory(&below, &path, &place, depth + 1, gathered)?;
            } else if kind.is_file() {
                gathered.path(&place, &path, &metadata, self.bind)?;
            } else {
                gathered.notes.push(format!(
                    "not in the bundle: {}, which is no regular file",
                    path.display()
                ));
            }
        }
        Ok(())
    }
}

fn check_place(place: &str) -> anyhow::Result<()> {
    if name::is_file(place) {
        return Ok(());
    }
    let reason = format!("{place} cannot be in a bundle: its path is too long, or odd");
    Err(Failure::new(1, reason).into())
}

impl Gathered {
    fn path(
        &mut self,
        place: &str,
        path: &Path,
        metadata: &std::fs::Metadata,
        bind: bool,
    ) -> anyhow::Result<()> {
        let source = Source::Path {
            path: path.to_owned(),
            bind,
            identity: identity(metadata),
        };
        self.add(place.to_owned(), source)
    }

    fn directory(&mut self, place: &str) -> anyhow::Result<()> {
        check_place(place)?;
        self.directories.insert(place.to_owned());
        self.check_count()
    }

    fn add(&mut self, place: String, source: Source) -> anyhow::Result<()> {
        check_place(&place)?;
        // A config in a directory that is bind-mounted is found twice: what the site must not change wins.
        self.files.entry(place).or_insert(source);
        self.check_count()
    }

    fn check_count(&self) -> anyhow::Result<()> {
        if self.files.len() + self.directories.len() > MAX_FILES {
            let reason = format!("the project has more than {MAX_FILES} files to take along");
            return Err(Failure::new(1, reason).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_left_out_by_every_name_it_has() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("real");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/key.pem"), "hush").unwrap();
        std::fs::write(root.join("sub/page"), "hello").unwrap();
        std::fs::hard_link(root.join("sub/key.pem"), root.join("twin")).unwrap();
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(&root, &link).unwrap();
        // The project calls it by one name, the directory is walked by another.
        let excluded = Excluded::new(BTreeSet::from([link.join("sub/key.pem")]));
        let walk = Walk {
            excluded: &excluded,
            bind: true,
        };
        let mut gathered = Gathered::default();
        walk.top(&root, "project", &mut gathered).unwrap();
        let places: Vec<&String> = gathered.files.keys().collect();
        assert_eq!(places, ["project/sub/page"]);
    }

    #[test]
    fn a_file_that_was_replaced_since_it_was_found_does_not_go_along() {
        let temporary = tempfile::tempdir().unwrap();
        let outside = temporary.path().join("outside");
        std::fs::write(&outside, "the host's").unwrap();
        let data = temporary.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for name in ["a", "sub"] {
            std::fs::create_dir(data.join(name)).unwrap();
            std::fs::write(data.join(name).join("z"), "a container's").unwrap();
        }
        let walk = Walk {
            excluded: &Excluded::new(BTreeSet::new()),
            bind: true,
        };
        let mut gathered = Gathered::default();
        walk.top(&data, "project", &mut gathered).unwrap();
        // A link in the file's place, and one in its directory's.
        std::fs::remove_file(data.join("a/z")).unwrap();
        std::os::unix::fs::symlink(&outside, data.join("a/z")).unwrap();
        std::fs::rename(data.join("sub"), data.join("moved")).unwrap();
        std::fs::create_dir(temporary.path().join("far")).unwrap();
        std::fs::write(temporary.path().join("far/z"), "the host's").unwrap();
        std::os::unix::fs::symlink(temporary.path().join("far"), data.join("sub")).unwrap();
        for place in ["project/a/z", "project/sub/z"] {
            let mut writer = Writer::new(Vec::new());
            let refused = gathered.files[place].write(&mut writer, place).unwrap_err();
            let told = refused.to_string();
            assert!(told.contains("became another file"), "{told}");
        }
    }

    #[test]
    fn env_files_that_secrets_come_from_are_left_out() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &[u8]| {
            let path = temporary.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (secret, plain) = (at(".env", b"A=1\nTOKEN=hush\n"), at("plain", b"A=1\n"));
        let (odd, gone) = (at("odd", b"\xff TOKEN"), temporary.path().join("gone"));
        let files = BTreeSet::from([secret.clone(), plain, odd.clone(), gone.clone()]);
        let mut portable = Portable::default();
        assert!(revealing(&files, &portable).is_empty());
        portable.hidden.insert("TOKEN".to_owned());
        let revealing = revealing(&files, &portable);
        assert_eq!(revealing, BTreeSet::from([secret, odd, gone]));
    }

    #[test]
    fn empty_directories_are_found() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temporary.path().join("a/empty")).unwrap();
        let excluded = Excluded::new(BTreeSet::new());
        let walk = Walk {
            excluded: &excluded,
            bind: true,
        };
        let mut gathered = Gathered::default();
        walk.top(temporary.path(), "project", &mut gathered)
            .unwrap();
        assert!(gathered.files.is_empty());
        let empty = BTreeSet::from(["project/a/empty".to_owned()]);
        assert_eq!(gathered.directories, empty);
    }
}
