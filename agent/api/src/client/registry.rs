//! What needs a registry: pull, push, search, login, and asking about an image that is not here.

use super::credentials::Login;
use super::error::{ClientError, Result};
use super::images::platform_json;
use super::request::{Query, segment};
use super::stream::JsonStream;
use super::transport::Body;
use super::{Client, RegistryAuth, empty};
use crate::types::{DistributionInspect, Filters, ImageSearchResult, ProgressMessage};
use agent_build::plan::Platform;
use http::{HeaderValue, Method, Request};
use serde::Deserialize;

/// `{}`: nobody. Older daemons refuse a push without the header.
const NOBODY: &str = "e30=";

/// What a registry says to a user it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoginReply {
    /// `Login Succeeded`.
    pub status: String,
    /// Stands for the password from then on; empty where the registry gives none out.
    pub identity_token: String,
}

impl Client {
    /// Fetches an image from its registry; with an empty tag, all of the repository.
    ///
    /// # Errors
    /// Of the request; what fails later comes as a message with `error`.
    pub async fn pull_image(
        &self,
        repository: &str,
        tag: &str,
        platform: Option<&str>,
        auth: Option<&RegistryAuth>,
    ) -> Result<JsonStream<ProgressMessage>> {
        let path = "/images/create";
        let query = Query::new()
            .with("fromImage", repository)
            .with("tag", tag)
            .maybe("platform", platform);
        let mut request = self.request(Method::POST, path, &query, empty()).await?;
        identify(&mut request, path, auth)?;
        Ok(JsonStream::new(self.stream(request).await?, path))
    }

    /// Sends an image to its registry; with an empty tag, all of the repository; with a platform, its variant for that.
    ///
    /// # Errors
    /// Of the request; what fails later comes as a message with `error`.
    pub async fn push_image(
        &self,
        repository: &str,
        tag: &str,
        platform: Option<&Platform>,
        auth: Option<&RegistryAuth>,
    ) -> Result<JsonStream<ProgressMessage>> {
        let path = format!("/images/{}/push", segment(repository));
        let query = Query::new()
            .with("tag", tag)
            .maybe("platform", platform.map(platform_json));
        let mut request = self.request(Method::POST, &path, &query, empty()).await?;
        let nobody = RegistryAuth(NOBODY.to_owned());
        identify(&mut request, &path, Some(auth.unwrap_or(&nobody)))?;
        Ok(JsonStream::new(self.stream(request).await?, "push"))
    }

    /// Images that a registry finds by a word: `term`, or `host[:port]/term`.
    ///
    /// # Errors
    /// 400 for a filter or limit that does not exist; what the registry says.
    pub async fn search_images(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &Filters,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<ImageSearchResult>> {
        let path = "/images/search";
        let query = Query::new()
            .with("term", term)
            .maybe("limit", limit.map(|limit| limit.to_string()).as_deref())
            .filters(filters);
        let mut request = self.request(Method::GET, path, &query, empty()).await?;
        identify(&mut request, path, auth)?;
        let (_, reply) = self.fetch(request).await?;
        super::decode(path, &reply)
    }

    /// What the name of an image means where it comes from: its digest, and the platforms it is made for.
    ///
    /// # Errors
    /// 404 when nobody knows it, 401 or 403 when nobody is allowed to say.
    pub async fn inspect_distribution(
        &self,
        name: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<DistributionInspect> {
        let path = format!("/distribution/{}/json", segment(name));
        let query = Query::new();
        let mut request = self.request(Method::GET, &path, &query, empty()).await?;
        identify(&mut request, &path, auth)?;
        let (_, reply) = self.fetch(request).await?;
        super::decode(&path, &reply)
    }

    /// Proves to a registry who somebody is.
    ///
    /// # Errors
    /// 401 when the registry does not believe it, 500 when it cannot be reached.
    pub async fn log_in(&self, login: &Login) -> Result<LoginReply> {
        self.post("/auth", &Query::new(), &login.to_json()).await
    }
}

/// Says who asks, in a header that no log shows.
pub(super) fn identify(
    request: &mut Request<Body>,
    path: &str,
    auth: Option<&RegistryAuth>,
) -> Result<()> {
    if let Some(RegistryAuth(auth)) = auth {
        let mut value = HeaderValue::try_from(auth).map_err(|error| ClientError::Request {
            path: path.to_owned(),
            source: error.into(),
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert("x-registry-auth", value);
    }
    Ok(())
}
