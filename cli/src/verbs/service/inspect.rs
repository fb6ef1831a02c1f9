//! `service inspect`, also for people.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::units::{bytes_size, human_duration};
use agent_api::client::ObjectKind;
use agent_api::swarm::{ContainerSpec, Service, TaskSpec, UpdateConfig};
use agent_api::{Client, HealthConfig, Labels};
use clap::Args;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Display detailed information on one or more services
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster service inspect --pretty web
  muster service inspect -f '{{.Spec.Mode.Replicated.Replicas}}' web")]
pub(crate) struct InspectArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(session: &Session, args: InspectArgs) -> Outcome {
    let client = session.client().await?;
    if !args.pretty {
        let kinds = &[ObjectKind::Service];
        let format = args.format.as_deref();
        return crate::verbs::inspect::show(
            client,
            kinds,
            &args.services,
            format,
            &Default::default(),
        )
        .await;
    }
    if args.format.is_some() {
        return Err(Failure::new(1, "--format is incompatible with human friendly format").into());
    }
    for name in &args.services {
        let service = client
            .inspect_raw(ObjectKind::Service, name, false, None)
            .await?;
        let service: Service = serde_json::from_value(service)?;
        let networks = network_names(client, &service).await;
        out::text(&pretty(&service, &networks, Timestamp::now()))?;
    }
    Ok(0)
}

async fn network_names(client: &Client, service: &Service) -> Vec<String> {
    let mut names = Vec::new();
    for attachment in &service.spec.task_template.networks {
        let found = client.inspect_network(&attachment.target).await;
        names.push(found.map_or_else(|_| attachment.target.clone(), |network| network.name));
    }
    names
}

/// Lines of Docker's layout (`cli/command/service/formatter.go`).
struct Page(String);

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// Docker's template leaves a space at the end of some lists.
    fn space(&mut self) {
        self.0.pop();
        self.0.push_str(" \n");
    }

    /// A line that is left out when there is nothing to say.
    fn unless_empty(&mut self, title: &str, text: &str) {
        if !text.is_empty() {
            self.line(format!("{title}{text}"));
        }
    }

    fn pairs(&mut self, indent: &str, between: &str, pairs: &Labels) {
        let sorted: BTreeMap<_, _> = pairs.iter().collect();
        for (key, value) in sorted {
            match value.as_str() {
                "" => self.line(format!("{indent}{key}")),
                value => self.line(format!("{indent}{key}{between}{value}")),
            }
        }
    }
}

fn pretty(service: &Service, networks: &[String], now: Timestamp) -> String {
    let mut page = Page("\n".to_owned());
    let spec = &service.spec;
    page.line(format!("ID:\t\t{}", service.id));
    page.line(format!("Name:\t\t{}", spec.annotations.name));
    if !spec.annotations.labels.is_empty() {
        page.line("Labels:");
        page.pairs(" ", "=", &spec.annotations.labels);
    }
    if let Some(replicated) = &spec.mode.replicated {
        page.line("Service Mode:\tReplicated");
        page.line(format!(" Replicas:\t{}", replicated.replicas.unwrap_or(1)));
    } else if spec.mode.global.is_some() {
        page.line("Service Mode:\tGlobal");
    } else {
        page.line("Service Mode:");
    }
    update_status(&mut page, service, now);
    placement(&mut page, &spec.task_template);
    rollout(
        &mut page,
        "UpdateConfig:",
        "Update order:      ",
        spec.update_config.as_ref(),
    );
    rollout(
        &mut page,
        "RollbackConfig:",
        "Rollback order:    ",
        spec.rollback_config.as_ref(),
    );
    let container = spec
        .task_template
        .container_spec
        .clone()
        .unwrap_or_default();
    self::container(&mut page, &container);
    if let Some(driver) = &spec.task_template.log_driver {
        page.line("Log Driver:");
        page.unless_empty(" Name:\t\t", &driver.name);
        if !driver.options.is_empty() {
            page.line(" LogOpts:");
            page.pairs("  ", ":       ", &driver.options);
        }
        page.line("");
    }
    resources(&mut page, &spec.task_template);
    if !networks.is_empty() {
        page.line(format!("Networks: {} ", networks.join(" ")));
    }
    let endpoint = spec.endpoint_spec.clone().unwrap_or_default();
    page.line(format!("Endpoint Mode:\t{}", endpoint.mode));
    if !service.endpoint.ports.is_empty() {
        page.line("Ports:");
        for port in &service.endpoint.ports {
            page.line(format!(" PublishedPort = {}", port.published_port));
            page.line(format!("  Protocol = {}", port.protocol));
            page.line(format!("  TargetPort = {}", port.target_port));
            page.line(format!("  PublishMode = {}", port.publish_mode));
        }
        page.space();
    }
    if let Some(check) = &container.healthcheck {
        healthcheck(&mut page, check);
    }
    page.line("");
    page.0
}

