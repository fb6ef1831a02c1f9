//! Pass 1: what happens to every container, and why. Services are visited dependencies first, so that a replacement is
//! known when those that share with it, or restart with it, are looked at.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use agent_api::ContainerStatus;
use compose_model::DependencyCondition;

use super::super::options::{Orphans, Recreate, Start};
use super::super::{Cause, SharedResource, order};
use super::resources::differs;
use super::{Planner, Warning};
use crate::convert;
use crate::state::ObservedContainer;

/// What happens to one container.
#[derive(Clone, Debug)]
pub(super) struct Decision<'a> {
    /// Number within the service.
    pub(super) number: u32,
    /// The container that is there.
    pub(super) old: Option<&'a ObservedContainer>,
    pub(super) action: Action,
}

/// The ways of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It stays as it is.
    Keep,
    /// It stays and is started.
    Start(Cause),
    /// It stays, and is stopped and started.
    Restart(Cause),
    /// There is none: one is made.
    Create(Cause),
    /// It is replaced by a new one.
    Replace(Cause),
    /// It goes.
    Remove(Cause),
}

impl Decision<'_> {
    /// Whether a new container takes the number.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.action, Action::Create(_) | Action::Replace(_))
    }

    fn disrupts(&self) -> bool {
        matches!(self.action, Action::Replace(_) | Action::Restart(_))
    }
}

/// Containers that do not stay up, by id, with their service.
pub(super) fn unsettled<'a>(
    decisions: &BTreeMap<&'a str, Vec<Decision<'a>>>,
) -> BTreeMap<&'a str, &'a str> {
    let goes = |action: &Action| {
        matches!(
            action,
            Action::Replace(_) | Action::Remove(_) | Action::Restart(_)
        )
    };
    let all = decisions
        .values()
        .flatten()
        .filter(|decision| goes(&decision.action));
    all.filter_map(|decision| Some((decision.old?.id.as_str(), decision.old?.service.as_str())))
        .collect()
}

impl<'a> Planner<'a> {
    /// Fills `decisions` for every service that has, or shall have, containers; and for orphans, under their names.
    pub(super) fn decide(&mut self) {
        let mut by_service: BTreeMap<&'a str, Vec<&'a ObservedContainer>> = BTreeMap::new();
        for container in self
            .observed
            .containers
            .iter()
            .filter(|container| !container.oneoff)
        {
            by_service
                .entry(&container.service)
                .or_default()
                .push(container);
        }
        for name in self.order.clone() {
            let observed = by_service.remove(name).unwrap_or_default();
            let decisions = self.decide_service(name, observed);
            self.decisions.insert(name, decisions);
        }
        self.decide_orphans(by_service);
    }

