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
//! A root is identified by its layers. Nothing of a client, a checkout or a time is in a key. Must not: decide whether a
//! step runs (`solve` does).

use std::collections::HashMap;
use std::sync::Arc;

use agent_build::plan::{
    CopyOp, CopySource, GitOp, HttpOp, InputIndex, MountKind, Op, Plan, Platform, RunOp, Vertex,
};
use agent_image::Digest;
use agent_image::build::{
    Entry, Snapshot, Stack, StatCache, View, content_digest, copy, make_directory, path_digest,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Lease};
use super::contexts::{Context, Contexts};
use super::failure::Failure;
use super::flights::Cabin;
use super::records::{Kind, Made, Record};
use super::remote_cache::Imports;
use super::run::{self, CacheMounts, RunError, RunStep, StepInput, StreamKind};
use super::session::{Session, Sessions};
use super::solve::{Key, Steps, combine};
use super::source::{self, HttpState, ResolvedImage};
use super::work::WorkRoot;
use crate::engine::{Engine, blocking};

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
}

fn identity(stack: &Stack) -> String {
    serde_json::to_string(stack).expect("a list of names has a JSON form")
}

/// How many steps do what at once, over all builds.
pub(crate) struct Permits {
    /// Commands. More than there are processors, because many wait for a network; few enough that twenty stages of
    /// compilers do not exhaust the memory.
    pub(crate) run: Semaphore,
    /// Copies and digests: they keep a thread and the disk busy.
    pub(crate) files: Semaphore,
}

impl Permits {
    /// For a machine with so many processors.
    pub(crate) fn new(processors: usize) -> Self {
        Self {
            run: Semaphore::new((2 * processors).max(4)),
            files: Semaphore::new(processors.max(2)),
        }
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
    /// What sources were resolved to.
    pub(crate) commits: Mutex<HashMap<usize, String>>,
    /// What downloads were resolved to.
    pub(crate) downloads: Mutex<HashMap<usize, Arc<HttpState>>>,
    /// Caches of others that are looked into, too.
    pub(crate) imports: Arc<Imports>,
    /// Cancelled when the build is over: work before a step runs ends then.
    pub(crate) cancel: CancellationToken,
}

impl PlanSteps {
    fn vertex(&self, step: usize) -> &Vertex {
        &self.plan.vertices[step]
    }

