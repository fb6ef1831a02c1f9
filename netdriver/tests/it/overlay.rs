//! Networks that span hosts: what arrives, what is put right, what is left behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netdriver::{
    BackendState, EndpointSpec, ErrorKind, Ingress, IngressPort, NetworkSpec, Overlay, Peer,
    PeersSet, Protocol,
};

use crate::cluster::*;
use crate::world::*;

#[test]
fn endpoints_of_an_overlay_reach_each_other_over_ipv4() {
    reach_each_other(Over::Ipv4);
}

#[test]
fn endpoints_of_an_overlay_reach_each_other_over_ipv6() {
    reach_each_other(Over::Ipv6);
}

fn reach_each_other(over: Over) {
    with_cluster(3, |cluster| {
        cluster.overlay(
            &overlay("back", 4097, &["10.0.1.0/24", "fd00:2::/64"]),
            over,
        );
        let tasks: Vec<Task> = (0..3)
            .map(|host| {
                let number = host + 5;
                cluster.task(
                    host,
                    &format!("t{host}"),
                    "back",
                    &format!("10.0.1.{number} fd00:2::{number}"),
                )
            })
            .collect();
        cluster.set_peers(
            "back",
            1,
            &cluster.peers(over, &tasks.iter().collect::<Vec<_>>()),
        );
        for server in &tasks {
            serve_named(&server.netns, 80, &server.name);
        }
        for client in &tasks {
            for server in &tasks {
                for (own, address) in [
                    (
                        IpAddr::V4(client.ipv4.unwrap()),
                        IpAddr::V4(server.ipv4.unwrap()),
                    ),
                    (
                        IpAddr::V6(client.ipv6.unwrap()),
                        IpAddr::V6(server.ipv6.unwrap()),
                    ),
                ] {
                    let target = SocketAddr::new(address, 80);
                    assert_eq!(call_from(&client.netns, target), (server.name.clone(), own));
                }
            }
        }
        // Another network with the same addresses is another world.
        cluster.overlay(&overlay("other", 4098, &["10.0.1.0/24"]), over);
        let stranger = cluster.task(0, "stranger", "other", "10.0.1.9");
        cannot_reach(&stranger.netns, (Ipv4Addr::new(10, 0, 1, 6), 80));
    });
}

/// A backend on host 1 and a client on host 0, balanced and published on all hosts.
fn lived_in(cluster: &Cluster) -> (Task, Task) {
    cluster.overlay(
        &overlay("back", 4097, &["10.0.1.0/24", "fd00:2::/64"]),
        Over::Ipv4,
    );
    cluster.overlay(&overlay("ingress", 4096, &["10.0.0.0/24"]), Over::Ipv4);
    let client = cluster.task(0, "client", "back", "10.0.1.5 fd00:2::5");
    let web = cluster.task(1, "web.1", "back", "10.0.1.6 fd00:2::6");
    serve_named(&web.netns, 80, "web");
    cluster.hosts[1].on(|networks| {
        let spec = EndpointSpec {
            ipv4_address: Some(Ipv4Addr::new(10, 0, 0, 50)),
            ..EndpointSpec::default()
        };
        networks.connect(&web.id, "ingress", spec).unwrap();
    });
    assign(cluster, &client, &web);
    (client, web)
}

