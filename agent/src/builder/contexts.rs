//! The contexts of one build: directories of the client's, obtained when the first step needs them.
//!
//! ```text
//! Directory  client on this host: its open directory, through /proc/<pid>/fd/<n> if device and inode agree, the file
//!            system is of this machine ([`ON_THIS_MACHINE`]), and nothing in it turns out to be unreadable
//!            otherwise: a tar on a channel
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
    raw: Raw,
}

impl Context {
    /// Whether it may be something else than what was read of it before: it is a directory of the client's, or was taken for one.
    pub(crate) fn may_change(&self) -> bool {
        self.raw.unpacked.is_none() || self.raw.instead
    }
}

/// A directory before anything of it is ignored.
#[derive(Clone)]
struct Raw {
    directory: Arc<OwnedFd>,
    unpacked: Option<Arc<WorkDirectory>>,
    /// It was sent because the directory itself cannot be read.
    instead: bool,
}

impl Raw {
    /// The content of one of its files.
    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (raw, path) = (self.clone(), path.to_owned());
        let read = blocking(move || {
            let directory = raw.directory.try_clone().map_err(duplicated)?;
            Ok(View::directory(directory).read(&path, MAX_FILE))
        });
        Ok(read.await??)
    }
}

/// What is known of one context.
#[derive(Default)]
struct Place {
    raw: OnceCell<Raw>,
    ready: OnceCell<Context>,
    /// In the place of those, once the directory has turned out to be unreadable.
    sent: OnceCell<Raw>,
    sent_ready: OnceCell<Context>,
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
    places: HashMap<String, Place>,
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
        let names = sources.offers.keys().cloned();
        Self {
            places: names.map(|name| (name, Place::default())).collect(),
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
        if let Some(place) = self.places.get("") {
            let _ = place.raw.set(opened(unpacked)?);
        }
        Ok(())
    }

    /// The step of a plan that is to tell how obtaining a context goes.
    pub(crate) fn announce(&self, name: &str, seat: Seat) {
        self.seats.lock().insert(name.to_owned(), seat);
    }

