//! What a manager answers on the wire: each call becomes a message to the manager's thread, each answer the wire's.

mod ca;
mod control;
mod logs;
mod membership;
mod raft;
mod sessions;

pub(super) use ca::Ca;
pub(super) use control::Control;
pub(super) use logs::Logs;
pub(super) use membership::Members;
pub(super) use raft::RaftBackend;
pub(super) use sessions::Sessions;

use cluster_api::proto;

use super::address;
use crate::core::{AgentRefused, Failure};
use crate::dispatcher;
use crate::dispatcher::Contact;
use crate::rpc::Refusal;

fn leader_address(leader: Option<Contact>) -> Option<proto::ManagerAddress> {
    leader.as_ref().map(address)
}

/// A failure in the wire's words.
fn refused(failure: Failure) -> Refusal {
    match failure {
        Failure::NotLeader { leader } => Refusal::NotLeader {
            leader: leader_address(leader),
        },
        Failure::Refused(refusal) => Refusal::Conflict(refusal.to_string()),
        Failure::Busy { .. } | Failure::Unknown | Failure::NoQuorum => {
            Refusal::Unavailable(failure.to_string())
        }
    }
}

fn agent_refused(refused: AgentRefused) -> Refusal {
    match refused {
        AgentRefused::NotLeader { leader } => Refusal::NotLeader {
            leader: leader_address(leader),
        },
        AgentRefused::Refused(refused) => {
            let text = refused.to_string();
            match refused {
                dispatcher::Refused::UnknownSession(session) => Refusal::UnknownSession(session),
                dispatcher::Refused::UnknownNode(_) | dispatcher::Refused::NotYours { .. } => {
                    Refusal::Forbidden(text)
                }
                dispatcher::Refused::NotReportable { .. } => Refusal::Invalid(text),
                dispatcher::Refused::TooLarge { .. } => Refusal::TooMuch(text),
            }
        }
    }
}
