//! Operations on sandboxes. Each holds the sandbox's lock, writes its record first, then changes
//! the kernel.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use crate::dns::{self, Entry, Resolver, ResolverConfiguration, Server, Sockets, View};
use crate::netlink::{Netlink, Request};
use crate::netns::{Netns, read_sysctl, write_sysctl};
use crate::networks::{Networks, SandboxEntry, State, Work, short};
use crate::records::SandboxRecord;
use crate::spec::*;
use crate::{Error, Result};

/// Loopback has this index in every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A locked sandbox.
pub(crate) type Locked = ArcMutexGuard<RawMutex, Work>;

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
                .filter(|endpoint| !endpoint.gateway_only)
                .map(|endpoint| endpoint.endpoint.clone())
                .collect(),
            ports: record.ports.clone(),
        })
    }

    /// Removes the sandbox with its endpoints and ports. Removing one that does not exist is no
    /// error. Collects failures and goes on; the first is returned once everything else is gone,
    /// and removing again tries the rest again.
    ///
    /// The kernel deletes the interfaces of a namespace nobody uses any more by itself, some 0.1 s
    /// later.
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
        work.balancer = None;
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
            // Its address may be on another host in a moment.
            if let (Some(port), Some(mac)) = (&endpoint.host_interface, endpoint.endpoint.mac)
                && let Ok(mut live) = self.inner.live(&endpoint.endpoint.network_id)
            {
                note(live.close(port, mac));
            }
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
                endpoint.endpoint.dns_names = dns_names(&record.spec, &endpoint.aliases);
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

    /// Content for the sandbox's `/etc/resolv.conf`. Depends on the endpoints: ask again after
    /// connect and disconnect.
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

    /// Content for the sandbox's `/etc/hosts`: loopback, `extra` (`--add-host`) as `(name,
    /// address)`, and its own addresses. In the host's namespace it is the host's file with
    /// `extra`.
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

    /// Starts the sandbox's DNS server on sockets just opened, or tells the running one about the
    /// change.
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

    pub(crate) fn view(&self, sandbox: &str) -> View {
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

impl State {
    pub(crate) fn sandbox(&self, id: &str) -> Result<&SandboxEntry> {
        self.sandboxes
            .get(id)
            .ok_or_else(|| Error::SandboxNotFound(id.to_owned()))
    }
}

/// Container name, aliases, short id, hostname, each once.
pub(crate) fn dns_names(sandbox: &SandboxSpec, aliases: &[String]) -> Vec<String> {
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

/// Runs inside a new sandbox.
fn configure_loopback() -> Result<()> {
    write_sysctl("ipv4/conf/default/arp_notify", "1")?;
    let ndisc_notify = "ipv6/conf/default/ndisc_notify";
    if read_sysctl(ndisc_notify).is_some() {
        write_sysctl(ndisc_notify, "1")?;
    }
    Netlink::open()?.execute(vec![Request::raise(LOOPBACK_INDEX)])
}

/// Runs inside the sandbox.
pub(crate) fn open_dns() -> Result<Sockets> {
    dns::open().map_err(Error::kernel("open the DNS server's sockets in a sandbox"))
}
