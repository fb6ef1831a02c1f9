//! The plan of a deployment: what to do to a cluster so that it holds what a project says, as data. No I/O; the same
//! inputs give the same plan, so that what `--plan` prints is what a deployment would do.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::NetworkCreateRequest;
use agent_api::swarm::{ConfigSpec, ObjectVersion, SecretSpec, Service, ServiceSpec};

use super::canonical;
use super::desired::{DesiredPayload, DesiredStack, PayloadName};
use super::diff::{FieldChange, diff};
use super::labels;
use super::observed::{ObservedPayload, ObservedStack, ResolvedImage};
use super::options::{DeployOptions, Leftovers, ResolveImage};
use crate::plan::{PlanError, Problem};

/// Steps in the order they are done.
#[derive(Clone, Debug, Default)]
pub struct StackPlan {
    /// Name of the stack.
    pub stack: String,
    /// What is done.
    pub steps: Vec<StackStep>,
    /// What stays as it is: `service app_db`.
    pub unchanged: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Names of all services there will be, in the order of their dependencies.
    pub services: Vec<String>,
}

/// One step.
#[derive(Clone, Debug)]
pub enum StackStep {
    /// Make a network.
    CreateNetwork {
        /// The request.
        request: Box<NetworkCreateRequest>,
    },
    /// Make a secret.
    CreateSecret {
        /// Its spec.
        spec: SecretSpec,
    },
    /// Make sure that a secret with a name of its own holds what the file says, and bring its labels up to date.
    UpdateSecret {
        /// Id.
        id: String,
        /// The version that was seen.
        version: ObjectVersion,
        /// Its spec.
        spec: SecretSpec,
    },
    /// Make a config.
    CreateConfig {
        /// Its spec.
        spec: ConfigSpec,
    },
    /// As for secrets.
    UpdateConfig {
        /// Id.
        id: String,
        /// The version that was seen.
        version: ObjectVersion,
        /// Its spec.
        spec: ConfigSpec,
    },
    /// Make a service.
    CreateService {
        /// Its spec, whose secrets and configs have names but no ids yet.
        spec: Box<ServiceSpec>,
    },
    /// Change a service.
    UpdateService {
        /// Id.
        id: String,
        /// The version that was seen.
        version: ObjectVersion,
        /// Its spec.
        spec: Box<ServiceSpec>,
        /// What differs; never empty.
        changes: Vec<FieldChange>,
    },
    /// Remove a service that is not in the file any more.
    RemoveService {
        /// Id.
        id: String,
        /// Name.
        name: String,
    },
    /// Remove a network that no service of the stack uses any more.
    RemoveNetwork {
        /// Id.
        id: String,
        /// Name.
        name: String,
    },
    /// Remove a secret that nothing refers to any more.
    RemoveSecret {
        /// Id.
        id: String,
        /// Name.
        name: String,
    },
    /// Remove a config that nothing refers to any more.
    RemoveConfig {
        /// Id.
        id: String,
        /// Name.
        name: String,
    },
}

/// Plans a deployment.
///
/// # Errors
/// What the file refers to and is not there, or belongs to somebody else.
pub fn plan(
    desired: &DesiredStack,
    observed: &ObservedStack,
    options: DeployOptions,
) -> Result<StackPlan, PlanError> {
    let mut planner = Planner {
        desired,
        observed,
        options,
        plan: StackPlan {
            stack: desired.stack.clone(),
            warnings: desired.warnings.iter().map(ToString::to_string).collect(),
            ..StackPlan::default()
        },
        problems: Vec::new(),
    };
    planner.external();
    planner.networks();
    planner.payloads();
    planner.services();
    planner.leftovers();
    if planner.problems.is_empty() {
        Ok(planner.plan)
    } else {
        Err(PlanError {
            problems: planner.problems,
        })
    }
}

/// References of images that a plan with these options needs looked up.
#[must_use]
pub fn images_to_resolve(
    desired: &DesiredStack,
    services: &BTreeMap<String, Service>,
    resolve: ResolveImage,
) -> BTreeSet<String> {
    let wanted = desired.services.iter().filter_map(|service| {
        let image = image_of(&service.spec)?;
        let same = services
            .get(&service.spec.annotations.name)
            .is_some_and(|existing| names_image(existing, &service.spec));
        let asked = match resolve {
            ResolveImage::Always => true,
            ResolveImage::Changed => !same,
            ResolveImage::Never => false,
        };
        (asked && !image.contains('@')).then(|| image.to_owned())
    });
    wanted.collect()
}

