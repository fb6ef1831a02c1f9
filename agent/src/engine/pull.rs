//! The facade's operations that read from a registry: pulling an image, asking about one, searching, checking a user.

use std::sync::Arc;

use agent_build::plan::Platform;
use agent_image::{
    Credentials, Description, ImageError, PullRequest, Reference, Registry, RegistryConfig,
    RegistryError, SearchFilter, SearchResult,
};
use futures_util::stream::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::images::{PROGRESS_QUEUE, ProgressStream, translate};
use super::shared::{Shared, blocking};
use crate::error::{Error, Result};

impl Engine {
    /// Pulls an image. Dropping the stream cancels the pull, which then leaves nothing behind but the beginnings of large
    /// layers, with which the next one goes on.
    pub fn pull_image(
        &self,
        reference: &str,
        platform: Option<Platform>,
        credentials: Option<Credentials>,
    ) -> Result<ProgressStream> {
        let request = PullRequest {
            reference: parse(reference)?.with_default_tag(),
            platform,
            credentials,
        };
        Ok(self.exchange(move |shared, cancel, sink| {
            let (images, registries) = (&shared.images, &shared.registries);
            images.pull(registries, &request, cancel, sink)?;
            shared.image_moved(&request.reference, "pull");
            Ok(())
        }))
    }

    /// Pulls all tags of a repository, one after the other; cancelled as [`Engine::pull_image`] is.
    pub fn pull_all_tags(
        &self,
        repository: &str,
        platform: Option<Platform>,
        credentials: Option<Credentials>,
    ) -> Result<ProgressStream> {
        let repository = parse(repository)?.name_only();
        Ok(self.exchange(move |shared, cancel, sink| {
            let registries = &shared.registries;
            let tags = registries
                .tags(&repository, credentials.as_ref(), cancel)
                .map_err(ImageError::from)?;
            // The outcome is told once for all of them.
            let quiet = |message: agent_image::ProgressMessage| {
                let status = message.status.as_deref().unwrap_or_default();
                if !status.starts_with("Status: ") {
                    sink(message);
                }
            };
            let mut newer = false;
            for tag in tags {
                let reference = repository
                    .with_tag(&tag)
                    .map_err(|error| Error::System(format!("tag {tag:?}: {error}")))?;
                let request = PullRequest {
                    reference,
                    platform: platform.clone(),
                    credentials: credentials.clone(),
                };
                newer |= shared
                    .images
                    .pull(registries, &request, cancel, &quiet)?
                    .newer;
                shared.image_moved(&request.reference, "pull");
            }
            let outcome = match newer {
                true => "Downloaded newer image for",
                false => "Image is up to date for",
            };
            let name = repository.familiar_repository();
            sink(agent_image::ProgressMessage::status(format!(
                "Status: {outcome} {name}"
            )));
            Ok(())
        }))
    }

    /// Runs a long exchange with a registry on a thread of its own. Dropping the stream cancels it.
    pub(super) fn exchange(
        &self,
        work: impl FnOnce(
            &Shared,
            &CancellationToken,
            &(dyn Fn(agent_image::ProgressMessage) + Sync),
        ) -> Result<()>
        + Send
        + 'static,
    ) -> ProgressStream {
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        let shared = Arc::clone(&self.shared);
        let cancel = shared.closing.child_token();
        let guard = cancel.clone().drop_guard();
        self.shared.tasks.spawn_blocking(move || {
            let sink = |message: agent_image::ProgressMessage| {
                let _ = sender.blocking_send(Ok(translate(message)));
            };
            if let Err(error) = work(&shared, &cancel, &sink) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        futures_util::stream::unfold((receiver, guard), |(mut receiver, guard)| async {
            let message = receiver.recv().await?;
            Some((message, (receiver, guard)))
        })
        .boxed()
    }

    /// What a registry says about an image, without fetching it.
    pub async fn describe_image(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Description> {
        let reference = parse(reference)?.with_default_tag();
        self.ask(move |registries, cancel| {
            registries.describe(&reference, credentials.as_ref(), cancel)
        })
        .await
    }

    /// Proves that a registry knows a user. Returns a token that stands for the password from then on; empty where the
    /// registry gives none out.
    pub async fn log_in(&self, registry: &str, credentials: Credentials) -> Result<String> {
        let registry = registry.to_owned();
        self.ask(move |registries, cancel| registries.login(&registry, credentials, cancel))
            .await
    }

    /// Searches a registry for images.
    pub async fn search_images(
        &self,
        term: String,
        limit: u32,
        filter: SearchFilter,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>> {
        self.ask(move |registries, cancel| {
            registries.search(&term, limit, &filter, credentials.as_ref(), cancel)
        })
        .await
    }

    /// One question to a registry. Dropping the future cancels it.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Registry, &CancellationToken) -> std::result::Result<T, RegistryError>
        + Send
        + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let cancel = shared.closing.child_token();
        let _guard = cancel.clone().drop_guard();
        blocking(move || {
            let answer = question(&shared.registries, &cancel);
            Ok(answer.map_err(ImageError::from)?)
        })
        .await
    }
}

pub(super) fn parse(reference: &str) -> Result<Reference> {
    Reference::parse(reference).map_err(|error| Error::invalid(error.to_string()))
}

/// `RegistryConfig` of `info`, as moby `daemon/pkg/registry/config.go` fills it.
pub(super) fn registry_config(config: &RegistryConfig) -> Value {
    let (networks, names): (Vec<&String>, Vec<&String>) = config
        .insecure
        .iter()
        .partition(|name| name.parse::<ipnet::IpNet>().is_ok());
    let index = |name: &str, mirrors: &[String], secure: bool, official: bool| json!({ "Name": name, "Mirrors": mirrors, "Secure": secure, "Official": official });
    let mut indexes = serde_json::Map::new();
    let hub = "docker.io";
    indexes.insert(hub.to_owned(), index(hub, &config.mirrors, true, true));
    for name in names {
        indexes.insert(name.clone(), index(name, &[], false, false));
    }
    let mut cidrs: Vec<&str> = vec!["::1/128", "127.0.0.0/8"];
    cidrs.extend(networks.into_iter().map(String::as_str));
    let mirrors = Some(&config.mirrors).filter(|mirrors| !mirrors.is_empty());
    json!({
        "IndexConfigs": indexes, "InsecureRegistryCIDRs": cidrs, "Mirrors": mirrors,
    })
}
