//! The executable as a plugin of Docker's command line: linked as `docker-buildx` into a folder of plugins, it gets
//! what `docker build`, `docker buildx` and Docker Compose ask of buildx.
//!
//! ```text
//! ln -s $(which muster) ~/.docker/cli-plugins/docker-buildx
//! docker build .              → docker-buildx buildx build .
//! docker compose build        → docker-buildx buildx bake --file - --progress rawjson --metadata-file F …
//! docker                      → docker-buildx docker-cli-plugin-metadata
//! ```
//! Source: docker/cli `cli-plugins`.

use super::context;
use super::verbs::{self, BuilderVerb};
use crate::args::{exit_code, with_help};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::bools::as_pflag;
use crate::out;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The buildx whose commands these are; tools compare it with what they need.
pub(crate) const BUILDX_VERSION: &str = "v0.29.1";

/// Builds images with the muster daemon
#[derive(Debug, Parser)]
#[command(
    name = "docker-buildx",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct PluginLine {
    /// Daemon to connect to
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,
    /// Docker's context whose daemon to connect to
    #[arg(short = 'c', long)]
    context: Option<String>,
    /// Location of client config files
    #[arg(long)]
    config: Option<PathBuf>,
    /// Say more about what is done
    #[arg(short = 'D', long)]
    debug: bool,
    /// Docker's log level
    #[arg(short = 'l', long, hide = true)]
    log_level: Option<String>,
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(subcommand)]
    verb: PluginVerb,
}

#[derive(Debug, Subcommand)]
enum PluginVerb {
    /// What Docker's command line asks every plugin
    #[command(name = "docker-cli-plugin-metadata", hide = true)]
    Metadata,
    /// Docker Buildx
    Buildx {
        /// Builder to use (there is one: default)
        #[arg(long)]
        builder: Option<String>,
        #[command(subcommand)]
        verb: BuilderVerb,
    },
    #[command(flatten)]
    Alone(BuilderVerb),
}

/// Whether the executable was called as the plugin.
pub(crate) fn is_called(name: Option<&OsString>) -> bool {
    let name = name.and_then(|path| Path::new(path).file_name());
    name == Some(OsStr::new("docker-buildx"))
}

/// Reads the line and runs it to its exit code.
pub(crate) fn main(words: Vec<OsString>) -> Outcome {
    let command = as_pflag(with_help(PluginLine::command()));
    let line = match command
        .try_get_matches_from(words)
        .and_then(|matches| PluginLine::from_arg_matches(&matches))
    {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return Ok(exit_code(&error));
        }
    };
    let (builder, verb) = match line.verb {
        PluginVerb::Metadata => return metadata(),
        PluginVerb::Buildx { builder, verb } => (builder, verb),
        PluginVerb::Alone(verb) => (None, verb),
    };
    if let Some(name) = builder.or(line.builder) {
        super::options::check_builder(Some(&name))?;
    }
    let (host, chosen_by) = context::daemon(line.host, line.context, line.config)
        .map_err(|reason| Failure::new(1, reason))?;
    let session = Session::of_docker(host, chosen_by, line.debug || verb.debug());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(Box::pin(verbs::run(&session, verb)));
    // A read of stdin cannot be cancelled: it must not hold up the end.
    runtime.shutdown_background();
    outcome
}

fn metadata() -> Outcome {
    let metadata = serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "muster",
        "Version": BUILDX_VERSION,
        "ShortDescription": "Docker Buildx",
    });
    out::line(metadata.to_string())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<PluginLine, clap::Error> {
        let words = std::iter::once("docker-buildx").chain(line.split(' '));
        let matches = as_pflag(with_help(PluginLine::command())).try_get_matches_from(words)?;
        PluginLine::from_arg_matches(&matches)
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        as_pflag(with_help(PluginLine::command())).debug_assert();
    }

    #[test]
    fn dockers_lines_are_understood() {
        for line in [
            "docker-cli-plugin-metadata",
            "buildx build .",
            "build -t x .",
            "-H unix:///x.sock --debug buildx build --load -t x .",
            "buildx build --pull=false --no-cache -",
            "buildx build --build-arg A --secret id=x,src=y --ssh default --platform linux/amd64 .",
            "buildx build --provenance=false --sbom false --check .",
            "buildx --builder default build .",
            "buildx bake --file - --progress rawjson --metadata-file /tmp/x --allow fs.read=/a",
            "buildx bake -f a.hcl -f b.json --set *.tags=x --print app",
            "buildx ls",
            "buildx inspect --bootstrap default",
            "buildx du --verbose",
            "buildx prune -af --filter until=24h",
            "buildx version",
            "buildx imagetools inspect x --raw",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        assert!(parse("buildx frob").is_err());
    }

    #[test]
    fn it_is_called_by_its_name() {
        assert!(is_called(Some(
            &"/root/.docker/cli-plugins/docker-buildx".into()
        )));
        assert!(!is_called(Some(&"/usr/bin/muster".into())) && !is_called(None));
    }
}
