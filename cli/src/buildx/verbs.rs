//! The commands below `builder`, `buildx` and the plugin. Builders other than the daemon are refused by name.

use super::{bake, options};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::verbs::refused::Rest;
use crate::verbs::{build, builder};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum BuilderVerb {
    #[command(alias = "f")]
    Bake(Box<bake::BakeArgs>),
    #[command(alias = "b")]
    Build(Box<build::BuildArgs>),
    Du(builder::DuArgs),
    Inspect(builder::InspectArgs),
    Ls(builder::LsArgs),
    Prune(builder::PruneArgs),
    Version(VersionArgs),
    /// Set the current builder (there is one: default)
    Use(UseArgs),
    /// Create a new builder (not supported: the daemon is the builder)
    #[command(hide = true)]
    Create(Rest),
    /// Remove builders (not supported)
    #[command(hide = true, alias = "stop")]
    Rm(Rest),
    /// Proxy current stdio streams to a builder (not supported)
    #[command(hide = true)]
    DialStdio(Rest),
    /// Commands to work on images in registry (not supported)
    #[command(hide = true)]
    Imagetools(Rest),
    /// Commands to work on build records (not supported)
    #[command(hide = true, alias = "debug", alias = "dap")]
    History(Rest),
    /// Set buildx up as docker's builder (not supported)
    #[command(hide = true, alias = "uninstall")]
    Install(Rest),
}

/// Show version information
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    debug: DebugFlag,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UseArgs {
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    debug: DebugFlag,
    /// Set builder as default for current context (it is)
    #[arg(long)]
    default: bool,
    /// Builder will be used even when the context changes (it is)
    #[arg(long)]
    global: bool,
    name: String,
}

/// `-D`, which may stand before the verb as well.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct DebugFlag {
    /// Enable debug logging
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
}

impl BuilderVerb {
    /// Whether more is to be said about what is done.
    pub(crate) fn debug(&self) -> bool {
        let flag = match self {
            Self::Bake(args) => args.debug,
            Self::Build(args) => args.debug,
            Self::Du(args) => args.debug,
            Self::Inspect(args) => args.debug,
            Self::Ls(args) => args.debug,
            Self::Prune(args) => args.debug,
            Self::Version(args) => args.debug,
            Self::Use(args) => args.debug,
            _ => DebugFlag::default(),
        };
        flag.debug
    }
}

pub(crate) async fn run(session: &Session, verb: BuilderVerb) -> Outcome {
    let refuse = |name: &str, reason: &str| {
        Err(Failure::new(1, format!("{name} is not supported: {reason}")).into())
    };
    match verb {
        BuilderVerb::Bake(args) => bake::run(session, *args).await,
        BuilderVerb::Build(args) => build::run(session, *args).await,
        BuilderVerb::Du(args) => builder::du(session, args).await,
        BuilderVerb::Inspect(args) => builder::inspect(session, args).await,
        BuilderVerb::Ls(args) => builder::ls(session, args).await,
        BuilderVerb::Prune(args) => builder::prune(session, args).await,
        BuilderVerb::Version(args) => {
            options::check_builder(args.builder.as_deref())?;
            builder::version()
        }
        BuilderVerb::Use(args) => {
            options::check_builder(args.builder.as_deref())?;
            options::check_builder(Some(&args.name))?;
            Ok(0)
        }
        BuilderVerb::Create(_) => refuse(
            "buildx create",
            "the daemon is the only builder, and needs no instance",
        ),
        BuilderVerb::Rm(_) => refuse("buildx rm", "the daemon is the only builder"),
        BuilderVerb::DialStdio(_) => {
            refuse("buildx dial-stdio", "there is no BuildKit to speak to")
        }
        BuilderVerb::Imagetools(_) => refuse(
            "buildx imagetools",
            "pull the image and inspect it, or tag and push it",
        ),
        BuilderVerb::History(_) => refuse("buildx history", "finished builds are not recorded"),
        BuilderVerb::Install(_) => refuse(
            "buildx install",
            "link the executable as docker-buildx into ~/.docker/cli-plugins",
        ),
    }
}
