//! Several hosts on one network: a switch in a namespace of its own, and a cable from it to each host.
//!
//! ```text
//!            switch (bridge br0: 192.0.2.100, 2001:db8::100)   ◀── clients of published ports run here
//!   port1 ───┘   │   └─── port3
//!     eth0     port2        eth0
//!    host 1    host 2      host 3     192.0.2.N, 2001:db8::N
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Host, busybox};

/// Hosts that can be a swarm.
#[derive(Debug)]
pub struct Swarm {
    /// Host 1 is at index 0.
    pub hosts: Vec<Host>,
    /// Where clients are.
    pub switch: Host,
}

impl Swarm {
    /// Hosts with running daemons and cables, in no swarm yet.
    #[must_use]
    pub fn apart(count: usize) -> Self {
        let switch = Host::bare();
        for arguments in [
            &["link", "add", "br0", "type", "bridge"][..],
            &["link", "set", "br0", "up"],
            &["addr", "add", "192.0.2.100/24", "dev", "br0"],
            &["addr", "add", "2001:db8::100/64", "dev", "br0", "nodad"],
        ] {
            switch.tool("ip", arguments).ok();
        }
        let mut hosts = Vec::new();
        for number in 1..=count {
            let mut host = Host::bare();
            connect(&switch, &host, number);
            host.start_daemon(&[]);
            hosts.push(host);
        }
        Self { hosts, switch }
    }

    /// A swarm whose first hosts are managers; the image `busybox` is on host 1 only.
    #[must_use]
    pub fn of(managers: usize, workers: usize) -> Self {
        let swarm = Self::apart(managers + workers);
        swarm.hosts[0]
            .muster(&["swarm", "init", "--advertise-addr", "192.0.2.1"])
            .ok();
        let token = |role: &str| {
            let said = swarm.hosts[0].muster(&["swarm", "join-token", "--quiet", role]);
            said.ok().trim().to_owned()
        };
        let (manager, worker) = (token("manager"), token("worker"));
        for number in 2..=managers + workers {
            let token = if number <= managers {
                &manager
            } else {
                &worker
            };
            swarm.join(number, token);
        }
        let image = busybox();
        let image = image.to_str().expect("test paths are UTF-8");
        swarm.hosts[0].muster(&["import", image, "busybox"]).ok();
        swarm
    }

    /// Host `number` joins with a token.
    #[track_caller]
    pub fn join(&self, number: usize, token: &str) {
        let advertise = address(number).to_string();
        let join = [
            "swarm",
            "join",
            "--token",
            token,
            "--advertise-addr",
            &advertise,
            "192.0.2.1",
        ];
        self.host(number).muster(&join).ok();
    }

    /// By number, from 1.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// By number, from 1.
    #[must_use]
    pub fn host_mut(&mut self, number: usize) -> &mut Host {
        &mut self.hosts[number - 1]
    }

    /// The node id of a host.
    #[must_use]
    #[track_caller]
    pub fn node_id(&self, number: usize) -> String {
        let said = self
            .host(number)
            .muster(&["info", "--format", "{{.Swarm.NodeID}}"]);
        said.ok().trim().to_owned()
    }

    /// Number of the host that leads, as host `asked` sees it.
    #[must_use]
    pub fn leader(&self, asked: usize) -> Option<usize> {
        let listed =
            self.host(asked)
                .muster(&["node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}"]);
        let leader = listed
            .stdout
            .lines()
            .find_map(|line| line.strip_suffix(" Leader"))?;
        (1..=self.hosts.len())
            .find(|number| self.hosts[number - 1].has_daemon() && self.node_id(*number) == leader)
    }

