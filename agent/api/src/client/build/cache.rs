//! The build cache: what is in it is told by [`Client::disk_usage`], what is taken from it is said here.

use super::super::error::Result;
use super::super::request::Query;
use super::super::{Client, decode, empty};
use crate::Filters;
use crate::types::build::BuildPruneResponse;

/// What to take from the build cache. Limits are bytes; absent ones do not limit.
#[derive(Debug, Clone, Default)]
pub struct PruneBuildsOptions {
    /// Also what images and other records need.
    pub all: bool,
    /// What is kept at least.
    pub reserved_space: Option<i64>,
    /// What is kept at most.
    pub max_used_space: Option<i64>,
    /// What is to be free on the disk.
    pub min_free_space: Option<i64>,
    /// See the API reference.
    pub filters: Filters,
}

impl Client {
    /// Takes records from the build cache that nothing uses.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn prune_builds(&self, options: &PruneBuildsOptions) -> Result<BuildPruneResponse> {
        let query = Query::new()
            .flag("all", options.all)
            // Its name up to API 1.47.
            .maybe("keep-storage", options.reserved_space)
            .maybe("reserved-space", options.reserved_space)
            .maybe("max-used-space", options.max_used_space)
            .maybe("min-free-space", options.min_free_space)
            .filters(&options.filters);
        let request = self
            .request(http::Method::POST, "/build/prune", &query, empty())
            .await?;
        let (_, reply) = self.fetch(request).await?;
        decode("/build/prune", &reply)
    }
}
