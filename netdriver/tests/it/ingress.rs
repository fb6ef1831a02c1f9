//! Ports published on every host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use netdriver::{
    BackendState, EndpointSpec, Error, Ingress, IngressPort, NetworkSpec, Peer, Protocol,
};

use crate::cluster::*;
use crate::world::*;

const SUBNETS: [&str; 2] = ["10.0.0.0/24", "fd00:1::/64"];

/// The ingress network on all hosts and a backend `web.<host>` on each of these, with servers on port
/// 80. A host's own addresses on it are 10.0.0.2 for host 0 and so on.
fn web(cluster: &Cluster, on: &[usize]) -> Vec<Task> {
    cluster.overlay(&overlay("ingress", 4096, &SUBNETS), Over::Ipv4);
    let web: Vec<Task> = on
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let number = index + 50;
            let addresses = format!("10.0.0.{number} fd00:1::{number}");
            cluster.task(*host, &format!("web.{host}"), "ingress", &addresses)
        })
        .collect();
    for task in &web {
        serve_named(&task.netns, 80, &task.name);
    }
    let mut peers = cluster.peers(Over::Ipv4, &web.iter().collect::<Vec<_>>());
    peers.extend(nodes(cluster));
    cluster.set_peers("ingress", 1, &peers);
    web
}

fn nodes(cluster: &Cluster) -> Vec<Peer> {
    let node = |(number, host): (usize, &Host)| Peer {
        ipv4: ingress_node(number).ipv4,
        ipv6: ingress_node(number).ipv6,
        mac: None,
        vtep: host.ipv4,
    };
    cluster.hosts.iter().enumerate().map(node).collect()
}

fn published(
    published: u16,
    protocol: Protocol,
    backends: &[(&Task, BackendState)],
) -> IngressPort {
    let backends = backends.iter().map(|(task, state)| task.backend(*state));
    IngressPort {
        published,
        protocol,
        target: 80,
        backends: backends.collect(),
    }
}

fn ingress(cluster: &Cluster, number: usize, ports: &[IngressPort]) -> Ingress {
    Ingress {
        network: "ingress".into(),
        own: ingress_node(number),
        nodes: (0..cluster.hosts.len()).map(ingress_node).collect(),
        ports: ports.to_vec(),
    }
}

