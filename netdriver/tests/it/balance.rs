//! Names and virtual addresses of a network that spans hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netdriver::{Backend, BackendState};

use crate::cluster::*;
use crate::world::*;

const VIPS: [&str; 2] = ["10.0.1.2", "fd00:2::2"];

/// Backends `web.1`, … one on each host, and a client on host 0, all on `back`.
fn web(cluster: &Cluster) -> (Vec<Task>, Task) {
    cluster.overlay(
        &overlay("back", 4097, &["10.0.1.0/24", "fd00:2::/64"]),
        Over::Ipv4,
    );
    let count = cluster.hosts.len();
    let task = |host: usize, name: &str, number: usize| {
        let addresses = format!("10.0.1.{number} fd00:2::{number}");
        cluster.task(host, name, "back", &addresses)
    };
    let backends: Vec<Task> = (0..count)
        .map(|host| task(host, &format!("web.{}", host + 1), host + 5))
        .collect();
    let client = task(0, "client", 40);
    for backend in &backends {
        serve_named(&backend.netns, 80, &backend.name);
    }
    let all: Vec<&Task> = backends.iter().chain([&client]).collect();
    cluster.set_peers("back", 1, &cluster.peers(Over::Ipv4, &all));
    (backends, client)
}

fn set_web(cluster: &Cluster, vips: &[&str], backends: &[(&Task, BackendState)]) {
    let backends = backends.iter().map(|(task, state)| task.backend(*state));
    cluster.set_balanced("back", &[balanced("web", vips, backends.collect())]);
}

fn vip(index: usize) -> SocketAddr {
    SocketAddr::new(VIPS[index].parse().unwrap(), 80)
}

/// Who answered so many connections, and how often.
fn spread(client: &Task, target: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    inside(&client.netns, || {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let (_, name, _) = call(target).unwrap();
            *answers.entry(name).or_default() += 1;
        }
        answers
    })
}

#[test]
fn connections_to_a_virtual_address_are_spread_evenly() {
    with_cluster(3, |cluster| {
        use BackendState::*;
        let (web, client) = web(cluster);
        let ready: Vec<_> = web.iter().map(|task| (task, Ready)).collect();
        set_web(cluster, &VIPS, &ready);
        for target in [vip(0), vip(1)] {
            let answers = spread(&client, target, 300);
            // 100 each; four standard deviations are 33.
            assert_eq!(answers.len(), 3, "{answers:?}");
            assert!(
                answers.values().all(|count| (67..=133).contains(count)),
                "{answers:?}"
            );
        }
        // Each backend sees the client itself, and reaches all of them, itself too.
        let (_, seen) = call_from(&client.netns, vip(0));
        assert_eq!(seen, IpAddr::V4(client.ipv4.unwrap()));
        let from_backend = spread(&web[1], vip(0), 60);
        assert_eq!(from_backend.len(), 3, "{from_backend:?}");
        set_web(cluster, &VIPS, &[(&web[1], Ready)]);
        for target in [vip(0), vip(1)] {
            assert_eq!(call_from(&web[1].netns, target).0, "web.2");
        }
        // Every port is balanced, and echo requests are answered, by a backend.
        serve_named(&web[1].netns, 8123, "another-port");
        let other = SocketAddr::new(vip(0).ip(), 8123);
        assert_eq!(call_from(&client.netns, other).0, "another-port");
        ping(&client, VIPS[0]);
        ping(&client, VIPS[1]);
    });
}

/// Skips aloud where ping(8) is not there.
fn ping(client: &Task, target: &str) {
    let asked = inside(&client.netns, || {
        Command::new("ping")
            .args(["-c", "1", "-W", "5", target])
            .output()
    });
    match asked {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("SKIPPED: ping {target} cannot be run: {error}"),
    }
}

#[test]
fn a_virtual_address_without_backends_refuses_at_once() {
    with_cluster(1, |cluster| {
        let (web, client) = web(cluster);
        for backends in [&[][..], &[(&web[0], BackendState::Draining)]] {
            set_web(cluster, &VIPS, backends);
            for target in [vip(0), vip(1)] {
                let begun = Instant::now();
                let error = inside(&client.netns, || call(target).unwrap_err());
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionRefused,
                    "{target}"
                );
                assert!(begun.elapsed() < Duration::from_secs(1));
            }
        }
    });
}