    fn decide_service(
        &self,
        name: &'a str,
        observed: Vec<&'a ObservedContainer>,
    ) -> Vec<Decision<'a>> {
        let (mut kept, mut decisions) = self.sort_out_leftovers(name, observed);
        let active = self.active.contains(name);
        if active {
            let scale = self.scale(name);
            let from = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            for (_, old) in kept.split_off(kept.len().min(scale as usize)) {
                let cause = Cause::Scaled { from, to: scale };
                decisions.push(Decision {
                    number: old.number,
                    old: Some(old),
                    action: Action::Remove(cause),
                });
            }
            let used: BTreeSet<u32> = kept.iter().map(|(number, _)| *number).collect();
            let missing = (scale as usize).saturating_sub(kept.len());
            for number in (1..).filter(|number| !used.contains(number)).take(missing) {
                let cause = if from == 0 {
                    Cause::Missing
                } else {
                    Cause::Scaled { from, to: scale }
                };
                decisions.push(Decision {
                    number,
                    old: None,
                    action: Action::Create(cause),
                });
            }
        }
        for (number, old) in kept {
            let action = match self.why_replace(name, old, active) {
                Some(cause) => Action::Replace(cause),
                None => self.without_replacement(name, old, active),
            };
            decisions.push(Decision {
                number,
                old: Some(old),
                action,
            });
        }
        decisions.sort_by_key(|decision| {
            (
                decision.number,
                matches!(decision.action, Action::Remove(_)),
            )
        });
        decisions
    }

    /// Containers by number, lowest first, one per number; whatever an interrupted replacement left beside them goes.
    fn sort_out_leftovers(
        &self,
        name: &str,
        observed: Vec<&'a ObservedContainer>,
    ) -> (Vec<(u32, &'a ObservedContainer)>, Vec<Decision<'a>>) {
        let mut kept: BTreeMap<u32, &'a ObservedContainer> = BTreeMap::new();
        let mut decisions = Vec::new();
        let (misnamed, named): (Vec<_>, Vec<_>) = observed
            .into_iter()
            .partition(|container| self.is_misnamed(name, container));
        for container in named.into_iter().chain(misnamed) {
            match kept.entry(container.number) {
                Entry::Vacant(free) => {
                    free.insert(container);
                }
                Entry::Occupied(_) => decisions.push(Decision {
                    number: container.number,
                    old: Some(container),
                    action: Action::Remove(Cause::Interrupted),
                }),
            }
        }
        (kept.into_iter().collect(), decisions)
    }

    /// A replacement that did not get its final name.
    pub(super) fn is_misnamed(&self, name: &str, container: &ObservedContainer) -> bool {
        let service = self.service(name);
        container.replaces.is_some()
            && container.name.ends_with(&format!(
                "_{}",
                convert::container_name(&self.project.name, name, service, container.number)
            ))
    }

    fn why_replace(&self, name: &str, old: &ObservedContainer, active: bool) -> Option<Cause> {
        if let Some(cause) = self.shared_is_replaced(name, old) {
            return Some(cause);
        }
        if !active {
            return None;
        }
        let targeted = self.options.services.is_empty()
            || self.options.services.iter().any(|wanted| wanted == name);
        match if targeted {
            self.options.recreate
        } else {
            self.options.recreate_dependencies
        } {
            Recreate::Never => None,
            Recreate::Always => Some(Cause::Forced),
            Recreate::Diverged => self.diverged(name, old),
        }
    }

    /// A network, volume or container it shares is replaced.
    fn shared_is_replaced(&self, name: &str, old: &ObservedContainer) -> Option<Cause> {
        let replaced = |what, name: &str| Cause::ResourceReplaced {
            what,
            name: name.to_owned(),
        };
        for network in self
            .networks
            .values()
            .filter(|network| network.is_replaced())
        {
            if old.networks.contains_key(&network.name) {
                return Some(replaced(SharedResource::Network, &network.name));
            }
        }
        for volume in self.volumes.values().filter(|volume| volume.is_replaced()) {
            if old.volumes.iter().any(|mount| mount.volume == volume.name) {
                return Some(replaced(SharedResource::Volume, &volume.name));
            }
        }
        let shares = convert::shares(self.service(name));
        let still_shares = |service: &str| shares.iter().any(|(_, with)| *with == service);
        let mut lost = old
            .shares
            .iter()
            .filter_map(|id| self.unsettled.get(id.as_str()));
        if let Some(service) = lost.find(|service| !still_shares(service)) {
            return Some(Cause::SharesWith {
                service: (*service).to_owned(),
            });
        }
        shares.into_iter().find_map(|(_, with)| {
            let decisions = self.decisions.get(with)?;
            let renewed = decisions.iter().any(Decision::is_new);
            let shared = decisions
                .iter()
                .find(|decision| !matches!(decision.action, Action::Remove(_)));
            // An interrupted run can leave a container that shares with one that is gone.
            let other = shared
                .and_then(|decision| decision.old)
                .is_some_and(|shared| !old.shares.is_empty() && !old.shares.contains(&shared.id));
            (renewed || other).then(|| Cause::SharesWith {
                service: with.to_owned(),
            })
        })
    }

    /// How the container differs from what the file says.
    fn diverged(&self, name: &str, old: &ObservedContainer) -> Option<Cause> {
        let service = self.service(name);
        if old.state == ContainerStatus::Dead {
            return Some(Cause::NotRunning {
                state: old.state,
                exit_code: old.exit_code,
            });
        }
        if let Some(cause) = differs(&old.config_hash, &old.attributes, &self.fingerprints[name]) {
            return Some(cause);
        }
        let image = service.image_or_default(&self.project.name, name);
        let known = self.observed.images.get(&image);
        if known.is_some_and(|known| !old.image_id.is_empty() && known.id != old.image_id) {
            return Some(Cause::ImageChanged { image });
        }
        for network in convert::network_names(self.project, service) {
            let wanted = self
                .observed
                .networks
                .get(&network)
                .map(|known| known.id.as_str());
            let attached = old.networks.get(&network);
            let same = attached.is_some_and(|id| id.is_empty() || Some(id.as_str()) == wanted);
            if !same {
                return Some(Cause::NotAttached { network });
            }
        }
        for (volume, target) in convert::named_volumes(self.project, service) {
            let mounted = |mount: &crate::state::ObservedMount| {
                mount.volume == volume && mount.target == target
            };
            if !old.volumes.iter().any(mounted) {
                return Some(Cause::NotMounted { volume });
            }
        }
        None
    }

    /// What happens to a container that is not replaced.
    fn without_replacement(&self, name: &str, old: &ObservedContainer, active: bool) -> Action {
        if self.options.start == Start::No {
            return Action::Keep;
        }
        if old.is_up() {
            return match self.restarted_dependency(name) {
                Some(service) => Action::Restart(Cause::DependencyRestarted { service }),
                None => Action::Keep,
            };
        }
        if !active || (old.is_completed() && self.is_one_shot(name)) {
            return Action::Keep;
        }
        Action::Start(Cause::NotRunning {
            state: old.state,
            exit_code: old.exit_code,
        })
    }

    /// A dependency with `restart: true` whose running containers are replaced or restarted.
    fn restarted_dependency(&self, name: &str) -> Option<String> {
        let dependencies = order::dependencies(self.service(name));
        let mut following = dependencies
            .into_iter()
            .filter(|(_, config)| config.restart);
        following.find_map(|(dependency, _)| {
            let decisions = self.decisions.get(dependency.as_str())?;
            decisions
                .iter()
                .any(Decision::disrupts)
                .then_some(dependency)
        })
    }

    /// Some service waits for this one to run to its end: once done, it stays done until it changes.
    pub(super) fn is_one_shot(&self, name: &str) -> bool {
        self.project.services.values().any(|service| {
            service.depends_on.get(name).is_some_and(|dependency| {
                dependency.condition == DependencyCondition::ServiceCompletedSuccessfully
            })
        })
    }

    /// Containers whose service is not in the project at all, and ended one-off containers of services that are.
    fn decide_orphans(&mut self, by_service: BTreeMap<&'a str, Vec<&'a ObservedContainer>>) {
        let known = |name: &str| self.project.any_service(name).is_some();
        let orphans: Vec<&'a ObservedContainer> = by_service
            .into_iter()
            .filter(|(name, _)| !known(name))
            .flat_map(|(_, containers)| containers)
            .chain(self.observed.containers.iter().filter(|container| {
                container.oneoff && (!known(&container.service) || !container.is_up())
            }))
            .collect();
        match self.options.orphans {
            Orphans::Ignore => {}
            Orphans::Warn if orphans.is_empty() => {}
            Orphans::Warn => {
                let containers = orphans
                    .iter()
                    .map(|container| container.name.clone())
                    .collect();
                self.warn(Warning::Orphans { containers });
            }
            Orphans::Remove => {
                for orphan in orphans {
                    self.decisions
                        .entry(&orphan.service)
                        .or_default()
                        .push(Decision {
                            number: orphan.number,
                            old: Some(orphan),
                            action: Action::Remove(Cause::Orphan),
                        });
                }
            }
        }
    }
}
