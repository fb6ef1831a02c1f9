//! What a client may ask of the managers, and what becomes of it: a validated request becomes one transaction, or a
//! refusal in Docker's words.
//!
//! ```text
//! Request ──decide(store)──▶ Decision { transaction, reply }  ──propose──▶ committed: the reply goes out
//!     │                          │                                └─────▶ conflict: decided again on the new store
//!     └──▶ Refusal               └ empty transaction: nothing to do, the reply goes out at once
//! ```
//!
//! Pure: [`decide`] looks at the store and changes nothing; what a client reads comes from [`view`]. A request and its
//! reply can be written as bytes, so that a follower hands them to the leader. Only the leader decides, so every rule
//! holds at the moment of the decision; two decisions that cross are told apart by the store's version and name checks.
//!
//! Rules and texts: SwarmKit `manager/controlapi`, moby `daemon/cluster` and its `convert`. Not here, and refused by
//! name: jobs, plugins, cluster volumes, generic resources, credential specs, external authorities, rotation of the
//! root, locked managers.

mod annotations;
mod cluster;
mod lookup;
mod network;
mod node;
mod payload;
mod refusal;
mod request;
mod service;
mod size;
#[cfg(test)]
mod tests;
pub mod view;

pub use cluster::{ELECTION_TICK, HEARTBEAT_PERIOD_NANOS, HEARTBEAT_TICK, initial_spec};
pub use network::{ingress_network, ingress_spec};
pub use refusal::Refusal;
pub use request::{RegistryAuth, Reply, Request, TokenRotation};
pub use service::needs_new_tasks;

use cluster_api::{Config, Secret};

use crate::Context;
use crate::store::Transaction;

/// What is to be done for a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be proposed; empty when nothing has to change.
    pub transaction: Transaction,
    /// For the client, once the transaction is committed.
    pub reply: Reply,
}

/// Decides a request on the store as it is.
///
/// # Errors
///
/// The request breaks a rule, or names what does not exist.
pub fn decide(request: &Request, context: &mut Context<'_>) -> Result<Decision, Refusal> {
    let mut transaction = Transaction::new(context.now.wall);
    let change = &mut transaction;
    let reply = match request {
        Request::SwarmUpdate {
            version,
            spec,
            rotate,
        } => {
            cluster::update(context, change, *version, spec, *rotate)?;
            Reply::Done
        }
        Request::NodeUpdate {
            node,
            version,
            spec,
        } => {
            node::update(context, change, node, *version, spec)?;
            Reply::Done
        }
        Request::NodeRemove { node, force } => {
            node::remove(context, change, node, *force)?;
            Reply::Done
        }
        Request::ServiceCreate { spec, auth } => {
            Reply::Created(service::create(context, change, spec, auth.as_ref())?)
        }
        Request::ServiceUpdate {
            service,
            version,
            spec,
            auth,
        } => {
            service::update(context, change, service, *version, spec, auth)?;
            Reply::Done
        }
        Request::ServiceRollback { service, version } => {
            service::rollback(context, change, service, *version)?;
            Reply::Done
        }
        Request::ServiceRemove { service } => {
            service::remove(context, change, service)?;
            Reply::Done
        }
        Request::SecretCreate { spec } => {
            Reply::Created(payload::create::<Secret>(context, change, spec)?)
        }
        Request::SecretUpdate {
            secret,
            version,
            spec,
        } => {
            payload::update::<Secret>(context, change, secret, *version, spec)?;
            Reply::Done
        }
        Request::SecretRemove { secret } => {
            payload::remove::<Secret>(context, change, secret)?;
            Reply::Done
        }
        Request::ConfigCreate { spec } => {
            Reply::Created(payload::create::<Config>(context, change, spec)?)
        }
        Request::ConfigUpdate {
            config,
            version,
            spec,
        } => {
            payload::update::<Config>(context, change, config, *version, spec)?;
            Reply::Done
        }
        Request::ConfigRemove { config } => {
            payload::remove::<Config>(context, change, config)?;
            Reply::Done
        }
        Request::NetworkCreate { spec } => Reply::Created(network::create(context, change, spec)?),
        Request::NetworkRemove { network } => {
            network::remove(context, change, network)?;
            Reply::Done
        }
    };
    Ok(Decision { transaction, reply })
}