    /// A file of the main context, ignored or not.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self.raw("").await?.read(path).await {
            Err(failure) if self.is_sent_after(&failure, "").await? => {
                self.raw("").await?.read(path).await
            }
            read => read,
        }
    }

    /// After a file of a context could not be read: lets the client send the context, if it was read in its place so far. False
    /// when that would not help.
    pub(crate) async fn is_sent_after(
        &self,
        failure: &Failure,
        name: &str,
    ) -> Result<bool, Failure> {
        let place = self.place(name)?;
        let in_place = place.raw.get().is_some_and(|raw| raw.unpacked.is_none());
        if !(failure.is_denied() && in_place && self.session.is_some()) {
            return Ok(false);
        }
        let send = || async {
            tracing::info!(
                context = name,
                reason = failure.message(),
                "the client sends what cannot be read here"
            );
            let sent = self.receive(name).await?;
            Ok::<Raw, Failure>(Raw {
                instead: true,
                ..sent
            })
        };
        place.sent.get_or_try_init(send).await?;
        Ok(true)
    }

    /// Whether a context is still to come from the client.
    pub(crate) fn is_awaited(&self, name: &str) -> bool {
        let Some(place) = self.places.get(name) else {
            return false;
        };
        let comes = match &self.offers[name] {
            ContextOffer::Directory { .. } => self.peer.is_none(),
            ContextOffer::Stream => true,
            _ => false,
        };
        comes && !place.raw.initialized()
    }

    /// A context, obtained and filtered.
    pub(crate) async fn get(&self, name: &str) -> Result<&Context, Failure> {
        let place = self.place(name)?;
        let seat = self.seats.lock().get(name).cloned();
        if let Some(seat) = &seat {
            seat.start();
        }
        let prepared = || async {
            let cell = match place.sent.initialized() {
                true => &place.sent_ready,
                false => &place.ready,
            };
            cell.get_or_try_init(|| self.prepare(name)).await
        };
        let mut context = prepared().await;
        if let Err(failure) = &context
            && self.is_sent_after(failure, name).await?
        {
            context = prepared().await;
        }
        match (&context, &seat) {
            (Ok(_), Some(seat)) => seat.done(),
            (Err(failure), Some(seat)) => seat.failed(failure.message()),
            (_, None) => {}
        }
        context
    }

    /// Patterns of the main context's ignore file, if it is known without obtaining the context.
    pub(crate) async fn main_ignored(&self) -> Result<Arc<Vec<String>>, Failure> {
        match self.offers.get("") {
            None | Some(ContextOffer::Empty) => Ok(Arc::default()),
            Some(_) if self.is_awaited("") => Ok(Arc::default()),
            Some(_) => Ok(Arc::clone(&self.get("").await?.ignored)),
        }
    }

    fn place(&self, name: &str) -> Result<&Place, Failure> {
        self.places.get(name).ok_or_else(|| unknown(name))
    }

    async fn prepare(&self, name: &str) -> Result<Context, Failure> {
        let raw = self.raw(name).await?;
        let patterns = self.patterns(name, raw).await?;
        let ignored = ignored(patterns.clone())?;
        let directory = raw.directory.try_clone().map_err(duplicated)?;
        Ok(Context {
            view: View::context(directory, ignored),
            ignored: Arc::new(patterns),
            raw: raw.clone(),
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
        let place = self.place(name)?;
        match place.sent.get() {
            Some(sent) => Ok(sent),
            None => place.raw.get_or_try_init(|| self.obtain(name)).await,
        }
    }

    async fn obtain(&self, name: &str) -> Result<Raw, Failure> {
        match &self.offers[name] {
            ContextOffer::Directory {
                fd, device, inode, ..
            } => {
                let open = self
                    .peer
                    .and_then(|process| open_of(process, *fd, *device, *inode))
                    .filter(is_on_this_machine);
                match open {
                    Some(directory) => Ok(Raw {
                        directory: Arc::new(directory),
                        unpacked: None,
                        instead: false,
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
        instead: false,
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

/// File systems whose files root may read and whose times tell the truth: those of a network or of a program (NFS with
/// `root_squash`, sshfs and others of FUSE) need not let root in, and may show times as they were a minute ago.
/// Source: `linux/magic.h` and the file systems' own headers.
const ON_THIS_MACHINE: [u32; 15] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0xf2f5_2010, // F2FS
    0x3153_464a, // JFS
    0x3434,      // NILFS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // EROFS
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
];

fn is_on_this_machine(directory: &OwnedFd) -> bool {
    rustix::fs::fstatfs(directory).is_ok_and(|stat| {
        // The type's width and sign differ between processors.
        let kind = stat.f_type as u32;
        ON_THIS_MACHINE.contains(&kind)
    })
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

    /// Contexts of a client on this host that has a directory open; and the tars that it is asked for.
    fn offered(directory: &OwnedFd, root: &std::path::Path) -> (Contexts, Arc<Mutex<usize>>) {
        use std::os::fd::AsRawFd as _;
        let metadata = std::fs::File::from(directory.try_clone().unwrap())
            .metadata()
            .unwrap();
        let offer = ContextOffer::Directory {
            fd: directory.as_raw_fd(),
            device: metadata.dev(),
            inode: metadata.ino(),
            path: ".".to_owned(),
            ignore: None,
        };
        let (session, mut asks) = Session::channel();
        let sent = Arc::new(Mutex::new(0));
        let count = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                let crate::builder::Ask::Context { reply, .. } = ask else {
                    panic!("nothing else is asked for");
                };
                *count.lock() += 1;
                let mut tar = tar::Builder::new(Vec::new());
                let mut header = tar::Header::new_gnu();
                header.set_size(4);
                header.set_mode(0o644);
                header.set_cksum();
                tar.append_data(&mut header, "file", &b"sent"[..]).unwrap();
                let bytes = tar.into_inner().unwrap();
                let (to, from) = crate::engine::byte_pipe();
                drop(reply.send(Some(from)));
                tokio::task::spawn_blocking(move || {
                    use std::io::Write as _;
                    let mut to = to;
                    to.write_all(&bytes).and_then(|()| to.flush()).unwrap();
                });
            }
        });
        let sources = Sources {
            offers: HashMap::from([(String::new(), offer)]),
            main_ignore: None,
            dockerfile: "Dockerfile".to_owned(),
            peer: i32::try_from(std::process::id()).ok(),
            session: Some(session),
            classic: false,
        };
        let work = Arc::new(WorkRoot::new(
            root.join("work"),
            tokio_util::task::TaskTracker::new(),
        ));
        (Contexts::new(sources, work, Progress::default()), sent)
    }

    async fn file(contexts: &Contexts) -> Option<Vec<u8>> {
        contexts.read("file").await.unwrap()
    }

    #[tokio::test]
    async fn a_directory_is_read_in_place_until_something_in_it_cannot_be_read() {
        let (directory, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("file"), "in place").unwrap();
        let open = open_directory(directory.path()).unwrap();
        if !is_on_this_machine(&open) {
            return;
        }
        let (contexts, sent) = offered(&open, root.path());
        assert_eq!(file(&contexts).await.unwrap(), b"in place");
        assert!(contexts.get("").await.unwrap().may_change());
        let denied = |errno: i32| {
            Failure::from(agent_image::build::FilesError::Io {
                what: "open",
                path: "/file".to_owned(),
                source: std::io::Error::from_raw_os_error(errno),
            })
        };
        let missing = denied(libc_errno(rustix::io::Errno::NOENT));
        assert!(!contexts.is_sent_after(&missing, "").await.unwrap());
        assert_eq!(file(&contexts).await.unwrap(), b"in place");
        for errno in [rustix::io::Errno::ACCESS, rustix::io::Errno::STALE] {
            let failure = denied(libc_errno(errno)).context("failed to compute cache key");
            assert!(contexts.is_sent_after(&failure, "").await.unwrap());
            assert_eq!(file(&contexts).await.unwrap(), b"sent");
            let context = contexts.get("").await.unwrap();
            assert_eq!(context.view.read("file", 9).unwrap().unwrap(), b"sent");
            assert!(context.may_change(), "its keys may be of the directory");
        }
        assert_eq!(*sent.lock(), 1, "once");
    }

    fn libc_errno(errno: rustix::io::Errno) -> i32 {
        errno.raw_os_error()
    }

    #[tokio::test]
    async fn a_directory_that_is_not_of_this_machine_is_sent() {
        let root = tempfile::tempdir().unwrap();
        // A file system that is none of those.
        let open = open_directory("/proc/self".as_ref()).unwrap();
        let (contexts, sent) = offered(&open, root.path());
        assert_eq!(file(&contexts).await.unwrap(), b"sent");
        assert!(!contexts.get("").await.unwrap().may_change());
        assert_eq!(*sent.lock(), 1);
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
