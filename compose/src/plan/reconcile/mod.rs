//! Plans `up` and `create`: two passes over the services, dependencies first.
//!
//! ```text
//!   select.rs     which services take part
//!   check.rs      problems of the project, all of them, before anything is decided
//!   resources.rs  networks and volumes: there, missing, or to be replaced
//!   decide.rs     every container: keep, create, replace, remove, restart, and why        (pass 1)
//!   emit.rs       decisions → steps with their order; start.rs starts, hooks and waits    (pass 2)
//! ```
//!
//! Order of a replacement: the new container is created under a temporary name, then the old one is stopped and
//! removed, then the new one gets the name and is started. So the old one runs until all is ready, an interrupted
//! replacement can be told from the labels, and anonymous volumes pass from one to the other. When a network or volume
//! itself is replaced, its users have to be out of the way first.

mod check;
mod decide;
mod emit;
mod resources;
mod select;
mod start;

use std::collections::{BTreeMap, BTreeSet};

use compose_model::{Project, ServiceConfig, Sources, Span};

use super::graph::{Builder, Key};
use super::hash::{self, Fingerprint};
use super::options::UpOptions;
use super::{ContainerHandle, Plan, PlanError, Problem, Warning, order};
use crate::state::ObservedState;
use decide::Decision;
use resources::Resource;

/// The steps that make the engine hold what the project says.
///
/// # Errors
/// All problems of the project at once; in particular images and external resources that are not there.
pub fn reconcile(
    project: &Project,
    sources: &Sources,
    observed: &ObservedState,
    options: &UpOptions,
) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        project,
        sources,
        observed,
        options,
        order: Vec::new(),
        active: BTreeSet::new(),
        fingerprints: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        decisions: BTreeMap::new(),
        unsettled: BTreeMap::new(),
        emitted: BTreeMap::new(),
        builder: Builder::default(),
        problems: Vec::new(),
    };
    planner.select();
    planner.fail_on_problems()?;
    planner.decide_all();
    planner.check();
    planner.fail_on_problems()?;
    planner.emit();
    Ok(planner.builder.finish(&project.name))
}

/// Everything the passes share.
struct Planner<'a> {
    project: &'a Project,
    sources: &'a Sources,
    observed: &'a ObservedState,
    options: &'a UpOptions,
    /// All services, dependencies first.
    order: Vec<&'a str>,
    /// Services that are brought up; others are touched only where something they share is replaced.
    active: BTreeSet<&'a str>,
    /// Of all services.
    fingerprints: BTreeMap<&'a str, Fingerprint>,
    /// Networks and volumes that services with a part in the plan use, by key.
    networks: BTreeMap<&'a str, Resource>,
    volumes: BTreeMap<&'a str, Resource>,
    /// What happens to the containers of each service, by number.
    decisions: BTreeMap<&'a str, Vec<Decision<'a>>>,
    /// Containers that go, or go down for a moment, by id, with their service.
    unsettled: BTreeMap<&'a str, &'a str>,
    /// Steps of each service's containers.
    emitted: BTreeMap<&'a str, Vec<Emitted>>,
    builder: Builder,
    problems: Vec<Problem>,
}

/// Steps of one container that other steps refer to.
#[derive(Clone, Debug, Default)]
struct Emitted {
    /// The container there will be; `None` when it only goes away.
    handle: Option<ContainerHandle>,
    /// The new container exists.
    create: Option<Key>,
    /// First and last step of stopping the old one (hooks, stop).
    stop: Option<(Key, Key)>,
    /// The old container is gone.
    remove: Option<Key>,
    /// The new one has its final name.
    rename: Option<Key>,
    /// First step of the start and the last one, after the hooks.
    start: Option<(Key, Key)>,
}

impl<'a> Planner<'a> {
    fn service(&self, name: &str) -> &'a ServiceConfig {
        &self.project.services[name]
    }

    /// `file:line:column`, for people.
    fn place(&self, span: Span) -> Option<String> {
        self.sources
            .locate(span)
            .map(|location| location.to_string())
    }

    fn service_place(&self, name: &str) -> Option<String> {
        self.project
            .any_service(name)
            .and_then(|service| self.place(service.span))
    }

    fn problem(&mut self, service: Option<&str>, message: String) {
        let place = service.and_then(|name| self.service_place(name));
        self.report(Problem {
            place,
            service: service.map(str::to_owned),
            message,
        });
    }

    fn report(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn warn(&mut self, warning: Warning) {
        if !self.builder.warnings.contains(&warning) {
            self.builder.warnings.push(warning);
        }
    }

    /// Replacing what services share can take along services that were not asked for, or that share only as they are,
    /// no longer as the file says; their networks and volumes then count too, which can take along more.
    fn decide_all(&mut self) {
        let mut touched = self.active.clone();
        loop {
            self.inspect_resources(&touched);
            self.decisions.clear();
            self.decide();
            let renewed = self.decisions.iter().filter(|(name, decisions)| {
                self.project.services.contains_key(**name) && decisions.iter().any(Decision::is_new)
            });
            let before = (touched.len(), self.unsettled.len());
            touched.extend(renewed.map(|(name, _)| *name));
            self.unsettled.extend(decide::unsettled(&self.decisions));
            if (touched.len(), self.unsettled.len()) == before {
                return;
            }
        }
    }

    fn fail_on_problems(&mut self) -> Result<(), PlanError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(PlanError {
            problems: std::mem::take(&mut self.problems),
        })
    }

    /// Number of containers a service shall have.
    fn scale(&self, name: &str) -> u32 {
        self.options
            .scale
            .get(name)
            .copied()
            .unwrap_or_else(|| self.service(name).replicas())
    }
}
