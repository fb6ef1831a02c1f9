//! The registry: which networks and sandboxes there are. Networks are created and removed here;
//! [`sandboxes`](crate::sandboxes) and [`publish`](crate::publish) hold the operations on
//! sandboxes, [`reconcile`](crate::reconcile) those at start-up.
//!
//! Locks, always taken in this order: the ingress, a sandbox's [`Work`] (held while an operation on
//! it lasts), an overlay's [`Live`] (the same), [`State`] (held for memory and record writes, never for a kernel request), then at most one of
//! firewall, ports and zone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use indexmap::IndexMap;
use ipnet::IpNet;
use netdriver_ipam::Addresses;
use parking_lot::{Mutex, RwLock};

use crate::bridge::{self, Bridge};
use crate::dns::{Server, Zone};
use crate::firewall::{Firewall, NetworkRules, forward_drops_elsewhere};
use crate::netlink::Netlink;
use crate::netns::{Netns, read_sysctl, write_sysctl};
use crate::overlay::{Balancer, GATEWAY_NETWORK, IngressState, Live};
use crate::pools;
use crate::ports::Ports;
use crate::predefined::DEFAULT_RUN;
use crate::publish::PublishedPort;
use crate::records::{NetworkRecord, Records, SandboxRecord};
use crate::spec::*;
use crate::{Error, Result};

/// Names nobody may give a network, besides those that exist: the Engine API's word for the default
/// one.
const RESERVED_NAME: &str = "default";

/// All networks and sandboxes of one daemon. Cheap to clone; clones share everything. When the last
/// one goes, DNS servers and relays stop; everything in the kernel stays for the next
/// [`open`](Networks::open).
#[derive(Clone)]
pub struct Networks {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) records: Records,
    /// The alias of our bridges.
    pub(crate) alias: String,
    pub(crate) resolv_conf: Arc<Path>,
    pub(crate) state: Mutex<State>,
    pub(crate) firewall: Mutex<Firewall>,
    pub(crate) table: String,
    pub(crate) ports: Mutex<Ports>,
    pub(crate) zone: Arc<RwLock<Zone>>,
    /// Held while bridges are created and deleted.
    pub(crate) bridges: Mutex<()>,
    /// By id. Held for look-ups alone, inside any other lock.
    pub(crate) overlays: Mutex<BTreeMap<String, Arc<Mutex<Live>>>>,
    pub(crate) ingress: Mutex<IngressState>,
    /// Names of interfaces that other daemons of this host do not have: this one's part of them.
    /// `None`: it is the host's only one by default.
    pub(crate) suffix: Option<String>,
}

#[derive(Default)]
pub(crate) struct State {
    /// By id, in order of creation.
    pub(crate) networks: IndexMap<String, NetworkEntry>,
    /// By id.
    pub(crate) sandboxes: HashMap<String, SandboxEntry>,
}

pub(crate) struct NetworkEntry {
    pub(crate) record: Arc<NetworkRecord>,
    pub(crate) ipv4: Option<Addresses>,
    pub(crate) ipv6: Option<Addresses>,
    /// Set while the network is being removed: nothing may connect any more.
    pub(crate) removing: bool,
}

pub(crate) struct SandboxEntry {
    pub(crate) record: SandboxRecord,
    pub(crate) work: Arc<Mutex<Work>>,
}

/// What an open sandbox consists of in this process.
#[derive(Default)]
pub(crate) struct Work {
    /// `None` when the sandbox is the host's, or not adopted yet.
    pub(crate) netns: Option<Arc<Netns>>,
    pub(crate) server: Option<Server>,
    pub(crate) ports: Vec<PublishedPort>,
    /// Of a sandbox on overlays.
    pub(crate) balancer: Option<Balancer>,
    /// Set once the sandbox is gone; whoever waited for the lock finds out here.
    pub(crate) removed: bool,
}

