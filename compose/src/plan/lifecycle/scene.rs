//! What a verb acts on, and the steps it can add: containers by service, what depends on what, networks, volumes.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::HealthStatus;
use compose_model::{DependencyCondition, Project};

use super::super::graph::{Builder, Key};
use super::super::options::RemoveImages;
use super::super::steps::{existing, post_start_steps, stop_steps};
use super::super::{Cause, Condition, Operation, PlanError, Problem, order};
use crate::state::{ObservedContainer, ObservedState};

/// First and last steps of stopping, by service.
#[derive(Default)]
pub(super) struct Stops(BTreeMap<String, Vec<(Key, Key)>>);

impl Stops {
    pub(super) fn add(&mut self, service: &str, first: Key, last: Key) {
        self.0
            .entry(service.to_owned())
            .or_default()
            .push((first, last));
    }
}

/// What a verb acts on.
pub(super) struct Scene<'a> {
    name: &'a str,
    project: Option<&'a Project>,
    observed: &'a ObservedState,
    /// Services acted on; `None` = all.
    selected: Option<BTreeSet<String>>,
    pub(super) builder: Builder,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        name: &'a str,
        project: Option<&'a Project>,
        observed: &'a ObservedState,
        services: &[String],
    ) -> Result<Self, PlanError> {
        let selected =
            (!services.is_empty()).then(|| services.iter().cloned().collect::<BTreeSet<_>>());
        let scene = Self {
            name,
            project,
            observed,
            selected,
            builder: Builder::default(),
        };
        let unknown = services.iter().filter(|service| {
            !scene.knows(service)
                && !observed
                    .containers
                    .iter()
                    .any(|container| container.service == **service)
        });
        problems(
            unknown
                .map(|service| format!("no such service: {service}"))
                .collect(),
        )?;
        Ok(scene)
    }

    /// Containers of the selection, by service and number.
    pub(super) fn containers(&self) -> Vec<&'a ObservedContainer> {
        let selected = |container: &&ObservedContainer| {
            self.selected
                .as_ref()
                .is_none_or(|selected| selected.contains(&container.service))
        };
        self.observed.containers.iter().filter(selected).collect()
    }

    pub(super) fn knows(&self, service: &str) -> bool {
        self.project
            .is_none_or(|project| project.any_service(service).is_some())
    }

    pub(super) fn require_containers(&self, services: &[String]) -> Result<(), PlanError> {
        let empty = services.iter().filter(|service| {
            !self
                .observed
                .containers
                .iter()
                .any(|container| container.service == **service && !container.oneoff)
        });
        problems(
            empty
                .map(|service| {
                    format!(
                        "service {service} has no container: create it with `muster compose up`"
                    )
                })
                .collect(),
        )
    }

    pub(super) fn stop(
        &mut self,
        container: &ObservedContainer,
        timeout: Option<i64>,
        cause: &Cause,
    ) -> Option<(Key, Key)> {
        if !container.is_up() {
            return None;
        }
        let service = self
            .project
            .and_then(|project| project.any_service(&container.service));
        let hooks = service.map_or(&[][..], |service| &service.pre_stop);
        Some(stop_steps(
            &mut self.builder,
            &existing(container),
            container,
            hooks,
            timeout,
            cause,
            None,
        ))
    }

    /// What each service depends on: from the project, else from the containers' labels.
    pub(super) fn dependencies(
        &self,
    ) -> BTreeMap<String, BTreeMap<String, (DependencyCondition, bool)>> {
        if let Some(project) = self.project {
            let all = project.services.iter().chain(&project.disabled_services);
            return all
                .map(|(name, service)| {
                    let entries = order::dependencies(service).into_iter();
                    (
                        name.clone(),
                        entries
                            .map(|(name, config)| (name, (config.condition, config.restart)))
                            .collect(),
                    )
                })
                .collect();
        }
        let containers = self.observed.containers.iter();
        containers
            .map(|container| {
                (
                    container.service.clone(),
                    parse_depends_on(container.depends_on.as_deref()),
                )
            })
            .collect()
    }

    /// Dependants stop first; a failure on the way holds nothing up.
    pub(super) fn order_stops(&mut self, stops: &Stops) {
        let dependencies = self.dependencies();
        if cyclic(&dependencies) {
            return;
        }
        for (dependant, entries) in &dependencies {
            for dependency in entries.keys() {
                let (Some(earlier), Some(later)) =
                    (stops.0.get(dependant), stops.0.get(dependency))
                else {
                    continue;
                };
                for ((_, earlier), (later, _)) in earlier
                    .iter()
                    .flat_map(|earlier| later.iter().map(move |later| (earlier, later)))
                {
                    self.builder.follows(*later, *earlier);
                }
            }
        }
    }

    /// Starts containers, dependencies first; `stopped` is the step after which a container is down.
    pub(super) fn start(
        &mut self,
        containers: &[&ObservedContainer],
        stopped: &BTreeMap<&str, Key>,
    ) {
        let dependencies = self.dependencies();
        let edges = dependencies
            .iter()
            .map(|(name, entries)| (name.as_str(), entries.keys().cloned().collect()));
        let Ok(sorted) = order::sort(edges.collect()) else {
            return;
        };
        let sorted: Vec<String> = sorted.into_iter().map(str::to_owned).collect();
        let mut started: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        let mut waits: BTreeMap<(String, Condition), Key> = BTreeMap::new();
        for service in &sorted {
            let own: Vec<&ObservedContainer> = containers
                .iter()
                .copied()
                .filter(|container| container.service == *service)
                .collect();
            if own.is_empty() {
                continue;
            }
            let mut before = Vec::new();
            for (dependency, (condition, _)) in &dependencies[service] {
                before.extend(
                    self.before_start(service, dependency, *condition, &started, &mut waits),
                );
            }
            for container in own {
                let cause = match stopped.contains_key(container.id.as_str()) {
                    true => Cause::Requested,
                    false => Cause::NotRunning {
                        state: container.state,
                        exit_code: container.exit_code,
                    },
                };
                let operation = Operation::StartContainer {
                    container: existing(container),
                };
                let start = self.builder.add(operation, cause, None);
                for earlier in before.iter().chain(stopped.get(container.id.as_str())) {
                    self.builder.needs(start, *earlier);
                }
                let last = self.post_start(container, start);
                started.entry(service.clone()).or_default().push(last);
            }
        }
    }

    fn post_start(&mut self, container: &ObservedContainer, start: Key) -> Key {
        let service = self
            .project
            .and_then(|project| project.any_service(&container.service));
        let hooks = service.map_or(&[][..], |service| &service.post_start);
        post_start_steps(&mut self.builder, &existing(container), hooks, start, None)
    }

    /// Steps a start comes after because of one dependency.
    pub(super) fn before_start(
        &mut self,
        service: &str,
        dependency: &str,
        condition: DependencyCondition,
        started: &BTreeMap<String, Vec<Key>>,
        waits: &mut BTreeMap<(String, Condition), Key>,
    ) -> Vec<Key> {
        let starts = started.get(dependency).cloned().unwrap_or_default();
        let condition = match condition {
            DependencyCondition::ServiceStarted => return starts,
            DependencyCondition::ServiceHealthy => Condition::Healthy,
            DependencyCondition::ServiceCompletedSuccessfully => Condition::Completed,
        };
        let need = (dependency.to_owned(), condition);
        if let Some(wait) = waits.get(&need) {
            return vec![*wait];
        }
        let containers: Vec<&ObservedContainer> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.service == dependency && !container.oneoff)
            .collect();
        let met = containers.iter().all(|container| match condition {
            Condition::Completed => container.is_completed(),
            _ => container.is_up() && container.health == HealthStatus::Healthy,
        });
        if starts.is_empty() && met {
            return Vec::new();
        }
        let operation = Operation::Wait {
            service: dependency.to_owned(),
            containers: containers.into_iter().map(existing).collect(),
            condition,
            required: true,
        };
        let cause = Cause::NeededBy {
            services: vec![service.to_owned()],
        };
        let wait = self.builder.add(operation, cause, None);
        for start in starts {
            self.builder.needs(wait, start);
        }
        waits.insert(need, wait);
        vec![wait]
    }

    /// Adds services with `restart: true` on a selected one, and those on them.
    pub(super) fn select_restarting_dependants(&mut self) {
        let dependencies = self.dependencies();
        let Some(selected) = &mut self.selected else {
            return;
        };
        loop {
            let before = selected.len();
            for (dependant, entries) in &dependencies {
                if entries
                    .iter()
                    .any(|(name, (_, restart))| *restart && selected.contains(name))
                {
                    selected.insert(dependant.clone());
                }
            }
            if selected.len() == before {
                return;
            }
        }
    }

    pub(super) fn remove_networks(&mut self, removed: &[Key]) {
        for (name, network) in &self.observed.networks {
            if network.project.as_deref() != Some(self.name) {
                continue;
            }
            let operation = Operation::RemoveNetwork {
                name: name.clone(),
                id: network.id.clone(),
            };
            let step = self.builder.add(operation, Cause::Requested, None);
            for earlier in removed {
                self.builder.needs(step, *earlier);
            }
        }
    }

    pub(super) fn remove_volumes(&mut self, removed: &[Key]) {
        for (name, volume) in &self.observed.volumes {
            if volume.project.as_deref() != Some(self.name) || volume.key.is_none() {
                continue;
            }
            let step = self.builder.add(
                Operation::RemoveVolume { name: name.clone() },
                Cause::Requested,
                None,
            );
            for earlier in removed {
                self.builder.needs(step, *earlier);
            }
        }
    }

    pub(super) fn remove_images(&mut self, which: RemoveImages, removed: &[Key]) {
        let Some(project) = self.project else { return };
        if which == RemoveImages::None {
            return;
        }
        let services = project.services.iter();
        let images: BTreeSet<String> = services
            .filter(|(_, service)| which == RemoveImages::All || service.image.is_none())
            .map(|(name, service)| service.image_or_default(&project.name, name))
            .filter(|image| self.observed.images.contains_key(image))
            .collect();
        for reference in images {
            let step =
                self.builder
                    .add(Operation::RemoveImage { reference }, Cause::Requested, None);
            for earlier in removed {
                self.builder.needs(step, *earlier);
            }
        }
    }
}