fn image_of(spec: &ServiceSpec) -> Option<&str> {
    let container = spec.task_template.container_spec.as_ref()?;
    Some(container.image.as_str())
}

/// Whether the file named the same image when the service was deployed last.
fn names_image(existing: &Service, spec: &ServiceSpec) -> bool {
    let named = |spec: &ServiceSpec| spec.annotations.labels.get(labels::IMAGE).cloned();
    named(&existing.spec).is_some_and(|before| named(spec) == Some(before))
}

struct Planner<'a> {
    desired: &'a DesiredStack,
    observed: &'a ObservedStack,
    options: DeployOptions,
    plan: StackPlan,
    problems: Vec<Problem>,
}

impl<'a> Planner<'a> {
    fn problem(&mut self, message: String) {
        self.problems.push(Problem {
            place: None,
            service: None,
            message,
        });
    }

    fn external(&mut self) {
        let external = &self.desired.external;
        for name in &external.networks {
            match self.observed.networks.get(name) {
                None => self.problem(format!(
                    "network {name} is external and does not exist: make it with `muster network create --driver overlay {name}`"
                )),
                Some(network) if network.scope != "swarm" => {
                    let scope = network.scope.clone();
                    self.problem(format!(
                        "network {name} is external and its scope is {scope}: a stack needs one of the cluster (`muster network create --driver overlay`)"
                    ));
                }
                Some(_) => {}
            }
        }
        for (kind, names, there) in [
            ("secret", &external.secrets, &self.observed.secrets),
            ("config", &external.configs, &self.observed.configs),
        ] {
            for name in names.iter().filter(|name| !there.contains_key(*name)) {
                self.problem(format!(
                    "{kind} {name} is external and does not exist: make it with `muster {kind} create {name} FILE`"
                ));
            }
        }
    }

    fn networks(&mut self) {
        for (name, request) in &self.desired.networks {
            let Some(existing) = self.observed.networks.get(name) else {
                self.plan.steps.push(StackStep::CreateNetwork {
                    request: Box::new(request.clone()),
                });
                continue;
            };
            let stack = existing.labels.get(labels::NAMESPACE);
            if stack != Some(&self.desired.stack) {
                let owner = match stack {
                    Some(stack) => format!("belongs to stack {stack}"),
                    None => "belongs to no stack".to_owned(),
                };
                self.problem(format!(
                    "network {name} exists and {owner}: use `external: true` to use it"
                ));
                continue;
            }
            let other = changed_settings(request, existing);
            if !other.is_empty() {
                self.plan.warnings.push(format!(
                    "network {name} was made with another {}; it is kept as it is: remove the stack to make it anew",
                    other.join(", ")
                ));
            }
            self.plan.unchanged.push(format!("network {name}"));
        }
    }

    fn payloads(&mut self) {
        let desired = self.desired;
        for (name, wanted) in &desired.secrets {
            let existing = self.observed.secrets.get(name);
            let step = match self.existing("secret", name, wanted, existing) {
                Payload::Missing => StackStep::CreateSecret {
                    spec: wanted.spec.clone(),
                },
                Payload::Checked(existing) => StackStep::UpdateSecret {
                    id: existing.id.clone(),
                    version: existing.version,
                    spec: wanted.spec.clone(),
                },
                Payload::There => continue,
            };
            self.plan.steps.push(step);
        }
        for (name, wanted) in &desired.configs {
            let existing = self.observed.configs.get(name);
            let step = match self.existing("config", name, wanted, existing) {
                Payload::Missing => StackStep::CreateConfig {
                    spec: wanted.spec.clone(),
                },
                Payload::Checked(existing) => StackStep::UpdateConfig {
                    id: existing.id.clone(),
                    version: existing.version,
                    spec: wanted.spec.clone(),
                },
                Payload::There => continue,
            };
            self.plan.steps.push(step);
        }
    }

