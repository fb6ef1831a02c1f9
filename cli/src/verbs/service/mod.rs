//! Services. Source: docker/cli `cli/command/service`.

mod change;
mod create;
mod inspect;
pub(crate) mod list;
mod logs;

use super::each;
use super::tasks::TaskListFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::service::{Known, Named};
use crate::out;
use crate::render::convergence::Convergence;
use agent_api::client::{ClientError, RegistryAuth};
use agent_api::swarm::{Platform, ServiceSpec};
use agent_api::{Client, Filters};
use clap::{Args, Subcommand};
use compose::converge::{Ended, Expected, watch};
use compose::stack::ResolvedImage;
use std::collections::BTreeMap;

/// Exit code of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Manage Swarm services
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceVerb {
    Create(Box<create::CreateArgs>),
    Inspect(inspect::InspectArgs),
    Logs(logs::LogsArgs),
    #[command(alias = "list")]
    Ls(list::LsArgs),
    Ps(PsArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Rollback(change::RollbackArgs),
    Scale(change::ScaleArgs),
    Update(Box<change::UpdateArgs>),
}

pub(crate) async fn run(session: &Session, verb: ServiceVerb) -> Outcome {
    match verb {
        ServiceVerb::Create(args) => Box::pin(create::run(session, *args)).await,
        ServiceVerb::Inspect(args) => inspect::run(session, args).await,
        ServiceVerb::Logs(args) => logs::run(session, args).await,
        ServiceVerb::Ls(args) => list::run(session, args).await,
        ServiceVerb::Ps(args) => ps(session, args).await,
        ServiceVerb::Rm(args) => rm(session, args).await,
        ServiceVerb::Rollback(args) => change::rollback(session, args).await,
        ServiceVerb::Scale(args) => change::scale(session, args).await,
        ServiceVerb::Update(args) => Box::pin(change::update(session, *args)).await,
    }
}

/// Remove one or more services
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service rm web")]
pub(crate) struct RmArgs {
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.services, async |name| {
        client.remove_service(name).await?;
        Ok(())
    })
    .await
}

/// List the tasks of one or more services
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service ps --no-trunc web")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: TaskListFlags,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

async fn ps(session: &Session, args: PsArgs) -> Outcome {
    let client = session.client().await?;
    let mut filters = args
        .list
        .filters()
        .map_err(|reason| Failure::new(1, reason))?;
    if filters.contains("node") {
        let mut resolved = Filters::new();
        for name in filters.get("node") {
            let id = match name {
                "self" => client.info().await?.swarm.node_id,
                name => name.to_owned(),
            };
            resolved.add("node", id);
        }
        for name in ["name", "id", "label", "desired-state"] {
            filters
                .get(name)
                .for_each(|value| resolved.add(name, value));
        }
        filters = resolved;
    }
    let mut failed = false;
    let mut found = false;
    for name in &args.services {
        match client.inspect_service(name).await {
            Ok(service) => {
                filters.add("service", service.id);
                found = true;
            }
            Err(error) if error.is_not_found() => {
                out::note(format!("no such service: {name}"));
                failed = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if found {
        let tasks = client.list_tasks(&filters).await?;
        args.list.show(client, tasks).await?;
    }
    Ok(u8::from(failed))
}

/// Looks up what flags name: ids of networks of the cluster, secrets and configs.
async fn look_up(client: &Client, named: Named) -> anyhow::Result<Known> {
    let mut known = Known::default();
    for name in named.networks {
        let network = client.inspect_network(&name).await?;
        if network.scope != "swarm" && !matches!(name.as_str(), "host" | "none" | "bridge") {
            let scope = &network.scope;
            return Err(Failure::new(
                1,
                format!("network {name} has scope {scope}: a service needs one of the cluster: muster network create --driver overlay"),
            )
            .into());
        }
        known.networks.insert(name, network.id);
    }
    if !named.secrets.is_empty() {
        for secret in client.list_secrets(&Filters::new()).await? {
            known
                .secrets
                .insert(secret.spec.annotations.name, secret.id);
        }
    }
    if !named.configs.is_empty() {
        for config in client.list_configs(&Filters::new()).await? {
            known
                .configs
                .insert(config.spec.annotations.name, config.id);
        }
    }
    Ok(known)
}

/// Names the image by its digest, so that every node takes the same one. What nobody can resolve goes by its name, with a
/// warning.
async fn pin(client: &Client, spec: &mut ServiceSpec, auth: Option<&RegistryAuth>) {
    let Some(container) = &mut spec.task_template.container_spec else {
        return;
    };
    if container.image.is_empty() || container.image.contains('@') {
        return;
    }
    let asked = BTreeMap::from([(container.image.clone(), auth.cloned())]);
    match compose::stack::resolve(client, asked).await.pop_first() {
        Some((
            _,
            ResolvedImage::Pinned {
                reference,
                platforms,
            },
        )) => {
            container.image = reference;
            let placement = spec.task_template.placement.get_or_insert_default();
            placement.platforms = platforms
                .into_iter()
                .filter(|platform| *platform != Platform::default())
                .collect();
        }
        Some((_, ResolvedImage::Local)) | None => {}
        Some((image, ResolvedImage::Unknown(why))) => out::note(format!(
            "image {image} goes without a digest, so that each node takes what the name means to it: {why}"
        )),
    }
}

/// Credentials that go with a service, when they are asked for and there are any.
async fn credentials(asked: bool, image: &str) -> anyhow::Result<Option<RegistryAuth>> {
    if !asked {
        return Ok(None);
    }
    crate::verbs::pull::auth(image).await
}

/// Waits until services are what their specs say, and says what is wrong with those that will not be.
pub(super) async fn wait(client: &Client, services: &[(String, Expected)], quiet: bool) -> Outcome {
    let mut view = Convergence::new(quiet);
    let watched = {
        let watch = watch(client, services, &mut view);
        tokio::select! {
            ended = watch => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    view.end();
    let Some(ended) = watched else {
        out::note(
            "Operation continuing in background.\nUse \"muster service ps\" to check progress.",
        );
        return Ok(INTERRUPTED);
    };
    let mut code = 0;
    for (name, ended) in ended? {
        if let Ended::Failed(reasons) = ended {
            out::note(format!("muster: service {name} did not converge:"));
            for reason in reasons {
                out::note(format!("  {reason}"));
            }
            code = 1;
        }
    }
    Ok(code)
}

/// Shows warnings of a change.
fn warn(warnings: &[String]) {
    warnings.iter().for_each(out::note);
}

/// Does one after the other, going on after a failure.
fn collect(failures: Vec<ClientError>) -> u8 {
    let failed = !failures.is_empty();
    for failure in failures {
        out::note(describe(&failure.into()));
    }
    u8::from(failed)
}