impl Networks {
    /// Reads the records; creates the predefined networks the first time. Touches nothing else.
    /// Call [`reconcile`](Self::reconcile) before anything else when sandboxes may be left from an
    /// earlier daemon.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Record`], [`Error::Invalid`] for configured pools that make no
    /// sense.
    pub fn open(config: Config) -> Result<Networks> {
        for pool in &config.default_address_pools {
            pool.validate()
                .map_err(|error| Error::Invalid(error.to_string()))?;
        }
        let records = Records::open(&config.root, &config.run)?;
        let run = config
            .run
            .canonicalize()
            .map_err(Error::file("resolve directory", &config.run))?;
        let instance = format!("{:016x}", fnv1a(run.as_os_str().as_encoded_bytes()));
        let table = format!("muster_{}", &instance[..8]);
        let (state, overlays, zone) = load(&records)?;
        let ingress = records.ingress()?;
        let mut firewall = Firewall::new(table.clone());
        // A list from before a reboot guards nothing: forwarding is off again.
        if ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
            .iter()
            .any(|key| read_sysctl(key).as_deref() == Some("1"))
        {
            firewall.set_unrouted(records.unrouted()?)?;
        }
        let networks = Networks {
            inner: Arc::new(Inner {
                alias: format!("muster {instance}"),
                resolv_conf: config.resolv_conf.clone().into(),
                config,
                records,
                state: Mutex::new(state),
                firewall: Mutex::new(firewall),
                table,
                ports: Mutex::new(Ports::default()),
                zone: Arc::new(RwLock::new(zone)),
                bridges: Mutex::new(()),
                overlays: Mutex::new(overlays),
                ingress: Mutex::new(IngressState::new(ingress)),
                suffix: (run != Path::new(DEFAULT_RUN)).then(|| instance[..8].to_owned()),
            }),
        };
        networks.ensure_predefined(&run, &instance)?;
        Ok(networks)
    }

    /// Creates a network and its bridge.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::PoolOverlap`], [`Error::PoolsExhausted`],
    /// [`Error::Invalid`], [`Error::Unsupported`] and the kernel's; after an error nothing is left.
    pub fn create(&self, spec: NetworkSpec) -> Result<NetworkInfo> {
        let inner = &self.inner;
        check(&spec)?;
        // Read before the lock: the kernel takes its time with many routes.
        let in_use = Netlink::open()?.networks_in_use()?;
        let id = new_id();
        let record = {
            let mut state = inner.state.lock();
            if state
                .networks
                .values()
                .any(|entry| entry.record.name == spec.name)
            {
                return Err(Error::AlreadyExists(spec.name));
            }
            let bridge = Bridge::from_options(
                &spec,
                format!("br-{}", &id[..12]),
                state.free_group(),
                inner.config.mtu,
            )?;
            if let Some(other) = state.networks.values().find(|entry| {
                entry
                    .record
                    .bridge
                    .as_ref()
                    .is_some_and(|other| other.name == bridge.name)
            }) {
                return Err(Error::Invalid(format!(
                    "bridge name {} is used by network {}",
                    bridge.name, other.record.name
                )));
            }
            let planned = pools::plan(
                &spec,
                &inner.config,
                &state.subnets(),
                &in_use,
                &inner.resolv_conf,
            )?;
            let record = Arc::new(NetworkRecord {
                id: id.clone(),
                name: spec.name,
                created: SystemTime::now(),
                driver: Driver::Bridge,
                ipam: planned.ipam,
                user_subnet: spec.ipam.iter().any(|config| config.subnet.is_some()),
                internal: spec.internal,
                enable_ipv4: planned.ipv4.is_some(),
                enable_ipv6: planned.ipv6.is_some(),
                attachable: spec.attachable,
                options: spec.options,
                labels: spec.labels,
                predefined: false,
                bridge: Some(bridge),
                overlay: None,
            });
            inner.records.write_network(&record)?;
            let entry = NetworkEntry {
                record: record.clone(),
                ipv4: planned.ipv4,
                ipv6: planned.ipv6,
                removing: false,
            };
            state.networks.insert(id.clone(), entry);
            record
        };
        if let Err(error) = inner.ensure_bridge(&record) {
            if let Err(leftover) = inner.forget_network(&record) {
                tracing::warn!(network.id = id, %leftover, "could not remove a network whose creation failed");
            }
            return Err(error);
        }
        tracing::info!(
            network.id = id,
            network.name = record.name,
            "network created"
        );
        self.inspect(&id)
    }

    /// Removes a network without endpoints, by name, id or unique id prefix. Returns what it was.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Ambiguous`], [`Error::PredefinedRemove`],
    /// [`Error::ActiveEndpoints`] and the kernel's; after one of those the network is still there
    /// and can be removed again.
    pub fn remove(&self, reference: &str) -> Result<NetworkInfo> {
        let inner = &self.inner;
        let info = {
            let mut state = inner.state.lock();
            let id = state.resolve(reference)?;
            let info = state.info(&id);
            if info.predefined {
                return Err(Error::PredefinedRemove(info.name));
            }
            if info.driver == Driver::Overlay {
                return Err(Error::ClusterNetwork(info.name));
            }
            if !info.endpoints.is_empty() {
                let describe = |connected: &ConnectedEndpoint| {
                    format!(
                        "name:{:?} id:{:?}",
                        connected.name,
                        short(&connected.endpoint.id)
                    )
                };
                let endpoints: Vec<_> = info.endpoints.iter().map(describe).collect();
                return Err(Error::ActiveEndpoints {
                    network: info.name,
                    endpoints: endpoints.join(", "),
                });
            }
            let entry = &mut state.networks[&id];
            if std::mem::replace(&mut entry.removing, true) {
                return Err(Error::NetworkNotFound(reference.to_owned()));
            }
            info
        };
        let record = inner.state.lock().networks[&info.id].record.clone();
        if let Err(error) = inner.forget_network(&record) {
            if let Some(entry) = inner.state.lock().networks.get_mut(&info.id) {
                entry.removing = false;
            }
            return Err(error);
        }
        tracing::info!(
            network.id = info.id,
            network.name = info.name,
            "network removed"
        );
        Ok(info)
    }

