//! Fetching images, and the progress the daemon reports.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use agent_api::client::JsonStream;
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
    if args.all_tags {
        return Err(Failure::new(1, "--all-tags is not supported: name the tags to pull").into());
    }
    pull(
        session.client().await?,
        &args.image,
        args.platform.as_deref(),
        args.quiet,
    )
    .await?;
    out::line(with_tag(&args.image))?;
    Ok(0)
}

/// Fetches an image, showing progress on stderr.
pub(crate) async fn pull(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> anyhow::Result<()> {
    let (repository, tag) = split(image);
    let messages = client.pull_image(repository, tag, platform).await?;
    progress(messages, quiet, |line| {
        out::note(line);
        Ok(())
    })
    .await
}

/// Shows the daemon's messages as plain lines and ends with its error if there is one.
pub(crate) async fn progress(
    mut messages: JsonStream<ProgressMessage>,
    quiet: bool,
    mut show: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = message
            .error
            .or(message.error_detail.map(|detail| detail.message))
        {
            return Err(Failure::new(1, error).into());
        }
        if quiet {
            continue;
        }
        if let Some(text) = message.stream {
            show(text.trim_end_matches('\n'))?;
        } else if let (Some(status), None) = (
            message.status,
            message.progress_detail.and_then(|detail| detail.total),
        ) {
            // Steps of a transfer have totals; only their beginnings and ends are lines.
            show(
                &message
                    .id
                    .map(|id| format!("{id}: {status}"))
                    .unwrap_or(status),
            )?;
        }
    }
    Ok(())
}

/// Repository and tag or digest.
fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
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
