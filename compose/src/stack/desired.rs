//! What a cluster shall hold of a stack, by name: the project in the cluster's terms. Pure.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::NetworkCreateRequest;
use agent_api::swarm::{ConfigSpec, SecretSpec, ServiceSpec};
use compose_model::{Project, ServiceConfig, Sources, Span};

use super::payload::{self, Content, Contents};
use super::{spec, support};
use crate::convert::support::Finding;
use crate::plan::{PlanError, Problem, Warning, order};

/// What there shall be.
#[derive(Clone, Debug, Default)]
pub struct DesiredStack {
    /// Name of the stack.
    pub stack: String,
    /// Networks of the stack that its services use, by name.
    pub networks: BTreeMap<String, NetworkCreateRequest>,
    /// Secrets of the stack that its services use, by name.
    pub secrets: BTreeMap<String, DesiredPayload<SecretSpec>>,
    /// Configs of the stack that its services use, by name.
    pub configs: BTreeMap<String, DesiredPayload<ConfigSpec>>,
    /// Services in the order of their dependencies.
    pub services: Vec<DesiredService>,
    /// What is used and comes from elsewhere.
    pub external: External,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// A secret or config.
#[derive(Clone, Debug)]
pub struct DesiredPayload<S> {
    /// Key in the file.
    pub key: String,
    /// What to make.
    pub spec: S,
    /// Whether its name says what it holds.
    pub name: PayloadName,
}

/// Where the name of a secret or config comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadName {
    /// It carries a digest: what has this name holds this.
    OfContent,
    /// The file gives it, or a driver knows the content: what has this name may hold anything.
    Given,
}

/// One service.
#[derive(Clone, Debug)]
pub struct DesiredService {
    /// Name in the file.
    pub key: String,
    /// Secrets and configs are named in it, without ids.
    pub spec: ServiceSpec,
}

/// Names of what is not the stack's own; it must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Networks.
    pub networks: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Configs.
    pub configs: BTreeSet<String>,
}

/// Translates a project whose name is the stack's.
///
/// # Errors
/// Everything that a stack cannot carry, and contents that cannot be read.
pub fn desired(
    project: &Project,
    sources: &Sources,
    contents: &Contents,
) -> Result<DesiredStack, PlanError> {
    let order = order::order(project).map_err(|cycle| PlanError {
        problems: vec![Problem {
            place: None,
            service: None,
            message: format!("services depend on each other: {}", cycle.join(" → ")),
        }],
    })?;
    let mut build = Build {
        project,
        sources,
        contents,
        names: spec::PayloadNames::default(),
        stack: DesiredStack {
            stack: project.name.clone(),
            ..DesiredStack::default()
        },
        problems: Vec::new(),
    };
    for name in &order {
        build.check(name, &project.services[*name]);
    }
    for name in order {
        build.service(name, &project.services[name]);
    }
    if build.problems.is_empty() {
        Ok(build.stack)
    } else {
        Err(PlanError {
            problems: build.problems,
        })
    }
}

struct Build<'a> {
    project: &'a Project,
    sources: &'a Sources,
    contents: &'a Contents,
    names: spec::PayloadNames,
    stack: DesiredStack,
    problems: Vec<Problem>,
}

impl Build<'_> {
    /// `file:line:column`, for people.
    fn place(&self, span: Span) -> Option<String> {
        self.sources
            .locate(span)
            .map(|location| location.to_string())
    }

    fn check(&mut self, name: &str, service: &ServiceConfig) {
        for finding in support::check(self.project, service) {
            let place = self.place(service.span);
            match finding {
                Finding::Refused(message) => self.problems.push(Problem {
                    place,
                    service: Some(name.to_owned()),
                    message,
                }),
                Finding::Ignored(attribute, reason) => {
                    self.stack.warnings.push(Warning::Ignored {
                        place,
                        subject: format!("service {name}"),
                        attribute: attribute.to_owned(),
                        reason,
                    });
                }
            }
        }
    }

    fn service(&mut self, name: &str, service: &ServiceConfig) {
        for reference in &service.secrets {
            self.secret(&reference.source);
        }
        for reference in &service.configs {
            self.config(&reference.source);
        }
        if service.network_mode.is_none() {
            for key in service.networks.keys() {
                self.network(key);
            }
        }
        let spec = spec::service(self.project, name, service, &self.names);
        self.stack.services.push(DesiredService {
            key: name.to_owned(),
            spec,
        });
    }

    fn network(&mut self, key: &str) {
        let Some(network) = self.project.networks.get(key) else {
            return;
        };
        let name = network.name.clone();
        if spec::is_predefined(&name) {
            return;
        }
        if network.external {
            self.stack.external.networks.insert(name);
        } else {
            let request = spec::network(&self.project.name, network);
            self.stack.networks.insert(name, request);
        }
    }

    fn secret(&mut self, key: &str) {
        let Some(secret) = self.project.secrets.get(key) else {
            return;
        };
        if self.names.secrets.contains_key(key) {
            return;
        }
        let name = if secret.external {
            self.stack.external.secrets.insert(secret.name.clone());
            secret.name.clone()
        } else {
            let Some(data) = self.data("secret", key, self.contents.secrets.get(key)) else {
                return;
            };
            let name = match secret.driver {
                // What a driver gives is not known here.
                Some(_) => secret.name.clone(),
                None => payload::secret_name(self.project, key, secret, &data),
            };
            let made = DesiredPayload {
                key: key.to_owned(),
                spec: spec::secret(&self.project.name, (key, &name), secret, &data),
                name: payload_name(&name, &secret.name),
            };
            self.stack.secrets.insert(name.clone(), made);
            name
        };
        self.names.secrets.insert(key.to_owned(), name);
    }

    fn config(&mut self, key: &str) {
        let Some(config) = self.project.configs.get(key) else {
            return;
        };
        if self.names.configs.contains_key(key) {
            return;
        }
        let name = if config.external {
            self.stack.external.configs.insert(config.name.clone());
            config.name.clone()
        } else {
            let Some(data) = self.data("config", key, self.contents.configs.get(key)) else {
                return;
            };
            let name = payload::config_name(self.project, key, config, &data);
            let made = DesiredPayload {
                key: key.to_owned(),
                spec: spec::config(&self.project.name, (key, &name), config, &data),
                name: payload_name(&name, &config.name),
            };
            self.stack.configs.insert(name.clone(), made);
            name
        };
        self.names.configs.insert(key.to_owned(), name);
    }

    /// What it holds; nothing for what a driver gives.
    fn data(&mut self, kind: &str, key: &str, content: Option<&Content>) -> Option<Vec<u8>> {
        match content {
            Some(Content::Data(data)) => Some(data.clone()),
            None => Some(Vec::new()),
            Some(Content::Unreadable(why)) => {
                let message = format!("{kind} {key}: {why}");
                let place = match kind {
                    "secret" => self.project.secrets[key].span,
                    _ => self.project.configs[key].span,
                };
                self.problems.push(Problem {
                    place: self.place(place),
                    service: None,
                    message,
                });
                None
            }
        }
    }
}

/// A name that differs from the loader's got a digest.
fn payload_name(name: &str, loaded: &str) -> PayloadName {
    if name == loaded {
        PayloadName::Given
    } else {
        PayloadName::OfContent
    }
}
