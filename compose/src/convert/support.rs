//! What is not supported yet, said aloud: a problem where going on would make something else than the file asks for, a
//! warning where the file stays true without it.

use compose_model::{FileReference, MountType, Project, PullPolicy, ServiceConfig};

use super::files;

/// One finding about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The service cannot be made as the file says: message.
    Refused(String),
    /// The attribute has no effect: attribute and reason.
    Ignored(&'static str, String),
}

/// Everything about a service that is refused or has no effect.
#[must_use]
pub fn check(project: &Project, service: &ServiceConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    refuse_attributes(service, &mut findings);
    check_files(project, service, &mut findings);
    check_deploy(service, &mut findings);
    match &service.pull_policy {
        None
        | Some(PullPolicy::Always | PullPolicy::Missing | PullPolicy::Never | PullPolicy::Build) => {
        }
        Some(policy) => findings.push(Finding::Ignored(
            "pull_policy",
            format!(
                "{} is not supported yet: an image is fetched only when it is missing",
                String::from(policy.clone())
            ),
        )),
    }
    findings
}

fn refuse_attributes(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let set = [
        ("provider", service.provider.is_some()),
        ("use_api_socket", service.use_api_socket),
        ("models", !service.models.is_empty()),
        ("pre_start", !service.pre_start.is_empty()),
        ("credential_spec", service.credential_spec.is_some()),
        ("cpu_count", service.cpu_count.is_some()),
        ("cpu_percent", service.cpu_percent.is_some()),
    ];
    for (attribute, _) in set.into_iter().filter(|(_, set)| *set) {
        findings.push(Finding::Refused(format!(
            "{attribute} is not supported yet: remove it"
        )));
    }
    for volume in &service.volumes {
        let kind = match volume.r#type {
            MountType::Cluster => "cluster",
            MountType::Npipe => "npipe",
            _ => continue,
        };
        findings.push(Finding::Refused(format!(
            "a volume of type {kind} ({}) is not supported: use a bind mount or a volume",
            volume.target
        )));
    }
    for option in &service.security_opt {
        let profile = option
            .strip_prefix("seccomp=")
            .or_else(|| option.strip_prefix("seccomp:"));
        if profile.is_some_and(|profile| !matches!(profile, "unconfined" | "builtin" | "default")) {
            findings.push(Finding::Refused(format!(
                "security_opt {option}: a seccomp profile from a file is not supported yet: use the default profile or seccomp=unconfined"
            )));
        }
    }
}

/// Secrets and configs: what cannot be given to a container, and what a bind-mounted file cannot have.
fn check_files(project: &Project, service: &ServiceConfig, findings: &mut Vec<Finding>) {
    for reference in &service.secrets {
        if let Some(secret) = project.secrets.get(&reference.source)
            && secret.file.is_none()
            && secret.environment.is_none()
        {
            let origin = match secret.external {
                true => "outside the project (external)",
                false => "a driver",
            };
            refuse_origin("secret", &reference.source, origin, findings);
        }
    }
    for reference in &service.configs {
        if let Some(config) = project.configs.get(&reference.source)
            && config.external
        {
            let origin = "outside the project (external)";
            refuse_origin("config", &reference.source, origin, findings);
        }
    }
    let written = files::files(project, service);
    if service.read_only
        && let Ok(written) = &written
        && let Some(file) = written.first()
    {
        findings.push(Finding::Refused(format!(
            "cannot create {} in a read_only service: put it into a file and use `file:`",
            file.origin
        )));
    }
    if let Err(reason) = written {
        findings.push(Finding::Refused(reason));
    }
    let mounted_secret = |reference: &&FileReference| {
        project
            .secrets
            .get(&reference.source)
            .is_some_and(|secret| secret.file.is_some())
    };
    let mounted_config = |reference: &&FileReference| {
        project
            .configs
            .get(&reference.source)
            .is_some_and(|config| config.file.is_some())
    };
    let owned = |reference: &FileReference| {
        reference.uid.is_some() || reference.gid.is_some() || reference.mode.is_some()
    };
    for (attribute, ignored) in [
        (
            "uid, gid or mode of a secret",
            service.secrets.iter().filter(mounted_secret).any(owned),
        ),
        (
            "uid, gid or mode of a config",
            service.configs.iter().filter(mounted_config).any(owned),
        ),
    ] {
        if ignored {
            findings.push(Finding::Ignored(
                attribute,
                "the file is bind-mounted and keeps its own owner and mode".to_owned(),
            ));
        }
    }
}

fn refuse_origin(kind: &str, key: &str, origin: &str, findings: &mut Vec<Finding>) {
    findings.push(Finding::Refused(format!(
        "{kind} {key} comes from {origin}, which is not supported yet: put it into a file and use `file:`"
    )));
}

/// What only a cluster does.
fn check_deploy(service: &ServiceConfig, findings: &mut Vec<Finding>) {
    let Some(deploy) = &service.deploy else {
        return;
    };
    let cluster = "it takes a cluster; on one host it is not used".to_owned();
    let reserved_cpus = deploy
        .resources
        .as_ref()
        .and_then(|resources| resources.reservations.as_ref())
        .is_some_and(|reservation| {
            reservation.cpus.is_some() || !reservation.generic_resources.is_empty()
        });
    for (attribute, set) in [
        ("deploy.placement", deploy.placement.is_some()),
        ("deploy.update_config", deploy.update_config.is_some()),
        ("deploy.rollback_config", deploy.rollback_config.is_some()),
        (
            "deploy.endpoint_mode",
            deploy
                .endpoint_mode
                .as_deref()
                .is_some_and(|mode| mode != "vip"),
        ),
        (
            "deploy.mode",
            deploy
                .mode
                .as_deref()
                .is_some_and(|mode| mode != "replicated"),
        ),
        ("deploy.resources.reservations.cpus", reserved_cpus),
    ] {
        if set {
            findings.push(Finding::Ignored(attribute, cluster.clone()));
        }
    }
    if let Some(policy) = &deploy.restart_policy {
        for (attribute, set) in [
            ("deploy.restart_policy.delay", policy.delay.is_some()),
            ("deploy.restart_policy.window", policy.window.is_some()),
        ] {
            if set {
                findings.push(Finding::Ignored(attribute, cluster.clone()));
            }
        }
        if policy.max_attempts.is_some() && policy.condition.as_deref() != Some("on-failure") {
            findings.push(Finding::Ignored(
                "deploy.restart_policy.max_attempts",
                "it counts with condition on-failure only".to_owned(),
            ));
        }
    }
}
