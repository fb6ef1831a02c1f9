//! One build from the top: the Dockerfile, what it starts from, its plan, the solving, the export.

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::build::{
    BuildFailure, BuildRequest, BuildResult, Call, CallAnswer, ContextOffer, DockerfileSource,
    VertexWarning,
};
use agent_build::lint::Lint;
use agent_build::plan::{
    BaseImage, BaseRequest, BaseSource, Bases, BuildOptions, BuilderArgs, ImageConfig, Op, Plan,
    PlanError, Platform,
};
use agent_build::{Dockerfile, plan, redacted};
use agent_image::Digest;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::calls;
use super::contexts::{self, Contexts, MAX_FILE, Sources};
use super::export::{self, Built, Export};
use super::failure::{Failure, Text};
use super::options;
use super::progress::{Progress, Seat};
use super::remote_cache::{self, Imports};
use super::run::{Endings, OutputSink};
use super::session::{Session, Sessions};
use super::solve::{Key, Node, Solve, StepFlights};
use super::source::{self, ImageRequest, Pull, Remote, RemoteAddress, ResolvedImage};
use super::steps::{PlanSteps, Shop, Solved};
use crate::engine::blocking;

/// A build that somebody asked for.
pub(crate) struct Job {
    /// What is wanted.
    pub(crate) request: BuildRequest,
    /// The client, if it can be asked for anything.
    pub(crate) session: Option<Session>,
    /// Its process, if it is on this host.
    pub(crate) peer: Option<i32>,
    /// The question is one from before BuildKit, of whose contexts dockerd leaves out other files.
    pub(crate) classic: bool,
}

/// One build under way.
pub(crate) struct Run<'a> {
    pub(crate) shop: &'a Arc<Shop>,
    pub(crate) flights: &'a Arc<StepFlights<PlanSteps>>,
    pub(crate) job: &'a Job,
    pub(crate) progress: &'a Progress,
    /// Its commands of which something may be left for a while.
    pub(crate) endings: Endings,
    /// Cancelled when the build is over, however it ends.
    pub(crate) cancel: CancellationToken,
}

/// The Dockerfile and where it was told of.
struct Definition {
    dockerfile: Dockerfile,
    seat: Seat,
}

