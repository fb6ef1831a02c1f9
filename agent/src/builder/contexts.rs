//! The contexts of one build: directories of the client's, obtained when the first step needs them.
//!
//! ```text
//! Directory  client on this host: its open directory, through /proc/<pid>/fd/<n> if device and inode agree
//!            any other client: a tar on a channel
//! Stream     a tar on a channel, perhaps compressed
//! Remote     a repository, a tar, or a Dockerfile on a server                                   [source]
//! ```
//!
//! A tar is unpacked into a directory of the build's own. Ignore files are heeded in directories alone, as in Docker. Images as
//! contexts are the plan's business. Must not: trust anything in a context; trees are bounded by the archive's limits,
//! files that the builder reads itself by [`MAX_FILE`].

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use agent_api::build::{ContextOffer, IgnoreFile};
use agent_build::ignore;
use agent_build::pattern::{self, Patterns};
use agent_image::build::View;
use agent_image::{Destination, ExtractOptions, Limits, Overwrite, Owner};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::failure::Failure;
use super::progress::{Progress, Seat};
use super::session::Session;
use super::work::{WorkDirectory, WorkRoot};
use crate::engine::blocking;
use crate::error::Error;

/// Longest Dockerfile or ignore file.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// A context that is here. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    /// What steps see of it.
    pub(crate) view: View,
    /// Patterns of its ignore file.
    pub(crate) ignored: Arc<Vec<String>>,
    unpacked: Option<Arc<WorkDirectory>>,
}

impl Context {
    /// Whether others may write to it while it is read: it is a directory of the client's.
    pub(crate) fn may_change(&self) -> bool {
        self.unpacked.is_none()
    }
}

/// A directory before anything of it is ignored.
#[derive(Clone)]
struct Raw {
    directory: Arc<OwnedFd>,
    unpacked: Option<Arc<WorkDirectory>>,
}

impl Raw {
    /// The content of one of its files.
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (raw, path) = (self.clone(), path.to_owned());
        let read = blocking(move || {
            let directory = raw.directory.try_clone().map_err(duplicated)?;
            View::directory(directory)
                .read(&path, MAX_FILE)
                .map_err(super::cache::files)
        });
        Ok(read.await?)
    }
}

/// The contexts of one build.
pub(crate) struct Contexts {
    offers: HashMap<String, ContextOffer>,
    /// The ignore file that came with the Dockerfile, and whether one did: then the directory's own is not looked for.
    main_ignore: Option<Option<IgnoreFile>>,
    /// Path of the Dockerfile in the main context: `<path>.dockerignore` comes before `.dockerignore`.
    dockerfile: String,
    /// Process of a client on this host.
    peer: Option<i32>,
    session: Option<Session>,
    classic: bool,
    work: Arc<WorkRoot>,
    progress: Progress,
    raw: HashMap<String, OnceCell<Raw>>,
    ready: HashMap<String, OnceCell<Context>>,
    /// Steps of the plan that stand for obtaining contexts.
    seats: Mutex<HashMap<String, Seat>>,
}

/// Where the contexts of a build are, and who can say more.
pub(crate) struct Sources {
    /// By name; the main one's is empty.
    pub(crate) offers: HashMap<String, ContextOffer>,
    /// The ignore file that came with the Dockerfile, if the Dockerfile did not come from the context.
    pub(crate) main_ignore: Option<Option<IgnoreFile>>,
    /// Path of the Dockerfile in the main context.
    pub(crate) dockerfile: String,
    /// Process of a client on this host.
    pub(crate) peer: Option<i32>,
    /// The client.
    pub(crate) session: Option<Session>,
    /// The main context is sent as clients did before BuildKit.
    pub(crate) classic: bool,
}

impl Contexts {
    /// Obtains nothing yet.
    pub(crate) fn new(sources: Sources, work: Arc<WorkRoot>, progress: Progress) -> Self {
        let names = || sources.offers.keys().cloned();
        Self {
            raw: names().map(|name| (name, OnceCell::new())).collect(),
            ready: names().map(|name| (name, OnceCell::new())).collect(),
            seats: Mutex::default(),
            offers: sources.offers,
            main_ignore: sources.main_ignore,
            dockerfile: sources.dockerfile,
            peer: sources.peer,
            session: sources.session,
            classic: sources.classic,
            work,
            progress,
        }
    }

    /// Puts a directory that is here in the place of the main context: a checkout, or an archive that was fetched.
    pub(crate) fn set_main(&self, unpacked: WorkDirectory) -> Result<(), Failure> {
        if let Some(cell) = self.raw.get("") {
            let _ = cell.set(opened(unpacked)?);
        }
        Ok(())
    }

