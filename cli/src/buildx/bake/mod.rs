//! `bake`: builds that files describe, in HCL, JSON or Compose's YAML.
//!
//! ```text
//! file.rs   HCL, JSON → definitions       compose.rs  Compose files → targets      eval.rs, functions.rs  expressions
//! resolve.rs groups, matrices, inheritance → targets   target.rs  one target     set.rs  --set
//! entitle.rs what a file may reach        jobs.rs  targets → jobs      types.rs  types of variables      list.rs  --list
//! ```
//! Docker Compose describes its builds as such a file on standard input. Source: docker/buildx `bake`, `commands/bake.go`.

mod compose;
mod entitle;
mod eval;
mod file;
mod functions;
mod jobs;
mod list;
mod resolve;
mod set;
mod target;
mod types;

use super::job::{AnswerFormat, Job};
use super::options::{check_attestations, check_builder};
use super::run::{self, Results, remove_intermediate};
use super::verbs::DebugFlag;
use super::{answer, record};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::build_progress::{BuildProgress, Mode};
use agent_api::client::build::{OutputSpec, is_remote};
use clap::Args;
use entitle::Granted;
use file::{Definitions, MAX_FILE};
use list::List;
use resolve::Resolved;
use set::Override;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files that are read when none is named, all that are there.
const DEFAULT_FILES: [&str; 4] = [
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Build from a file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster buildx bake
  muster buildx bake -f compose.yaml web
  muster buildx bake -f docker-bake.hcl --set '*.platform=linux/amd64' app
  muster buildx bake --print")]
pub(crate) struct BakeArgs {
    /// Allow build to access specified resources (fs=, fs.read=, fs.write=, ssh, network.host, security.insecure)
    #[arg(long)]
    allow: Vec<String>,
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    /// Set method for evaluating build ("check", "outline", "targets")
    #[arg(long)]
    call: Option<String>,
    /// Shorthand for "--call=check"
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) debug: DebugFlag,
    /// Build definition file (HCL, JSON or a Compose file; - for standard input)
    #[arg(short, long)]
    file: Vec<String>,
    /// List targets or variables ("targets", "variables", "type=variables,format=json")
    #[arg(long)]
    list: Option<String>,
    /// Shorthand for "--set=*.output=type=docker"
    #[arg(long)]
    load: bool,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Print the options without building
    #[arg(long)]
    print: bool,
    /// Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")
    #[arg(long)]
    progress: Option<String>,
    /// Shorthand for "--set=*.attest=type=provenance" (only "false": images are not attested)
    #[arg(long)]
    provenance: Option<String>,
    /// Always attempt to pull all referenced images
    #[arg(long)]
    pull: bool,
    /// Shorthand for "--set=*.output=type=registry"
    #[arg(long)]
    push: bool,
    /// Shorthand for "--set=*.attest=type=sbom" (only "false": images are not attested)
    #[arg(long)]
    sbom: Option<String>,
    /// Override target value (e.g., "targetpattern.key=value")
    #[arg(long, value_name = "PATTERN.KEY=VALUE")]
    set: Vec<String>,
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: BakeArgs) -> Outcome {
    let fail = |reason: String| Failure::new(1, reason);
    check_builder(args.builder.as_deref())?;
    check_attestations(&[], args.provenance.as_deref(), args.sbom.as_deref()).map_err(fail)?;
    let mode = Mode::choose(args.progress.as_deref(), false)?;
    check_local(&args.targets).map_err(fail)?;
    let here = std::env::current_dir()?;
    let definitions = read(&args.file, &here).map_err(fail)?;
    let env = |name: &str| std::env::var(name).ok();
    let builtin = [
        ("BAKE_CMD_CONTEXT", "cwd://".into()),
        ("BAKE_LOCAL_PLATFORM", format!("linux/{}", go_arch()).into()),
    ];
    let scope = definitions.scope(&env, &builtin).map_err(fail)?;
    if let Some(flag) = &args.list {
        let list = List::parse(flag).map_err(fail)?;
        out::text(&list.show(&definitions, &scope).map_err(fail)?)?;
        return Ok(0);
    }
    let overrides = args.overrides().map_err(fail)?;
    let resolved =
        resolve::resolve(&definitions, &scope, &args.targets, &overrides).map_err(fail)?;
    if args.print {
        out::line(print(&resolved))?;
        return Ok(0);
    }
    let mut jobs = jobs::jobs(&resolved, &here).map_err(fail)?;
    grant(&args.allow, &jobs, &here).map_err(fail)?;
    for job in &mut jobs {
        entitle::settle(job, &here);
    }
    let mut outputs = jobs.iter().flat_map(|job| &job.spec.outputs);
    if outputs.any(OutputSpec::is_stdout) {
        let reason = "an output of several builds cannot be standard output: give it a dest";
        return Err(Failure::new(1, reason).into());
    }
    let progress = BuildProgress::new(mode, session.driver());
    build(session, &args, &resolved, jobs, progress).await
}

/// Builds what was resolved, and writes what is asked for about it.
async fn build(
    session: &Session,
    args: &BakeArgs,
    resolved: &Resolved,
    jobs: Vec<Job>,
    mut progress: BuildProgress,
) -> Outcome {
    let formats: Vec<AnswerFormat> = jobs.iter().map(|job| job.answer).collect();
    let client = session.client().await?;
    let mut results = Results::new();
    let built = run::run(client, jobs, &mut progress, &mut results).await;
    remove_intermediate(client, &results, &resolved.wanted).await;
    built.map_err(run::explain)?;
    let mut wanted = results.clone();
    wanted.retain(|name, _| resolved.wanted.contains(name));
    if wanted.values().all(|result| result.answer.is_none()) {
        progress.show_warnings(session.debug, session.debug_hint());
    }
    if let Some(path) = &args.metadata_file {
        record::write_all_metadata(path, &wanted)?;
    }
    let mut code = 0;
    for ((name, result), format) in results.iter().zip(formats) {
        if let Some(answer) = &result.answer {
            let (text, failed) = answer::render(answer, format, &dockerfile(resolved, name));
            out::text(&text)?;
            code = code.max(u8::from(failed));
        }
    }
    Ok(code)
}

