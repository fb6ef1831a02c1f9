//! Secrets and configs, which differ in little. Source: docker/cli `cli/command/{secret,config}`.

use super::each;
use super::inspect;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{env, filter};
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::render::units::human_duration;
use agent_api::client::ObjectKind;
use agent_api::swarm::{Annotations, ConfigSpec, Driver, SecretSpec};
use agent_api::{Client, Labels};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::Read as _;

/// Manage secrets
#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    Create(CreateSecretArgs),
    /// Display detailed information on one or more secrets
    Inspect(InspectArgs),
    /// List secrets
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove one or more secrets
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Manage configs
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    Create(CreateConfigArgs),
    /// Display detailed information on one or more configs
    Inspect(InspectArgs),
    /// List configs
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove one or more configs
    #[command(alias = "remove")]
    Rm(RmArgs),
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Config,
}

pub(crate) async fn secret(session: &Session, verb: SecretVerb) -> Outcome {
    match verb {
        SecretVerb::Create(args) => create_secret(session, args).await,
        SecretVerb::Inspect(args) => show(session, Kind::Secret, args).await,
        SecretVerb::Ls(args) => ls(session, Kind::Secret, args).await,
        SecretVerb::Rm(args) => rm(session, Kind::Secret, args).await,
    }
}

pub(crate) async fn config(session: &Session, verb: ConfigVerb) -> Outcome {
    match verb {
        ConfigVerb::Create(args) => create_config(session, args).await,
        ConfigVerb::Inspect(args) => show(session, Kind::Config, args).await,
        ConfigVerb::Ls(args) => ls(session, Kind::Config, args).await,
        ConfigVerb::Rm(args) => rm(session, Kind::Config, args).await,
    }
}

/// Create a secret from a file or STDIN as content
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  printf hush | muster secret create token -
  muster secret create --label env=prod tls-key ./key.pem")]
pub(crate) struct CreateSecretArgs {
    /// Secret driver
    #[arg(short, long)]
    driver: Option<String>,
    /// Secret labels
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Template driver
    #[arg(long)]
    template_driver: Option<String>,
    name: String,
    /// File with the content; '-' is standard input
    file: Option<String>,
}

async fn create_secret(session: &Session, args: CreateSecretArgs) -> Outcome {
    if args.driver.is_some() && args.file.is_some() {
        return Err(Failure::new(1, "When using secret driver secret data must be empty").into());
    }
    let data = match (&args.driver, &args.file) {
        (Some(_), _) => Vec::new(),
        (None, Some(file)) => read(Kind::Secret, file)?,
        (None, None) => {
            return Err(Failure::new(
                1,
                "no file with the secret: write muster secret create NAME FILE, or - for standard input",
            )
            .into());
        }
    };
    let spec = SecretSpec {
        annotations: annotations(args.name, &args.label)?,
        data: Some(BASE64.encode(data)),
        driver: args.driver.map(driver),
        templating: args.template_driver.map(driver),
    };
    out::line(session.client().await?.create_secret(&spec).await?)?;
    Ok(0)
}

/// Create a config from a file or STDIN
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster config create app.conf ./app.conf")]
pub(crate) struct CreateConfigArgs {
    /// Config labels
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Template driver
    #[arg(long)]
    template_driver: Option<String>,
    name: String,
    /// File with the content; '-' is standard input
    file: String,
}

async fn create_config(session: &Session, args: CreateConfigArgs) -> Outcome {
    let data = read(Kind::Config, &args.file)?;
    let spec = ConfigSpec {
        annotations: annotations(args.name, &args.label)?,
        data: Some(BASE64.encode(data)),
        templating: args.template_driver.map(driver),
    };
    out::line(session.client().await?.create_config(&spec).await?)?;
    Ok(0)
}

fn annotations(name: String, flags: &[String]) -> anyhow::Result<Annotations> {
    let labels = env::labels(&[], flags).map_err(|reason| Failure::new(1, reason))?;
    Ok(Annotations { name, labels })
}

fn driver(name: String) -> Driver {
    Driver {
        name,
        options: Labels::new(),
    }
}

/// The content; more than a cluster keeps is not read.
fn read(kind: Kind, file: &str) -> anyhow::Result<Vec<u8>> {
    use compose::stack::payload::{MAX_CONFIG, MAX_SECRET};
    let most = match kind {
        Kind::Secret => MAX_SECRET,
        Kind::Config => MAX_CONFIG,
    };
    let mut data = Vec::new();
    let result = if file == "-" {
        let stdin = std::io::stdin().lock();
        stdin.take(most + 1).read_to_end(&mut data)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most + 1).read_to_end(&mut data))
    };
    let source = if file == "-" { "standard input" } else { file };
    result.map_err(|error| Failure::new(1, format!("cannot read {source}: {error}")))?;
    if data.len() as u64 > most {
        let reason = format!(
            "{source} has more than {} KiB, the most a cluster keeps",
            most >> 10
        );
        return Err(Failure::new(1, reason).into());
    }
    Ok(data)
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

