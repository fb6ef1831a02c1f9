//! Plans `down`, `stop`, `start`, `restart`, `kill` and `rm`: they act on the containers there are and make none.
//!
//! Without a project (`-p` alone) the labels of what is there say what belongs to it and what depends on what.

mod scene;

use std::collections::BTreeMap;

use compose_model::Project;

use super::graph::Key;
use super::options::{Dependencies, DownOptions, Orphans, RemoveOptions, Selection};
use super::steps::existing;
use super::{Cause, Operation, Plan, PlanError, Warning};
use crate::convert;
use crate::state::{ObservedContainer, ObservedState};
use scene::{Scene, Stops};

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
