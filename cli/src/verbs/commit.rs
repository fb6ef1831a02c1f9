//! `commit`: an image out of a container's changes.

use crate::connect::Session;
use crate::failure::Outcome;
use crate::out;
use agent_api::client::CommitOptions;
use clap::Args;

/// Create a new image from a container's changes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster commit -m 'with curl' -c 'CMD [\"curl\"]' tools example/curl:1")]
pub(crate) struct CommitArgs {
    /// Author (e.g., "Ann Smith <ann@example.org>")
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    container: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) async fn run(session: &Session, args: CommitArgs) -> Outcome {
    let (repository, tag) = match args.reference.as_deref() {
        None => (None, None),
        Some(reference) => {
            let (repository, tag) = split_tag(reference);
            (Some(repository.to_owned()), tag.map(str::to_owned))
        }
    };
    let options = CommitOptions {
        repository,
        tag,
        comment: args.message,
        author: args.author,
        changes: args.change,
        pause: args.pause,
    };
    let client = session.client().await?;
    let made = client.commit_container(&args.container, &options).await?;
    out::line(made.id)?;
    Ok(0)
}

/// A colon behind the last slash begins the tag; before it, it is a port's.
fn split_tag(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (reference, expected) in [
            ("a", ("a", None)),
            ("a/b:1", ("a/b", Some("1"))),
            ("host:5000/a", ("host:5000/a", None)),
            ("host:5000/a:1", ("host:5000/a", Some("1"))),
        ] {
            assert_eq!(split_tag(reference), expected);
        }
    }
}
