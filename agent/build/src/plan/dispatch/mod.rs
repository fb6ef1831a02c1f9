//! What instructions do: one after the other they change their stage's environment, configuration and file system.

mod configure;
mod copy;
mod expose;
mod reads;
mod run;
mod words;

use super::env::{EnvList, split_pair};
use super::graph::DEFAULT_PATH;
use super::planner::Planner;
use super::stage::{Planned, StateId};
use super::{History, PlanError, Platform, path};
use crate::dockerfile::{Instruction, Kind, Lines};

/// The comment by which history tells who wrote a line.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// An instruction being planned, and where.
#[derive(Clone, Copy)]
struct At<'i> {
    state: StateId,
    instruction: &'i Instruction,
    onbuild: bool,
}

impl At<'_> {
    fn lines(&self) -> Lines {
        self.instruction.lines
    }
}

/// Steps of one plan, of all stages that are needed. BuildKit has no such bound; layers of one image are bounded by overlayfs.
const STEPS_MAX: usize = 10_000;

impl Planner<'_> {
    /// Plans the instructions of all wanted states, in order.
    pub(super) fn dispatch(&mut self) -> Result<(), PlanError> {
        let wanted = self.wanted();
        for id in wanted {
            if self.stages[id].dispatched {
                continue;
            }
            if let Some(base) = self.stages[id].base {
                let weight = self.stages[base].weight();
                self.spend(weight)?;
                let mut state = std::mem::take(&mut self.stages[id]);
                state.inherit(&self.stages[base]);
                self.stages[id] = state;
            }
            self.stages[id].dispatched = true;
            let lines = self.stages[id].lines;
            self.begin(id).map_err(|error| error.at(lines))?;
            let planned = std::mem::take(&mut self.stages[id].planned);
            if !planned.is_empty() {
                self.take_root(id);
            }
            for step in &planned {
                self.step(id, step)
                    .map_err(|error| error.at(step.instruction.lines))?;
                if self.graph.len() > STEPS_MAX {
                    let error = format!("a build has at most {STEPS_MAX} steps: this is one more");
                    return Err(PlanError::invalid(error).at(step.instruction.lines));
                }
            }
            self.stages[id].planned = planned;
        }
        Ok(())
    }

    /// What a stage starts with, from the configuration of what it starts from.
    fn begin(&mut self, id: StateId) -> Result<(), PlanError> {
        let target_platform = self.target_platform.clone();
        let state = &mut self.stages[id];
        let platform = state.platform.get_or_insert(target_platform);
        let env = &mut state.image.config.env;
        if platform.os != "windows" && !env.iter().any(|pair| split_pair(pair).0 == "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in state.image.config.env.clone() {
            let (name, value) = split_pair(&pair);
            state.env.set(name, value);
        }
        if !state.image.config.working_dir.is_empty() {
            let directory = state.image.config.working_dir.clone();
            state.set_directory(&directory);
        } else if state.directory.is_empty() {
            state.directory = "/".to_owned();
        }
        Ok(())
    }

    fn step(&mut self, id: StateId, step: &Planned) -> Result<(), PlanError> {
        let instruction = &step.instruction;
        let at = At {
            state: id,
            instruction,
            onbuild: step.onbuild,
        };
        match &instruction.kind {
            Kind::Maintainer(name) => {
                self.stages[id].image.author.clone_from(name);
                self.record(id, format!("MAINTAINER {name}"), false)
            }
            Kind::Onbuild(text) => {
                self.stages[id].image.config.on_build.push(text.clone());
                Ok(())
            }
            Kind::Env(pairs) => self.env(at, pairs),
            Kind::Label(pairs) => self.label(at, pairs),
            Kind::Arg(pairs) => self.arg(at, pairs),
            Kind::Run(run) => self.run(at, run, &step.sources),
            Kind::Copy(copy) => self.copy(at, copy, step.sources.first().copied()),
            Kind::Add(add) => self.add(at, add),
            Kind::Workdir(path) => self.workdir(at, path),
            Kind::Cmd(line) => self.cmd(at, line),
            Kind::Entrypoint(line) => self.entrypoint(at, line),
            Kind::Healthcheck(check) => self.healthcheck(at, check),
            Kind::Expose(ports) => self.expose(at, ports),
            Kind::User(user) => self.user(at, user),
            Kind::Volume(paths) => self.volume(at, paths),
            Kind::StopSignal(signal) => self.stop_signal(at, signal),
            Kind::Shell(shell) => {
                self.stages[id].image.config.shell.clone_from(shell);
                self.record(id, format!("SHELL [{}]", shell.join(" ")), false)
            }
        }
    }

    /// Adds a line of history.
    fn record(&mut self, id: StateId, created_by: String, layer: bool) -> Result<(), PlanError> {
        self.spend(created_by.len() + size_of::<History>())?;
        let created = self.source_date_epoch.map(super::history::timestamp);
        self.stages[id].image.history.push(History {
            created,
            created_by,
            author: String::new(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !layer,
        });
        Ok(())
    }

    /// The name of a stage's next step: `[builder 2/4] RUN make`.
    pub(super) fn step_name(
        &mut self,
        id: StateId,
        command: &str,
        platform: &Platform,
        onbuild: bool,
        env: &EnvList,
    ) -> String {
        let multi_platform = self.options.multi_platform;
        let state = &mut self.stages[id];
        if state.total == 0 {
            return command.to_owned();
        }
        state.counted += 1;
        let mut name = "[".to_owned();
        if multi_platform {
            name += &format!("{platform}{} ", cross(platform, env));
        }
        if !state.shown.is_empty() {
            name += &format!("{} ", state.shown);
        }
        let width = state.total.to_string().len();
        name += &format!("{:>width$}/{}] ", state.counted, state.total);
        if onbuild {
            name += "ONBUILD ";
        }
        name + command
    }

    /// The name of an instruction's step, variables replaced as `lexer` does; what cannot be replaced stays.
    fn instruction_name(
        &mut self,
        at: At<'_>,
        text: &str,
        lexer: &crate::words::Lexer,
        env: &dyn crate::words::Environment,
    ) -> String {
        let expanded = lexer.expand(text, env);
        let text = expanded.map_or_else(|_| text.to_owned(), |expanded| expanded.text);
        let (first, rest) = match text.split_once(' ') {
            Some((first, rest)) => (first, format!(" {rest}")),
            None => (text.as_str(), String::new()),
        };
        let command = format!("{}{rest}", first.to_uppercase());
        let state = &self.stages[at.state];
        let platform = state.platform.clone();
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        let env = state.env.clone();
        self.step_name(at.state, &command, &platform, at.onbuild, &env)
    }
}

