//! What a leader may propose: nothing while it hands over, no change of the group that would leave it without a majority.

use raft::StateRole;

use super::hostile;
use super::membership::{MemberChange, RaftId, Suffrage};
use super::node::Node;
use super::output::Refused;

/// A learner this close to the end of the log counts as caught up.
const CAUGHT_UP: u64 = 100;

impl Node {
    pub(super) fn may_propose(&self) -> Result<(), Refused> {
        if let Some(halt) = &self.halted {
            return Err(halt.clone().into());
        }
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(Refused::NotLeader {
                leader: hostile::leader(raft),
            });
        }
        raft.lead_transferee
            .map_or(Ok(()), |to| Err(Refused::Transferring { to }))
    }

    pub(super) fn may_remove(&self, id: RaftId) -> Result<(), Refused> {
        if id == self.id() {
            return Err(Refused::IsLeader { id });
        }
        if self
            .membership
            .members
            .get(&id)
            .is_some_and(|member| member.suffrage == Suffrage::Learner)
        {
            return Ok(());
        }
        let rest: Vec<RaftId> = self
            .membership
            .voters()
            .filter(|voter| *voter != id)
            .collect();
        let reachable = rest.iter().filter(|voter| self.reachable(**voter)).count();
        if reachable <= rest.len() / 2 {
            return Err(Refused::WouldLoseQuorum {
                id,
                reachable,
                voters: rest.len(),
            });
        }
        Ok(())
    }

    pub(super) fn may_promote(&self, id: RaftId) -> Result<(), Refused> {
        let last = self.raw.raft.raft_log.last_index();
        let matched = self
            .raw
            .raft
            .prs()
            .get(id)
            .map_or(0, |progress| progress.matched);
        if matched + CAUGHT_UP < last || matched == 0 || !self.reachable(id) {
            return Err(Refused::NotCaughtUp { id, matched, last });
        }
        Ok(())
    }

    pub(super) fn promote_learner(&mut self) -> bool {
        if !self.role.established || self.may_propose().is_err() || self.raw.raft.has_pending_conf()
        {
            return false;
        }
        let Some(id) = self
            .membership
            .learners()
            .find(|id| self.may_promote(*id).is_ok())
        else {
            return false;
        };
        self.enter(vec![(
            None,
            super::apply::change_entry(&MemberChange::Promote { id }, &self.membership),
        )]);
        true
    }

    /// Whether a member was heard of within the last election timeout.
    pub(super) fn reachable(&self, id: RaftId) -> bool {
        let patience = self.config.election_ticks as u64;
        id == self.id()
            || self
                .heard
                .get(&id)
                .is_some_and(|at| self.now.saturating_sub(*at) <= patience)
    }
}
