//! Clients' requests and changes of the group, from the question to the answer.

use cluster_api::Now;

use super::{Answer, Command, Core, Failure, MAX_ATTEMPTS, Origin, RequestId};
use crate::Context;
use crate::control::{self, Refusal, Reply};
use crate::raft::{self, ChangeRefused, MemberChange, ProposalId, RaftId};
use crate::store::{Conflict, Transaction};
use agent_api::swarm::NodeRole;

/// A request whose transaction is under way.
#[derive(Debug)]
pub(super) enum Pending {
    Control {
        request: Box<control::Request>,
        reply: Reply,
        /// How often it was decided.
        attempts: u32,
    },
    Apply,
}

/// A request whose change of the group is under way.
#[derive(Debug)]
pub(super) enum PendingChange {
    Join {
        node_id: String,
        address: String,
    },
    /// The old member of a node that joins again was removed; now the new one is added.
    Rejoin {
        node_id: String,
        address: String,
    },
    Leave,
}

/// An answer that waits for a majority to confirm that this manager still leads.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: RequestId,
    pub(super) result: Result<Answer, Failure>,
}

impl Core {
    /// Something only the leader can do.
    pub fn request(&mut self, id: RequestId, command: Command, now: Now) {
        if self.leadership.is_none() {
            return self.not_leader(id);
        }
        let under_way = self.under_way();
        if under_way >= self.max_requests {
            return self.answer(id, Err(Failure::Busy { under_way }));
        }
        if let Some(hand_over) = &mut self.hand_over {
            return hand_over.hold(id, command);
        }
        match command {
            Command::Control(request) => self.decide(id, request, 1, now),
            Command::Forwarded { node_id, request } => {
                let role = self.store.node(&node_id).map(|node| node.role);
                if role == Some(NodeRole::Manager) {
                    return self.decide(id, request, 1, now);
                }
                let refusal = Refusal::Forbidden(format!(
                    "node {node_id} is no manager of this swarm (any more)"
                ));
                self.confirm(id, Err(refusal.into()));
            }
            Command::Apply(transaction) => self.submit(id, &transaction, Pending::Apply),
            Command::Join { node_id, address } => self.join(id, node_id, address),
            Command::Leave { node_id } => self.leave(id, &node_id),
            Command::StepDown => self.begin_hand_over(Some(id)),
        }
    }

    fn decide(&mut self, id: RequestId, request: Box<control::Request>, attempts: u32, now: Now) {
        let mut context = Context {
            store: &self.store,
            now,
            ids: &mut self.ids,
        };
        match control::decide(&request, &mut context) {
            Err(refusal) => self.confirm(id, Err(refusal.into())),
            Ok(decision) if decision.transaction.is_empty() => {
                self.confirm(id, Ok(Answer::Reply(decision.reply)));
            }
            Ok(decision) => {
                let pending = Pending::Control {
                    request,
                    reply: decision.reply,
                    attempts,
                };
                self.submit(id, &decision.transaction, pending);
            }
        }
    }

    /// What a leader without a majority says may be long out of date.
    fn confirm(&mut self, id: RequestId, result: Result<Answer, Failure>) {
        self.wait_for_majority(Waiting { id, result });
    }

    fn submit(&mut self, id: RequestId, transaction: &Transaction, pending: Pending) {
        if let Err(refused) = self.propose(transaction, Origin::Request(id, pending)) {
            let failure = self.failure(refused);
            self.answer(id, Err(failure));
        }
    }

    /// The proposal of a request is in the log for good.
    pub(super) fn request_committed(
        &mut self,
        id: RequestId,
        pending: Pending,
        conflict: Option<Conflict>,
        now: Now,
    ) {
        match (pending, conflict) {
            (Pending::Control { reply, .. }, None) => self.answer(id, Ok(Answer::Reply(reply))),
            (
                Pending::Control {
                    request, attempts, ..
                },
                Some(conflict),
            ) => {
                if attempts >= MAX_ATTEMPTS {
                    self.answer(id, Err(Refusal::Conflict(conflict.to_string()).into()));
                } else if self.leadership.is_none() {
                    self.not_leader(id);
                } else {
                    self.decide(id, request, attempts + 1, now);
                }
            }
            (Pending::Apply, Some(conflict)) => {
                self.answer(id, Err(Refusal::Conflict(conflict.to_string()).into()));
            }
            (Pending::Apply, None) => self.answer(id, Ok(Answer::Applied)),
        }
    }

