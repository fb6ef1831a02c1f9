//! The command line: global flags, the tree of verbs, and which function each verb is.

use crate::buildx;
use crate::buildx::verbs::BuilderVerb;
use crate::connect::Session;
use crate::failure::{Outcome, USAGE, usage};
use crate::flags::bools::as_pflag;
use crate::verbs::inspect::{InspectImageArgs, InspectKindArgs};
use crate::verbs::{
    build, commit, completion, compose, copy, daemon, dial_stdio, doctor, events, exec, image,
    image_copy, inspect, lifecycle, login, logs, look, network, node, payload, ps, pull, push,
    refused, run, search, service, stack, stats, swarm, system, transfer, volume,
};
use agent_api::client::ObjectKind;
use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::OsString;

/// Multi-container applications on one host or on many
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Run 'muster COMMAND --help' for more information on a command.")]
pub(crate) struct Line {
    /// Daemon to connect to, unix:///path (MUSTER_HOST, DOCKER_HOST; default unix:///run/muster/muster.sock)
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,
    /// Say more about what is done
    #[arg(short = 'D', long)]
    debug: bool,
    /// Print version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create and start the containers of a project (short for compose up)
    Up(Box<compose::UpShort>),
    /// Stop and remove the containers of a project (short for compose down)
    Down(Box<compose::DownShort>),
    /// Print what up would do and why (short for compose plan)
    Plan(Box<compose::PlanShort>),
    /// Write a project with its images into one archive (short for compose bundle)
    Bundle(Box<compose::BundleShort>),
    Compose(Box<compose::ComposeArgs>),
    #[command(flatten)]
    Container(ContainerVerb),
    Ps(ps::PsArgs),
    Inspect(inspect::InspectArgs),
    #[command(flatten)]
    Image(ImageVerb),
    Images(image::ImagesArgs),
    Rmi(image::RmiArgs),
    Events(events::EventsArgs),
    Info(system::InfoArgs),
    Version(system::VersionArgs),
    /// Authenticate to a registry
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Search(search::SearchArgs),
    /// Manage builds: build, bake and the build cache
    #[command(
        alias = "buildx",
        after_help = "Examples:
  muster buildx build -t app .
  muster buildx bake -f compose.yaml
  muster buildx du --verbose
  muster buildx prune --filter until=24h --max-used-space 10gb"
    )]
    Builder {
        /// Builder to use (there is one: default)
        #[arg(long)]
        builder: Option<String>,
        #[command(flatten)]
        debug: buildx::verbs::DebugFlag,
        #[command(subcommand)]
        verb: BuilderVerb,
    },
    /// Manage containers
    #[command(name = "container")]
    ContainerGroup {
        #[command(subcommand)]
        verb: ContainerGroup,
    },
    /// Manage images
    #[command(
        name = "image",
        after_help = "Examples:
  muster image ls --filter dangling=true
  muster image copy web ssh://host
  muster image save -o web.tar web:1.2
  muster image prune -a --filter until=24h"
    )]
    ImageGroup {
        #[command(subcommand)]
        verb: ImageGroup,
    },
    /// Manage networks
    Network {
        #[command(subcommand)]
        verb: network::NetworkVerb,
    },
    /// Manage volumes
    Volume {
        #[command(subcommand)]
        verb: volume::VolumeVerb,
    },
    /// Manage the swarm that this host is part of
    Swarm {
        #[command(subcommand)]
        verb: swarm::SwarmVerb,
    },
    /// Manage the nodes of the swarm
    Node {
        #[command(subcommand)]
        verb: node::NodeVerb,
    },
    /// Manage services of the swarm
    Service {
        #[command(subcommand)]
        verb: service::ServiceVerb,
    },
    /// Manage stacks: projects on a swarm
    Stack {
        #[command(subcommand)]
        verb: stack::StackVerb,
    },
    /// Manage secrets of the swarm
    Secret {
        #[command(subcommand)]
        verb: payload::SecretVerb,
    },
    /// Manage configs of the swarm
    Config {
        #[command(subcommand)]
        verb: payload::ConfigVerb,
    },
    /// Manage the system
    System {
        #[command(subcommand)]
        verb: SystemVerb,
    },
    Daemon(Box<daemon::DaemonArgs>),
    Doctor(doctor::DoctorArgs),
    Completion(completion::CompletionArgs),
    #[command(flatten)]
    Refused(refused::RefusedVerb),
}

