//! Plans `down`, `stop`, `start`, `restart`, `kill` and `rm`: they act on the containers there are and make none.
//!
//! Without a project (`-p` alone) the labels of what is there say what belongs to it and what depends on what.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::{ContainerStatus, HealthStatus};
use compose_model::{DependencyCondition, Project, ServiceHook};

use super::graph::{Builder, Key};
use super::options::{Dependencies, DownOptions, Orphans, RemoveImages, RemoveOptions, Selection};
use super::{
    Cause, Condition, ContainerHandle, HookKind, Operation, Plan, PlanError, Problem, Warning,
    order,
};
use crate::convert;
use crate::state::{ObservedContainer, ObservedState};

/// Plans `down`: dependants before dependencies, then networks, and with `-v` volumes. External resources stay. What
/// cannot be stopped keeps what it uses; everything else goes.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn down(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    options: &DownOptions,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, &options.services)?;
    let everything = options.services.is_empty();
    let mut orphans = Vec::new();
    let mut removed: Vec<Key> = Vec::new();
    let mut stops = Stops::default();
    for container in scene.containers() {
        let orphan = everything && !scene.knows(&container.service);
        if orphan && options.orphans != Orphans::Remove {
            orphans.push(container.name.clone());
            continue;
        }
        let cause = if orphan {
            Cause::Orphan
        } else {
            Cause::Requested
        };
        let stop = scene.stop(
            container,
            options.stop_timeout.map(convert::seconds),
            &cause,
        );
        let operation = Operation::RemoveContainer {
            container: existing(container),
            anonymous_volumes: options.volumes,
            force: true,
        };
        let remove = scene.builder.add(operation, cause, None);
        if let Some((first, last)) = stop {
            scene.builder.needs(remove, last);
            stops.add(&container.service, first, remove);
        }
        removed.push(remove);
    }
    scene.order_stops(&stops);
    if !orphans.is_empty() && options.orphans == Orphans::Warn {
        scene.builder.warnings.push(Warning::Orphans {
            containers: orphans,
        });
    }
    if everything {
        scene.remove_networks(&removed);
        if options.volumes {
            scene.remove_volumes(&removed);
        }
        scene.remove_images(options.images, &removed);
    }
    Ok(scene.builder.finish(name))
}

/// Plans `stop`: dependants before dependencies.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn stop(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, &selection.services)?;
    let mut stops = Stops::default();
    for container in scene.containers() {
        let timeout = selection.stop_timeout.map(convert::seconds);
        if let Some((first, last)) = scene.stop(container, timeout, &Cause::Requested) {
            stops.add(&container.service, first, last);
        }
    }
    scene.order_stops(&stops);
    Ok(scene.builder.finish(name))
}

/// Plans `start` of existing containers, dependencies first and in the condition the file asks for.
///
/// # Errors
/// A service that neither the project nor the engine knows, or that has no container.
pub fn start(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, &selection.services)?;
    scene.require_containers(&selection.services)?;
    let stopped: Vec<&ObservedContainer> = scene
        .containers()
        .into_iter()
        .filter(|container| !container.is_up() && !container.oneoff)
        .collect();
    scene.start(&stopped, &BTreeMap::new());
    Ok(scene.builder.finish(name))
}

/// Plans `restart`: everything selected stops, then starts in order. Dependants that say `restart: true` follow, unless
/// dependencies are to be ignored.
///
/// # Errors
/// A service that neither the project nor the engine knows, or that has no container.
pub fn restart(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    selection: &Selection,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, &selection.services)?;
    scene.require_containers(&selection.services)?;
    if selection.dependencies == Dependencies::Include {
        scene.select_restarting_dependants();
    }
    let containers: Vec<&ObservedContainer> = scene
        .containers()
        .into_iter()
        .filter(|container| !container.oneoff)
        .collect();
    let mut stops = Stops::default();
    let mut stopped = BTreeMap::new();
    for container in &containers {
        let timeout = selection.stop_timeout.map(convert::seconds);
        if let Some((first, last)) = scene.stop(container, timeout, &Cause::Requested) {
            stops.add(&container.service, first, last);
            stopped.insert(container.id.as_str(), last);
        }
    }
    scene.order_stops(&stops);
    scene.start(&containers, &stopped);
    Ok(scene.builder.finish(name))
}

/// Plans `kill`: every running container of the selection gets the signal, in no order.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn kill(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    services: &[String],
    signal: &str,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, services)?;
    for container in scene
        .containers()
        .into_iter()
        .filter(|container| container.is_up())
    {
        let operation = Operation::KillContainer {
            container: existing(container),
            signal: signal.to_owned(),
        };
        scene.builder.add(operation, Cause::Requested, None);
    }
    Ok(scene.builder.finish(name))
}

