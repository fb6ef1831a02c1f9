//! Images from this daemon to another one, without a registry. What the other one has already is not sent, and what a
//! broken connection left there is gone on with.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::transfer::LiveTransfer;
use agent_api::client::{ClientError, CopyEvent, Host};
use agent_api::{Client, ProgressDetail};
use clap::Args;
use std::collections::HashSet;
use std::time::Duration;

/// Tries of one image, and the pause before the first of them that follows another; it doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Copy images to another host that runs muster, sending only the layers it lacks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster image copy app:1.2 ssh://me@there
  muster image copy app:1.2 redis muster://there:2376")]
pub(crate) struct CopyArgs {
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Images, and where they go: ssh://USER@HOST:PORT, muster://HOST:PORT (TLS), tcp://host:port or unix:///path
    #[arg(required = true, num_args = 2.., value_names = ["IMAGE", "HOST"])]
    images_and_host: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: CopyArgs) -> Outcome {
    let (host, images) = args
        .images_and_host
        .split_last()
        .expect("the command line requires two words");
    if !host.contains("://") {
        let reason = format!("{host:?} is no host: the last word says where, such as ssh://host");
        return Err(Failure::new(1, reason).into());
    }
    let host = Host::parse(host)?;
    let from = session.client().await?;
    let to = Client::at(host.clone());
    to.api_version().await?;
    for image in images {
        let found = from.inspect_image(image).await?;
        let name = name_of(image, &found.id, &found.repo_tags)?;
        let copied = Copy {
            from,
            to: &to,
            name: &name,
            quiet: args.quiet,
        };
        let id = copied
            .run(image)
            .await
            .map_err(|error| elsewhere(error, &host, &name))?;
        out::line(match args.quiet {
            true => id,
            false => format!("{name}: {id} is at {host}"),
        })?;
    }
    Ok(0)
}

/// What the image is to be called there: as it was named. An id is no name, and choosing one of the image's would take it
/// away from whatever has it there.
fn name_of(image: &str, id: &str, tags: &[String]) -> Result<String, Failure> {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    let by_id = id.starts_with(image) || hex.starts_with(image);
    let named = tags.iter().any(|tag| {
        let short = tag.strip_suffix(":latest").unwrap_or(tag);
        tag == image || short == image
    });
    if named || !by_id {
        return Ok(super::pull::with_tag(image));
    }
    let reason = match tags {
        [] => "the image has none: give it one with \"muster tag\"".to_owned(),
        tags => format!("copy the image as {}", tags.join(" or ")),
    };
    Err(Failure::new(
        1,
        format!("{image} is an id, and what is copied needs a name: {reason}"),
    ))
}

/// A daemon that knows nothing of copies is another's.
fn elsewhere(error: anyhow::Error, host: &Host, name: &str) -> anyhow::Error {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Api {
            status: 404,
            message,
        }) if message.contains("page not found") => {
            let reason = format!(
                "{host} is no muster daemon: \"muster save {name} | docker -H {host} load\" is for others"
            );
            Failure::new(1, reason).into()
        }
        _ => error,
    }
}

/// One image on its way.
struct Copy<'a> {
    from: &'a Client,
    to: &'a Client,
    name: &'a str,
    quiet: bool,
}

impl Copy<'_> {
    async fn run(&self, image: &str) -> anyhow::Result<String> {
        let offer = self.from.image_offer(image).await?;
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let mut view = View::new(self.quiet);
            let copied = self
                .from
                .copy_image(&offer, self.to, self.name, |event| view.show(event))
                .await;
            drop(view);
            match copied {
                Ok(id) => return Ok(id),
                // What has arrived is there: the next try goes on with it.
                Err(error @ (ClientError::Transport { .. } | ClientError::Unreachable { .. }))
                    if tries < TRIES =>
                {
                    out::note(format!("the connection broke, trying again: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Live lines on a terminal, one line per blob elsewhere.
struct View {
    live: Option<LiveTransfer>,
    quiet: bool,
    begun: HashSet<String>,
}

impl View {
    fn new(quiet: bool) -> Self {
        let terminal = out::stdout_is_terminal() && !quiet;
        Self {
            live: terminal.then(LiveTransfer::on_stdout),
            quiet,
            begun: HashSet::new(),
        }
    }

    fn show(&mut self, event: CopyEvent) {
        if self.quiet {
            return;
        }
        let (digest, status, detail) = match &event {
            CopyEvent::Moved {
                digest,
                current,
                total,
            } => {
                let number = |bytes: &u64| i64::try_from(*bytes).ok();
                let detail = ProgressDetail {
                    current: number(current),
                    total: number(total),
                };
                (digest, "Copying", detail)
            }
            CopyEvent::Arrived { digest } => (digest, "Copied", ProgressDetail::default()),
        };
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let short = &hex[..hex.len().min(12)];
        match &mut self.live {
            Some(live) => live.step(short, status, &detail),
            None => {
                if self.begun.insert(format!("{short}: {status}")) {
                    // A closed pipe must not stop the copy.
                    let _ = out::line(format!("{short}: {status}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_what_the_user_calls_it() {
        let id = "sha256:771b00";
        let tags = ["app:latest".to_owned(), "prod:1".to_owned()];
        for (image, name) in [("app", "app:latest"), ("prod:1", "prod:1")] {
            assert_eq!(name_of(image, id, &tags).unwrap(), name);
        }
        for image in [id, "771b", "sha256:771b"] {
            let told = name_of(image, id, &tags).unwrap_err().message;
            assert!(told.contains("app:latest or prod:1"), "{told}");
            assert!(
                name_of(image, id, &[])
                    .unwrap_err()
                    .message
                    .contains("muster tag")
            );
        }
        // A name that looks like the beginning of an id.
        let tags = ["771b:latest".to_owned()];
        assert_eq!(name_of("771b", id, &tags).unwrap(), "771b:latest");
    }
}
