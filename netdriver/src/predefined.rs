//! The networks every daemon has: `bridge`, `host` and `none`. Only `bridge` depends on the
//! configuration.

use std::path::Path;
use std::time::SystemTime;

use indexmap::IndexMap;
use ipnet::IpNet;

use crate::Result;
use crate::bridge::{self, Bridge};
use crate::netlink::Netlink;
use crate::networks::{Inner, Networks, new_id};
use crate::pools;
use crate::records::NetworkRecord;
use crate::spec::*;

/// The `bridge` network's interface when the run directory is the default one.
const DEFAULT_BRIDGE: &str = "muster0";
pub(crate) const DEFAULT_RUN: &str = "/run/muster";

impl Networks {
    /// Records the predefined networks that are missing, and `bridge` again if it is configured
    /// otherwise now. Touches no interface.
    pub(crate) fn ensure_predefined(&self, run: &Path, instance: &str) -> Result<()> {
        let inner = &self.inner;
        for (name, driver) in [("host", Driver::Host), ("none", Driver::None)] {
            if inner.predefined(name).is_none() {
                inner.add_network(record(new_id(), name, driver), None, None)?;
            }
        }
        let interface = match &inner.config.bridge_name {
            Some(name) => {
                bridge::check_interface_name(name)?;
                name.clone()
            }
            None if run == Path::new(DEFAULT_RUN) => DEFAULT_BRIDGE.to_owned(),
            None => format!("muster-{}", &instance[..8]),
        };
        let old = inner.predefined("bridge");
        if let Some(old) = &old {
            if !inner.is_configured_otherwise(old, &interface) {
                return Ok(());
            }
            if inner.is_connected(old) {
                tracing::warn!(
                    "network bridge is in use, its new configuration waits until no container is connected to it"
                );
                return Ok(());
            }
        }
        let mut spec = NetworkSpec::bridge("bridge");
        if let Some(address) = inner.config.bridge_address {
            let subnet = Some(IpNet::V4(address.trunc()));
            let gateway = Some(address.addr().into());
            spec.ipam = vec![IpamConfig {
                subnet,
                gateway,
                ..IpamConfig::default()
            }];
        }
        let in_use = Netlink::open()?.networks_in_use()?;
        let (taken, group) = {
            let state = inner.state.lock();
            let others = state
                .subnets()
                .into_iter()
                .filter(|(_, name)| name != "bridge");
            (others.collect::<Vec<_>>(), state.free_group())
        };
        let planned = pools::plan(&spec, &inner.config, &taken, &in_use, &inner.resolv_conf)?;
        let id = old.map_or_else(new_id, |old| old.id.clone());
        let mut record = record(id, "bridge", Driver::Bridge);
        // A group of its own each time: an interface of the old configuration is told apart by it,
        // and replaced.
        record.bridge = Some(Bridge::from_options(
            &spec,
            interface,
            group,
            inner.config.mtu,
        )?);
        record.ipam = planned.ipam;
        inner.add_network(record, planned.ipv4, planned.ipv6)
    }
}

impl Inner {
    pub(crate) fn predefined(&self, name: &str) -> Option<std::sync::Arc<NetworkRecord>> {
        let state = self.state.lock();
        let found = state
            .networks
            .values()
            .find(|entry| entry.record.predefined && entry.record.name == name);
        found.map(|entry| entry.record.clone())
    }

    fn is_connected(&self, network: &NetworkRecord) -> bool {
        !self.state.lock().info(&network.id).endpoints.is_empty()
    }

    fn is_configured_otherwise(&self, old: &NetworkRecord, interface: &str) -> bool {
        let bridge = old
            .bridge
            .as_ref()
            .expect("the bridge network has a bridge");
        let address = old
            .ipam
            .iter()
            .find_map(|config| Some((config.gateway?, config.subnet?)));
        let other_address = self.config.bridge_address.is_some_and(|wanted| {
            address != Some((wanted.addr().into(), IpNet::V4(wanted.trunc())))
        });
        bridge.name != interface || bridge.mtu != self.config.mtu || other_address
    }
}

fn record(id: String, name: &str, driver: Driver) -> NetworkRecord {
    NetworkRecord {
        id,
        name: name.into(),
        created: SystemTime::now(),
        driver,
        ipam: Vec::new(),
        user_subnet: false,
        internal: false,
        enable_ipv4: true,
        enable_ipv6: false,
        attachable: false,
        options: IndexMap::new(),
        labels: IndexMap::new(),
        predefined: true,
        bridge: None,
        overlay: None,
    }
}