/// Everything a manager would say, again and again the same.
fn assign(cluster: &Cluster, client: &Task, web: &Task) {
    cluster.set_peers("back", 1, &cluster.peers(Over::Ipv4, &[client, web]));
    cluster.set_balanced(
        "back",
        &[balanced(
            "web",
            &["10.0.1.2", "fd00:2::2"],
            vec![web.backend(BackendState::Ready)],
        )],
    );
    let node = |number| netdriver::IngressNode {
        ipv6: None,
        ..ingress_node(number)
    };
    let mut peers: Vec<Peer> = (0..cluster.hosts.len())
        .map(|number| Peer {
            ipv4: node(number).ipv4,
            ipv6: None,
            mac: None,
            vtep: cluster.hosts[number].ipv4,
        })
        .collect();
    peers.push(Peer {
        ipv4: Some(Ipv4Addr::new(10, 0, 0, 50)),
        ipv6: None,
        mac: None,
        vtep: cluster.hosts[web.host].ipv4,
    });
    cluster.set_peers("ingress", 1, &peers);
    let mut backend = web.backend(BackendState::Ready);
    (backend.ipv4, backend.ipv6) = (Some(Ipv4Addr::new(10, 0, 0, 50)), None);
    for (number, host) in cluster.hosts.iter().enumerate() {
        let wanted = Ingress {
            network: "ingress".into(),
            own: node(number),
            nodes: (0..cluster.hosts.len()).map(node).collect(),
            ports: vec![IngressPort {
                published: 8080,
                protocol: Protocol::Tcp,
                target: 80,
                backends: vec![backend.clone()],
            }],
        };
        let problems = host.on(|networks| networks.set_ingress(Some(wanted)).unwrap());
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// Every way of reaching the backend works.
fn check(cluster: &Cluster, client: &Task) {
    for target in [
        "10.0.1.6:80",
        "[fd00:2::6]:80",
        "10.0.1.2:80",
        "[fd00:2::2]:80",
    ] {
        let target: SocketAddr = target.parse().unwrap();
        assert_eq!(call_from(&client.netns, target).0, "web", "{target}");
    }
    for host in &cluster.hosts {
        let answer = call_from(&cluster.client, (host.ipv4, 8080));
        assert_eq!(answer, ("web".into(), cluster.client_ipv4));
    }
}

/// Runs a program in a namespace. `None`, and aloud, where it is not installed.
fn run_in(netns: &Path, command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let output = inside(netns, || Command::new(program).args(words).output());
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{command}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: {command} cannot be run: {error}");
            None
        }
    }
}

impl Host {
    /// An overlay's own namespace.
    fn inside_of(&self, network: &str) -> std::path::PathBuf {
        self.directory.join(format!("run/overlays/{network}.net"))
    }

    fn repairs(&self, network: &str) -> u64 {
        self.on(|networks| networks.overlay(network).unwrap().repairs)
    }
}

/// Waits for what the kernel's news brings about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_others_change_in_an_overlay_is_put_right_at_once() {
    with_cluster(2, |cluster| {
        let (client, _) = lived_in(cluster);
        check(cluster, &client);
        let host = &cluster.hosts[0];
        let netns = host.inside_of("back");
        // The bridge keeps entries of its own for the same device.
        let entries = || {
            let text = run_in(&netns, "bridge fdb show dev vx4097")?;
            let own = text.lines().filter(|line| line.contains(" dst "));
            let words = |line: &str| {
                let words: Vec<_> = line.split_whitespace().take(3).collect();
                words.join(" ")
            };
            Some(own.map(words).collect::<Vec<_>>())
        };
        let Some(before) = entries() else { return };
        assert_eq!(before, ["02:42:0a:00:01:06 dst 192.0.2.3"]);
        let neighbours = run_in(&netns, "ip neigh show dev vx4097 nud permanent").unwrap();
        for expected in [
            "10.0.1.6 lladdr 02:42:0a:00:01:06 PERMANENT",
            "fd00:2::6 lladdr 02:42:0a:00:01:06 PERMANENT",
        ] {
            assert!(neighbours.contains(expected), "{neighbours}");
        }
        for damage in [
            "bridge fdb del 02:42:0a:00:01:06 dev vx4097",
            "bridge fdb replace 02:42:0a:00:01:06 dev vx4097 dst 192.0.2.99 self permanent",
            "bridge fdb append 02:42:0a:00:01:07 dev vx4097 dst 192.0.2.99 self permanent",
            "ip neigh del 10.0.1.6 dev vx4097",
            "ip neigh replace fd00:2::6 lladdr 02:42:00:00:00:99 dev vx4097 nud permanent",
            "ip neigh flush dev vx4097 nud permanent",
            "ip link del vx4097",
            "ip link del br0",
        ] {
            let repairs = host.repairs("back");
            run_in(&netns, damage);
            eventually(damage, || host.repairs("back") > repairs);
            eventually(damage, || entries().unwrap() == before);
            check(cluster, &client);
        }
        // Our own changes wake nobody.
        let before = host.repairs("back");
        let peers = cluster.peers(Over::Ipv4, &[&client]);
        host.on(|networks| networks.set_peers("back", 2, peers).unwrap());
        assert_eq!(
            host.on(|networks| networks.overlay("back").unwrap().peers),
            0
        );
        assert!(host.on(|networks| networks.repair()).repaired.is_empty());
        assert_eq!(host.repairs("back"), before);
    });
}

