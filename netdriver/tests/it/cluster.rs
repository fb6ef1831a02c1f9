//! Several hosts, each a namespace with a daemon of its own, on one LAN with a client that has none:
//!
//! ```text
//! host 0  192.0.2.2, 2001:db8::2 ─┐
//! host 1  192.0.2.3, 2001:db8::3 ─┼─ lan ── client
//! …                               ┘
//! ```
//!
//! Whoever assigns addresses and says who is where is the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use indexmap::IndexMap;
use netdriver::{
    Backend, BackendState, Balanced, Config, DataPath, EndpointSpec, IngressNode, NetworkSpec,
    Networks, Overlay, Peer, Sandbox, VXLAN_PORT,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::world::*;

pub(crate) struct Host {
    pub(crate) netns: PathBuf,
    pub(crate) networks: Networks,
    pub(crate) ipv4: IpAddr,
    pub(crate) ipv6: IpAddr,
    pub(crate) directory: PathBuf,
    runtime: tokio::runtime::Runtime,
}

pub(crate) struct Cluster {
    pub(crate) hosts: Vec<Host>,
    pub(crate) client: PathBuf,
    pub(crate) client_ipv4: IpAddr,
    pub(crate) client_ipv6: IpAddr,
}

/// An endpoint and where it is.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) host: usize,
    pub(crate) name: String,
    pub(crate) netns: PathBuf,
    pub(crate) id: String,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// Runs a test with so many hosts. Needs root, and says so.
pub(crate) fn with_cluster(count: usize, test: impl FnOnce(&mut Cluster) + Send) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let outer = Networks::open(config(&path.join("outer"), &runtime)).unwrap();
        let mut lan = NetworkSpec::bridge("lan");
        lan.ipam = vec![subnet("192.0.2.0/24"), subnet("2001:db8::/64")];
        lan.enable_ipv6 = Some(true);
        outer.create(lan).unwrap();
        let place = |name: &str| {
            let made = outer.create_sandbox(sandbox_spec(name)).unwrap();
            let endpoint = outer
                .connect(&made.id, "lan", EndpointSpec::default())
                .unwrap();
            let ipv4 = IpAddr::V4(endpoint.ipv4.unwrap().addr());
            (
                made.netns.unwrap(),
                ipv4,
                IpAddr::V6(endpoint.ipv6.unwrap().addr()),
            )
        };
        let hosts = (0..count).map(|number| {
            let (netns, ipv4, ipv6) = place(&format!("host{number}"));
            Host::new(netns, ipv4, ipv6, path.join(format!("host{number}")))
        });
        let hosts = hosts.collect();
        let (client, client_ipv4, client_ipv6) = place("client");
        test(&mut Cluster {
            hosts,
            client,
            client_ipv4,
            client_ipv6,
        });
    });
}

impl Host {
    fn new(netns: PathBuf, ipv4: IpAddr, ipv6: IpAddr, directory: PathBuf) -> Host {
        let own = netns.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || enter(&own))
            .enable_all()
            .build()
            .unwrap();
        let networks = inside(&netns, || {
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(Path::new("/proc/sys/net").join(key), "0").unwrap();
            }
            Networks::open(config(&directory, &runtime)).unwrap()
        });
        Host {
            netns,
            networks,
            ipv4,
            ipv6,
            directory,
            runtime,
        }
    }

    /// Runs as this host's daemon.
    pub(crate) fn on<T: Send>(&self, work: impl FnOnce(&Networks) -> T + Send) -> T {
        inside(&self.netns, || work(&self.networks))
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.directory, &self.runtime)
    }

    /// Ends the daemon as a crash does, and starts it again; `live` are the sandboxes in use.
    pub(crate) fn restart(&mut self, live: &[&Task]) {
        let config = self.config();
        let open = |config: Config| inside(&self.netns, move || Networks::open(config).unwrap());
        let old = std::mem::replace(&mut self.networks, open(config.clone()));
        drop(old);
        self.networks = open(config);
        let live = live.iter().map(|task| task.id.clone()).collect();
        let done = self.on(|networks| networks.reconcile(&live));
        assert!(done.problems.is_empty(), "{done:?}");
    }
}

impl Cluster {
    /// The same overlay on all hosts.
    pub(crate) fn overlay(&self, overlay: &Overlay, over: Over) {
        for host in &self.hosts {
            let mut overlay = overlay.clone();
            overlay.data_path.address = host.vtep(over);
            host.on(|networks| networks.ensure_overlay(overlay).unwrap());
        }
    }

