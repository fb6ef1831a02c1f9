//! One commit of a repository: which one a name is, its objects, its files. By gitoxide, on a thread that may block.
//!
//! Objects are kept only as long as the files are written, unless the `.git` directory is wanted. Must not: trust a tree:
//! names are checked by gitoxide, objects bounded, and what is below a link is not written.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::bstr::{BString, ByteSlice as _};
use gix::progress::Discard;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Tags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use url::Url;

use super::transport::Link;
use crate::error::{Error, Result};

/// Largest object, in memory while it is put together.
const OBJECT_MAX: &str = "gitoxide.objects.allocLimit=1073741824";
/// Most files and directories of a checkout.
const FILES_MAX: u64 = 2_000_000;
/// Longest that their paths may be together, since all of them are in memory.
const PATHS_MAX: u64 = 512 << 20;
/// Directories in directories.
const LEVELS_MAX: usize = 512;
/// Submodules in submodules.
const DEPTH_MAX: usize = 8;
/// Submodules in all.
const SUBMODULES_MAX: usize = 256;
/// Longest `.gitmodules`.
const MODULES_MAX: u64 = 1 << 20;
/// Where the fetched commit is known by a name, so that it is a part of the repository.
const FETCHED: &str = "refs/muster/fetched";

/// A name in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// `HEAD`, `refs/heads/main`, …
    pub(super) full: String,
    /// What it leads to: of a tag the commit, in hexadecimal digits.
    pub(super) commit: String,
}

/// What is to be put into a directory.
pub(super) struct Wanted {
    pub(super) commit: String,
    pub(super) subdirectory: String,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
}

/// All names of a repository.
pub(super) fn names(link: &Link) -> Result<Vec<Name>> {
    let scratch = tempfile::tempdir().map_err(scratch_failed)?;
    let repository = init(scratch.path(), gix::create::Kind::Bare)?;
    let failed = |error: gix::Error| failed("look into", link, &error);
    let remote = remote(&repository, link, "+refs/heads/*:refs/remotes/origin/*")?;
    let connection = remote
        .to_connection_with_transport(open(link)?)
        .with_credentials(|_| Ok(None));
    let options = gix::remote::ref_map::Options {
        prefix_from_spec_as_filter_on_remote: false,
        ..gix::remote::ref_map::Options::default()
    };
    let (map, _) = connection.ref_map(Discard, options).map_err(failed)?;
    Ok(map.remote_refs.iter().filter_map(name).collect())
}

fn name(found: &gix::protocol::handshake::Ref) -> Option<Name> {
    use gix::protocol::handshake::Ref;
    let (full, commit) = match found {
        Ref::Peeled {
            full_ref_name,
            object,
            ..
        }
        | Ref::Direct {
            full_ref_name,
            object,
        }
        | Ref::Symbolic {
            full_ref_name,
            object,
            ..
        } => (full_ref_name, object),
        Ref::Unborn { .. } => return None,
    };
    Some(Name {
        full: full.to_string(),
        commit: commit.to_string(),
    })
}

/// Fetches a commit and writes its files.
pub(super) fn check_out(
    link: &Link,
    wanted: &Wanted,
    into: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    let mut job = Job {
        stop,
        submodules: wanted.submodules,
        left: SUBMODULES_MAX,
    };
    if wanted.keep_git_dir {
        return job.commit(link, &wanted.commit, into, Some(into), 0);
    }
    if wanted.subdirectory.is_empty() {
        return job.commit(link, &wanted.commit, into, None, 0);
    }
    // A name that the tree cannot have: whatever is in it, nothing is in the way of the other.
    let whole = into.join(".muster-checkout");
    fs::create_dir(&whole).map_err(Error::io("create", &whole))?;
    job.commit(link, &wanted.commit, &whole, None, 0)?;
    lift(&whole, &wanted.subdirectory, into)
}