#[test]
fn a_repair_on_request_covers_what_nobody_tells_of() {
    with_cluster(2, |cluster| {
        let (client, web) = lived_in(cluster);
        for host in &cluster.hosts {
            let done = host.on(|networks| networks.repair());
            assert!(
                done.repaired.is_empty() && done.problems.is_empty(),
                "{done:?}"
            );
        }
        let owned = run_in(&client.netns, "nft list tables inet").map(|_| {
            run_in(&client.netns, "nft list table inet muster_overlay")
                .unwrap()
                .contains("flags owner")
        });
        let Some(owned) = owned else { return };
        let host = &cluster.hosts[1];
        let ingress = run_in(&host.netns, "ip -o link").unwrap();
        let ingress = ingress
            .split_whitespace()
            .find(|word| word.starts_with("mgi-"))
            .unwrap();
        let ingress = ingress.split('@').next().unwrap().to_owned();
        for (netns, damage) in [
            (&client.netns, "nft flush ruleset".to_owned()),
            (&web.netns, "nft flush ruleset".to_owned()),
            (&host.netns, "nft flush ruleset".to_owned()),
            (&web.netns, "ip rule flush".to_owned()),
            (&web.netns, "ip rule del priority 28000".to_owned()),
            (&host.netns, format!("ip link del {ingress}")),
            (&web.netns, "ip link del eth0".to_owned()),
        ] {
            if damage == "nft flush ruleset" && owned {
                // Such tables are passed over. Nothing to repair, nothing lost.
                run_in(netns, &damage);
                check(cluster, &client);
                continue;
            }
            run_in(netns, &damage);
            if damage == "ip rule flush" {
                // It takes the rules of the kernel's own tables along, which are not ours.
                run_in(netns, "ip rule add priority 32766 table main");
                run_in(netns, "ip rule add priority 32767 table default");
            }
            let done: Vec<_> = cluster
                .hosts
                .iter()
                .map(|host| host.on(|networks| networks.repair()))
                .collect();
            assert!(
                done.iter().any(|done| !done.repaired.is_empty()) || damage.contains(&ingress),
                "{damage}: {done:?}"
            );
            assert!(
                done.iter().all(|done| done.problems.is_empty()),
                "{damage}: {done:?}"
            );
            check(cluster, &client);
        }
        for host in &cluster.hosts {
            let done = host.on(|networks| networks.repair());
            assert!(done.repaired.is_empty(), "{done:?}");
        }
    });
}