    /// All networks, in order of creation.
    pub fn list(&self) -> Vec<NetworkInfo> {
        let state = self.inner.state.lock();
        state.networks.keys().map(|id| state.info(id)).collect()
    }

    /// One network by name, id or unique id prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Ambiguous`].
    pub fn inspect(&self, reference: &str) -> Result<NetworkInfo> {
        let state = self.inner.state.lock();
        let id = state.resolve(reference)?;
        Ok(state.info(&id))
    }

    /// The address that `host-gateway` in `--add-host` stands for. Unless configured, it is the
    /// host's on the `bridge` network, whose interface is made now if it is not there yet.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        if let Some(address) = self.inner.config.host_gateway {
            return Some(address);
        }
        let bridge = self.inner.predefined("bridge")?;
        if let Err(error) = self.inner.ensure_bridge(&bridge) {
            tracing::warn!(%error, "the address host-gateway stands for is not there");
        }
        bridge.ipam.first()?.gateway
    }

    /// Conditions on this host that break networking and that we do not change, each worded for the
    /// user (for instance another table that drops forwarded packets). Reads the kernel's tables: a
    /// few milliseconds.
    pub fn warnings(&self) -> Vec<String> {
        match forward_drops_elsewhere(&self.inner.table) {
            Ok(chains) => chains
                .into_iter()
                .map(|chain| {
                    format!(
                        "{chain} drops forwarded packets by default, which may cut containers off from the outside; \
                         accept packets from and to their bridges (muster*, br-*) there"
                    )
                })
                .collect(),
            Err(error) => vec![format!("cannot tell whether other tables drop packets of containers: {error}")],
        }
    }
}

impl Inner {
    pub(crate) fn add_network(
        &self,
        record: NetworkRecord,
        ipv4: Option<Addresses>,
        ipv6: Option<Addresses>,
    ) -> Result<()> {
        self.records.write_network(&record)?;
        let id = record.id.clone();
        let entry = NetworkEntry {
            record: Arc::new(record),
            ipv4,
            ipv6,
            removing: false,
        };
        self.state.lock().networks.insert(id, entry);
        Ok(())
    }

    /// Makes sure that the network's bridge and firewall rules exist; returns the bridge's index.
    pub(crate) fn ensure_bridge(&self, record: &NetworkRecord) -> Result<u32> {
        let _one_at_a_time = self.bridges.lock();
        let index = bridge::ensure(&mut Netlink::open()?, record, &self.alias)?;
        let bridge = record
            .bridge
            .as_ref()
            .expect("only bridge networks come here");
        self.firewall
            .lock()
            .set_network(&bridge.name, firewall_rules(record))?;
        if !record.internal {
            self.enable_forwarding(record)?;
        }
        Ok(index)
    }

