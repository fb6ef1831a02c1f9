//! Published ports of sandboxes: host ports taken, translated to the gateway endpoint, moved when
//! that one changes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::conntrack;
use crate::endpoints::Gateways;
use crate::firewall::PublishedAt;
use crate::networks::{Networks, Work, short};
use crate::ports::{Families, HeldPort};
use crate::relay::Relay;
use crate::spec::*;
use crate::{Error, Result};

/// A port in use by a sandbox.
pub(crate) struct PublishedPort {
    pub(crate) binding: PortBinding,
    keeper: Keeper,
}

/// What holds the host port.
enum Keeper {
    /// A socket nobody reads: the packet filter does the work.
    Socket(#[expect(dead_code, reason = "held until the port is given back")] OwnedFd),
    Relay(Relay),
}

impl Networks {
    /// Publishes ports, all or none, replacing those published before. The result is empty while no
    /// endpoint leads outside (internal, `host` and `none` networks), as in Docker; the ports are
    /// then published once one does.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`], [`Error::PortAllocated`], [`Error::PortsExhausted`],
    /// [`Error::PortBind`], [`Error::Invalid`], the kernel's; after one of those no port of the
    /// sandbox is published.
    pub fn publish(&self, sandbox: &str, ports: &[PortRequest]) -> Result<Vec<PortBinding>> {
        for request in ports {
            let bad_range = request
                .host_ports
                .is_some_and(|(first, last)| first == 0 || first > last);
            if request.container_port == 0 || bad_range {
                return Err(Error::Invalid(format!(
                    "port {}: ports are 1 to 65535, ranges ascending",
                    request.container_port
                )));
            }
        }
        let mut work = self.lock(sandbox)?;
        self.unpublish(&mut work, sandbox)?;
        self.record_ports(sandbox, |record_requests, _| {
            *record_requests = ports.to_vec()
        })?;
        let gateways = self.gateways(sandbox);
        self.publish_all(&mut work, sandbox, &gateways)?;
        Ok(work.ports.iter().map(|port| port.binding.clone()).collect())
    }

    /// Takes all ports of a sandbox back.
    pub(crate) fn unpublish(&self, work: &mut Work, sandbox: &str) -> Result<()> {
        let bindings = self
            .inner
            .state
            .lock()
            .sandbox(sandbox)?
            .record
            .ports
            .clone();
        if bindings.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = bindings.iter().map(place).collect();
        let closed: Vec<_> = places.iter().map(|place| (*place, None)).collect();
        let result = self
            .inner
            .firewall
            .lock()
            .set_ports(&closed)
            .and(conntrack::forget(&places));
        work.ports.clear();
        self.inner.ports.lock().release(&bindings);
        result.and(self.record_ports(sandbox, |_, ports| ports.clear()))
    }

    /// Sends the sandbox's ports to the gateways of now; publishes them if they could not be
    /// before.
    pub(crate) fn repoint(
        &self,
        work: &mut Work,
        sandbox: &str,
        gateways: &Gateways,
    ) -> Result<()> {
        if work.ports.is_empty() {
            return self.publish_all(work, sandbox, gateways);
        }
        self.translate(work, gateways)
    }

    /// The translation of the recorded ports, for the table that is installed at start-up. It does
    /// not depend on holding the ports: a container keeps them even if somebody grabbed one while
    /// there was no daemon.
    pub(crate) fn recorded_translation(
        &self,
        sandbox: &str,
    ) -> Vec<(PublishedAt, Option<SocketAddr>)> {
        let gateways = self.gateways(sandbox);
        let state = self.inner.state.lock();
        let bindings = state
            .sandbox(sandbox)
            .map_or(&[][..], |entry| &entry.record.ports);
        bindings
            .iter()
            .map(|binding| (place(binding), target(binding, &gateways)))
            .collect()
    }

