//! The way out for sandboxes on overlays: an endpoint on a local bridge network, `docker_gwbridge` as
//! in Docker, whose members do not reach each other.
//!
//! A network of that name that the user made before is used as it is.

use indexmap::IndexMap;

use super::leads_outside_by_gateway;
use crate::networks::{Inner, Networks, Work};
use crate::spec::{EndpointSpec, NetworkSpec};
use crate::{Error, Result};

pub(crate) const GATEWAY_NETWORK: &str = "docker_gwbridge";

/// Its interface, on a host with one daemon.
const INTERFACE: &str = "muster_gwbridge";

impl Networks {
    /// Gives a sandbox the gateway endpoint if it needs one now, and takes it if not.
    pub(crate) fn adjust_gateway(&self, work: &mut Work, sandbox: &str) -> Result<()> {
        let (needed, present) = {
            let state = self.inner.state.lock();
            let endpoints = &state.sandbox(sandbox)?.record.endpoints;
            let asked_for = || endpoints.iter().filter(|endpoint| !endpoint.gateway_only);
            let leads = asked_for().any(|record| {
                record.endpoint.gateway.is_some() || record.endpoint.gateway_v6.is_some()
            });
            let on_overlay = asked_for().any(|record| {
                let network = state.networks.get(&record.endpoint.network_id);
                network.is_some_and(|entry| leads_outside_by_gateway(&entry.record))
            });
            let present = endpoints.iter().find(|endpoint| endpoint.gateway_only);
            (on_overlay && !leads, present.cloned())
        };
        match (needed, present) {
            (true, None) => self.add_gateway(work, sandbox),
            (false, Some(record)) => self.unplug(work, sandbox, &record),
            _ => Ok(()),
        }
    }

    fn add_gateway(&self, work: &mut Work, sandbox: &str) -> Result<()> {
        let network = self.gateway_network()?;
        let (record, network) = self.record_endpoint(sandbox, &network, |state, id| {
            let mut planned = state.plan_endpoint(sandbox, id, &EndpointSpec::default())?;
            planned.gateway_only = true;
            Ok(planned)
        })?;
        self.plug(work, sandbox, &record, &network)
            .inspect_err(|_| {
                // The first error is the one to report.
                let _ = self.unplug(work, sandbox, &record);
            })
    }

    /// The network's id; makes it if there is none.
    fn gateway_network(&self) -> Result<String> {
        let find = || {
            let state = self.inner.state.lock();
            let found = state.networks.values().find(|entry| {
                entry.record.name == GATEWAY_NETWORK && entry.record.bridge.is_some()
            });
            found.map(|entry| entry.record.id.clone())
        };
        if let Some(id) = find() {
            return Ok(id);
        }
        let mut spec = NetworkSpec::bridge(GATEWAY_NETWORK);
        spec.options = IndexMap::from([
            (
                "com.docker.network.bridge.name".into(),
                self.inner.interface_name(INTERFACE, "mgw-"),
            ),
            (
                "com.docker.network.bridge.enable_icc".into(),
                "false".into(),
            ),
            (
                "com.docker.network.bridge.enable_ip_masquerade".into(),
                "true".into(),
            ),
        ]);
        match self.create(spec) {
            Ok(info) => Ok(info.id),
            // Somebody else needed it at the same time.
            Err(error @ Error::AlreadyExists(_)) => find().ok_or(error),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    /// The name of an interface every daemon has one of.
    pub(crate) fn interface_name(&self, only: &str, prefix: &str) -> String {
        match &self.suffix {
            Some(suffix) => format!("{prefix}{suffix}"),
            None => only.to_owned(),
        }
    }
}
