//! `stack ls`, `ps`, `services` and `config`.

use super::{check_name, of_stack};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::verbs::compose::ProjectFlags;
use crate::verbs::natural;
use crate::verbs::service::list::ServiceListFlags;
use crate::verbs::tasks::TaskListFlags;
use agent_api::Filters;
use clap::Args;
use compose::stack::labels;
use compose_model::{Dollars, Stages};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// List stacks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stack ls")]
pub(crate) struct LsArgs {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
}

pub(super) async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let client = session.client().await?;
    let filters = Filters::new().with("label", labels::NAMESPACE);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for service in client.list_services(&filters, false).await? {
        let stack = service.spec.annotations.labels.get(labels::NAMESPACE);
        *counts
            .entry(stack.cloned().unwrap_or_default())
            .or_default() += 1;
    }
    let mut stacks: Vec<_> = counts.into_iter().collect();
    stacks.sort_by(|(a, _), (b, _)| natural(a, b));
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "Name",
        table: "{{.Name}}\t{{.Services}}",
        titles: &[
            ("Name", "NAME"),
            ("Services", "SERVICES"),
            ("Orchestrator", "ORCHESTRATOR"),
            ("Namespace", "NAMESPACE"),
        ],
    };
    let rows = stacks.into_iter().map(|(name, services)| {
        Row::new()
            .with("Name", name)
            .with("Services", services.to_string())
            .with("Orchestrator", "Swarm")
            .with("Namespace", "")
    });
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}

/// List the tasks in the stack
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stack ps --filter desired-state=running app")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: TaskListFlags,
    stack: String,
}

pub(super) async fn ps(session: &Session, args: PsArgs) -> Outcome {
    check_name(&args.stack)?;
    let filters = args
        .list
        .filters()
        .map_err(|reason| Failure::new(1, reason))?;
    let client = session.client().await?;
    let tasks = client.list_tasks(&of_stack(filters, &args.stack)).await?;
    if tasks.is_empty() {
        return Err(nothing_in(&args.stack));
    }
    args.list.show(client, tasks).await?;
    Ok(0)
}

fn nothing_in(stack: &str) -> anyhow::Error {
    Failure::new(1, format!("nothing found in stack: {stack}")).into()
}

/// List the services in the stack
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stack services app")]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    list: ServiceListFlags,
    stack: String,
}

pub(super) async fn services(session: &Session, args: ServicesArgs) -> Outcome {
    check_name(&args.stack)?;
    let client = session.client().await?;
    let filters = of_stack(args.list.filters()?, &args.stack);
    let services = args.list.services(client, &filters).await?;
    if services.is_empty() {
        // As Docker: scripts ask this way whether a stack is there.
        out::note(format!("Nothing found in stack: {}", args.stack));
        return Ok(0);
    }
    args.list.show(services)?;
    Ok(0)
}

/// Outputs the final config file, after doing merges and interpolations
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stack config -c compose.yaml -c prod.yaml")]
pub(crate) struct ConfigArgs {
    /// Path to a Compose file, or "-" to read from stdin
    #[arg(short, long, value_name = "FILE")]
    compose_file: Vec<PathBuf>,
    /// Skip interpolation and output only merged config
    #[arg(long)]
    skip_interpolation: bool,
}

pub(super) fn config(args: &ConfigArgs) -> Outcome {
    let flags = ProjectFlags {
        file: args.compose_file.clone(),
        ..ProjectFlags::default()
    };
    if !args.skip_interpolation {
        out::text(&ended(&flags.load(&[], false)?.project.to_yaml()))?;
        return Ok(0);
    }
    let mut options = flags.options()?;
    options.stages = Stages {
        interpolate: false,
        ..Stages::default()
    };
    let model = compose_model::load_model(&options).map_err(|problems| flags.refuse(&problems))?;
    flags.warn(&model.warnings, &model.sources);
    let text = compose_model::value_to_yaml(model.value, Dollars::Keep);
    out::text(&ended(&text))?;
    Ok(0)
}

fn ended(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}
