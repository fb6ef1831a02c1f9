//! The facade's operations on the engine itself.

use agent_api::{DiskUsage, EventMessage, SystemInfo, VersionResponse};
use futures_util::stream::BoxStream;

use super::{Engine, EventOptions};
use crate::error::Result;

impl Engine {
    /// Events, past ones first if asked for. Registered when this returns.
    pub async fn events(&self, options: EventOptions) -> Result<BoxStream<'static, EventMessage>> {
        todo!()
    }

    /// Facts about the engine and the host.
    pub async fn info(&self) -> SystemInfo {
        todo!()
    }

    /// Versions.
    pub fn version(&self) -> VersionResponse {
        todo!()
    }

    /// What uses how much disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        todo!()
    }
}