    /// The step of a plan that is to tell how obtaining a context goes.
    pub(crate) fn announce(&self, name: &str, seat: Seat) {
        self.seats.lock().insert(name.to_owned(), seat);
    }

    /// A file of the main context, ignored or not.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.raw("").await?.read(path).await
    }

    /// A context, obtained and filtered.
    pub(crate) async fn get(&self, name: &str) -> Result<&Context, Failure> {
        let cell = self.ready.get(name).ok_or_else(|| unknown(name))?;
        let seat = self.seats.lock().get(name).cloned();
        if let Some(seat) = &seat {
            seat.start();
        }
        let context = cell.get_or_try_init(|| self.prepare(name)).await;
        match (&context, &seat) {
            (Ok(_), Some(seat)) => seat.done(),
            (Err(failure), Some(seat)) => seat.failed(failure.message()),
            (_, None) => {}
        }
        context
    }

    /// Patterns of the main context's ignore file, if it is known without obtaining the context.
    pub(crate) async fn main_ignored(&self) -> Result<Arc<Vec<String>>, Failure> {
        match self.ready.get("") {
            Some(_) if !matches!(self.offers[""], ContextOffer::Empty) => {
                Ok(Arc::clone(&self.get("").await?.ignored))
            }
            _ => Ok(Arc::default()),
        }
    }

    async fn prepare(&self, name: &str) -> Result<Context, Failure> {
        let raw = self.raw(name).await?;
        let patterns = self.patterns(name, raw).await?;
        let ignored = ignored(patterns.clone())?;
        let directory = raw.directory.try_clone().map_err(duplicated)?;
        Ok(Context {
            view: View::context(directory, ignored),
            ignored: Arc::new(patterns),
            unpacked: raw.unpacked.clone(),
        })
    }

    async fn patterns(&self, name: &str, raw: &Raw) -> Result<Vec<String>, Failure> {
        let given = match (name, self.offers.get(name)) {
            ("", Some(ContextOffer::Stream | ContextOffer::Remote { .. })) if self.classic => {
                return self.classic_patterns(raw).await;
            }
            // Who packs an archive has left out what is to be left out, and a repository has no more than it should.
            (_, Some(ContextOffer::Stream | ContextOffer::Remote { .. })) => None,
            ("", _) if self.main_ignore.is_some() => self.main_ignore.clone().flatten(),
            ("", _) => return self.main_patterns(raw).await,
            (_, Some(ContextOffer::Directory { ignore, .. })) => ignore.clone(),
            _ => None,
        };
        match given {
            None => Ok(Vec::new()),
            Some(file) => read_patterns(&file.name, file.text.as_bytes()),
        }
    }

    /// A client from before BuildKit sends the Dockerfile and the ignore file always; that they are to be left out is for
    /// the daemon to see. Source: moby `daemon/builder/remotecontext/detect.go` (`removeDockerfile`).
    async fn classic_patterns(&self, raw: &Raw) -> Result<Vec<String>, Failure> {
        const NAME: &str = ".dockerignore";
        let Some(text) = raw.read(NAME).await? else {
            return Ok(Vec::new());
        };
        let ignored = ignored(read_patterns(NAME, &text)?)?;
        let dockerfile = pattern::clean(&self.dockerfile);
        let sent = [NAME, &dockerfile].into_iter();
        Ok(sent
            .filter(|file| ignored.matches(file))
            .map(literal)
            .collect())
    }

    async fn main_patterns(&self, raw: &Raw) -> Result<Vec<String>, Failure> {
        let seat = Seat::begin(&self.progress, "[internal] load .dockerignore");
        let mut part = seat.part("transferring context:");
        let own = format!("{}.dockerignore", self.dockerfile);
        for file in [&*own, ".dockerignore"] {
            if let Some(text) = raw.read(file).await? {
                let patterns = read_patterns(file, &text);
                part.at("", text.len() as u64, 0);
                part.done();
                seat.done();
                return patterns;
            }
        }
        // BuildKit's message for none has two bytes.
        part.at("", 2, 0);
        part.done();
        seat.done();
        Ok(Vec::new())
    }

    async fn raw(&self, name: &str) -> Result<&Raw, Failure> {
        let cell = self.raw.get(name).ok_or_else(|| unknown(name))?;
        cell.get_or_try_init(|| self.obtain(name)).await
    }

    async fn obtain(&self, name: &str) -> Result<Raw, Failure> {
        match &self.offers[name] {
            ContextOffer::Directory {
                fd, device, inode, ..
            } => {
                let open = self
                    .peer
                    .and_then(|process| open_of(process, *fd, *device, *inode));
                match open {
                    Some(directory) => Ok(Raw {
                        directory: Arc::new(directory),
                        unpacked: None,
                    }),
                    None => self.receive(name).await,
                }
            }
            ContextOffer::Stream => self.receive(name).await,
            ContextOffer::Empty => {
                let work = self.work.directory()?;
                opened(work)
            }
            ContextOffer::Remote { .. }
            | ContextOffer::Image { .. }
            | ContextOffer::OciLayout { .. } => Err(Failure::system(format!(
                "the context {name:?} is not a directory of the client"
            ))),
        }
    }

    /// Unpacks a tar that the client sends.
    async fn receive(&self, name: &str) -> Result<Raw, Failure> {
        let asked = async { self.session.as_ref()?.context(name).await };
        let Some(archive) = asked.await else {
            return Err(Failure::invalid(format!(
                "the client does not send the context {name:?}"
            )));
        };
        opened(unpack(archive, self.work.directory()?).await?)
    }
}