#[test]
fn a_daemon_that_returns_finds_all_of_it_and_changes_nothing() {
    with_cluster(2, |cluster| {
        let (client, web) = lived_in(cluster);
        check(cluster, &client);
        let (mut kept, ..) = inside(&client.netns, || {
            call("10.0.1.2:80".parse().unwrap()).unwrap()
        });
        let target = SocketAddr::new(cluster.hosts[0].ipv4, 8080);
        let (mut outside, ..) = inside(&cluster.client, || call(target).unwrap());
        let indices = |cluster: &Cluster| {
            let netns = cluster.hosts[0].inside_of("back");
            run_in(&netns, "ip -o link").map(|text| {
                let link = |line: &str| {
                    line.split_whitespace()
                        .take(2)
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                text.lines().map(link).collect::<Vec<_>>()
            })
        };
        let before = indices(cluster);
        cluster.hosts[0].restart(&[&client]);
        cluster.hosts[1].restart(&[&web]);
        echo(&mut kept, "meanwhile");
        echo(&mut outside, "meanwhile");
        // Before anybody says anything: what was said last.
        assert_eq!(resolve(&client.netns, "web"), [IpAddr::from([10, 0, 1, 2])]);
        check(cluster, &client);
        assign(cluster, &client, &web);
        check(cluster, &client);
        echo(&mut kept, "after");
        echo(&mut outside, "after");
        assert_eq!(indices(cluster), before);
        // A sandbox that ended meanwhile goes, with its interface.
        cluster.hosts[0].restart(&[]);
        let host = &cluster.hosts[0];
        host.on(|networks| {
            assert!(networks.inspect("back").unwrap().endpoints.is_empty());
            networks.remove_overlay("back").unwrap();
        });
    });
}

#[test]
fn taking_everything_down_leaves_nothing() {
    with_cluster(2, |cluster| {
        let before: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| interfaces(&host.netns))
            .collect();
        let (client, web) = lived_in(cluster);
        for (task, host) in [&client, &web].into_iter().zip(&cluster.hosts) {
            host.on(|networks| {
                let refused = networks.remove_overlay("back").unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Forbidden);
                assert!(
                    refused.to_string().contains("has active endpoints"),
                    "{refused}"
                );
                let refused = networks.remove_overlay("ingress").unwrap_err();
                assert!(refused.to_string().contains("published ports"), "{refused}");
                let refused = networks.remove("back").unwrap_err();
                assert!(
                    refused.to_string().contains("through a manager"),
                    "{refused}"
                );
                networks.remove_sandbox(&task.id).unwrap();
                networks.set_ingress(None).unwrap();
                networks.remove_overlay("back").unwrap();
                networks.remove_overlay("back").unwrap();
                networks.remove_overlay("ingress").unwrap();
                networks.remove("docker_gwbridge").unwrap();
            });
            let run = host.directory.join("run");
            for directory in ["netns", "sandboxes", "overlays"] {
                let left: Vec<_> = std::fs::read_dir(run.join(directory)).unwrap().collect();
                assert!(left.is_empty(), "{left:?}");
            }
            assert!(!run.join("ingress.json").exists());
        }
        let after: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| interfaces(&host.netns))
            .collect();
        assert_eq!(after, before);
        // The VNI is free at once.
        let again = overlay("again", 4097, &["10.0.1.0/24"]);
        cluster.overlay(&again, Over::Ipv6);
    });
}

fn interfaces(netns: &Path) -> Vec<String> {
    let text = inside(netns, || {
        std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
    });
    let name = |line: &str| line.split_once(':').unwrap().0.trim().to_owned();
    text.lines().skip(2).map(name).collect()
}

#[test]
fn a_daemon_that_stops_takes_what_nobody_uses_and_returns_to_it() {
    with_cluster(2, |cluster| {
        let (client, web) = lived_in(cluster);
        let host = &cluster.hosts[0];
        host.on(|networks| {
            networks.remove_sandbox(&client.id).unwrap();
            let problems = networks.retire();
            assert!(problems.is_empty(), "{problems:?}");
        });
        assert_eq!(interfaces(&host.netns), ["lo", "eth0"]);
        cluster.hosts[0].restart(&[]);
        let answer = call_from(&cluster.client, (cluster.hosts[0].ipv4, 8080));
        assert_eq!((answer.0.as_str(), web.host), ("web", 1));
    });
}

