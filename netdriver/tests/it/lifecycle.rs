//! Creating, changing, removing; crash and return; what must not be left behind.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use netdriver::{EndpointSpec, ErrorKind, NetworkSpec, PortRequest, Protocol};

use crate::world::*;

#[test]
fn removing_everything_leaves_nothing() {
    with_world(|world| {
        let before = world.interfaces();
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let (a, b) = (world.sandbox("a", &["net"]), world.sandbox("b", &["net"]));
        world
            .networks
            .publish(&a.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        let refused = world.networks.remove("net").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        assert!(
            refused
                .to_string()
                .contains("network net has active endpoints (name:\"a\" id:\""),
            "{refused}"
        );
        world.networks.remove_sandbox(&a.id).unwrap();
        world.networks.remove_sandbox(&a.id).unwrap();
        world.networks.remove_sandbox(&b.id).unwrap();
        world.networks.remove("net").unwrap();
        assert_eq!(world.interfaces(), before);
        let run = world.directory.join("host/run");
        for directory in ["netns", "sandboxes"] {
            assert_eq!(
                std::fs::read_dir(run.join(directory)).unwrap().count(),
                0,
                "{directory}"
            );
        }
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(run.to_str().unwrap()), "{mounts}");
        // The port is free again.
        std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        // A daemon that finds nothing alive keeps only what keeps this host from being a router.
        world.restart();
        let done = world.networks.reconcile(&world.live(&[]));
        assert!(done.problems.is_empty(), "{done:?}");
        if let Some(text) = nft(&["list", "ruleset"]) {
            assert!(
                text.contains("iifname @unrouted oifname @unrouted drop"),
                "{text}"
            );
            assert!(!text.contains("8080"), "{text}");
        }
    });
}

/// Output of nft(8), the judge of what we sent. `None`, and aloud, where it is not installed.
fn nft(arguments: &[&str]) -> Option<String> {
    match Command::new("nft").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: nft {arguments:?} cannot be asked: {error}");
            None
        }
    }
}

#[test]
fn the_table_reads_as_documented_and_foreign_tables_stay() {
    with_world(|world| {
        if nft(&["add table inet foreign; add chain inet foreign forward { type filter hook forward priority 0; policy drop; }"]).is_none() {
            return;
        }
        let warnings = world.networks.warnings();
        assert!(
            warnings[0].starts_with("table inet foreign, chain forward drops forwarded packets"),
            "{warnings:?}"
        );
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let a = world.sandbox("a", &["net"]);
        world
            .networks
            .publish(
                &a.id,
                &[port(80, Protocol::Tcp, 8080), port(53, Protocol::Udp, 5353)],
            )
            .unwrap();
        let text = nft(&["list", "ruleset"]).unwrap();
        assert!(text.contains("table inet foreign"), "{text}");
        for expected in [
            format!("tcp . 8080 : {} . 80", address(&a)),
            format!("udp . 5353 : {} . 53", address(&a)),
            "iifname . oifname @within accept".into(),
            "oifname @bridges ct status dnat accept".into(),
            "dnat ip to".into(),
            // This host did not forward before.
            "iifname @unrouted oifname @unrouted drop".into(),
            "\"eth0\"".into(),
        ] {
            assert!(
                text.contains(&expected),
                "{expected:?} is missing in\n{text}"
            );
        }
        // Somebody flushes everything: the next change puts all of it back.
        nft(&["flush", "ruleset"]);
        serve(netns(&a), 80);
        if text.contains("flags owner") {
            reach(&world.neighbour, (world.host_address, 8080));
        } else {
            eprintln!("SKIPPED: this kernel cannot protect a table from others (Linux 6.9)");
        }
        let b = world.sandbox("b", &["net"]);
        world
            .networks
            .publish(&b.id, &[port(80, Protocol::Tcp, 8081)])
            .unwrap();
        reach(&world.neighbour, (world.host_address, 8080));
    });
}

