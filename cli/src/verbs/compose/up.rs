//! `compose up`, `create`, `scale` and `plan`. Source: docker/compose `cmd/compose/up.go`, `pkg/compose/up.go`.

use super::bundle::site;
use super::fetch::{self, Fetch};
use super::images::Images;
use super::project::ProjectFlags;
use super::{perform, session};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::render::transfers::Transfers;
use clap::Args;
use compose::Plan;
use compose::plan::images::{Building, ImageOptions};
use compose::plan::options::{Dependencies, Orphans, Recreate, Start, UpOptions};
use compose_model::{Loaded, Project};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

mod attached;

/// What `up` and `create` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Convergence {
    /// Build images before starting containers
    #[arg(long)]
    build: bool,
    /// Don't build an image, even if it's policy
    #[arg(long, conflicts_with = "build")]
    no_build: bool,
    /// Pull image before running ("always"|"missing"|"never")
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// Pull without printing progress information
    #[arg(long)]
    quiet_pull: bool,
    /// Suppress the build output
    #[arg(long)]
    quiet_build: bool,
    /// Recreate containers even if their configuration hasn't changed
    #[arg(long)]
    force_recreate: bool,
    /// If containers already exist, don't recreate them
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Scale SERVICE to NUM instances
    #[arg(long, value_name = "SERVICE=NUM")]
    scale: Vec<String>,
    /// Assume "yes" as answer to all prompts
    #[arg(short, long)]
    yes: bool,
}

/// Create and start containers
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  muster up -d
  muster up --dry-run
  muster up -d shop.tar
  muster up --abort-on-container-exit --exit-code-from test")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    convergence: Convergence,
    /// Stops all containers if any container was stopped
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Stops all containers if any container exited with failure
    #[arg(long)]
    abort_on_container_failure: bool,
    /// Recreate dependent containers
    #[arg(long)]
    always_recreate_deps: bool,
    /// Restrict attaching to the specified services
    #[arg(long, value_name = "SERVICE")]
    attach: Vec<String>,
    /// Automatically attach to log output of dependent services
    #[arg(long)]
    attach_dependencies: bool,
    /// Detached mode: Run containers in the background
    #[arg(short, long)]
    detach: bool,
    /// Return the exit code of the selected service container
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Enable interactive shortcuts (there are none; accepted for scripts)
    #[arg(long, hide = true)]
    menu: bool,
    /// Do not attach (stream logs) to the specified services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Produce monochrome output
    #[arg(long)]
    no_color: bool,
    /// Don't start linked services
    #[arg(long)]
    no_deps: bool,
    /// Don't print prefix in logs
    #[arg(long)]
    no_log_prefix: bool,
    /// Don't start the services after creating them
    #[arg(long)]
    no_start: bool,
    /// Recreate anonymous volumes instead of retrieving data from the previous containers
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Use this timeout in seconds for container shutdown
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Show timestamps
    #[arg(long)]
    timestamps: bool,
    /// Wait for services to be running|healthy. Implies detached mode
    #[arg(long)]
    wait: bool,
    /// Maximum duration in seconds to wait for the project to be running|healthy
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Watch source code and rebuild/refresh containers when files are updated (not there yet)
    #[arg(short, long)]
    watch: bool,
    /// Services; the first word may be a bundle (FILE.tar) that the project comes from
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Creates containers for a service
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose create --force-recreate")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    convergence: Convergence,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Scale services
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose scale web=3")]
pub(crate) struct ScaleArgs {
    /// Don't start linked services
    #[arg(long)]
    no_deps: bool,
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    scales: Vec<String>,
}

/// Print what up would do and why; exit code 0 when there is nothing to do, 2 when there is
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster plan --format json | jq '.steps[].text'")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    convergence: Convergence,
    /// Recreate dependent containers
    #[arg(long)]
    always_recreate_deps: bool,
    /// Format output: text or json
    #[arg(long)]
    format: Option<String>,
    /// Don't start linked services
    #[arg(long)]
    no_deps: bool,
    /// Recreate anonymous volumes instead of retrieving data from the previous containers
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Services; the first word may be a bundle (FILE.tar) that the project comes from
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Exit code of `plan` when something would change.
const CHANGES: u8 = 2;

pub(super) async fn up(session: &Session, flags: &ProjectFlags, mut args: UpArgs) -> Outcome {
    let flags = &*flags.with_bundle(&mut args.services)?;
    args.check()?;
    let loaded = flags.load(&args.services, args.no_deps)?;
    args.check_services(&loaded.project)?;
    let options = args.options()?;
    args.convergence.check()?;
    let detached = args.detach || args.wait || args.no_start || flags.dry_run;
    if !detached {
        return Box::pin(attached::up(session, flags, &args, &loaded, &options)).await;
    }
    apply(
        session,
        flags,
        &loaded,
        &args.convergence,
        &options,
        "up",
        args.wait_timeout.map(Duration::from_secs),
    )
    .await
}

