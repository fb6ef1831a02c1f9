//! `compose run`: a one-off container of a service. Source: docker/compose `cmd/compose/run.go`, `pkg/compose/run.go`.

use super::exec::wants_terminal;
use super::images::Images;
use super::project::ProjectFlags;
use super::{perform, session};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{env, mounts, ports::Ports};
use crate::verbs::run::Running;
use agent_api::ContainerCreateRequest;
use agent_api::client::RemoveContainerOptions;
use clap::Args;
use compose::convert::{self, ContainerSpec, files};
use compose::labels;
use compose::plan::images::{Building, ImageOptions};
use compose::plan::options::{Dependencies, Orphans, UpOptions};
use compose::{ObservedState, Plan};
use compose_model::Loaded;

/// Run a one-off command on a service
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose run --rm web python manage.py migrate")]
pub(crate) struct RunArgs {
    /// Build image before starting container
    #[arg(long)]
    build: bool,
    /// Add Linux capabilities
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the entrypoint of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set environment variables from file
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<String>,
    /// Keep STDIN open even if not attached (it is; accepted for scripts)
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Add or override a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Assign a name to the container
    #[arg(long)]
    name: Option<String>,
    /// Disable pseudo-TTY allocation
    #[arg(short = 'T', long, visible_alias = "no-TTY")]
    no_tty: bool,
    /// Don't start linked services
    #[arg(long)]
    no_deps: bool,
    /// Publish a container's port(s) to the host
    #[arg(short, long)]
    publish: Vec<String>,
    /// Don't print anything but the output of the command
    #[arg(short, long)]
    quiet: bool,
    /// Suppress the build output
    #[arg(long)]
    quiet_build: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    rm: bool,
    /// Run command with all service's ports enabled and mapped to the host
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// Use the service's network aliases in the networks the container connects to
    #[arg(long)]
    use_aliases: bool,
    /// Run as specified username or uid
    #[arg(short, long)]
    user: Option<String>,
    /// Bind mount a volume
    #[arg(short, long)]
    volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// Service, and the command and its arguments in place of the service's own
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "SERVICE [COMMAND] [ARG...]"
    )]
    service_and_command: Vec<String>,
}

pub(super) async fn run(session: &Session, flags: &ProjectFlags, args: RunArgs) -> Outcome {
    let (service, command) = args
        .service_and_command
        .split_first()
        .expect("clap requires a service");
    let loaded = flags.load(std::slice::from_ref(service), args.no_deps)?;
    let project = &loaded.project;
    let client = session.client().await?;
    let lock = session::lock(client, &project.name, "run")?;
    if !flags.dry_run {
        args.build_images(session, flags, &loaded).await?;
    }
    let observed = compose::observe(client, &project.name, Some(project)).await?;
    let options = UpOptions {
        services: vec![service.clone()],
        dependencies: if args.no_deps {
            Dependencies::Ignore
        } else {
            Dependencies::Include
        },
        orphans: super::up::orphans(args.remove_orphans, Orphans::Ignore),
        ..Default::default()
    };
    // What the service needs, without the service itself.
    let plan = without(
        compose::plan::reconcile(project, &loaded.sources, &observed, &options)?,
        service,
    );
    if !args.quiet {
        session::warn(&plan);
    }
    if flags.dry_run {
        return session::print(&plan);
    }
    let quiet = ProjectFlags {
        progress: super::project::ProgressMode::Quiet,
        ..flags.clone()
    };
    perform::execute(client, &plan, if args.quiet { &quiet } else { flags }, None).await?;
    let tty = wants_terminal(args.no_tty, args.detach);
    let request = request(&args, &loaded, &observed, service, command, tty)
        .map_err(|reason| Failure::new(1, reason))?;
    let written = files::files(project, &project.services[service])
        .map_err(|reason| Failure::new(1, reason))?;
    let name = args.name.clone().unwrap_or_else(|| {
        format!(
            "{}-{service}-run-{:012x}",
            project.name,
            random() & 0xffff_ffff_ffff
        )
    });
    let created = client
        .create_container(
            Some(&name),
            project.services[service].platform.as_deref(),
            &request,
        )
        .await?;
    if let Err(error) = files::write(client, &created.id, &written).await {
        let options = RemoveContainerOptions {
            force: true,
            volumes: true,
            link: false,
        };
        let _ = client.remove_container(&created.id, options).await;
        return Err(error.into());
    }
    drop(lock);
    for warning in created.warnings.iter().filter(|_| !args.quiet) {
        crate::out::note(format!("WARNING: {warning}"));
    }
    let running = Running {
        id: &created.id,
        request: &request,
        detach: args.detach,
        detach_keys: None,
        sig_proxy: true,
    };
    running.run(client).await
}