#[test]
fn a_daemon_that_returns_adopts_what_lives_and_removes_what_does_not() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let (alive, dead) = (
            world.sandbox("alive", &["net"]),
            world.sandbox("dead", &["net"]),
        );
        world
            .networks
            .publish(&alive.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        world
            .networks
            .publish(&dead.id, &[port(80, Protocol::Tcp, 8081)])
            .unwrap();
        serve(netns(&alive), 80);
        let target = (world.host_address, 8080);
        let (mut stream, _) = inside(&world.neighbour, || connect(target).unwrap());

        world.restart();
        // Before it has reconciled, and while there is no daemon, packets flow.
        echo(&mut stream, "meanwhile");
        let done = world.networks.reconcile(&world.live(&[&alive]));
        assert!(done.problems.is_empty(), "{done:?}");
        assert_eq!(
            (&done.adopted, &done.removed),
            (&vec![alive.id.clone()], &vec![dead.id.clone()])
        );
        echo(&mut stream, "after");
        assert_eq!(world.networks.sandbox(&alive.id).unwrap().ports.len(), 2);
        reach(&world.neighbour, target);
        connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        connect((std::net::Ipv6Addr::LOCALHOST, 8080)).unwrap();
        assert_eq!(resolve(netns(&alive), "alive"), [address(&alive)]);
        assert!(resolve(netns(&alive), "dead").is_empty());
        cannot_reach(&world.neighbour, (world.host_address, 8081));
        // The port is held again, the dead one's is free, and the living one's address is taken.
        let newcomer = world.sandbox("newcomer", &["net"]);
        assert_ne!(address(&newcomer), address(&alive));
        assert!(
            world
                .networks
                .publish(&newcomer.id, &[port(80, Protocol::Tcp, 8080)])
                .is_err()
        );
        world
            .networks
            .publish(&newcomer.id, &[port(80, Protocol::Tcp, 8081)])
            .unwrap();
    });
}

#[test]
fn a_crash_between_record_and_kernel_is_made_good() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let a = world.sandbox("a", &["net"]);
        // Interface and bridge recorded, yet never made (or taken away): the worst a crash can
        // leave.
        let bridge = world
            .interfaces()
            .into_iter()
            .find(|name| name.starts_with("br-"))
            .unwrap();
        let own = world.networks.clone();
        let orphan = world.directory.join("host/run/netns/orphan");
        std::fs::write(&orphan, "").unwrap();
        if nft(&["list", "tables"]).is_some()
            && Command::new("ip")
                .args(["link", "delete", &bridge])
                .status()
                .is_ok()
        {
            let veth = world
                .interfaces()
                .into_iter()
                .find(|name| name.starts_with("veth"))
                .unwrap();
            Command::new("ip")
                .args(["link", "delete", &veth])
                .status()
                .unwrap();
        } else {
            eprintln!("SKIPPED: ip(8) is not there to take interfaces away");
        }
        drop(own);
        world.restart();
        let done = world.networks.reconcile(&world.live(&[&a]));
        assert!(done.problems.is_empty(), "{done:?}");
        assert!(!orphan.exists());
        serve(netns(&a), 80);
        connect((address(&a), 80)).unwrap();
        assert_eq!(resolve(netns(&a), "a"), [address(&a)]);
    });
}