/// Verbs of containers that also stand at the top.
#[derive(Debug, Subcommand)]
enum ContainerVerb {
    Run(Box<run::RunArgs>),
    Create(Box<run::CreateArgs>),
    Start(lifecycle::StartArgs),
    Stop(lifecycle::StopArgs),
    /// Restart one or more containers
    #[command(after_help = "Example:\n  muster restart -t 5 web")]
    Restart(lifecycle::StopArgs),
    Kill(lifecycle::KillArgs),
    #[command(alias = "remove")]
    Rm(lifecycle::RmArgs),
    /// Pause all processes within one or more containers
    #[command(after_help = "Example:\n  muster pause web")]
    Pause(lifecycle::NamesArgs),
    /// Unpause all processes within one or more containers
    #[command(after_help = "Example:\n  muster unpause web")]
    Unpause(lifecycle::NamesArgs),
    /// Block until one or more containers stop, then print their exit codes
    #[command(after_help = "Example:\n  muster wait job")]
    Wait(lifecycle::NamesArgs),
    Rename(lifecycle::RenameArgs),
    Update(Box<lifecycle::UpdateArgs>),
    Attach(lifecycle::AttachArgs),
    Exec(exec::ExecArgs),
    Logs(logs::LogsArgs),
    Top(look::TopArgs),
    Port(look::PortArgs),
    Diff(look::DiffArgs),
    Stats(stats::StatsArgs),
    Export(transfer::ExportArgs),
    Cp(copy::CpArgs),
    Commit(commit::CommitArgs),
}

#[derive(Debug, Subcommand)]
enum ContainerGroup {
    #[command(flatten)]
    Shared(ContainerVerb),
    #[command(alias = "list", alias = "ps")]
    Ls(ps::PsArgs),
    /// Display detailed information on one or more containers
    Inspect(InspectKindArgs),
    Prune(lifecycle::PruneArgs),
}

/// Verbs of images that also stand at the top.
#[derive(Debug, Subcommand)]
enum ImageVerb {
    Build(Box<build::BuildArgs>),
    Load(transfer::LoadArgs),
    Import(transfer::ImportArgs),
    Save(transfer::SaveArgs),
    Tag(image::TagArgs),
    History(image::HistoryArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
}

#[derive(Debug, Subcommand)]
enum ImageGroup {
    #[command(flatten)]
    Shared(ImageVerb),
    #[command(alias = "list")]
    Ls(image::ImagesArgs),
    Inspect(InspectImageArgs),
    #[command(alias = "remove")]
    Rm(image::RmiArgs),
    Prune(image::PruneArgs),
    Copy(image_copy::CopyArgs),
}

#[derive(Debug, Subcommand)]
enum SystemVerb {
    /// Pass standard input and output on to the daemon: the other end of ssh:// addresses
    #[command(hide = true)]
    DialStdio,
    Df(system::DfArgs),
    Events(events::EventsArgs),
    Info(system::InfoArgs),
    Prune(system::PruneArgs),
}

/// Reads the command line; help and usage errors are printed here and give the exit code.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Line, u8> {
    let parsed = as_pflag(with_help(Line::command())).try_get_matches_from(words.clone());
    let error = match parsed.and_then(|matches| Line::from_arg_matches(&matches)) {
        Ok(line) => return Ok(line),
        Err(error) => error,
    };
    // Help is rendered by the plain command, whose boolean flags look as Docker's do.
    let error = match with_help(Line::command())
        .args_override_self(true)
        .try_get_matches_from(words)
    {
        Err(plain) if !error.use_stderr() => plain,
        _ => error,
    };
    let _ = error.print();
    Err(exit_code(&error))
}