    /// Names of the running containers of a host.
    #[must_use]
    #[track_caller]
    pub fn containers(&self, number: usize) -> Vec<String> {
        let listed = self.host(number).muster(&["ps", "--format", "{{.Names}}"]);
        let mut names: Vec<String> = listed.ok().lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Pulls the cable of a host.
    pub fn cut_off(&self, number: usize) {
        let port = format!("port{number}");
        self.switch.tool("ip", &["link", "set", &port, "down"]).ok();
    }

    /// Puts it in again.
    pub fn reconnect(&self, number: usize) {
        let port = format!("port{number}");
        self.switch.tool("ip", &["link", "set", &port, "up"]).ok();
    }

    /// Stops the daemon of a host from running, without ending it.
    pub fn freeze(&self, number: usize) {
        signal(self.host(number), Signal::SIGSTOP);
    }

    /// Lets it run on.
    pub fn thaw(&self, number: usize) {
        signal(self.host(number), Signal::SIGCONT);
    }

    /// Asks for a page over and over from where clients are, each time over a new connection.
    #[must_use]
    pub fn load(&self, targets: &[SocketAddr], path: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for target in targets {
            let (target, path, stop) = (*target, path.to_owned(), Arc::clone(&stop));
            clients.push(
                self.switch
                    .on_host(move || std::thread::spawn(move || client(target, &path, &stop))),
            );
        }
        Load { stop, clients }
    }

    /// Every host leaves; nothing of the swarm may be left anywhere.
    pub fn finish(self) {
        for host in &self.hosts {
            host.muster(&["swarm", "leave", "--force"]);
        }
        for host in self.hosts {
            host.finish();
        }
        self.switch.finish_bare();
    }
}

/// IPv4 address of a host.
#[must_use]
pub fn address(number: usize) -> IpAddr {
    let number = u8::try_from(number).expect("few hosts");
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// IPv6 address of a host.
#[must_use]
pub fn address6(number: usize) -> IpAddr {
    let number = u16::try_from(number).expect("few hosts");
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
}

/// Clients that ask until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whole answers with status 200.
    pub answered: usize,
    /// Everything else, each as text.
    pub failed: Vec<String>,
}

impl Load {
    /// Stops, and adds up.
    #[must_use]
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client does not panic");
            sum.answered += tally.answered;
            sum.failed.extend(tally.failed);
        }
        sum
    }
}

/// One page over a connection of its own.
///
/// # Errors
/// No connection, no whole answer, or another status than 200.
pub fn get(target: SocketAddr, path: &str) -> Result<String, String> {
    use std::io::{Read as _, Write as _};
    let limit = Duration::from_secs(5);
    let asked = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&target, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match asked() {
        Ok(answer) if answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200") => {
            Ok(answer)
        }
        Ok(other) => Err(format!("{target}: {other:?}")),
        Err(error) => Err(format!("{target}: {error}")),
    }
}

/// Waits until something holds.
///
/// # Panics
/// When it does not within the limit.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn client(target: SocketAddr, path: &str, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        match get(target, path) {
            Ok(_) => tally.answered += 1,
            Err(failure) => tally.failed.push(failure),
        }
        // A steady stream, not as many as possible: the daemons share the processors with us.
        std::thread::sleep(Duration::from_millis(5));
    }
    tally
}

fn signal(host: &Host, signal: Signal) {
    kill(Pid::from_raw(host.daemon().pid()), signal).expect("signal the daemon");
}

/// A cable from the switch to a host.
fn connect(switch: &Host, host: &Host, number: usize) {
    let namespace: PathBuf = host.on_host(|| {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        format!("/proc/{}/task/{thread}/ns/net", std::process::id()).into()
    });
    let namespace = namespace.to_str().expect("it is ASCII");
    let port = format!("port{number}");
    let add = [
        "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", namespace,
    ];
    switch.tool("ip", &add).ok();
    switch
        .tool("ip", &["link", "set", &port, "master", "br0", "up"])
        .ok();
    let (v4, v6) = (
        format!("{}/24", address(number)),
        format!("{}/64", address6(number)),
    );
    for arguments in [
        &["addr", "add", &v4, "dev", "eth0"][..],
        &["addr", "add", &v6, "dev", "eth0", "nodad"],
        &["link", "set", "eth0", "up"],
    ] {
        host.tool("ip", arguments).ok();
    }
    // What `finish` compares with is the host with its cable.
    host.note_before();
}
