//! Fetching images of services, several at once: what `pull` does, and what `up` begins with.
//! Source: docker/compose `pkg/compose/pull.go`.

use crate::failure::Failure;
use crate::render::transfers::{Standing, Transfers};
use crate::verbs::pull::{auth, split};
use agent_api::client::{ClientError, JsonStream};
use agent_api::{Client, ProgressMessage};
use compose_model::{Project, PullPolicy};
use futures_util::StreamExt as _;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// One image to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) image: String,
    pub(super) platform: Option<String>,
    /// Failing is no end of the command: the image can be built.
    pub(super) buildable: bool,
}

/// How images are fetched.
pub(super) struct Fetch<'a> {
    pub(super) client: &'a Client,
    /// So many at once.
    pub(super) parallel: usize,
    /// Nothing is said of layers.
    pub(super) quiet: bool,
    pub(super) display: &'a RefCell<Transfers>,
}

/// What could not be fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) failures: Vec<anyhow::Error>,
    /// Services whose images can be built instead.
    pub(super) must_build: Vec<String>,
}

impl Fetch<'_> {
    /// Fetches the images of services. The first failure that no build can make up for ends the others, unless it is to
    /// go on.
    pub(super) async fn all(&self, pulls: &[(String, Pull)], go_on: bool) -> Fetched {
        let mut fetched = Fetched::default();
        let mut running: BTreeSet<&str> = pulls.iter().map(|(name, _)| name.as_str()).collect();
        let mut work = futures_util::stream::iter(pulls)
            .map(|(service, pull)| async move { (service, pull, self.one(service, pull).await) })
            .buffer_unordered(self.parallel.max(1));
        while let Some((service, pull, done)) = work.next().await {
            running.remove(service.as_str());
            let Err(error) = done else {
                self.say(service, Standing::Done, "Pulled", "");
                continue;
            };
            let (standing, text) = match pull.buildable {
                true => (Standing::Warning, "Warning"),
                false => (Standing::Error, "Error"),
            };
            self.say(service, standing, text, &format!("{error:#}"));
            if pull.buildable {
                fetched.must_build.push(service.clone());
            }
            fetched.failures.push(error);
            if !go_on && !pull.buildable {
                break;
            }
        }
        // Those that are under way end with their connections.
        drop(work);
        for service in running {
            self.say(service, Standing::Error, "Interrupted", "");
        }
        fetched
    }

    async fn one(&self, service: &str, pull: &Pull) -> anyhow::Result<()> {
        self.say(service, Standing::Working, "Pulling", "");
        let (repository, tag) = split(&pull.image);
        let auth = auth(&pull.image).await?;
        let platform = pull.platform.as_deref();
        let messages = self
            .client
            .pull_image(repository, tag, platform, auth.as_ref())
            .await?;
        follow(messages, service, self.quiet, self.display).await
    }

    fn say(&self, name: &str, standing: Standing, text: &str, detail: &str) {
        self.display.borrow_mut().say(name, standing, text, detail);
    }
}

/// Shows what the daemon says, and ends with its error if there is one.
pub(super) async fn follow(
    mut messages: JsonStream<ProgressMessage>,
    name: &str,
    quiet: bool,
    display: &RefCell<Transfers>,
) -> anyhow::Result<()> {
    while let Some(message) = messages.next().await {
        let message = message?;
        let detail = message.error_detail.as_ref();
        let error = message
            .error
            .as_ref()
            .or(detail.map(|detail| &detail.message));
        if let Some(error) = error {
            return Err(Failure::new(1, error.clone()).into());
        }
        if !quiet {
            display.borrow_mut().layer(name, &message);
        }
    }
    Ok(())
}

/// The images that are to be fetched before services start: `policy` is the command's, empty without one. A service that
/// is built keeps its image to itself, and an image that several have is fetched for the first.
pub(super) async fn wanted(
    client: &Client,
    project: &Project,
    policy: &str,
) -> Vec<(String, Pull)> {
    let mut pulls: Vec<(String, Pull)> = Vec::new();
    if policy == "never" {
        return pulls;
    }
    let mut seen = BTreeSet::new();
    for (name, service) in &project.services {
        let image = service.image_or_default(&project.name, name);
        if service.build.is_some() || !seen.insert(image.clone()) {
            continue;
        }
        if service.pull_policy == Some(PullPolicy::Never) && policy != "always" {
            continue;
        }
        let own = service.pull_policy == Some(PullPolicy::Always);
        let missing = match policy {
            "always" => true,
            "" | "policy" if own => true,
            _ => matches!(
                client.inspect_image(&image).await,
                Err(ClientError::Api { status: 404, .. })
            ),
        };
        if missing {
            let pull = Pull {
                image,
                platform: service.platform.clone(),
                buildable: false,
            };
            pulls.push((name.clone(), pull));
        }
    }
    pulls
}