/// Moves what is in a directory below `whole` into `into`, and removes the rest.
fn lift(whole: &Path, subdirectory: &str, into: &Path) -> Result<()> {
    let inside = open_beneath(whole, subdirectory).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
            Error::not_found(format!("the repository has no directory {subdirectory:?}"))
        }
        errno => Error::io("open", &whole.join(subdirectory))(errno.into()),
    })?;
    let failed = || Error::io("move files of", whole);
    let directory = rustix::fs::Dir::read_from(&inside).map_err(|e| failed()(e.into()))?;
    for entry in directory {
        let entry = entry.map_err(|errno| failed()(errno.into()))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let target = into.join(name.to_bytes().to_os_str().map_err(|_| {
            Error::invalid("the repository has a name that is no name of a file".to_owned())
        })?);
        rustix::fs::renameat(&inside, name, rustix::fs::CWD, &target)
            .map_err(|errno| failed()(errno.into()))?;
    }
    agent_image::remove_tree(whole).map_err(Error::io("remove", whole))
}

/// A directory inside of another one, with no link on the way.
fn open_beneath(root: &Path, path: &str) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(&root, path.trim_matches('/'), flags, Mode::empty(), resolve)
}

/// Makes a directory inside of another one, and those on the way; follows no link.
fn create_beneath(root: &Path, path: &str) -> std::result::Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut at = rustix::fs::open(root, flags, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        at = rustix::fs::openat2(&at, name, flags, Mode::empty(), resolve)?;
    }
    Ok(())
}

/// What a tree is when it is written out: equal trees are one object, however often they occur.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// And directories: empty ones take as long to go through.
    files: u64,
    /// Bytes of all paths.
    paths: u64,
}

/// Why a tree is not written out.
#[derive(Debug, thiserror::Error)]
enum SizeError {
    #[error("has more than {FILES_MAX} files and directories")]
    Files,
    #[error("has paths of more than {} MiB together", PATHS_MAX >> 20)]
    Paths,
    #[error("has directories nested more than {LEVELS_MAX} deep")]
    Levels,
    #[error("canceled")]
    Stopped,
    #[error(transparent)]
    Git(gix::Error),
}

/// Sizes of trees, each looked at once: ten objects can stand for more files than any disk has room for.
struct Sizes<'a> {
    repository: &'a gix::Repository,
    stop: &'a AtomicBool,
    known: HashMap<gix::ObjectId, Size>,
}

impl<'a> Sizes<'a> {
    fn new(repository: &'a gix::Repository, stop: &'a AtomicBool) -> Self {
        Self {
            repository,
            stop,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, tree: gix::ObjectId, level: usize) -> std::result::Result<Size, SizeError> {
        if let Some(size) = self.known.get(&tree) {
            return Ok(*size);
        }
        if level > LEVELS_MAX {
            return Err(SizeError::Levels);
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(SizeError::Stopped);
        }
        let object = self.repository.find_tree(tree).map_err(SizeError::Git)?;
        let mut size = Size::default();
        for entry in object.iter() {
            let entry = entry.map_err(|error| SizeError::Git(gix::Error::from_error(error)))?;
            let name = entry.filename().len() as u64 + 1;
            let below = match entry.mode().is_tree() {
                true => self.of(entry.oid().to_owned(), level + 1)?,
                false => Size::default(),
            };
            size.files += below.files + 1;
            size.paths += below.paths + (below.files + 1) * name;
            if size.files > FILES_MAX {
                return Err(SizeError::Files);
            }
            if size.paths > PATHS_MAX {
                return Err(SizeError::Paths);
            }
        }
        self.known.insert(tree, size);
        Ok(size)
    }
}

fn stopped() -> Error {
    Error::Unavailable("canceled".to_owned())
}

/// A checkout under way.
struct Job<'a> {
    stop: &'a AtomicBool,
    submodules: bool,
    /// How many submodules may still come.
    left: usize,
}

