//! Fetching images, and the progress the daemon reports. Source: docker/cli `cli/command/image/pull.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::transfer::LiveTransfer;
use agent_api::client::credentials::ConfigFile;
use agent_api::client::{JsonStream, RegistryAuth};
use agent_api::{Client, ProgressMessage};
use clap::Args;
use futures_util::StreamExt as _;

/// Download an image from a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster pull debian:13")]
pub(crate) struct PullArgs {
    /// Set platform if the server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Skip image verification (images are not signed; accepted for scripts)
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Image to fetch
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

pub(crate) async fn run(session: &Session, args: PullArgs) -> Outcome {
    let (repository, tag) = match args.all_tags {
        true if split_tag(&args.image).1.is_some() || args.image.contains('@') => {
            return Err(Failure::new(1, "tag can't be used with --all-tags/-a").into());
        }
        true => (args.image.as_str(), ""),
        false => split(&args.image),
    };
    if !args.quiet && !args.all_tags && split_tag(&args.image).1.is_none() && tag == "latest" {
        out::line("Using default tag: latest")?;
    }
    let auth = auth(&args.image).await?;
    let client = session.client().await?;
    let platform = args.platform.as_deref();
    let messages = client
        .pull_image(repository, tag, platform, auth.as_ref())
        .await?;
    progress(messages, Lines::of(args.quiet)).await?;
    out::line(match args.all_tags {
        true => args.image,
        false => with_tag(&args.image),
    })?;
    Ok(0)
}

/// Fetches an image for something else that needs it, showing progress on stderr.
pub(crate) async fn pull(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> anyhow::Result<()> {
    let (repository, tag) = split(image);
    let auth = auth(image).await?;
    let messages = client
        .pull_image(repository, tag, platform, auth.as_ref())
        .await?;
    let lines = match quiet {
        true => Lines::None,
        false => Lines::Stderr,
    };
    progress(messages, lines).await
}

/// Who the user is at an image's registry.
pub(crate) async fn auth(image: &str) -> anyhow::Result<Option<RegistryAuth>> {
    Ok(ConfigFile::load()?.for_image(image).await?)
}

/// Where progress is shown: live on a terminal, as plain lines elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    None,
    Stdout,
    Stderr,
}

impl Lines {
    /// On stdout, if at all.
    pub(crate) fn of(quiet: bool) -> Self {
        match quiet {
            true => Self::None,
            false => Self::Stdout,
        }
    }

    fn show(self, text: &str) -> std::io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Stdout => out::line(text),
            Self::Stderr => {
                out::note(text);
                Ok(())
            }
        }
    }

    fn live(self) -> Option<LiveTransfer> {
        match self {
            Self::Stdout if out::stdout_is_terminal() => Some(LiveTransfer::on_stdout()),
            Self::Stderr if out::stderr_is_terminal() => Some(LiveTransfer::on_stderr()),
            _ => None,
        }
    }
}

/// Shows the daemon's messages and ends with its error if there is one.
pub(crate) async fn progress(
    mut messages: JsonStream<ProgressMessage>,
    lines: Lines,
) -> anyhow::Result<()> {
    let mut live = lines.live();
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = message
            .error
            .or(message.error_detail.map(|detail| detail.message))
        {
            return Err(Failure::new(1, error).into());
        }
        if let Some(text) = message.stream {
            match &mut live {
                Some(live) => live.line(text.trim_end_matches('\n'))?,
                None => lines.show(text.trim_end_matches('\n'))?,
            }
            continue;
        }
        let Some(status) = message.status else {
            continue;
        };
        let detail = message.progress_detail.unwrap_or_default();
        match (&mut live, message.id) {
            (Some(live), None) => live.line(&status)?,
            (Some(live), Some(id)) => live.step(&id, &status, &detail),
            // Steps of a transfer have lengths; only their beginnings and ends are lines.
            (None, _) if detail.total.is_some() || detail.current.is_some() => {}
            (None, Some(id)) => lines.show(&format!("{id}: {status}"))?,
            (None, None) => lines.show(&status)?,
        }
    }
    Ok(())
}

/// Repository and tag or digest.
pub(crate) fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    let (name, tag) = split_tag(image);
    (name, tag.unwrap_or("latest"))
}

/// Repository and tag, if there is one.
pub(crate) fn split_tag(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    }
}

/// The name with the tag that is meant when none is given.
pub(crate) fn with_tag(image: &str) -> String {
    match split(image) {
        (name, digest) if digest.contains(':') => format!("{name}@{digest}"),
        (name, tag) => format!("{name}:{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_tags() {
        for (image, full) in [
            ("busybox", "busybox:latest"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("host:5000/a:1", "host:5000/a:1"),
            ("a@sha256:12", "a@sha256:12"),
        ] {
            assert_eq!(with_tag(image), full);
        }
    }
}