fn update_status(page: &mut Page, service: &Service, now: Timestamp) {
    let Some(status) = &service.update_status else {
        return;
    };
    if status.state.is_empty() {
        return;
    }
    let ago = |time: &Option<String>| {
        let at: Timestamp = time.as_deref()?.parse().ok()?;
        let age = human_duration(now.as_second() - at.as_second());
        Some(format!("{age} ago"))
    };
    page.line("UpdateStatus:");
    page.line(format!(" State:\t\t{}", status.state));
    page.unless_empty(" Started:\t", &ago(&status.started_at).unwrap_or_default());
    if status.state == "completed" {
        page.unless_empty(
            " Completed:\t",
            &ago(&status.completed_at).unwrap_or_default(),
        );
    }
    page.line(format!(" Message:\t{}", status.message));
}

fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        items => format!("[{}]", items.join(" ")),
    }
}

fn placement(page: &mut Page, template: &TaskSpec) {
    page.line("Placement:");
    let placement = template.placement.clone().unwrap_or_default();
    page.unless_empty(" Constraints:\t", &list(&placement.constraints));
    let preferences = placement.preferences.iter().filter_map(|preference| {
        let spread = preference.spread.as_ref()?;
        Some(format!("spread={}", spread.spread_descriptor))
    });
    page.unless_empty(" Preferences:   ", &list(&preferences.collect::<Vec<_>>()));
    if placement.max_replicas > 0 {
        page.line(format!(
            " Max Replicas Per Node:   {}",
            placement.max_replicas
        ));
    }
}

/// As Go prints durations.
fn duration(nanoseconds: i64) -> String {
    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(0);
    compose_model::Duration(std::time::Duration::from_nanos(nanoseconds)).to_string()
}

fn rollout(page: &mut Page, title: &str, order: &str, config: Option<&UpdateConfig>) {
    let Some(config) = config else { return };
    page.line(title);
    page.line(format!(" Parallelism:\t{}", config.parallelism));
    if config.delay > 0 {
        page.line(format!(" Delay:\t\t{}", duration(config.delay)));
    }
    page.line(format!(" On failure:\t{}", config.failure_action));
    if config.monitor > 0 {
        page.line(format!(" Monitoring Period: {}", duration(config.monitor)));
    }
    page.line(format!(" Max failure ratio: {}", config.max_failure_ratio));
    page.line(format!(" {order}{}", config.order));
}

