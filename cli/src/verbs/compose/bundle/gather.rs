//! The files that go into a bundle: those the model refers to, and the compose and env files as they were written.
//!
//! Regular files only: a symbolic link would mean something else at the site, and is left out with a note. Directories
//! are walked in order of their names, so that the same files make the same bundle.

use crate::failure::Failure;
use anyhow::Context as _;
use compose::bundle::{LockedFile, Portable, Writer, name};
use compose_model::{Loaded, Project};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
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
    /// What does not go along, for people.
    pub(super) notes: Vec<String>,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(super) enum Source {
    Text(String),
    Path { path: PathBuf, bind: bool },
}

impl Source {
    /// Writes the file; gives what the lock says of it.
    pub(super) fn write(
        &self,
        writer: &mut Writer<impl Write>,
        entry: &str,
    ) -> anyhow::Result<LockedFile> {
        let (path, bind) = match self {
            Self::Text(text) => {
                writer.bytes(entry, 0o644, text.as_bytes())?;
                return Ok(LockedFile {
                    digest: compose::bundle::digest(text.as_bytes()),
                    size: text.len() as u64,
                    mode: 0o644,
                    bind: false,
                });
            }
            Self::Path { path, bind } => (path, *bind),
        };
        let mut file = open(path)?;
        let metadata = file.metadata()?;
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
    for wanted in &portable.wanted {
        match std::fs::metadata(&wanted.path) {
            Ok(metadata) if metadata.is_dir() => {
                let walk = Walk {
                    excluded: &portable.excluded,
                    bind: wanted.bind,
                };
                walk.directory(&wanted.path, &wanted.place, 0, &mut gathered)?;
            }
            Ok(_) => gathered.path(&wanted.place, &wanted.path, wanted.bind)?,
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
    let services = raw.services.values();
    let env_files = services.flat_map(|service| service.env_file.iter().map(|file| &file.path));
    let labels = raw
        .services
        .values()
        .flat_map(|service| &service.label_file);
    let mut paths: BTreeSet<PathBuf> = env_files.chain(labels).map(PathBuf::from).collect();
    paths.extend(project.env_files.iter().cloned());
    for path in paths.into_iter().filter(|path| path.exists()) {
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
        let hidden = portable
            .hidden
            .iter()
            .find(|name| text.contains(name.as_str()));
        match hidden {
            Some(variable) => gathered.notes.push(format!(
                "not in the bundle: env file {}, since a secret comes from its variable {variable}",
                path.display()
            )),
            None => gathered.add(place(&path), Source::Text(text))?,
        }
    }
    Ok(())
}

struct Walk<'a> {
    excluded: &'a BTreeSet<PathBuf>,
    bind: bool,
}

impl Walk<'_> {
    fn directory(
        &self,
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
        let entries: std::io::Result<Vec<_>> = std::fs::read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
            .collect();
        let mut entries =
            entries.with_context(|| format!("cannot read {}", directory.display()))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if self.excluded.contains(&path) {
                continue;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let reason = format!("the name of {} is not UTF-8", path.display());
                return Err(Failure::new(1, reason).into());
            };
            let place = format!("{place}/{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directory(&path, &place, depth + 1, gathered)?;
            } else if kind.is_file() {
                gathered.path(&place, &path, self.bind)?;
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

impl Gathered {
    fn path(&mut self, place: &str, path: &Path, bind: bool) -> anyhow::Result<()> {
        let path = path.to_owned();
        self.add(place.to_owned(), Source::Path { path, bind })
    }

    fn add(&mut self, place: String, source: Source) -> anyhow::Result<()> {
        if !name::is_file(&place) {
            let reason = format!("{place} cannot be in a bundle: its path is too long, or odd");
            return Err(Failure::new(1, reason).into());
        }
        // A config in a directory that is bind-mounted is found twice: what the site must not change wins.
        self.files.entry(place).or_insert(source);
        if self.files.len() > MAX_FILES {
            let reason = format!("the project has more than {MAX_FILES} files to take along");
            return Err(Failure::new(1, reason).into());
        }
        Ok(())
    }
}
