//! Pass 2: decisions become steps. Containers first, then the order among their stops; `start.rs` adds the starts.

use super::super::graph::Key;
use super::super::options::Dependencies;
use super::super::steps::{existing, stop_steps};
use super::super::{Cause, ContainerHandle, NewContainer, Operation, Share, order};
use super::decide::{Action, Decision};
use super::resources::Fate;
use super::{Emitted, Planner};
use crate::convert::{self, ContainerSpec};
use crate::state::{ObservedContainer, ObservedMount};

/// Characters of an id in a temporary name.
const SHORT_ID: usize = 12;

impl<'a> Planner<'a> {
    pub(super) fn emit(&mut self) {
        self.emit_resources();
        let mut names = self.order.clone();
        names.extend(
            self.decisions
                .keys()
                .filter(|name| !self.project.services.contains_key(**name)),
        );
        for name in names {
            for decision in self.decisions[name].clone() {
                let emitted = self.emit_container(name, &decision);
                self.emitted.entry(name).or_default().push(emitted);
            }
        }
        self.order_by_name();
        self.free_resources();
        self.order_stops();
        self.emit_starts();
    }

    fn emit_resources(&mut self) {
        for (key, mut resource) in self.networks.clone() {
            let network = &self.project.networks[key];
            let place = self.place(network.span);
            let cause = match &resource.fate {
                Fate::Keep => continue,
                Fate::Create => Cause::Missing,
                Fate::Replace(cause) => {
                    let id = resource.id.clone().unwrap_or_default();
                    let operation = Operation::RemoveNetwork {
                        name: resource.name.clone(),
                        id,
                    };
                    resource.remove =
                        Some(self.builder.add(operation, cause.clone(), place.clone()));
                    cause.clone()
                }
            };
            let print = &resource.fingerprint;
            let request =
                convert::network(self.project, key, network, &print.hash, &print.attributes);
            let operation = Operation::CreateNetwork {
                key: key.to_owned(),
                request: Box::new(request),
            };
            let create = self.builder.add(operation, cause, place);
            resource
                .remove
                .inspect(|remove| self.builder.needs(create, *remove));
            resource.create = Some(create);
            self.networks.insert(key, resource);
        }
        for (key, mut resource) in self.volumes.clone() {
            let volume = &self.project.volumes[key];
            let place = self.place(volume.span);
            let cause = match &resource.fate {
                Fate::Keep => continue,
                Fate::Create => Cause::Missing,
                Fate::Replace(cause) => {
                    let operation = Operation::RemoveVolume {
                        name: resource.name.clone(),
                    };
                    resource.remove =
                        Some(self.builder.add(operation, cause.clone(), place.clone()));
                    cause.clone()
                }
            };
            let print = &resource.fingerprint;
            let request =
                convert::volume(self.project, key, volume, &print.hash, &print.attributes);
            let operation = Operation::CreateVolume {
                key: key.to_owned(),
                request: Box::new(request),
            };
            let create = self.builder.add(operation, cause, place);
            resource
                .remove
                .inspect(|remove| self.builder.needs(create, *remove));
            resource.create = Some(create);
            self.volumes.insert(key, resource);
        }
    }

    fn emit_container(&mut self, name: &'a str, decision: &Decision<'a>) -> Emitted {
        match (&decision.action, decision.old) {
            (Action::Create(cause), _) => self.emit_new(name, decision.number, None, cause),
            (Action::Replace(cause), Some(old)) => {
                self.emit_new(name, decision.number, Some(old), cause)
            }
            (Action::Remove(cause), Some(old)) => {
                let stop = self.emit_stop(name, old, cause);
                let remove = self.emit_remove(old, cause);
                stop.inspect(|(_, last)| self.builder.needs(remove, *last));
                Emitted {
                    stop,
                    remove: Some(remove),
                    ..Emitted::default()
                }
            }
            (Action::Restart(cause), Some(old)) => {
                let stop = self.emit_stop(name, old, cause);
                Emitted {
                    stop,
                    ..self.emit_kept(name, old)
                }
            }
            (Action::Keep | Action::Start(_), Some(old)) => self.emit_kept(name, old),
            (
                Action::Replace(_)
                | Action::Remove(_)
                | Action::Restart(_)
                | Action::Keep
                | Action::Start(_),
                None,
            ) => Emitted::default(),
        }
    }

    /// A container that stays; one that an interrupted replacement left under its temporary name gets its own.
    fn emit_kept(&mut self, name: &str, old: &ObservedContainer) -> Emitted {
        let mut handle = existing(old);
        let mut rename = None;
        if self.is_misnamed(name, old) {
            handle.name =
                convert::container_name(&self.project.name, name, self.service(name), old.number);
            let operation = Operation::RenameContainer {
                container: handle.clone(),
                from: old.name.clone(),
            };
            rename = Some(self.builder.add(
                operation,
                Cause::Interrupted,
                self.service_place(name),
            ));
        }
        Emitted {
            handle: Some(handle),
            rename,
            ..Emitted::default()
        }
    }