    /// Turns forwarding on if it is off, without making the host a router between the interfaces it
    /// has.
    pub(crate) fn enable_forwarding(&self, record: &NetworkRecord) -> Result<()> {
        let off = |key| read_sysctl(key).as_deref() == Some("0");
        let turn_on = [
            ("ipv4/ip_forward", record.enable_ipv4),
            ("ipv6/conf/all/forwarding", record.enable_ipv6),
        ];
        if !turn_on.iter().any(|(key, enabled)| *enabled && off(key)) {
            return Ok(());
        }
        let links = Netlink::open()?.links()?;
        let others: Vec<_> = links
            .into_iter()
            // The ingress interface's alias goes on after ours.
            .filter(|link| link.name != "lo" && !link.alias.starts_with(&self.alias))
            .collect();
        // A list from before a reboot says nothing about today.
        let ours_already = self.records.has_unrouted() && !turn_on.iter().all(|(key, _)| off(key));
        if !ours_already {
            // Ports of our bridges are veth pairs of sandboxes; they never forward by themselves.
            let names: Vec<String> = others.iter().map(|link| link.name.clone()).collect();
            self.records.write_unrouted(&names)?;
            self.firewall.lock().set_unrouted(names)?;
        }
        if record.enable_ipv4 && off("ipv4/ip_forward") {
            write_sysctl("ipv4/ip_forward", "1")?;
        }
        if record.enable_ipv6 && off("ipv6/conf/all/forwarding") {
            // Interfaces that learn their default route from router advertisements stop doing so on
            // a router, unless told 2.
            for link in &others {
                let accept_ra = format!("ipv6/conf/{}/accept_ra", link.name);
                if read_sysctl(&accept_ra).as_deref() == Some("1") {
                    write_sysctl(&accept_ra, "2")?;
                }
            }
            write_sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    }

    /// Removes a network from the kernel, then from disk and memory.
    fn forget_network(&self, record: &NetworkRecord) -> Result<()> {
        self.remove_bridge(record)?;
        self.records.delete_network(&record.id)?;
        self.state.lock().networks.shift_remove(&record.id);
        Ok(())
    }

    /// Removes a network's bridge and rules, if it has any.
    pub(crate) fn remove_bridge(&self, record: &NetworkRecord) -> Result<()> {
        let Some(bridge) = &record.bridge else {
            return Ok(());
        };
        let _one_at_a_time = self.bridges.lock();
        bridge::delete(&mut Netlink::open()?, bridge, &self.alias)?;
        self.firewall.lock().remove_network(&bridge.name)
    }
}

impl State {
    /// Adds a recorded network, without its endpoints.
    pub(crate) fn add(&mut self, record: NetworkRecord) -> Result<()> {
        let (ipv4, ipv6) = pools::restore(&record)?;
        let entry = NetworkEntry {
            record: Arc::new(record),
            ipv4,
            ipv6,
            removing: false,
        };
        self.networks.insert(entry.record.id.clone(), entry);
        Ok(())
    }

    /// The id of the network with this name, id or unique id prefix.
    pub(crate) fn resolve(&self, reference: &str) -> Result<String> {
        if self.networks.contains_key(reference) {
            return Ok(reference.to_owned());
        }
        // Names of local networks are unique; of overlays the latest is meant.
        let named = || {
            let all = self.networks.values();
            all.filter(|entry| entry.record.name == reference)
        };
        let local = named().find(|entry| entry.record.overlay.is_none());
        if let Some(entry) = local.or_else(|| named().next_back()) {
            return Ok(entry.record.id.clone());
        }
        let found: Vec<_> = self
            .networks
            .keys()
            .filter(|id| !reference.is_empty() && id.starts_with(reference))
            .collect();
        match found.as_slice() {
            [] => Err(Error::NetworkNotFound(reference.to_owned())),
            [id] => Ok((*id).clone()),
            several => Err(Error::Ambiguous {
                reference: reference.to_owned(),
                count: several.len(),
                by: "ID prefix",
            }),
        }
    }

    /// The subnets of all networks with the network's name.
    pub(crate) fn subnets(&self) -> Vec<(IpNet, String)> {
        let of = |entry: &NetworkEntry| {
            let name = entry.record.name.clone();
            entry
                .record
                .ipam
                .iter()
                .filter_map(|config| config.subnet)
                .map(move |net| (net, name.clone()))
                .collect::<Vec<_>>()
        };
        self.networks.values().flat_map(of).collect()
    }

    /// A random interface group no network has. 0 is every interface's group by default and never
    /// ours.
    pub(crate) fn free_group(&self) -> u32 {
        loop {
            let group = rand::random_range(0x1000_0000..0x7fff_ffff);
            let taken = |entry: &NetworkEntry| {
                entry
                    .record
                    .bridge
                    .as_ref()
                    .is_some_and(|bridge| bridge.group == group)
            };
            if !self.networks.values().any(taken) {
                return group;
            }
        }
    }

    pub(crate) fn info(&self, id: &str) -> NetworkInfo {
        let record = &self.networks[id].record;
        let mut connected: Vec<ConnectedEndpoint> = Vec::new();
        for sandbox in self.sandboxes.values() {
            for endpoint in sandbox
                .record
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.endpoint.network_id == id)
            {
                let spec = &sandbox.record.spec;
                connected.push(ConnectedEndpoint {
                    sandbox_id: spec.id.clone(),
                    // Docker's name for an endpoint nobody asked for.
                    name: if endpoint.gateway_only {
                        format!("gateway_{}", short(&spec.id))
                    } else {
                        spec.name.clone()
                    },
                    endpoint: endpoint.endpoint.clone(),
                });
            }
        }
        connected.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
        NetworkInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            created: record.created,
            driver: record.driver,
            ipam: record.ipam.clone(),
            internal: record.internal,
            enable_ipv4: record.enable_ipv4,
            enable_ipv6: record.enable_ipv6,
            attachable: record.attachable,
            options: shown_options(record),
            labels: record.labels.clone(),
            predefined: record.predefined,
            endpoints: connected,
        }
    }
}