impl Job<'_> {
    /// Writes the files of a commit into a directory. The objects go into its `.git`, or where they are soon forgotten.
    fn commit(
        &mut self,
        link: &Link,
        commit: &str,
        into: &Path,
        keep: Option<&Path>,
        depth: usize,
    ) -> Result<()> {
        let scratch = match keep {
            Some(_) => None,
            // Beside the files: packs are large, and memory is not the place for them.
            None => Some(
                tempfile::Builder::new()
                    .prefix(".muster-objects-")
                    .tempdir_in(into.parent().unwrap_or(into))
                    .map_err(scratch_failed)?,
            ),
        };
        let repository = match &scratch {
            Some(scratch) => init(scratch.path(), gix::create::Kind::Bare)?,
            None => init(into, gix::create::Kind::WithWorktree)?,
        };
        self.fetch(&repository, link, commit)?;
        let modules = self.files(&repository, link, commit, into, keep.is_some())?;
        drop(repository);
        drop(scratch);
        if self.submodules && !modules.is_empty() {
            self.submodules(link, into, modules, depth)?;
        }
        Ok(())
    }

    fn fetch(&self, repository: &gix::Repository, link: &Link, commit: &str) -> Result<()> {
        let failed = |error: gix::Error| failed("fetch", link, &error);
        let remote = remote(repository, link, &format!("+{commit}:{FETCHED}"))?;
        let connection = remote
            .to_connection_with_transport(open(link)?)
            .with_credentials(|_| Ok(None));
        let depth = Shallow::DepthAtRemote(NonZeroU32::MIN);
        connection
            .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
            .map_err(failed)?
            .with_shallow(depth)
            .receive(Discard, self.stop)
            .map_err(failed)?;
        Ok(())
    }

    /// Writes the files; tells where submodules belong and at which commits.
    fn files(
        &self,
        repository: &gix::Repository,
        link: &Link,
        commit: &str,
        into: &Path,
        keep: bool,
    ) -> Result<Vec<(BString, String)>> {
        let failed = |error: gix::Error| failed("check out", link, &error);
        let id: gix::ObjectId = commit
            .parse()
            .map_err(|_| Error::invalid(format!("{commit:?} is not the id of a commit")))?;
        let object = repository.find_object(id).map_err(failed)?;
        let tree = object.peel_to_tree().map_err(failed)?;
        let size = Sizes::new(repository, self.stop).of(tree.id, 0);
        size.map_err(|error| match error {
            SizeError::Git(error) => failed(error),
            SizeError::Stopped => stopped(),
            too_large => Error::invalid(format!("the repository {} {too_large}", link.address())),
        })?;
        let mut index = repository.index_from_tree(&tree.id).map_err(failed)?;
        let source = gix::worktree::stack::state::attributes::Source::IdMapping;
        let mut options = repository.checkout_options(source).map_err(failed)?;
        options.destination_is_initially_empty = true;
        let objects = repository
            .objects
            .clone()
            .into_arc()
            .map_err(|error| Error::system(format!("cannot open fetched objects: {error}")))?;
        let outcome = gix::worktree::state::checkout(
            &mut index, into, objects, &Discard, &Discard, self.stop, options,
        )
        .map_err(failed)?;
        if let Some(collision) = outcome.collisions.first() {
            return Err(Error::invalid(format!(
                "the repository {} has two files at {}",
                link.address(),
                collision.path
            )));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        if keep {
            index
                .write(gix::index::write::Options::default())
                .map_err(|error| Error::system(format!("cannot write the index: {error}")))?;
            let head = into.join(".git/HEAD");
            fs::write(&head, format!("{commit}\n")).map_err(Error::io("write", &head))?;
        }
        let modules = index
            .entries()
            .iter()
            .filter(|entry| entry.mode == gix::index::entry::Mode::COMMIT)
            .map(|entry| (entry.path(&index).to_owned(), entry.id.to_string()));
        Ok(modules.collect())
    }

    fn submodules(
        &mut self,
        link: &Link,
        into: &Path,
        modules: Vec<(BString, String)>,
        depth: usize,
    ) -> Result<()> {
        if depth >= DEPTH_MAX {
            return Err(Error::invalid(format!(
                "submodules of {} are nested more than {DEPTH_MAX} deep",
                link.address()
            )));
        }
        let known = gitmodules(into)?;
        for (path, commit) in modules {
            let shown = path.to_string();
            // As git does: what `.gitmodules` does not name stays an empty directory.
            let Some((_, address)) = known.iter().find(|(known, _)| *known == path) else {
                continue;
            };
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                Error::invalid(format!("there are more than {SUBMODULES_MAX} submodules"))
            })?;
            let url = submodule_url(link.url(), address)
                .map_err(|error| error.context(format!("submodule {shown}")))?;
            let directory = into.join(
                path.to_os_str()
                    .map_err(|_| Error::invalid(format!("{shown:?} is no name of a directory")))?,
            );
            create_beneath(into, &shown).map_err(|errno| match errno {
                Errno::LOOP | Errno::XDEV | Errno::NOTDIR => Error::invalid(format!(
                    "the path of the submodule {shown} goes through a link or a file"
                )),
                errno => Error::io("create", &directory)(errno.into()),
            })?;
            self.commit(&link.to(url), &commit, &directory, None, depth + 1)
                .map_err(|error| error.context(format!("submodule {shown}")))?;
        }
        Ok(())
    }
}