    /// A new container, in place of `old` if there is one.
    fn emit_new(
        &mut self,
        name: &'a str,
        number: u32,
        old: Option<&ObservedContainer>,
        cause: &Cause,
    ) -> Emitted {
        let place = self.service_place(name);
        let service = self.service(name);
        let handle = ContainerHandle {
            service: name.to_owned(),
            number,
            name: convert::container_name(&self.project.name, name, service, number),
            id: None,
        };
        let remove_first = old.is_some_and(|old| self.uses_replaced_volume(old));
        let stop_first = remove_first || self.replaces_resources();
        let mut new = self.new_container(name, &handle, old);
        if let Some(old) = old.filter(|_| !remove_first) {
            new.name = format!(
                "{}_{}",
                old.id.get(..SHORT_ID).unwrap_or(&old.id),
                handle.name
            );
        }
        let temporary = (new.name != handle.name).then(|| new.name.clone());
        let operation = Operation::CreateContainer {
            container: handle.clone(),
            new: Box::new(new),
        };
        let create = self.builder.add(operation, cause.clone(), place.clone());
        self.create_needs(name, create);
        let mut emitted = Emitted {
            handle: Some(handle.clone()),
            create: Some(create),
            ..Emitted::default()
        };
        let Some(old) = old else { return emitted };

        emitted.stop = self.emit_stop(name, old, cause);
        let remove = self.emit_remove(old, cause);
        emitted.remove = Some(remove);
        if let Some((first, last)) = emitted.stop {
            self.builder.needs(remove, last);
            if !stop_first {
                self.builder.needs(first, create);
            }
        }
        if remove_first {
            self.builder.needs(create, remove);
        } else {
            self.builder.needs(remove, create);
        }
        if let Some(from) = temporary {
            let operation = Operation::RenameContainer {
                container: handle,
                from,
            };
            let rename = self.builder.add(operation, cause.clone(), place);
            self.builder.needs(rename, remove);
            emitted.rename = Some(rename);
        }
        emitted
    }

    fn new_container(
        &self,
        name: &str,
        handle: &ContainerHandle,
        old: Option<&ObservedContainer>,
    ) -> NewContainer {
        let service = self.service(name);
        let image = service.image_or_default(&self.project.name, name);
        let fingerprint = &self.fingerprints[name];
        let inherited = old.map_or_else(Vec::new, |old| self.inherited(name, &image, old));
        let request = convert::container(&ContainerSpec {
            project: self.project,
            name,
            service,
            number: handle.number,
            image_id: self
                .observed
                .images
                .get(&image)
                .map_or("", |image| &image.id),
            config_hash: &fingerprint.hash,
            attributes: &fingerprint.attributes,
            inherited: &inherited,
            replaces: old.map(|old| old.id.as_str()),
        });
        NewContainer {
            name: handle.name.clone(),
            platform: service.platform.clone(),
            request,
            shares: self.shares(name),
            // Those that cannot be made are problems that end the plan.
            files: convert::files::files(self.project, service).unwrap_or_default(),
        }
    }

    /// Anonymous volumes the new container takes over: those at paths the file or the image still declares.
    fn inherited(&self, name: &str, image: &str, old: &ObservedContainer) -> Vec<ObservedMount> {
        if self.options.renew_anonymous_volumes {
            return Vec::new();
        }
        let image = self.observed.images.get(image);
        let declared = |target: &str| {
            image.is_some_and(|image| image.volumes.contains(target))
                || self
                    .service(name)
                    .volumes
                    .iter()
                    .any(|volume| volume.source.is_none() && volume.target == target)
        };
        old.volumes
            .iter()
            .filter(|mount| declared(&mount.target))
            .cloned()
            .collect()
    }

    fn shares(&self, name: &str) -> Vec<Share> {
        let with = |service: &str| {
            let emitted = self.emitted.get(service)?;
            emitted.iter().find_map(|emitted| emitted.handle.clone())
        };
        let shares = convert::shares(self.service(name)).into_iter();
        shares
            .filter_map(|(field, service)| {
                Some(Share {
                    field,
                    with: with(service)?,
                })
            })
            .collect()
    }

