//! The planner: sets stages up, finds out which images they start from, and takes over ONBUILD triggers.
//!
//! What instructions do to a stage is in [`super::dispatch`].

use std::collections::{BTreeMap, BTreeSet};

use super::env::EnvList;
use super::graph::{Graph, Step, empty_image};
use super::name::ImageName;
use super::stage::{NamedContext, Planned, SCRATCH, Stages, State, StateId};
use super::{
    BaseImage, BaseRequest, BaseSource, Bases, BuildOptions, BuilderArgs, ContextOp, ContextPaths,
    ContextSource, GitAddress, HttpOp, ImageOp, Op, Plan, PlanError, Platform, VertexId, args,
    lints,
};
use crate::dockerfile::{Dockerfile, Kind, Lines, Stage, parse_trigger};
use crate::lint::{Config, Linter};
use crate::quote::quote;
use crate::words::Lexer;

/// One planning from beginning to end.
pub(super) struct Planner<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) options: &'a BuildOptions,
    pub(super) builder_args: BuilderArgs,
    pub(super) lexer: Lexer,
    pub(super) target_platform: Platform,
    pub(super) global_args: EnvList,
    pub(super) source_date_epoch: Option<i64>,
    pub(super) stages: Stages,
    pub(super) target: StateId,
    pub(super) graph: Graph,
    pub(super) linter: Linter,
    /// Which paths are read of which context.
    pub(super) paths: BTreeMap<String, BTreeSet<String>>,
    known: &'a Bases,
}

