//! What stages start from: images, named contexts, nothing; and the ONBUILD triggers that come with it.

use super::env::EnvList;
use super::graph::{Step, empty_image};
use super::name::ImageName;
use super::planner::Planner;
use super::stage::{NamedContext, Planned, SCRATCH, StateId};
use super::{
    BaseImage, BaseRequest, BaseSource, BuildOptions, ContextOp, ContextSource, GitAddress, HttpOp,
    ImageOp, Op, PlanError, Platform, VertexId, lints,
};
use crate::dockerfile::{Kind, Lines, parse_trigger};
use crate::quote::quote;
use crate::redact::redacted;

impl Planner<'_> {
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
                    format!("[context {name}] load git source {}", redacted(address)),
                    Op::Git(parsed.op(keep)),
                )
            }
            ContextSource::Http(url) => {
                let op = Op::Http(HttpOp {
                    url: url.clone(),
                    file_name: "context".to_owned(),
                    checksum: None,
                });
                (format!("[context {name}] {}", redacted(url)), op)
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

/// The named context that a reference or a stage's name is overridden by.
pub(super) fn named_context(
    options: &BuildOptions,
    name: &str,
    platform: &Platform,
) -> Option<NamedContext> {
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
