//! Starts, hooks after them, and the waits between services. A service begins as soon as *its* prerequisites are there.

use std::collections::BTreeMap;

use agent_api::HealthStatus;
use compose_model::DependencyCondition;

use super::super::graph::Key;
use super::super::options::{Dependencies, Start};
use super::super::steps::post_start_steps;
use super::super::{Cause, Condition, ContainerHandle, Operation, order};
use super::decide::Action;
use super::{Emitted, Planner};
use crate::state::ObservedContainer;

/// Something dependants wait for: service, condition, and whether it is required.
type Need = (String, Condition, bool);

impl<'a> Planner<'a> {
    pub(super) fn emit_starts(&mut self) {
        if self.options.start == Start::No {
            return;
        }
        let needs = self.needs();
        let mut waits: BTreeMap<Need, Key> = BTreeMap::new();
        for name in self.order.clone() {
            let prerequisites = self.prerequisites(name, &waits);
            for index in 0..self.emitted.get(name).map_or(0, Vec::len) {
                self.emit_start(name, index, &prerequisites);
            }
            for (need, dependants) in needs.iter().filter(|(need, _)| need.0 == name) {
                if let Some(key) = self.emit_wait(
                    need,
                    Cause::NeededBy {
                        services: dependants.clone(),
                    },
                ) {
                    waits.insert(need.clone(), key);
                }
            }
        }
        if self.options.wait {
            self.emit_final_waits(&waits);
        }
    }

    /// Whether a container is started in this plan, and why.
    fn start_cause(&self, name: &str, index: usize) -> Option<Cause> {
        match &self.decisions.get(name)?.get(index)?.action {
            Action::Create(_) | Action::Replace(_) => Some(Cause::Created),
            Action::Start(cause) | Action::Restart(cause) => Some(cause.clone()),
            Action::Keep | Action::Remove(_) => None,
        }
    }

    fn starts_any(&self, name: &str) -> bool {
        (0..self.decisions.get(name).map_or(0, Vec::len))
            .any(|index| self.start_cause(name, index).is_some())
    }

    /// Conditions that services to be started wait for, with those services.
    fn needs(&self) -> BTreeMap<Need, Vec<String>> {
        let mut needs: BTreeMap<Need, Vec<String>> = BTreeMap::new();
        if self.options.dependencies == Dependencies::Ignore {
            return needs;
        }
        for name in self.order.iter().filter(|name| self.starts_any(name)) {
            for (dependency, config) in order::dependencies(self.service(name)) {
                if let Some(condition) = awaited(config.condition) {
                    let need = (dependency, condition, config.required.0);
                    needs.entry(need).or_default().push((*name).to_owned());
                }
            }
        }
        needs
    }

    /// Steps that are over before any container of a service starts: `true` if they must have succeeded.
    fn prerequisites(&self, name: &str, waits: &BTreeMap<Need, Key>) -> Vec<(Key, bool)> {
        let mut steps = Vec::new();
        for (dependency, config) in order::dependencies(self.service(name)) {
            let required = config.required.0;
            let wait = awaited(config.condition)
                .and_then(|condition| waits.get(&(dependency.clone(), condition, required)));
            if let Some(wait) = wait {
                steps.push((*wait, required));
                continue;
            }
            let started = self.emitted.get(dependency.as_str()).into_iter().flatten();
            steps.extend(started.filter_map(|emitted| Some((emitted.start?.1, required))));
        }
        steps
    }

    fn emit_start(&mut self, name: &str, index: usize, prerequisites: &[(Key, bool)]) {
        let Some(cause) = self.start_cause(name, index) else {
            return;
        };
        let emitted: Emitted = self.emitted[name][index].clone();
        let Some(handle) = emitted.handle.clone() else {
            return;
        };
        let place = self.service_place(name);
        let start = Operation::StartContainer {
            container: handle.clone(),
        };
        let start = self.builder.add(start, cause, place.clone());
        let own = [
            emitted.create,
            emitted.rename,
            emitted.remove,
            emitted.stop.map(|(_, last)| last),
        ];
        for earlier in own.into_iter().flatten() {
            self.builder.needs(start, earlier);
        }
        for (earlier, must_succeed) in prerequisites {
            if *must_succeed {
                self.builder.needs(start, *earlier);
            } else {
                self.builder.follows(start, *earlier);
            }
        }
        let hooks = &self.service(name).post_start;
        let last = post_start_steps(&mut self.builder, &handle, hooks, start, place.as_ref());
        if let Some(emitted) = self
            .emitted
            .get_mut(name)
            .and_then(|all| all.get_mut(index))
        {
            emitted.start = Some((start, last));
        }
    }

    /// The step that waits, unless the condition is met already or the service has no container.
    fn emit_wait(&mut self, (name, condition, required): &Need, cause: Cause) -> Option<Key> {
        let containers = self.handles(name);
        let starts = self.started(name);
        if containers.is_empty() || (starts.is_empty() && self.is_met(name, *condition)) {
            return None;
        }
        let operation = Operation::Wait {
            service: name.clone(),
            containers,
            condition: *condition,
            required: *required,
        };
        let place = self.service_place(name);
        let wait = self.builder.add(operation, cause, place);
        for start in starts {
            self.builder.needs(wait, start);
        }
        Some(wait)
    }

    /// `--wait`: every active service runs or is healthy at the end; those that others wait to complete have completed.
    fn emit_final_waits(&mut self, waits: &BTreeMap<Need, Key>) {
        for name in self.active.clone() {
            let condition = if self.is_one_shot(name) {
                Condition::Completed
            } else {
                Condition::RunningOrHealthy
            };
            let implied = [condition, Condition::Healthy]
                .iter()
                .any(|condition| waits.contains_key(&(name.to_owned(), *condition, true)));
            if !implied {
                self.emit_wait(&(name.to_owned(), condition, true), Cause::Requested);
            }
        }
    }

    fn handles(&self, name: &str) -> Vec<ContainerHandle> {
        self.emitted
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|emitted| emitted.handle.clone())
            .collect()
    }

    /// Last steps of the starts of a service's containers.
    fn started(&self, name: &str) -> Vec<Key> {
        self.emitted
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|emitted| Some(emitted.start?.1))
            .collect()
    }

    /// Whether the containers that stay are in the condition as observed.
    fn is_met(&self, name: &str, condition: Condition) -> bool {
        let Some(decisions) = self.decisions.get(name) else {
            return false;
        };
        let mut staying = decisions
            .iter()
            .filter(|decision| !matches!(decision.action, Action::Remove(_)))
            .map(|decision| decision.old);
        let check: fn(&ObservedContainer) -> bool = match condition {
            Condition::Healthy => |old| old.is_up() && old.health == HealthStatus::Healthy,
            Condition::RunningOrHealthy => |old| {
                old.is_up() && matches!(old.health, HealthStatus::None | HealthStatus::Healthy)
            },
            Condition::Completed => {
                return staying.any(|old| old.is_some_and(ObservedContainer::is_completed));
            }
        };
        staying.all(|old| old.is_some_and(check))
    }
}

/// The condition that takes a wait; being started does not.
fn awaited(condition: DependencyCondition) -> Option<Condition> {
    match condition {
        DependencyCondition::ServiceStarted => None,
        DependencyCondition::ServiceHealthy => Some(Condition::Healthy),
        DependencyCondition::ServiceCompletedSuccessfully => Some(Condition::Completed),
    }
}