    /// Binds the recorded host ports again.
    pub(crate) fn adopt_ports(&self, work: &mut Work, sandbox: &str) -> Vec<Error> {
        let (bindings, holder) = match self.inner.state.lock().sandbox(sandbox) {
            Ok(entry) => (entry.record.ports.clone(), holder(&entry.record.spec)),
            Err(error) => return vec![error],
        };
        let gateways = self.gateways(sandbox);
        let mut errors = Vec::new();
        let mut held = Vec::new();
        for binding in &bindings {
            match self.inner.ports.lock().adopt(&holder, binding) {
                Ok(port) => held.push(port),
                Err(error) => errors.push(error),
            }
        }
        for port in held {
            match self.keep(port, &gateways) {
                Ok(port) => work.ports.push(port),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    fn publish_all(&self, work: &mut Work, sandbox: &str, gateways: &Gateways) -> Result<()> {
        let (requests, holder, default_address) = {
            let state = self.inner.state.lock();
            let default_address = gateways.ipv4.as_ref().and_then(|endpoint| {
                state
                    .networks
                    .get(&endpoint.network_id)?
                    .record
                    .bridge
                    .as_ref()?
                    .publish_address
            });
            let record = &state.sandbox(sandbox)?.record;
            (
                record.port_requests.clone(),
                holder(&record.spec),
                default_address,
            )
        };
        if requests.is_empty() || *gateways == Gateways::default() {
            return Ok(());
        }
        let default_address = default_address.or(self.inner.config.default_publish_address);
        let held = {
            let families = Families {
                ipv4: gateways.ipv4.is_some(),
                ipv6: gateways.ipv6.is_some(),
            };
            let mut ports = self.inner.ports.lock();
            ports.allocate(&holder, &requests, default_address, families)?
        };
        let bindings: Vec<_> = held.iter().map(|port| port.binding.clone()).collect();
        let publish = |work: &mut Work| {
            self.record_ports(sandbox, |_, ports| *ports = bindings.clone())?;
            work.ports = held
                .into_iter()
                .map(|port| self.keep(port, gateways))
                .collect::<Result<_>>()?;
            self.translate(work, gateways)
        };
        publish(work).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.unpublish(work, sandbox);
        })
    }

    /// Points firewall and relays at the gateways, and ends UDP flows to where they pointed before.
    fn translate(&self, work: &Work, gateways: &Gateways) -> Result<()> {
        let targets: Vec<_> = work
            .ports
            .iter()
            .map(|port| (port, target(&port.binding, gateways)))
            .collect();
        for (port, target) in &targets {
            if let (Keeper::Relay(relay), Some(target)) = (&port.keeper, target) {
                relay.set_target(*target);
            }
        }
        let changes: Vec<_> = targets
            .iter()
            .map(|(port, target)| (place(&port.binding), *target))
            .collect();
        self.inner.firewall.lock().set_ports(&changes)?;
        conntrack::forget(&changes.iter().map(|(place, _)| *place).collect::<Vec<_>>())
    }

    fn keep(&self, port: HeldPort, gateways: &Gateways) -> Result<PublishedPort> {
        let HeldPort { binding, socket } = port;
        let keeper = match target(&binding, gateways) {
            Some(target) if needs_relay(&binding, &target) => {
                let relay = Relay::start(&self.inner.config.runtime, socket, target);
                Keeper::Relay(
                    relay.map_err(Error::kernel(format!("relay port {}", binding.host_port)))?,
                )
            }
            _ => Keeper::Socket(socket),
        };
        Ok(PublishedPort { binding, keeper })
    }

    fn record_ports(
        &self,
        sandbox: &str,
        change: impl FnOnce(&mut Vec<PortRequest>, &mut Vec<PortBinding>),
    ) -> Result<()> {
        let mut state = self.inner.state.lock();
        let entry = state
            .sandboxes
            .get_mut(sandbox)
            .ok_or_else(|| Error::SandboxNotFound(sandbox.to_owned()))?;
        change(&mut entry.record.port_requests, &mut entry.record.ports);
        self.inner.records.write_sandbox(&entry.record)
    }
}

/// Whose a port is, for the error message of whoever wants it later.
fn holder(spec: &SandboxSpec) -> String {
    format!("container {} {}", spec.name, short(&spec.id))
}

fn place(binding: &PortBinding) -> PublishedAt {
    PublishedAt {
        host_ip: binding.host_ip,
        protocol: binding.protocol,
        host_port: binding.host_port,
    }
}

/// TCP over IPv6 (the filter serves what it can, the relay `::1` and containers without an IPv6
/// address), and from IPv4 to a container without an IPv4 address.
fn needs_relay(binding: &PortBinding, target: &SocketAddr) -> bool {
    binding.protocol == Protocol::Tcp && (binding.host_ip.is_ipv6() || target.is_ipv6())
}

/// Where packets to a host port go: the gateway endpoint's address of the same family, else, for a
/// relay, of the other one.
fn target(binding: &PortBinding, gateways: &Gateways) -> Option<SocketAddr> {
    let ipv4 = gateways
        .ipv4
        .as_ref()
        .and_then(|endpoint| endpoint.ipv4)
        .map(|net| IpAddr::V4(net.addr()));
    let ipv6 = gateways
        .ipv6
        .as_ref()
        .and_then(|endpoint| endpoint.ipv6)
        .map(|net| IpAddr::V6(net.addr()));
    let (same, other) = match binding.host_ip {
        IpAddr::V4(_) => (ipv4, ipv6),
        IpAddr::V6(_) => (ipv6, ipv4),
    };
    let address = same.or(other.filter(|_| binding.protocol == Protocol::Tcp));
    address.map(|address| SocketAddr::new(address, binding.container_port))
}