    fn join(&mut self, id: RequestId, node_id: String, address: String) {
        let wish = self.store.node(&node_id).map(|node| node.spec.role);
        if wish != Some(NodeRole::Manager) {
            let refusal = Refusal::Forbidden(format!("node {node_id} is not to be a manager"));
            return self.confirm(id, Err(refusal.into()));
        }
        let Some(raft_id) = self.raft.membership().of_node(&node_id) else {
            return self.add_member(id, node_id, address);
        };
        let status = self.raft.status();
        let blank = raft_id != self.own_id
            && status
                .peers
                .iter()
                .all(|peer| peer.id != raft_id || peer.matched == 0);
        let known = self.raft.membership().members.get(&raft_id);
        if blank && known.is_some_and(|member| member.address == address) {
            // It asked before and did not hear the answer.
            let membership = self.raft.membership().clone();
            let joined = Answer::Joined {
                raft_id,
                membership,
            };
            self.confirm(id, Ok(joined));
        } else {
            // Only a manager without state joins: what it had acknowledged is lost, so it must not vote under that
            // number again.
            let pending = PendingChange::Rejoin { node_id, address };
            self.change(id, MemberChange::Remove { id: raft_id }, pending);
        }
    }

    fn add_member(&mut self, id: RequestId, node_id: String, address: String) {
        let change = MemberChange::AddLearner {
            id: self.raft.membership().next_id(),
            node_id: node_id.clone(),
            address: address.clone(),
        };
        self.change(id, change, PendingChange::Join { node_id, address });
    }

    fn leave(&mut self, id: RequestId, node_id: &str) {
        match self.raft.membership().of_node(node_id) {
            None => self.confirm(id, Ok(Answer::Left)),
            Some(raft_id) => self.change(
                id,
                MemberChange::Remove { id: raft_id },
                PendingChange::Leave,
            ),
        }
    }

    fn change(&mut self, id: RequestId, change: MemberChange, pending: PendingChange) {
        self.counter += 1;
        let proposal = ProposalId(self.counter);
        match self.raft.change_membership(proposal, change) {
            Ok(()) => {
                self.proposals.insert(proposal, Origin::Change(id, pending));
            }
            Err(refused) => {
                let failure = self.failure(refused);
                self.answer(id, Err(failure));
            }
        }
    }

    /// A request's change of the group is in the log for good.
    pub(super) fn change_committed(
        &mut self,
        id: RequestId,
        pending: PendingChange,
        raft_id: RaftId,
        outcome: Result<(), ChangeRefused>,
    ) {
        match (pending, outcome) {
            (PendingChange::Join { .. }, Ok(())) => {
                let membership = self.raft.membership().clone();
                self.answer(
                    id,
                    Ok(Answer::Joined {
                        raft_id,
                        membership,
                    }),
                );
            }
            (
                PendingChange::Rejoin { node_id, address },
                Ok(()) | Err(ChangeRefused::NotMember(_) | ChangeRefused::WasRemoved(_)),
            ) => self.add_member(id, node_id, address),
            // Another request for the same node was faster.
            (PendingChange::Join { node_id, address }, Err(ChangeRefused::IsMember { .. })) => {
                self.join(id, node_id, address);
            }
            (
                PendingChange::Leave,
                Ok(()) | Err(ChangeRefused::NotMember(_) | ChangeRefused::WasRemoved(_)),
            ) => self.answer(id, Ok(Answer::Left)),
            (_, Err(refused)) => {
                self.answer(id, Err(Refusal::Unavailable(refused.to_string()).into()));
            }
        }
    }

    pub(super) fn failure(&self, refused: raft::Refused) -> Failure {
        match refused {
            raft::Refused::NotLeader { .. } => Failure::NotLeader {
                leader: self.leader(),
            },
            // Who will is not known yet.
            raft::Refused::Transferring { .. } => Failure::NotLeader { leader: None },
            raft::Refused::Busy { .. } => Failure::Busy {
                under_way: self.under_way(),
            },
            raft::Refused::TooLarge { .. } => Refusal::InvalidParameter(refused.to_string()).into(),
            raft::Refused::ChangePending
            | raft::Refused::Change(_)
            | raft::Refused::NotCaughtUp { .. }
            | raft::Refused::WouldLoseQuorum { .. }
            | raft::Refused::IsLeader { .. }
            | raft::Refused::NoSuccessor
            | raft::Refused::Halted(_) => Refusal::Unavailable(refused.to_string()).into(),
        }
    }

    pub(super) fn not_leader(&mut self, id: RequestId) {
        let leader = self.leader();
        self.answer(id, Err(Failure::NotLeader { leader }));
    }

    pub(super) fn answer(&mut self, id: RequestId, result: Result<Answer, Failure>) {
        self.output.answers.push((id, result));
    }
}