#[test]
fn names_follow_the_state_of_backends() {
    with_cluster(2, |cluster| {
        use BackendState::*;
        let (web, client) = web(cluster);
        let resolve_both = |name: &str| {
            let mut found = resolve(&client.netns, name);
            let six = ask(&client.netns, name, RecordType::AAAA);
            found.extend(
                six.answers
                    .iter()
                    .filter_map(|record| record.data.ip_addr()),
            );
            found.iter().map(IpAddr::to_string).collect::<BTreeSet<_>>()
        };
        let set = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let both = ["10.0.1.5", "10.0.1.6", "fd00:2::5", "fd00:2::6"];
        set_web(cluster, &VIPS, &[(&web[0], Ready), (&web[1], Ready)]);
        assert_eq!(resolve_both("web"), set(&VIPS));
        assert_eq!(resolve_both("WEB.back"), set(&VIPS));
        assert_eq!(resolve_both("tasks.web"), set(&both));
        assert_eq!(resolve_both("web.2"), set(&["10.0.1.6", "fd00:2::6"]));
        // Round robin: the name gives the backends, in changing order.
        set_web(cluster, &[], &[(&web[0], Ready), (&web[1], Ready)]);
        assert_eq!(resolve_both("web"), set(&both));
        let first = |_| {
            let answer = ask(&client.netns, "web", RecordType::A);
            answer.answers[0].data.ip_addr().unwrap()
        };
        let firsts: BTreeSet<IpAddr> = (0..40).map(first).collect();
        assert_eq!(firsts.len(), 2, "40 answers began with the same backend");
        // Who drains is not found any more; its address still has a name.
        set_web(cluster, &VIPS, &[(&web[0], Ready), (&web[1], Draining)]);
        assert_eq!(resolve_both("web"), set(&VIPS));
        assert_eq!(resolve_both("tasks.web"), set(&["10.0.1.5", "fd00:2::5"]));
        for (name, expected) in [
            ("6.1.0.10.in-addr.arpa", "web.2.back."),
            ("2.1.0.10.in-addr.arpa", "web.back."),
        ] {
            let answer = ask(&client.netns, name, RecordType::PTR);
            assert_eq!(answer.answers[0].data.to_string(), expected);
            assert!(answer.answers[0].ttl <= 1);
        }
        // Known names without an address of the family asked for are nobody else's business.
        set_web(cluster, &VIPS[..1], &[]);
        for (name, kind) in [
            ("web", RecordType::AAAA),
            ("tasks.web", RecordType::A),
            ("web", RecordType::MX),
        ] {
            let answer = ask(&client.netns, name, kind);
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NoError,
                "{name} {kind}"
            );
            assert!(answer.answers.is_empty());
        }
        cluster.set_balanced("back", &[]);
        assert!(resolve(&client.netns, "web").is_empty());
    });
}

#[test]
fn no_connection_fails_while_backends_drain_and_return() {
    with_cluster(2, |cluster| {
        use BackendState::*;
        let (web, client) = web(cluster);
        set_web(cluster, &VIPS, &[(&web[0], Ready), (&web[1], Ready)]);
        let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        // A connection to each backend that goes on through it all.
        let mut kept: BTreeMap<String, TcpStream> = BTreeMap::new();
        while kept.len() < 2 {
            let (stream, name, _) = inside(&client.netns, || call(vip(0)).unwrap());
            kept.insert(name, stream);
        }
        thread::scope(|scope| {
            let callers: Vec<_> = (0..2)
                .map(|index| {
                    let (done, calls, client) = (&done, &calls, &client);
                    scope.spawn(move || {
                        inside(&client.netns, || {
                            while !done.load(Ordering::Relaxed) {
                                let (mut stream, ..) = call(vip(index)).unwrap();
                                echo(&mut stream, "served");
                                calls.fetch_add(1, Ordering::Relaxed);
                            }
                        });
                    })
                })
                .collect();
            for round in 0..20 {
                let before = calls.load(Ordering::Relaxed);
                let (stays, drains) = (&web[round % 2], &web[(round + 1) % 2]);
                set_web(cluster, &VIPS, &[(stays, Ready), (drains, Draining)]);
                // From now on, nobody new comes to the one that drains.
                for target in [vip(0), vip(1)] {
                    let answers = spread(&client, target, 20);
                    assert_eq!(answers, BTreeMap::from([(stays.name.clone(), 20)]));
                }
                for stream in kept.values_mut() {
                    echo(stream, "still there");
                }
                set_web(cluster, &VIPS, &[(stays, Ready), (drains, Ready)]);
                assert!(calls.load(Ordering::Relaxed) > before);
            }
            done.store(true, Ordering::Relaxed);
            for caller in callers {
                caller.join().unwrap();
            }
        });
        // Gone: its connection is told so as soon as it sends, and does not hang.
        set_web(cluster, &VIPS, &[(&web[0], Ready)]);
        echo(kept.get_mut("web.1").unwrap(), "not concerned");
        let stream = kept.get_mut("web.2").unwrap();
        let ended = (0..20).any(|_| {
            use std::io::{Read, Write};
            stream
                .set_read_timeout(Some(Duration::from_millis(250)))
                .unwrap();
            stream.write_all(b"x").is_err()
                || stream
                    .read(&mut [0; 8])
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        });
        assert!(ended, "a connection to a backend that is gone hangs");
    });
}

