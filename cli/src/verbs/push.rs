//! Sending images to registries. Source: docker/cli `cli/command/image/push.go`.

use super::pull::{Lines, auth, progress, split_tag};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::platform;
use crate::out;
use agent_api::client::credentials::registry_of;
use clap::Args;

/// Upload an image to a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster push registry.example.com/team/app:1.2")]
pub(crate) struct PushArgs {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Skip image signing (images are not signed; accepted for scripts)
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    disable_content_trust: Option<bool>,
    /// Push a platform-specific manifest as a single-platform image to the registry
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Image to send
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

pub(crate) async fn run(session: &Session, args: PushArgs) -> Outcome {
    if args.disable_content_trust == Some(false) {
        let reason = "--disable-content-trust=false is not supported: images are not signed";
        return Err(Failure::new(1, reason).into());
    }
    let platform = platform::platform(args.platform.as_deref())?;
    let (repository, tag) = split_tag(&args.image);
    let tag = match (args.all_tags, tag) {
        (true, Some(_)) => {
            return Err(Failure::new(1, "tag can't be used with --all-tags/-a").into());
        }
        (true, None) => "",
        (false, Some(tag)) => tag,
        (false, None) => {
            if !args.quiet {
                out::line("Using default tag: latest")?;
            }
            "latest"
        }
    };
    let auth = auth(&args.image).await?;
    let client = session.client().await?;
    let messages = client
        .push_image(repository, tag, platform.as_ref(), auth.as_ref())
        .await?;
    progress(messages, Lines::of(args.quiet)).await?;
    if args.quiet {
        out::line(match tag {
            "" => full_name(repository),
            tag => format!("{}:{tag}", full_name(repository)),
        })?;
    }
    Ok(0)
}

/// With the registry and the path that a short name leaves out.
fn full_name(repository: &str) -> String {
    match (registry_of(repository), repository.contains('/')) {
        (Some(_), _) => repository.to_owned(),
        (None, true) => format!("docker.io/{repository}"),
        (None, false) => format!("docker.io/library/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_pushes_print_the_whole_name() {
        for (name, full) in [
            ("app", "docker.io/library/app"),
            ("me/app", "docker.io/me/app"),
            ("host:5000/app", "host:5000/app"),
            ("Build/app", "Build/app"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }
}
