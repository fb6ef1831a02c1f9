//! The shape of everything that decides on the leader. Loops never call each other: each sees what is in the store and
//! proposes transactions; what another loop did arrives as an event. They are level-triggered: an event only marks
//! something dirty, the decision reads the store.

use cluster_api::{IdSource, Now, Time};

use crate::store::{Store, StoreEvent, Transaction};

/// One of the loops a leader runs.
pub trait ControlLoop {
    /// For logs.
    fn name(&self) -> &'static str;

    /// Leadership was gained: marks everything that may need attention, forgets all else.
    fn start(&mut self, context: &mut Context<'_>);

    /// Something was committed. Cheap: decides nothing.
    fn observe(&mut self, event: &StoreEvent);

    /// Decides. Called after events, when `wake_at` has passed, and when the loop's last transaction was committed or
    /// found in conflict; never while a transaction of its own is under way.
    fn step(&mut self, context: &mut Context<'_>) -> Step;
}

/// What a loop may look at.
pub struct Context<'a> {
    pub store: &'a Store,
    pub now: Now,
    pub ids: &'a mut IdSource,
}

/// What a loop wants.
#[derive(Debug, Default)]
pub struct Step {
    /// To be proposed. One in conflict with what committed meanwhile has no effect, and the loop is asked again.
    pub transaction: Option<Transaction>,
    /// When to ask again though nothing happened.
    pub wake_at: Option<Time>,
}