#[test]
fn udp_moves_as_soon_as_its_backend_drains() {
    with_cluster(2, |cluster| {
        use BackendState::*;
        let (web, client) = web(cluster);
        for target in [vip(0), vip(1)] {
            let any = if target.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            // Before there is a backend, the client already sends.
            set_web(cluster, &VIPS, &[]);
            let socket = inside(&client.netns, || UdpSocket::bind(any).unwrap());
            inside(&client.netns, || {
                let _ = socket.send_to(b"early", target);
                let _ = socket.take_error();
            });
            for round in 0..6 {
                let (takes, drains) = (&web[round % 2], &web[(round + 1) % 2]);
                set_web(cluster, &VIPS, &[(takes, Ready), (drains, Draining)]);
                let _ = socket.take_error();
                let (name, seen) = ask_udp(&socket, target).unwrap();
                assert_eq!(name, takes.name);
                assert!(
                    [
                        IpAddr::V4(client.ipv4.unwrap()),
                        IpAddr::V6(client.ipv6.unwrap())
                    ]
                    .contains(&seen)
                );
            }
        }
    });
}

#[test]
fn a_sandbox_connected_later_balances_at_once_and_one_that_leaves_no_more() {
    with_cluster(1, |cluster| {
        let (web, _) = web(cluster);
        set_web(cluster, &VIPS, &[(&web[0], BackendState::Ready)]);
        let late = cluster.task(0, "late", "back", "10.0.1.50 fd00:2::50");
        assert_eq!(call_from(&late.netns, vip(0)).0, "web.1");
        cluster.hosts[0].on(|networks| networks.disconnect(&late.id, "back").unwrap());
        let target = vip(0);
        cannot_reach(&late.netns, target);
    });
}

#[test]
fn many_backends_all_get_their_share() {
    with_cluster(1, |cluster| {
        let (web, client) = web(cluster);
        // Real ones and others that nobody has: only who is asked matters.
        let mut backends = vec![web[0].backend(BackendState::Ready)];
        for number in 0..30 {
            let address = Ipv4Addr::new(10, 0, 1, 100 + number);
            cluster.task(
                0,
                &format!("n{number}"),
                "back",
                &format!("{address} fd00:2::1:{number}"),
            );
            backends.push(Backend {
                names: vec![format!("n{number}")],
                ipv4: Some(address),
                ipv6: None,
                state: BackendState::Ready,
            });
        }
        cluster.set_balanced("back", &[balanced("web", &VIPS[..1], backends.clone())]);
        // Connections to those without a server are refused by them, so all of them are asked.
        let refused = inside(&client.netns, || {
            (0..200).filter(|_| call(vip(0)).is_err()).count()
        });
        assert!((160..200).contains(&refused), "{refused} of 200 refused");
        // Fewer again: other slots, other map.
        backends.truncate(1);
        cluster.set_balanced("back", &[balanced("web", &VIPS[..1], backends)]);
        assert_eq!(spread(&client, vip(0), 50)["web.1"], 50);
    });
}
