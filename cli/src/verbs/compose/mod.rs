//! `compose` and its short forms `up`, `down` and `plan`: flags to planner options, plans to executions, progress to
//! stderr, data to stdout. Loading is in `compose_model`, deciding and executing in `compose`.

mod bake_file;
mod bundle;
mod config;
mod copy;
mod down;
mod exec;
mod fetch;
mod images;
mod lifecycle;
mod logs;
mod look;
mod oneoff;
mod perform;
mod project;
mod ps;
mod refused;
mod session;
mod transfer;
mod up;

use crate::connect::Session;
use crate::failure::Outcome;
use crate::out;
use clap::{Args, Subcommand};
pub(crate) use project::ProjectFlags;

/// Define and run multi-container applications
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster compose up -d
  muster compose -f compose.yaml -f prod.yaml plan
  muster compose logs -f web")]
pub(crate) struct ComposeArgs {
    #[command(flatten)]
    project: ProjectFlags,
    #[command(subcommand)]
    verb: ComposeVerb,
}

/// A verb with the project's flags beside it: `muster up -f other.yaml`.
#[derive(Debug, Args)]
pub(crate) struct UpShort {
    #[command(flatten)]
    project: ProjectFlags,
    #[command(flatten)]
    args: up::UpArgs,
}

/// A verb with the project's flags beside it.
#[derive(Debug, Args)]
pub(crate) struct DownShort {
    #[command(flatten)]
    project: ProjectFlags,
    #[command(flatten)]
    args: down::DownArgs,
}

/// A verb with the project's flags beside it.
#[derive(Debug, Args)]
pub(crate) struct PlanShort {
    #[command(flatten)]
    project: ProjectFlags,
    #[command(flatten)]
    args: up::PlanArgs,
}

/// A verb with the project's flags beside it.
#[derive(Debug, Args)]
pub(crate) struct BundleShort {
    #[command(flatten)]
    project: ProjectFlags,
    #[command(flatten)]
    args: bundle::BundleArgs,
}

#[derive(Debug, Subcommand)]
enum ComposeVerb {
    Up(Box<up::UpArgs>),
    Create(Box<up::CreateArgs>),
    Scale(up::ScaleArgs),
    Plan(Box<up::PlanArgs>),
    Bundle(bundle::BundleArgs),
    Down(down::DownArgs),
    /// Start services
    Start(lifecycle::StartArgs),
    /// Stop services
    Stop(lifecycle::StopArgs),
    Restart(lifecycle::RestartArgs),
    Kill(lifecycle::KillArgs),
    Rm(lifecycle::RmArgs),
    /// Pause services
    Pause(lifecycle::ServicesArgs),
    /// Unpause services
    Unpause(lifecycle::ServicesArgs),
    Wait(lifecycle::WaitArgs),
    Ps(ps::PsArgs),
    Ls(ps::LsArgs),
    Logs(logs::LogsArgs),
    Events(logs::EventsArgs),
    Cp(copy::CpArgs),
    Exec(exec::ExecArgs),
    Run(Box<oneoff::RunArgs>),
    #[command(alias = "convert")]
    Config(Box<config::ConfigArgs>),
    Images(look::ImagesArgs),
    Port(look::PortArgs),
    /// Display the running processes
    Top(lifecycle::ServicesArgs),
    Volumes(look::VolumesArgs),
    Build(Box<images::BuildArgs>),
    Pull(transfer::PullArgs),
    Push(transfer::PushArgs),
    Version(look::VersionArgs),
    #[command(flatten)]
    Refused(refused::RefusedVerb),
}

pub(crate) async fn run(session: &Session, args: ComposeArgs) -> Outcome {
    let flags = &args.project;
    match args.verb {
        ComposeVerb::Up(args) => Box::pin(up::up(session, flags, *args)).await,
        ComposeVerb::Create(args) => up::create(session, flags, *args).await,
        ComposeVerb::Scale(args) => up::scale(session, flags, args).await,
        ComposeVerb::Plan(args) => up::plan(session, flags, *args).await,
        ComposeVerb::Bundle(args) => bundle::run(session, flags, args).await,
        ComposeVerb::Down(args) => down::run(session, flags, args).await,
        ComposeVerb::Start(args) => lifecycle::start(session, flags, args).await,
        ComposeVerb::Stop(args) => lifecycle::stop(session, flags, args).await,
        ComposeVerb::Restart(args) => lifecycle::restart(session, flags, args).await,
        ComposeVerb::Kill(args) => lifecycle::kill(session, flags, args).await,
        ComposeVerb::Rm(args) => lifecycle::rm(session, flags, args).await,
        ComposeVerb::Pause(args) => lifecycle::pause(session, flags, args).await,
        ComposeVerb::Unpause(args) => lifecycle::unpause(session, flags, args).await,
        ComposeVerb::Wait(args) => lifecycle::wait(session, flags, args).await,
        ComposeVerb::Ps(args) => ps::ps(session, flags, args).await,
        ComposeVerb::Ls(args) => ps::ls(session, args).await,
        ComposeVerb::Logs(args) => logs::logs(session, flags, args).await,
        ComposeVerb::Events(args) => logs::events(session, flags, args).await,
        ComposeVerb::Exec(args) => exec::run(session, flags, args).await,
        ComposeVerb::Run(args) => oneoff::run(session, flags, *args).await,
        ComposeVerb::Cp(args) => copy::run(session, flags, args).await,
        ComposeVerb::Config(args) => config::run(flags, &args),
        ComposeVerb::Images(args) => look::images(session, flags, args).await,
        ComposeVerb::Port(args) => look::port(session, flags, args).await,
        ComposeVerb::Top(args) => look::top(session, flags, args).await,
        ComposeVerb::Build(args) => images::build(session, flags, *args).await,
        ComposeVerb::Pull(args) => transfer::pull(session, flags, args).await,
        ComposeVerb::Push(args) => transfer::push(session, flags, args).await,
        ComposeVerb::Volumes(args) => look::volumes(session, flags, args).await,
        ComposeVerb::Version(args) => look::version(&args),
        ComposeVerb::Refused(verb) => refused::run(&verb),
    }
}

pub(crate) async fn run_up(session: &Session, short: UpShort) -> Outcome {
    Box::pin(up::up(session, &short.project, short.args)).await
}

pub(crate) async fn run_down(session: &Session, short: DownShort) -> Outcome {
    down::run(session, &short.project, short.args).await
}

pub(crate) async fn run_plan(session: &Session, short: PlanShort) -> Outcome {
    up::plan(session, &short.project, short.args).await
}

pub(crate) async fn run_bundle(session: &Session, short: BundleShort) -> Outcome {
    bundle::run(session, &short.project, short.args).await
}

/// Prints names, one a line.
fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Outcome {
    for name in names {
        out::line(name)?;
    }
    Ok(0)
}