#[test]
fn the_default_route_and_ports_move_with_the_gateway() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("first")).unwrap();
        world
            .networks
            .create(NetworkSpec::bridge("second"))
            .unwrap();
        serve(&world.neighbour, 8000);
        let outside = (world.neighbour_address, 8000);
        let a = world.sandbox("a", &["first"]);
        serve(netns(&a), 80);
        world
            .networks
            .publish(&a.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        let (mut stream, _) = connect((address(&a), 80)).unwrap();
        // Not a better gateway: nothing moves.
        let second = world
            .networks
            .connect(&a.id, "second", EndpointSpec::default())
            .unwrap();
        assert_eq!(second.ifname, "eth1");
        let seen_by_server = |world: &World| {
            connect((Ipv4Addr::LOCALHOST, 8080))
                .map(|(_, from)| from)
                .unwrap_or_else(|error| panic!("{error} {:?}", world.interfaces()))
        };
        assert_eq!(
            seen_by_server(world),
            IpAddr::V4(a.endpoints[0].gateway.unwrap())
        );
        echo(&mut stream, "undisturbed");
        reach(netns(&a), outside);
        world.networks.disconnect(&a.id, "first").unwrap();
        assert_eq!(seen_by_server(world), IpAddr::V4(second.gateway.unwrap()));
        reach(netns(&a), outside);
        // A better one takes over.
        let spec = EndpointSpec {
            gw_priority: 1,
            ..EndpointSpec::default()
        };
        let third = world.networks.connect(&a.id, "first", spec).unwrap();
        assert_eq!(third.ifname, "eth0");
        assert_eq!(seen_by_server(world), IpAddr::V4(third.gateway.unwrap()));
        for network in ["first", "second"] {
            world.networks.disconnect(&a.id, network).unwrap();
        }
        cannot_reach(netns(&a), outside);
        assert_eq!(
            world
                .networks
                .disconnect(&a.id, "first")
                .unwrap_err()
                .to_string(),
            format!("container {} is not connected to network first", a.id)
        );
    });
}

