//! A network of namespaces for each test, on threads of its own:
//!
//! ```text
//! neighbour 192.0.2.3 ── lan 192.0.2.0/24 ── 192.0.2.2 host 198.51.100.2 ── 198.51.100.0/24 ── far
//! ```
//!
//! The daemon under test is in `host`. The surroundings are built with the package itself, in a
//! namespace nobody else sees; all of it vanishes with the threads, whatever the test does.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use netdriver::{
    Config, EndpointSpec, IpamConfig, NetworkSpec, Networks, PortRequest, Protocol, Sandbox,
    SandboxMode, SandboxSpec,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Long enough for every answer that comes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a packet that is dropped is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

pub(crate) struct World {
    pub(crate) networks: Networks,
    pub(crate) neighbour: PathBuf,
    pub(crate) host_address: IpAddr,
    pub(crate) neighbour_address: IpAddr,
    pub(crate) far: PathBuf,
    pub(crate) far_address: IpAddr,
    pub(crate) directory: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// Runs a test in a world of its own. Needs root, and says so.
pub(crate) fn with_world(test: impl FnOnce(&mut World) + Send) {
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
        let runtime = runtime();
        let outer = Networks::open(config(&path.join("outer"), &runtime)).unwrap();
        let mut lan = NetworkSpec::bridge("lan");
        lan.ipam = vec![subnet("192.0.2.0/24")];
        outer.create(lan).unwrap();
        let mut beyond = NetworkSpec::bridge("beyond");
        beyond.ipam = vec![subnet("198.51.100.0/24")];
        outer.create(beyond).unwrap();
        let place = |name: &str, network: &str| {
            let made = outer.create_sandbox(sandbox_spec(name)).unwrap();
            let endpoint = outer
                .connect(&made.id, network, EndpointSpec::default())
                .unwrap();
            (
                made.netns.unwrap(),
                IpAddr::V4(endpoint.ipv4.unwrap().addr()),
            )
        };
        let (host, host_address) = place("host", "lan");
        outer
            .connect(&sandbox_spec("host").id, "beyond", EndpointSpec::default())
            .unwrap();
        let (neighbour, neighbour_address) = place("neighbour", "lan");
        let (far, far_address) = place("far", "beyond");
        on_thread(move || {
            enter(&host);
            // New namespaces start as the first one is, which may be a router.
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(Path::new("/proc/sys/net").join(key), "0").unwrap();
            }
            let runtime = self::runtime();
            let networks = Networks::open(config(&path.join("host"), &runtime)).unwrap();
            test(&mut World {
                networks,
                neighbour,
                host_address,
                neighbour_address,
                far,
                far_address,
                directory: path,
                runtime,
            });
        });
    });
}

impl World {
    /// A sandbox connected to these networks.
    pub(crate) fn sandbox(&self, name: &str, networks: &[&str]) -> Sandbox {
        let id = self.networks.create_sandbox(sandbox_spec(name)).unwrap().id;
        for network in networks {
            self.networks
                .connect(&id, network, EndpointSpec::default())
                .unwrap();
        }
        self.networks.sandbox(&id).unwrap()
    }

    /// Stops the daemon as a crash does, and opens it again.
    pub(crate) fn restart(&mut self) {
        let config = self.config();
        let old = std::mem::replace(&mut self.networks, Networks::open(config.clone()).unwrap());
        drop(old);
        // Once more, now that nothing of the old one lives.
        self.networks = Networks::open(config).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.directory.join("host"), &self.runtime)
    }

    pub(crate) fn set_resolv_conf(&self, text: &str) {
        std::fs::write(self.directory.join("host/resolv.conf"), text).unwrap();
    }

    pub(crate) fn live(&self, sandboxes: &[&Sandbox]) -> HashSet<String> {
        sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect()
    }

    /// Names of this namespace's interfaces.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        text.lines()
            .skip(2)
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect()
    }
}

