//! Ports that are published on every node, and whose they are. Rules: moby/swarmkit `manager/allocator/portallocator.go`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use agent_api::swarm::PortConfig;

use super::AllocationError;

/// Ports given to those who ask for any.
const AUTOMATIC: RangeInclusive<u16> = 30_000..=32_767;

/// Protocol and number.
type Port = (String, u16);

/// Ports of mode `ingress` of services in the store.
#[derive(Debug, Default)]
pub(super) struct Ports {
    owners: BTreeMap<Port, String>,
}

/// Whether every node publishes the port.
pub(super) fn is_ingress(port: &PortConfig) -> bool {
    port.publish_mode != "host"
}

impl Ports {
    /// A service in the store has these. The first one that has a port keeps it.
    pub(super) fn claim(&mut self, service_id: &str, ports: &[PortConfig]) {
        for port in ports.iter().filter(|port| is_published(port)) {
            self.owners
                .entry(key(port))
                .or_insert_with(|| service_id.to_owned());
        }
    }

    /// A service in the store has these no longer. Whether that made one free.
    pub(super) fn release(&mut self, service_id: &str, ports: &[PortConfig]) -> bool {
        let mut freed = false;
        for port in ports.iter().filter(|port| is_published(port)) {
            let key = key(port);
            if self.owners.get(&key).is_some_and(|id| id == service_id) {
                self.owners.remove(&key);
                freed = true;
            }
        }
        freed
    }

    /// The ports a service asks for with every number filled in. Those it has stay what they are, so that an update
    /// changes no port that nobody asked to change. `tried` holds what this step gave to others and gains what is given
    /// here.
    ///
    /// # Errors
    ///
    /// A port belongs to another service, is asked for twice, or there is no free one.
    pub(super) fn assign(
        &self,
        service_id: &str,
        wanted: &[PortConfig],
        current: &[PortConfig],
        tried: &mut BTreeMap<Port, String>,
    ) -> Result<Vec<PortConfig>, AllocationError> {
        let mut mine: BTreeMap<Port, String> = BTreeMap::new();
        let mut assigned: Vec<PortConfig> = wanted.to_vec();
        for port in assigned.iter().filter(|port| is_published(port)) {
            let key = key(port);
            if mine.contains_key(&key) {
                return Err(AllocationError::PortTwice {
                    port: key.1,
                    protocol: key.0,
                });
            }
            if let Some(owner) = self.owner(&key, tried).filter(|owner| *owner != service_id) {
                return Err(AllocationError::PortTaken {
                    port: key.1,
                    protocol: key.0,
                    service_id: owner.to_owned(),
                });
            }
            mine.insert(key, service_id.to_owned());
        }
        for port in &mut assigned {
            if !is_ingress(port) || port.published_port != 0 {
                continue;
            }
            let is_free = |number: &u16| {
                let key = (protocol(port), *number);
                !mine.contains_key(&key)
                    && self
                        .owner(&key, tried)
                        .is_none_or(|owner| owner == service_id)
            };
            let kept = current
                .iter()
                .filter(|old| is_published(old) && is_same_target(old, port))
                .map(|old| old.published_port)
                .find(is_free);
            // Its other ports are its own until this is committed, and must not be given twice.
            let is_new = |number: &u16| {
                is_free(number) && !self.owners.contains_key(&(protocol(port), *number))
            };
            let number = kept
                .or_else(|| AUTOMATIC.clone().find(is_new))
                .ok_or_else(|| AllocationError::NoPort {
                    protocol: protocol(port),
                })?;
            port.published_port = number;
            mine.insert(key(port), service_id.to_owned());
        }
        tried.extend(mine);
        Ok(assigned)
    }

    fn owner<'a>(&'a self, key: &Port, tried: &'a BTreeMap<Port, String>) -> Option<&'a str> {
        self.owners
            .get(key)
            .or_else(|| tried.get(key))
            .map(String::as_str)
    }
}

/// Whether the ports a service has are those it asks for.
pub(super) fn are_assigned(wanted: &[PortConfig], current: &[PortConfig]) -> bool {
    wanted.len() == current.len()
        && wanted.iter().zip(current).all(|(wanted, current)| {
            let automatic =
                is_ingress(wanted) && wanted.published_port == 0 && current.published_port != 0;
            let published_port = if automatic {
                current.published_port
            } else {
                wanted.published_port
            };
            *current
                == PortConfig {
                    published_port,
                    ..wanted.clone()
                }
        })
        && current
            .iter()
            .all(|port| !is_ingress(port) || port.published_port != 0)
}

fn is_published(port: &PortConfig) -> bool {
    is_ingress(port) && port.published_port != 0
}

fn is_same_target(a: &PortConfig, b: &PortConfig) -> bool {
    a.name == b.name && a.target_port == b.target_port && protocol(a) == protocol(b)
}

fn protocol(port: &PortConfig) -> String {
    if port.protocol.is_empty() {
        "tcp".to_owned()
    } else {
        port.protocol.clone()
    }
}

fn key(port: &PortConfig) -> Port {
    (protocol(port), port.published_port)
}
