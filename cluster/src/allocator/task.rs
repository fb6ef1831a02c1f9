//! Addresses of tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::NetworkAttachmentConfig;
use cluster_api::{Attachment, DesiredState, Service, Task, TaskState, TaskStatus};

use super::network::is_overlay;
use super::service::{Target, are_usable, publishes, resolve, targets};
use super::space::Space;
use super::trial::{Trial, families};
use super::{AllocationError, Outcome};

const ALLOCATED: &str = "pending task scheduling";

impl Trial<'_> {
    /// Gives a new task its addresses, once its service has its own.
    pub(super) fn task(&mut self, id: &str, spaces: &mut BTreeMap<String, Space>) -> Outcome {
        let Some(task) = self.store.task(id) else {
            return Outcome::Done;
        };
        if task.status.state != TaskState::New || task.desired >= DesiredState::Shutdown {
            return Outcome::Done;
        }
        let service = self.store.service(&task.service_id);
        if let Some(service) = service {
            if service.pending_delete {
                return Outcome::Stuck;
            }
            if !self.is_settled_once(service, spaces) {
                return self.explain(task, service.error.clone());
            }
        } else if !task.service_id.is_empty() {
            return Outcome::Stuck;
        }
        match self.attachments(task, service, spaces) {
            Ok(Some(networks)) => self.allocated(task, service, networks),
            Ok(None) => Outcome::Stuck,
            Err(error) => self.explain(task, error.to_string()),
        }
    }

    fn is_settled_once(&mut self, service: &Service, spaces: &BTreeMap<String, Space>) -> bool {
        if let Some(settled) = self.settled.get(&service.id) {
            return *settled;
        }
        let settled = self.is_settled(service, spaces);
        self.settled.insert(service.id.clone(), settled);
        settled
    }

    fn allocated(
        &mut self,
        task: &Arc<Task>,
        service: Option<&Arc<Service>>,
        networks: Vec<Attachment>,
    ) -> Outcome {
        let mut wanted = Task::clone(task);
        wanted.networks = networks;
        wanted.endpoint = service.map_or_else(Default::default, |s| s.endpoint.clone());
        wanted.status = TaskStatus {
            state: TaskState::Pending,
            since: self.now.wall,
            message: ALLOCATED.to_owned(),
            ..TaskStatus::default()
        };
        if self.batch.update(wanted) {
            Outcome::Written
        } else {
            Outcome::Full
        }
    }

    /// Says why the task waits, where that is not said yet.
    fn explain(&mut self, task: &Task, error: String) -> Outcome {
        if task.status.error == error {
            return Outcome::Stuck;
        }
        let status = TaskStatus {
            since: self.now.wall,
            error,
            ..task.status.clone()
        };
        if self.batch.task_status(&task.id, status) {
            Outcome::Written
        } else {
            Outcome::Full
        }
    }

    /// `None` while one of the networks is not allocated yet.
    fn attachments(
        &mut self,
        task: &Task,
        service: Option<&Arc<Service>>,
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<Option<Vec<Attachment>>, AllocationError> {
        let store = self.store;
        let named: &[NetworkAttachmentConfig] = match service {
            Some(service) if task.spec.networks.is_empty() => targets(&service.spec),
            _ => &task.spec.networks,
        };
        let mut wanted: Vec<(Target<'_>, &[String])> = Vec::new();
        if service.is_some_and(|service| publishes(service)) {
            let ingress = self.ingress_network().ok_or(AllocationError::NoIngress)?;
            wanted.push((Target::Network(ingress), &[]));
        }
        for attachment in named {
            let target = resolve(store, &attachment.target)?;
            wanted.push((target, &attachment.aliases));
        }
        let of_cluster = wanted.iter().filter_map(|(target, _)| match target {
            Target::Network(network) => Some(*network),
            Target::OfNode(_) => None,
        });
        if !are_usable(of_cluster)? {
            return Ok(None);
        }
        let mut attachments: Vec<Attachment> = Vec::new();
        for (target, aliases) in wanted {
            let mut attachment = Attachment {
                aliases: aliases.to_vec(),
                ..Attachment::default()
            };
            match target {
                Target::OfNode(name) => attachment.network_id = name.to_owned(),
                Target::Network(network) => {
                    if attachments.iter().any(|a| a.network_id == network.id) {
                        continue;
                    }
                    attachment.network_id = network.id.clone();
                    if is_overlay(network) {
                        for family in families(spaces, &network.id) {
                            attachment
                                .addresses
                                .push(self.take(network, family, spaces)?);
                        }
                    }
                }
            }
            attachments.push(attachment);
        }
        Ok(Some(attachments))
    }
}