impl NetworkRecord {
    /// Whether endpoints have names here: on all networks users create.
    pub(crate) fn has_names(&self) -> bool {
        let is_local = self.bridge.is_some() && !self.predefined && self.name != GATEWAY_NETWORK;
        is_local || self.overlay.is_some()
    }
}

/// Options as given; the default bridge shows Docker's list.
fn shown_options(record: &NetworkRecord) -> IndexMap<String, String> {
    let mut options = record.options.clone();
    if let (true, Some(bridge)) = (record.predefined, &record.bridge) {
        for (key, value) in [
            (
                "com.docker.network.bridge.default_bridge",
                "true".to_owned(),
            ),
            (
                "com.docker.network.bridge.enable_icc",
                bridge.inter_container.to_string(),
            ),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                bridge.masquerade.to_string(),
            ),
            (
                "com.docker.network.bridge.host_binding_ipv4",
                "0.0.0.0".to_owned(),
            ),
            ("com.docker.network.bridge.name", bridge.name.clone()),
            ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
        ] {
            options.insert(key.to_owned(), value);
        }
    }
    options
}

fn check(spec: &NetworkSpec) -> Result<()> {
    if spec.name.trim().is_empty() {
        return Err(Error::Invalid("network name must not be empty".into()));
    }
    if ["bridge", "host", "none", RESERVED_NAME].contains(&spec.name.as_str()) {
        return Err(Error::PredefinedCreate(spec.name.clone()));
    }
    match spec.driver.as_str() {
        "" | "bridge" => {}
        "host" | "null" | "none" => {
            return Err(Error::Invalid(format!(
                "only one instance of {:?} network is allowed",
                spec.driver
            )));
        }
        "overlay" => {
            return Err(Error::Invalid(
                "an overlay network is created by a manager of the cluster".into(),
            ));
        }
        known @ ("macvlan" | "ipvlan") => {
            return Err(Error::Unsupported(format!("network driver {known:?}")));
        }
        other => return Err(Error::DriverNotFound(other.to_owned())),
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default") {
        return Err(Error::Unsupported(format!(
            "IPAM driver {:?}",
            spec.ipam_driver
        )));
    }
    if let Some((key, value)) = spec.ipam_options.first() {
        return Err(Error::Unsupported(format!("IPAM option {key}={value}")));
    }
    Ok(())
}

type Loaded = (State, BTreeMap<String, Arc<Mutex<Live>>>, Zone);

fn load(records: &Records) -> Result<Loaded> {
    let mut state = State::default();
    let mut overlays = BTreeMap::new();
    let mut zone = Zone::default();
    for record in records.networks()? {
        state.add(record)?;
    }
    for record in records.overlays()? {
        let id = record.overlay.id.clone();
        state.add(NetworkRecord::from(&record.overlay))?;
        zone.assign(&id, &record.overlay.name, &record.balanced);
        overlays.insert(id, Arc::new(Mutex::new(Live::new(record))));
    }
    for record in records.sandboxes()? {
        for endpoint in &record.endpoints {
            if let Some(entry) = state.networks.get_mut(&endpoint.endpoint.network_id) {
                entry.occupy(&endpoint.endpoint);
            }
        }
        let entry = SandboxEntry {
            work: Arc::default(),
            record,
        };
        state.sandboxes.insert(entry.record.spec.id.clone(), entry);
    }
    Ok((state, overlays, zone))
}

pub(crate) fn firewall_rules(record: &NetworkRecord) -> NetworkRules {
    let bridge = record
        .bridge
        .as_ref()
        .expect("only bridge networks have rules");
    let subnets = || record.ipam.iter().filter_map(|config| config.subnet);
    NetworkRules {
        ipv4: subnets().find_map(|net| {
            if let IpNet::V4(net) = net {
                Some(net)
            } else {
                None
            }
        }),
        ipv6: subnets().find_map(|net| {
            if let IpNet::V6(net) = net {
                Some(net)
            } else {
                None
            }
        }),
        internal: record.internal,
        inter_container: bridge.inter_container,
        masquerade: bridge.masquerade,
    }
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// The first 12 digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// FNV-1a, 64 bits: the same on every run, which the standard hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
