//! Stages: which there are, what each starts from and copies from, and which of them the target needs.
//!
//! A *state* is a stage, or an image that is only named by `--from` or by a mount's `from`.

use std::collections::{BTreeSet, HashMap};

use super::env::EnvList;
use super::{BuildOptions, ContextSource, ImageConfig, PlanError, Platform, VertexId};
use crate::dockerfile::{Instruction, Kind, Lines, Mount};
use crate::quote::quote;
use crate::words::Lexer;

pub(super) const SCRATCH: &str = "scratch";

/// Many more than anybody writes; each costs about a kibibyte.
const MAX_STATES: usize = 20_000;

/// Place of a state in [`Stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StateId(pub(super) usize);

/// An instruction to plan.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) instruction: Instruction,
    /// COPY: its `--from`. RUN: one for each mount.
    pub(super) sources: Vec<StateId>,
    /// It came from a base's ONBUILD.
    pub(super) onbuild: bool,
}

/// A variable declared by ARG in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeclaredArg {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// A named context: its name as the option has it, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedContext {
    pub(super) name: String,
    pub(super) source: ContextSource,
}

/// A stage, and what has become of it so far.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Name after AS, lower case.
    pub(super) name: Option<String>,
    /// Name that progress prints: that, or `stage-N`; empty when there is only one state.
    pub(super) shown: String,
    /// What it starts from, expanded.
    pub(super) base_name: String,
    /// The stage that it starts from.
    pub(super) base: Option<StateId>,
    /// `--platform`; once resolved, the platform of what it starts from.
    pub(super) platform: Option<Platform>,
    /// A named context that stands in for the whole stage.
    pub(super) replaced_by: Option<NamedContext>,
    /// No stage of the Dockerfile: an image named by `--from`.
    pub(super) implicit: bool,
    pub(super) lines: Lines,
    pub(super) comments: Vec<String>,
    pub(super) planned: Vec<Planned>,
    /// States that its instructions read, and where they say so.
    pub(super) reads: Vec<(StateId, Lines)>,
    pub(super) no_cache: bool,

    /// What it starts from is known.
    pub(super) resolved: bool,
    /// ONBUILD triggers of the stage that it starts from were taken over.
    pub(super) triggered: bool,
    /// Its instructions were planned.
    pub(super) dispatched: bool,

    /// How many steps progress counts.
    pub(super) total: usize,
    /// How many of them were named.
    pub(super) counted: usize,

    pub(super) image: ImageConfig,
    pub(super) env: EnvList,
    pub(super) directory: String,
    /// Whose file system it has now; none: an empty one.
    pub(super) root: Option<VertexId>,
    /// The vertex that its layers are laid over.
    pub(super) base_vertex: Option<VertexId>,
    pub(super) layers: Vec<VertexId>,
    pub(super) args: Vec<DeclaredArg>,
    /// A WORKDIR was seen in this Dockerfile.
    pub(super) workdir_set: bool,
    pub(super) last_cmd: Option<Lines>,
    pub(super) last_entrypoint: Option<Lines>,
    pub(super) last_healthcheck: Option<Lines>,
}

/// All states.
#[derive(Debug, Default)]
pub(super) struct Stages {
    pub(super) states: Vec<State>,
    by_name: HashMap<String, StateId>,
}

impl std::ops::Index<StateId> for Stages {
    type Output = State;

    fn index(&self, id: StateId) -> &State {
        &self.states[id.0]
    }
}

impl std::ops::IndexMut<StateId> for Stages {
    fn index_mut(&mut self, id: StateId) -> &mut State {
        &mut self.states[id.0]
    }
}

