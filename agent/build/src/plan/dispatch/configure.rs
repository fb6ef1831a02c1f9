//! Instructions that only change the configuration, and WORKDIR.

use super::At;
use crate::dockerfile::{ArgPair, CommandLine, Healthcheck, KeyValue};
use crate::plan::env::set_in_image;
use crate::plan::graph::Step;
use crate::plan::planner::Planner;
use crate::plan::stage::{DeclaredArg, StateId};
use crate::plan::{Empty, InputIndex, MakeDirOp, Op, PlanError, args, history, lints, path};

impl Planner<'_> {
    pub(super) fn env(&mut self, at: At<'_>, pairs: &[KeyValue]) -> Result<(), PlanError> {
        let mut line = "ENV".to_owned();
        for pair in self.pairs(at, pairs)? {
            lints::legacy_pair(self, at.instruction, &pair);
            lints::secret_name(self, at.instruction, "ENV", &pair.key);
            line += &format!(" {}={}", pair.key, pair.value);
            // As much time as bytes: the image's list is searched.
            self.spend(self.stages[at.state].image.config.env.len())?;
            let state = &mut self.stages[at.state];
            state.env.set(&pair.key, &pair.value);
            set_in_image(&mut state.image.config.env, &pair.key, &pair.value);
        }
        self.record(at.state, line, false)
    }

    pub(super) fn label(&mut self, at: At<'_>, pairs: &[KeyValue]) -> Result<(), PlanError> {
        let mut line = "LABEL".to_owned();
        for pair in self.pairs(at, pairs)? {
            lints::legacy_pair(self, at.instruction, &pair);
            line += &format!(" {}={}", pair.key, pair.value);
            let labels = &mut self.stages[at.state].image.config.labels;
            labels.insert(pair.key, pair.value);
        }
        self.record(at.state, line, false)
    }

    pub(super) fn arg(&mut self, at: At<'_>, pairs: &[ArgPair]) -> Result<(), PlanError> {
        let mut written = Vec::with_capacity(pairs.len());
        for pair in pairs {
            lints::secret_name(self, at.instruction, "ARG", &pair.name);
            let given = self.options.build_args.get(&pair.name).cloned();
            // A default is expanded only when it is used.
            let value = match (given, &pair.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.word(at, default)?),
                (None, None) => self.global_args.get(&pair.name).map(str::to_owned),
            };
            let state = &mut self.stages[at.state];
            match &value {
                Some(value) => {
                    if !args::NOT_VARIABLES.contains(&pair.name.as_str()) {
                        state.env.set(&pair.name, value);
                    }
                    written.push(format!("{}={value}", pair.name));
                }
                None => written.push(pair.name.clone()),
            }
            state.args.push(DeclaredArg {
                name: pair.name.clone(),
                value,
            });
        }
        self.record(at.state, format!("ARG {}", written.join(" ")), false)
    }

    pub(super) fn cmd(&mut self, at: At<'_>, line: &CommandLine) -> Result<(), PlanError> {
        let previous = self.stages[at.state].last_cmd.replace(at.lines());
        lints::only_once(self, at.instruction, previous);
        let args = self.command_line(at, line);
        self.record(
            at.state,
            format!("CMD {}", history::quoted_list(&args)),
            false,
        )?;
        let config = &mut self.stages[at.state].image.config;
        config.cmd = args;
        config.args_escaped = true;
        Ok(())
    }

    pub(super) fn entrypoint(&mut self, at: At<'_>, line: &CommandLine) -> Result<(), PlanError> {
        let previous = self.stages[at.state].last_entrypoint.replace(at.lines());
        lints::only_once(self, at.instruction, previous);
        let args = self.command_line(at, line);
        self.record(
            at.state,
            format!("ENTRYPOINT {}", history::quoted_list(&args)),
            false,
        )?;
        let state = &mut self.stages[at.state];
        state.image.config.entrypoint = args;
        // Arguments inherited for another program mean nothing to this one.
        if state.last_cmd.is_none() {
            state.image.config.cmd.clear();
        }
        Ok(())
    }

    fn command_line(&mut self, at: At<'_>, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.args.clone();
        }
        if self.stages[at.state].image.config.shell.is_empty() {
            lints::shell_form(self, at.instruction);
        }
        self.with_shell(at.state, &line.args)
    }

    /// A text for the stage's shell.
    pub(super) fn with_shell(&self, id: StateId, args: &[String]) -> Vec<String> {
        let image = &self.stages[id].image;
        let mut shell = match (image.config.shell.as_slice(), image.os.as_str()) {
            ([], "windows") => vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()],
            ([], _) => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            (shell, _) => shell.to_vec(),
        };
        shell.push(args.join(" "));
        shell
    }

    pub(super) fn healthcheck(&mut self, at: At<'_>, check: &Healthcheck) -> Result<(), PlanError> {
        let previous = self.stages[at.state].last_healthcheck.replace(at.lines());
        lints::only_once(self, at.instruction, previous);
        let check = history::healthcheck(check);
        let line = format!("HEALTHCHECK {}", history::healthcheck_text(&check));
        self.stages[at.state].image.config.healthcheck = Some(check);
        self.record(at.state, line, false)
    }

    pub(super) fn user(&mut self, at: At<'_>, user: &str) -> Result<(), PlanError> {
        let user = self.word(at, user)?;
        self.record(at.state, format!("USER {user}"), false)?;
        self.stages[at.state].image.config.user = user;
        Ok(())
    }

    pub(super) fn volume(&mut self, at: At<'_>, paths: &[String]) -> Result<(), PlanError> {
        let paths = self.words(at, paths)?;
        if paths.iter().any(String::is_empty) {
            return Err(PlanError::invalid(
                "VOLUME specified can not be an empty string",
            ));
        }
        let line = format!("VOLUME [{}]", paths.join(" "));
        let volumes = &mut self.stages[at.state].image.config.volumes;
        volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        self.record(at.state, line, false)
    }

    pub(super) fn stop_signal(&mut self, at: At<'_>, signal: &str) -> Result<(), PlanError> {
        let signal = self.word(at, signal)?;
        if !is_signal(&signal) {
            return Err(PlanError::invalid(format!("invalid signal: {signal}")));
        }
        self.record(at.state, format!("STOPSIGNAL {signal}"), false)?;
        self.stages[at.state].image.config.stop_signal = signal;
        Ok(())
    }

    pub(super) fn workdir(&mut self, at: At<'_>, to: &str) -> Result<(), PlanError> {
        let to = self.word(at, to)?;
        if !self.stages[at.state].workdir_set && !to.starts_with('/') {
            lints::relative_workdir(self, at.instruction, &to);
        }
        let state = &mut self.stages[at.state];
        state.workdir_set = true;
        let directory = state.set_directory(&to);
        let made = path::clean(&directory);
        if directory != "/" {
            let (env, lexer) = (state.env.clone(), self.lexer);
            let name = self.instruction_name(at, &at.instruction.code, &lexer, &env);
            let user = self.stages[at.state].image.config.user.clone();
            let created = self.source_date_epoch;
            self.layer(at, name, Vec::new(), |root| {
                Op::MakeDir(MakeDirOp {
                    root,
                    path: made,
                    mode: 0o755,
                    owner: Some(user).filter(|user| !user.is_empty()),
                    created,
                })
            });
        }
        let layer = directory != "/";
        self.record(at.state, format!("WORKDIR {directory}"), layer)
    }

    /// Adds the vertex of a step that changes the stage's file system. `inputs` are those beside the root; they begin
    /// at [`Planner::first_input`].
    pub(super) fn layer(
        &mut self,
        at: At<'_>,
        name: String,
        inputs: Vec<crate::plan::VertexId>,
        op: impl FnOnce(Option<InputIndex>) -> Op,
    ) {
        let state = &self.stages[at.state];
        let root = state.root.map(|_| InputIndex(0));
        let op = op(root);
        let no_cache = state.no_cache && !matches!(op, Op::MakeDir(_));
        let step = Step {
            name,
            op,
            inputs: state.root.into_iter().chain(inputs).collect(),
            lines: at.lines(),
            stage: state.label(),
            no_cache,
        };
        let vertex = self.graph.add(step);
        let state = &mut self.stages[at.state];
        state.root = Some(vertex);
        state.layers.push(vertex);
    }
}

impl Planner<'_> {
    /// The place of the first input beside the root.
    pub(super) fn first_input(&self, id: StateId) -> usize {
        usize::from(self.stages[id].root.is_some())
    }
}

/// A number other than 0, or a name with or without `SIG`.
fn is_signal(signal: &str) -> bool {
    if let Ok(number) = signal.parse::<i64>() {
        return number != 0;
    }
    let name = signal.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, range: std::ops::RangeInclusive<u32>| {
        let number = name.strip_prefix(prefix).and_then(|n| n.parse().ok());
        number.is_some_and(|number: u32| range.contains(&number))
    };
    SIGNALS.contains(&name) || real_time("RTMIN+", 1..=15) || real_time("RTMAX-", 1..=14)
}

const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];
