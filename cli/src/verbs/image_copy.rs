//! Images from this daemon to another one, without a registry. What the other one has already is not sent, and what a
//! broken connection left there is gone on with.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::transfer::LiveTransfer;
use agent_api::client::{ClientError, CopyEvent, Host};
use agent_api::{Client, ProgressDetail};
use anyhow::Context as _;
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
        let name = name_of(from, image).await?;
        let copied = Copy {
            from,
            to: &to,
            name: &name,
            quiet: args.quiet,
        };
        let id = copied.run(image).await?;
        out::line(match args.quiet {
            true => id,
            false => format!("{name}: {id} is at {host}"),
        })?;
    }
    Ok(0)
}

/// What the image is to be called there: as it was named, or as it is called here when an id was given.
async fn name_of(from: &Client, image: &str) -> anyhow::Result<String> {
    let found = from.inspect_image(image).await?;
    let hex = found.id.strip_prefix("sha256:").unwrap_or(&found.id);
    let by_id = found.id.starts_with(image) || hex.starts_with(image);
    let named = found.repo_tags.iter().any(|tag| {
        let short = tag.strip_suffix(":latest").unwrap_or(tag);
        tag == image || short == image
    });
    if named || !by_id {
        return Ok(super::pull::with_tag(image));
    }
    let first = found.repo_tags.first();
    first.cloned().with_context(|| {
        format!("{image} has no name: give it one with \"muster tag\" and copy it by that")
    })
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