impl super::stage::State {
    /// WORKDIR without its step: the directory of configuration and later steps.
    fn set_directory(&mut self, to: &str) -> String {
        let directory = path::from(&self.image.config.working_dir, to, path::LastSlash::Drop);
        self.image.config.working_dir.clone_from(&directory);
        self.directory.clone_from(&directory);
        directory
    }
}

/// What a step compiles for, when that is another platform than its own: `->arm64`.
fn cross(platform: &Platform, env: &EnvList) -> String {
    let Some(target) = target_of(platform, env) else {
        return String::new();
    };
    let target = target.normalized();
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    match target.variant.as_str() {
        "" => format!("->{}", target.architecture),
        variant => format!("->{}/{variant}", target.architecture),
    }
}

fn target_of(platform: &Platform, env: &EnvList) -> Option<Platform> {
    let parsed = env.get("TARGETPLATFORM").and_then(|text| text.parse().ok());
    if parsed.is_some() {
        return parsed;
    }
    let (os, architecture) = (env.get("TARGETOS"), env.get("TARGETARCH"));
    let variant = env.get("TARGETVARIANT");
    if os.is_none() && architecture.is_none() && variant.is_none() {
        return None;
    }
    let or = |value: Option<&str>, other: &str| match value {
        Some(value) if !value.is_empty() => value.to_owned(),
        _ => other.to_owned(),
    };
    Some(Platform {
        os: or(os, &platform.os),
        architecture: or(architecture, &platform.architecture),
        variant: variant.unwrap_or_default().to_owned(),
    })
}