    /// Networks, volumes and the containers it shares with are there before it.
    fn create_needs(&mut self, name: &'a str, create: Key) {
        let service = self.service(name);
        let mut needed: Vec<Key> = Vec::new();
        if service.network_mode.is_none() {
            let keys = service
                .networks
                .keys()
                .filter_map(|key| self.networks.get(key.as_str()));
            needed.extend(keys.filter_map(|network| network.create));
        }
        let keys = service
            .volumes
            .iter()
            .filter_map(|volume| self.volumes.get(volume.source.as_deref()?));
        needed.extend(keys.filter_map(|volume| volume.create));
        for (_, with) in convert::shares(service) {
            let emitted = self.emitted.get(with).into_iter().flatten();
            needed.extend(emitted.filter_map(|emitted| emitted.create).take(1));
        }
        for earlier in needed {
            self.builder.needs(create, earlier);
        }
    }

    /// Hooks and stop of a container that runs; `None` when it does not.
    fn emit_stop(
        &mut self,
        name: &str,
        old: &ObservedContainer,
        cause: &Cause,
    ) -> Option<(Key, Key)> {
        if !old.is_up() {
            return None;
        }
        let hooks = self
            .project
            .services
            .get(name)
            .map_or(&[][..], |service| &service.pre_stop);
        let timeout = self.options.stop_timeout.map(convert::seconds);
        Some(stop_steps(
            &mut self.builder,
            &existing(old),
            old,
            hooks,
            timeout,
            cause,
            self.project
                .any_service(name)
                .and_then(|service| self.sources.locate(service.span))
                .map(|at| at.to_string()),
        ))
    }

    fn emit_remove(&mut self, old: &ObservedContainer, cause: &Cause) -> Key {
        let operation = Operation::RemoveContainer {
            container: existing(old),
            anonymous_volumes: false,
            force: false,
        };
        let place = self.service_place(&old.service);
        self.builder.add(operation, cause.clone(), place)
    }

    fn uses_replaced_volume(&self, old: &ObservedContainer) -> bool {
        let replaced = |name: &str| {
            self.volumes
                .values()
                .any(|volume| volume.name == name && volume.is_replaced())
        };
        old.volumes.iter().any(|mount| replaced(&mount.volume))
    }

    fn replaces_resources(&self) -> bool {
        self.networks
            .values()
            .chain(self.volumes.values())
            .any(super::Resource::is_replaced)
    }

    /// A name is free before it is given again: leftovers and orphans go first.
    fn order_by_name(&mut self) {
        let mut removed = std::collections::BTreeMap::new();
        for (name, emitted) in &self.emitted {
            for (emitted, decision) in emitted.iter().zip(&self.decisions[name]) {
                if let (Action::Remove(_), Some(remove), Some(old)) =
                    (&decision.action, emitted.remove, decision.old)
                {
                    removed.insert(old.name.clone(), remove);
                }
            }
        }
        for key in 0..self.builder.len() {
            let taken = match self.builder.operation(key) {
                Operation::CreateContainer { new, .. } => removed.get(&new.name),
                Operation::RenameContainer { container, .. } => removed.get(&container.name),
                _ => None,
            };
            if let Some(remove) = taken.copied() {
                self.builder.needs(key, remove);
            }
        }
    }

    /// A network or volume that is replaced goes when its users are out of the way.
    fn free_resources(&mut self) {
        let mut edges = Vec::new();
        for (emitted, decision) in self
            .emitted
            .iter()
            .flat_map(|(name, emitted)| emitted.iter().zip(&self.decisions[name]))
        {
            let Some(old) = decision.old else { continue };
            for network in self
                .networks
                .values()
                .filter(|network| old.networks.contains_key(&network.name))
            {
                let freed = emitted.stop.map(|(_, last)| last);
                edges.extend(network.remove.zip(freed));
            }
            for volume in self.volumes.values() {
                if old.volumes.iter().any(|mount| mount.volume == volume.name) {
                    edges.extend(volume.remove.zip(emitted.remove));
                }
            }
        }
        for (later, earlier) in edges {
            self.builder.needs(later, earlier);
        }
    }

    /// Dependants stop before what they depend on.
    fn order_stops(&mut self) {
        if self.options.dependencies == Dependencies::Ignore {
            return;
        }
        let mut edges = Vec::new();
        for name in &self.order {
            for dependency in order::dependencies(self.service(name)).keys() {
                let first = self
                    .emitted
                    .get(dependency.as_str())
                    .into_iter()
                    .flatten()
                    .filter_map(|emitted| emitted.stop);
                for (first, _) in first {
                    let last = self
                        .emitted
                        .get(name)
                        .into_iter()
                        .flatten()
                        .filter_map(|emitted| emitted.stop);
                    edges.extend(last.map(|(_, last)| (first, last)));
                }
            }
        }
        for (later, earlier) in edges {
            self.builder.needs(later, earlier);
        }
    }
}