    fn existing<S>(
        &mut self,
        kind: &str,
        name: &str,
        wanted: &DesiredPayload<S>,
        existing: Option<&'a ObservedPayload>,
    ) -> Payload<'a> {
        let Some(existing) = existing else {
            return Payload::Missing;
        };
        if existing.stack.as_deref() != Some(self.desired.stack.as_str()) {
            self.problem(format!(
                "{kind} {name} exists and does not belong to this stack: use `external: true` to use it"
            ));
            return Payload::There;
        }
        match wanted.name {
            PayloadName::OfContent => {
                self.plan.unchanged.push(format!("{kind} {name}"));
                Payload::There
            }
            PayloadName::Given => Payload::Checked(existing),
        }
    }

    fn services(&mut self) {
        let desired = self.desired;
        let observed = self.observed;
        let ids: BTreeMap<&str, &str> = observed
            .networks
            .iter()
            .map(|(name, network)| (network.id.as_str(), name.as_str()))
            .collect();
        for service in &desired.services {
            let mut spec = service.spec.clone();
            let name = spec.annotations.name.clone();
            let existing = observed.services.get(&name);
            self.image(&mut spec, existing);
            self.plan.services.push(name.clone());
            let Some(existing) = existing else {
                self.plan.steps.push(StackStep::CreateService {
                    spec: Box::new(spec),
                });
                continue;
            };
            // Deploying is no wish to replace tasks that are as they should be.
            spec.task_template.force_update = existing.spec.task_template.force_update;
            let before = canonical::spec(&existing.spec, &ids);
            let after = canonical::spec(&spec, &ids);
            let changes = diff(&before, &after);
            if changes.is_empty() {
                self.plan.unchanged.push(format!("service {name}"));
                continue;
            }
            self.plan.steps.push(StackStep::UpdateService {
                id: existing.id.clone(),
                version: existing.version,
                spec: Box::new(spec),
                changes,
            });
        }
    }

    /// Puts the digest into the image's name where one is known. What cannot be looked up now keeps the digest that the
    /// service has, as long as the file names the same image: a registry that is away must not change what runs.
    fn image(&mut self, spec: &mut ServiceSpec, existing: Option<&Service>) {
        let Some(image) = image_of(spec).map(str::to_owned) else {
            return;
        };
        let same = existing.filter(|existing| names_image(existing, spec));
        match self.observed.images.get(&image) {
            Some(ResolvedImage::Pinned {
                reference,
                platforms,
            }) => {
                let container = spec.task_template.container_spec.get_or_insert_default();
                container.image.clone_from(reference);
                let placement = spec.task_template.placement.get_or_insert_default();
                if placement.platforms.is_empty() {
                    placement.platforms.clone_from(platforms);
                }
            }
            looked_up => {
                if let Some(existing) = same {
                    let template = &existing.spec.task_template;
                    let container = spec.task_template.container_spec.get_or_insert_default();
                    if let Some(before) = &template.container_spec {
                        container.image.clone_from(&before.image);
                    }
                    let placement = spec.task_template.placement.get_or_insert_default();
                    if let (Some(before), true) =
                        (&template.placement, placement.platforms.is_empty())
                    {
                        placement.platforms.clone_from(&before.platforms);
                    }
                } else if let Some(ResolvedImage::Unknown(why)) = looked_up {
                    let name = &spec.annotations.name;
                    self.plan.warnings.push(format!(
                        "service {name}: image {image} goes without a digest, so that each node takes what the name means to it: {why}"
                    ));
                }
            }
        }
    }

    fn leftovers(&mut self) {
        let desired = self.desired;
        let prune = self.options.leftovers == Leftovers::Prune;
        let kept: BTreeSet<&str> = desired
            .services
            .iter()
            .map(|service| service.spec.annotations.name.as_str())
            .collect();
        let mut removed = BTreeSet::new();
        for (name, service) in &self.observed.services {
            if kept.contains(name.as_str()) {
                continue;
            }
            if prune {
                removed.insert(name.as_str());
                self.plan.steps.push(StackStep::RemoveService {
                    id: service.id.clone(),
                    name: name.clone(),
                });
            } else {
                self.plan.warnings.push(format!(
                    "service {name} is not in the file any more and stays: --prune removes it"
                ));
            }
        }
        if prune {
            for (name, network) in &self.observed.networks {
                let ours = network.labels.get(labels::NAMESPACE) == Some(&desired.stack);
                if ours && !desired.networks.contains_key(name) {
                    self.plan.steps.push(StackStep::RemoveNetwork {
                        id: network.id.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
        let used = self.used_after(&removed);
        for (name, secret) in &self.observed.secrets {
            let stale =
                !desired.secrets.contains_key(name) && !used.secrets.contains(name.as_str());
            if stale && self.is_ours_to_remove(secret) {
                self.plan.steps.push(StackStep::RemoveSecret {
                    id: secret.id.clone(),
                    name: name.clone(),
                });
            }
        }
        for (name, config) in &self.observed.configs {
            let stale =
                !desired.configs.contains_key(name) && !used.configs.contains(name.as_str());
            if stale && self.is_ours_to_remove(config) {
                self.plan.steps.push(StackStep::RemoveConfig {
                    id: config.id.clone(),
                    name: name.clone(),
                });
            }
        }
    }

    /// Versions that were replaced go by themselves; what another tool made only when pruning was asked for.
    fn is_ours_to_remove(&self, payload: &ObservedPayload) -> bool {
        payload.stack.as_deref() == Some(self.desired.stack.as_str())
            && payload.other_users.is_empty()
            && (payload.key.is_some() || self.options.leftovers == Leftovers::Prune)
    }

    /// Names of the secrets and configs that services of the stack refer to once the plan is done: now, or after a
    /// rollback. What a service has before an update is what it goes back to afterwards.
    fn used_after(&self, removed: &BTreeSet<&str>) -> Used<'a> {
        let updated: BTreeSet<&str> = self
            .plan
            .steps
            .iter()
            .filter_map(|step| match step {
                StackStep::UpdateService { spec, .. } => Some(spec.annotations.name.as_str()),
                _ => None,
            })
            .collect();
        let mut used = Used::default();
        let services = self.observed.services.iter();
        for (name, service) in services.filter(|(name, _)| !removed.contains(name.as_str())) {
            used.add(&service.spec);
            if let Some(previous) = &service.previous_spec
                && !updated.contains(name.as_str())
            {
                used.add(previous);
            }
        }
        used
    }
}

/// Names of secrets and configs.
#[derive(Default)]
struct Used<'a> {
    secrets: BTreeSet<&'a str>,
    configs: BTreeSet<&'a str>,
}

impl<'a> Used<'a> {
    fn add(&mut self, spec: &'a ServiceSpec) {
        if let Some(container) = &spec.task_template.container_spec {
            let secrets = container.secrets.iter();
            self.secrets
                .extend(secrets.map(|secret| secret.secret_name.as_str()));
            let configs = container.configs.iter();
            self.configs
                .extend(configs.map(|config| config.config_name.as_str()));
        }
    }
}

/// A secret or config that a service is to have.
enum Payload<'a> {
    Missing,
    /// It is there and holds what it should.
    There,
    /// It is there, and the managers must say whether it holds what it should.
    Checked(&'a ObservedPayload),
}

/// Settings of a network that are not what the file asks for; what the file leaves open is no difference.
fn changed_settings(
    request: &NetworkCreateRequest,
    existing: &agent_api::Network,
) -> Vec<&'static str> {
    let subnets = |ipam: &agent_api::Ipam| -> BTreeSet<String> {
        let pools = ipam.config.iter();
        pools
            .map(|pool| pool.subnet.clone())
            .filter(|subnet| !subnet.is_empty())
            .collect()
    };
    let wanted = request.ipam.as_ref().map(subnets).unwrap_or_default();
    let options = request
        .options
        .iter()
        .any(|(key, value)| existing.options.get(key) != Some(value));
    let settings = [
        ("driver", request.driver != existing.driver),
        ("internal", request.internal != existing.internal),
        ("attachable", request.attachable != existing.attachable),
        (
            "enable_ipv6",
            request
                .enable_ipv6
                .is_some_and(|on| on != existing.enable_ipv6),
        ),
        (
            "subnet",
            !wanted.is_empty() && wanted != subnets(&existing.ipam),
        ),
        ("driver_opts", options),
    ];
    let changed = settings.into_iter().filter(|(_, other)| *other);
    changed.map(|(name, _)| name).collect()
}
