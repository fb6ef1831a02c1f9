//! `service update`, `scale` and `rollback`.

use super::{collect, credentials, look_up, pin, wait, warn};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::service::UpdateFlags;
use crate::out;
use agent_api::Client;
use agent_api::client::UpdateKind;
use agent_api::swarm::{ReplicatedService, ServiceSpec};
use clap::Args;
use compose::converge::Expected;

/// Update a service
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster service update --image nginx:1.27 --update-order start-first web
  muster service update --env-add LEVEL=debug --force web")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    flags: UpdateFlags,
    service: String,
}

pub(super) async fn update(session: &Session, args: UpdateArgs) -> Outcome {
    let UpdateArgs {
        flags,
        service: name,
    } = args;
    let client = session.client().await?;
    let scalars = &flags.scalars;
    if flags.rollback {
        if flags.says_more_than_rollback() {
            return Err(Failure::new(1, "other flags may not be combined with --rollback").into());
        }
        return go_back(client, &name, scalars.detach, scalars.quiet).await;
    }
    let bad = |reason: String| Failure::new(1, reason);
    let service = client.inspect_service(&name).await?;
    let mut spec = service.spec;
    let known = look_up(client, flags.named().map_err(bad)?).await?;
    flags.apply(&mut spec, &known).map_err(bad)?;
    let image = spec
        .task_template
        .container_spec
        .as_ref()
        .map(|container| container.image.clone())
        .unwrap_or_default();
    let auth = credentials(scalars.with_registry_auth, &image).await?;
    if flags.image.is_some() && !scalars.no_resolve_image {
        pin(client, &mut spec, auth.as_ref()).await;
    }
    let changed = client
        .update_service(
            &service.id,
            service.version,
            &spec,
            UpdateKind::ToSpec,
            auth.as_ref(),
        )
        .await?;
    warn(&changed.warnings);
    out::line(&name)?;
    if scalars.detach {
        return Ok(0);
    }
    wait(client, &[(service.id, Expected::Forward)], scalars.quiet).await
}

/// Revert changes to a service's configuration
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service rollback web")]
pub(crate) struct RollbackArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    service: String,
}

pub(super) async fn rollback(session: &Session, args: RollbackArgs) -> Outcome {
    let client = session.client().await?;
    go_back(client, &args.service, args.detach, args.quiet).await
}

async fn go_back(client: &Client, name: &str, detach: bool, quiet: bool) -> Outcome {
    let service = client.inspect_service(name).await?;
    let changed = client
        .update_service(
            &service.id,
            service.version,
            &service.spec,
            UpdateKind::Rollback,
            None,
        )
        .await?;
    warn(&changed.warnings);
    out::line(name)?;
    if detach {
        return Ok(0);
    }
    wait(client, &[(service.id, Expected::Back)], quiet).await
}

/// Scale one or multiple replicated services
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service scale web=5 worker=10")]
pub(crate) struct ScaleArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    services: Vec<String>,
}

pub(super) async fn scale(session: &Session, args: ScaleArgs) -> Outcome {
    let mut wanted = Vec::new();
    for text in &args.services {
        let (name, number) = text.split_once('=').ok_or_else(|| {
            Failure::new(
                1,
                format!(
                    "invalid scale specifier '{text}', requires format like 'SERVICE=REPLICAS'"
                ),
            )
        })?;
        let number: u64 = number.parse().map_err(|_| {
            let reason = "it is no number of tasks";
            Failure::new(
                1,
                format!("{name}: invalid replicas value {number}: {reason}"),
            )
        })?;
        wanted.push((name, number));
    }
    let client = session.client().await?;
    let (mut ids, mut failures, mut code) = (Vec::new(), Vec::new(), 0);
    for (name, number) in wanted {
        let service = match client.inspect_service(name).await {
            Ok(service) => service,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        let mut spec = service.spec;
        if !set_number(&mut spec, number) {
            out::note(format!(
                "{name}: scale can only be used with replicated or replicated-job mode"
            ));
            code = 1;
            continue;
        }
        let changed = client
            .update_service(
                &service.id,
                service.version,
                &spec,
                UpdateKind::ToSpec,
                None,
            )
            .await;
        match changed {
            Ok(changed) => {
                warn(&changed.warnings);
                out::line(format!("{name} scaled to {number}"))?;
                ids.push((service.id, Expected::Forward));
            }
            Err(error) => failures.push(error),
        }
    }
    code = code.max(collect(failures));
    if !args.detach && !ids.is_empty() {
        code = code.max(wait(client, &ids, false).await?);
    }
    Ok(code)
}

/// Sets the number of tasks; `false` when the service has none.
fn set_number(spec: &mut ServiceSpec, number: u64) -> bool {
    if let Some(job) = &mut spec.mode.replicated_job {
        job.total_completions = Some(number);
        return true;
    }
    match &mut spec.mode.replicated {
        Some(replicated) => {
            *replicated = ReplicatedService {
                replicas: Some(number),
            };
            true
        }
        None => false,
    }
}