    /// A sandbox on one host, on networks with the addresses given.
    pub(crate) fn task(&self, host: usize, name: &str, network: &str, addresses: &str) -> Task {
        let mut ipv4 = None;
        let mut ipv6 = None;
        for address in addresses.split_whitespace() {
            match address.parse().unwrap() {
                IpAddr::V4(address) => ipv4 = Some(address),
                IpAddr::V6(address) => ipv6 = Some(address),
            }
        }
        let spec = EndpointSpec {
            ipv4_address: ipv4,
            ipv6_address: ipv6,
            ..EndpointSpec::default()
        };
        let made: Sandbox = self.hosts[host].on(|networks| {
            let id = networks.create_sandbox(sandbox_spec(name)).unwrap().id;
            networks.connect(&id, network, spec).unwrap();
            networks.sandbox(&id).unwrap()
        });
        Task {
            host,
            name: name.into(),
            netns: made.netns.unwrap(),
            id: made.id,
            ipv4,
            ipv6,
        }
    }

    /// Tells every host where these endpoints are.
    pub(crate) fn set_peers(&self, network: &str, version: u64, peers: &[Peer]) {
        for host in &self.hosts {
            host.on(|networks| {
                networks
                    .set_peers(network, version, peers.to_vec())
                    .unwrap()
            });
        }
    }

    pub(crate) fn peers(&self, over: Over, tasks: &[&Task]) -> Vec<Peer> {
        tasks
            .iter()
            .map(|task| Peer {
                ipv4: task.ipv4,
                ipv6: task.ipv6,
                mac: None,
                vtep: self.hosts[task.host].vtep(over),
            })
            .collect()
    }

    /// Tells every host what a network's names and virtual addresses are.
    pub(crate) fn set_balanced(&self, network: &str, balanced: &[Balanced]) {
        for host in &self.hosts {
            host.on(|networks| networks.set_balanced(network, balanced.to_vec()).unwrap());
        }
    }
}

/// What carries the overlay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Ipv4,
    Ipv6,
}

impl Host {
    pub(crate) fn vtep(&self, over: Over) -> IpAddr {
        match over {
            Over::Ipv4 => self.ipv4,
            Over::Ipv6 => self.ipv6,
        }
    }
}

impl Task {
    pub(crate) fn backend(&self, state: BackendState) -> Backend {
        Backend {
            names: vec![self.name.clone()],
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            state,
        }
    }
}

pub(crate) fn overlay(id: &str, vni: u32, subnets: &[&str]) -> Overlay {
    Overlay {
        id: id.into(),
        name: id.into(),
        created: SystemTime::UNIX_EPOCH,
        vni,
        ipam: subnets
            .iter()
            .map(|text| {
                let mut config = subnet(text);
                let net = config.subnet.unwrap();
                config.gateway = net.hosts().find(|address| *address != net.network());
                config
            })
            .collect(),
        data_path: DataPath {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: VXLAN_PORT,
        },
        mtu: None,
        internal: false,
        attachable: false,
        ingress: id == "ingress",
        options: IndexMap::new(),
        labels: IndexMap::new(),
    }
}

pub(crate) fn balanced(name: &str, vips: &[&str], backends: Vec<Backend>) -> Balanced {
    Balanced {
        names: vec![name.into()],
        backend_names: vec![format!("tasks.{name}")],
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        backends,
    }
}

/// Host `number`'s own addresses on the ingress network 10.0.0.0/24, fd00:1::/64.
pub(crate) fn ingress_node(number: usize) -> IngressNode {
    let number = u8::try_from(number).unwrap() + 2;
    IngressNode {
        ipv4: Some(Ipv4Addr::new(10, 0, 0, number)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, number.into())),
    }
}

/// TCP and UDP servers in a namespace, which tell who they are and who asks: over TCP in a first line,
/// then they repeat what they are told; over UDP in the answer to each datagram.
pub(crate) fn serve_named(netns: &Path, port: u16, name: &str) {
    let name = name.to_owned();
    let (listener, udp) = inside(netns, || {
        let udp = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
        let tcp = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
        (tcp.unwrap(), udp.unwrap())
    });
    let own = name.clone();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let answer = format!("{own} {}", client.ip().to_canonical());
            let _ = udp.send_to(answer.as_bytes(), client);
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let name = name.clone();
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = stream.write_all(format!("{name} {peer}\n").as_bytes());
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
}

/// Connects from the calling thread's namespace: the stream, who answered, and whom it saw.
pub(crate) fn call(target: SocketAddr) -> std::io::Result<(TcpStream, String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let Some((name, seen)) = line.split_once(' ') else {
        return Err(ErrorKind::ConnectionReset.into());
    };
    Ok((stream, name.to_owned(), seen.parse().unwrap()))
}

/// As [`call`] from another namespace, without the stream.
pub(crate) fn call_from(netns: &Path, target: impl Into<SocketAddr>) -> (String, IpAddr) {
    let target = target.into();
    inside(netns, || {
        let (_, name, seen) = call(target).unwrap_or_else(|error| panic!("{target}: {error}"));
        (name, seen)
    })
}

/// Sends a datagram from a socket and returns who answered and whom it saw.
pub(crate) fn ask_udp(socket: &UdpSocket, target: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"?", target)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, target, "the answer came from somebody else");
    let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
    let (name, seen) = text.split_once(' ').unwrap();
    Ok((name.to_owned(), seen.parse().unwrap()))
}
