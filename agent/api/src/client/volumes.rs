//! Volumes.

use super::Client;
use super::error::Result;
use super::request::{Query, segment};
use crate::types::{Filters, PruneResponse, Volume, VolumeCreateRequest, VolumeListResponse};
use http::Method;

fn of(name: &str) -> String {
    format!("/volumes/{}", segment(name))
}

impl Client {
    /// Lists volumes.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<VolumeListResponse> {
        self.get("/volumes", &Query::new().filters(filters)).await
    }

    /// Everything about one volume.
    ///
    /// # Errors
    /// 404 when there is none of this name.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.get(&of(name), &Query::new()).await
    }

    /// Makes a volume; one that exists with the same driver is left as it is.
    ///
    /// # Errors
    /// 400 for a name or an option that is not supported, 409 when the name is taken by another driver.
    pub async fn create_volume(&self, request: &VolumeCreateRequest) -> Result<Volume> {
        self.post("/volumes/create", &Query::new(), request).await
    }

    /// Removes a volume and its data.
    ///
    /// # Errors
    /// 409 while a container uses it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        self.act(
            Method::DELETE,
            &of(name),
            &Query::new().flag("force", force),
        )
        .await
        .map(drop)
    }

    /// Removes volumes that no container uses; anonymous ones only, unless the filter `all` says otherwise.
    ///
    /// # Errors
    /// 409 while another prune is at work.
    pub async fn prune_volumes(&self, filters: &Filters) -> Result<PruneResponse> {
        self.post("/volumes/prune", &Query::new().filters(filters), &())
            .await
    }
}
