//! Secrets and configs.

use super::error::Result;
use super::request::{Query, segment};
use super::{Client, Outcome};
use crate::swarm::{Config, ConfigSpec, ObjectVersion, Secret, SecretSpec, ServiceCreateResponse};
use crate::types::Filters;
use http::Method;

impl Client {
    /// The secrets, without their data.
    ///
    /// # Errors
    /// 503 when the daemon is no manager, 400 for a filter that does not exist.
    pub async fn list_secrets(&self, filters: &Filters) -> Result<Vec<Secret>> {
        self.get("/secrets", &Query::new().filters(filters)).await
    }

    /// One secret, by name or id, without its data.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn inspect_secret(&self, name: &str) -> Result<Secret> {
        self.get(&format!("/secrets/{}", segment(name)), &Query::new())
            .await
    }

    /// Makes a secret; gives its id.
    ///
    /// # Errors
    /// 409 when the name is taken, 400 for data that is too large.
    pub async fn create_secret(&self, spec: &SecretSpec) -> Result<String> {
        let made: ServiceCreateResponse = self.post("/secrets/create", &Query::new(), spec).await?;
        Ok(made.id)
    }

    /// Changes the labels of a secret.
    ///
    /// # Errors
    /// 400 for any other change, 404 when there is none.
    pub async fn update_secret(
        &self,
        id: &str,
        version: ObjectVersion,
        spec: &SecretSpec,
    ) -> Result<()> {
        let query = Query::new().with("version", version.index);
        let path = format!("/secrets/{}/update", segment(id));
        self.post_unit(&path, &query, spec).await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// 404 when there is none, 400 when services use it.
    pub async fn remove_secret(&self, name: &str) -> Result<Outcome> {
        let path = format!("/secrets/{}", segment(name));
        self.act(Method::DELETE, &path, &Query::new()).await
    }

    /// The configs.
    ///
    /// # Errors
    /// 503 when the daemon is no manager, 400 for a filter that does not exist.
    pub async fn list_configs(&self, filters: &Filters) -> Result<Vec<Config>> {
        self.get("/configs", &Query::new().filters(filters)).await
    }

    /// One config, by name or id, with its data.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn inspect_config(&self, name: &str) -> Result<Config> {
        self.get(&format!("/configs/{}", segment(name)), &Query::new())
            .await
    }

    /// Makes a config; gives its id.
    ///
    /// # Errors
    /// 409 when the name is taken, 400 for data that is too large.
    pub async fn create_config(&self, spec: &ConfigSpec) -> Result<String> {
        let made: ServiceCreateResponse = self.post("/configs/create", &Query::new(), spec).await?;
        Ok(made.id)
    }

    /// Changes the labels of a config.
    ///
    /// # Errors
    /// 400 for any other change, 404 when there is none.
    pub async fn update_config(
        &self,
        id: &str,
        version: ObjectVersion,
        spec: &ConfigSpec,
    ) -> Result<()> {
        let query = Query::new().with("version", version.index);
        let path = format!("/configs/{}/update", segment(id));
        self.post_unit(&path, &query, spec).await
    }

    /// Removes a config.
    ///
    /// # Errors
    /// 404 when there is none, 400 when services use it.
    pub async fn remove_config(&self, name: &str) -> Result<Outcome> {
        let path = format!("/configs/{}", segment(name));
        self.act(Method::DELETE, &path, &Query::new()).await
    }
}
