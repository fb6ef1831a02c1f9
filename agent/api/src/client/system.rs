//! The daemon itself: ping, version, info, events, disk usage; and any object as the daemon describes it.

use super::error::{ClientError, Result};
use super::images::platform_json;
use super::request::{Query, segment};
use super::stream::JsonStream;
use super::{Client, MAX_REPLY, empty};
use crate::types::{
    DiskExplanation, DiskUsage, EventMessage, Filters, PrunePreview, SystemInfo, VersionResponse,
};
use agent_build::plan::Platform;
use http::{Method, Request, header};

/// What `_ping` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Newest API version of the daemon.
    pub api_version: (u16, u16),
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventsOptions {
    /// From this time on: seconds since the epoch with an optional fraction.
    pub since: Option<String>,
    /// Up to this time; `None` goes on without end.
    pub until: Option<String>,
    /// See the API reference.
    pub filters: Filters,
}

/// A kind of object that can be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A node of the cluster.
    Node,
    /// A service.
    Service,
    /// A task of a service.
    Task,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

impl Client {
    /// Asks whether the daemon is there, without a version in the path.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when it is not.
    pub async fn ping(&self) -> Result<Ping> {
        let request = Request::builder()
            .method(Method::GET)
            .uri("/_ping")
            .header(header::HOST, "localhost")
            .body(empty())
            .expect("a constant request is valid");
        let exchange = self.send(request).await?;
        let text = exchange
            .response
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        self.inner.transport.collect(exchange, MAX_REPLY).await?;
        let api_version = parse_version(&text).ok_or_else(|| ClientError::Protocol {
            path: "/_ping".to_owned(),
            reason: format!("{text:?} as its API version: is this an engine's socket?"),
        })?;
        Ok(Ping { api_version })
    }

    /// Versions of the daemon and its parts.
    ///
    /// # Errors
    /// Of the request.
    pub async fn version(&self) -> Result<VersionResponse> {
        self.get("/version", &Query::new()).await
    }

    /// What the daemon is and can do.
    ///
    /// # Errors
    /// Of the request.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.get("/info", &Query::new()).await
    }

    /// Disk usage of images, containers and volumes.
    ///
    /// # Errors
    /// Of the request.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        self.get("/system/df", &Query::new()).await
    }

    /// What pruning containers, networks, images and, if asked for, anonymous volumes would remove; 404 from other engines.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn preview_prune(
        &self,
        filters: &Filters,
        all_images: bool,
        volumes: bool,
    ) -> Result<PrunePreview> {
        let query = Query::new()
            .filters(filters)
            .flag("all", all_images)
            .flag("volumes", volumes);
        self.get("/system/prune", &query).await
    }

    /// Every byte below the data root and whose it is; 404 from other engines.
    ///
    /// # Errors
    /// Of the request.
    pub async fn explain_disk(&self) -> Result<DiskExplanation> {
        self.get("/system/df/explain", &Query::new()).await
    }

    /// Events as they happen; once this returns, none is missed.
    ///
    /// # Errors
    /// 400 for a filter or a time that cannot be read.
    pub async fn events(&self, options: &EventsOptions) -> Result<JsonStream<EventMessage>> {
        let query = Query::new()
            .maybe("since", options.since.as_deref())
            .maybe("until", options.until.as_deref())
            .filters(&options.filters);
        let request = self
            .request(Method::GET, "/events", &query, empty())
            .await?;
        Ok(JsonStream::new(self.stream(request).await?, "/events"))
    }

    /// An object exactly as the daemon describes it, fields unknown to the types included.
    ///
    /// # Errors
    /// 404 when there is none, or an image is not for the platform that is given.
    pub async fn inspect_raw(
        &self,
        kind: ObjectKind,
        name: &str,
        size: bool,
        platform: Option<&Platform>,
    ) -> Result<serde_json::Value> {
        let name = segment(name);
        let (path, query) = match kind {
            ObjectKind::Container => (
                format!("/containers/{name}/json"),
                Query::new().flag("size", size),
            ),
            ObjectKind::Image => (
                format!("/images/{name}/json"),
                Query::new().maybe("platform", platform.map(platform_json)),
            ),
            ObjectKind::Network => (format!("/networks/{name}"), Query::new()),
            ObjectKind::Volume => (format!("/volumes/{name}"), Query::new()),
            ObjectKind::Node => (format!("/nodes/{name}"), Query::new()),
            // As Docker's own client: with what the managers take for granted written out.
            ObjectKind::Service => (
                format!("/services/{name}"),
                Query::new().with("insertDefaults", true),
            ),
            ObjectKind::Task => (format!("/tasks/{name}"), Query::new()),
            ObjectKind::Secret => (format!("/secrets/{name}"), Query::new()),
            ObjectKind::Config => (format!("/configs/{name}"), Query::new()),
        };
        self.get(&path, &query).await
    }
}

/// Reads `1.51`.
fn parse_version(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(parse_version("1.51"), Some((1, 51)));
        for bad in ["", "1", "1.x", "v1.5"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }
}
