//! `compose build`, and the builds that `up` begins with.
//! Source: docker/compose `cmd/compose/build.go`, `pkg/compose/{build,build_bake}.go`.

use super::bake_file;
use super::project::{ProgressMode, ProjectFlags};
use crate::buildx::job::Job;
use crate::buildx::options::{add_source_date, build_args, check_attestations, check_builder};
use crate::buildx::run::{self, Results};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::build_progress::{BuildProgress, Mode};
use crate::render::units::ram_in_bytes;
use agent_api::build::Call;
use agent_api::client::build::{OutputSpec, SshSpec};
use clap::Args;
use compose::Plan;
use compose::plan::images::{Building, ImageOptions};
use compose_model::Loaded;
use std::collections::{BTreeSet, VecDeque};

/// Build or rebuild services
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  muster compose build
  muster compose build --with-dependencies --push web
  muster compose build --print > docker-bake.json
  muster compose build --no-cache --build-arg VERSION=2 web")]
pub(crate) struct BuildArgs {
    /// Set build-time variables for services
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Set builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    /// Check build configuration
    #[arg(long)]
    check: bool,
    /// Set memory limit for the build container
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Print equivalent bake file
    #[arg(long)]
    print: bool,
    /// Add a provenance attestation (only "false": images are not attested)
    #[arg(long)]
    provenance: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Push service images
    #[arg(long)]
    push: bool,
    /// Suppress the build output
    #[arg(short, long)]
    quiet: bool,
    /// Add a SBOM attestation (only "false": images are not attested)
    #[arg(long)]
    sbom: Option<String>,
    /// Set SSH authentications used when building service images (use 'default' for the environment's agent)
    #[arg(long)]
    ssh: Option<String>,
    /// Also build dependencies (transitively)
    #[arg(long)]
    with_dependencies: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn build(session: &Session, flags: &ProjectFlags, args: BuildArgs) -> Outcome {
    let fail = |reason: String| Failure::new(1, reason);
    check_builder(args.builder.as_deref())?;
    check_attestations(&[], args.provenance.as_deref(), args.sbom.as_deref()).map_err(fail)?;
    let loaded = flags.load(&args.services, !args.with_dependencies)?;
    let mut wanted = args.services.clone();
    if args.with_dependencies {
        add_dependencies(&loaded, &mut wanted);
    }
    let options = ImageOptions {
        services: wanted,
        building: Building::All,
    };
    let images = Images::new(session, flags, &loaded);
    let plan = images.plan(&options, &BTreeSet::new())?;
    if flags.dry_run {
        return super::session::print(&plan);
    }
    if plan.is_empty() {
        out::note("No services to build");
        return Ok(0);
    }
    let mut jobs = jobs(&plan);
    for job in &mut jobs {
        args.apply(job).map_err(fail)?;
    }
    if args.print {
        out::line(bake_file::print(&loaded.project, &jobs, args.push))?;
        return Ok(0);
    }
    let results = images.run(jobs, args.quiet).await?;
    if args.check {
        return answers(&results);
    }
    Ok(0)
}

impl BuildArgs {
    /// Flags go before the file.
    fn apply(&self, job: &mut Job) -> Result<(), String> {
        let request = &mut job.spec.request;
        request.build_args.extend(build_args(&self.build_arg));
        request.no_cache |= self.no_cache;
        request.pull |= self.pull;
        if self.check {
            request.call = Call::Check;
        }
        if let Some(memory) = &self.memory {
            request.resources.memory =
                ram_in_bytes(memory).ok_or_else(|| format!("invalid --memory {memory:?}"))?;
        }
        if let Some(ssh) = &self.ssh {
            job.spec
                .ssh
                .push(SshSpec::parse(ssh).map_err(|error| error.to_string())?);
        }
        if self.push {
            job.spec.outputs = vec![OutputSpec::registry()];
        }
        Ok(())
    }
}

/// The services that these depend on, and so on.
fn add_dependencies(loaded: &Loaded, services: &mut Vec<String>) {
    let mut queue: VecDeque<String> = services.iter().cloned().collect();
    while let Some(name) = queue.pop_front() {
        let Some(service) = loaded.project.services.get(&name) else {
            continue;
        };
        for dependency in service.depends_on.keys() {
            if !services.contains(dependency) {
                services.push(dependency.clone());
                queue.push_back(dependency.clone());
            }
        }
    }
}

/// What `--check` found, service by service.
fn answers(results: &Results) -> Outcome {
    let mut code = 0;
    for (name, result) in results {
        if let Some(answer) = &result.answer {
            let format = crate::buildx::job::AnswerFormat::Text;
            let (text, failed) = crate::buildx::answer::render(answer, format, "Dockerfile");
            out::text(&format!("{name}: {text}"))?;
            code = code.max(u8::from(failed));
        }
    }
    Ok(code)
}

/// A job for each build of a plan.
pub(super) fn jobs(plan: &Plan) -> Vec<Job> {
    let built: BTreeSet<&str> = plan.builds().map(|build| build.service.as_str()).collect();
    let job = |build: &compose::convert::build::ServiceBuild| {
        let mut spec = build.spec.clone();
        add_source_date(&mut spec.request.build_args);
        // A service that is not built now has its image already.
        let mut from_jobs = build.from_services.clone();
        from_jobs.retain(|_, service| built.contains(service.as_str()));
        Job {
            name: build.service.clone(),
            spec,
            from_jobs,
            ..Job::default()
        }
    };
    plan.builds().map(job).collect()
}

/// Builds of a project.
pub(super) struct Images<'a> {
    session: &'a Session,
    flags: &'a ProjectFlags,
    loaded: &'a Loaded,
}

impl<'a> Images<'a> {
    pub(super) fn new(session: &'a Session, flags: &'a ProjectFlags, loaded: &'a Loaded) -> Self {
        Self {
            session,
            flags,
            loaded,
        }
    }

    fn plan(&self, options: &ImageOptions, there: &BTreeSet<String>) -> anyhow::Result<Plan> {
        let Loaded {
            project, sources, ..
        } = self.loaded;
        Ok(compose::plan::images(project, sources, there, options)?)
    }

    /// Builds what `up` needs built; with nothing to build nothing is said.
    pub(super) async fn build(&self, options: &ImageOptions, quiet: bool) -> anyhow::Result<()> {
        let mut services = self.loaded.project.services.values();
        if services.all(|service| service.build.is_none()) {
            return Ok(());
        }
        let client = self.session.client().await?;
        let project = &self.loaded.project;
        let observed = compose::observe(client, &project.name, Some(project)).await?;
        let plan = self.plan(options, &observed.images.into_keys().collect())?;
        if !plan.is_empty() {
            self.run(jobs(&plan), quiet).await?;
        }
        Ok(())
    }

    async fn run(&self, jobs: Vec<Job>, quiet: bool) -> anyhow::Result<Results> {
        let progress = match self.flags.progress_mode() {
            ProgressMode::Auto => None,
            ProgressMode::Tty => Some("tty"),
            ProgressMode::Plain => Some("plain"),
            ProgressMode::Json => Some("rawjson"),
            ProgressMode::Quiet => Some("quiet"),
        };
        let mode = Mode::choose(if quiet { Some("quiet") } else { progress }, quiet)?;
        let client = self.session.client().await?;
        let mut progress = BuildProgress::new(mode, self.session.driver());
        let mut results = Results::new();
        run::run(client, jobs, &mut progress, &mut results)
            .await
            .map_err(run::explain)?;
        progress.show_warnings(self.session.debug, self.session.debug_hint());
        Ok(results)
    }
}
