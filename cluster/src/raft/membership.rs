//! Who takes part in the group: a replicated book beside Raft's own set of voters, because Raft knows numbers only and
//! the rest of the system needs names and addresses.
//!
//! A member comes in as a learner (receives everything, counts for nothing), becomes a voter when it has caught up and
//! leaves for good: an id that was removed is remembered and never given out again, so that a message of a former life
//! can be told from one of the present.
//!
//! Every change is one configuration entry of the log, applied in the same order everywhere; whether a change is legal is
//! decided when it is *applied*, from the book alone, so all managers decide the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A member's number in the group. Never zero, never reused.
pub type RaftId = u64;

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suffrage {
    /// Counts towards majorities and may lead.
    Voter,
    /// Receives the log only.
    Learner,
}

/// One member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node it runs on, as the rest of the cluster names it.
    pub node_id: String,
    /// Where the others reach it, `host:port`.
    pub address: String,
    /// Voter or learner.
    pub suffrage: Suffrage,
}

/// A change of the group, proposed by its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member, as a learner.
    AddLearner {
        /// Its number: [`Membership::next_id`].
        id: RaftId,
        /// The node it runs on.
        node_id: String,
        /// Where it is reached.
        address: String,
    },
    /// A learner becomes a voter.
    Promote {
        /// The learner.
        id: RaftId,
    },
    /// A member leaves for good.
    Remove {
        /// The member.
        id: RaftId,
    },
    /// A member is reached elsewhere from now on.
    UpdateAddress {
        /// The member.
        id: RaftId,
        /// Its new address.
        address: String,
    },
}

impl MemberChange {
    /// The member it is about.
    #[must_use]
    pub const fn id(&self) -> RaftId {
        match self {
            Self::AddLearner { id, .. }
            | Self::Promote { id }
            | Self::Remove { id }
            | Self::UpdateAddress { id, .. } => *id,
        }
    }
}

/// Why a change of the group was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The number belonged to a member that left.
    #[error("member {0} was removed from the group; its number is never used again")]
    WasRemoved(RaftId),
    /// The number or the node is in the group already.
    #[error("node {node_id} is member {id} of the group already")]
    IsMember {
        /// The member there is.
        id: RaftId,
        /// Its node.
        node_id: String,
    },
    /// There is no such member.
    #[error("no member {0} in the group")]
    NotMember(RaftId),
    /// It votes already.
    #[error("member {0} is a voter already")]
    IsVoter(RaftId),
    /// Nobody would be left to decide.
    #[error("member {0} is the last voter of the group")]
    LastVoter(RaftId),
    /// Zero is no number.
    #[error("a member's number cannot be zero")]
    Zero,
}

/// The members, and the numbers of those who were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Present members by number.
    pub members: BTreeMap<RaftId, Member>,
    /// Numbers never to be used again.
    pub removed: BTreeSet<RaftId>,
}

impl Membership {
    /// A group of one voter.
    #[must_use]
    pub fn founded_by(id: RaftId, node_id: String, address: String) -> Self {
        let member = Member {
            node_id,
            address,
            suffrage: Suffrage::Voter,
        };
        Self {
            members: BTreeMap::from([(id, member)]),
            removed: BTreeSet::new(),
        }
    }

    /// A number nobody has or had.
    #[must_use]
    pub fn next_id(&self) -> RaftId {
        let present = self.members.last_key_value().map_or(0, |(id, _)| *id);
        let former = self.removed.last().copied().unwrap_or(0);
        present.max(former) + 1
    }

    /// The members who vote.
    pub fn voters(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.with(Suffrage::Voter)
    }

    /// The members who only listen.
    pub fn learners(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.with(Suffrage::Learner)
    }

