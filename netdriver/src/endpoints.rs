//! Endpoints: connecting sandboxes to networks and disconnecting them, and which endpoint leads
//! outside.
//!
//! A request becomes a complete record first (pure but for the addresses it takes), then the record
//! becomes real.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netdriver_ipam::Addresses;

use crate::bridge;
use crate::netlink::{Netlink, Request, mac_of};
use crate::netns::write_sysctl;
use crate::networks::{NetworkEntry, Networks, State, Work, new_id};
use crate::records::{EndpointRecord, NetworkRecord, SandboxRecord};
use crate::sandboxes::{dns_names, open_dns, publish_names};
use crate::spec::*;
use crate::{Error, Result};

/// The option that names the interface, besides the request's own field.
const IFNAME_OPTION: &str = "com.docker.network.endpoint.ifname";

/// The endpoints that lead outside, by family.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Gateways {
    pub(crate) ipv4: Option<Endpoint>,
    pub(crate) ipv6: Option<Endpoint>,
}

impl Networks {
    /// Connects a sandbox to a network, also while its processes run. Default route and published
    /// ports move to the new endpoint if it is the best gateway.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::NetworkNotFound`], [`Error::AlreadyConnected`],
    /// [`Error::ModeConflict`], [`Error::Address`], [`Error::Invalid`], [`Error::Unsupported`],
    /// those of [`publish`](Self::publish), the kernel's; after an error the sandbox is as before.
    pub fn connect(&self, sandbox: &str, network: &str, spec: EndpointSpec) -> Result<Endpoint> {
        let mut work = self.lock(sandbox)?;
        let (record, network) = self.record_endpoint(sandbox, network, |state, id| {
            state.plan_endpoint(sandbox, id, &spec)
        })?;
        let connected = self
            .plug(&mut work, sandbox, &record, &network)
            .and_then(|()| self.adjust_gateway(&mut work, sandbox));
        if let Err(error) = connected {
            let undone = self.unplug(&mut work, sandbox, &record);
            if let Err(leftover) = undone.and(self.adjust_gateway(&mut work, sandbox)) {
                tracing::warn!(container.id = sandbox, %leftover, "could not undo a connection that failed");
            }
            return Err(error);
        }
        Ok(record.endpoint)
    }

    /// Plans an endpoint and records it, in one step.
    pub(crate) fn record_endpoint(
        &self,
        sandbox: &str,
        network: &str,
        plan: impl FnOnce(&mut State, &str) -> Result<EndpointRecord>,
    ) -> Result<(EndpointRecord, Arc<NetworkRecord>)> {
        let mut state = self.inner.state.lock();
        let id = state.resolve(network)?;
        let planned = plan(&mut state, &id)?;
        let entry = state
            .sandboxes
            .get_mut(sandbox)
            .expect("the locked sandbox is there");
        entry.record.endpoints.push(planned.clone());
        if let Err(error) = self.inner.records.write_sandbox(&entry.record) {
            state.drop_endpoint(sandbox, &planned.endpoint);
            return Err(error);
        }
        Ok((planned, state.networks[&id].record.clone()))
    }

    /// Undoes [`connect`](Self::connect), also while processes run.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::NetworkNotFound`], [`Error::NotConnected`], the
    /// kernel's. The endpoint is gone from the records in any case.
    pub fn disconnect(&self, sandbox: &str, network: &str) -> Result<()> {
        let mut work = self.lock(sandbox)?;
        let record = {
            let state = self.inner.state.lock();
            let id = state.resolve(network)?;
            let entry = state.sandbox(sandbox)?;
            let found = entry
                .record
                .endpoints
                .iter()
                .find(|endpoint| endpoint.endpoint.network_id == id && !endpoint.gateway_only);
            found.cloned().ok_or_else(|| Error::NotConnected {
                sandbox: sandbox.to_owned(),
                network: state.networks[&id].record.name.clone(),
            })?
        };
        let unplugged = self.unplug(&mut work, sandbox, &record);
        unplugged.and(self.adjust_gateway(&mut work, sandbox))
    }

