//! `inspect` of any object. Source: docker/cli `cli/command/system/inspect.go`, `cli/command/inspect/inspector.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::platform;
use crate::out;
use crate::render::json;
use crate::render::rows::unescape;
use crate::render::template::{Template, Value};
use agent_api::Client;
use agent_api::client::{ClientError, ObjectKind};
use agent_build::plan::Platform;
use clap::Args;

/// Return low-level information on objects
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster inspect web
  muster inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web
  muster inspect --type volume data")]
pub(crate) struct InspectArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of this type (container, image, network, volume)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Objects of one kind
#[derive(Debug, Args)]
pub(crate) struct InspectKindArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    /// Accepted for networks; there is no other detail to show
    #[arg(short, long)]
    verbose: bool,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Display detailed information on one or more images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster image inspect debian:13
  muster image inspect -f '{{json .Config.Env}}' web
  muster image inspect --platform linux/arm64 web")]
pub(crate) struct InspectImageArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// Inspect a specific platform of the multi-platform image
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

/// What is asked for beyond the object.
#[derive(Debug, Default)]
pub(super) struct Detail {
    /// The sizes of a container's files.
    size: bool,
    /// The variant of an image.
    platform: Option<Platform>,
}

impl Detail {
    fn sizes(size: bool) -> Self {
        Self {
            size,
            platform: None,
        }
    }
}

const ANY: &[ObjectKind] = &[
    ObjectKind::Container,
    ObjectKind::Image,
    ObjectKind::Network,
    ObjectKind::Volume,
];

pub(crate) async fn run(session: &Session, args: InspectArgs) -> Outcome {
    let kinds = match args.kind.as_deref() {
        None | Some("") => ANY,
        Some("container") => &[ObjectKind::Container],
        Some("image") => &[ObjectKind::Image],
        Some("network") => &[ObjectKind::Network],
        Some("volume") => &[ObjectKind::Volume],
        Some(other) => {
            return Err(Failure::new(1, format!("unknown type: {other:?}: must be one of \"container\", \"image\", \"network\", \"volume\"")).into());
        }
    };
    show(
        session.client().await?,
        kinds,
        &args.names,
        args.format.as_deref(),
        &Detail::sizes(args.size),
    )
    .await
}

pub(crate) async fn kind(session: &Session, kind: ObjectKind, args: InspectKindArgs) -> Outcome {
    show(
        session.client().await?,
        &[kind],
        &args.names,
        args.format.as_deref(),
        &Detail::sizes(args.size),
    )
    .await
}

pub(crate) async fn image(session: &Session, args: InspectImageArgs) -> Outcome {
    let detail = Detail {
        size: false,
        platform: platform::platform(args.platform.as_deref())?,
    };
    let client = session.client().await?;
    let format = args.format.as_deref();
    show(client, &[ObjectKind::Image], &args.names, format, &detail).await
}

/// Prints all that are found, then what is wrong with the others.
pub(super) async fn show(
    client: &Client,
    kinds: &[ObjectKind],
    names: &[String],
    format: Option<&str>,
    detail: &Detail,
) -> Outcome {
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(
            Template::parse(&unescape(text))
                .map_err(|error| Failure::new(64, error.to_string()))?,
        ),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match lookup(client, kinds, name, detail).await {
            Ok(object) => found.push(object),
            Err(error) => errors.push(error),
        }
    }
    match &template {
        Some(template) => {
            for object in &found {
                match template.render(&Value::from(object)) {
                    Ok(text) => out::line(text)?,
                    Err(error) => errors.push(error.into()),
                }
            }
        }
        None if format == Some("json") => out::line(json::compact(&found))?,
        None => out::line(json::indented(&found.into()))?,
    }
    for error in &errors {
        match error.downcast_ref::<NoSuchObject>() {
            // Scripts look for these words.
            Some(missing) => out::note(format!("Error: {missing}")),
            None => out::note(describe(error)),
        }
    }
    Ok(u8::from(!errors.is_empty()))
}

async fn lookup(
    client: &Client,
    kinds: &[ObjectKind],
    name: &str,
    detail: &Detail,
) -> anyhow::Result<serde_json::Value> {
    for &kind in kinds {
        let found = client
            .inspect_raw(kind, name, detail.size, detail.platform.as_ref())
            .await;
        match found {
            Err(error) if kind == ObjectKind::Service && error.is_not_found() => {
                return Err(NoSuchObject(format!("no such service: {name}")).into());
            }
            Err(error) if kinds.len() > 1 && (error.is_not_found() || is_no_name(&error)) => {}
            result => return Ok(result?),
        }
    }
    Err(NoSuchObject(format!("No such object: {name}")).into())
}

/// A name that an object of this kind cannot have.
fn is_no_name(error: &ClientError) -> bool {
    error.status() == Some(400)
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoSuchObject(String);
