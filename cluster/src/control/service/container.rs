//! Rules of the container of a task (SwarmKit `validateContainerSpec`, moby `convert/container.go`), and what of it no
//! node can do.

use std::collections::BTreeMap;

use agent_api::swarm::{ContainerSpec, Privileges, ReferenceFile};
use agent_api::{HealthConfig, Mount, MountType};

use super::super::Refusal;
use super::image;

const MIN_HEALTH_NANOS: i64 = 1_000_000;
const PROPAGATIONS: [&str; 7] = [
    "", "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

pub(super) fn check(container: &ContainerSpec) -> Result<(), Refusal> {
    references(container)?;
    image::check(&container.image)?;
    mounts(&container.mounts)?;
    if let Some(health) = &container.healthcheck {
        check_health(health)?;
    }
    if let Some(period) = container.stop_grace_period
        && period < 0
    {
        return Err(Refusal::invalid(
            "ContainerSpec: StopGracePeriod cannot be negative",
        ));
    }
    if !(-1000..=1000).contains(&container.oom_score_adj) {
        return Err(Refusal::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            container.oom_score_adj
        )));
    }
    container.privileges.as_ref().map_or(Ok(()), privileges)
}

fn references(container: &ContainerSpec) -> Result<(), Refusal> {
    let mut targets = BTreeMap::new();
    for reference in &container.secrets {
        let (id, name) = (&reference.secret_id, &reference.secret_name);
        target("secret", (id, name), reference.file.as_ref(), &mut targets)?;
    }
    let mut targets = BTreeMap::new();
    for reference in &container.configs {
        if reference.runtime.is_some() {
            return Err(Refusal::unsupported(
                "a config with a runtime target (credential spec)",
            ));
        }
        let (id, name) = (&reference.config_id, &reference.config_name);
        target("config", (id, name), reference.file.as_ref(), &mut targets)?;
    }
    Ok(())
}

/// A reference names its object twice and has a file of its own.
fn target<'a>(
    kind: &str,
    (id, name): (&str, &'a str),
    file: Option<&'a ReferenceFile>,
    targets: &mut BTreeMap<&'a str, &'a str>,
) -> Result<(), Refusal> {
    if id.is_empty() || name.is_empty() {
        return Err(Refusal::invalid(format!("malformed {kind} reference")));
    }
    let Some(file) = file else {
        return Err(Refusal::invalid(format!(
            "malformed {kind} reference, no target provided"
        )));
    };
    if file.name.is_empty() {
        return Err(Refusal::invalid(format!(
            "malformed file {kind} reference, invalid target file name provided"
        )));
    }
    match targets.insert(&file.name, name) {
        None => Ok(()),
        Some(before) => Err(Refusal::invalid(format!(
            "{kind} references '{before}' and '{name}' have a conflicting target: '{}'",
            file.name
        ))),
    }
}

fn mounts(mounts: &[Mount]) -> Result<(), Refusal> {
    for (position, mount) in mounts.iter().enumerate() {
        let word = match mount.kind {
            MountType::Bind | MountType::Volume | MountType::Tmpfs => None,
            MountType::Npipe => Some("npipe"),
            MountType::Cluster => Some("cluster"),
            MountType::Image => Some("image"),
        };
        if let Some(word) = word {
            return Err(Refusal::unsupported(format_args!(
                "mount type {word:?} in services"
            )));
        }
        let propagation = mount.bind_options.as_ref().map_or("", |o| &o.propagation);
        if !PROPAGATIONS.contains(&propagation) {
            return Err(Refusal::invalid(format!(
                "invalid MountPropagation: {propagation:?}"
            )));
        }
        if mounts[..position]
            .iter()
            .any(|other| other.target == mount.target)
        {
            return Err(Refusal::invalid(format!(
                "ContainerSpec: duplicate mount point: {}",
                mount.target
            )));
        }
    }
    Ok(())
}

fn check_health(health: &HealthConfig) -> Result<(), Refusal> {
    for (name, nanos) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if nanos != 0 && nanos < MIN_HEALTH_NANOS {
            return Err(Refusal::invalid(format!(
                "ContainerSpec: {name} in HealthConfig cannot be less than 1ms"
            )));
        }
    }
    if health.retries < 0 {
        return Err(Refusal::invalid(
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ));
    }
    Ok(())
}

fn privileges(privileges: &Privileges) -> Result<(), Refusal> {
    if privileges.credential_spec.is_some() {
        return Err(Refusal::unsupported("a credential spec"));
    }
    if privileges.selinux_context.is_some() {
        return Err(Refusal::unsupported("a SELinux context"));
    }
    if let Some(apparmor) = &privileges.apparmor
        && apparmor["Mode"]
            .as_str()
            .is_none_or(|mode| !["", "disabled"].contains(&mode))
    {
        return Err(Refusal::unsupported("an AppArmor profile"));
    }
    if let Some(seccomp) = &privileges.seccomp
        && !["", "default", "unconfined", "custom"].contains(&seccomp.mode.as_str())
    {
        return Err(Refusal::invalid(format!(
            "unknown seccomp mode: {:?}",
            seccomp.mode
        )));
    }
    Ok(())
}