    /// Makes a recorded endpoint real: interface, addresses, default route, names, ports.
    pub(crate) fn plug(
        &self,
        work: &mut Work,
        sandbox: &str,
        record: &EndpointRecord,
        network: &NetworkRecord,
    ) -> Result<()> {
        let (Some(host_interface), Some(netns)) = (&record.host_interface, work.netns.clone())
        else {
            return Ok(());
        };
        match (&network.bridge, &network.overlay) {
            (Some(bridge), _) => {
                let index = self.inner.ensure_bridge(network)?;
                bridge::attach(
                    &mut Netlink::open()?,
                    bridge,
                    index,
                    &netns,
                    &record.endpoint,
                    host_interface,
                )
            }
            (None, Some(overlay)) => {
                let endpoint = &record.endpoint;
                let mac = endpoint.mac.expect("an overlay's endpoint has one");
                let mut live = self.inner.live(&overlay.id)?;
                live.attach(&netns, host_interface, &endpoint.ifname, mac)
            }
            (None, None) => return Ok(()),
        }
        .map_err(|error| match error {
            Error::Kernel { source, .. } if source.raw_os_error() == Some(libc::EXFULL) => {
                Error::BridgeFull(network.name.clone())
            }
            error => error,
        })?;
        let gateways = self.gateways(sandbox);
        let starts_server = network.has_names() && work.server.is_none();
        let sockets = netns.enter(|| {
            let mut netlink = Netlink::open()?;
            let index = bridge::configure_inside(&mut netlink, &record.endpoint)?;
            if network
                .overlay
                .as_ref()
                .is_some_and(|overlay| overlay.ingress)
            {
                // Clients' addresses are routed elsewhere.
                let name = &record.endpoint.ifname;
                write_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
            }
            if gateways.is_led_by(&record.endpoint) {
                set_default_routes(
                    &mut netlink,
                    &gateways,
                    Some((&record.endpoint.ifname, index)),
                )?;
            }
            if starts_server {
                open_dns().map(Some)
            } else {
                Ok(None)
            }
        })?;
        self.serve_names(work, sandbox, &netns, sockets)?;
        publish_names(&mut self.inner.zone.write(), &record.endpoint);
        if network.overlay.is_some() {
            self.refresh_balancer(work, sandbox)?;
        }
        if gateways.is_led_by(&record.endpoint) {
            self.repoint(work, sandbox, &gateways)
        } else {
            Ok(())
        }
    }

    /// Undoes [`plug`](Self::plug) as far as it went, then forgets the endpoint.
    pub(crate) fn unplug(
        &self,
        work: &mut Work,
        sandbox: &str,
        record: &EndpointRecord,
    ) -> Result<()> {
        let endpoint = &record.endpoint;
        self.inner
            .zone
            .write()
            .remove(&endpoint.network_id, &endpoint.id);
        let before = self.gateways(sandbox);
        let overlay = {
            let state = self.inner.state.lock();
            let network = state.networks.get(&endpoint.network_id);
            network.is_some_and(|entry| entry.record.overlay.is_some())
        };
        let mut result = match &record.host_interface {
            Some(name) if overlay => self
                .inner
                .live(&endpoint.network_id)
                .and_then(|mut live| live.detach(name)),
            Some(name) => delete_interface(name),
            None => Ok(()),
        };
        {
            let mut state = self.inner.state.lock();
            state.drop_endpoint(sandbox, endpoint);
            result = result.and(
                self.inner
                    .records
                    .write_sandbox(&state.sandbox(sandbox)?.record),
            );
        }
        let after = self.gateways(sandbox);
        if before != after {
            if let Some(netns) = &work.netns {
                result = result
                    .and(netns.enter(|| set_default_routes(&mut Netlink::open()?, &after, None)));
            }
            result = result.and(self.repoint(work, sandbox, &after));
        }
        if overlay {
            result = result.and(self.refresh_balancer(work, sandbox));
        }
        if let Some(server) = &work.server {
            server.set_view(self.view(sandbox));
        }
        result
    }

    pub(crate) fn gateways(&self, sandbox: &str) -> Gateways {
        let state = self.inner.state.lock();
        let Some(entry) = state.sandboxes.get(sandbox) else {
            return Gateways::default();
        };
        let endpoints: Vec<_> = entry
            .record
            .endpoints
            .iter()
            .map(|record| &record.endpoint)
            .collect();
        Gateways {
            ipv4: best(&endpoints, |endpoint| endpoint.gateway.is_some()),
            ipv6: best(&endpoints, |endpoint| endpoint.gateway_v6.is_some()),
        }
    }
}