fn publish(cluster: &Cluster, ports: &[IngressPort]) {
    for (number, host) in cluster.hosts.iter().enumerate() {
        let wanted = ingress(cluster, number, ports);
        let problems = host.on(|networks| networks.set_ingress(Some(wanted)).unwrap());
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn every_host_serves_a_port_and_the_backend_sees_the_client() {
    with_cluster(3, |cluster| {
        use BackendState::Ready;
        let web = web(cluster, &[1]);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let ready = [(&web[0], Ready)];
        publish(
            cluster,
            &[published(8080, tcp, &ready), published(5353, udp, &ready)],
        );
        for host in &cluster.hosts {
            for (address, client) in [
                (host.ipv4, cluster.client_ipv4),
                (host.ipv6, cluster.client_ipv6),
            ] {
                let target = SocketAddr::new(address, 8080);
                assert_eq!(call_from(&cluster.client, target), ("web.1".into(), client));
                let target = SocketAddr::new(address, 5353);
                let any = if address.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let answer = inside(&cluster.client, || {
                    ask_udp(&UdpSocket::bind(any).unwrap(), target).unwrap()
                });
                assert_eq!(answer, ("web.1".into(), client));
            }
            // The host itself, by its addresses and by loopback.
            for address in [
                host.ipv4,
                host.ipv6,
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ] {
                assert_eq!(
                    call_from(&host.netns, (address, 8080)).0,
                    "web.1",
                    "{address}"
                );
            }
        }
    });
}

#[test]
fn a_host_prefers_its_own_backends_and_spreads_over_others() {
    with_cluster(3, |cluster| {
        use BackendState::*;
        let web = web(cluster, &[0, 1]);
        let tcp = Protocol::Tcp;
        let who = |host: usize, cluster: &Cluster| {
            let target = SocketAddr::new(cluster.hosts[host].ipv4, 8080);
            let mut answers = BTreeMap::new();
            for _ in 0..40 {
                *answers
                    .entry(call_from(&cluster.client, target).0)
                    .or_insert(0) += 1;
            }
            answers.into_keys().collect::<Vec<_>>().join(" ")
        };
        publish(
            cluster,
            &[published(8080, tcp, &[(&web[0], Ready), (&web[1], Ready)])],
        );
        assert_eq!(who(0, cluster), "web.0");
        assert_eq!(who(1, cluster), "web.1");
        assert_eq!(who(2, cluster), "web.0 web.1");
        publish(
            cluster,
            &[published(
                8080,
                tcp,
                &[(&web[0], Draining), (&web[1], Ready)],
            )],
        );
        assert_eq!(who(0, cluster), "web.1");
        assert_eq!(who(2, cluster), "web.1");
    });
}

#[test]
fn no_connection_fails_while_backends_drain_and_return() {
    with_cluster(2, |cluster| {
        use BackendState::*;
        let web = web(cluster, &[0, 1]);
        let set = |states: [BackendState; 2]| {
            let backends = [(&web[0], states[0]), (&web[1], states[1])];
            publish(cluster, &[published(8080, Protocol::Tcp, &backends)]);
        };
        set([Ready, Ready]);
        let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let targets = [
                cluster.hosts[0].ipv4,
                cluster.hosts[1].ipv4,
                cluster.hosts[0].ipv6,
            ];
            let callers = targets.map(|address| {
                let (done, calls, client) = (&done, &calls, &cluster.client);
                scope.spawn(move || {
                    inside(client, || {
                        while !done.load(Ordering::Relaxed) {
                            let (mut stream, ..) = call(SocketAddr::new(address, 8080)).unwrap();
                            echo(&mut stream, "served");
                            calls.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
            });
            for round in 0..20 {
                let before = calls.load(Ordering::Relaxed);
                let drains = round % 2;
                set(if drains == 0 {
                    [Draining, Ready]
                } else {
                    [Ready, Draining]
                });
                for host in &cluster.hosts {
                    for _ in 0..5 {
                        let (name, seen) = call_from(&cluster.client, (host.ipv4, 8080));
                        assert_eq!(name, web[1 - drains].name);
                        assert_eq!(seen, cluster.client_ipv4);
                    }
                }
                set([Ready, Ready]);
                assert!(calls.load(Ordering::Relaxed) > before);
            }
            done.store(true, Ordering::Relaxed);
            for caller in callers {
                caller.join().unwrap();
            }
        });
    });
}

#[test]
fn udp_through_a_host_moves_as_soon_as_its_backend_drains() {
    with_cluster(2, |cluster| {
        use BackendState::*;
        let web = web(cluster, &[0, 1]);
        let socket = inside(&cluster.client, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let target = SocketAddr::new(cluster.hosts[0].ipv4, 5353);
        // Sent before anybody listens.
        socket.send_to(b"early", target).unwrap();
        for round in 0..6 {
            let (takes, drains) = (&web[round % 2], &web[(round + 1) % 2]);
            let backends = [(takes, Ready), (drains, Draining)];
            publish(cluster, &[published(5353, Protocol::Udp, &backends)]);
            let _ = socket.take_error();
            let answer = ask_udp(&socket, target).unwrap();
            assert_eq!(answer, (takes.name.clone(), cluster.client_ipv4));
        }
    });
}

#[test]
fn containers_of_the_host_reach_published_ports_through_it() {
    with_cluster(2, |cluster| {
        let web = web(cluster, &[0, 1]);
        let (local, remote) = (&web[0], &web[1]);
        for (port, backend) in [(8080, local), (8081, remote)] {
            let ports = [published(
                port,
                Protocol::Tcp,
                &[(backend, BackendState::Ready)],
            )];
            publish(cluster, &ports);
            let host = &cluster.hosts[0];
            // A backend itself, through its own host and the other one.
            for through in &cluster.hosts {
                assert_eq!(
                    call_from(&local.netns, (through.ipv4, port)).0,
                    backend.name
                );
            }
            // A container on a local bridge network.
            let name = format!("on-{port}");
            let netns = host.on(|networks| {
                networks.create(NetworkSpec::bridge(&name)).unwrap();
                let id = networks.create_sandbox(sandbox_spec(&name)).unwrap().id;
                networks
                    .connect(&id, &name, EndpointSpec::default())
                    .unwrap();
                networks.sandbox(&id).unwrap().netns.unwrap()
            });
            for through in &cluster.hosts {
                assert_eq!(call_from(&netns, (through.ipv4, port)).0, backend.name);
            }
        }
    });
}

#[test]
fn a_port_without_backends_refuses_and_is_held_against_others() {
    with_cluster(1, |cluster| {
        let web = web(cluster, &[0]);
        let host = &cluster.hosts[0];
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        publish(
            cluster,
            &[published(8080, tcp, &[]), published(5353, udp, &[])],
        );
        for address in [host.ipv4, host.ipv6] {
            let error = inside(&cluster.client, || {
                call((address, 8080).into()).unwrap_err()
            });
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused,
                "{address}"
            );
        }
        inside(&host.netns, || {
            assert!(TcpListener::bind("0.0.0.0:8080").is_err());
            assert!(UdpSocket::bind("0.0.0.0:5353").is_err());
        });
        // A port another program has is reported; all others work.
        let theirs = inside(&host.netns, || TcpListener::bind("0.0.0.0:8081").unwrap());
        let ready = [(&web[0], BackendState::Ready)];
        let ports = [published(8080, tcp, &ready), published(8081, tcp, &ready)];
        let set = || {
            let wanted = ingress(cluster, 0, &ports);
            host.on(|networks| networks.set_ingress(Some(wanted)).unwrap())
        };
        let problems = set();
        assert!(
            matches!(
                problems.as_slice(),
                [Error::PortAllocated { port: 8081, .. }]
            ),
            "{problems:?}"
        );
        assert_eq!(call_from(&cluster.client, (host.ipv4, 8080)).0, "web.0");
        drop(theirs);
        assert!(set().is_empty());
        assert_eq!(call_from(&cluster.client, (host.ipv4, 8081)).0, "web.0");
        // A container that wants it is told who has it.
        let error = host.on(|networks| {
            networks.create(NetworkSpec::bridge("net")).unwrap();
            let id = networks.create_sandbox(sandbox_spec("local")).unwrap().id;
            networks
                .connect(&id, "net", EndpointSpec::default())
                .unwrap();
            networks.publish(&id, &[port(80, tcp, 8081)]).unwrap_err()
        });
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8081 failed: port is already allocated (by a port published by the cluster)"
        );
        // Taken back, nothing is left of it.
        host.on(|networks| networks.set_ingress(None).unwrap());
        inside(&host.netns, || {
            TcpListener::bind("[::]:8080").unwrap();
            let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert!(!links.contains("mgi-"), "{links}");
        });
        cannot_reach(&cluster.client, (host.ipv4, 8080));
    });
}

#[test]
fn the_ingress_network_opens_no_way_into_hosts_and_none_out() {
    with_cluster(2, |cluster| {
        let web = web(cluster, &[0, 1]);
        publish(
            cluster,
            &[published(
                8080,
                Protocol::Tcp,
                &[(&web[0], BackendState::Ready)],
            )],
        );
        // A program of the host that listens everywhere.
        serve(&cluster.hosts[1].netns, 9000);
        for own in [ingress_node(0), ingress_node(1)] {
            cannot_reach(&web[0].netns, (own.ipv4.unwrap(), 9000));
            cannot_reach(&web[0].netns, (own.ipv6.unwrap(), 9000));
        }
        // What leads outside is the gateway network, which has no IPv6: that is refused at once, not
        // sent into the ingress.
        serve(&cluster.client, 9000);
        let target = SocketAddr::new(cluster.client_ipv4, 9000);
        assert_eq!(reach(&web[0].netns, target), cluster.hosts[0].ipv4);
        let target = SocketAddr::new(cluster.client_ipv6, 9000);
        let error = inside(&web[0].netns, || connect(target).unwrap_err());
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_ingress_without_ipv6_still_serves_tcp_over_ipv6() {
    with_cluster(2, |cluster| {
        cluster.overlay(&overlay("ingress", 4096, &SUBNETS[..1]), Over::Ipv6);
        let web = cluster.task(1, "web", "ingress", "10.0.0.50");
        serve_named(&web.netns, 80, "web");
        let only4 = |number| netdriver::IngressNode {
            ipv6: None,
            ..ingress_node(number)
        };
        let mut peers = cluster.peers(Over::Ipv6, &[&web]);
        for (number, host) in cluster.hosts.iter().enumerate() {
            peers.push(Peer {
                ipv4: only4(number).ipv4,
                ipv6: None,
                mac: None,
                vtep: host.ipv6,
            });
        }
        cluster.set_peers("ingress", 1, &peers);
        for (number, host) in cluster.hosts.iter().enumerate() {
            let mut wanted = ingress(
                cluster,
                number,
                &[published(
                    8080,
                    Protocol::Tcp,
                    &[(&web, BackendState::Ready)],
                )],
            );
            wanted.own = only4(number);
            wanted.nodes = (0..2).map(only4).collect();
            host.on(|networks| networks.set_ingress(Some(wanted)).unwrap());
        }
        for host in &cluster.hosts {
            assert_eq!(
                call_from(&cluster.client, (host.ipv4, 8080)),
                ("web".into(), cluster.client_ipv4)
            );
            assert_eq!(call_from(&cluster.client, (host.ipv6, 8080)).0, "web");
            assert_eq!(call_from(&host.netns, (Ipv6Addr::LOCALHOST, 8080)).0, "web");
        }
    });
}
