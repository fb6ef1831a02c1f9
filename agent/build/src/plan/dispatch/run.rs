//! RUN: what is executed, with which environment and mounts.

use super::At;
use crate::dockerfile::{self, CommandLine, Mount, MountType, Run, Sharing, heredoc};
use crate::plan::env::{EnvList, Masked};
use crate::plan::planner::Planner;
use crate::plan::stage::{DeclaredArg, StateId};
use crate::plan::{
    CacheSharing, Entitlement, InputIndex, MountKind, NetworkMode, Op, Ownership, PlanError,
    RunMount, RunOp, SecurityMode, VertexId, args, lints, path,
};
use crate::quote::quote;

/// Where the script of a heredoc that begins with `#!` is mounted.
const SCRIPTS: &str = "/dev/pipes/";

/// Mounts under construction, and the inputs they read beside the root.
#[derive(Default)]
struct Mounts {
    first_input: usize,
    inputs: Vec<VertexId>,
    list: Vec<RunMount>,
}

impl Mounts {
    fn input(&mut self, vertex: VertexId) -> InputIndex {
        let known = self.inputs.iter().position(|input| *input == vertex);
        let at = known.unwrap_or_else(|| {
            self.inputs.push(vertex);
            self.inputs.len() - 1
        });
        InputIndex(self.first_input + at)
    }