impl Run<'_> {
    /// Builds. Dropping the future cancels.
    pub(crate) async fn run(&self) -> Result<BuildResult, BuildFailure> {
        let contexts = self.contexts();
        let remote = match self.remote(&contexts).await {
            Ok(remote) => remote,
            Err(failure) => return Err(failure.report(None)),
        };
        let definition = match self.definition(&contexts, remote).await {
            Ok(definition) => definition,
            Err((failure, text)) => return Err(failure.report(text.as_ref())),
        };
        let text = Text::of(&definition.dockerfile);
        let result = self.build(&definition, &contexts).await;
        result.map_err(|failure| failure.report(Some(&text)))
    }

    fn contexts(&self) -> Arc<Contexts> {
        let request = &self.job.request;
        let mut offers: HashMap<String, ContextOffer> =
            request.named_contexts.clone().into_iter().collect();
        offers.insert(String::new(), request.context.clone());
        let (dockerfile, main_ignore) = match &request.dockerfile {
            DockerfileSource::Context { path } => (path.clone(), None),
            DockerfileSource::Inline { name, ignore, .. } => {
                let given = matches!(request.context, ContextOffer::Directory { .. });
                (name.clone(), given.then(|| ignore.clone()))
            }
        };
        let sources = Sources {
            offers,
            main_ignore,
            dockerfile,
            peer: self.job.peer,
            session: self.job.session.clone(),
            classic: self.job.classic,
        };
        Arc::new(Contexts::new(
            sources,
            Arc::clone(&self.shop.work),
            self.progress.clone(),
        ))
    }

    /// Obtains a main context that is somewhere on the network; or, if that is what is there, a Dockerfile.
    async fn remote(&self, contexts: &Contexts) -> Result<Option<Vec<u8>>, Failure> {
        let ContextOffer::Remote { url } = &self.job.request.context else {
            return Ok(None);
        };
        let seat = Seat::begin(
            self.progress,
            &format!("[internal] load remote build context {}", redacted(url)),
        );
        let got = self.get_remote(contexts, url, &seat).await;
        match &got {
            Ok(_) => seat.done(),
            Err(failure) => seat.failed(failure.message()),
        }
        got
    }

    async fn get_remote(
        &self,
        contexts: &Contexts,
        url: &str,
        seat: &Seat,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let work = self.shop.work.directory()?;
        let sessions = Sessions::default();
        if let Some(session) = &self.job.session {
            sessions.add(session.clone());
        }
        let own = seat.clone();
        let output: OutputSink = Arc::new(move |stream, data| own.log(stream as i64 + 1, data));
        let engine = &self.shop.engine;
        let args = BuilderArgs::of(&self.job.request.build_args);
        let address = RemoteAddress {
            url,
            keep_git_dir: args.context_keep_git_dir,
        };
        let found = source::remote(engine, address, &sessions, work, &output, &self.cancel);
        let (found, work) = Box::pin(found).await?;
        match found {
            Remote::Tree(commit) => {
                seat.log(1, format!("{commit}\n").as_bytes());
                contexts.set_main(work)?;
            }
            Remote::Archive(file) => {
                let read = file.reopen().map_err(|error| {
                    Failure::system(format!("cannot read what was downloaded: {error}"))
                })?;
                contexts.set_main(contexts::unpack(read, work).await?)?;
            }
            Remote::Dockerfile(text) => {
                contexts.set_main(work)?;
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Obtains and reads the Dockerfile; `remote` is its text if that was found in place of a context.
    async fn definition(
        &self,
        contexts: &Contexts,
        remote: Option<Vec<u8>>,
    ) -> Result<Definition, (Failure, Option<Text>)> {
        let (name, inline) = match &self.job.request.dockerfile {
            DockerfileSource::Inline { name, text, .. } => (name, Some(text.clone().into_bytes())),
            DockerfileSource::Context { path } => (path, remote),
        };
        let shown = name.rsplit('/').next().unwrap_or(name).to_owned();
        let seat = Seat::begin(
            self.progress,
            &format!("[internal] load build definition from {shown}"),
        );
        let fail = |failure: Failure, text: Option<Text>| {
            seat.failed(failure.message());
            (failure, text)
        };
        let mut part = seat.part("transferring dockerfile:");
        let text = match inline {
            Some(text) => text,
            None => match contexts.read(name).await {
                Ok(Some(text)) => text,
                Ok(None) => {
                    let missing = format!(
                        "failed to read dockerfile: open {name}: no such file or directory"
                    );
                    return Err(fail(Failure::invalid(missing), None));
                }
                Err(failure) => return Err(fail(failure, None)),
            },
        };
        if text.len() as u64 > MAX_FILE {
            let long = format!("{name} is longer than {MAX_FILE} bytes");
            return Err(fail(Failure::invalid(long), None));
        }
        part.at("", text.len() as u64, 0);
        part.done();
        let args = BuilderArgs::of(&self.job.request.build_args);
        match Dockerfile::parse_as(&text, &shown, args.syntax.as_deref()) {
            Ok(dockerfile) => {
                seat.done();
                Ok(Definition { dockerfile, seat })
            }
            Err(error) => {
                let text = Text {
                    name: shown.clone(),
                    text: String::from_utf8_lossy(&text).into_owned(),
                };
                Err(fail(error.into(), Some(text)))
            }
        }
    }

    async fn build(
        &self,
        definition: &Definition,
        contexts: &Arc<Contexts>,
    ) -> Result<BuildResult, Failure> {
        let request = &self.job.request;
        let mut options = options::build_options(request)?;
        let platforms = options::platforms(request)?;
        if request.call == Call::Targets {
            return Ok(answered(calls::targets(&definition.dockerfile)));
        }
        let index = options.multi_platform;
        export::check(request, platforms.len(), index)?;
        remote_cache::check(request)?;
        options.ignore_patterns = contexts.main_ignored().await?.to_vec();
        if request.call != Call::Build {
            options.platform = platforms.into_iter().next().flatten();
            return self.call(definition, options).await;
        }
        let imports = Imports::load(
            self.shop,
            request,
            self.job.session.as_ref(),
            self.progress,
            &self.cancel,
        );
        let imports = Arc::new(imports.await);
        let builds = platforms.into_iter().map(|platform| {
            let options = BuildOptions {
                platform,
                ..options.clone()
            };
            self.build_platform(definition, contexts, options, &imports)
        });
        let built = try_join_all(builds).await?;
        let export = Export {
            shop: self.shop,
            request,
            index,
            session: self.job.session.as_ref(),
            progress: self.progress,
            cancel: &self.cancel,
        };
        export.run(&built).await
    }

    /// Answers a question that needs the plan and nothing built.
    async fn call(
        &self,
        definition: &Definition,
        mut options: BuildOptions,
    ) -> Result<BuildResult, Failure> {
        let dockerfile = &definition.dockerfile;
        let check = self.job.request.call == Call::Check;
        options.all_stages = check && options.target.is_none();
        let plan = match self.resolve(dockerfile, &options).await {
            Ok((bases, _)) => plan::plan(dockerfile, &options, &bases),
            Err(Unresolved::Plan(error)) => Err(error),
            Err(Unresolved::Base(failure)) => return Err(failure),
        };
        let answer = match check {
            true => calls::check(dockerfile, plan.as_ref()),
            false => calls::outline(dockerfile, &options, &plan?),
        };
        Ok(answered(answer))
    }

    async fn build_platform(
        &self,
        definition: &Definition,
        contexts: &Arc<Contexts>,
        options: BuildOptions,
        imports: &Arc<Imports>,
    ) -> Result<Built, Failure> {
        let dockerfile = &definition.dockerfile;
        let (bases, images) = self.resolve(dockerfile, &options).await?;
        let plan = plan::plan(dockerfile, &options, &bases)
            .inspect_err(|error| warn(&definition.seat, dockerfile, &error.warnings))?;
        warn(&definition.seat, dockerfile, &plan.warnings);
        let plan = Arc::new(plan);
        let base = plan.base.and_then(|base| match &plan.vertices[base.0].op {
            Op::Image(op) => images.get(&op.id),
            _ => None,
        });
        let base_history = base.map_or(0, |image| history_lines(&image.config));
        let (files, steps) = match plan.target {
            None => (None, Vec::new()),
            Some(target) => {
                let (files, steps) = self
                    .solve(&plan, contexts, images, imports, target.0)
                    .await?;
                (Some(files), steps)
            }
        };
        Ok(Built {
            plan,
            files,
            base_history,
            steps,
        })
    }

    /// Resolves base images until the plan needs no more.
    async fn resolve(
        &self,
        dockerfile: &Dockerfile,
        options: &BuildOptions,
    ) -> Result<(Bases, HashMap<String, Arc<ResolvedImage>>), Unresolved> {
        let (mut bases, mut images) = (Bases::default(), HashMap::new());
        loop {
            let wanted = plan::bases(dockerfile, options, &bases)?;
            if wanted.is_empty() {
                return Ok((bases, images));
            }
            let resolved = try_join_all(wanted.iter().map(|base| self.base(base))).await?;
            for (request, image) in wanted.iter().zip(resolved) {
                let config = ImageConfig::from_json(&image.config).map_err(|error| {
                    Failure::invalid(format!(
                        "{}: cannot read its configuration: {error}",
                        request.written
                    ))
                })?;
                let id = image.id.to_string();
                bases.insert(
                    request,
                    BaseImage {
                        id: id.clone(),
                        digest: image.digest.as_ref().map(ToString::to_string),
                        layers: image.layers.len(),
                        config,
                    },
                );
                images.insert(id, Arc::new(image));
            }
        }
    }

    async fn base(&self, request: &BaseRequest) -> Result<ResolvedImage, Failure> {
        let seat = Seat::begin(self.progress, &request.log_name);
        let resolved = match &request.source {
            BaseSource::Image(reference) => self.image(reference, &request.platform, &seat).await,
            BaseSource::OciLayout { context, .. } => self.layout(context, &request.platform).await,
        };
        match &resolved {
            Ok(_) => seat.done(),
            Err(failure) => seat.failed(failure.message()),
        }
        resolved.map_err(|failure| {
            failure
                .context(&request.written)
                .at(&request.log_name, request.lines)
        })
    }

    async fn layout(&self, context: &str, platform: &Platform) -> Result<ResolvedImage, Failure> {
        let session = self.job.session.as_ref();
        let platform = platform.to_string();
        let found = source::oci_layout(&self.shop.engine, session, context, &platform);
        Ok(found.await?)
    }

    async fn image(
        &self,
        reference: &str,
        platform: &Platform,
        seat: &Seat,
    ) -> Result<ResolvedImage, Failure> {
        let request = ImageRequest {
            reference: reference.to_owned(),
            platform: Some(platform.to_string()),
            pull: match self.job.request.pull {
                true => Pull::Always,
                false => Pull::Missing,
            },
        };
        let session = self.job.session.as_ref();
        let credentials = options::credentials(&self.job.request, session, reference);
        let parts = Mutex::new(HashMap::new());
        let report = |message: agent_image::ProgressMessage| {
            let (Some(id), Some(status)) = (message.id, message.status) else {
                return;
            };
            let mut parts = parts.lock();
            let part = parts.entry(id.clone()).or_insert_with(|| seat.part(&id));
            let (current, total) = message.progress_detail.map_or((0, 0), |detail| {
                (detail.current.unwrap_or(0), detail.total.unwrap_or(0))
            });
            part.at(&status.to_lowercase(), current, total);
        };
        let engine = &self.shop.engine;
        let image = source::image(engine, request, credentials, &report, &self.cancel).await?;
        for (_, part) in parts.into_inner() {
            part.done();
        }
        Ok(image)
    }

    async fn solve(
        &self,
        plan: &Arc<Plan>,
        contexts: &Arc<Contexts>,
        images: HashMap<String, Arc<ResolvedImage>>,
        imports: &Arc<Imports>,
        target: usize,
    ) -> Result<(Solved, Vec<remote_cache::Step>), Failure> {
        let mut digests: Vec<String> = Vec::with_capacity(plan.vertices.len());
        let (mut nodes, mut seats) = (Vec::new(), Vec::new());
        for vertex in &plan.vertices {
            let inputs: Vec<usize> = vertex.inputs.iter().map(|input| input.0).collect();
            let below: Vec<String> = inputs.iter().map(|input| digests[*input].clone()).collect();
            let mut text = vertex.op.canonical();
            text.extend_from_slice(
                format!("{} {below:?} {}", vertex.name, plan.platform).as_bytes(),
            );
            let digest = Digest::of(&text).to_string();
            let seat = Seat::announce(self.progress, &digest, below, &vertex.name);
            let context = match &vertex.op {
                Op::Context(op) => Some(&op.name),
                _ => None,
            };
            if let Some(name) = context {
                contexts.announce(name, seat.clone());
            }
            nodes.push(Node {
                inputs,
                fresh: vertex.no_cache,
                private: context.is_some(),
                late: context.is_some_and(|name| contexts.is_awaited(name)),
            });
            seats.push(seat);
            digests.push(digest);
        }
        let steps = PlanSteps {
            shop: Arc::clone(self.shop),
            plan: Arc::clone(plan),
            contexts: Arc::clone(contexts),
            images,
            network: self.job.request.network.clone(),
            session: self.job.session.clone(),
            stats: self.shop.cache.snapshots().stat_cache(),
            readings: Mutex::default(),
            digests: Mutex::default(),
            commits: Mutex::default(),
            downloads: Mutex::default(),
            imports: Arc::clone(imports),
            endings: self.endings.clone(),
            cancel: self.cancel.clone(),
        };
        let session = self.job.session.clone();
        let flights = Arc::clone(self.flights);
        let cancel = self.cancel.clone();
        let solve = Solve::new(steps, nodes, seats, session, flights, cancel);
        let solved = solve.solve(target).await;
        if solved.is_err() {
            solve.give_up();
        }
        let solved = solved?;
        let request = &self.job.request;
        let steps = match request.cache_to.is_empty() && !options::inline_cache(request) {
            true => Vec::new(),
            false => self.cached(plan, solve.definitions(), &solved).await?,
        };
        Ok((solved, steps))
    }

    /// The steps that are cached, and which of them made the result: what is written to other caches.
    async fn cached(
        &self,
        plan: &Arc<Plan>,
        keys: Vec<Option<Key>>,
        solved: &Solved,
    ) -> Result<Vec<remote_cache::Step>, Failure> {
        let result = match solved {
            Solved::Files(lease) => lease.record().stack.entries.clone(),
            Solved::Context(_) => Vec::new(),
        };
        let source = |op: &Op| matches!(op, Op::Image(_) | Op::Context(_));
        let keys = plan.vertices.iter().zip(keys);
        let keys: Vec<Key> = keys
            .filter(|(vertex, _)| !source(&vertex.op))
            .filter_map(|(_, key)| key)
            .collect();
        let cache = Arc::clone(&self.shop.cache);
        let steps = blocking(move || {
            let step = |key: Key| {
                let lease = cache.find(&key)?;
                let result = result.starts_with(&lease.record().stack.entries);
                Some(remote_cache::Step {
                    keys: vec![key],
                    lease,
                    result,
                })
            };
            Ok(keys.into_iter().filter_map(step).collect())
        });
        Ok(steps.await?)
    }
}

/// Why base images are not known.
enum Unresolved {
    /// The plan cannot be made.
    Plan(PlanError),
    /// An image cannot be had.
    Base(Failure),
}

impl From<PlanError> for Unresolved {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

impl From<Failure> for Unresolved {
    fn from(failure: Failure) -> Self {
        Self::Base(failure)
    }
}

impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Plan(error) => error.into(),
            Unresolved::Base(failure) => failure,
        }
    }
}

fn answered(answer: CallAnswer) -> BuildResult {
    BuildResult {
        answer: Some(answer),
        ..BuildResult::default()
    }
}

/// Lines of the history of an image.
fn history_lines(config: &[u8]) -> usize {
    ImageConfig::from_json(config).map_or(0, |config| config.history.len())
}

/// Tells of what the plan warns of.
fn warn(seat: &Seat, dockerfile: &Dockerfile, warnings: &[Lint]) {
    for lint in warnings {
        let short = format!(
            "{}: {} (line {})",
            lint.rule, lint.message, lint.lines.first
        );
        seat.warning(VertexWarning {
            vertex: String::new(),
            level: 1,
            short: short.into_bytes(),
            detail: vec![lint.description.clone().into_bytes()],
            url: lint.url.clone(),
            source_info: Some(calls::source_info(dockerfile)),
            range: calls::source_ranges(lint.lines).collect(),
        });
    }
}