fn container(page: &mut Page, container: &ContainerSpec) {
    page.line("ContainerSpec:");
    page.line(format!(" Image:\t\t{}", container.image));
    let words = |list: &[String]| {
        list.iter()
            .map(|word| format!("{word} "))
            .collect::<String>()
    };
    page.unless_empty(" Args:\t\t", &words(&container.args));
    page.unless_empty(" Env:\t\t", &words(&container.env));
    page.unless_empty(" Dir:\t\t", &container.dir);
    if let Some(init) = container.init {
        page.line(format!(" Init:\t\t{init}"));
    }
    page.unless_empty(" User: ", &container.user);
    let (add, drop) = (&container.capability_add, &container.capability_drop);
    if !add.is_empty() || !drop.is_empty() {
        page.line("Capabilities:");
        page.unless_empty(" Add: ", &add.join(", "));
        page.unless_empty(" Drop: ", &drop.join(", "));
    }
    if !container.sysctls.is_empty() {
        page.line("SysCtls:");
        page.pairs(" ", ": ", &container.sysctls);
    }
    if !container.ulimits.is_empty() {
        page.line("Ulimits:");
        let limits: BTreeMap<_, _> = container
            .ulimits
            .iter()
            .map(|limit| (&limit.name, (limit.soft, limit.hard)))
            .collect();
        for (name, (soft, hard)) in limits {
            page.line(format!(" {name}: {soft}:{hard}"));
        }
    }
    if !container.mounts.is_empty() {
        page.line("Mounts:");
    }
    for mount in &container.mounts {
        let kind = format!("{:?}", mount.kind).to_lowercase();
        page.line(format!(" Target:\t{}", mount.target));
        page.line(format!("  Source:\t{}", mount.source));
        page.line(format!("  ReadOnly:\t{}", mount.read_only));
        page.line(format!("  Type:\t\t{kind}"));
    }
    let configs = container.configs.iter();
    files(
        page,
        "Configs:",
        configs.map(|config| (config.file.as_ref(), &config.config_name)),
    );
    let secrets = container.secrets.iter();
    files(
        page,
        "Secrets:",
        secrets.map(|secret| (secret.file.as_ref(), &secret.secret_name)),
    );
}

fn files<'a>(
    page: &mut Page,
    title: &str,
    files: impl Iterator<Item = (Option<&'a agent_api::swarm::ReferenceFile>, &'a String)>,
) {
    for (index, (file, name)) in files.enumerate() {
        if index == 0 {
            page.line(title);
        }
        let target = file.map_or("", |file| file.name.as_str());
        page.line(format!(" Target:\t{target}\n  Source:\t{name}"));
    }
}

fn resources(page: &mut Page, template: &TaskSpec) {
    let Some(resources) = &template.resources else {
        return;
    };
    page.line("Resources:");
    #[expect(clippy::cast_precision_loss, reason = "as Docker shows it")]
    let cpus = |nano: i64| nano as f64 / 1e9;
    let amounts = |page: &mut Page, nano: i64, memory: i64| {
        if nano > 0 {
            page.line(format!("  CPU:\t\t{}", cpus(nano)));
        }
        if memory > 0 {
            page.line(format!("  Memory:\t{}", bytes_size(memory)));
        }
    };
    let kept = resources.reservations.clone().unwrap_or_default();
    if kept.nano_cpus > 0 || kept.memory_bytes > 0 {
        page.line(" Reservations:");
        amounts(page, kept.nano_cpus, kept.memory_bytes);
    }
    let limits = resources.limits.clone().unwrap_or_default();
    if limits.nano_cpus > 0 || limits.memory_bytes > 0 || limits.pids > 0 {
        page.line(" Limits:");
        amounts(page, limits.nano_cpus, limits.memory_bytes);
        if limits.pids > 0 {
            page.line(format!("  PIDs:\t\t{}", limits.pids));
        }
    }
}

fn healthcheck(page: &mut Page, check: &HealthConfig) {
    page.line(" Healthcheck:");
    page.line(format!("  Interval = {}", duration(check.interval)));
    page.line(format!("  Retries = {}", check.retries));
    page.line(format!("  StartPeriod =\t{}", duration(check.start_period)));
    page.line(format!("  Timeout =\t{}", duration(check.timeout)));
    if let Some(test) = &check.test {
        page.line("  Tests:");
        for word in test {
            page.line(format!("\t Test = {word}"));
        }
        page.space();
    }
}