impl<'a> Planner<'a> {
    /// Reads the stages, without knowing any image.
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a BuildOptions,
        known: &'a Bases,
    ) -> Result<Planner<'a>, PlanError> {
        let builder_args = options.builder_args();
        let mut linter = Linter::new(lint_config(dockerfile, &builder_args)?);
        linter.check(dockerfile);

        let build_platform = options.build_platform.clone();
        let build_platform = build_platform.unwrap_or_else(Platform::host);
        let target_platform = match &options.platform {
            Some(platform) => platform.normalized(),
            None => build_platform.clone(),
        };
        let lexer = Lexer::new(dockerfile.escape);
        let last_name = dockerfile
            .stages
            .last()
            .and_then(|stage| stage.name.as_deref());
        let target = options.target.as_deref().filter(|name| !name.is_empty());
        let predefined = args::predefined(
            &build_platform,
            &target_platform,
            target.or(last_name).unwrap_or_default(),
            &options.build_args,
        );
        lints::default_bases(&mut linter, dockerfile, &lexer, &predefined);
        let global_args = args::global(&predefined, dockerfile, &lexer, &options.build_args)?;
        let source_date_epoch = source_date_epoch(options, &global_args)?;

        let mut planner = Planner {
            dockerfile,
            options,
            builder_args,
            lexer,
            target_platform,
            global_args,
            source_date_epoch,
            stages: Stages::default(),
            target: StateId(0),
            graph: Graph::default(),
            linter,
            paths: BTreeMap::new(),
            known,
        };
        for (number, stage) in dockerfile.stages.iter().enumerate() {
            let state = planner.state_of(number, stage)?;
            let id = planner.stages.add(state);
            planner.count_steps(id);
        }
        planner.target = planner.stages.target(options)?;
        planner.stages.connect(&lexer)?;
        Ok(planner)
    }

    fn state_of(&mut self, number: usize, stage: &Stage) -> Result<State, PlanError> {
        let at = |error: PlanError| error.at(stage.lines);
        let base = self.lexer.expand(&stage.base, &self.global_args);
        let base = base.map_err(|error| at(error.into()))?;
        lints::undeclared_in_from(self, &base.unmatched, stage);
        if base.text.is_empty() {
            let written = &stage.base;
            let message = format!("base name ({written}) should not be blank");
            return Err(at(PlanError::invalid(message)));
        }
        let platform = match &stage.platform {
            Some(written) => Some(self.stage_platform(written, stage).map_err(at)?),
            None => None,
        };
        let name = stage.name.clone();
        let shown = name.clone().unwrap_or_else(|| format!("stage-{number}"));
        let replaced_by = name.as_deref().and_then(|name| {
            let platform = platform.as_ref().unwrap_or(&self.target_platform);
            named_context(self.options, name, platform)
        });
        let planned = match replaced_by {
            Some(_) => Vec::new(),
            None => stage.instructions.iter().map(Planned::of).collect(),
        };
        Ok(State {
            no_cache: self
                .options
                .no_cache
                .covers(name.as_deref().unwrap_or_default()),
            name,
            shown,
            base_name: base.text,
            platform,
            replaced_by,
            lines: stage.lines,
            comments: stage.comments.clone(),
            planned,
            ..State::default()
        })
    }

    fn stage_platform(&mut self, written: &str, stage: &Stage) -> Result<Platform, PlanError> {
        let expanded = self.lexer.expand(written, &self.global_args)?;
        lints::undeclared_in_from(self, &expanded.unmatched, stage);
        lints::stage_platform(self, written, &expanded, stage);
        let suggested = |message: String| {
            let options: Vec<&str> = self.global_args.names().collect();
            PlanError::suggested(message, &expanded.unmatched, &options)
        };
        if expanded.text.is_empty() {
            return Err(suggested(format!(
                "empty platform value from expression {written}"
            )));
        }
        expanded
            .text
            .parse()
            .map_err(|error| suggested(format!("failed to parse platform {written}: {error}")))
    }

    fn count_steps(&mut self, id: StateId) {
        let state = &mut self.stages[id];
        if state.replaced_by.is_some() {
            return;
        }
        let from = usize::from(state.base_name != SCRATCH && state.base.is_none());
        let counted = |step: &&Planned| {
            let kind = &step.instruction.kind;
            matches!(
                kind,
                Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_)
            )
        };
        state.total = from + state.planned.iter().filter(counted).count();
    }

    /// The states to plan: what the target needs, or all of them.
    pub(super) fn wanted(&self) -> BTreeSet<StateId> {
        if self.options.all_stages {
            return self.stages.ids().collect();
        }
        self.stages.reachable(self.target)
    }

    /// Resolves what wanted states start from, ONBUILD triggers included. Requests that are unanswered come back; when
    /// there are none, everything is resolved.
    pub(super) fn resolve(&mut self) -> Result<Vec<BaseRequest>, PlanError> {
        loop {
            let wanted = self.wanted();
            let mut missing: Vec<BaseRequest> = Vec::new();
            for id in self.stages.ids() {
                let unresolved = self.stages[id].base.is_none() && !self.stages[id].resolved;
                if !unresolved {
                    continue;
                }
                let lines = self.stages[id].lines;
                let request = self
                    .resolve_base(id, wanted.contains(&id))
                    .map_err(|error| error.at(lines))?;
                if let Some(request) = request
                    && !missing.contains(&request)
                {
                    missing.push(request);
                }
            }
            if !missing.is_empty() {
                return Ok(missing);
            }
            let mut new_sources = false;
            for id in wanted {
                let lines = self.stages[id].lines;
                new_sources |= self.take_triggers(id).map_err(|error| error.at(lines))?;
            }
            if !new_sources {
                return Ok(Vec::new());
            }
        }
    }

    /// Resolves what one state starts from. An unwanted one is only checked.
    fn resolve_base(
        &mut self,
        id: StateId,
        wanted: bool,
    ) -> Result<Option<BaseRequest>, PlanError> {
        let state = &self.stages[id];
        let (base_name, lines) = (state.base_name.clone(), state.lines);
        let platform = state.platform.clone();
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        if base_name == SCRATCH && state.replaced_by.is_none() {
            let target_platform = self.target_platform.clone();
            let state = &mut self.stages[id];
            state.image = empty_image(&target_platform);
            state.platform = Some(target_platform);
            state.resolved = true;
            state.dispatched |= state.implicit;
            return Ok(None);
        }
        let name = ImageName::parse(&base_name).map_err(|reason| {
            PlanError::invalid(format!(
                "failed to parse stage name {}: {reason}",
                quote(&base_name)
            ))
        })?;
        if !wanted {
            return Ok(None);
        }
        let name = name.tagged();
        let context = match self.stages[id].replaced_by.clone() {
            Some(context) => Some(context),
            None => named_context(self.options, &name.to_string(), &platform),
        };
        if let Some(context) = context {
            return self.resolve_context(id, &context, platform, lines);
        }
        let multi = if self.options.multi_platform {
            format!("{platform} ")
        } else {
            String::new()
        };
        let request = BaseRequest {
            source: BaseSource::Image(name.to_string()),
            platform: platform.clone(),
            written: base_name.clone(),
            log_name: format!("[{multi}internal] load metadata for {name}"),
            lines,
        };
        let Some(image) = self.known.get(&request.source, &request.platform).cloned() else {
            return Ok(Some(request));
        };
        let name = match &image.digest {
            Some(digest) => name.with_digest(digest),
            None => name,
        };
        lints::base_platform(self, &base_name, &platform, &image, id);
        let vertex = self.image_vertex(id, &image, &name.to_string(), &platform, None);
        self.start_from_image(id, image, vertex, platform);
        Ok(None)
    }

    /// Puts a named context in the place of what a state starts from, or of the whole state.
    fn resolve_context(
        &mut self,
        id: StateId,
        context: &NamedContext,
        platform: Platform,
        lines: Lines,
    ) -> Result<Option<BaseRequest>, PlanError> {
        let name = &context.name;
        let request = match &context.source {
            ContextSource::Image(reference) => {
                let reference = reference.trim_start_matches("//");
                let image = ImageName::parse(reference).map_err(|reason| {
                    PlanError::invalid(format!("failed to parse context {name}: {reason}"))
                })?;
                Some(BaseRequest {
                    source: BaseSource::Image(image.tagged().to_string()),
                    platform: platform.clone(),
                    written: reference.to_owned(),
                    log_name: format!("[context {name}] load metadata for {reference}"),
                    lines,
                })
            }
            ContextSource::OciLayout(layout) => Some(BaseRequest {
                source: BaseSource::OciLayout {
                    context: name.clone(),
                    layout: layout.clone(),
                },
                platform: platform.clone(),
                written: layout.clone(),
                log_name: format!("[context {name}] load metadata for {layout}"),
                lines,
            }),
            _ => None,
        };
        if let Some(request) = request {
            let Some(image) = self.known.get(&request.source, &request.platform).cloned() else {
                return Ok(Some(request));
            };
            let shown = match &context.source {
                ContextSource::Image(_) => format!("[context {name}] {}", request.written),
                _ => format!("[context {name}] OCI load from client"),
            };
            let reference = match &request.source {
                BaseSource::Image(reference) => reference.clone(),
                BaseSource::OciLayout { layout, .. } => layout.clone(),
            };
            let vertex = self.image_vertex(id, &image, &reference, &platform, Some(shown));
            self.start_from_image(id, image, vertex, platform);
        } else {
            let vertex = self.context_vertex(id, context)?;
            let replaced = self.stages[id].replaced_by.is_some();
            let state = &mut self.stages[id];
            state.image = empty_image(&platform);
            if replaced {
                state.image.config = Default::default();
            }
            state.context = (context.source == ContextSource::Local).then(|| name.clone());
            state.root = vertex;
            state.base_vertex = vertex;
            state.platform = Some(platform);
            state.resolved = true;
        }
        let state = &mut self.stages[id];
        state.dispatched |= state.implicit || state.replaced_by.is_some();
        Ok(None)
    }

    fn start_from_image(
        &mut self,
        id: StateId,
        image: BaseImage,
        vertex: Option<VertexId>,
        platform: Platform,
    ) {
        let state = &mut self.stages[id];
        state.root = vertex;
        state.base_vertex = vertex;
        state.image = image.config;
        state.platform = Some(platform);
        state.resolved = true;
        state.dispatched |= state.implicit;
    }

    /// The vertex of an image, unless it has no layers.
    fn image_vertex(
        &mut self,
        id: StateId,
        image: &BaseImage,
        reference: &str,
        platform: &Platform,
        shown: Option<String>,
    ) -> Option<VertexId> {
        if image.layers == 0 {
            return None;
        }
        let name = shown.unwrap_or_else(|| {
            let command = format!("FROM {reference}");
            self.step_name(id, &command, platform, false, &EnvList::default())
        });
        let state = &self.stages[id];
        Some(self.graph.add(Step {
            name,
            op: Op::Image(ImageOp {
                id: image.id.clone(),
                reference: reference.to_owned(),
                platform: platform.clone(),
            }),
            inputs: Vec::new(),
            lines: state.lines,
            stage: state.label(),
            no_cache: false,
        }))
    }

    /// The vertex of a named context that is no image.
    fn context_vertex(
        &mut self,
        id: StateId,
        context: &NamedContext,
    ) -> Result<Option<VertexId>, PlanError> {
        let name = &context.name;
        let (shown, op) = match &context.source {
            ContextSource::Local => {
                let op = Op::Context(ContextOp { name: name.clone() });
                (format!("[context {name}] load from client"), op)
            }
            ContextSource::Git(address) => {
                let parsed = GitAddress::parse(address)
                    .map_err(|error| PlanError::invalid(error.to_string()))?
                    .ok_or_else(|| PlanError::invalid(format!("invalid git context {address}")))?;
                let keep = parsed.keep_git_dir.unwrap_or(false);
                (
                    format!("[context {name}] load git source {address}"),
                    Op::Git(parsed.op(keep)),
                )
            }
            ContextSource::Http(url) => {
                let op = Op::Http(HttpOp {
                    url: url.clone(),
                    file_name: "context".to_owned(),
                    checksum: None,
                });
                (format!("[context {name}] {url}"), op)
            }
            ContextSource::Scratch => return Ok(None),
            ContextSource::Image(_) | ContextSource::OciLayout(_) => {
                unreachable!("images are resolved before a vertex is made of them")
            }
        };
        let lines = self.stages[id].lines;
        Ok(Some(self.graph.add(Step {
            name: shown,
            op,
            inputs: Vec::new(),
            lines,
            stage: None,
            no_cache: false,
        })))
    }

    /// The plan, once all instructions were planned.
    pub(super) fn finish(mut self) -> Result<Plan, PlanError> {
        let target = self.target;
        self.read_all(target);
        if let Some(message) = self.linter.error() {
            return Err(PlanError::lint(message));
        }
        let state = std::mem::take(&mut self.stages[target]);
        let mut config = state.image;
        let labels = self.options.labels.clone();
        config.config.labels.extend(labels);
        let built_for = &self.target_platform;
        if self.options.platform.is_some() {
            let same = built_for.os == config.os && built_for.architecture == config.architecture;
            config.os.clone_from(&built_for.os);
            config.architecture.clone_from(&built_for.architecture);
            if !built_for.variant.is_empty() || !same {
                config.variant.clone_from(&built_for.variant);
            }
            if !same {
                config.os_version.clear();
            }
        }
        let platform = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        let platform = platform.normalized();
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);

        let (vertices, numbers) = self.graph.needed_by(state.root);
        let number = |id: VertexId| numbers[&id];
        let context_paths = self.paths.into_iter().map(|(name, paths)| {
            let paths = match paths.contains("/") {
                true => ContextPaths::All,
                false => ContextPaths::Some(paths.into_iter().collect()),
            };
            (name, paths)
        });
        Ok(Plan {
            target: state.root.map(number),
            layers: state.layers.iter().copied().map(number).collect(),
            base: state.base_vertex.map(number),
            vertices,
            config,
            platform,
            context_paths: context_paths.collect(),
            source_date_epoch: self.source_date_epoch,
            warnings: self.linter.into_found(),
        })
    }

    /// Puts ONBUILD triggers of what a state starts from before its instructions. True when they read further states.
    fn take_triggers(&mut self, id: StateId) -> Result<bool, PlanError> {
        let mut triggers = Vec::new();
        match self.stages[id].base {
            None => {
                // Those of a context that stands in for the whole stage have nothing to run on, but are not passed on.
                triggers = std::mem::take(&mut self.stages[id].image.config.on_build);
                if self.stages[id].dispatched {
                    return Ok(false);
                }
            }
            Some(base) if !self.stages[id].triggered => {
                for step in &self.stages[base].planned {
                    if let Kind::Onbuild(text) = &step.instruction.kind {
                        triggers.push(text.clone());
                    }
                }
                self.stages[id].triggered = true;
            }
            Some(_) => {}
        }
        let lines = self.stages[id].lines;
        let mut new_sources = false;
        let mut planned = Vec::new();
        for trigger in triggers {
            let instruction = parse_trigger(&trigger, lines)?;
            let sources = self.stages.sources(&instruction, &self.lexer)?;
            new_sources |= !sources.is_empty();
            let reads = sources.iter().map(|source| (*source, lines));
            self.stages[id].reads.extend(reads);
            planned.push(Planned {
                instruction,
                sources,
                onbuild: true,
            });
        }
        let state = &mut self.stages[id];
        state.total += planned.len();
        planned.append(&mut state.planned);
        state.planned = planned;
        Ok(new_sources)
    }
}

