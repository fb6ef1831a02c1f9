//! Figures, not claims: `cargo nextest run -p netdriver --run-ignored only measure --no-capture`.
//!
//! Medians of interleaved rounds; between namespaces of one machine, so ratios mean more than
//! numbers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use netdriver::{BackendState, Balanced, EndpointSpec, Ingress, IngressPort, Peer, Protocol};
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};

use crate::cluster::*;
use crate::world::*;

const ROUNDS: usize = 5;
const STREAM: Duration = Duration::from_millis(800);
const EXCHANGES: u32 = 5000;
const CONNECTIONS: u32 = 2000;

/// `b`, `s` or anything else in the first byte: swallow, answer 64 bytes with 64 bytes, hang up.
fn serve_measured(netns: &Path, port: u16) {
    let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut kind = [0];
                if stream.read_exact(&mut kind).is_err() {
                    return;
                }
                let mut buffer = vec![0; 256 * 1024];
                match kind[0] {
                    b'b' => while stream.read(&mut buffer).is_ok_and(|length| length > 0) {},
                    b's' => {
                        while stream.read_exact(&mut buffer[..64]).is_ok() {
                            if stream.write_all(&buffer[..64]).is_err() {
                                return;
                            }
                        }
                    }
                    _ => {
                        let _ = stream.write_all(b"x");
                    }
                }
            });
        }
    });
}

fn open(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).unwrap();
    stream.set_nodelay(true).unwrap();
    // The default of a machine may pace, which is not what is measured.
    let _ = setsockopt(&stream, TcpCongestion, &OsString::from("cubic"));
    stream
}

/// Gbit/s of one stream.
fn throughput(client: &Path, target: SocketAddr) -> f64 {
    inside(client, || {
        let mut stream = open(target);
        stream.write_all(b"b").unwrap();
        let buffer = vec![7; 256 * 1024];
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < STREAM {
            sent += stream.write(&buffer).unwrap();
        }
        sent as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9
    })
}

/// Microseconds from 64 bytes sent to 64 bytes received: the median.
fn latency(client: &Path, target: SocketAddr) -> f64 {
    inside(client, || {
        let mut stream = open(target);
        stream.write_all(b"s").unwrap();
        let mut buffer = [7; 64];
        let exchange = |_| {
            let begun = Instant::now();
            stream.write_all(&buffer).unwrap();
            stream.read_exact(&mut buffer).unwrap();
            begun.elapsed().as_secs_f64() * 1e6
        };
        median((0..EXCHANGES).map(exchange).collect())
    })
}

/// Microseconds from nothing to a connection and its first byte: the median.
fn connection(client: &Path, target: SocketAddr) -> f64 {
    inside(client, || {
        let connect = |_| {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(target).unwrap();
            stream.write_all(b"c").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            begun.elapsed().as_secs_f64() * 1e6
        };
        median((0..CONNECTIONS).map(connect).collect())
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures, claims nothing"]
fn ways_between_two_hosts() {
    with_cluster(2, |cluster| {
        cluster.overlay(&overlay("four", 4097, &["10.0.1.0/24"]), Over::Ipv4);
        cluster.overlay(&overlay("six", 4098, &["10.0.2.0/24"]), Over::Ipv6);
        cluster.overlay(&overlay("ingress", 4096, &["10.0.0.0/24"]), Over::Ipv4);
        let client = cluster.task(0, "client", "four", "10.0.1.5");
        let server = cluster.task(1, "server", "four", "10.0.1.6");
        let near = cluster.task(0, "near", "four", "10.0.1.7");
        for (task, number) in [(&client, 5), (&server, 6)] {
            let at = |third| EndpointSpec {
                ipv4_address: Some([10, 0, third, number].into()),
                ..EndpointSpec::default()
            };
            cluster.hosts[task.host].on(|networks| {
                networks.connect(&task.id, "six", at(2)).unwrap();
                networks.connect(&task.id, "ingress", at(0)).unwrap();
            });
        }
        let on = |third, number, host: usize, over| Peer {
            ipv4: Some(Ipv4Addr::new(10, 0, third, number)),
            ipv6: None,
            mac: None,
            vtep: cluster.hosts[host].vtep(over),
        };
        cluster.set_peers(
            "four",
            1,
            &[
                on(1, 5, 0, Over::Ipv4),
                on(1, 6, 1, Over::Ipv4),
                on(1, 7, 0, Over::Ipv4),
            ],
        );
        cluster.set_peers(
            "six",
            1,
            &[on(2, 5, 0, Over::Ipv6), on(2, 6, 1, Over::Ipv6)],
        );
        let node = |number: usize| netdriver::IngressNode {
            ipv6: None,
            ..ingress_node(number + 18)
        };
        cluster.set_peers(
            "ingress",
            1,
            &[
                on(0, 5, 0, Over::Ipv4),
                on(0, 6, 1, Over::Ipv4),
                on(0, 20, 0, Over::Ipv4),
                on(0, 21, 1, Over::Ipv4),
            ],
        );
        let vip = |vip: &str, task: &Task| Balanced {
            names: vec![task.name.clone()],
            backend_names: Vec::new(),
            vips: vec![vip.parse().unwrap()],
            backends: vec![task.backend(BackendState::Ready)],
        };
        // A thousand more, so that size matters if it does.
        let mut balanced = vec![vip("10.0.1.100", &server), vip("10.0.1.101", &near)];
        balanced.extend((0..1000u32).map(|number| {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 0)) + number);
            Balanced {
                names: vec![format!("more{number}")],
                vips: vec![IpAddr::V4(address)],
                ..vip("10.0.1.100", &server)
            }
        }));
        cluster.set_balanced("four", &balanced);
        let mut backend = server.backend(BackendState::Ready);
        backend.ipv4 = Some([10, 0, 0, 6].into());
        for (number, host) in cluster.hosts.iter().enumerate() {
            let wanted = Ingress {
                network: "ingress".into(),
                own: node(number),
                nodes: vec![node(0), node(1)],
                ports: vec![IngressPort {
                    published: 8080,
                    protocol: Protocol::Tcp,
                    target: 80,
                    backends: vec![backend.clone()],
                }],
            };
            assert!(
                host.on(|networks| networks.set_ingress(Some(wanted)).unwrap())
                    .is_empty()
            );
        }
        for netns in [&cluster.hosts[1].netns, &server.netns, &near.netns] {
            serve_measured(netns, 80);
        }
        let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
        let ways = [
            (
                "plain veth, host to host",
                &cluster.hosts[0].netns,
                SocketAddr::new(cluster.hosts[1].ipv4, 80),
            ),
            ("overlay, IPv4 VTEPs", &client.netns, at("10.0.1.6:80")),
            ("overlay, IPv6 VTEPs", &client.netns, at("10.0.2.6:80")),
            (
                "overlay, virtual address (of 1002)",
                &client.netns,
                at("10.0.1.100:80"),
            ),
            ("overlay, same host", &client.netns, at("10.0.1.7:80")),
            (
                "same host, virtual address (of 1002)",
                &client.netns,
                at("10.0.1.101:80"),
            ),
            (
                "published, backend on that host",
                &cluster.client,
                SocketAddr::new(cluster.hosts[1].ipv4, 8080),
            ),
            (
                "published, backend on another host",
                &cluster.client,
                SocketAddr::new(cluster.hosts[0].ipv4, 8080),
            ),
        ];
        let mut figures = vec![[Vec::new(), Vec::new(), Vec::new()]; ways.len()];
        for _ in 0..ROUNDS {
            for ((_, client, target), figures) in ways.iter().zip(&mut figures) {
                figures[0].push(throughput(client, *target));
                figures[1].push(latency(client, *target));
                figures[2].push(connection(client, *target));
            }
        }
        eprintln!("{:<38} {:>8} {:>8} {:>9}", "", "Gbit/s", "us", "us to 1st");
        for ((name, ..), figures) in ways.iter().zip(figures) {
            let [throughput, latency, connection] = figures.map(median);
            eprintln!("{name:<38} {throughput:>8.1} {latency:>8.1} {connection:>9.0}");
        }
    });
}