    /// The context that an input is, if it is one.
    fn context_input(&self, vertex: &Vertex, input: InputIndex) -> Option<&str> {
        match &self.plan.vertices[vertex.inputs[input.0].0].op {
            Op::Context(context) => Some(&context.name),
            _ => None,
        }
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
        let _permit = self.shop.permits.files.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Failure::cancelled()),
        }
    }

    async fn try_own_key(&self, step: usize) -> Result<Key, Failure> {
        let vertex = self.vertex(step);
        let canonical = Digest::of(&vertex.op.canonical());
        match &vertex.op {
            Op::Image(_) | Op::Context(_) | Op::MakeDir(_) => Ok(canonical),
            Op::Git(op) => {
                let commit = self.commit(step, op).await?;
                Ok(combine(canonical, [Digest::of(commit.as_bytes())]))
            }
            Op::Http(op) => {
                let state = self.download(step, op).await?;
                Ok(combine(canonical, [state.digest]))
            }
            Op::Copy(op) => {
                let mut digests = Vec::new();
                for input in copy_inputs(op) {
                    if let Some(name) = self.context_input(vertex, input) {
                        let view = self.contexts.get(name).await?.view.clone();
                        digests.push(self.selected(op, input, view, true).await?);
                    }
                }
                Ok(combine(canonical, digests))
            }
            Op::Run(op) => {
                let mut digests = Vec::new();
                for (input, path) in run_inputs(op) {
                    if let Some(name) = self.context_input(vertex, input) {
                        let view = self.contexts.get(name).await?.view.clone();
                        digests.push(self.below(view, path, true).await?);
                    }
                }
                Ok(combine(canonical, digests))
            }
        }
    }

    /// Digest of what a copy selects in one of its inputs.
    async fn selected(
        &self,
        op: &CopyOp,
        input: InputIndex,
        view: View,
        context: bool,
    ) -> Result<Digest, Failure> {
        let (op, cancel) = (op.clone(), self.cancel.clone());
        let stats = context.then(|| Arc::clone(&self.stats));
        let digest = self.files(move || {
            let digest = content_digest(&op, input, &view, stats.as_deref(), &cancel);
            Ok(digest?)
        });
        digest.await.map_err(checksum)
    }

    /// Digest of a path and everything below it.
    async fn below(&self, view: View, path: &str, context: bool) -> Result<Digest, Failure> {
        let (path, cancel) = (path.to_owned(), self.cancel.clone());
        let stats = context.then(|| Arc::clone(&self.stats));
        let digest = self.files(move || Ok(path_digest(&view, &path, stats.as_deref(), &cancel)?));
        digest.await.map_err(checksum)
    }

    async fn try_content_key(
        &self,
        step: usize,
        inputs: &[Solved],
    ) -> Result<Option<Key>, Failure> {
        let vertex = self.vertex(step);
        let kind = match &vertex.op {
            Op::Image(_) | Op::Context(_) | Op::Git(_) | Op::Http(_) => return Ok(None),
            Op::Run(_) | Op::Copy(_) | Op::MakeDir(_) => Digest::of(&vertex.op.canonical()),
        };
        let identity_of = |input: InputIndex| {
            let identity = inputs[input.0].identity().unwrap_or_default();
            Digest::of(identity.as_bytes())
        };
        let mut parts: Vec<Digest> = vertex.op.root().map(identity_of).into_iter().collect();
        match &vertex.op {
            Op::Copy(op) => {
                for input in copy_inputs(op) {
                    let context = self.context_input(vertex, input).is_some();
                    let view = inputs[input.0].view();
                    parts.push(self.selected(op, input, view, context).await?);
                }
            }
            Op::Run(op) => {
                for (input, path) in run_inputs(op) {
                    let context = self.context_input(vertex, input).is_some();
                    let view = inputs[input.0].view();
                    parts.push(self.below(view, path, context).await?);
                }
                parts.extend(cache_sources(op).map(identity_of));
            }
            _ => {}
        }
        Ok(Some(combine(kind, parts)))
    }

    async fn try_execute(
        &self,
        step: usize,
        inputs: Vec<Solved>,
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Solved, Failure> {
        let vertex = self.vertex(step);
        match &vertex.op {
            Op::Context(op) => {
                let context = self.contexts.get(&op.name).await?;
                Ok(Solved::Context(Box::new(context.clone())))
            }
            Op::Image(op) => {
                cabin.begin();
                let Some(image) = self.images.get(&op.id) else {
                    return Err(Failure::system(format!(
                        "the image {} was not resolved",
                        op.reference
                    )));
                };
                let stack = Stack::of_layers(image.layers.iter().copied());
                let size = self.shop.engine.shared().images.layer_sizes(&image.layers);
                let own = stack.entries.len();
                let description = format!("pulled from {}", op.reference);
                let made = Made {
                    stack,
                    times: vec![None; own],
                    own,
                    size: size.iter().sum(),
                };
                self.insert(Kind::Regular, description, made).await
            }
            Op::Git(op) => {
                cabin.begin();
                let commit = self.commit(step, op).await?;
                let work = self.shop.work.directory()?;
                source::git_checkout(
                    op,
                    &commit,
                    work.path(),
                    &output(cabin),
                    cabin.sessions(),
                    cancel,
                )
                .await?;
                let made = self.snapshot_of(work).await?;
                self.insert(Kind::Git, format!("git snapshot for {}", op.remote), made)
                    .await
            }
            Op::Http(op) => {
                cabin.begin();
                let state = self.download(step, op).await?;
                let work = self.shop.work.directory()?;
                source::http_place(&self.shop.engine, op, &state, work.path(), cancel).await?;
                let made = self.snapshot_of(work).await?;
                self.insert(Kind::Http, format!("http url {}", op.url), made)
                    .await
            }
            Op::Run(op) => {
                let _permit = self.shop.permits.run.acquire().await;
                let made = self.run(vertex, op, &inputs, cabin, cancel).await?;
                let description = format!("mount / from exec {}", op.args.join(" "));
                self.insert(Kind::Regular, description, made).await
            }
            Op::Copy(op) => {
                let made = match link_source(op) {
                    true => self.link(vertex, op, &inputs, cabin, cancel).await?,
                    false => self.copy(op, &inputs, cabin, cancel).await?,
                };
                self.insert(Kind::Regular, vertex.name.clone(), made).await
            }
            Op::MakeDir(op) => {
                let (op, shop) = (op.clone(), Arc::clone(&self.shop));
                let views: Vec<View> = inputs.iter().map(Solved::view).collect();
                let _permit = self.shop.permits.files.acquire().await;
                cabin.begin();
                let snapshot = blocking_files(move || {
                    let work = shop.cache.snapshots().begin()?;
                    make_directory(&op, &views, &work)?;
                    Ok(shop.cache.snapshots().finish(work)?)
                });
                let made = Made::on(root(&vertex.op, &inputs), snapshot.await?);
                self.insert(Kind::Regular, vertex.name.clone(), made).await
            }
        }
    }

    /// A copy that does not depend on what it is laid over: if it was made on another root, that layer is taken. Its bytes are
    /// those of the record without a root.
    async fn link(
        &self,
        vertex: &Vertex,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        let mut parts = Vec::new();
        for input in copy_inputs(op) {
            let context = self.context_input(vertex, input).is_some();
            let view = inputs[input.0].view();
            parts.push(self.selected(op, input, view, context).await?);
        }
        let canonical = Digest::of(&vertex.op.canonical());
        let key = combine(Digest::of(b"link"), [canonical].into_iter().chain(parts));
        let root = op.root.map(|input| &inputs[input.0]);
        if !vertex.no_cache
            && let Some(lease) = self.shop.cache.find(&key)
        {
            let record = lease.record();
            if let [layer] = record.own_entries() {
                let time = record.times.last().copied().flatten();
                return Ok(Made::over(root, layer.clone(), time, 0));
            }
        }
        let alone = CopyOp {
            root: None,
            ..op.clone()
        };
        let made = self.copy(&alone, inputs, cabin, cancel).await?;
        let (layer, time) = (made.stack.entries[0].clone(), made.times[0]);
        let solved = self
            .insert(Kind::Regular, vertex.name.clone(), made)
            .await?;
        if let Solved::Files(lease) = &solved {
            self.shop.cache.also(&lease.record().id, &[key]);
        }
        Ok(Made::over(root, layer, time, 0))
    }

    async fn copy(
        &self,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        let (own, shop, cancel) = (op.clone(), Arc::clone(&self.shop), cancel.clone());
        let views: Vec<View> = inputs.iter().map(Solved::view).collect();
        let _permit = self.shop.permits.files.acquire().await;
        cabin.begin();
        let snapshot = blocking_files(move || {
            let work = shop.cache.snapshots().begin()?;
            copy(&own, &views, &work, &cancel)?;
            Ok(shop.cache.snapshots().finish(work)?)
        });
        let root = op.root.map(|input| &inputs[input.0]);
        Ok(Made::on(root, snapshot.await?))
    }

    async fn run(
        &self,
        vertex: &Vertex,
        op: &RunOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        foreign(&op.platform)?;
        let mut step_inputs = Vec::with_capacity(inputs.len());
        // What is mounted must be there until the step has ended.
        let mut used = Vec::new();
        for input in inputs {
            let lease = match input {
                Solved::Files(lease) => Arc::clone(lease),
                Solved::Context(context) => self.materialise(context, cancel).await?,
            };
            step_inputs.push(StepInput {
                layers: lease.held().lowers(),
                identity: identity(&lease.record().stack),
            });
            used.push(lease);
        }
        let work = self.shop.work.directory()?;
        cabin.begin();
        let step = RunStep {
            op: op.clone(),
            inputs: step_inputs,
            network: self.network.clone(),
            shm_bytes: None,
            sessions: cabin.sessions().clone(),
            cache_mounts: self.shop.cache_mounts.clone(),
            work: work.path().to_owned(),
            output: output(cabin),
            cancel: cancel.clone(),
        };
        let upper = match Box::pin(run::run(&self.shop.engine, step)).await {
            Ok(upper) => upper,
            Err(RunError::Exit { code, oom }) => {
                return Err(Failure::exit(&op.args, code, oom).after(&cabin.output()));
            }
            Err(RunError::Cancelled) => return Err(Failure::cancelled()),
            Err(RunError::Refused(text)) => return Err(Failure::step(text)),
            Err(RunError::System(text)) => return Err(Failure::system(text)),
        };
        let shop = Arc::clone(&self.shop);
        let snapshot = blocking_files(move || Ok(shop.cache.snapshots().take(&upper)?)).await?;
        drop((used, work));
        Ok(Made::on(root(&vertex.op, inputs), snapshot))
    }

    /// A context as a file system that can be mounted, without what its ignore file names.
    async fn materialise(
        &self,
        context: &Context,
        cancel: &CancellationToken,
    ) -> Result<Arc<Lease>, Failure> {
        let digest = self.below(context.view.clone(), "/", true).await?;
        let key = combine(Digest::of(b"context"), [digest]);
        if let Some(lease) = self.shop.cache.find(&key) {
            return Ok(Arc::new(lease));
        }
        let op = CopyOp {
            root: None,
            link: false,
            sources: vec![CopySource::Paths {
                input: InputIndex(0),
                path: "/".to_owned(),
                parents: None,
                required: Vec::new(),
                unpack: false,
            }],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            excludes: Vec::new(),
        };
        let (shop, cancel, view) = (Arc::clone(&self.shop), cancel.clone(), context.view.clone());
        let snapshot = self.files(move || {
            let work = shop.cache.snapshots().begin()?;
            copy(&op, &[view], &work, &cancel)?;
            Ok(shop.cache.snapshots().finish(work)?)
        });
        let made = Made::on(None, snapshot.await?);
        match self
            .insert(Kind::Local, "local source for context".to_owned(), made)
            .await?
        {
            Solved::Files(lease) => {
                self.shop.cache.also(&lease.record().id, &[key]);
                Ok(lease)
            }
            Solved::Context(_) => Err(Failure::system("a context was not made a file system")),
        }
    }

    async fn snapshot_of(&self, work: super::work::WorkDirectory) -> Result<Made, Failure> {
        let shop = Arc::clone(&self.shop);
        let snapshot = blocking_files(move || {
            let snapshot = shop.cache.snapshots().take(work.path())?;
            drop(work);
            Ok(snapshot)
        });
        Ok(Made::on(None, snapshot.await?))
    }

    /// Remembers a result; its keys come with [`Steps::record`].
    async fn insert(&self, kind: Kind, description: String, made: Made) -> Result<Solved, Failure> {
        let cache = Arc::clone(&self.shop.cache);
        let lease = blocking(move || {
            let record = Record::new(kind, description, Vec::new(), Timestamp::now(), made);
            cache.insert(record)
        });
        Ok(Solved::Files(Arc::new(lease.await?)))
    }

    async fn commit(&self, step: usize, op: &GitOp) -> Result<String, Failure> {
        if let Some(commit) = self.commits.lock().get(&step) {
            return Ok(commit.clone());
        }
        let sessions = self.sessions();
        let commit = source::git_resolve(op, &sessions, &self.cancel).await?;
        self.commits.lock().insert(step, commit.clone());
        Ok(commit)
    }

    async fn download(&self, step: usize, op: &HttpOp) -> Result<Arc<HttpState>, Failure> {
        if let Some(state) = self.downloads.lock().get(&step) {
            return Ok(Arc::clone(state));
        }
        let state = source::http_resolve(&self.shop.engine, op, &self.cancel).await?;
        let state = Arc::new(state);
        self.downloads.lock().insert(step, Arc::clone(&state));
        Ok(state)
    }

    fn sessions(&self) -> Sessions {
        let sessions = Sessions::default();
        if let Some(session) = &self.session {
            sessions.add(session.clone());
        }
        sessions
    }
}