/// As Docker's command line ends: flags that cannot be understood with 125, a wrong number of arguments or an unknown
/// command with 1, and a group without a command (which is a question for its help) well.
pub(crate) fn exit_code(error: &clap::Error) -> u8 {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) => given.as_str(),
        _ => "",
    };
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 0,
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues => 1,
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues if !given.starts_with('-') => 1,
        _ if error.use_stderr() => USAGE,
        _ => 0,
    }
}

/// `--help` everywhere, and `-h` where it is not a flag of the verb.
pub(crate) fn with_help(command: Command) -> Command {
    let has_h = command
        .get_arguments()
        .any(|arg| arg.get_short() == Some('h'));
    let help = Arg::new("help")
        .long("help")
        .action(ArgAction::Help)
        .help("Print help");
    let help = if has_h { help } else { help.short('h') };
    command
        .disable_help_flag(true)
        .arg(help)
        .mut_subcommands(with_help)
}

impl Verb {
    /// Whether the verb's own flags ask for more about what is done: Docker's builds have `-D` there, too.
    fn debug(&self) -> bool {
        match self {
            Self::Builder { debug, verb, .. } => debug.debug || verb.debug(),
            Self::Image(ImageVerb::Build(args))
            | Self::ImageGroup {
                verb: ImageGroup::Shared(ImageVerb::Build(args)),
            } => args.debug.debug,
            _ => false,
        }
    }
}

impl Line {
    /// Runs the verb to its exit code.
    pub(crate) fn run(self) -> Outcome {
        match self.verb {
            Verb::Daemon(_) if self.host.is_some() || self.debug => Err(usage(
                "the daemon has its own -H and -D: write them after \"daemon\"",
            )),
            Verb::Daemon(args) => daemon::run(*args),
            Verb::Completion(args) => completion::run(&args, Line::command()),
            Verb::Refused(verb) => refused::run(&verb),
            verb => {
                let debug = self.debug || verb.debug();
                if debug {
                    log_to_stderr();
                }
                // One thread is enough for a client, and quicker to start.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let session = Session::new(self.host, debug);
                let outcome = runtime.block_on(Box::pin(dispatch(&session, verb)));
                // A read of stdin cannot be cancelled: it must not hold up the end.
                runtime.shutdown_background();
                outcome
            }
        }
    }
}

/// `--debug`: what the client does, on stderr. The daemon has a log of its own.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(std::io::stderr)
        .init();
}

async fn dispatch(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Container(verb) => container(session, verb).await,
        Verb::Ps(args) => ps::run(session, args).await,
        Verb::Inspect(args) => inspect::run(session, args).await,
        Verb::Image(verb) => image(session, verb).await,
        Verb::Images(args) => image::list(session, args).await,
        Verb::Rmi(args) => image::rmi(session, args).await,
        Verb::Events(args) => events::run(session, args).await,
        Verb::Info(args) => system::info(session, args).await,
        Verb::Version(args) => system::version(session, args).await,
        Verb::Login(args) => login::login(session, args).await,
        Verb::Logout(args) => login::logout(args).await,
        Verb::Search(args) => search::run(session, args).await,
        Verb::Builder { builder, verb, .. } => {
            buildx::options::check_builder(builder.as_deref())?;
            buildx::verbs::run(session, verb).await
        }
        Verb::ContainerGroup { verb } => match verb {
            ContainerGroup::Shared(verb) => container(session, verb).await,
            ContainerGroup::Ls(args) => ps::run(session, args).await,
            ContainerGroup::Inspect(args) => {
                inspect::kind(session, ObjectKind::Container, args).await
            }
            ContainerGroup::Prune(args) => lifecycle::prune(session, args).await,
        },
        Verb::ImageGroup { verb } => match verb {
            ImageGroup::Shared(verb) => image(session, verb).await,
            ImageGroup::Ls(args) => image::list(session, args).await,
            ImageGroup::Inspect(args) => inspect::image(session, args).await,
            ImageGroup::Rm(args) => image::rmi(session, args).await,
            ImageGroup::Prune(args) => image::prune(session, args).await,
            ImageGroup::Copy(args) => image_copy::run(session, args).await,
        },
        Verb::Network { verb } => network::run(session, verb).await,
        Verb::Volume { verb } => volume::run(session, verb).await,
        Verb::Swarm { verb } => swarm::run(session, verb).await,
        Verb::Node { verb } => node::run(session, verb).await,
        Verb::Service { verb } => service::run(session, verb).await,
        Verb::Stack { verb } => stack::run(session, verb).await,
        Verb::Secret { verb } => payload::secret(session, verb).await,
        Verb::Config { verb } => payload::config(session, verb).await,
        Verb::System { verb } => match verb {
            SystemVerb::DialStdio => dial_stdio::run(session).await,
            SystemVerb::Df(args) => system::df(session, args).await,
            SystemVerb::Events(args) => events::run(session, args).await,
            SystemVerb::Info(args) => system::info(session, args).await,
            SystemVerb::Prune(args) => system::prune(session, args).await,
        },
        Verb::Compose(args) => Box::pin(compose::run(session, *args)).await,
        Verb::Up(args) => Box::pin(compose::run_up(session, *args)).await,
        Verb::Down(args) => compose::run_down(session, *args).await,
        Verb::Plan(args) => compose::run_plan(session, *args).await,
        Verb::Bundle(args) => compose::run_bundle(session, *args).await,
        Verb::Doctor(args) => doctor::run(session, &args).await,
        Verb::Daemon(_) | Verb::Completion(_) | Verb::Refused(_) => {
            unreachable!("these need no session")
        }
    }
}