pub(super) async fn create(session: &Session, flags: &ProjectFlags, args: CreateArgs) -> Outcome {
    let up = UpArgs {
        convergence: args.convergence,
        services: args.services,
        no_start: true,
        ..Default::default()
    };
    let loaded = flags.load(&up.services, false)?;
    up.convergence.check()?;
    apply(
        session,
        flags,
        &loaded,
        &up.convergence,
        &up.options()?,
        "create",
        None,
    )
    .await
}

pub(super) async fn scale(session: &Session, flags: &ProjectFlags, args: ScaleArgs) -> Outcome {
    let convergence = Convergence {
        scale: args.scales,
        no_recreate: true,
        ..Default::default()
    };
    let services: Vec<_> = convergence.scale()?.into_keys().collect();
    let up = UpArgs {
        convergence,
        services,
        no_deps: args.no_deps,
        ..Default::default()
    };
    let loaded = flags.load(&up.services, up.no_deps)?;
    apply(
        session,
        flags,
        &loaded,
        &up.convergence,
        &up.options()?,
        "scale",
        None,
    )
    .await
}

pub(super) async fn plan(session: &Session, flags: &ProjectFlags, mut args: PlanArgs) -> Outcome {
    let flags = &*flags.with_bundle(&mut args.services)?;
    let up = UpArgs {
        convergence: args.convergence,
        services: args.services,
        always_recreate_deps: args.always_recreate_deps,
        no_deps: args.no_deps,
        renew_anon_volumes: args.renew_anon_volumes,
        ..Default::default()
    };
    let loaded = flags.load(&up.services, up.no_deps)?;
    up.convergence.check()?;
    let client = session.client().await?;
    let plan = whole_plan(client, flags, &loaded, &up.convergence, &up.options()?).await?;
    session::warn(&plan);
    session::print_as(&plan, args.format.as_deref())?;
    Ok(if plan.is_empty() { 0 } else { CHANGES })
}

/// What `up` would do, its builds first.
async fn whole_plan(
    client: &agent_api::Client,
    flags: &ProjectFlags,
    loaded: &Loaded,
    convergence: &Convergence,
    options: &UpOptions,
) -> anyhow::Result<Plan> {
    let mut observed =
        compose::observe(client, &loaded.project.name, Some(&loaded.project)).await?;
    if let Some(bundle) = flags.bundle()? {
        site::overlay(bundle, &loaded.project, &mut observed)?;
    }
    let there = observed.images.keys().cloned().collect();
    let images = compose::plan::images(
        &loaded.project,
        &loaded.sources,
        &there,
        &convergence.images(),
    )?;
    let options = UpOptions {
        built: images.builds().map(|build| build.image.clone()).collect(),
        ..options.clone()
    };
    let containers =
        compose::plan::reconcile(&loaded.project, &loaded.sources, &observed, &options)?;
    Ok(images.then(containers))
}

/// Converges without staying attached.
async fn apply(
    session: &Session,
    flags: &ProjectFlags,
    loaded: &Loaded,
    convergence: &Convergence,
    options: &UpOptions,
    verb: &str,
    wait_timeout: Option<Duration>,
) -> Outcome {
    let client = session.client().await?;
    let name = &loaded.project.name;
    let _lock = if flags.dry_run {
        None
    } else {
        Some(session::lock(client, name, verb)?)
    };
    if flags.dry_run {
        let plan = whole_plan(client, flags, loaded, convergence, options).await?;
        session::warn(&plan);
        return session::print(&plan);
    }
    convergence.prepare(session, flags, loaded).await?;
    let observed = compose::observe(client, name, Some(&loaded.project)).await?;
    let plan = compose::plan::reconcile(&loaded.project, &loaded.sources, &observed, options)?;
    session::warn(&plan);
    perform::execute(client, &plan, flags, wait_timeout).await?;
    Ok(0)
}

impl UpArgs {
    /// The combinations that make no sense. Source: docker/compose `validateFlags`.
    fn check(&self) -> anyhow::Result<()> {
        let refuse = |reason: &str| Err(Failure::new(1, reason).into());
        let aborts = self.abort_on_container_exit
            || self.abort_on_container_failure
            || self.exit_code_from.is_some();
        let attaches = !self.attach.is_empty() || self.attach_dependencies;
        if self.watch {
            return refuse("--watch is not supported: run \"muster up --build\" after a change");
        }
        if self.wait && (aborts || attaches) {
            return refuse(
                "--wait cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --exit-code-from or --attach",
            );
        }
        if self.detach && (aborts || attaches) {
            return refuse(
                "--detach cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --exit-code-from, --attach or --attach-dependencies",
            );
        }
        if self.abort_on_container_exit && self.abort_on_container_failure {
            return refuse(
                "--abort-on-container-exit cannot be combined with --abort-on-container-failure",
            );
        }
        if self.always_recreate_deps && self.convergence.no_recreate {
            return refuse("--always-recreate-deps and --no-recreate are incompatible");
        }
        if self.no_start && (self.wait || aborts) {
            return refuse(
                "--no-start cannot be combined with --wait, --abort-on-container-exit or --exit-code-from",
            );
        }
        if self.wait_timeout.is_some() && !self.wait {
            return refuse("--wait-timeout needs --wait");
        }
        Ok(())
    }

