//! Secrets and configs the managers have given this node, in memory only.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::{Config, Network, Secret, Task};

use super::action::Preparation;

#[derive(Debug, Default)]
pub(super) struct Payloads {
    secrets: BTreeMap<String, Arc<Secret>>,
    configs: BTreeMap<String, Arc<Config>>,
}

impl Payloads {
    pub(super) fn put_secret(&mut self, secret: Arc<Secret>) {
        self.secrets.insert(secret.id.clone(), secret);
    }

    pub(super) fn put_config(&mut self, config: Arc<Config>) {
        self.configs.insert(config.id.clone(), config);
    }

    pub(super) fn remove_secret(&mut self, id: &str) {
        self.secrets.remove(id);
    }

    pub(super) fn remove_config(&mut self, id: &str) {
        self.configs.remove(id);
    }

    pub(super) fn clear(&mut self) {
        self.secrets.clear();
        self.configs.clear();
    }

    /// All a task's container is made of; `None` while something of it has not arrived.
    pub(super) fn for_task(
        &self,
        task: &Arc<Task>,
        networks: Vec<Arc<Network>>,
    ) -> Option<Preparation> {
        let spec = task.spec.container_spec.as_ref();
        let secrets = spec.map_or(&[][..], |spec| &spec.secrets);
        let configs = spec.map_or(&[][..], |spec| &spec.configs);
        Some(Preparation {
            task: task.clone(),
            networks,
            secrets: secrets
                .iter()
                .map(|reference| self.secrets.get(&reference.secret_id).cloned())
                .collect::<Option<_>>()?,
            configs: configs
                .iter()
                .map(|reference| self.configs.get(&reference.config_id).cloned())
                .collect::<Option<_>>()?,
        })
    }
}