#[test]
fn the_mtu_is_what_the_way_allows() {
    with_cluster(2, |cluster| {
        for over in [Over::Ipv4, Over::Ipv6] {
            let (id, vni, overhead) = match over {
                Over::Ipv4 => ("four", 4101, 50),
                Over::Ipv6 => ("six", 4102, 70),
            };
            cluster.overlay(&overlay(id, vni, &["10.0.9.0/24"]), over);
            let a = cluster.task(0, &format!("a{vni}"), id, "10.0.9.5");
            let b = cluster.task(1, &format!("b{vni}"), id, "10.0.9.6");
            serve_named(&b.netns, 80, "b");
            cluster.set_peers(id, 1, &cluster.peers(over, &[&a, &b]));
            assert_eq!(mtu(&a, "eth0"), 1500 - overhead);
            // The largest datagram that is not cut arrives.
            let payload = vec![0; (1500 - overhead - 28) as usize];
            let socket = inside(&a.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&payload, "10.0.9.6:80").unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
        // The way to a host becomes narrower: known with the next list of peers.
        let host = &cluster.hosts[0];
        if run_in(&host.netns, "ip route add 192.0.2.3/32 dev eth0 mtu 1400").is_none() {
            return;
        }
        let a = Task {
            host: 0,
            name: "a4101".into(),
            netns: host
                .directory
                .join(format!("run/netns/{}", sandbox_spec("a4101").id)),
            id: String::new(),
            ipv4: Some([10, 0, 9, 5].into()),
            ipv6: None,
        };
        let mut peers = cluster.peers(Over::Ipv4, &[&a]);
        for number in 6..9 {
            peers.push(Peer {
                ipv4: Some([10, 0, 9, number].into()),
                ipv6: None,
                mac: None,
                vtep: cluster.hosts[1].ipv4,
            });
        }
        host.on(|networks| networks.set_peers("four", 2, peers).unwrap());
        assert_eq!(mtu(&a, "eth0"), 1350);
        assert_eq!(
            host.on(|networks| networks.overlay("four").unwrap().mtu),
            1350
        );
        // Unless somebody said what it shall be.
        let mut fixed = overlay("four", 4101, &["10.0.9.0/24"]);
        fixed.data_path.address = host.ipv4;
        let option = ("com.docker.network.driver.mtu".into(), "1300".into());
        fixed.options.insert(option.0, option.1);
        host.on(|networks| networks.ensure_overlay(fixed).unwrap());
        assert_eq!(mtu(&a, "eth0"), 1300);
    });
}

fn mtu(task: &Task, interface: &str) -> u32 {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/mtu");
    let text = inside(&task.netns, || std::fs::read_to_string(path).unwrap());
    text.trim().parse().unwrap()
}

#[test]
fn a_network_that_is_going_leaves_its_name_to_the_next() {
    with_cluster(1, |cluster| {
        let host = &cluster.hosts[0];
        let mut old = overlay("old", 4101, &["10.0.1.0/24"]);
        old.name = "app_front".into();
        let mut new = overlay("new", 4102, &["10.0.2.0/24"]);
        new.name = "app_front".into();
        cluster.overlay(&old, Over::Ipv4);
        let ending = cluster.task(0, "ending", "old", "10.0.1.5");
        cluster.overlay(&new, Over::Ipv4);
        let begun = cluster.task(0, "begun", "app_front", "10.0.2.5");
        host.on(|networks| {
            assert_eq!(networks.inspect("app_front").unwrap().id, "new");
            networks.remove_sandbox(&ending.id).unwrap();
            networks.remove_overlay("old").unwrap();
            assert_eq!(
                networks.sandbox(&begun.id).unwrap().endpoints[0].network_id,
                "new"
            );
            // A local network's name is its own.
            let error = networks
                .create(NetworkSpec::bridge("app_front"))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        });
    });
}

#[test]
fn an_endpoint_that_moves_between_hosts_is_found_at_once() {
    with_cluster(2, |cluster| {
        for (id, vni, subnet, own, address) in [
            ("four", 4101, "10.0.1.0/24", "10.0.1.5", "10.0.1.6"),
            ("six", 4102, "fd00:2::/64", "fd00:2::5", "fd00:2::6"),
        ] {
            cluster.overlay(&overlay(id, vni, &[subnet]), Over::Ipv4);
            let client = cluster.task(0, &format!("c{vni}"), id, own);
            let target = SocketAddr::new(address.parse().unwrap(), 80);
            for (version, host) in [1, 0, 1, 0].into_iter().enumerate() {
                let name = format!("m{vni}{version}");
                let moved = cluster.task(host, &name, id, address);
                serve_named(&moved.netns, 80, &name);
                let peers = cluster.peers(Over::Ipv4, &[&client, &moved]);
                cluster.set_peers(id, version as u64, &peers);
                // The client speaks first: nobody else has told its host where to look.
                assert_eq!(call_from(&client.netns, target).0, name);
                cluster.hosts[host].on(|networks| networks.remove_sandbox(&moved.id).unwrap());
            }
        }
    });
}

#[test]
fn the_gateway_network_comes_and_goes_with_the_need() {
    with_cluster(1, |cluster| {
        let host = &cluster.hosts[0];
        cluster.overlay(&overlay("back", 4097, &["10.0.1.0/24"]), Over::Ipv4);
        let mut secret = overlay("secret", 4098, &["10.0.2.0/24"]);
        secret.internal = true;
        cluster.overlay(&secret, Over::Ipv4);
        serve(&cluster.client, 8000);
        let outside = SocketAddr::new(cluster.client_ipv4, 8000);
        let on_secret = cluster.task(0, "hidden", "secret", "10.0.2.5");
        cannot_reach(&on_secret.netns, outside);
        host.on(|networks| assert!(networks.inspect("docker_gwbridge").is_err()));
        let a = cluster.task(0, "a", "back", "10.0.1.5");
        let b = cluster.task(0, "b", "back", "10.0.1.6");
        assert_eq!(reach(&a.netns, outside), host.ipv4);
        host.on(|networks| {
            let shown = networks.sandbox(&a.id).unwrap().endpoints;
            assert_eq!(shown.len(), 1);
            let gateway = networks.inspect("docker_gwbridge").unwrap();
            let name = format!("gateway_{}", &a.id[..12]);
            assert!(
                gateway
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoint.name == name)
            );
            // Its members do not reach each other through it.
            let of_b = gateway
                .endpoints
                .iter()
                .find(|endpoint| endpoint.sandbox_id == b.id)
                .unwrap();
            let address = of_b.endpoint.ipv4.unwrap().addr();
            serve(&b.netns, 80);
            cannot_reach(&a.netns, (address, 80));
            // Ports are published through it.
            networks
                .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
                .unwrap();
        });
        assert_eq!(
            reach(&cluster.client, (host.ipv4, 8080)),
            cluster.client_ipv4
        );
        // Another network that leads outside takes its place.
        host.on(|networks| {
            networks.create(NetworkSpec::bridge("net")).unwrap();
            networks
                .connect(&a.id, "net", EndpointSpec::default())
                .unwrap();
            let gateway = networks.inspect("docker_gwbridge").unwrap();
            assert!(
                gateway
                    .endpoints
                    .iter()
                    .all(|endpoint| endpoint.sandbox_id != a.id)
            );
        });
        assert_eq!(reach(&a.netns, outside), host.ipv4);
        host.on(|networks| networks.disconnect(&a.id, "net").unwrap());
        assert_eq!(reach(&a.netns, outside), host.ipv4);
        host.on(|networks| networks.disconnect(&a.id, "back").unwrap());
        cannot_reach(&a.netns, outside);
    });
}