impl BakeArgs {
    fn overrides(&self) -> Result<Vec<Override>, String> {
        let mut all = self
            .set
            .iter()
            .map(|flag| Override::parse(flag))
            .collect::<Result<Vec<_>, _>>()?;
        let flags = [
            (self.no_cache, "no-cache", "true"),
            (self.pull, "pull", "true"),
            (self.push, "push", "true"),
            (self.load, "load", "true"),
            (self.check, "call", "check"),
        ];
        for (_, key, value) in flags.into_iter().filter(|(on, _, _)| *on) {
            all.push(Override::of_all(key, value));
        }
        if let Some(call) = &self.call {
            all.push(Override::of_all("call", call));
        }
        Ok(all)
    }
}

/// Everything the files define. Compose files are read together and come first, as what is below the others.
fn read(files: &[String], here: &Path) -> Result<Definitions, String> {
    let mut found: Vec<String> = files.to_vec();
    if files.is_empty() {
        let known = compose::FILES.iter().chain(&DEFAULT_FILES);
        let there = known.clone().filter(|name| Path::new(name).is_file());
        found = there.map(|name| (*name).to_owned()).collect();
        if found.is_empty() {
            let known: Vec<&str> = known.copied().collect();
            return Err(format!(
                "couldn't find a bake definition: there is none of {}",
                known.join(", ")
            ));
        }
    }
    let mut projects = compose::Files {
        names: Vec::new(),
        stdin: None,
        here,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let mut others = Vec::new();
    for name in found {
        let text = read_file(&name)
            .map_err(|reason| format!("failed to read bake file {name}: {reason}"))?;
        match Language::of(&name, &text) {
            Language::Compose => {
                let path = name.strip_prefix("cwd://").unwrap_or(&name);
                projects.names.push(path.into());
                if name == "-" {
                    projects.stdin = Some(text);
                }
            }
            language => others.push((name, language, text)),
        }
    }
    let mut definitions = Definitions::default();
    if !projects.names.is_empty() {
        definitions.add_plain(compose::targets(projects)?)?;
    }
    for (name, language, text) in others {
        let added = match language {
            Language::Json => definitions.add_json(&text),
            Language::Hcl | Language::Compose => definitions.add_hcl(&text),
        };
        added.map_err(|reason| format!("failed to parse {name}: {reason}"))?;
    }
    Ok(definitions)
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Compose,
    Hcl,
    Json,
}

impl Language {
    /// By the name; where that says nothing, by the text.
    fn of(name: &str, text: &str) -> Self {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        if ends(&[".yaml", ".yml"]) {
            return Self::Compose;
        }
        if ends(&[".json"]) {
            return Self::Json;
        }
        if ends(&[".hcl"]) {
            return Self::Hcl;
        }
        if text.trim_start().starts_with('{') {
            return Self::Json;
        }
        match text.lines().any(|line| line.starts_with("services:")) {
            true => Self::Compose,
            false => Self::Hcl,
        }
    }
}

/// An address in place of the first target is where buildx would fetch the files from.
fn check_local(targets: &[String]) -> Result<(), String> {
    match targets.first().filter(|target| is_remote(target)) {
        Some(url) => Err(format!(
            "remote definitions are not supported: fetch {url} and bake in its directory (contexts of targets may be addresses)"
        )),
        None => Ok(()),
    }
}

fn read_file(name: &str) -> Result<String, String> {
    if is_remote(name) {
        return Err("remote definitions are not supported: fetch the file first".to_owned());
    }
    let mut text = String::new();
    let read = if name == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_FILE + 1)
            .read_to_string(&mut text)
    } else {
        let name = name.strip_prefix("cwd://").unwrap_or(name);
        std::fs::File::open(name).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
    };
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// Refuses what was not granted, with the flags that would grant it.
fn grant(flags: &[String], jobs: &[Job], here: &Path) -> Result<(), String> {
    let real = here.canonicalize().unwrap_or_else(|_| here.to_owned());
    let granted = Granted::parse(flags, &real)?;
    let mut missing: Vec<String> = Vec::new();
    for job in jobs {
        for flag in granted.missing(job, here) {
            if !missing.contains(&flag) {
                missing.push(flag);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "additional privileges requested: the build needs what was not granted: add {}",
        missing.join(" ")
    ))
}

/// `--print`: groups and targets as they were resolved.
fn print(resolved: &Resolved) -> String {
    let groups: serde_json::Map<_, _> = resolved
        .groups
        .iter()
        .map(|(name, targets)| (name.clone(), serde_json::json!({"targets": targets})))
        .collect();
    let whole = serde_json::json!({"group": groups, "target": resolved.targets});
    serde_json::to_string_pretty(&whole).expect("JSON has a text")
}

fn dockerfile(resolved: &Resolved, name: &str) -> String {
    let path = resolved
        .targets
        .get(name)
        .and_then(|target| target.dockerfile.clone());
    path.map_or_else(|| "Dockerfile".to_owned(), |path| path.0)
}

/// Go's name of this machine's architecture.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests;