#[test]
fn a_port_clash_names_the_container_and_leaves_the_sandbox_unpublished() {
    with_world(|world| {
        let (a, b) = (
            world.sandbox("a", &["bridge"]),
            world.sandbox("b", &["bridge"]),
        );
        world
            .networks
            .publish(&a.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        let error = world
            .networks
            .publish(
                &b.id,
                &[port(80, Protocol::Tcp, 8081), port(80, Protocol::Tcp, 8080)],
            )
            .unwrap_err();
        let expected = format!(
            "Bind for 0.0.0.0:8080 failed: port is already allocated (by container a {})",
            &a.id[..12]
        );
        assert_eq!(error.to_string(), expected);
        std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
        let range = PortRequest {
            host_ports: Some((8080, 8090)),
            ..port(80, Protocol::Tcp, 1)
        };
        assert_eq!(
            world
                .networks
                .publish(&b.id, std::slice::from_ref(&range))
                .unwrap()[0]
                .host_port,
            8081
        );
        let random = PortRequest {
            host_ports: None,
            ..range
        };
        let bindings = world.networks.publish(&b.id, &[random]).unwrap();
        assert!(
            bindings[0].host_port >= 1024 && bindings[0].host_port == bindings[1].host_port,
            "{bindings:?}"
        );
    });
}

#[test]
fn requests_that_cannot_be_met_say_why_and_change_nothing() {
    with_world(|world| {
        let networks = &world.networks;
        let mut spec = NetworkSpec::bridge("net");
        spec.ipam = vec![subnet("10.77.0.0/29")];
        networks.create(spec.clone()).unwrap();
        let create = |change: &dyn Fn(&mut NetworkSpec)| {
            let mut spec = NetworkSpec::bridge("other");
            change(&mut spec);
            networks.create(spec).unwrap_err().to_string()
        };
        type Change<'a> = &'a dyn Fn(&mut NetworkSpec);
        let cases: [(Change<'_>, &str); 8] = [
            (
                &|spec| spec.name = "net".into(),
                "network with name net already exists",
            ),
            (
                &|spec| spec.name = "host".into(),
                "operation is not permitted on predefined host network",
            ),
            (
                &|spec| spec.driver = "macvlan".into(),
                "network driver \"macvlan\" is not supported",
            ),
            (
                &|spec| spec.ipam_driver = "dhcp".into(),
                "IPAM driver \"dhcp\" is not supported",
            ),
            (
                &|spec| spec.ipam = vec![subnet("10.77.0.0/16")],
                "Pool overlaps with other one on this address space",
            ),
            (
                &|spec| spec.ipam = vec![subnet("10.78.0.1/16")],
                "invalid subnet 10.78.0.1/16: it should be 10.78.0.0/16",
            ),
            (
                &|spec| spec.ipam = vec![subnet("fd00::/64")],
                "subnet fd00::/64 is given, but IPv6 is not enabled",
            ),
            (
                &|spec| {
                    spec.options
                        .insert("com.docker.network.bridge.name".into(), "eth0".into());
                },
                "interface eth0 exists and was not created by this daemon",
            ),
        ];
        for (change, expected) in cases {
            let error = create(change);
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(networks.list().len(), 4);
        assert_eq!(
            networks.remove("bridge").unwrap_err().to_string(),
            "bridge is a pre-defined network and cannot be removed"
        );
        assert_eq!(
            networks.inspect("nowhere").unwrap_err().kind(),
            ErrorKind::NotFound
        );

        let a = world.sandbox("a", &[]);
        let connect = |spec: EndpointSpec| {
            networks
                .connect(&a.id, "net", spec)
                .unwrap_err()
                .to_string()
        };
        let fixed = |address: &str| EndpointSpec {
            ipv4_address: Some(address.parse().unwrap()),
            ..EndpointSpec::default()
        };
        assert_eq!(
            connect(fixed("10.77.0.1")),
            "network net: Address already in use: 10.77.0.1"
        );
        assert_eq!(
            connect(fixed("10.99.0.1")),
            "network net: address 10.99.0.1 is not usable in subnet 10.77.0.0/29"
        );
        let static_address = networks.connect(&a.id, "net", fixed("10.77.0.5")).unwrap();
        assert_eq!(static_address.mac, Some([2, 0x42, 10, 77, 0, 5]));
        assert_eq!(
            connect(EndpointSpec::default()),
            "endpoint with name a already exists in network net"
        );
        let option = |key: &str, value: &str| EndpointSpec {
            driver_options: [(key.to_owned(), value.to_owned())].into(),
            ..EndpointSpec::default()
        };
        let b = world.sandbox("b", &[]);
        let sysctls = option("com.docker.network.endpoint.sysctls", "x");
        let error = networks
            .connect(&b.id, "net", sysctls)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "endpoint option com.docker.network.endpoint.sysctls=x is not supported"
        );
        let named = option("com.docker.network.endpoint.ifname", "lan0");
        assert_eq!(
            networks.connect(&b.id, "net", named).unwrap().ifname,
            "lan0"
        );
        for name in ["c", "d", "e"] {
            world.sandbox(name, &["net"]);
        }
        let full = world.sandbox("f", &[]);
        let error = networks
            .connect(&full.id, "net", EndpointSpec::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("network net: no available IPv4 addresses in 10.77.0.0/29"),
            "{error}"
        );
        assert!(networks.sandbox(&full.id).unwrap().endpoints.is_empty());
    });
}

#[test]
fn default_subnets_avoid_what_the_host_uses() {
    with_world(|world| {
        let subnet = world.networks.inspect("bridge").unwrap().ipam[0]
            .subnet
            .unwrap()
            .to_string();
        assert_eq!(subnet, "172.17.0.0/16");
        // A second daemon on the same host: another bridge, another subnet, another table.
        world.sandbox("a", &["bridge"]);
        let mut config = world.config();
        config.root = world.directory.join("second/root");
        config.run = world.directory.join("second/run");
        let second = netdriver::Networks::open(config).unwrap();
        let info = second.inspect("bridge").unwrap();
        assert_eq!(info.ipam[0].subnet.unwrap().to_string(), "172.18.0.0/16");
        let first = world.networks.inspect("bridge").unwrap();
        let name = "com.docker.network.bridge.name";
        assert_ne!(info.options[name], first.options[name]);
        let b = second.create_sandbox(sandbox_spec("b")).unwrap();
        second
            .connect(&b.id, "bridge", EndpointSpec::default())
            .unwrap();
        let b = second.sandbox(&b.id).unwrap();
        serve(netns(&b), 80);
        second
            .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        reach(&world.neighbour, (world.host_address, 8080));
    });
}

#[test]
fn the_default_bridge_follows_its_configuration_once_it_is_free() {
    with_world(|world| {
        let a = world.sandbox("a", &["bridge"]);
        let mut config = world.config();
        config.bridge_address = Some("10.55.0.1/24".parse().unwrap());
        let reopen = |world: &mut World, live: &[&netdriver::Sandbox]| {
            world.networks = netdriver::Networks::open(config.clone()).unwrap();
            let done = world.networks.reconcile(&world.live(live));
            assert!(done.problems.is_empty(), "{done:?}");
            world.networks.inspect("bridge").unwrap().ipam[0]
                .subnet
                .unwrap()
                .to_string()
        };
        assert_eq!(reopen(world, &[&a]), "172.17.0.0/16");
        reopen(world, &[]);
        assert_eq!(reopen(world, &[]), "10.55.0.0/24");
        let b = world.sandbox("b", &["bridge"]);
        serve(&world.neighbour, 8000);
        reach(netns(&b), (world.neighbour_address, 8000));
        let c = world
            .networks
            .create_sandbox(netdriver::SandboxSpec {
                mode: netdriver::SandboxMode::Host,
                ..sandbox_spec("c")
            })
            .unwrap();
        assert_eq!(c.netns, None);
        world
            .networks
            .connect(&c.id, "host", EndpointSpec::default())
            .unwrap();
        let refused = world
            .networks
            .connect(&c.id, "bridge", EndpointSpec::default())
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
    });
}

#[test]
fn many_at_once_get_different_addresses_and_leave_nothing() {
    with_world(|world| {
        let before = world.interfaces();
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let networks = &world.networks;
        let made: Vec<IpAddr> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..40)
                .map(|number: u16| {
                    scope.spawn(move || {
                        let id = networks
                            .create_sandbox(sandbox_spec(&format!("s{number}")))
                            .unwrap()
                            .id;
                        let endpoint = networks
                            .connect(&id, "net", EndpointSpec::default())
                            .unwrap();
                        networks
                            .publish(&id, &[port(80, Protocol::Tcp, 9000 + number)])
                            .unwrap();
                        if number.is_multiple_of(2) {
                            networks.remove_sandbox(&id).unwrap();
                        }
                        IpAddr::V4(endpoint.ipv4.unwrap().addr())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let different: std::collections::HashSet<_> = made.iter().collect();
        assert_eq!(different.len(), 40);
        assert_eq!(networks.inspect("net").unwrap().endpoints.len(), 20);
        let last = networks.sandbox(&sandbox_spec("s39").id).unwrap();
        serve(netns(&last), 80);
        reach(&world.neighbour, (world.host_address, 9039));
        assert_eq!(resolve(netns(&last), "s1"), [made[1]]);
        for number in 0..40 {
            networks
                .remove_sandbox(&sandbox_spec(&format!("s{number}")).id)
                .unwrap();
        }
        networks.remove("net").unwrap();
        assert_eq!(world.interfaces(), before);
    });
}

#[test]
fn a_daemon_that_stops_with_nothing_connected_leaves_the_host_as_it_was() {
    with_world(|world| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let before = world.interfaces();
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        world.networks.create(NetworkSpec::bridge("used")).unwrap();
        let (a, b) = (
            world.sandbox("a", &["bridge"]),
            world.sandbox("b", &["used"]),
        );
        serve(netns(&b), 80);
        world
            .networks
            .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        world.networks.remove_sandbox(&a.id).unwrap();
        assert!(world.networks.retire().is_empty());
        // What is in use stays.
        let bridges = |world: &World| {
            let mut names = world.interfaces();
            names.retain(|name| name.starts_with("br-") || name.starts_with("muster"));
            names.len()
        };
        assert_eq!(bridges(world), 1);
        reach(&world.neighbour, (world.host_address, 8080));
        world.networks.remove_sandbox(&b.id).unwrap();
        assert!(world.networks.retire().is_empty());
        assert_eq!(world.interfaces(), before);
        let tables = nft(&["list", "tables"]).unwrap_or_default();
        assert!(!tables.contains("table inet"), "{tables}");
        // The networks are still there, and come back with their next container.
        world.restart();
        let c = world.sandbox("c", &["net"]);
        serve(&world.neighbour, 8000);
        reach(netns(&c), (world.neighbour_address, 8000));
    });
}