impl Made {
    /// A snapshot on top of another result.
    fn on(root: Option<&Solved>, snapshot: Snapshot) -> Self {
        let layer = Entry::Loose(snapshot.id);
        Self::over(root, layer, Some(Timestamp::now()), snapshot.disk_bytes)
    }

    /// A layer that was made at some time on top of a result.
    fn over(root: Option<&Solved>, layer: Entry, time: Option<Timestamp>, size: u64) -> Self {
        let (below, mut times) = match root {
            Some(Solved::Files(lease)) => {
                let record = lease.record();
                (record.stack.clone(), record.times.clone())
            }
            Some(Solved::Context(_)) | None => (Stack::default(), Vec::new()),
        };
        times.push(time);
        Self {
            stack: below.with(layer),
            times,
            own: 1,
            size,
        }
    }
}

fn root<'a>(op: &Op, inputs: &'a [Solved]) -> Option<&'a Solved> {
    op.root().map(|input| &inputs[input.0])
}

/// Refuses to run programs of another processor where the kernel has no interpreter for any.
fn foreign(platform: &Platform) -> Result<(), Failure> {
    let own = Platform::host();
    let runs = platform.architecture == own.architecture
        || (platform.architecture == "386" && own.architecture == "amd64");
    if runs || interprets() {
        return Ok(());
    }
    Err(Failure::step(format!(
        "this step runs programs for {platform}, and this machine is {own}: register an emulator with binfmt_misc \
         (for example Debian's qemu-user-static), or copy from a stage that is built with FROM --platform=$BUILDPLATFORM"
    )))
}