#[test]
#[ignore = "measures, claims nothing"]
fn changes_take_effect() {
    with_cluster(1, |cluster| {
        let host = &cluster.hosts[0];
        cluster.overlay(&overlay("back", 4097, &["10.0.0.0/16"]), Over::Ipv4);
        let peer = |number: u32| Peer {
            ipv4: Some(Ipv4Addr::from(
                u32::from(Ipv4Addr::new(10, 0, 64, 0)) + number,
            )),
            ipv6: None,
            mac: None,
            vtep: [192, 0, 2, 100 + (number % 100) as u8].into(),
        };
        let mut peers: Vec<Peer> = (0..10_000).map(peer).collect();
        let set = |what: &str, version, peers: &[Peer]| {
            let begun = Instant::now();
            host.on(|networks| networks.set_peers("back", version, peers.to_vec()).unwrap());
            eprintln!("{what:<38} {:>8.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        };
        set("10,000 peers", 1, &peers);
        set("the same 10,000 peers again", 1, &peers);
        peers[77].vtep = [192, 0, 2, 99].into();
        set("one of 10,000 peers moves", 2, &peers);
        let begun = Instant::now();
        assert!(host.on(|networks| networks.repair()).repaired.is_empty());
        eprintln!(
            "{:<38} {:>8.1} ms",
            "repair, nothing wrong",
            begun.elapsed().as_secs_f64() * 1e3
        );
        let mut times = Vec::new();
        let tasks: Vec<Task> = (0..100)
            .map(|number| {
                let begun = Instant::now();
                let task = cluster.task(
                    0,
                    &format!("t{number}"),
                    "back",
                    &format!("10.0.0.{}", number + 10),
                );
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                task
            })
            .collect();
        eprintln!(
            "{:<38} {:>8.1} ms",
            "sandbox with overlay and gateway",
            median(times)
        );
        for count in [1, 2, 3, 50] {
            let backends: Vec<_> = tasks[..count]
                .iter()
                .map(|task| task.backend(BackendState::Ready))
                .collect();
            let wanted = vec![balanced("web", &["10.0.0.2"], backends)];
            let begun = Instant::now();
            host.on(|networks| networks.set_balanced("back", wanted).unwrap());
            let what = format!("{count} backends, known to 100 sandboxes");
            eprintln!("{what:<38} {:>8.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        }
        let begun = Instant::now();
        assert!(host.on(|networks| networks.repair()).repaired.is_empty());
        eprintln!(
            "{:<38} {:>8.1} ms",
            "repair, 100 sandboxes, nothing wrong",
            begun.elapsed().as_secs_f64() * 1e3
        );
    });
}