async fn container(session: &Session, verb: ContainerVerb) -> Outcome {
    match verb {
        ContainerVerb::Run(args) => run::run(session, *args).await,
        ContainerVerb::Create(args) => run::create(session, *args).await,
        ContainerVerb::Start(args) => lifecycle::start(session, args).await,
        ContainerVerb::Stop(args) => lifecycle::stop(session, args).await,
        ContainerVerb::Restart(args) => lifecycle::restart(session, args).await,
        ContainerVerb::Kill(args) => lifecycle::kill(session, args).await,
        ContainerVerb::Rm(args) => lifecycle::rm(session, args).await,
        ContainerVerb::Pause(args) => lifecycle::pause(session, args).await,
        ContainerVerb::Unpause(args) => lifecycle::unpause(session, args).await,
        ContainerVerb::Wait(args) => lifecycle::wait(session, args).await,
        ContainerVerb::Rename(args) => lifecycle::rename(session, args).await,
        ContainerVerb::Update(args) => lifecycle::update(session, *args).await,
        ContainerVerb::Attach(args) => lifecycle::attach(session, args).await,
        ContainerVerb::Exec(args) => exec::run(session, args).await,
        ContainerVerb::Logs(args) => logs::run(session, args).await,
        ContainerVerb::Top(args) => look::top(session, args).await,
        ContainerVerb::Port(args) => look::port(session, args).await,
        ContainerVerb::Diff(args) => look::diff(session, args).await,
        ContainerVerb::Stats(args) => stats::run(session, args).await,
        ContainerVerb::Export(args) => transfer::export(session, args).await,
        ContainerVerb::Cp(args) => copy::run(session, args).await,
        ContainerVerb::Commit(args) => commit::run(session, args).await,
    }
}

async fn image(session: &Session, verb: ImageVerb) -> Outcome {
    match verb {
        ImageVerb::Build(args) => build::run(session, *args).await,
        ImageVerb::Load(args) => transfer::load(session, args).await,
        ImageVerb::Import(args) => transfer::import(session, args).await,
        ImageVerb::Save(args) => transfer::save(session, args).await,
        ImageVerb::Tag(args) => image::tag(session, args).await,
        ImageVerb::History(args) => image::history(session, args).await,
        ImageVerb::Pull(args) => pull::run(session, args).await,
        ImageVerb::Push(args) => push::run(session, args).await,
    }
}

