//! Exec: a further process in a running container.

use super::Client;
use super::error::Result;
use super::hijack::Hijacked;
use super::request::{Query, segment};
use crate::types::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdResponse};
use http::Method;

fn of(id: &str, verb: &str) -> String {
    format!("/exec/{}{verb}", segment(id))
}

impl Client {
    /// Prepares a process in a running container; returns the exec's id.
    ///
    /// # Errors
    /// 404 without the container, 409 when it does not run.
    pub async fn create_exec(
        &self,
        container: &str,
        request: &ExecCreateRequest,
    ) -> Result<IdResponse> {
        self.post(
            &format!("/containers/{}/exec", segment(container)),
            &Query::new(),
            request,
        )
        .await
    }

    /// Starts an exec and connects to it.
    ///
    /// # Errors
    /// 400 when its command cannot run.
    pub async fn start_exec(&self, id: &str, request: &ExecStartRequest) -> Result<Hijacked> {
        self.hijack(
            self.json_request(Method::POST, &of(id, "/start"), &Query::new(), request)
                .await?,
        )
        .await
    }

    /// Starts an exec that nobody listens to.
    ///
    /// # Errors
    /// 400 when its command cannot run.
    pub async fn start_exec_detached(&self, id: &str, tty: bool) -> Result<()> {
        let request = ExecStartRequest {
            detach: true,
            tty,
            console_size: None,
        };
        self.post_unit(&of(id, "/start"), &Query::new(), &request)
            .await
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// 404 when it has ended.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let query = Query::new().with("h", rows).with("w", columns);
        self.act(Method::POST, &of(id, "/resize"), &query)
            .await
            .map(drop)
    }

    /// State of an exec.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        self.get(&of(id, "/json"), &Query::new()).await
    }
}
