//! Plans the images of a project: which are built, and why, before containers are planned on top of them.
//!
//! Building may change what a name means, which decides about containers: so images are a plan of their own, carried
//! out first, and the containers' plan is made of what is there then.

use std::collections::{BTreeMap, BTreeSet};

use compose_model::{Project, PullPolicy, Sources};

use super::graph::{Builder, Key};
use super::{Cause, Operation, Plan, PlanError, Problem};
use crate::convert::build::{ServiceBuild, service_build};

/// When images are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Building {
    /// Those that are missing, and those whose service says `pull_policy: build`.
    #[default]
    Missing,
    /// All (`--build`, `build`).
    All,
    /// None (`--no-build`).
    Never,
}

/// Which images are planned, and when they are built.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// Services asked for; empty = all of the project.
    pub services: Vec<String>,
    /// When.
    pub building: Building,
}

/// The builds that give the services their images. `there` are the references that mean an image already.
///
/// # Errors
/// Builds that cannot be done, all of them at once, and services that build on each other.
pub fn images(
    project: &Project,
    sources: &Sources,
    there: &BTreeSet<String>,
    options: &ImageOptions,
) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        project,
        sources,
        builder: Builder::default(),
        steps: BTreeMap::new(),
        visiting: Vec::new(),
        problems: Vec::new(),
    };
    for (name, service) in &project.services {
        if !options.services.is_empty() && !options.services.contains(name) {
            continue;
        }
        if service.build.is_none() {
            continue;
        }
        let image = service.image_or_default(&project.name, name);
        let missing = !there.contains(&image);
        let cause = match options.building {
            Building::Never => continue,
            Building::All => Cause::Requested,
            Building::Missing if service.pull_policy == Some(PullPolicy::Build) => {
                Cause::PolicyBuild
            }
            Building::Missing if missing && service.pull_policy != Some(PullPolicy::Never) => {
                Cause::Missing
            }
            Building::Missing => continue,
        };
        planner.add(name, &cause);
    }
    if !planner.problems.is_empty() {
        return Err(PlanError {
            problems: planner.problems,
        });
    }
    Ok(planner.builder.finish(&project.name))
}

struct Planner<'a> {
    project: &'a Project,
    sources: &'a Sources,
    builder: Builder,
    /// Steps by service.
    steps: BTreeMap<String, Key>,
    /// Services whose steps are being made: one that comes up again builds on itself.
    visiting: Vec<String>,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    /// The step that builds a service's image, after those of the services it builds on.
    fn add(&mut self, name: &str, cause: &Cause) -> Option<Key> {
        if let Some(key) = self.steps.get(name) {
            return Some(*key);
        }
        if self.visiting.iter().any(|other| other == name) {
            let cycle = format!("{} → {name}", self.visiting.join(" → "));
            self.problem(name, format!("the build needs its own image: {cycle}"));
            return None;
        }
        let build = match service_build(self.project, name)? {
            Ok(build) => build,
            Err(message) => {
                self.problem(name, message);
                return None;
            }
        };
        self.visiting.push(name.to_owned());
        let below: Vec<Key> = build
            .from_services
            .values()
            .filter_map(|other| {
                let services = vec![name.to_owned()];
                self.add(other, &Cause::NeededBy { services })
            })
            .collect();
        self.visiting.pop();
        let operation = Operation::BuildImage {
            build: Box::new(build),
        };
        let key = self.builder.add(operation, cause.clone(), self.place(name));
        for earlier in below {
            self.builder.needs(key, earlier);
        }
        self.steps.insert(name.to_owned(), key);
        Some(key)
    }

    fn place(&self, name: &str) -> Option<String> {
        let service = self.project.any_service(name)?;
        self.sources
            .locate(service.span)
            .map(|location| location.to_string())
    }

    fn problem(&mut self, name: &str, message: String) {
        self.problems.push(Problem {
            place: self.place(name),
            service: Some(name.to_owned()),
            message,
        });
    }
}

impl Plan {
    /// The builds of the plan, in its order.
    pub fn builds(&self) -> impl Iterator<Item = &ServiceBuild> {
        self.steps.iter().filter_map(|step| match &step.operation {
            Operation::BuildImage { build } => Some(&**build),
            _ => None,
        })
    }
}