    /// Parents before what is mounted in them; what has no place last.
    fn sort(&mut self) {
        self.list.sort_by(|a, b| match (&a.target, &b.target) {
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }
}

impl Planner<'_> {
    pub(super) fn run(
        &mut self,
        at: At<'_>,
        run: &Run,
        sources: &[StateId],
    ) -> Result<(), PlanError> {
        let parsed = self.parse_mounts(at, run)?;
        let mut mounts = Mounts {
            first_input: self.first_input(at.state),
            ..Mounts::default()
        };
        let args = self.command(at, &run.command, &mut mounts)?;
        for (mount, source) in parsed.iter().zip(sources) {
            self.mount(at, mount, *source, &mut mounts)?;
        }
        self.shared_memory(&mut mounts);
        let env = self.stages[at.state].env.clone();
        self.spend(3 * env.weight())?;
        let mut variables = env.clone();
        name_agent_sockets(&mut mounts.list, &mut variables);
        mounts.sort();

        let (network, security) = self.privileges(run)?;
        let name = self.run_name(at, run, &parsed, &env);
        let declared = &self.stages[at.state].args;
        let created_by = format!("RUN {} # buildkit", history_of(&args, declared, &env));
        let options = self.options;
        let state = &self.stages[at.state];
        let platform = state.platform.clone();
        let op = RunOp {
            root: None,
            args,
            env: variables.to_vec(),
            cwd: path::join("/", &state.directory),
            user: state.image.config.user.clone(),
            hostname: self.builder_args.hostname.clone(),
            network,
            security,
            mounts: mounts.list,
            extra_hosts: options.extra_hosts.clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            resources: options.resources.clone(),
            proxy_env: args::proxies(&options.build_args),
            platform: platform.unwrap_or_else(|| self.target_platform.clone()),
        };
        self.layer(at, name, mounts.inputs, |root| {
            Op::Run(Box::new(RunOp { root, ..op }))
        });
        self.record(at.state, created_by, true)
    }

    /// `--shm-size` is a mount like any other.
    fn shared_memory(&self, mounts: &mut Mounts) {
        if self.options.shm_size_bytes > 0 {
            mounts.list.push(RunMount {
                target: Some("/dev/shm".to_owned()),
                kind: MountKind::Tmpfs {
                    size_bytes: Some(self.options.shm_size_bytes),
                },
            });
        }
    }

    /// Network and confinement, if the build was allowed them.
    fn privileges(&self, run: &Run) -> Result<(NetworkMode, SecurityMode), PlanError> {
        let network = match run.network {
            dockerfile::NetworkMode::Default => self.options.network,
            dockerfile::NetworkMode::None => NetworkMode::None,
            dockerfile::NetworkMode::Host => NetworkMode::Host,
        };
        let security = match run.security {
            dockerfile::SecurityMode::Sandbox => SecurityMode::Sandbox,
            dockerfile::SecurityMode::Insecure => SecurityMode::Insecure,
        };
        if network == NetworkMode::Host {
            self.need(Entitlement::NetworkHost)?;
        }
        if security == SecurityMode::Insecure {
            self.need(Entitlement::SecurityInsecure)?;
        }
        Ok((network, security))
    }

    fn need(&self, entitlement: Entitlement) -> Result<(), PlanError> {
        if self.options.entitlements.contains(&entitlement) {
            return Ok(());
        }
        let name = entitlement.name();
        Err(PlanError::forbidden(format!(
            "{name} is not allowed: build with --allow {name} to permit it"
        )))
    }

    fn parse_mounts(&mut self, at: At<'_>, run: &Run) -> Result<Vec<Mount>, PlanError> {
        let mut unmatched = std::collections::BTreeSet::new();
        let mut parsed = Vec::with_capacity(run.mounts.len());
        let (env, lexer) = (&self.stages[at.state].env, self.lexer);
        for mount in &run.mounts {
            let mut expand = |word: &str| {
                let expanded = lexer.expand(word, env)?;
                unmatched.extend(expanded.unmatched);
                Ok(expanded.text)
            };
            parsed.push(Mount::parse(mount, &mut expand)?);
        }
        lints::undefined(self, at.state, at.instruction, &unmatched);
        Ok(parsed)
    }

    /// The arguments to execute, heredocs resolved.
    fn command(
        &self,
        at: At<'_>,
        line: &CommandLine,
        mounts: &mut Mounts,
    ) -> Result<Vec<String>, PlanError> {
        let mut args = line.args.clone();
        if !line.files.is_empty() {
            let [text] = args.as_slice() else {
                return Err(PlanError::invalid(
                    "a heredoc belongs to the shell form of RUN",
                ));
            };
            let image = &self.stages[at.state].image;
            match line.files.as_slice() {
                [file] if heredoc::is_only_heredoc(text) => {
                    let body = match file.chomp {
                        true => heredoc::chomp(&file.data),
                        false => file.data.clone(),
                    };
                    if image.os != "windows" && body.starts_with("#!") {
                        args = vec![format!("{SCRIPTS}{}", file.name)];
                        mounts.list.push(RunMount {
                            target: Some(SCRIPTS.to_owned()),
                            kind: MountKind::Script {
                                name: file.name.clone(),
                                content: body,
                            },
                        });
                    } else {
                        args = vec![body];
                    }
                }
                files => {
                    // The shell reads the heredocs itself.
                    let bodies = files
                        .iter()
                        .map(|file| format!("\n{}{}", file.data, file.name));
                    args = vec![format!("{text}{}", bodies.collect::<String>())];
                }
            }
        }
        if line.shell {
            return Ok(self.with_shell(at.state, &args));
        }
        Ok(args)
    }

    fn run_name(&mut self, at: At<'_>, run: &Run, mounts: &[Mount], env: &EnvList) -> String {
        let mut text = at.instruction.code.clone();
        if let ([only], [file]) = (run.command.args.as_slice(), run.command.files.as_slice())
            && heredoc::is_only_heredoc(only)
        {
            text += &format!(" ({})", summary(&file.data));
        }
        let mut mask = EnvList::default();
        for mount in mounts
            .iter()
            .filter(|mount| mount.kind == MountType::Secret)
        {
            if let Some(variable) = &mount.env {
                mask.set(variable, "****");
            }
        }
        let mut lexer = self.lexer;
        lexer.raw_quotes = true;
        lexer.skip_unset = true;
        self.instruction_name(at, &text, &lexer, &Masked { mask, base: env })
    }

    fn mount(
        &mut self,
        at: At<'_>,
        mount: &Mount,
        source: StateId,
        mounts: &mut Mounts,
    ) -> Result<(), PlanError> {
        let kind = match mount.kind {
            MountType::Secret => {
                mounts.list.push(self.secret(at, mount)?);
                return Ok(());
            }
            MountType::Ssh => {
                mounts.list.push(self.ssh(at, mount)?);
                return Ok(());
            }
            MountType::Tmpfs => MountKind::Tmpfs {
                size_bytes: Some(mount.size_bytes).filter(|size| *size > 0),
            },
            MountType::Bind => {
                let from = self.mount_source(mount, source)?;
                MountKind::Bind {
                    from: from.map(|vertex| mounts.input(vertex)),
                    source: path::join("/", &mount.source),
                    writable: !mount.read_only,
                }
            }
            MountType::Cache => {
                let from = self.mount_source(mount, source)?;
                self.cache(mount, from, mounts)
            }
        };
        let target = self.mount_target(at, &mount.target);
        if target == "/" {
            return Err(PlanError::invalid(format!(
                "invalid mount target {}",
                quote(&target)
            )));
        }
        mounts.list.push(RunMount {
            target: Some(target),
            kind,
        });
        Ok(())
    }

    /// Absolute, seen from the working directory.
    fn mount_target(&self, at: At<'_>, target: &str) -> String {
        match target.starts_with('/') {
            true => path::clean(target),
            false => path::join(
                "/",
                &format!("{}/{target}", self.stages[at.state].directory),
            ),
        }
    }

    /// The file system that a bind or cache mount reads; none is an empty one.
    fn mount_source(
        &mut self,
        mount: &Mount,
        source: StateId,
    ) -> Result<Option<VertexId>, PlanError> {
        let from = mount.from.as_deref().filter(|from| !from.is_empty());
        match (from, mount.kind) {
            (None, MountType::Bind) => Ok(Some(self.main_context())),
            (None, _) => Ok(None),
            (Some(from), _) => {
                let state = &self.stages[source];
                if !state.dispatched {
                    return Err(PlanError::invalid(format!(
                        "cannot mount from stage {} to {}, stage needs to be defined before current command",
                        quote(from),
                        quote(&mount.target)
                    )));
                }
                Ok(state.root)
            }
        }
    }

    fn cache(&self, mount: &Mount, from: Option<VertexId>, mounts: &mut Mounts) -> MountKind {
        let id = match mount.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => path::clean(&mount.target),
        };
        let source = path::join("/", &mount.source);
        let owned = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        let ownership = (source == "/" && owned).then(|| ownership(mount, 0o755));
        MountKind::Cache {
            id: format!("{}/{id}", self.builder_args.cache_mount_namespace),
            sharing: match mount.sharing {
                None | Some(Sharing::Shared) => CacheSharing::Shared,
                Some(Sharing::Private) => CacheSharing::Private,
                Some(Sharing::Locked) => CacheSharing::Locked,
            },
            // A directory with an owner of its own is a new one beside what `from` has, so nothing of that is seen.
            from: from
                .filter(|_| ownership.is_none())
                .map(|vertex| mounts.input(vertex)),
            source,
            ownership,
            read_only: mount.read_only,
        }
    }

