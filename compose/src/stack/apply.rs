//! Carries a plan out, step by step. Decides nothing: what a step needs from an earlier one is an id.

use std::collections::BTreeMap;

use agent_api::Client;
use agent_api::client::{ClientError, RegistryAuth, UpdateKind};
use agent_api::swarm::ServiceSpec;

use super::observed::ObservedStack;
use super::plan::{StackPlan, StackStep};
use super::remove::{RemoveError, tasks_gone};

/// A deployment stopped at a step; those before it are done, and doing it again goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {hint}")]
pub struct ApplyError {
    /// What was being done: `creating service app_web`.
    pub step: String,
    /// What the daemon said, and what to do about it.
    pub hint: String,
    /// The cause.
    #[source]
    pub source: Option<ClientError>,
}

/// Does all steps, and gives the ids of the services there are then, by name. `credentials` are those that go with
/// services, by their names.
///
/// # Errors
/// The first step that fails.
pub async fn apply(
    client: &Client,
    plan: &StackPlan,
    observed: &ObservedStack,
    credentials: &BTreeMap<String, RegistryAuth>,
    show: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, String>, ApplyError> {
    let mut apply = Apply::new(client, observed, credentials);
    for step in &plan.steps {
        show(&step.doing());
        let result = apply.step(step, show).await;
        result.map_err(|source| failed(step, source))?;
    }
    apply
        .services
        .retain(|name, _| plan.services.contains(name));
    Ok(apply.services)
}

fn failed(step: &StackStep, source: Failure) -> ApplyError {
    let source = match source {
        Failure::Client(source) => source,
        Failure::Other(hint) => {
            return ApplyError {
                step: doing(step),
                hint,
                source: None,
            };
        }
    };
    let hint = match step {
        StackStep::UpdateSecret { .. } | StackStep::UpdateConfig { .. } => format!(
            "{source}: a name given with `name:` cannot get another content: change the name, or leave it out"
        ),
        StackStep::UpdateService { .. } if source.to_string().contains("out of sequence") => {
            format!("{source}: somebody else changed it meanwhile: deploy again")
        }
        _ => source.to_string(),
    };
    ApplyError {
        step: doing(step),
        hint,
        source: Some(source),
    }
}

/// `creating service app_web`
fn doing(step: &StackStep) -> String {
    let text = step.doing();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

enum Failure {
    Client(ClientError),
    Other(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

struct Apply<'a> {
    client: &'a Client,
    credentials: &'a BTreeMap<String, RegistryAuth>,
    /// Ids by name.
    secrets: BTreeMap<String, String>,
    configs: BTreeMap<String, String>,
    services: BTreeMap<String, String>,
    /// Services whose tasks may still hold networks.
    removed: Vec<String>,
}

impl<'a> Apply<'a> {
    fn new(
        client: &'a Client,
        observed: &ObservedStack,
        credentials: &'a BTreeMap<String, RegistryAuth>,
    ) -> Self {
        let payloads = |map: &BTreeMap<String, super::ObservedPayload>| {
            let ids = map.iter();
            ids.map(|(name, payload)| (name.clone(), payload.id.clone()))
                .collect()
        };
        Self {
            client,
            credentials,
            secrets: payloads(&observed.secrets),
            configs: payloads(&observed.configs),
            services: observed
                .services
                .iter()
                .map(|(name, service)| (name.clone(), service.id.clone()))
                .collect(),
            removed: Vec::new(),
        }
    }

    async fn step(&mut self, step: &StackStep, show: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        let client = self.client;
        match step {
            StackStep::CreateNetwork { request } => {
                let made = client.create_network(request).await?;
                if !made.warning.is_empty() {
                    show(&made.warning);
                }
            }
            StackStep::CreateSecret { spec } => {
                let id = client.create_secret(spec).await?;
                self.secrets.insert(spec.annotations.name.clone(), id);
            }
            StackStep::CreateConfig { spec } => {
                let id = client.create_config(spec).await?;
                self.configs.insert(spec.annotations.name.clone(), id);
            }
            StackStep::UpdateSecret { id, version, spec } => {
                client.update_secret(id, *version, spec).await?;
            }
            StackStep::UpdateConfig { id, version, spec } => {
                client.update_config(id, *version, spec).await?;
            }
            StackStep::CreateService { spec } => {
                let auth = self.credentials.get(&spec.annotations.name);
                let made = client.create_service(&self.with_ids(spec), auth).await?;
                made.warnings.iter().for_each(|warning| show(warning));
                self.services.insert(spec.annotations.name.clone(), made.id);
            }
            StackStep::UpdateService {
                id, version, spec, ..
            } => {
                let auth = self.credentials.get(&spec.annotations.name);
                let spec = self.with_ids(spec);
                let made = client
                    .update_service(id, *version, &spec, UpdateKind::ToSpec, auth)
                    .await?;
                made.warnings.iter().for_each(|warning| show(warning));
            }
            StackStep::RemoveService { id, .. } => {
                absent_is_fine(client.remove_service(id).await.map(drop))?;
                self.removed.push(id.clone());
            }
            StackStep::RemoveNetwork { id, .. } => {
                let gone = tasks_gone(client, &self.removed, None).await;
                gone.map_err(|error| match error {
                    RemoveError::Client(error) => Failure::Client(error),
                    error => Failure::Other(error.to_string()),
                })?;
                absent_is_fine(client.remove_network(id).await)?;
            }
            StackStep::RemoveSecret { id, .. } => {
                absent_is_fine(client.remove_secret(id).await.map(drop))?;
            }
            StackStep::RemoveConfig { id, .. } => {
                absent_is_fine(client.remove_config(id).await.map(drop))?;
            }
        }
        Ok(())
    }

    /// The spec with the ids of its secrets and configs.
    fn with_ids(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut spec = spec.clone();
        if let Some(container) = &mut spec.task_template.container_spec {
            for secret in &mut container.secrets {
                if let Some(id) = self.secrets.get(&secret.secret_name) {
                    secret.secret_id.clone_from(id);
                }
            }
            for config in &mut container.configs {
                if let Some(id) = self.configs.get(&config.config_name) {
                    config.config_id.clone_from(id);
                }
            }
        }
        spec
    }
}

fn absent_is_fine(result: Result<(), ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}
