//! The facade's operations on execs.

use agent_api::{ExecCreateRequest, ExecInspect, ExecStartRequest};

use super::{Engine, ExecStarted};
use crate::error::Result;

impl Engine {
    /// Prepares an exec and returns its id.
    pub async fn create_exec(&self, container: &str, request: ExecCreateRequest) -> Result<String> {
        todo!()
    }

    /// Runs a prepared exec, once.
    pub async fn start_exec(&self, id: &str, request: ExecStartRequest) -> Result<ExecStarted> {
        todo!()
    }

    /// State of an exec.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        todo!()
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        todo!()
    }
}
