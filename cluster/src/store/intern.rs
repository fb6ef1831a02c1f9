//! Equal specs are kept once. Each task that comes out of the log or a snapshot has a spec of its own; the tasks of one
//! service were made from few, so those are shared again here.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::{Annotations, TaskSpec};
use cluster_api::Task;

/// Specs remembered per service: the current one, the one before, and those of a rollout that was overtaken.
const KEPT: usize = 4;

/// The newest specs of each service's tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Interner(BTreeMap<Arc<str>, Known>);

#[derive(Debug, Clone, Default)]
struct Known {
    specs: Vec<Arc<TaskSpec>>,
    services: Vec<Arc<Annotations>>,
}

/// What is shared is no part of what the store holds.
impl PartialEq for Interner {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Interner {
    /// Makes the task share what it has in common with others of its service.
    pub(super) fn share(&mut self, task: &mut Arc<Task>) {
        if !self.0.contains_key(task.service_id.as_str()) {
            self.0
                .insert(task.service_id.as_str().into(), Known::default());
        }
        let Some(known) = self.0.get_mut(task.service_id.as_str()) else {
            return;
        };
        let spec = shared(&mut known.specs, &task.spec);
        let service = shared(&mut known.services, &task.service);
        if !Arc::ptr_eq(&spec, &task.spec) || !Arc::ptr_eq(&service, &task.service) {
            let task = Arc::make_mut(task);
            task.spec = spec;
            task.service = service;
        }
    }

    /// No task of this service is left.
    pub(super) fn forget(&mut self, service_id: &str) {
        self.0.remove(service_id);
    }
}

fn shared<T: PartialEq>(known: &mut Vec<Arc<T>>, value: &Arc<T>) -> Arc<T> {
    if let Some(same) = known
        .iter()
        .find(|other| Arc::ptr_eq(other, value) || other == &value)
    {
        return Arc::clone(same);
    }
    known.insert(0, Arc::clone(value));
    known.truncate(KEPT);
    Arc::clone(value)
}
