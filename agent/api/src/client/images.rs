//! Images.

use super::error::Result;
use super::request::{Query, segment};
use super::stream::{ByteStream, JsonStream, bytes_of};
use super::transport::Body;
use super::{Client, empty};
use crate::types::{
    Filters, ImageDeleteItem, ImageHistoryItem, ImageInspect, ImageSummary, ProgressMessage,
    PruneResponse,
};
use agent_build::plan::Platform;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt, StreamBody};
use std::io;

/// What `GET /images/json` is to list.
#[derive(Debug, Clone, Default)]
pub struct ListImagesOptions {
    /// Also those that only other images are made of.
    pub all: bool,
    /// With digests.
    pub digests: bool,
    /// See the API reference.
    pub filters: Filters,
}

/// How to remove.
#[derive(Debug, Clone, Default)]
pub struct RemoveImageOptions {
    /// Also when stopped containers use it or it has several names.
    pub force: bool,
    /// Keep parents that have no name.
    pub no_prune: bool,
    /// Only these variants; the whole image when empty.
    pub platforms: Vec<Platform>,
}

/// What a file system tree becomes when it is imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the image, with or without a tag.
    pub reference: Option<String>,
    /// Comment of its history.
    pub message: Option<String>,
    /// Dockerfile instructions applied to its configuration.
    pub changes: Vec<String>,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
}

impl ImportOptions {
    fn query(&self, source: &str) -> Query {
        let query = Query::new()
            .with("fromSrc", source)
            .maybe("repo", self.reference.as_deref())
            .maybe("message", self.message.as_deref())
            .maybe("platform", self.platform.as_deref());
        let changes = self.changes.iter();
        changes.fold(query, |query, change| query.with("changes", change))
    }
}

fn of(name: &str, verb: &str) -> String {
    format!("/images/{}{verb}", segment(name))
}

/// A platform as the API has it in queries.
pub(super) fn platform_json(platform: &Platform) -> String {
    serde_json::to_string(platform).expect("JSON has a text")
}

impl Client {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn list_images(&self, options: &ListImagesOptions) -> Result<Vec<ImageSummary>> {
        let query = Query::new()
            .flag("all", options.all)
            .flag("digests", options.digests)
            .filters(&options.filters);
        self.get("/images/json", &query).await
    }

    /// Everything about one image.
    ///
    /// # Errors
    /// 404 when there is none of this name or id.
    pub async fn inspect_image(&self, name: &str) -> Result<ImageInspect> {
        self.get(&of(name, "/json"), &Query::new()).await
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// 404 when there is none of this name or id, or none for the platform.
    pub async fn image_history(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<ImageHistoryItem>> {
        let query = Query::new().maybe("platform", platform.map(platform_json));
        self.get(&of(name, "/history"), &query).await
    }

    /// Gives an image a further name.
    ///
    /// # Errors
    /// 404 without the image, 400 for a name that is none.
    pub async fn tag_image(&self, name: &str, repository: &str, tag: Option<&str>) -> Result<()> {
        let query = Query::new().with("repo", repository).maybe("tag", tag);
        self.act(Method::POST, &of(name, "/tag"), &query)
            .await
            .map(drop)
    }

    /// Takes a name off an image, and removes the image with its last one.
    ///
    /// # Errors
    /// 404 without the image, 409 when a container uses it.
    pub async fn remove_image(
        &self,
        name: &str,
        options: &RemoveImageOptions,
    ) -> Result<Vec<ImageDeleteItem>> {
        let mut query = Query::new()
            .flag("force", options.force)
            .flag("noprune", options.no_prune);
        for platform in &options.platforms {
            query = query.with("platforms", platform_json(platform));
        }
        let request = self
            .request(Method::DELETE, &of(name, ""), &query, empty())
            .await?;
        let (_, reply) = self.fetch(request).await?;
        super::decode("/images", &reply)
    }

    /// Loads the images of an archive (docker-archive or OCI layout, compressed or not); with a platform, those for it.
    ///
    /// # Errors
    /// Of the request; what is wrong with the archive comes as a message with `error`.
    pub async fn load_images(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        platform: Option<&Platform>,
        quiet: bool,
    ) -> Result<JsonStream<ProgressMessage>> {
        let query = Query::new()
            .with("quiet", u8::from(quiet))
            .maybe("platform", platform.map(platform_json));
        self.upload(Method::POST, "/images/load", &query, archive)
            .await
    }

    /// Makes an image of a root file system in a tar archive.
    ///
    /// # Errors
    /// Of the request; what is wrong with the archive comes as a message with `error`.
    pub async fn import_image(
        &self,
        options: &ImportOptions,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<JsonStream<ProgressMessage>> {
        self.upload(Method::POST, "/images/create", &options.query("-"), archive)
            .await
    }

    /// Images as one archive that is a docker-archive and an OCI layout; with a platform, their variants for it.
    ///
    /// # Errors
    /// 404 when one of them does not exist, or not for the platform.
    pub async fn save_images(
        &self,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<ByteStream> {
        let query = names
            .iter()
            .fold(Query::new(), |query, name| query.with("names", name))
            .maybe("platform", platform.map(platform_json));
        let request = self
            .request(Method::GET, "/images/get", &query, empty())
            .await?;
        Ok(bytes_of(self.stream(request).await?, "save"))
    }

    /// Makes an image of a root file system in a tar archive that the daemon downloads from `url`.
    ///
    /// # Errors
    /// Of the request or the address; what is wrong with the archive comes as a message with `error`.
    pub async fn import_image_from(
        &self,
        options: &ImportOptions,
        url: &str,
    ) -> Result<JsonStream<ProgressMessage>> {
        let path = "/images/create";
        let request = self
            .request(Method::POST, path, &options.query(url), empty())
            .await?;
        Ok(JsonStream::new(self.stream(request).await?, path))
    }

    /// Removes images that nothing uses.
    ///
    /// # Errors
    /// 409 while another prune is at work.
    pub async fn prune_images(&self, filters: &Filters) -> Result<PruneResponse> {
        self.post("/images/prune", &Query::new().filters(filters), &())
            .await
    }

    async fn upload(
        &self,
        method: Method,
        path: &'static str,
        query: &Query,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<JsonStream<ProgressMessage>> {
        let frames = futures_util::TryStreamExt::map_ok(archive, hyper::body::Frame::data);
        let body: Body = StreamBody::new(frames).boxed_unsync();
        let mut request = self.request(method, path, query, body).await?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-tar"),
        );
        Ok(JsonStream::new(self.stream(request).await?, path))
    }
}