impl Planned {
    fn of(instruction: &crate::dockerfile::Instruction) -> Planned {
        Planned {
            instruction: instruction.clone(),
            sources: Vec::new(),
            onbuild: false,
        }
    }
}

/// The named context that a reference or a stage's name is overridden by.
fn named_context(options: &BuildOptions, name: &str, platform: &Platform) -> Option<NamedContext> {
    if options.contexts.is_empty()
        || name.eq_ignore_ascii_case(SCRATCH)
        || name.eq_ignore_ascii_case("context")
    {
        return None;
    }
    let short = |name: &str| ImageName::parse(name).map(|name| name.short()).ok();
    let wanted = short(name)?;
    let platform = platform.normalized().to_string();
    let found = |for_platform: Option<&str>| {
        options.contexts.iter().find(|(known, _)| {
            let (known, only_for) = match known.split_once("::") {
                Some((known, platform)) => (known, Some(platform)),
                None => (known.as_str(), None),
            };
            only_for == for_platform && short(known).as_deref() == Some(&wanted)
        })
    };
    let (name, source) = found(Some(&platform)).or_else(|| found(None))?;
    Some(NamedContext {
        name: name.clone(),
        source: source.clone(),
    })
}

fn lint_config(dockerfile: &Dockerfile, args: &BuilderArgs) -> Result<Config, PlanError> {
    let (text, lines) = match (&args.dockerfile_check, &dockerfile.check) {
        (Some(text), _) => (text, None),
        (None, Some((text, lines))) => (text, Some(*lines)),
        (None, None) => return Ok(Config::default()),
    };
    Config::parse(text).map_err(|error| {
        let error = PlanError::invalid(format!("failed to parse check options: {error}"));
        match lines {
            Some(lines) => error.at(lines),
            None => error,
        }
    })
}

/// `SOURCE_DATE_EPOCH` of the build arguments or of an ARG before the first FROM.
fn source_date_epoch(options: &BuildOptions, global: &EnvList) -> Result<Option<i64>, PlanError> {
    let given = options
        .build_args
        .get("SOURCE_DATE_EPOCH")
        .map(String::as_str);
    let value = given.or_else(|| global.get("SOURCE_DATE_EPOCH"));
    match value.filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            PlanError::invalid(format!(
                "invalid SOURCE_DATE_EPOCH: {text}: only a number of seconds since 1970 is understood"
            ))
        }),
    }
}