impl Gateways {
    fn is_led_by(&self, endpoint: &Endpoint) -> bool {
        [&self.ipv4, &self.ipv6]
            .into_iter()
            .flatten()
            .any(|gateway| gateway.id == endpoint.id)
    }
}

impl State {
    /// Checks a request, takes addresses, and fills in everything; records nothing.
    pub(crate) fn plan_endpoint(
        &mut self,
        sandbox: &str,
        network_id: &str,
        spec: &EndpointSpec,
    ) -> Result<EndpointRecord> {
        let State {
            networks,
            sandboxes,
        } = self;
        let sandbox = &sandboxes
            .get(sandbox)
            .ok_or_else(|| Error::SandboxNotFound(sandbox.to_owned()))?
            .record;
        let entry = networks.get_mut(network_id).filter(|entry| !entry.removing);
        let entry = entry.ok_or_else(|| Error::NetworkNotFound(network_id.to_owned()))?;
        let network = entry.record.clone();
        if sandbox
            .endpoints
            .iter()
            .any(|endpoint| endpoint.endpoint.network_id == network.id)
        {
            return Err(Error::AlreadyConnected {
                sandbox: sandbox.spec.name.clone(),
                network: network.name.clone(),
            });
        }
        let private = sandbox.spec.mode == SandboxMode::Private;
        let on_none = sandbox
            .endpoints
            .iter()
            .any(|endpoint| endpoint.host_interface.is_none());
        let fits = match network.driver {
            Driver::Bridge | Driver::Overlay => private && !on_none,
            Driver::None => private && sandbox.endpoints.is_empty(),
            Driver::Host => !private && sandbox.endpoints.is_empty(),
        };
        if !fits {
            return Err(Error::ModeConflict);
        }
        check_endpoint(spec, &network)?;
        let mut endpoint = Endpoint {
            id: spec.endpoint_id.clone().unwrap_or_else(new_id),
            network_id: network.id.clone(),
            network_name: network.name.clone(),
            ifname: String::new(),
            ipv4: None,
            ipv6: None,
            gateway: None,
            gateway_v6: None,
            mac: None,
            dns_names: Vec::new(),
            gw_priority: spec.gw_priority,
        };
        let prefix = match (&network.bridge, &network.overlay) {
            (Some(bridge), _) => Some(bridge.interface_prefix.as_str()),
            (None, Some(_)) => Some("eth"),
            (None, None) => None,
        };
        let Some(prefix) = prefix else {
            return Ok(EndpointRecord {
                endpoint,
                aliases: Vec::new(),
                host_interface: None,
                gateway_only: false,
            });
        };
        endpoint.ifname = interface_name(spec, sandbox, prefix)?;
        entry.take_addresses(spec, &mut endpoint)?;
        endpoint.mac = Some(spec.mac_address.unwrap_or_else(|| {
            mac_of(
                endpoint.ipv4.map(|net| net.addr()),
                endpoint.ipv6.map(|net| net.addr()),
            )
        }));
        if network.has_names() {
            endpoint.dns_names = dns_names(&sandbox.spec, &spec.aliases);
        }
        // Named for the endpoint, not by the user: random enough, and found again after a crash.
        let host_interface = format!("veth{}", new_id().get(..8).unwrap_or_default());
        Ok(EndpointRecord {
            endpoint,
            aliases: spec.aliases.clone(),
            host_interface: Some(host_interface),
            gateway_only: false,
        })
    }

    /// Forgets an endpoint and frees its addresses.
    pub(crate) fn drop_endpoint(&mut self, sandbox: &str, endpoint: &Endpoint) {
        let Some(entry) = self.sandboxes.get_mut(sandbox) else {
            return;
        };
        let before = entry.record.endpoints.len();
        entry
            .record
            .endpoints
            .retain(|record| record.endpoint.id != endpoint.id);
        if entry.record.endpoints.len() == before {
            return;
        }
        if let Some(network) = self.networks.get_mut(&endpoint.network_id) {
            network.free_addresses(endpoint);
        }
    }
}

