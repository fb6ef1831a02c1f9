//! What the steps of a plan do: how they are keyed, found, executed and recorded.
//!
//! | step | own key: the operation, and | content key: the operation, and |
//! |---|---|---|
//! | image | | |
//! | context | (belongs to one build) | |
//! | git, http | commit, digest of the file | |
//! | run | digest of what is bound of contexts | the root, digests of what is bound |
//! | copy | digest of what is selected of contexts | the root, digests of what is selected |
//! | mkdir | | the root |
//!
//! A root is identified by its layers. Nothing of a client, a checkout or a time is in a key. A directory of the client's is
//! read in place, and others may write to it meanwhile: what a step has read of it counts only when it is the same after the
//! step as before ([`steady`]). Must not: decide whether a step runs (`solve` does).
//!
//! | file | topic |
//! |---|---|
//! | `keys` | what a step reads of its inputs; its keys |
//! | `copy` `command` `sources` | carrying out `COPY` and `ADD`; `RUN`; checkouts and downloads |
//! | `steady` | reading what others may change |

mod command;
mod copy;
mod keys;
mod sources;
mod steady;

use std::collections::HashMap;
use std::sync::Arc;

use agent_build::plan::{Op, Plan, Vertex};
use agent_build::redacted;
use agent_image::Digest;
use agent_image::build::{
    FilesError, Snapshot, Snapshots, Stack, StatCache, View, Work, make_directory,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Lease};
use super::contexts::{Context, Contexts};
use super::failure::Failure;
use super::flights::Cabin;
use super::records::{Kind, Made, Record};
use super::remote_cache::Imports;
use super::run::{self, CacheMounts, Endings, StreamKind};
use super::session::Session;
use super::solve::{Key, Read, Steps};
use super::source::{HttpState, ResolvedImage};
use super::work::WorkRoot;
use crate::engine::{Engine, blocking};
use keys::Readings;

/// What a step yields. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Solved {
    /// A file system.
    Files(Arc<Lease>),
    /// A directory of the client's.
    Context(Box<Context>),
}

impl Solved {
    /// Its files.
    pub(crate) fn view(&self) -> View {
        match self {
            Self::Files(lease) => lease.held().view(),
            Self::Context(context) => context.view.clone(),
        }
    }

    /// What it is, whatever it was made by.
    fn identity(&self) -> Option<String> {
        match self {
            Self::Files(lease) => Some(identity(&lease.record().stack)),
            Self::Context(_) => None,
        }
    }

    /// What is known of it, unless it is a directory.
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Files(lease) => Some(lease.record()),
            Self::Context(_) => None,
        }
    }
}

fn identity(stack: &Stack) -> String {
    serde_json::to_string(stack).expect("a list of names has a JSON form")
}

/// How many steps do what at once, over all builds.
pub(crate) struct Permits {
    /// Commands. More than there are processors, because many wait for a network; few enough that twenty stages of
    /// compilers do not exhaust the memory.
    pub(crate) run: Arc<Semaphore>,
    /// Copies and digests: they keep a thread and the disk busy.
    files: Arc<Semaphore>,
}

impl Permits {
    /// For a machine with so many processors.
    pub(crate) fn new(processors: usize) -> Self {
        Self {
            run: Arc::new(Semaphore::new((2 * processors).max(4))),
            files: Arc::new(Semaphore::new(processors.max(2))),
        }
    }

    /// For one piece of work on files. It belongs to the thread that does it: one whose build is gone is still at work.
    async fn files(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.files).acquire_owned().await.ok()
    }
}

/// What all builds share.
pub(crate) struct Shop {
    pub(crate) engine: Engine,
    pub(crate) cache: Arc<Cache>,
    pub(crate) work: Arc<WorkRoot>,
    pub(crate) permits: Permits,
    pub(crate) cache_mounts: CacheMounts,
}