    fn with(&self, suffrage: Suffrage) -> impl Iterator<Item = RaftId> + '_ {
        self.members
            .iter()
            .filter(move |(_, member)| member.suffrage == suffrage)
            .map(|(id, _)| *id)
    }

    /// The member on a node.
    #[must_use]
    pub fn of_node(&self, node_id: &str) -> Option<RaftId> {
        self.members
            .iter()
            .find(|(_, member)| member.node_id == node_id)
            .map(|(id, _)| *id)
    }

    /// Whether a change is legal now.
    ///
    /// # Errors
    /// Says why it is not.
    pub fn check(&self, change: &MemberChange) -> Result<(), ChangeRefused> {
        let id = change.id();
        if id == 0 {
            return Err(ChangeRefused::Zero);
        }
        if self.removed.contains(&id) {
            return Err(ChangeRefused::WasRemoved(id));
        }
        let member = self.members.get(&id);
        match (change, member) {
            (MemberChange::AddLearner { .. }, Some(member)) => Err(ChangeRefused::IsMember {
                id,
                node_id: member.node_id.clone(),
            }),
            (MemberChange::AddLearner { node_id, .. }, None) => match self.of_node(node_id) {
                Some(id) => Err(ChangeRefused::IsMember {
                    id,
                    node_id: node_id.clone(),
                }),
                None => Ok(()),
            },
            (_, None) => Err(ChangeRefused::NotMember(id)),
            (MemberChange::Promote { .. }, Some(member)) if member.suffrage == Suffrage::Voter => {
                Err(ChangeRefused::IsVoter(id))
            }
            (MemberChange::Remove { .. }, Some(_)) if self.voters().eq([id]) => {
                Err(ChangeRefused::LastVoter(id))
            }
            (_, Some(_)) => Ok(()),
        }
    }

    /// Makes a change.
    ///
    /// # Errors
    /// As [`Membership::check`]; the book is then unchanged.
    pub fn apply(&mut self, change: &MemberChange) -> Result<(), ChangeRefused> {
        self.check(change)?;
        match change.clone() {
            MemberChange::AddLearner {
                id,
                node_id,
                address,
            } => {
                self.members.insert(
                    id,
                    Member {
                        node_id,
                        address,
                        suffrage: Suffrage::Learner,
                    },
                );
            }
            MemberChange::Promote { id } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.suffrage = Suffrage::Voter;
                }
            }
            MemberChange::Remove { id } => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            MemberChange::UpdateAddress { id, address } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.address = address;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ChangeRefused, MemberChange, Membership};

    fn add(id: u64, node: &str) -> MemberChange {
        MemberChange::AddLearner {
            id,
            node_id: node.into(),
            address: format!("{node}:2377"),
        }
    }

    #[test]
    fn numbers_are_never_reused_and_a_node_joins_once() {
        let mut group = Membership::founded_by(1, "a".into(), "a:2377".into());
        assert_eq!(
            group.apply(&MemberChange::Remove { id: 1 }),
            Err(ChangeRefused::LastVoter(1))
        );
        group.apply(&add(2, "b")).unwrap();
        assert_eq!(
            group.apply(&add(3, "b")),
            Err(ChangeRefused::IsMember {
                id: 2,
                node_id: "b".into()
            })
        );
        // A learner does not keep the last voter from leaving.
        assert_eq!(
            group.apply(&MemberChange::Remove { id: 1 }),
            Err(ChangeRefused::LastVoter(1))
        );
        group.apply(&MemberChange::Promote { id: 2 }).unwrap();
        assert_eq!(
            group.apply(&MemberChange::Promote { id: 2 }),
            Err(ChangeRefused::IsVoter(2))
        );
        group.apply(&MemberChange::Remove { id: 2 }).unwrap();
        assert_eq!(group.next_id(), 3);
        assert_eq!(group.apply(&add(2, "c")), Err(ChangeRefused::WasRemoved(2)));
        assert_eq!(
            group.apply(&MemberChange::UpdateAddress {
                id: 9,
                address: "x".into()
            }),
            Err(ChangeRefused::NotMember(9))
        );
        assert_eq!(group.apply(&add(0, "z")), Err(ChangeRefused::Zero));
    }
}
