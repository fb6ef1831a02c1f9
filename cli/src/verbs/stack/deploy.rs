//! `stack deploy`: load, plan, carry out, wait.

use super::check_name;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::verbs::compose::ProjectFlags;
use crate::verbs::service;
use agent_api::client::RegistryAuth;
use clap::{Args, ValueEnum};
use compose::converge::Expected;
use compose::stack::{
    self, DeployOptions, DesiredStack, Leftovers, ResolveImage, StackPlan, labels,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// When images are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resolve {
    Always,
    Changed,
    Never,
}

/// Deploy a new stack or update an existing stack
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster stack deploy -c compose.yaml app
  muster stack deploy -c compose.yaml --plan app
  muster stack deploy -c compose.yaml -c prod.yaml --prune app")]
pub(crate) struct DeployArgs {
    /// Path to a Compose file, or "-" to read from stdin
    #[arg(short, long, value_name = "FILE")]
    compose_file: Vec<PathBuf>,
    /// Exit immediately instead of waiting for the stack services to converge
    #[arg(short, long)]
    detach: bool,
    /// Specify an alternate environment file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Print what would change, field by field, and change nothing
    #[arg(long)]
    plan: bool,
    /// Specify a profile to enable
    #[arg(long)]
    profile: Vec<String>,
    /// Specify an alternate working directory (default: the path of the first Compose file)
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// Remove what is no longer in the file: services, networks, secrets, configs
    #[arg(long)]
    prune: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Query the registry to resolve image digest and supported platforms
    #[arg(long, value_enum, default_value = "always")]
    resolve_image: Resolve,
    /// Send registry authentication details to Swarm agents
    #[arg(long)]
    with_registry_auth: bool,
    stack: String,
}

impl DeployArgs {
    fn project_flags(&self) -> ProjectFlags {
        ProjectFlags {
            file: self.compose_file.clone(),
            project_name: Some(self.stack.clone()),
            profile: self.profile.clone(),
            env_file: self.env_file.clone(),
            project_directory: self.project_directory.clone(),
            ..ProjectFlags::default()
        }
    }

    fn options(&self) -> DeployOptions {
        DeployOptions {
            leftovers: match self.prune {
                true => Leftovers::Prune,
                false => Leftovers::Keep,
            },
            resolve: match self.resolve_image {
                Resolve::Always => ResolveImage::Always,
                Resolve::Changed => ResolveImage::Changed,
                Resolve::Never => ResolveImage::Never,
            },
        }
    }

    /// By name of the service.
    async fn credentials(
        &self,
        desired: &DesiredStack,
    ) -> anyhow::Result<BTreeMap<String, RegistryAuth>> {
        let mut found = BTreeMap::new();
        if !self.with_registry_auth {
            return Ok(found);
        }
        for service in &desired.services {
            let annotations = &service.spec.annotations;
            let image = annotations.labels.get(labels::IMAGE);
            let image = image.map_or("", String::as_str);
            let auth = crate::verbs::pull::auth(image).await?;
            found.extend(auth.map(|auth| (annotations.name.clone(), auth)));
        }
        Ok(found)
    }
}

impl DeployArgs {
    /// By image.
    async fn credentials_of(
        &self,
        images: BTreeSet<String>,
    ) -> anyhow::Result<BTreeMap<String, Option<RegistryAuth>>> {
        let mut found = BTreeMap::new();
        for image in images {
            let auth = match self.with_registry_auth {
                true => crate::verbs::pull::auth(&image).await?,
                false => None,
            };
            found.insert(image, auth);
        }
        Ok(found)
    }
}

pub(super) async fn run(session: &Session, args: DeployArgs) -> Outcome {
    check_name(&args.stack)?;
    let loaded = args.project_flags().load(&[], false)?;
    let project = &loaded.project;
    let contents = stack::payload::read(project);
    let refused = |error: compose::PlanError| {
        let text = error.to_string();
        Failure::new(1, text.replace('\n', "\nmuster: "))
    };
    let desired = stack::desired(project, &loaded.sources, &contents).map_err(refused)?;
    let credentials = args.credentials(&desired).await?;
    let client = session.client().await?;
    let mut observed = stack::observe(client, &args.stack).await?;
    let options = args.options();
    let wanted = stack::images_to_resolve(&desired, &observed.services, options.resolve);
    let images = args.credentials_of(wanted).await?;
    observed.images = stack::resolve(client, images).await;
    let plan = stack::plan(&desired, &observed, options).map_err(refused)?;
    for warning in &plan.warnings {
        out::note(format!("warning: {warning}"));
    }
    if args.plan {
        out::text(&plan.to_string())?;
        return Ok(0);
    }
    let mut show = |text: &str| {
        if !args.quiet {
            // A closed pipe must not leave half of a stack behind.
            let _ = out::line(text);
        }
    };
    if plan.steps.is_empty() {
        show(&format!("stack {}: nothing to do", plan.stack));
    }
    let services = stack::apply(client, &plan, &observed, &credentials, &mut show).await?;
    if args.detach {
        return Ok(0);
    }
    let watched = watched(&plan, &services);
    if watched.is_empty() {
        return Ok(0);
    }
    service::wait(client, &watched, args.quiet).await
}

/// The services there are, in the order of their dependencies, by id. Those that were not touched only have to be up.
fn watched(plan: &StackPlan, services: &BTreeMap<String, String>) -> Vec<(String, Expected)> {
    let touched = |name: &str| {
        let mut steps = plan.steps.iter();
        steps.any(|step| step.kind() == "service" && step.object() == name)
    };
    let names = plan.services.iter();
    names
        .filter_map(|name| {
            let expected = match touched(name) {
                true => Expected::Forward,
                false => Expected::Unchanged,
            };
            Some((services.get(name)?.clone(), expected))
        })
        .collect()
}