impl NetworkEntry {
    /// Takes both addresses, or none.
    fn take_addresses(&mut self, spec: &EndpointSpec, endpoint: &mut Endpoint) -> Result<()> {
        let record = self.record.clone();
        let take = |addresses: &mut Option<Addresses>, wanted: Option<IpAddr>| {
            let taken = match (addresses, wanted) {
                (None, None) => return Ok(None),
                (Some(_), None) if record.overlay.is_some() => {
                    let text = format!(
                        "an endpoint on network {} needs the addresses its managers allocated",
                        record.name
                    );
                    return Err(Error::Invalid(text));
                }
                (None, Some(address)) => {
                    let text = format!(
                        "network {} has no addresses of {address}'s family",
                        record.name
                    );
                    return Err(Error::Invalid(text));
                }
                (Some(addresses), None) => addresses
                    .allocate()
                    .map(|address| (address, addresses.subnet())),
                (Some(addresses), Some(address)) => addresses
                    .allocate_static(address)
                    .map(|()| (address, addresses.subnet())),
            };
            let (address, subnet) = taken.map_err(|source| Error::Address {
                network: record.name.clone(),
                source,
            })?;
            Ok(Some(
                IpNet::new(address, subnet.prefix_len()).expect("the subnet's prefix length"),
            ))
        };
        let ipv4 = take(&mut self.ipv4, spec.ipv4_address.map(IpAddr::V4))?;
        if let Some(IpNet::V4(net)) = ipv4 {
            endpoint.ipv4 = Some(net);
        }
        match take(&mut self.ipv6, spec.ipv6_address.map(IpAddr::V6)) {
            Ok(Some(IpNet::V6(net))) => endpoint.ipv6 = Some(net),
            Ok(_) => {}
            Err(error) => {
                self.free_addresses(endpoint);
                return Err(error);
            }
        }
        // An internal network leads nowhere, and has a gateway address all the same: the host's on
        // the bridge. An overlay's is nobody's.
        for gateway in record
            .ipam
            .iter()
            .filter_map(|config| config.gateway)
            .filter(|_| !record.internal && record.overlay.is_none())
        {
            match gateway {
                IpAddr::V4(gateway) => endpoint.gateway = Some(gateway),
                IpAddr::V6(gateway) => endpoint.gateway_v6 = Some(gateway),
            }
        }
        Ok(())
    }

    fn free_addresses(&mut self, endpoint: &Endpoint) {
        if let (Some(addresses), Some(net)) = (&mut self.ipv4, endpoint.ipv4) {
            addresses.release(net.addr().into());
        }
        if let (Some(addresses), Some(net)) = (&mut self.ipv6, endpoint.ipv6) {
            addresses.release(net.addr().into());
        }
    }
}

fn check_endpoint(spec: &EndpointSpec, network: &NetworkRecord) -> Result<()> {
    let mut unknown = spec
        .driver_options
        .iter()
        .filter(|(key, _)| *key != IFNAME_OPTION);
    if let Some((key, value)) = unknown.next() {
        return Err(Error::Unsupported(format!("endpoint option {key}={value}")));
    }
    let is_static = spec.ipv4_address.is_some() || spec.ipv6_address.is_some();
    if is_static && !network.has_names() {
        return Err(Error::Invalid(
            "user specified IP address is supported on user defined networks only".into(),
        ));
    }
    if is_static && !network.user_subnet {
        let text = "user specified IP address is supported only when connecting to networks with user configured subnets";
        return Err(Error::Invalid(text.into()));
    }
    if !spec.aliases.is_empty() && !network.has_names() {
        return Err(Error::Invalid(
            "network-scoped alias is supported only for containers in user defined networks".into(),
        ));
    }
    // A group address cannot be an interface's.
    if spec
        .mac_address
        .is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6])
    {
        return Err(Error::Invalid(
            "MAC address: it must be the address of a single interface".into(),
        ));
    }
    Ok(())
}

