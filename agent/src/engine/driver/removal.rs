//! Removing a container: what it used is given back, then it vanishes in one rename.
//!
//! The intent is recorded first, so a crash in between is finished at the next start. Errors are collected: only one
//! that keeps the record from vanishing stops the removal, and the container is then `dead` and can be removed again.

use std::sync::Arc;

use agent_api::ContainerStatus;

use super::{Driver, Flow, Parked, Reply};
use crate::engine::container::Attachment;
use crate::engine::images;
use crate::engine::lifecycle::{Action, AfterExit, Decision, Request};
use crate::engine::requests::RemoveOptions;
use crate::engine::shared::{Shared, blocking};
use crate::engine::signal::SIGKILL;
use crate::engine::steps;
use crate::error::Error;

impl Driver {
    pub(super) async fn remove_on_request(
        &mut self,
        options: RemoveOptions,
        reference: &str,
        reply: Reply<()>,
    ) -> Flow {
        match self.decide(Request::Remove {
            force: options.force,
        }) {
            Decision::Refused(refusal) => {
                let _ = reply.send(Err(refusal.error(self.container.id(), reference)));
                Flow::Continue
            }
            Decision::Do(Action::KillThenDelete) => {
                self.after_exit = AfterExit::Delete;
                self.remove_volumes = options.volumes;
                match self.begin_stop(Some(SIGKILL), None).await {
                    Ok(()) => self.parked.push(Parked::Remove(reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
                Flow::Continue
            }
            Decision::Do(_) | Decision::Already => {
                self.parked.push(Parked::Remove(reply));
                self.remove(options.volumes).await
            }
        }
    }

    /// Removes the container, which has no process.
    pub(super) async fn remove(&mut self, volumes: bool) -> Flow {
        self.restart_at = None;
        self.set_status(ContainerStatus::Removing);
        self.container.state.remove_volumes = volumes;
        if volumes {
            // Its volumes go before its record does.
            let _ = self.record().await.await;
        }
        self.publish();
        let id = self.container.id().to_owned();
        let definition = Arc::clone(&self.container.definition);
        self.shared.keeper.forget(&id).await;
        if let Some(attachment) = self.container.attachment.take() {
            steps::tear_down(&self.shared, &definition, &attachment).await;
        } else if self.container.state.exits == 0 && self.container.state.error.is_empty() {
            // Never started: there is no sandbox.
        } else {
            steps::tear_down(&self.shared, &definition, &Attachment::default()).await;
        }
        self.shared.execs.forget_container(&id);
        let anonymous: Vec<String> = match volumes {
            true => {
                let used = definition.mounts.iter().filter_map(|plan| plan.volume());
                used.filter(|volume| volume.anonymous)
                    .map(|volume| volume.name.clone())
                    .collect()
            }
            false => Vec::new(),
        };
        let shared = Arc::clone(&self.shared);
        let removed = {
            let id = id.clone();
            blocking(move || {
                for volume in &anonymous {
                    remove_volume(&shared, volume, &id);
                }
                shared.records.remove(&id)
            })
            .await
        };
        match removed {
            Ok(()) => {
                self.shared.registry.remove(&id, &definition.name);
                let shared = Arc::clone(&self.shared);
                let collected = blocking(move || {
                    Ok(shared.images.collect_departed(|| images::uses(&shared))?)
                });
                if let Err(error) = collected.await {
                    tracing::warn!(container.id = id, %error, "layers of a removed image are left");
                }
                self.event("destroy", &[]);
                for parked in self.parked.drain(..) {
                    match parked {
                        Parked::Remove(reply) => drop(reply.send(Ok(()))),
                        other => other.fail(Error::not_found(format!("No such container: {id}"))),
                    }
                }
                Flow::Gone
            }
            Err(error) => {
                tracing::error!(container.id = id, %error, "cannot remove");
                self.set_status(ContainerStatus::Dead);
                self.container.state.error = error.to_string();
                self.publish();
                for parked in self.parked.drain(..) {
                    parked.fail(error.clone());
                }
                Flow::Continue
            }
        }
    }
}

/// Removes an anonymous volume of a container unless another one uses it. Blocks.
fn remove_volume(shared: &Shared, name: &str, container: &str) {
    let others = || {
        let mut users = shared.registry.volume_users(name);
        users.retain(|user| user != container);
        users
    };
    match shared
        .volumes
        .remove(name, others, |directory| shared.records.discard(directory))
    {
        Ok(()) => shared
            .events
            .other("volume", name, "destroy", &[("driver", "local")]),
        Err(Error::NotFound(_)) => {}
        Err(error) => {
            tracing::debug!(container.id = container, volume = name, %error, "the volume stays")
        }
    }
}