    fn secret(&self, at: At<'_>, mount: &Mount) -> Result<RunMount, PlanError> {
        let given = [
            mount.source.as_str(),
            mount.id.as_deref().unwrap_or_default(),
        ];
        let id = match given.into_iter().find(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None if mount.target.is_empty() => {
                return Err(PlanError::invalid("one of source, target required"));
            }
            None => path::base(&mount.target).to_owned(),
        };
        let target = match (mount.target.as_str(), &mount.env) {
            ("", Some(_)) => None,
            ("", None) => Some(format!("/run/secrets/{}", path::base(&id))),
            (target, _) => Some(self.mount_target(at, target)),
        };
        let owned = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        Ok(RunMount {
            target,
            kind: MountKind::Secret {
                env: mount
                    .env
                    .clone()
                    .map(|name| if name.is_empty() { id.clone() } else { name }),
                id,
                required: mount.required,
                ownership: owned.then(|| ownership(mount, 0o400)),
            },
        })
    }

    fn ssh(&self, at: At<'_>, mount: &Mount) -> Result<RunMount, PlanError> {
        if !mount.source.is_empty() {
            return Err(PlanError::invalid("ssh does not support source"));
        }
        let owned = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        let id = mount.id.as_deref().filter(|id| !id.is_empty());
        Ok(RunMount {
            target: (!mount.target.is_empty()).then(|| self.mount_target(at, &mount.target)),
            kind: MountKind::Ssh {
                id: id.unwrap_or("default").to_owned(),
                required: mount.required,
                ownership: owned.then(|| ownership(mount, 0o600)),
            },
        })
    }
}

fn ownership(mount: &Mount, mode: u32) -> Ownership {
    Ownership {
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(mode),
    }
}

/// Gives agents' sockets without a place one, and tells programs of the first.
fn name_agent_sockets(mounts: &mut [RunMount], env: &mut EnvList) {
    let agents = mounts
        .iter_mut()
        .filter(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
    for (number, mount) in agents.enumerate() {
        let target = mount
            .target
            .get_or_insert_with(|| format!("/run/buildkit/ssh_agent.{number}"));
        if number == 0 && env.get("SSH_AUTH_SOCK").is_none() {
            env.set("SSH_AUTH_SOCK", target);
        }
    }
}

/// What history tells of a RUN: declared arguments as they are now, and the command.
fn history_of(command: &[String], declared: &[DeclaredArg], env: &EnvList) -> String {
    let mut args = EnvList::default();
    let mut order: Vec<&str> = Vec::new();
    for arg in declared {
        let value = env
            .get(&arg.name)
            .or(arg.value.as_deref())
            .unwrap_or_default();
        args.set(&arg.name, value);
        if !order.contains(&arg.name.as_str()) {
            order.push(&arg.name);
        }
    }
    let mut words: Vec<String> = Vec::new();
    if !order.is_empty() {
        words.push(format!("|{}", order.len()));
    }
    for name in order {
        words.push(format!("{name}={}", args.get(name).unwrap_or_default()));
    }
    words.extend(command.iter().cloned());
    words.join(" ")
}

/// The first line of a script, for a step's name.
fn summary(script: &str) -> String {
    let mut lines = script.trim().split('\n');
    let first = lines.next().unwrap_or_default().trim_end_matches('\r');
    match lines.next() {
        Some(_) => format!("{first}..."),
        None => first.to_owned(),
    }
}