/// Plans `rm`: containers that do not run, and with `stop` those that do.
///
/// # Errors
/// A service that neither the project nor the engine knows.
pub fn remove(
    name: &str,
    project: Option<&Project>,
    observed: &ObservedState,
    options: &RemoveOptions,
) -> Result<Plan, PlanError> {
    let mut scene = Scene::new(name, project, observed, &options.services)?;
    let mut stops = Stops::default();
    for container in scene.containers() {
        if container.is_up() && !options.stop {
            continue;
        }
        let stop = scene.stop(container, None, &Cause::Requested);
        let operation = Operation::RemoveContainer {
            container: existing(container),
            anonymous_volumes: options.volumes,
            force: false,
        };
        let remove = scene.builder.add(operation, Cause::Requested, None);
        if let Some((first, last)) = stop {
            scene.builder.needs(remove, last);
            stops.add(&container.service, first, last);
        }
    }
    scene.order_stops(&stops);
    Ok(scene.builder.finish(name))
}

/// The handle of a container that is there.
pub(super) fn existing(container: &ObservedContainer) -> ContainerHandle {
    ContainerHandle {
        service: container.service.clone(),
        number: container.number,
        name: container.name.clone(),
        id: Some(container.id.clone()),
    }
}

/// `pre_stop` hooks, which need a process to run beside, and the stop; first and last step.
pub(super) fn stop_steps(
    builder: &mut Builder,
    handle: &ContainerHandle,
    container: &ObservedContainer,
    hooks: &[ServiceHook],
    timeout_seconds: Option<i64>,
    cause: &Cause,
    place: Option<String>,
) -> (Key, Key) {
    let mut first = None;
    let mut previous = None;
    if container.state == ContainerStatus::Running {
        for (index, hook) in hooks.iter().enumerate() {
            let request = Box::new(convert::hook(hook));
            let operation = Operation::RunHook {
                container: handle.clone(),
                kind: HookKind::PreStop,
                index,
                request,
            };
            let step = builder.add(operation, Cause::Hook, place.clone());
            if let Some(previous) = previous {
                builder.needs(step, previous);
            }
            first = first.or(Some(step));
            previous = Some(step);
        }
    }
    let operation = Operation::StopContainer {
        container: handle.clone(),
        timeout_seconds,
    };
    let stop = builder.add(operation, cause.clone(), place);
    if let Some(previous) = previous {
        builder.needs(stop, previous);
    }
    (first.unwrap_or(stop), stop)
}

/// First and last steps of stopping, by service.
#[derive(Default)]
struct Stops(BTreeMap<String, Vec<(Key, Key)>>);

impl Stops {
    fn add(&mut self, service: &str, first: Key, last: Key) {
        self.0
            .entry(service.to_owned())
            .or_default()
            .push((first, last));
    }
}

/// What a verb acts on.
struct Scene<'a> {
    name: &'a str,
    project: Option<&'a Project>,
    observed: &'a ObservedState,
    /// Services acted on; `None` = all.
    selected: Option<BTreeSet<String>>,
    builder: Builder,
}

impl<'a> Scene<'a> {
    fn new(
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
    fn containers(&self) -> Vec<&'a ObservedContainer> {
        let selected = |container: &&ObservedContainer| {
            self.selected
                .as_ref()
                .is_none_or(|selected| selected.contains(&container.service))
        };
        self.observed.containers.iter().filter(selected).collect()
    }

    fn knows(&self, service: &str) -> bool {
        self.project
            .is_none_or(|project| project.any_service(service).is_some())
    }

    fn require_containers(&self, services: &[String]) -> Result<(), PlanError> {
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

    fn stop(
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
    fn dependencies(&self) -> BTreeMap<String, BTreeMap<String, (DependencyCondition, bool)>> {
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
    fn order_stops(&mut self, stops: &Stops) {
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
    fn start(&mut self, containers: &[&ObservedContainer], stopped: &BTreeMap<&str, Key>) {
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
        let mut last = start;
        for (index, hook) in service
            .map_or(&[][..], |service| &service.post_start)
            .iter()
            .enumerate()
        {
            let request = Box::new(convert::hook(hook));
            let operation = Operation::RunHook {
                container: existing(container),
                kind: HookKind::PostStart,
                index,
                request,
            };
            let step = self.builder.add(operation, Cause::Hook, None);
            self.builder.needs(step, last);
            last = step;
        }
        last
    }

    /// Steps a start comes after because of one dependency.
    fn before_start(
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
    fn select_restarting_dependants(&mut self) {
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

    fn remove_networks(&mut self, removed: &[Key]) {
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

    fn remove_volumes(&mut self, removed: &[Key]) {
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

    fn remove_images(&mut self, which: RemoveImages, removed: &[Key]) {
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