/// Paths and addresses of submodules.
fn gitmodules(into: &Path) -> Result<Vec<(BString, String)>> {
    let path = into.join(".gitmodules");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::io("open", &path)(errno.into())),
    };
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MODULES_MAX), &mut text)
        .map_err(Error::io("read", &path))?;
    let malformed = |what: String| Error::invalid(format!("cannot read .gitmodules: {what}"));
    let config = gix::config::File::from_bytes_no_includes(
        &text,
        gix::config::file::Metadata::api(),
        gix::config::file::init::Options::default(),
    )
    .map_err(|error| malformed(error.to_string()))?;
    let sections = config.sections_by_name("submodule").into_iter().flatten();
    let known = sections.filter_map(|section| {
        let path = section.value("path")?.clone();
        let url = section.value("url")?.to_str().ok()?.to_owned();
        Some((path, url))
    });
    Ok(known.collect())
}

/// The address of a submodule, which may be relative to the repository's.
fn submodule_url(of: &Url, address: &str) -> Result<Url> {
    if !address.starts_with("./") && !address.starts_with("../") {
        return super::address(address);
    }
    let mut base = of.clone();
    let path = base.path().trim_end_matches('/').to_owned();
    base.set_path(&format!("{path}/"));
    base.join(address)
        .map_err(|error| Error::invalid(format!("the address {address:?} is malformed: {error}")))
}

fn init(directory: &Path, kind: gix::create::Kind) -> Result<gix::Repository> {
    let create = gix::create::Options::default();
    let open = gix::open::Options::isolated().config_overrides([
        OBJECT_MAX,
        "core.logAllRefUpdates=false",
        "core.longPaths=true",
    ]);
    let repository = gix::ThreadSafeRepository::init_opts(directory, kind, create, open);
    Ok(repository
        .map_err(|error| {
            Error::system(format!(
                "cannot make a repository in {}: {}",
                directory.display(),
                error.probable_cause()
            ))
        })?
        .to_thread_local())
}

fn remote<'r>(repository: &'r gix::Repository, link: &Link, spec: &str) -> Result<gix::Remote<'r>> {
    let failed = |error: gix::Error| failed("ask", link, &error);
    let mut url = link.url().clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    repository
        .remote_at_without_url_rewrite(url.as_str())
        .map_err(failed)?
        .with_fetch_tags(Tags::None)
        .with_refspecs([spec], Direction::Fetch)
        .map_err(failed)
}

fn open(link: &Link) -> Result<Box<dyn gix_transport::client::blocking_io::Transport + Send>> {
    link.open().map_err(|error| {
        Error::Unavailable(format!(
            "cannot reach the repository {}: {error}",
            link.address()
        ))
    })
}

fn failed(what: &str, link: &Link, error: &gix::Error) -> Error {
    Error::invalid(format!(
        "cannot {what} the repository {}: {}",
        link.address(),
        link.explain(error)
    ))
}

fn scratch_failed(error: std::io::Error) -> Error {
    Error::system(format!(
        "cannot make a directory for fetched objects: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_submodules_are_made_through_no_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(create_beneath(root.path(), "link/x"), Err(Errno::LOOP));
        assert_eq!(create_beneath(root.path(), "file/x"), Err(Errno::NOTDIR));
        assert!(create_beneath(root.path(), "../x").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        for _ in 0..2 {
            create_beneath(root.path(), "a/b/c").unwrap();
        }
        assert!(root.path().join("a/b/c").is_dir());
    }
}
