//! Networks and volumes of the active services: there, missing, or to be replaced.

use std::collections::BTreeSet;

use compose_model::{MountType, Network, Span, Volume};

use super::super::graph::Key;
use super::super::options::{ChangedVolumes, Recreate};
use super::super::{Cause, hash};
use super::{Fingerprint, Planner, Warning};

/// A network or volume the plan uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    /// Name in the engine.
    pub(super) name: String,
    /// Id of the network that is there.
    pub(super) id: Option<String>,
    /// What happens to it.
    pub(super) fate: Fate,
    pub(super) fingerprint: Fingerprint,
    /// The step that makes it, once there is one.
    pub(super) create: Option<Key>,
    /// The step that removes the one that is there.
    pub(super) remove: Option<Key>,
}

/// What happens to a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is used as it is.
    #[default]
    Keep,
    /// It is made.
    Create,
    /// It is removed and made again.
    Replace(Cause),
}

impl Resource {
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.fate, Fate::Replace(_))
    }
}

impl<'a> Planner<'a> {
    /// Fills `networks` and `volumes`; names everything external that is not there.
    pub(super) fn inspect_resources(&mut self, services: &BTreeSet<&'a str>) {
        let project = self.project;
        let services = || services.iter().map(|name| &project.services[*name]);
        let networks: BTreeSet<&str> = services()
            .filter(|service| service.network_mode.is_none())
            .flat_map(|service| service.networks.keys().map(String::as_str))
            .collect();
        let volumes: BTreeSet<&str> = services()
            .flat_map(|service| &service.volumes)
            .filter(|volume| volume.r#type == MountType::Volume)
            .filter_map(|volume| volume.source.as_deref())
            .collect();
        for (key, network) in &project.networks {
            if networks.contains(key.as_str()) {
                let resource = self.inspect_network(key, network);
                self.networks.insert(key, resource);
            }
        }
        for (key, volume) in &project.volumes {
            if volumes.contains(key.as_str()) {
                let resource = self.inspect_volume(key, volume);
                self.volumes.insert(key, resource);
            }
        }
    }

    fn inspect_network(&mut self, key: &'a str, network: &'a Network) -> Resource {
        let mut resource = Resource {
            name: network.name.clone(),
            fingerprint: hash::network(network),
            ..Resource::default()
        };
        let Some(found) = self.observed.networks.get(&network.name) else {
            if network.external {
                self.missing_external("network", key, &network.name, network.span);
            } else {
                resource.fate = Fate::Create;
            }
            return resource;
        };
        resource.id = Some(found.id.clone());
        if network.external {
            return resource;
        }
        if found.project.as_deref() != Some(&self.project.name) {
            self.not_ours("network", &network.name, found.project.clone());
        } else if let Some(cause) =
            differs(&found.config_hash, &found.attributes, &resource.fingerprint)
            && self.options.recreate != Recreate::Never
        {
            resource.fate = Fate::Replace(cause);
        }
        resource
    }

    fn inspect_volume(&mut self, key: &'a str, volume: &'a Volume) -> Resource {
        let mut resource = Resource {
            name: volume.name.clone(),
            fingerprint: hash::volume(volume),
            ..Resource::default()
        };
        let Some(found) = self.observed.volumes.get(&volume.name) else {
            if volume.external {
                self.missing_external("volume", key, &volume.name, volume.span);
            } else {
                resource.fate = Fate::Create;
            }
            return resource;
        };
        if volume.external {
            return resource;
        }
        if found.project.as_deref() != Some(&self.project.name) {
            self.not_ours("volume", &volume.name, found.project.clone());
        } else if let Some(cause) =
            differs(&found.config_hash, &found.attributes, &resource.fingerprint)
        {
            match self.options.changed_volumes {
                ChangedVolumes::Recreate => resource.fate = Fate::Replace(cause),
                ChangedVolumes::Keep => {
                    let attributes = match cause {
                        Cause::Changed { attributes } => attributes,
                        _ => vec!["definition".to_owned()],
                    };
                    self.warn(Warning::VolumeChanged {
                        volume: volume.name.clone(),
                        attributes,
                    });
                }
            }
        }
        resource
    }

    fn missing_external(&mut self, kind: &str, key: &str, name: &str, span: Span) {
        let place = self.place(span);
        let message = format!(
            "external {kind} {key}: no {kind} is called {name}: create it with `muster {kind} create {name}`, or remove `external: true`"
        );
        self.report(super::Problem {
            place,
            service: None,
            message,
        });
    }

    fn not_ours(&mut self, kind: &'static str, name: &str, project: Option<String>) {
        self.warn(Warning::NotOurs {
            kind,
            name: name.to_owned(),
            project,
        });
    }
}

/// Why an object of ours differs from what the file says; `None` when it does not, or nothing tells.
pub(super) fn differs(
    hash: &Option<String>,
    attributes: &Option<String>,
    wanted: &Fingerprint,
) -> Option<Cause> {
    let hash = hash.as_ref()?;
    if *hash == wanted.hash {
        return None;
    }
    Some(
        match hash::changed(attributes.as_deref(), &wanted.attributes) {
            Some(attributes) => Cause::Changed { attributes },
            None => Cause::Unknown,
        },
    )
}