impl Stages {
    /// Adds a state, finding the earlier stage that it starts from. A later stage of the same name hides an earlier one.
    pub(super) fn add(&mut self, mut state: State) -> StateId {
        let id = StateId(self.states.len());
        if state.replaced_by.is_none() {
            state.base = self.by_name.get(&state.base_name).copied();
        }
        if let Some(name) = &state.name {
            self.by_name.insert(name.clone(), id);
        }
        self.states.push(state);
        id
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = StateId> + use<> {
        (0..self.states.len()).map(StateId)
    }

    pub(super) fn find(&self, name: &str) -> Option<StateId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    pub(super) fn shown_names(&self) -> impl Iterator<Item = &str> {
        let names = self.states.iter().map(|state| state.shown.as_str());
        names.filter(|name| !name.is_empty())
    }

    /// The states that an instruction reads; images that are no stages become states.
    pub(super) fn sources(
        &mut self,
        instruction: &Instruction,
        lexer: &Lexer,
    ) -> Result<Vec<StateId>, PlanError> {
        let at = |error: PlanError| error.at(instruction.lines);
        match &instruction.kind {
            Kind::Copy(copy) => match &copy.from {
                Some(from) if !from.is_empty() => {
                    let source = self.copy_source(from, instruction.lines, lexer);
                    Ok(vec![source.map_err(at)?])
                }
                _ => Ok(Vec::new()),
            },
            Kind::Run(run) => {
                let mut sources = Vec::with_capacity(run.mounts.len());
                for mount in &run.mounts {
                    let from = Mount::from_of(mount).map_err(|error| at(error.into()))?;
                    let from = from.filter(|from| !from.is_empty());
                    let from = from.as_deref().unwrap_or(SCRATCH);
                    let known = self.find(from);
                    sources.push(match known {
                        Some(known) => known,
                        None => self.implicit(from, instruction.lines).map_err(at)?,
                    });
                }
                Ok(sources)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn copy_source(
        &mut self,
        from: &str,
        lines: Lines,
        lexer: &Lexer,
    ) -> Result<StateId, PlanError> {
        let expanded = lexer.expand(from, &())?;
        if expanded.text != from {
            return Err(PlanError::invalid(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround",
            ));
        }
        match from.parse::<i64>() {
            Ok(number) => usize::try_from(number)
                .ok()
                .filter(|number| *number < self.states.len())
                .map(StateId)
                .ok_or_else(|| PlanError::invalid(format!("invalid stage index {number}"))),
            Err(_) => match self.find(from) {
                Some(known) => Ok(known),
                None => self.implicit(from, lines),
            },
        }
    }

    fn implicit(&mut self, image: &str, lines: Lines) -> Result<StateId, PlanError> {
        if self.states.len() >= MAX_STATES {
            return Err(PlanError::invalid(format!(
                "the Dockerfile has more than {MAX_STATES} stages, images to copy from and mounts"
            )));
        }
        Ok(self.add(State {
            base_name: image.to_owned(),
            implicit: true,
            lines,
            ..State::default()
        }))
    }

    /// Reads the sources of all instructions of all stages.
    pub(super) fn connect(&mut self, lexer: &Lexer) -> Result<(), PlanError> {
        for id in self.ids() {
            let mut planned = std::mem::take(&mut self[id].planned);
            for step in &mut planned {
                step.sources = self.sources(&step.instruction, lexer)?;
                let lines = step.instruction.lines;
                let reads = step.sources.iter().map(|source| (*source, lines));
                self[id].reads.extend(reads);
            }
            self[id].planned = planned;
        }
        self.refuse_circles()?;
        if let [only] = self.states.as_mut_slice() {
            only.shown.clear();
        }
        Ok(())
    }

    /// A stage that reads itself, through others or not.
    fn refuse_circles(&self) -> Result<(), PlanError> {
        /// Where a visit stands with a state.
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            OnPath,
            Done,
        }
        let mut marks = vec![Mark::New; self.states.len()];
        for start in self.ids() {
            if marks[start.0] != Mark::New {
                continue;
            }
            marks[start.0] = Mark::OnPath;
            // The path from `start`: a state, how many of its reads were followed, and the line that led there.
            let mut path: Vec<(StateId, usize, Lines)> = vec![(start, 0, Lines::default())];
            while let Some((at, followed, _)) = path.last_mut() {
                let Some((next, lines)) = self[*at].reads.get(*followed).copied() else {
                    marks[at.0] = Mark::Done;
                    path.pop();
                    continue;
                };
                *followed += 1;
                match marks[next.0] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[next.0] = Mark::OnPath;
                        path.push((next, 0, lines));
                    }
                    Mark::OnPath => {
                        let name = &self[start].shown;
                        let mut error = PlanError::invalid(format!(
                            "circular dependency detected on stage: {name}"
                        ));
                        for (_, _, led_by) in path.iter().skip(1) {
                            error = error.at(*led_by);
                        }
                        return Err(error.at(lines));
                    }
                }
            }
        }
        Ok(())
    }

    /// The states that a target needs, itself included.
    pub(super) fn reachable(&self, target: StateId) -> BTreeSet<StateId> {
        let mut found = BTreeSet::new();
        let mut ahead = vec![target];
        while let Some(id) = ahead.pop() {
            if found.insert(id) {
                ahead.extend(self[id].base);
                ahead.extend(self[id].reads.iter().map(|(source, _)| *source));
            }
        }
        found
    }

    /// The stage to build.
    pub(super) fn target(&self, options: &BuildOptions) -> Result<StateId, PlanError> {
        match options.target.as_deref().filter(|name| !name.is_empty()) {
            None => Ok(StateId(self.states.len() - 1)),
            Some(name) => self.find(name).ok_or_else(|| {
                let message = format!("target stage {} could not be found", quote(name));
                PlanError::unknown_target(message, name, self.shown_names())
            }),
        }
    }
}

impl State {
    /// The name by which progress and records know it.
    pub(super) fn label(&self) -> Option<String> {
        Some(self.shown.clone()).filter(|name| !name.is_empty())
    }

    /// How many bytes whoever inherits from it holds, roughly.
    pub(super) fn weight(&self) -> usize {
        let config = &self.image.config;
        let texts = config
            .env
            .iter()
            .chain(&config.cmd)
            .chain(&config.entrypoint);
        let labels = config.labels.iter();
        let history = self.image.history.iter();
        let args = self.args.iter();
        self.env.weight()
            + texts.map(String::len).sum::<usize>()
            + labels
                .map(|(key, value)| key.len() + value.len() + 64)
                .sum::<usize>()
            + history
                .map(|line| line.created_by.len() + 128)
                .sum::<usize>()
            + args
                .map(|arg| arg.name.len() + arg.value.as_ref().map_or(0, String::len) + 64)
                .sum::<usize>()
            + 64 * (config.exposed_ports.len() + config.volumes.len())
            + size_of::<VertexId>() * self.layers.len()
    }

    /// Takes over what the stage that it starts from has come to.
    pub(super) fn inherit(&mut self, base: &State) {
        self.root = base.root;
        self.base_vertex = base.base_vertex;
        self.layers = base.layers.clone();
        self.env = base.env.clone();
        self.directory = base.directory.clone();
        self.platform = base.platform.clone();
        self.image = base.image.clone();
        self.image.config.on_build.clear();
        self.workdir_set = base.workdir_set;
        self.args = base.args.clone();
    }
}
