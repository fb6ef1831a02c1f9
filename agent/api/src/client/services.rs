//! Services, their tasks, and what those wrote.

use super::error::Result;
use super::registry::identify;
use super::request::{Query, segment};
use super::stream::{bytes_of, is_multiplexed};
use super::{Client, LogsOptions, Outcome, OutputStream, decode, empty};
use crate::swarm::{
    ObjectVersion, Service, ServiceCreateResponse, ServiceSpec, ServiceUpdateResponse, Task,
};
use crate::types::Filters;
use http::Method;

/// How a service is updated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpdateKind {
    /// To the spec that is sent.
    #[default]
    ToSpec,
    /// Back to the spec it had before; the one that is sent says nothing.
    Rollback,
}

/// Credentials for the registry of a service's image, as the header `X-Registry-Auth` carries them: base64 of JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth(pub String);

impl std::fmt::Debug for RegistryAuth {
    /// Without the credentials, so that no log can hold them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// Whose log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogsOf {
    /// All tasks of a service.
    Service,
    /// One task.
    Task,
}

impl Client {
    /// The services; `with_status` also counts their tasks.
    ///
    /// # Errors
    /// 503 when the daemon is no manager, 400 for a filter that does not exist.
    pub async fn list_services(
        &self,
        filters: &Filters,
        with_status: bool,
    ) -> Result<Vec<Service>> {
        let query = Query::new().filters(filters);
        let query = if with_status {
            query.with("status", true)
        } else {
            query
        };
        self.get("/services", &query).await
    }

    /// One service, by name or id.
    ///
    /// # Errors
    /// 404 when there is none, 503 when the daemon is no manager.
    pub async fn inspect_service(&self, name: &str) -> Result<Service> {
        self.get(&of_service(name, ""), &Query::new()).await
    }

    /// Makes a service.
    ///
    /// # Errors
    /// 409 when the name is taken, 400 for a spec that cannot be used.
    pub async fn create_service(
        &self,
        spec: &ServiceSpec,
        auth: Option<&RegistryAuth>,
    ) -> Result<ServiceCreateResponse> {
        let path = "/services/create";
        self.post_service(path, &Query::new(), spec, auth).await
    }

    async fn post_service<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
        spec: &ServiceSpec,
        auth: Option<&RegistryAuth>,
    ) -> Result<T> {
        let mut request = self.json_request(Method::POST, path, query, spec).await?;
        identify(&mut request, path, auth)?;
        let (_, reply) = self.fetch(request).await?;
        decode(path, &reply)
    }

    /// Changes a service that `version` was seen of.
    ///
    /// # Errors
    /// 404 when there is none, 400 for a spec that cannot be used, 409 or 500 when `version` is not the newest.
    pub async fn update_service(
        &self,
        id: &str,
        version: ObjectVersion,
        spec: &ServiceSpec,
        kind: UpdateKind,
        auth: Option<&RegistryAuth>,
    ) -> Result<ServiceUpdateResponse> {
        let query = Query::new().with("version", version.index);
        let query = match kind {
            UpdateKind::ToSpec => query,
            UpdateKind::Rollback => query.with("rollback", "previous"),
        };
        self.post_service(&of_service(id, "/update"), &query, spec, auth)
            .await
    }

    /// Removes a service; its tasks end afterwards.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn remove_service(&self, name: &str) -> Result<Outcome> {
        self.act(Method::DELETE, &of_service(name, ""), &Query::new())
            .await
    }

    /// The tasks.
    ///
    /// # Errors
    /// 503 when the daemon is no manager, 400 for a filter that does not exist, 404 for a service or node in one.
    pub async fn list_tasks(&self, filters: &Filters) -> Result<Vec<Task>> {
        self.get("/tasks", &Query::new().filters(filters)).await
    }

    /// One task, by id.
    ///
    /// # Errors
    /// 404 when there is none, 503 when the daemon is no manager.
    pub async fn inspect_task(&self, id: &str) -> Result<Task> {
        self.get(&format!("/tasks/{}", segment(id)), &Query::new())
            .await
    }

    /// What the tasks of a service, or one task, wrote: each line with details of where it comes from in front
    /// (`com.docker.swarm.node.id=…,com.docker.swarm.service.id=…,com.docker.swarm.task.id=…`).
    ///
    /// # Errors
    /// 404 when there is none, 501 when the logs cannot be read.
    pub async fn cluster_logs(
        &self,
        of: LogsOf,
        id: &str,
        options: &LogsOptions,
    ) -> Result<OutputStream> {
        let query = Query::new()
            .flag("follow", options.follow)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .maybe("since", options.since.as_deref())
            .maybe("until", options.until.as_deref())
            .flag("timestamps", options.timestamps)
            .maybe("tail", options.tail)
            .flag("details", options.details);
        let path = match of {
            LogsOf::Service => of_service(id, "/logs"),
            LogsOf::Task => format!("/tasks/{}/logs", segment(id)),
        };
        let request = self.request(Method::GET, &path, &query, empty()).await?;
        let response = self.stream(request).await?;
        let multiplexed = is_multiplexed(&response);
        Ok(OutputStream::new(bytes_of(response, "logs"), multiplexed))
    }
}

fn of_service(name: &str, verb: &str) -> String {
    format!("/services/{}{verb}", segment(name))
}