impl RunArgs {
    /// Builds what is missing, and the service's own image when that is asked for.
    async fn build_images(
        &self,
        session: &Session,
        flags: &ProjectFlags,
        loaded: &Loaded,
    ) -> anyhow::Result<()> {
        let images = Images::new(session, flags, loaded);
        let quiet = self.quiet || self.quiet_build;
        if self.build {
            let own = ImageOptions {
                services: self.service_and_command[..1].to_vec(),
                building: Building::All,
            };
            images.build(&own, quiet).await?;
        }
        images.build(&ImageOptions::default(), quiet).await
    }
}

/// The plan without the steps of one service; what they wait for stays.
fn without(plan: Plan, service: &str) -> Plan {
    let mut numbers = Vec::with_capacity(plan.steps.len());
    let mut steps = Vec::new();
    for mut step in plan.steps {
        let own = step
            .operation
            .container()
            .is_some_and(|container| container.service == service)
            || matches!(&step.operation, compose::Operation::Wait { service: waited, .. } if waited == service);
        if own {
            numbers.push(None);
            continue;
        }
        step.after.retain_mut(|edge| match numbers[edge.step] {
            Some(number) => {
                edge.step = number;
                true
            }
            None => false,
        });
        numbers.push(Some(steps.len()));
        steps.push(step);
    }
    Plan { steps, ..plan }
}

fn request(
    args: &RunArgs,
    loaded: &Loaded,
    observed: &ObservedState,
    name: &str,
    command: &[String],
    tty: bool,
) -> Result<ContainerCreateRequest, String> {
    let project = &loaded.project;
    let mut service = project
        .services
        .get(name)
        .ok_or_else(|| format!("no such service: {name}"))?
        .clone();
    if !args.service_ports {
        service.ports.clear();
    }
    let fingerprint = compose::plan::hash::service(project, &service, &observed.contents);
    let spec = ContainerSpec {
        project,
        name,
        service: &service,
        number: 1,
        image_id: "",
        config_hash: &fingerprint.hash,
        attributes: &fingerprint.attributes,
        inherited: &[],
        replaces: None,
    };
    let mut request = convert::container(&spec);
    let (config, host) = (&mut request.config, &mut request.host_config);
    config.tty = tty;
    config.open_stdin = !args.detach;
    config.stdin_once = !args.detach;
    (
        config.attach_stdin,
        config.attach_stdout,
        config.attach_stderr,
    ) = (!args.detach, !args.detach, !args.detach);
    if !command.is_empty() {
        config.cmd = Some(command.to_vec());
    }
    if let Some(entrypoint) = &args.entrypoint {
        config.entrypoint = Some(entrypoint.split_whitespace().map(str::to_owned).collect());
        // The service's command was meant for its own entrypoint.
        if command.is_empty() {
            config.cmd = None;
        }
    }
    override_env(
        config.env.get_or_insert_default(),
        env::environment(&args.env_from_file, &args.env)?,
    );
    config.labels.extend(env::labels(&[], &args.label)?);
    config
        .labels
        .insert(labels::ONEOFF.to_owned(), "True".to_owned());
    if let Some(user) = &args.user {
        config.user.clone_from(user);
    }
    if let Some(directory) = &args.workdir {
        config.working_dir.clone_from(directory);
    }
    let volumes = mounts::Volumes::parse(&args.volume)?;
    host.binds.get_or_insert_default().extend(volumes.binds);
    config
        .volumes
        .get_or_insert_default()
        .extend(volumes.anonymous);
    let ports = Ports::parse(&args.publish, &[])?;
    config
        .exposed_ports
        .get_or_insert_default()
        .extend(ports.exposed);
    host.port_bindings.extend(ports.bindings);
    host.cap_add
        .get_or_insert_default()
        .extend_from_slice(&args.cap_add);
    host.cap_drop
        .get_or_insert_default()
        .extend_from_slice(&args.cap_drop);
    host.auto_remove = args.rm;
    host.restart_policy = agent_api::RestartPolicy::default();
    if !args.use_aliases {
        for endpoint in request.networking_config.endpoints_config.values_mut() {
            endpoint.aliases = None;
        }
    }
    Ok(request)
}

/// Later values win in place.
fn override_env(env: &mut Vec<String>, new: Vec<String>) {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in new {
        match env.iter_mut().find(|old| key(old) == key(&entry)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
}

/// Enough to tell one-off containers apart; the daemon refuses a name that is taken.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_of_the_flag_wins() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        override_env(&mut env, vec!["B=3".to_owned(), "C=4".to_owned()]);
        assert_eq!(env, ["A=1", "B=3", "C=4"]);
    }
}