#[cfg(test)]
mod docker_flags;

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Option<u8> {
        parse(shlex(line)).err()
    }

    fn shlex(line: &str) -> Vec<OsString> {
        std::iter::once("muster")
            .chain(line.split(' '))
            .map(OsString::from)
            .collect()
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        as_pflag(with_help(Line::command())).debug_assert();
        with_help(Line::command()).debug_assert();
    }

    #[test]
    fn dockers_lines_are_understood() {
        for line in [
            "run -it --rm busybox sh -c true --rm",
            "run -itd busybox",
            "run --rm=false -t=true busybox",
            "run -p80:80 -p 81:81 -eA=1 -e B -v /a:/b --name=x busybox",
            "run --memory-swap -1 --pids-limit -1 -m 64m busybox",
            "run -h name --net host --name a --name b busybox -h",
            "run --sig-proxy=false busybox",
            "ps -aq -f name=x -n 5 --no-trunc",
            "ps -n -1",
            "container ls -a",
            "container ps",
            "container run busybox",
            "build -t x --build-arg A=1 -f - .",
            "image build -t x .",
            "builder prune -af",
            "buildx build --load .",
            "image ls",
            "image rm x",
            "rmi -f x y",
            "logs -f --tail -1 x",
            "logs -n 5 x",
            "exec -it x sh -c -l",
            "exec x ls -l",
            "stop -t 5 x",
            "stop --time=5 x",
            "rm -fv x y",
            "network create --driver bridge --subnet 10.0.0.0/8 n",
            "network ls --format {{.Name}}",
            "volume create -o a=b --label x v",
            "-H unix:///x.sock ps",
            "swarm init --advertise-addr eth0:2377 --default-addr-pool 10.0.0.0/8 --default-addr-pool-mask-length 26",
            "swarm join --token SWMTKN-1-x-y --listen-addr 0.0.0.0:2377 10.0.0.1:2377",
            "swarm join-token --rotate -q manager",
            "swarm leave -f",
            "swarm unlock-key -q",
            "node ls -f role=manager -q",
            "node update --availability drain --label-add a=b --label-rm c n",
            "node promote a b",
            "node ps --no-resolve",
            "service create --name web --replicas 2 -p 80:80 --update-order start-first nginx nginx -g daemon",
            "service create -d --init --tty=false --health-interval 5s x",
            "service update --publish-add 80 --args a --force --detach=true web",
            "service update --replicas=0 --env-rm A web",
            "service scale web=2 db=1",
            "service rollback -q web",
            "service logs -f -n 5 --raw web",
            "service ps -f desired-state=running web",
            "stack deploy -c a.yaml -c b.yaml --prune --with-registry-auth --detach=false app",
            "stack deploy --compose-file - --resolve-image never app",
            "stack up -c a.yaml app",
            "stack rm --detach=true app",
            "stack services -q app",
            "stack config -c a.yaml --skip-interpolation",
            "secret create -l a=b --template-driver golang s file",
            "config inspect --pretty c",
            "-D --host=unix:///x.sock system prune -af --volumes",
            "inspect --type container -s x",
            "top x -o pid",
            "compose -f a.yaml -f b.yaml -p x --profile p up -d --scale web=3",
            "compose --dry-run down -v --rmi local",
            "compose exec -T web sh -c -x",
            "compose run --rm -e A=1 web ls -l",
            "up -d -f a.yaml",
            "plan --format json",
            "bundle --with-binds -o x.tar -f a.yaml",
            "up -d x.tar",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn help_ends_well_and_usage_errors_end_as_dockers() {
        for line in [
            "--help",
            "run --help",
            "ps -h",
            "compose up --help",
            "--version",
        ] {
            assert_eq!(code(line), Some(0), "{line}");
        }
        for line in [
            "run --frob busybox",
            "run --rm=maybe busybox",
            "ps --format",
            "rm --frob",
            "--frob ps",
        ] {
            assert_eq!(code(line), Some(USAGE), "{line}");
        }
        for line in [
            "frobnicate",
            "network frobnicate",
            "run",
            "rm",
            "exec x",
            "ps x",
            "volume create a b",
            "compose frob",
        ] {
            assert_eq!(code(line), Some(1), "{line}");
        }
        assert_eq!(code("network"), Some(0));
    }
}