/// The steps of one plan.
pub(crate) struct PlanSteps {
    pub(crate) shop: Arc<Shop>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) contexts: Arc<Contexts>,
    /// The resolved base images by the id that the plan names them by.
    pub(crate) images: HashMap<String, Arc<ResolvedImage>>,
    /// Network of steps that do not choose one.
    pub(crate) network: String,
    /// The client, for sources that need it before a step runs.
    pub(crate) session: Option<Session>,
    /// Digests of unchanged files.
    pub(crate) stats: Arc<StatCache>,
    /// What steps read of contexts when their keys were made.
    pub(crate) readings: Mutex<HashMap<usize, Readings>>,
    /// What they read of other steps' results, by their input.
    pub(crate) digests: Mutex<HashMap<(usize, usize), Digest>>,
    /// What sources were resolved to.
    pub(crate) commits: Mutex<HashMap<usize, String>>,
    /// What downloads were resolved to.
    pub(crate) downloads: Mutex<HashMap<usize, Arc<HttpState>>>,
    /// Caches of others that are looked into, too.
    pub(crate) imports: Arc<Imports>,
    /// Commands of which something may be left for a while.
    pub(crate) endings: Endings,
    /// Cancelled when the build is over: work before a step runs ends then.
    pub(crate) cancel: CancellationToken,
}

impl PlanSteps {
    fn vertex(&self, step: usize) -> &Vertex {
        &self.plan.vertices[step]
    }

    fn at(&self, step: usize) -> impl FnOnce(Failure) -> Failure + '_ {
        let vertex = self.vertex(step);
        move |failure| failure.at(&vertex.name, vertex.lines)
    }

    /// Does work on files on a thread for it, as soon as there is one.
    async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = self.shop.permits.files().await;
        blocking_files(move || {
            let _permit = permit;
            work()
        })
        .await
    }

    /// What is cached here under a key.
    async fn cached(&self, key: Key) -> Option<Lease> {
        let cache = Arc::clone(&self.shop.cache);
        let found = blocking(move || Ok(cache.find(&key)));
        found.await.ok().flatten()
    }

    /// A snapshot of what was written.
    async fn finish(&self, work: Work) -> Result<Snapshot, Failure> {
        self.snapshots(move |snapshots| snapshots.finish(work))
            .await
    }

    async fn snapshots<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshots) -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, Failure> {
        let shop = Arc::clone(&self.shop);
        blocking_files(move || Ok(work(shop.cache.snapshots())?)).await
    }

    async fn try_execute(
        &self,
        step: usize,
        inputs: Vec<Solved>,
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<(Solved, Read), Failure> {
        let vertex = self.vertex(step);
        let mut read = Read::AsKeyed;
        let (kind, description, made) = match &vertex.op {
            Op::Context(op) => {
                let context = self.contexts.get(&op.name).await?;
                return Ok((Solved::Context(Box::new(context.clone())), read));
            }
            Op::Image(op) => {
                cabin.begin();
                let description = format!("pulled from {}", op.reference);
                (Kind::Regular, description, self.image(op)?)
            }
            Op::Git(op) => {
                let made = self.checkout(step, op, cabin, cancel).await?;
                (
                    Kind::Git,
                    format!("git snapshot for {}", redacted(&op.remote)),
                    made,
                )
            }
            Op::Http(op) => {
                let made = self.place_download(step, op, cabin, cancel).await?;
                (Kind::Http, format!("http url {}", redacted(&op.url)), made)
            }
            Op::Run(op) => {
                let made;
                (made, read) = self.command(step, op, &inputs, cabin, cancel).await?;
                let description = format!("mount / from exec {}", op.args.join(" "));
                (Kind::Regular, description, made)
            }
            Op::Copy(op) => {
                let copied = self.lay(step, op, &inputs, cabin, cancel).await?;
                let lease = self
                    .insert(Kind::Regular, vertex.name.clone(), copied.made)
                    .await?;
                self.shop
                    .cache
                    .also(&lease.record().id, copied.key.as_slice());
                return Ok((Solved::Files(lease), copied.read));
            }
            Op::MakeDir(op) => {
                let (op, shop) = (op.clone(), Arc::clone(&self.shop));
                let views: Vec<View> = inputs.iter().map(Solved::view).collect();
                let permit = self.shop.permits.files().await;
                cabin.begin();
                let snapshot = blocking_files(move || {
                    let _permit = permit;
                    let work = shop.cache.snapshots().begin()?;
                    make_directory(&op, &views, &work)?;
                    Ok(shop.cache.snapshots().finish(work)?)
                });
                let made = Made::on(root(&vertex.op, &inputs), snapshot.await?);
                (Kind::Regular, vertex.name.clone(), made)
            }
        };
        let lease = self.insert(kind, description, made).await?;
        Ok((Solved::Files(lease), read))
    }

    /// Remembers a result; its keys come with [`Steps::record`].
    async fn insert(
        &self,
        kind: Kind,
        description: String,
        made: Made,
    ) -> Result<Arc<Lease>, Failure> {
        let cache = Arc::clone(&self.shop.cache);
        let lease = blocking(move || {
            let record = Record::new(kind, description, Vec::new(), Timestamp::now(), made);
            cache.insert(record)
        });
        Ok(Arc::new(lease.await?))
    }
}