/// Whether binfmt_misc has an interpreter that is switched on.
fn interprets() -> bool {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc");
    let enabled = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        text.starts_with("enabled") && text.contains("interpreter ")
    };
    entries.into_iter().flatten().flatten().any(enabled)
}

/// Whether what a copy writes is independent of its root: names of owners are looked up there.
fn link_source(op: &CopyOp) -> bool {
    let number = |part: &str| part.is_empty() || part.parse::<u32>().is_ok();
    let owner = op.chown.as_deref().unwrap_or_default();
    op.link && owner.split(':').all(number)
}

/// The inputs that a copy reads from, each once, in order.
fn copy_inputs(op: &CopyOp) -> Vec<InputIndex> {
    let mut inputs = Vec::new();
    for source in &op.sources {
        let input = match source {
            CopySource::Paths { input, .. }
            | CopySource::Http { input, .. }
            | CopySource::Git { input } => *input,
            CopySource::Inline { .. } => continue,
        };
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

/// The inputs that a command has bound, with the paths in them.
fn run_inputs(op: &RunOp) -> Vec<(InputIndex, &str)> {
    let bound = op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind {
            from: Some(input),
            source,
            ..
        } => Some((*input, source.as_str())),
        _ => None,
    });
    bound.collect()
}

/// The inputs that a command's cache mounts are filled from.
fn cache_sources(op: &RunOp) -> impl Iterator<Item = InputIndex> + '_ {
    op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Cache { from, .. } => *from,
        _ => None,
    })
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

/// The words BuildKit has for a file that is not there.
fn checksum(failure: Failure) -> Failure {
    match failure.kind() {
        agent_api::build::FailureKind::Step => {
            failure.context("failed to compute cache key: failed to calculate checksum of ref")
        }
        _ => failure,
    }
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

    async fn content_key(&self, step: usize, inputs: &[Solved]) -> Result<Option<Key>, Failure> {
        self.try_content_key(step, inputs)
            .await
            .map_err(self.at(step))
    }

    async fn find(&self, key: &Key) -> Option<Solved> {
        let lease = match self.shop.cache.find(key) {
            Some(lease) => lease,
            None => self.imports.bring(key, &self.cancel).await?,
        };
        Some(Solved::Files(Arc::new(lease)))
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
    ) -> Result<Solved, Failure> {
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