    fn check_services(&self, project: &Project) -> anyhow::Result<()> {
        let named = self
            .attach
            .iter()
            .chain(&self.no_attach)
            .chain(&self.exit_code_from);
        for name in named {
            if !project.services.contains_key(name) {
                return Err(Failure::new(1, format!("no such service: {name}")).into());
            }
        }
        Ok(())
    }

    fn options(&self) -> anyhow::Result<UpOptions> {
        let recreate = match (
            self.convergence.force_recreate,
            self.convergence.no_recreate,
        ) {
            (true, _) => Recreate::Always,
            (_, true) => Recreate::Never,
            _ => Recreate::Diverged,
        };
        let recreate_dependencies = match recreate {
            _ if self.always_recreate_deps => Recreate::Always,
            // Without services named every service is one asked for.
            Recreate::Always if !self.services.is_empty() => Recreate::Diverged,
            other => other,
        };
        Ok(UpOptions {
            services: self.services.clone(),
            dependencies: if self.no_deps {
                Dependencies::Ignore
            } else {
                Dependencies::Include
            },
            recreate,
            recreate_dependencies,
            orphans: orphans(self.convergence.remove_orphans, Orphans::Warn),
            renew_anonymous_volumes: self.renew_anon_volumes,
            scale: self.convergence.scale()?,
            stop_timeout: self.timeout.map(Duration::from_secs),
            start: if self.no_start { Start::No } else { Start::Yes },
            wait: self.wait,
            ..Default::default()
        })
    }
}

impl Convergence {
    /// Flags that make no sense are refused before anything is done.
    fn check(&self) -> anyhow::Result<()> {
        match self.pull.as_deref() {
            None | Some("" | "always" | "missing" | "never" | "policy") => Ok(()),
            Some(other) => Err(Failure::new(
                1,
                format!("invalid --pull {other:?}: there are always, missing and never"),
            )
            .into()),
        }
    }

    /// Which images are built.
    fn images(&self) -> ImageOptions {
        let building = match (self.build, self.no_build) {
            (true, _) => Building::All,
            (_, true) => Building::Never,
            _ => Building::Missing,
        };
        ImageOptions {
            services: Vec::new(),
            building,
        }
    }

    /// Everything about images that has to be so before containers are planned: fetched, then built.
    pub(super) async fn prepare(
        &self,
        session: &Session,
        flags: &ProjectFlags,
        loaded: &Loaded,
    ) -> anyhow::Result<()> {
        if let Some(bundle) = flags.bundle()? {
            if self.build || self.pull.as_deref() == Some("always") {
                let reason = format!(
                    "--build and --pull always are not for bundles: {} is brought up with the images of its lock",
                    bundle.display()
                );
                return Err(Failure::new(1, reason).into());
            }
            return Box::pin(site::bring(session, flags, bundle, &loaded.project)).await;
        }
        let client = session.client().await?;
        self.pull(client, flags, &loaded.project).await?;
        let images = Images::new(session, flags, loaded);
        images.build(&self.images(), self.quiet_build).await
    }

    /// Fetches what the policy wants fetched.
    async fn pull(
        &self,
        client: &agent_api::Client,
        flags: &ProjectFlags,
        project: &Project,
    ) -> anyhow::Result<()> {
        let policy = self.pull.as_deref().unwrap_or_default();
        let pulls = fetch::wanted(client, project, policy).await;
        if pulls.is_empty() {
            return Ok(());
        }
        let display = RefCell::new(Transfers::like(&perform::progress(flags)));
        let fetch = Fetch {
            client,
            parallel: perform::options(flags, None).parallel,
            quiet: self.quiet_pull,
            display: &display,
        };
        match fetch.all(&pulls, false).await.failures.pop() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn scale(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let pair = |flag: &String| {
            let pair = flag
                .split_once('=')
                .and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
            pair.ok_or_else(|| {
                Failure::new(1, format!("invalid scale {flag:?}: write SERVICE=NUMBER")).into()
            })
        };
        self.scale.iter().map(pair).collect()
    }
}

/// The flag, else `COMPOSE_REMOVE_ORPHANS` and `COMPOSE_IGNORE_ORPHANS`.
pub(super) fn orphans(remove: bool, otherwise: Orphans) -> Orphans {
    let set = |name| {
        std::env::var(name).is_ok_and(|value| crate::flags::bools::parse(&value) == Some(true))
    };
    if remove || set("COMPOSE_REMOVE_ORPHANS") {
        Orphans::Remove
    } else if set("COMPOSE_IGNORE_ORPHANS") {
        Orphans::Ignore
    } else {
        otherwise
    }
}