/// Labels were written by someone: a cycle in them must not keep anything from being stopped.
fn cyclic(dependencies: &BTreeMap<String, BTreeMap<String, (DependencyCondition, bool)>>) -> bool {
    let edges = dependencies
        .iter()
        .map(|(name, entries)| (name.as_str(), entries.keys().cloned().collect()));
    order::sort(edges.collect()).is_err()
}

/// `db:service_healthy:true,…`.
fn parse_depends_on(label: Option<&str>) -> BTreeMap<String, (DependencyCondition, bool)> {
    let entries = label
        .unwrap_or_default()
        .split(',')
        .filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let mut parts = entry.split(':');
            let name = parts.next().unwrap_or_default().to_owned();
            let condition = match parts.next() {
                Some("service_healthy") => DependencyCondition::ServiceHealthy,
                Some("service_completed_successfully") => {
                    DependencyCondition::ServiceCompletedSuccessfully
                }
                _ => DependencyCondition::ServiceStarted,
            };
            (name, (condition, parts.next() == Some("true")))
        })
        .collect()
}

fn problems(messages: Vec<String>) -> Result<(), PlanError> {
    if messages.is_empty() {
        return Ok(());
    }
    let problem = |message| Problem {
        place: None,
        service: None,
        message,
    };
    Err(PlanError {
        problems: messages.into_iter().map(problem).collect(),
    })
}
