//! The planner: sets stages up from the text and the options.
//!
//! What they start from is in [`super::bases`], what instructions do to them in [`super::dispatch`], and what comes of
//! it in [`super::finish`].

use std::collections::BTreeSet;

use super::bases::named_context;
use super::env::EnvList;
use super::graph::Graph;
use super::stage::{Planned, SCRATCH, Stages, State, StateId};
use super::{Bases, BuildOptions, BuilderArgs, PlanError, Platform, args, lints};
use crate::dockerfile::{Dockerfile, Kind, Stage, is_builtin_syntax};
use crate::lint::{Config, Linter};
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
    pub(super) known: &'a Bases,
    /// Bytes that the plan has come to, roughly.
    spent: usize,
}

/// A text of a few lines can double its variables with each of them, or expose all ports in each. A plan of more than
/// this many bytes is refused.
const MAX_PLAN_BYTES: usize = 64 << 20;

impl<'a> Planner<'a> {
    /// A planner that has read nothing yet.
    ///
    /// # Errors
    /// The lint configuration cannot be read, or another language than Docker's is asked for.
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a BuildOptions,
        known: &'a Bases,
    ) -> Result<Planner<'a>, PlanError> {
        let builder_args = options.builder_args();
        if let Some(syntax) = &builder_args.syntax
            && !is_builtin_syntax(syntax)
        {
            return Err(PlanError::invalid(format!(
                "syntax {syntax} of the build argument BUILDKIT_SYNTAX is not supported: only docker/dockerfile, which \
                 is built in"
            )));
        }
        let linter = Linter::new(lint_config(dockerfile, &builder_args)?);
        let build_platform = options.build_platform.clone();
        let build_platform = build_platform.unwrap_or_else(Platform::host);
        let target_platform = match &options.platform {
            Some(platform) => platform.normalized(),
            None => build_platform.clone(),
        };
        let target = options.target.as_deref().filter(|name| !name.is_empty());
        let last = dockerfile.stages.last();
        let target = target.or(last.and_then(|stage| stage.name.as_deref()));
        let global_args = args::predefined(
            &build_platform,
            &target_platform,
            target.unwrap_or_default(),
            &options.build_args,
        );
        Ok(Planner {
            dockerfile,
            options,
            builder_args,
            lexer: Lexer::new(dockerfile.escape),
            target_platform,
            global_args,
            source_date_epoch: None,
            stages: Stages::default(),
            target: StateId(0),
            graph: Graph::default(),
            linter,
            known,
            spent: 0,
        })
    }

    /// Accounts for something that the plan is about to hold.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), PlanError> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > MAX_PLAN_BYTES {
            return Err(PlanError::invalid(format!(
                "the plan of this Dockerfile is larger than {} MiB: it has too many or too long variables, ports or steps",
                MAX_PLAN_BYTES >> 20
            )));
        }
        Ok(())
    }

    /// Reads the stages, without knowing any image.
    pub(super) fn read_stages(&mut self) -> Result<(), PlanError> {
        let (dockerfile, options, lexer) = (self.dockerfile, self.options, self.lexer);
        let predefined = self.global_args.clone();
        self.linter.check(dockerfile);
        lints::default_bases(&mut self.linter, dockerfile, &lexer, &predefined);
        self.global_args = args::global(&predefined, dockerfile, &lexer, &options.build_args)?;
        self.source_date_epoch = source_date_epoch(options, &self.global_args)?;
        for (number, stage) in dockerfile.stages.iter().enumerate() {
            let state = self.state_of(number, stage)?;
            let id = self.stages.add(state);
            self.count_steps(id);
        }
        self.target = self.stages.target(options)?;
        self.stages.connect(&lexer)
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
