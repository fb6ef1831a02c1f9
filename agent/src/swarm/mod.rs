//! This node's membership of a swarm: making one, joining one, leaving it, and what the API may ask of it.
//!
//! ```text
//! http ──▶ Swarm ──▶ cluster::Manager   while this node is a manager
//!            └─────▶ worker             always: runs what the managers assign
//! ```
//!
//! Decides nothing about services or tasks. Knows nothing of HTTP.

mod address;

use std::sync::Arc;

use agent_api::swarm::{SwarmInitRequest, SwarmJoinRequest};
use cluster::control::{Reply, Request};
use cluster::store::Store;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// This node as part of a swarm, or of none. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Swarm {
    shared: Arc<Shared>,
}

struct Shared {
    #[expect(dead_code, reason = "tasks are run with it")]
    engine: Engine,
}

/// Docker's words for a node that is in no swarm.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

impl Swarm {
    /// Goes on where this node was when the daemon stopped.
    pub async fn open(engine: Engine) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared { engine }),
        })
    }

    /// Makes a swarm with this node as its first manager. Returns the node's id.
    ///
    /// # Errors
    /// The node is in a swarm already, an address makes no sense, or an option is not supported.
    pub async fn init(&self, request: SwarmInitRequest) -> Result<String> {
        let _ = request;
        Err(Error::unsupported("making a swarm"))
    }

    /// Joins a swarm. Returns when the node is in it.
    ///
    /// # Errors
    /// The node is in a swarm already, the token is not good, or no manager answers.
    pub async fn join(&self, request: SwarmJoinRequest) -> Result<()> {
        let _ = request;
        Err(Error::unsupported("joining a swarm"))
    }

    /// Leaves the swarm and forgets it. A manager leaves only with `force`.
    ///
    /// # Errors
    /// The node is in no swarm, or would take the swarm's quorum with it.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let _ = force;
        Err(Error::Unavailable(
            "This node is not part of a swarm".into(),
        ))
    }

    /// Whether requests about the cluster can be answered here.
    ///
    /// # Errors
    /// Docker's words for why not.
    pub fn is_manager(&self) -> Result<()> {
        Err(Error::Unavailable(NO_SWARM.into()))
    }

    /// Looks at the cluster as it is: at least as new as everything acknowledged before the call. The leader's node id
    /// comes with it.
    ///
    /// # Errors
    /// This node is no manager, or the managers have no leader.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store, Option<&str>) -> T + Send + 'static,
    ) -> Result<T> {
        let _ = look;
        self.is_manager()?;
        Err(Error::Unavailable(NO_SWARM.into()))
    }

    /// Changes the cluster. Returns when the change is committed.
    ///
    /// # Errors
    /// The request's own, in Docker's classes; or as for [`Swarm::read`].
    pub async fn request(&self, request: Request) -> Result<Reply> {
        let _ = request;
        self.is_manager()?;
        Err(Error::Unavailable(NO_SWARM.into()))
    }
}
