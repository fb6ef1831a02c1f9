//! The facade's operations that need a registry: pulling an image, asking about one, checking a user.

use std::sync::Arc;

use agent_image::{Credentials, Description, ImageError, PullRequest, Reference, RegistryConfig};
use futures_util::stream::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Engine;
use super::images::{PROGRESS_QUEUE, ProgressStream, translate};
use super::shared::blocking;
use crate::error::{Error, Result};

impl Engine {
    /// Pulls an image. Dropping the stream cancels the pull, which then leaves nothing behind.
    pub fn pull_image(
        &self,
        reference: &str,
        platform: Option<String>,
        credentials: Option<Credentials>,
    ) -> Result<ProgressStream> {
        let request = PullRequest {
            reference: parse(reference)?.with_default_tag(),
            platform,
            credentials,
        };
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        let shared = Arc::clone(&self.shared);
        let cancel = shared.closing.child_token();
        let guard = cancel.clone().drop_guard();
        self.shared.tasks.spawn_blocking(move || {
            let sink = |message: agent_image::ProgressMessage| {
                let _ = sender.blocking_send(Ok(translate(message)));
            };
            let images = &shared.images;
            match images.pull(&shared.registries, &request, &cancel, &sink) {
                Ok(_) => {
                    let name = request.reference.familiar();
                    shared.events.image(&name, &name, "pull");
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error.into()));
                }
            }
        });
        let stream =
            futures_util::stream::unfold((receiver, guard), |(mut receiver, guard)| async {
                let message = receiver.recv().await?;
                Some((message, (receiver, guard)))
            });
        Ok(stream.boxed())
    }

    /// What a registry says about an image, without fetching it.
    pub async fn describe_image(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Description> {
        let reference = parse(reference)?.with_default_tag();
        let shared = Arc::clone(&self.shared);
        let cancel = shared.closing.child_token();
        let guard = cancel.clone().drop_guard();
        let described = blocking(move || {
            let registries = &shared.registries;
            let described = registries.describe(&reference, credentials.as_ref(), &cancel);
            Ok(described.map_err(ImageError::from)?)
        })
        .await;
        drop(guard);
        described
    }

    /// Proves that a registry knows a user.
    pub async fn log_in(&self, registry: &str, credentials: Credentials) -> Result<()> {
        let (shared, registry) = (Arc::clone(&self.shared), registry.to_owned());
        let cancel = shared.closing.child_token();
        let guard = cancel.clone().drop_guard();
        let outcome = blocking(move || {
            let outcome = shared.registries.login(&registry, credentials, &cancel);
            Ok(outcome.map_err(ImageError::from)?)
        })
        .await;
        drop(guard);
        outcome
    }
}

fn parse(reference: &str) -> Result<Reference> {
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