fn root<'a>(op: &Op, inputs: &'a [Solved]) -> Option<&'a Record> {
    op.root().and_then(|input| inputs[input.0].record())
}

/// Tells of files that kept changing: what was read may be torn.
fn tell_of(read: Read, cabin: &Cabin) {
    if read == Read::Unsteady {
        cabin.log(2, b"files of the context changed while they were read\n");
    }
}

/// Passes a step's output on.
fn output(cabin: &Cabin) -> run::OutputSink {
    let cabin = cabin.clone();
    Arc::new(move |stream, data| {
        let number = match stream {
            StreamKind::Stdout => 1,
            StreamKind::Stderr => 2,
        };
        cabin.log(number, data);
    })
}

async fn blocking_files<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Failure::cancelled()),
    }
}

impl Steps for PlanSteps {
    type Output = Solved;
    type Failure = Failure;

    async fn own_key(&self, step: usize) -> Result<Key, Failure> {
        self.try_own_key(step).await.map_err(self.at(step))
    }

    async fn content_key(
        &self,
        step: usize,
        inputs: &[Solved],
        cancel: &CancellationToken,
    ) -> Result<Option<Key>, Failure> {
        self.try_content_key(step, inputs, cancel)
            .await
            .map_err(self.at(step))
    }

    async fn find(&self, key: &Key, cancel: &CancellationToken) -> Option<Solved> {
        let lease = match self.cached(*key).await {
            Some(lease) => lease,
            None => self.imports.bring(key, cancel).await?,
        };
        Some(Solved::Files(Arc::new(lease)))
    }

    async fn knows(&self, key: &Key) -> bool {
        self.shop.cache.knows(key) || self.imports.offer(key)
    }

    fn used(&self, keys: Vec<Key>) {
        self.shop.cache.touch(&keys);
    }

    fn record(&self, _step: usize, keys: &[Key], output: &Solved) {
        if let Solved::Files(lease) = output {
            let cache = Arc::clone(&self.shop.cache);
            cache.also(&lease.record().id, keys);
            let tasks = &self.shop.engine.shared().tasks;
            tasks.spawn_blocking(move || cache.flush());
        }
    }

    async fn execute(
        &self,
        step: usize,
        inputs: Vec<Solved>,
        cabin: Cabin,
        cancel: CancellationToken,
    ) -> Result<(Solved, Read), Failure> {
        let done = self.try_execute(step, inputs, &cabin, &cancel).await;
        done.map_err(self.at(step))
    }

    fn cancelled(&self) -> Failure {
        Failure::cancelled()
    }

    fn describe(&self, failure: &Failure) -> String {
        failure.message().to_owned()
    }
}