async fn show(session: &Session, kind: Kind, args: InspectArgs) -> Outcome {
    let client = session.client().await?;
    if !args.pretty {
        let object = match kind {
            Kind::Secret => ObjectKind::Secret,
            Kind::Config => ObjectKind::Config,
        };
        return inspect::show(
            client,
            &[object],
            &args.names,
            args.format.as_deref(),
            &Default::default(),
        )
        .await;
    }
    if args.format.is_some() {
        return Err(Failure::new(1, "--format is incompatible with human friendly format").into());
    }
    for name in &args.names {
        out::text(&pretty(client, kind, name).await?)?;
    }
    Ok(0)
}

async fn pretty(client: &Client, kind: Kind, name: &str) -> anyhow::Result<String> {
    let object = object(client, kind, name).await?;
    Ok(match kind {
        Kind::Secret => format!(
            "ID:              {}\nName:              {}\n{}Driver:            {}\nCreated at:        {}\nUpdated at:        {}\n",
            object.id,
            object.name,
            labels(&object.labels),
            object.driver,
            long_time(&object.created),
            long_time(&object.updated),
        ),
        Kind::Config => format!(
            "ID:\t\t\t{}\nName:\t\t\t{}\n{}Created at:            \t{}\nUpdated at:            \t{}\nData:\n{}\n",
            object.id,
            object.name,
            labels(&object.labels),
            long_time(&object.created),
            long_time(&object.updated),
            text(object.data.as_deref()),
        ),
    })
}

/// A line per label below their title.
fn labels(labels: &Labels) -> String {
    let sorted: BTreeMap<_, _> = labels.iter().collect();
    let lines = sorted.into_iter().map(|(key, value)| match value.as_str() {
        "" => format!(" - {key}\n"),
        value => format!(" - {key}={value}\n"),
    });
    std::iter::once("Labels:\n".to_owned())
        .chain(lines)
        .collect()
}

fn text(data: Option<&str>) -> String {
    let data = BASE64.decode(data.unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&data).into_owned()
}

/// As Go prints a time of the API.
pub(super) fn long_time(text: &str) -> String {
    match text.split_once('T') {
        Some((date, time)) => format!("{date} {} +0000 utc", time.trim_end_matches('Z')),
        None => text.to_owned(),
    }
}

/// What both kinds have.
struct Object {
    id: String,
    name: String,
    labels: Labels,
    driver: String,
    created: String,
    updated: String,
    data: Option<String>,
}

async fn object(client: &Client, kind: Kind, name: &str) -> anyhow::Result<Object> {
    Ok(match kind {
        Kind::Secret => client.inspect_secret(name).await?.into(),
        Kind::Config => client.inspect_config(name).await?.into(),
    })
}

impl From<agent_api::swarm::Secret> for Object {
    fn from(secret: agent_api::swarm::Secret) -> Self {
        Self {
            id: secret.id,
            name: secret.spec.annotations.name,
            labels: secret.spec.annotations.labels,
            driver: secret
                .spec
                .driver
                .map(|driver| driver.name)
                .unwrap_or_default(),
            created: secret.created_at,
            updated: secret.updated_at,
            data: None,
        }
    }
}

impl From<agent_api::swarm::Config> for Object {
    fn from(config: agent_api::swarm::Config) -> Self {
        Self {
            id: config.id,
            name: config.spec.annotations.name,
            labels: config.spec.annotations.labels,
            driver: String::new(),
            created: config.created_at,
            updated: config.updated_at,
            data: config.spec.data,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

async fn ls(session: &Session, kind: Kind, args: LsArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let client = session.client().await?;
    let mut objects: Vec<Object> = match kind {
        Kind::Secret => {
            let secrets = client.list_secrets(&filters).await?;
            secrets.into_iter().map(Object::from).collect()
        }
        Kind::Config => {
            let configs = client.list_configs(&filters).await?;
            configs.into_iter().map(Object::from).collect()
        }
    };
    objects.sort_by(|a, b| super::natural(&a.name, &b.name));
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: match kind {
            Kind::Secret => "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
            Kind::Config => "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
        },
        titles: &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("CreatedAt", "CREATED"),
            ("UpdatedAt", "UPDATED"),
            ("Labels", "LABELS"),
        ],
    };
    let now = Timestamp::now();
    let age = |time: &str| {
        let seconds = time
            .parse::<Timestamp>()
            .map_or(0, |at| now.as_second() - at.as_second());
        format!("{} ago", human_duration(seconds))
    };
    let rows = objects.into_iter().map(|object| {
        Row::new()
            .with("ID", object.id)
            .with("Name", object.name)
            .with("Driver", object.driver)
            .with("CreatedAt", age(&object.created))
            .with("UpdatedAt", age(&object.updated))
            .with("Labels", super::join_labels(&object.labels))
            .labels(object.labels)
    });
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

async fn rm(session: &Session, kind: Kind, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.names, async |name| {
        match kind {
            Kind::Secret => client.remove_secret(name).await?,
            Kind::Config => client.remove_config(name).await?,
        };
        Ok(())
    })
    .await
}
