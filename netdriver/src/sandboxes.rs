//! Operations on sandboxes and their endpoints. Each holds the sandbox's lock, writes its record first, then changes the kernel.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netdriver_ipam::Addresses;
use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use crate::bridge;
use crate::dns::{self, Entry, Resolver, ResolverConfiguration, Server, Sockets, View};
use crate::netlink::{Netlink, Request, mac_of};
use crate::netns::{Netns, write_sysctl};
use crate::networks::{NetworkEntry, Networks, SandboxEntry, State, Work, new_id, short};
use crate::records::{EndpointRecord, NetworkRecord, SandboxRecord};
use crate::spec::*;
use crate::{Error, Result};

/// Loopback has this index in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A locked sandbox.
pub(crate) type Locked = ArcMutexGuard<RawMutex, Work>;

/// The endpoints that lead outside, by family.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Gateways {
    pub(crate) ipv4: Option<Endpoint>,
    pub(crate) ipv6: Option<Endpoint>,
}

impl Networks {
    /// Makes a sandbox with loopback up and no endpoint.
    ///
    /// # Errors
    /// [`Error::SandboxExists`], [`Error::Invalid`], the kernel's.
    pub fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let inner = &self.inner;
        let id = spec.id.clone();
        if id.is_empty()
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(Error::Invalid(format!(
                "sandbox id {id:?}: letters, digits, '-' and '_' only"
            )));
        }
        let mode = spec.mode;
        let record = SandboxRecord {
            spec,
            endpoints: Vec::new(),
            port_requests: Vec::new(),
            ports: Vec::new(),
        };
        let work = Arc::new(Mutex::new(Work::default()));
        let mut locked = work.lock_arc();
        {
            let mut state = inner.state.lock();
            if state.sandboxes.contains_key(&id) {
                return Err(Error::SandboxExists(id));
            }
            inner.records.write_sandbox(&record)?;
            state
                .sandboxes
                .insert(id.clone(), SandboxEntry { record, work });
        }
        if mode == SandboxMode::Private {
            match Netns::create(&inner.records.netns(&id), configure_loopback) {
                Ok((netns, ())) => locked.netns = Some(Arc::new(netns)),
                Err(error) => {
                    locked.removed = true;
                    inner.state.lock().sandboxes.remove(&id);
                    if let Err(leftover) = inner.records.delete_sandbox(&id) {
                        tracing::warn!(container.id = id, %leftover, "could not undo the creation of a sandbox");
                    }
                    return Err(error);
                }
            }
        }
        drop(locked);
        self.sandbox(&id)
    }

    /// The sandbox of this exact id.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`].
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let state = self.inner.state.lock();
        let record = &state.sandbox(id)?.record;
        Ok(Sandbox {
            id: id.to_owned(),
            netns: (record.spec.mode == SandboxMode::Private).then(|| self.inner.records.netns(id)),
            endpoints: record
                .endpoints
                .iter()
                .map(|endpoint| endpoint.endpoint.clone())
                .collect(),
            ports: record.ports.clone(),
        })
    }

    /// Connects a sandbox to a network, also while its processes run. Default route and published ports move to the new
    /// endpoint if it is the best gateway.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::NetworkNotFound`], [`Error::AlreadyConnected`], [`Error::ModeConflict`], [`Error::Address`],
    /// [`Error::Invalid`], [`Error::Unsupported`], those of [`publish`](Self::publish), the kernel's; after an error the sandbox is as before.
    pub fn connect(&self, sandbox: &str, network: &str, spec: EndpointSpec) -> Result<Endpoint> {
        let mut work = self.lock(sandbox)?;
        let (record, network) = {
            let mut state = self.inner.state.lock();
            let id = state.resolve(network)?;
            let planned = state.plan_endpoint(sandbox, &id, &spec)?;
            let entry = state
                .sandboxes
                .get_mut(sandbox)
                .expect("the locked sandbox is there");
            entry.record.endpoints.push(planned.clone());
            if let Err(error) = self.inner.records.write_sandbox(&entry.record) {
                state.drop_endpoint(sandbox, &planned.endpoint);
                return Err(error);
            }
            (planned, state.networks[&id].record.clone())
        };
        if let Err(error) = self.plug(&mut work, sandbox, &record, &network) {
            if let Err(leftover) = self.unplug(&mut work, sandbox, &record) {
                tracing::warn!(container.id = sandbox, %leftover, "could not undo a connection that failed");
            }
            return Err(error);
        }
        Ok(record.endpoint)
    }

    /// Undoes [`connect`](Self::connect), also while processes run.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::NetworkNotFound`], [`Error::NotConnected`], the kernel's. The endpoint is gone from the
    /// records in any case.
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
                .find(|endpoint| endpoint.endpoint.network_id == id);
            found.cloned().ok_or_else(|| Error::NotConnected {
                sandbox: sandbox.to_owned(),
                network: state.networks[&id].record.name.clone(),
            })?
        };
        self.unplug(&mut work, sandbox, &record)
    }

    /// Removes the sandbox with its endpoints and ports. Removing one that does not exist is no error. Collects failures and goes on;
    /// the first is returned once everything else is gone, and removing again tries the rest again.
    ///
    /// The kernel deletes the interfaces of a namespace nobody uses any more by itself, some 0.1 s later.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut work = match self.lock(id) {
            Ok(work) => work,
            Err(Error::SandboxNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut first_error = Ok(());
        let mut note = |result: Result<()>| {
            if let Err(error) = result {
                tracing::warn!(container.id = id, %error, "removing a sandbox");
                if first_error.is_ok() {
                    first_error = Err(error);
                }
            }
        };
        note(self.unpublish(&mut work, id));
        work.server = None;
        let endpoints = self
            .inner
            .state
            .lock()
            .sandbox(id)?
            .record
            .endpoints
            .clone();
        for endpoint in &endpoints {
            self.inner
                .zone
                .write()
                .remove(&endpoint.endpoint.network_id, &endpoint.endpoint.id);
        }
        work.netns = None;
        let removed = Netns::remove(&self.inner.records.netns(id));
        let gone = removed.is_ok();
        note(removed);
        if gone {
            let mut state = self.inner.state.lock();
            for endpoint in &endpoints {
                state.drop_endpoint(id, &endpoint.endpoint);
            }
            note(self.inner.records.delete_sandbox(id));
            state.sandboxes.remove(id);
            work.removed = true;
        }
        first_error
    }

    /// A container was renamed: DNS answers the new name from now on.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::File`].
    pub fn rename_sandbox(&self, id: &str, name: &str) -> Result<()> {
        let _work = self.lock(id)?;
        let mut state = self.inner.state.lock();
        let State {
            networks,
            sandboxes,
        } = &mut *state;
        let entry = sandboxes
            .get_mut(id)
            .ok_or_else(|| Error::SandboxNotFound(id.to_owned()))?;
        let mut record = entry.record.clone();
        record.spec.name = name.to_owned();
        for endpoint in &mut record.endpoints {
            if networks
                .get(&endpoint.endpoint.network_id)
                .is_some_and(|network| network.record.has_names())
            {
                endpoint.endpoint.dns_names = names(&record.spec, &endpoint.aliases);
            }
        }
        self.inner.records.write_sandbox(&record)?;
        let mut zone = self.inner.zone.write();
        for endpoint in &record.endpoints {
            publish_names(&mut zone, &endpoint.endpoint);
        }
        entry.record = record;
        Ok(())
    }

    /// Content for the sandbox's `/etc/resolv.conf`. Depends on the endpoints: ask again after connect and disconnect.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`].
    pub fn resolv_conf(&self, sandbox: &str) -> Result<String> {
        let state = self.inner.state.lock();
        let record = &state.sandbox(sandbox)?.record;
        let named = record.endpoints.iter().any(|endpoint| {
            state
                .networks
                .get(&endpoint.endpoint.network_id)
                .is_some_and(|network| network.record.has_names())
        });
        let resolver = match record.spec.mode {
            SandboxMode::Host => Resolver::HostNamespace,
            SandboxMode::Private if named => Resolver::Embedded,
            SandboxMode::Private => Resolver::Upstreams,
        };
        let own = ResolverConfiguration {
            nameservers: record.spec.dns_servers.clone(),
            search: record.spec.dns_search.clone(),
            options: record.spec.dns_options.clone(),
        };
        Ok(dns::resolv_conf(resolver, &self.inner.resolv_conf, &own))
    }

    /// Content for the sandbox's `/etc/hosts`: loopback, `extra` (`--add-host`) as `(name, address)`, and its own addresses. In the
    /// host's namespace it is the host's file with `extra`.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`].
    pub fn hosts(
        &self,
        sandbox: &str,
        hostname: &str,
        domainname: &str,
        extra: &[(String, IpAddr)],
    ) -> Result<String> {
        if self.inner.state.lock().sandbox(sandbox)?.record.spec.mode == SandboxMode::Host {
            return Ok(dns::hosts_of_host(&self.inner.config.hosts, extra));
        }
        let endpoints = self.sandbox(sandbox)?.endpoints;
        let addresses = |endpoint: &Endpoint| {
            let ipv4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
            let ipv6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
            ipv4.into_iter().chain(ipv6).collect::<Vec<_>>()
        };
        let own: Vec<IpAddr> = endpoints.iter().flat_map(addresses).collect();
        Ok(dns::hosts(&own, hostname, domainname, extra))
    }

    /// Locks a sandbox that exists.
    pub(crate) fn lock(&self, sandbox: &str) -> Result<Locked> {
        let work = self.inner.state.lock().sandbox(sandbox)?.work.clone();
        let locked = work.lock_arc();
        if locked.removed {
            Err(Error::SandboxNotFound(sandbox.to_owned()))
        } else {
            Ok(locked)
        }
    }

    /// Makes a recorded endpoint real: interface, addresses, default route, names, ports.
    pub(crate) fn plug(
        &self,
        work: &mut Work,
        sandbox: &str,
        record: &EndpointRecord,
        network: &NetworkRecord,
    ) -> Result<()> {
        let (Some(bridge), Some(host_interface), Some(netns)) =
            (&network.bridge, &record.host_interface, work.netns.clone())
        else {
            return Ok(());
        };
        let index = self.inner.ensure_bridge(network)?;
        bridge::attach(
            &mut Netlink::open()?,
            bridge,
            index,
            &netns,
            &record.endpoint,
            host_interface,
        )?;
        let gateways = self.gateways(sandbox);
        let starts_server = network.has_names() && work.server.is_none();
        let sockets = netns.enter(|| {
            let mut netlink = Netlink::open()?;
            let index = bridge::configure_inside(&mut netlink, &record.endpoint)?;
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
        if gateways.is_led_by(&record.endpoint) {
            self.repoint(work, sandbox, &gateways)
        } else {
            Ok(())
        }
    }

    /// Undoes [`plug`](Self::plug) as far as it went, then forgets the endpoint.
    fn unplug(&self, work: &mut Work, sandbox: &str, record: &EndpointRecord) -> Result<()> {
        let endpoint = &record.endpoint;
        self.inner
            .zone
            .write()
            .remove(&endpoint.network_id, &endpoint.id);
        let before = self.gateways(sandbox);
        let mut result = match &record.host_interface {
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
        if let Some(server) = &work.server {
            server.set_view(self.view(sandbox));
        }
        result
    }

    /// Starts the sandbox's DNS server on sockets just opened, or tells the running one about the change.
    pub(crate) fn serve_names(
        &self,
        work: &mut Work,
        sandbox: &str,
        netns: &Arc<Netns>,
        sockets: Option<Sockets>,
    ) -> Result<()> {
        let view = self.view(sandbox);
        match (sockets, &work.server) {
            (Some(sockets), _) => {
                let (zone, resolv_conf) = (self.inner.zone.clone(), self.inner.resolv_conf.clone());
                let server = Server::start(
                    &self.inner.config.runtime,
                    sockets,
                    netns.clone(),
                    zone,
                    resolv_conf,
                    view,
                )
                .map_err(Error::kernel("start the DNS server of a sandbox"))?;
                work.server = Some(server);
            }
            (None, Some(server)) => server.set_view(view),
            (None, None) => {}
        }
        Ok(())
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

    fn view(&self, sandbox: &str) -> View {
        let state = self.inner.state.lock();
        let Some(entry) = state.sandboxes.get(sandbox) else {
            return View::default();
        };
        let mut endpoints: Vec<_> = entry
            .record
            .endpoints
            .iter()
            .map(|record| &record.endpoint)
            .collect();
        // Stable: equal priorities stay in order of connection.
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.gw_priority));
        View {
            may_forward: endpoints
                .iter()
                .any(|endpoint| endpoint.gateway.is_some() || endpoint.gateway_v6.is_some()),
            networks: endpoints
                .iter()
                .map(|endpoint| endpoint.network_id.clone())
                .collect(),
            servers: entry.record.spec.dns_servers.clone(),
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
    pub(crate) fn sandbox(&self, id: &str) -> Result<&SandboxEntry> {
        self.sandboxes
            .get(id)
            .ok_or_else(|| Error::SandboxNotFound(id.to_owned()))
    }

    /// Checks a request, takes addresses, and fills in everything; records nothing.
    fn plan_endpoint(
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
            Driver::Bridge => private && !on_none,
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
        let Some(bridge) = &network.bridge else {
            return Ok(EndpointRecord {
                endpoint,
                aliases: Vec::new(),
                host_interface: None,
            });
        };
        endpoint.ifname = interface_name(spec, sandbox, &bridge.interface_prefix)?;
        entry.take_addresses(spec, &mut endpoint)?;
        endpoint.mac = Some(spec.mac_address.unwrap_or_else(|| {
            mac_of(
                endpoint.ipv4.map(|net| net.addr()),
                endpoint.ipv6.map(|net| net.addr()),
            )
        }));
        if network.has_names() {
            endpoint.dns_names = names(&sandbox.spec, &spec.aliases);
        }
        // Named for the endpoint, not by the user: random enough, and found again after a crash.
        let host_interface = format!("veth{}", new_id().get(..8).unwrap_or_default());
        Ok(EndpointRecord {
            endpoint,
            aliases: spec.aliases.clone(),
            host_interface: Some(host_interface),
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
        // An internal network leads nowhere, and has a gateway address all the same: the host's on the bridge.
        for gateway in record
            .ipam
            .iter()
            .filter_map(|config| config.gateway)
            .filter(|_| !record.internal)
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
    if let Some((key, value)) = spec.driver_options.first() {
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
    match &spec.ifname {
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

/// Container name, aliases, short id, hostname, each once.
fn names(sandbox: &SandboxSpec, aliases: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let all = [sandbox.name.as_str()]
        .into_iter()
        .chain(aliases.iter().map(String::as_str));
    for name in all.chain([short(&sandbox.id), sandbox.hostname.as_str()]) {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

pub(crate) fn publish_names(zone: &mut dns::Zone, endpoint: &Endpoint) {
    if !endpoint.dns_names.is_empty() {
        let entry = Entry {
            endpoint: endpoint.id.clone(),
            names: endpoint.dns_names.clone(),
            ipv4: endpoint.ipv4.map(|net| net.addr()),
            ipv6: endpoint.ipv6.map(|net| net.addr()),
        };
        zone.insert(&endpoint.network_id, &endpoint.network_name, &entry);
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

/// Runs inside a new sandbox.
fn configure_loopback() -> Result<()> {
    write_sysctl("ipv4/conf/default/arp_notify", "1")?;
    Netlink::open()?.execute(vec![Request::raise(LOOPBACK_INDEX)])
}

/// Runs inside the sandbox.
pub(crate) fn open_dns() -> Result<Sockets> {
    dns::open().map_err(Error::kernel("open the DNS server's sockets in a sandbox"))
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
