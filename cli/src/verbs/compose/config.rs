//! `compose config`: the project as it was understood. No daemon is asked.

use super::project::ProjectFlags;
use crate::failure::{Failure, Outcome};
use crate::out;
use clap::Args;
use compose_model::{Dollars, LoadOptions, Stages};
use std::path::PathBuf;

/// Parse, resolve and render compose file in canonical format
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose config --format json
  muster compose config --images")]
pub(crate) struct ConfigArgs {
    /// Print environment used for interpolation
    #[arg(long)]
    environment: bool,
    /// Format the output: yaml or json
    #[arg(long, default_value = "yaml")]
    format: String,
    /// Print the service config hash, one per line ('*' for all)
    #[arg(long, value_name = "SERVICE")]
    hash: Option<String>,
    /// Print the image names, one per line
    #[arg(long)]
    images: bool,
    /// Print the network names, one per line
    #[arg(long)]
    networks: bool,
    /// Don't check model consistency - warning: may produce invalid Compose output
    #[arg(long)]
    no_consistency: bool,
    /// Don't resolve service env files
    #[arg(long)]
    no_env_resolution: bool,
    /// Don't interpolate environment variables
    #[arg(long)]
    no_interpolate: bool,
    /// Don't normalize compose model
    #[arg(long)]
    no_normalize: bool,
    /// Don't resolve file paths
    #[arg(long)]
    no_path_resolution: bool,
    /// Save to file (default to stdout)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the profile names, one per line
    #[arg(long)]
    profiles: bool,
    /// Only validate the configuration, don't print anything
    #[arg(short, long)]
    quiet: bool,
    /// Print the service names, one per line
    #[arg(long)]
    services: bool,
    /// Print the volume names, one per line
    #[arg(long)]
    volumes: bool,
    #[arg(value_name = "SERVICE")]
    service_names: Vec<String>,
}

pub(super) fn run(flags: &ProjectFlags, args: &ConfigArgs) -> Outcome {
    if !matches!(args.format.as_str(), "yaml" | "json") {
        return Err(Failure::new(
            1,
            format!(
                "unsupported format {:?}: there are yaml and json",
                args.format
            ),
        )
        .into());
    }
    let options = LoadOptions {
        services: args.service_names.clone(),
        stages: Stages {
            interpolate: !args.no_interpolate,
            normalize: !args.no_normalize,
            resolve_paths: !args.no_path_resolution,
            check_consistency: !args.no_consistency,
            resolve_environment: !args.no_env_resolution,
        },
        ..flags.options()?
    };
    if args.no_interpolate {
        // Numbers may still be `${VARIABLE}`: the tree is shown as it is written.
        let model =
            compose_model::load_model(&options).map_err(|problems| flags.refuse(&problems))?;
        flags.warn(&model.warnings, &model.sources);
        let text = match args.format.as_str() {
            "json" => compose_model::value_to_json(model.value, Dollars::Keep),
            _ => compose_model::value_to_yaml(model.value, Dollars::Keep),
        };
        return write(args, &text);
    }
    let loaded = compose_model::load(&options).map_err(|problems| flags.refuse(&problems))?;
    flags.warn(&loaded.warnings, &loaded.sources);
    let project = &loaded.project;
    if args.quiet {
        return Ok(0);
    }
    if args.services {
        return super::names(project.services.keys().map(String::as_str));
    }
    if args.volumes {
        return super::names(project.volumes.keys().map(String::as_str));
    }
    if args.networks {
        return super::names(project.networks.keys().map(String::as_str));
    }
    if args.profiles {
        return super::names(project.all_profiles().iter().map(String::as_str));
    }
    if args.images {
        return super::names(project.images().iter().map(String::as_str));
    }
    if let Some(wanted) = &args.hash {
        let services = project
            .services
            .iter()
            .filter(|(name, _)| wanted == "*" || wanted.split(',').any(|one| one == *name));
        for (name, service) in services {
            out::line(format!("{name} {}", service.config_hash()))?;
        }
        return Ok(0);
    }
    if args.environment {
        for (name, value) in &project.environment {
            out::line(format!("{name}={value}"))?;
        }
        return Ok(0);
    }
    write(
        args,
        &if args.format == "json" {
            project.to_json()
        } else {
            project.to_yaml()
        },
    )
}

fn write(args: &ConfigArgs, text: &str) -> Outcome {
    let text = format!("{}\n", text.trim_end_matches('\n'));
    if args.quiet {
        return Ok(0);
    }
    match &args.output {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| {
                Failure::new(1, format!("cannot write {}: {error}", path.display()))
            })?;
        }
        None => out::text(&text)?,
    }
    Ok(0)
}