#[test]
fn requests_that_make_no_sense_say_why_and_change_nothing() {
    with_cluster(1, |cluster| {
        let host = &cluster.hosts[0];
        let good = || {
            let mut good = overlay("back", 4097, &["10.0.1.0/24"]);
            good.data_path.address = host.ipv4;
            good
        };
        let refused = |change: &dyn Fn(&mut Overlay), expected: &str| {
            let mut bad = good();
            bad.id = "bad".into();
            bad.name = "bad".into();
            bad.vni = 5000;
            change(&mut bad);
            let error = host.on(|networks| networks.ensure_overlay(bad).unwrap_err());
            assert!(error.to_string().contains(expected), "{error}");
            host.on(|networks| assert!(networks.inspect("bad").is_err()));
        };
        host.on(|networks| networks.ensure_overlay(good()).unwrap());
        refused(&|bad| bad.vni = 0, "VNI 0");
        refused(
            &|bad| bad.vni = 4097,
            "identifier 4097 is in use by network back",
        );
        refused(&|bad| bad.id = "../x".into(), "letters, digits");
        refused(
            &|bad| {
                bad.options.insert("encrypted".into(), String::new());
            },
            "encryption of overlay networks (option encrypted of network bad) is not supported",
        );
        refused(&|bad| bad.ipam.clear(), "no subnet");
        refused(
            &|bad| bad.data_path.address = [198, 51, 100, 1].into(),
            "198.51.100.1 is not an address of this host",
        );
        refused(
            &|bad| bad.ipam.push(subnet("10.7.0.0/24")),
            "more than one subnet of an address family",
        );
        // Somebody else's device has the VNI.
        let theirs = "ip link add theirs type vxlan id 5000 dstport 4789 local 192.0.2.2";
        if run_in(&host.netns, theirs).is_some() {
            refused(
                &|_| {},
                "identifier 5000 is in use by an interface of this host that muster did not create",
            );
            run_in(&host.netns, "ip link del theirs");
        }
        host.on(|networks| {
            let id = networks.create_sandbox(sandbox_spec("a")).unwrap().id;
            let error = networks
                .connect(&id, "back", EndpointSpec::default())
                .unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("addresses its managers allocated"),
                "{error}"
            );
            let at = |last| EndpointSpec {
                ipv4_address: Some([10, 0, 1, last].into()),
                ..EndpointSpec::default()
            };
            networks.connect(&id, "back", at(5)).unwrap();
            let other = networks.create_sandbox(sandbox_spec("b")).unwrap().id;
            let error = networks.connect(&other, "back", at(5)).unwrap_err();
            assert!(error.to_string().contains("in use"), "{error}");
            assert!(networks.sandbox(&other).unwrap().endpoints.is_empty());
            // Addressing of a network in use stays.
            let mut moved = good();
            moved.vni = 4099;
            let error = networks.ensure_overlay(moved).unwrap_err();
            assert!(error.to_string().contains("cannot change"), "{error}");
            // Peers: in order, and of the right family.
            let peer = |vtep: IpAddr| Peer {
                ipv4: Some([10, 0, 1, 9].into()),
                ipv6: None,
                mac: None,
                vtep,
            };
            let remote = IpAddr::from([192, 0, 2, 77]);
            assert_eq!(
                networks.set_peers("back", 7, vec![peer(remote)]).unwrap(),
                PeersSet::Applied
            );
            assert_eq!(
                networks.set_peers("back", 6, Vec::new()).unwrap(),
                PeersSet::Stale
            );
            assert_eq!(networks.overlay("back").unwrap().peers, 1);
            let error = networks
                .set_peers("back", 8, vec![peer("2001:db8::9".parse().unwrap())])
                .unwrap_err();
            assert!(
                error.to_string().contains("does not go with this host's"),
                "{error}"
            );
            assert_eq!(networks.overlay("back").unwrap().peers_version, Some(7));
        });
    });
}
