//! Which services are active: profiles, services named on the command line, and the resources nobody needs.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::options::LoadOptions;
use crate::report::{Failed, Report};
use crate::schema;
use crate::span::Span;
use crate::types::{MountType, Project, ServiceConfig};

/// Switches services off whose profiles are not active. Services named on the command line bring their profiles.
pub(crate) fn apply_profiles(project: &mut Project, options: &LoadOptions) {
    let mut profiles = options.profiles.clone();
    if profiles.is_empty()
        && let Some(listed) = project.environment.get("COMPOSE_PROFILES")
    {
        let listed = listed
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        profiles.extend(listed.map(str::to_owned));
    }
    for name in &options.services {
        if let Some(service) = project.services.get(name)
            && !has_profile(service, &profiles)
        {
            profiles.extend(service.profiles.clone());
        }
    }
    let (active, disabled) = std::mem::take(&mut project.services)
        .into_iter()
        .partition(|(_, service)| has_profile(service, &profiles));
    project.services = active;
    project.disabled_services = disabled;
    project.profiles = profiles;
}

fn has_profile(service: &ServiceConfig, active: &[String]) -> bool {
    service.profiles.is_empty()
        || active
            .iter()
            .any(|profile| profile == "*" || service.profiles.contains(profile))
}

/// Keeps the services named on the command line and, unless told otherwise, what they depend on.
pub(crate) fn select(
    report: &mut Report,
    project: &mut Project,
    options: &LoadOptions,
) -> Result<(), Failed> {
    if options.services.is_empty() {
        return Ok(());
    }
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut queue: Vec<String> = Vec::new();
    for name in &options.services {
        if project.services.contains_key(name) {
            queue.push(name.clone());
            continue;
        }
        let mut diagnostic = Diagnostic::error(Span::NONE, format!("no such service: {name}"));
        let known = project
            .services
            .keys()
            .chain(project.disabled_services.keys());
        if let Some(near) = schema::nearest(name, known.map(String::as_str)) {
            diagnostic = diagnostic.with_help(format!("did you mean `{near}`?"));
        }
        report.error(diagnostic);
    }
    report.check()?;
    while let Some(name) = queue.pop() {
        let Some(service) = project.services.get(&name) else {
            continue;
        };
        if wanted.insert(name) && !options.no_dependencies {
            queue.extend(service.depends_on.keys().cloned());
        }
    }
    let (kept, dropped): (Vec<_>, Vec<_>) = std::mem::take(&mut project.services)
        .into_iter()
        .partition(|(name, _)| wanted.contains(name));
    project.disabled_services.extend(dropped);
    for (name, mut service) in kept {
        service
            .depends_on
            .retain(|dependency, _| wanted.contains(dependency));
        project.services.insert(name, service);
    }
    Ok(())
}

/// Drops networks, volumes, secrets, configs and models that no active service uses.
pub(crate) fn drop_unused(project: &mut Project) {
    let mut networks = BTreeSet::new();
    let mut volumes = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    let mut configs = BTreeSet::new();
    let mut models = BTreeSet::new();
    for service in project.services.values() {
        networks.extend(service.networks.keys().cloned());
        let named = service
            .volumes
            .iter()
            .filter(|mount| mount.r#type == MountType::Volume);
        volumes.extend(named.filter_map(|mount| mount.source.clone()));
        let build = service.build.as_ref().map(|build| build.secrets.as_slice());
        let build = build.unwrap_or_default().iter();
        secrets.extend(
            service
                .secrets
                .iter()
                .chain(build)
                .map(|secret| secret.source.clone()),
        );
        configs.extend(service.configs.iter().map(|config| config.source.clone()));
        models.extend(service.models.keys().cloned());
    }
    project.networks.retain(|name, _| networks.contains(name));
    project.volumes.retain(|name, _| volumes.contains(name));
    project.secrets.retain(|name, _| secrets.contains(name));
    project.configs.retain(|name, _| configs.contains(name));
    project.models.retain(|name, _| models.contains(name));
}