fn interface_name(spec: &EndpointSpec, sandbox: &SandboxRecord, prefix: &str) -> Result<String> {
    let taken = |name: &str| {
        name == "lo"
            || sandbox
                .endpoints
                .iter()
                .any(|endpoint| endpoint.endpoint.ifname == name)
    };
    match spec
        .ifname
        .as_ref()
        .or(spec.driver_options.get(IFNAME_OPTION))
    {
        Some(name) => {
            bridge::check_interface_name(name)?;
            if taken(name) {
                return Err(Error::Invalid(format!(
                    "interface name {name:?} is taken in this container"
                )));
            }
            Ok(name.clone())
        }
        None => {
            let mut candidates = (0..).map(|number| format!("{prefix}{number}"));
            Ok(candidates
                .find(|name| !taken(name))
                .expect("a sandbox has fewer endpoints than there are numbers"))
        }
    }
}

/// The endpoint of highest priority that leads outside; of equal ones the first connected.
fn best(endpoints: &[&Endpoint], leads_outside: impl Fn(&Endpoint) -> bool) -> Option<Endpoint> {
    let mut best: Option<&Endpoint> = None;
    for endpoint in endpoints.iter().filter(|endpoint| leads_outside(endpoint)) {
        if best.is_none_or(|best| endpoint.gw_priority > best.gw_priority) {
            best = Some(endpoint);
        }
    }
    best.cloned()
}

/// Runs inside the sandbox. `known` spares looking up an interface just configured.
fn set_default_routes(
    netlink: &mut Netlink,
    gateways: &Gateways,
    known: Option<(&str, u32)>,
) -> Result<()> {
    let mut requests = Vec::new();
    for (endpoint, v6) in [(&gateways.ipv4, false), (&gateways.ipv6, true)] {
        let Some(endpoint) = endpoint else { continue };
        let index = match known {
            Some((name, index)) if name == endpoint.ifname => index,
            _ => match netlink.link(&endpoint.ifname)? {
                Some(link) => link.index,
                None => continue,
            },
        };
        let gateway = if v6 {
            endpoint.gateway_v6.map(IpAddr::V6)
        } else {
            endpoint.gateway.map(IpAddr::V4)
        };
        requests.extend(gateway.map(|gateway| Request::set_default_route(index, gateway)));
    }
    if requests.is_empty() {
        Ok(())
    } else {
        netlink.execute(requests)
    }
}

/// Deletes our end of a pair, and with it the other; gone already is no error.
fn delete_interface(name: &str) -> Result<()> {
    match Netlink::open()?.execute(vec![Request::delete_link(name)]) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, gateway: bool, gw_priority: i32) -> Endpoint {
        Endpoint {
            id: name.into(),
            network_id: name.into(),
            network_name: name.into(),
            ifname: String::new(),
            ipv4: None,
            ipv6: None,
            gateway: gateway.then_some([10, 0, 0, 1].into()),
            gateway_v6: None,
            mac: None,
            dns_names: Vec::new(),
            gw_priority,
        }
    }

    #[test]
    fn the_gateway_is_the_first_of_the_highest_priority_that_leads_outside() {
        let list = [
            endpoint("internal", false, 9),
            endpoint("a", true, 0),
            endpoint("b", true, 0),
            endpoint("c", true, -1),
        ];
        let choose = |names: &[&str], priority: Option<(&str, i32)>| {
            let mut chosen: Vec<Endpoint> = names
                .iter()
                .map(|name| {
                    list.iter()
                        .find(|endpoint| endpoint.id == *name)
                        .unwrap()
                        .clone()
                })
                .collect();
            if let Some((name, value)) = priority {
                chosen
                    .iter_mut()
                    .find(|endpoint| endpoint.id == name)
                    .unwrap()
                    .gw_priority = value;
            }
            let chosen: Vec<_> = chosen.iter().collect();
            best(&chosen, |endpoint| endpoint.gateway.is_some()).map(|endpoint| endpoint.id)
        };
        assert_eq!(choose(&["internal", "a", "b", "c"], None).unwrap(), "a");
        assert_eq!(choose(&["b", "a"], None).unwrap(), "b");
        assert_eq!(choose(&["a", "b"], Some(("b", 1))).unwrap(), "b");
        assert_eq!(choose(&["c"], None).unwrap(), "c");
        assert_eq!(choose(&["internal"], None), None);
    }
}