/// Unpacks an archive, compressed or not, into a directory of the build's own.
pub(crate) async fn unpack(
    mut archive: impl std::io::Read + Send + 'static,
    work: WorkDirectory,
) -> Result<WorkDirectory, Failure> {
    let unpacked = blocking(move || {
        let directory = open_directory(work.path()).map_err(Error::io("open", work.path()))?;
        let options = ExtractOptions {
            overwrite: Overwrite::Anything,
            // Everything in a context belongs to root.
            owner: Owner::Caller,
            rename: None,
            limits: Limits::default(),
        };
        let destination = Destination {
            root: directory.as_fd(),
            directory: b"",
        };
        agent_image::extract(&mut archive, destination, &options)
            .map_err(|error| Error::invalid(format!("cannot unpack the context: {error}")))?;
        Ok(work)
    });
    Ok(unpacked.await?)
}

fn opened(work: WorkDirectory) -> Result<Raw, Failure> {
    let directory = open_directory(work.path())
        .map_err(|error| Failure::from(Error::io("open", work.path())(error)))?;
    Ok(Raw {
        directory: Arc::new(directory),
        unpacked: Some(Arc::new(work)),
    })
}

fn open_directory(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The directory that a process has open as `fd`, if it is the one it says. The process may be in another pid
/// namespace, gone, or lie: then there is nothing, or another directory.
fn open_of(process: i32, fd: i32, device: u64, inode: u64) -> Option<OwnedFd> {
    let path = format!("/proc/{process}/fd/{fd}");
    let directory = open_directory(path.as_ref()).ok()?;
    let metadata = std::fs::File::from(directory.try_clone().ok()?)
        .metadata()
        .ok()?;
    (metadata.dev() == device && metadata.ino() == inode).then_some(directory)
}

fn read_patterns(name: &str, text: &[u8]) -> Result<Vec<String>, Failure> {
    ignore::read(text).map_err(|error| Failure::invalid(format!("{name}: {error}")))
}

fn ignored(patterns: Vec<String>) -> Result<Patterns, Failure> {
    Patterns::new(patterns)
        .map_err(|error| Failure::invalid(format!("error in the ignore file: {error}")))
}

/// A pattern for exactly this path.
fn literal(path: &str) -> String {
    let escaped = |c: char| match c {
        '*' | '?' | '[' | ']' | '\\' | '!' | '^' | '-' => format!("\\{c}"),
        c => c.to_string(),
    };
    path.chars().map(escaped).collect()
}

fn duplicated(error: std::io::Error) -> Error {
    Error::system(format!(
        "cannot duplicate the descriptor of a context: {error}"
    ))
}

fn unknown(name: &str) -> Failure {
    Failure::system(format!(
        "the plan reads the context {name:?}, which was not given"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_patterns_match_one_path() {
        for path in [".dockerignore", "a/[x]*?.Dockerfile", "!x", "a-b^c"] {
            let patterns = ignored(vec![literal(path)]).unwrap();
            assert!(patterns.matches(path), "{path}");
            assert!(!patterns.matches("a/xyz.Dockerfile"), "{path}");
        }
    }

    #[test]
    fn a_directory_is_taken_from_a_process_only_if_it_is_the_one_it_says() {
        use std::os::fd::AsRawFd as _;
        let directory = tempfile::tempdir().unwrap();
        let open = open_directory(directory.path()).unwrap();
        let metadata = std::fs::metadata(directory.path()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let (dev, ino, fd) = (metadata.dev(), metadata.ino(), open.as_raw_fd());
        assert!(open_of(own, fd, dev, ino).is_some());
        assert!(open_of(own, fd, dev, ino + 1).is_none());
        assert!(open_of(own, fd + 1000, dev, ino).is_none());
        // A process that is not there.
        assert!(open_of(i32::MAX, fd, dev, ino).is_none());
    }
}