pub(crate) fn config(directory: &Path, runtime: &tokio::runtime::Runtime) -> Config {
    let mut config = Config::new(
        directory.join("root"),
        directory.join("run"),
        runtime.handle().clone(),
    );
    config.resolv_conf = directory.join("resolv.conf");
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn sandbox_spec(name: &str) -> SandboxSpec {
    // An id that begins with the name in hexadecimal, so that failures can be read.
    let id = format!(
        "{:0<64}",
        name.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    SandboxSpec {
        id,
        name: name.into(),
        hostname: format!("{name}-host"),
        mode: SandboxMode::Private,
        dns_servers: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
    }
}

pub(crate) fn subnet(text: &str) -> IpamConfig {
    IpamConfig {
        subnet: Some(text.parse().unwrap()),
        ..IpamConfig::default()
    }
}

pub(crate) fn port(container_port: u16, protocol: Protocol, host_port: u16) -> PortRequest {
    PortRequest {
        container_port,
        protocol,
        host_ip: None,
        host_ports: Some((host_port, host_port)),
    }
}

pub(crate) fn address(sandbox: &Sandbox) -> IpAddr {
    IpAddr::V4(sandbox.endpoints[0].ipv4.unwrap().addr())
}

pub(crate) fn netns(sandbox: &Sandbox) -> &Path {
    sandbox.netns.as_deref().unwrap()
}

/// Runs in another namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        enter(netns);
        work()
    })
}

pub(crate) fn enter(netns: &Path) {
    setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A TCP server in a namespace: it tells each client the client's address, then repeats what it is
/// told.
pub(crate) fn serve(netns: &Path, port: u16) {
    let listener = inside(netns, || {
        TcpListener::bind(("::", port))
            .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
            .unwrap()
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = stream.write_all(format!("{peer}\n").as_bytes());
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
}

/// Connects from the calling thread's namespace and returns what the server says the client's
/// address is.
pub(crate) fn connect(
    target: impl Into<SocketAddr>,
) -> Result<(TcpStream, IpAddr), std::io::Error> {
    connect_within(target.into(), PATIENCE)
}

fn connect_within(
    target: SocketAddr,
    patience: Duration,
) -> Result<(TcpStream, IpAddr), std::io::Error> {
    let mut stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let text = String::from_utf8(line).unwrap();
    let seen = text
        .parse()
        .map_err(|_| std::io::Error::other(format!("the server said {text:?}")))?;
    Ok((stream, seen))
}

/// The address a server sees a client of this namespace come from.
pub(crate) fn reach(netns: &Path, target: impl Into<SocketAddr>) -> IpAddr {
    let target = target.into();
    inside(netns, || {
        connect(target)
            .unwrap_or_else(|error| panic!("{target}: {error}"))
            .1
    })
}

pub(crate) fn cannot_reach(netns: &Path, target: impl Into<SocketAddr>) {
    let target = target.into();
    let result = inside(netns, || connect_within(target, SILENCE));
    assert!(result.is_err(), "{target} was reached");
}

pub(crate) fn echo(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text.as_bytes());
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Asks 127.0.0.11 from inside a sandbox.
pub(crate) fn ask(netns: &Path, name: &str, kind: RecordType) -> Message {
    let request = query(name, kind);
    let bytes = inside(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.send(&request.to_vec().unwrap()).unwrap();
        let mut buffer = [0; 4096];
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("asking for {name}: {error}"));
        buffer[..length].to_vec()
    });
    let response = Message::from_vec(&bytes).unwrap();
    assert_eq!(response.metadata.id, request.metadata.id);
    response
}

pub(crate) fn resolve(netns: &Path, name: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = ask(netns, name, RecordType::A)
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect();
    found.sort();
    found
}

/// An upstream DNS server that knows `known.example` alone. Over UDP it truncates when asked for
/// TXT.
pub(crate) fn serve_dns(netns: Option<&Path>, at: SocketAddr) {
    let open = || (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap());
    let (udp, tcp) = match netns {
        Some(netns) => inside(netns, open),
        None => open(),
    };
    let reply = |bytes: &[u8], over_tcp: bool| {
        let request = Message::from_vec(bytes).unwrap();
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.add_queries(request.queries.iter().cloned());
        let asked = &request.queries[0];
        response.metadata.truncation = !over_tcp && asked.query_type() == RecordType::TXT;
        if asked.name().to_ascii() == "known.example." && asked.query_type() == RecordType::A {
            let data = RData::A(std::net::Ipv4Addr::new(198, 51, 100, 7).into());
            response.add_answer(hickory_proto::rr::Record::from_rdata(
                asked.name().clone(),
                60,
                data,
            ));
        }
        response.to_vec().unwrap()
    };
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            udp.send_to(&reply(&buffer[..length], false), client)
                .unwrap();
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut request).unwrap();
            let response = reply(&request, true);
            stream
                .write_all(&u16::try_from(response.len()).unwrap().to_be_bytes())
                .unwrap();
            stream.write_all(&response).unwrap();
        }
    });
}
