//! Which packets arrive: within a network, between networks, to the outside, through published
//! ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use netdriver::{EndpointSpec, NetworkSpec, PortRequest, Protocol};

use crate::world::*;

#[test]
fn containers_of_a_network_reach_each_other_and_the_outside_sees_the_host() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let (a, b) = (world.sandbox("a", &["net"]), world.sandbox("b", &["net"]));
        serve(netns(&b), 80);
        assert_eq!(reach(netns(&a), (address(&b), 80)), address(&a));
        serve(&world.neighbour, 8000);
        assert_eq!(
            reach(netns(&a), (world.neighbour_address, 8000)),
            world.host_address
        );
    });
}

#[test]
fn networks_are_isolated_and_the_default_one_too() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("one")).unwrap();
        world.networks.create(NetworkSpec::bridge("two")).unwrap();
        let (a, b, c) = (
            world.sandbox("a", &["one"]),
            world.sandbox("b", &["two"]),
            world.sandbox("c", &["bridge"]),
        );
        for server in [&a, &b, &c] {
            serve(netns(server), 80);
        }
        for (client, server) in [(&a, &b), (&b, &a), (&a, &c), (&c, &a)] {
            cannot_reach(netns(client), (address(server), 80));
        }
        // The host reaches all of them, a neighbour with a route none.
        for server in [&a, &b, &c] {
            connect((address(server), 80)).unwrap();
        }
        if route(world, "172.16.0.0/12") {
            for server in [&a, &b, &c] {
                cannot_reach(&world.neighbour, (address(server), 80));
            }
        }
    });
}

/// Makes the neighbour send packets for `net` through the host. Skips aloud where ip(8) is not
/// there.
fn route(world: &World, net: &str) -> bool {
    let via = world.host_address.to_string();
    let add = || {
        Command::new("ip")
            .args(["route", "add", net, "via", &via])
            .status()
    };
    let added = inside(&world.neighbour, add).is_ok_and(|status| status.success());
    if !added {
        eprintln!("SKIPPED: direct routing to {net}, for ip(8) could not add a route");
    }
    added
}

#[test]
fn a_host_that_forwards_for_containers_does_not_become_a_router() {
    with_world(|world| {
        if !route(world, "198.51.100.0/24") {
            return;
        }
        let listener = inside(&world.far, || UdpSocket::bind("0.0.0.0:9000").unwrap());
        let (neighbour, far_address) = (world.neighbour.clone(), world.far_address);
        let arrives = |patience| {
            inside(&neighbour, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(b"x", (far_address, 9000)).unwrap();
            });
            listener.set_read_timeout(Some(patience)).unwrap();
            listener.recv(&mut [0; 8]).is_ok()
        };
        let forwarding = "/proc/sys/net/ipv4/ip_forward";
        // A router would pass it on …
        std::fs::write(forwarding, "1").unwrap();
        assert!(arrives(PATIENCE));
        // … and this host was none until a container needed it.
        std::fs::write(forwarding, "0").unwrap();
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        assert_eq!(std::fs::read_to_string(forwarding).unwrap(), "1\n");
        assert!(!arrives(SILENCE));
        // Containers get through, and the guard is there again after a restart.
        let a = world.sandbox("a", &["net"]);
        serve(&world.neighbour, 8000);
        reach(netns(&a), (world.neighbour_address, 8000));
        world.restart();
        assert!(
            world
                .networks
                .reconcile(&world.live(&[&a]))
                .problems
                .is_empty()
        );
        assert!(!arrives(SILENCE));
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_no_way_in() {
    with_world(|world| {
        let mut spec = NetworkSpec::bridge("inner");
        spec.internal = true;
        world.networks.create(spec).unwrap();
        world.networks.create(NetworkSpec::bridge("outer")).unwrap();
        let (a, b, c) = (
            world.sandbox("a", &["inner"]),
            world.sandbox("b", &["inner"]),
            world.sandbox("c", &["outer"]),
        );
        assert_eq!(a.endpoints[0].gateway, None);
        serve(netns(&b), 80);
        serve(&world.neighbour, 8000);
        reach(netns(&a), (address(&b), 80));
        cannot_reach(netns(&a), (world.neighbour_address, 8000));
        cannot_reach(netns(&c), (address(&b), 80));
        // Ports are not published while nothing leads outside, as in Docker …
        assert_eq!(
            world
                .networks
                .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
                .unwrap(),
            []
        );
        cannot_reach(&world.neighbour, (world.host_address, 8080));
        // … and are once something does.
        world
            .networks
            .connect(&b.id, "outer", EndpointSpec::default())
            .unwrap();
        reach(&world.neighbour, (world.host_address, 8080));
    });
}

#[test]
fn inter_container_traffic_can_be_turned_off() {
    with_world(|world| {
        let mut spec = NetworkSpec::bridge("quiet");
        spec.options.insert(
            "com.docker.network.bridge.enable_icc".into(),
            "false".into(),
        );
        world.networks.create(spec).unwrap();
        let (a, b) = (
            world.sandbox("a", &["quiet"]),
            world.sandbox("b", &["quiet"]),
        );
        serve(netns(&b), 80);
        serve(&world.neighbour, 8000);
        cannot_reach(netns(&a), (address(&b), 80));
        reach(netns(&a), (world.neighbour_address, 8000));
        world
            .networks
            .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        reach(&world.neighbour, (world.host_address, 8080));
        // Published is published, for neighbours on the network too; only br_netfilter keeps that
        // on the (isolated) ports.
        filter_bridged_frames(false);
        reach(netns(&a), (world.host_address, 8080));
        cannot_reach(netns(&a), (address(&b), 80));
    });
}

/// Sets br_netfilter's switch of this namespace; where the module is not loaded, it is off.
fn filter_bridged_frames(on: bool) {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    match std::fs::write(path, if on { "1" } else { "0" }) {
        Err(error) if on => eprintln!("SKIPPED: br_netfilter is not there: {error}"),
        _ => {}
    }
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    published_port_is_reached_from_everywhere(false);
}

#[test]
fn a_published_port_is_reached_from_everywhere_with_bridged_frames_filtered() {
    published_port_is_reached_from_everywhere(true);
}

fn published_port_is_reached_from_everywhere(bridged_frames_filtered: bool) {
    with_world(|world| {
        filter_bridged_frames(bridged_frames_filtered);
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        world.networks.create(NetworkSpec::bridge("other")).unwrap();
        let (server, same, other, by_default) = (
            world.sandbox("server", &["net"]),
            world.sandbox("same", &["net"]),
            world.sandbox("other", &["other"]),
            world.sandbox("default", &["bridge"]),
        );
        serve(netns(&server), 80);
        serve(netns(&server), 81);
        let bindings = world
            .networks
            .publish(&server.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        let shown: Vec<_> = bindings
            .iter()
            .map(|binding| (binding.host_ip.to_string(), binding.host_port))
            .collect();
        assert_eq!(
            shown,
            [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)]
        );

        // The neighbour's address is kept.
        assert_eq!(
            reach(&world.neighbour, (world.host_address, 8080)),
            world.neighbour_address
        );
        let gateway = IpAddr::V4(server.endpoints[0].gateway.unwrap());
        assert_eq!(connect((Ipv4Addr::LOCALHOST, 8080)).unwrap().1, gateway);
        assert_eq!(
            connect((world.host_address, 8080)).unwrap().1,
            world.host_address
        );
        // IPv6 is relayed.
        assert_eq!(connect((Ipv6Addr::LOCALHOST, 8080)).unwrap().1, gateway);
        // Hairpin: another container of the network, the container itself, containers of another
        // network and of the default one.
        for client in [&same, &server, &other, &by_default] {
            reach(netns(client), (world.host_address, 8080));
        }
        // What is not published is not reached, nor is the host's loopback through the bridge.
        cannot_reach(&world.neighbour, (world.host_address, 81));
        cannot_reach(&world.neighbour, (world.host_address, 80));

        world.networks.publish(&server.id, &[]).unwrap();
        cannot_reach(&world.neighbour, (world.host_address, 8080));
        assert!(connect((Ipv4Addr::LOCALHOST, 8080)).is_err());
    });
}

#[test]
fn a_port_published_on_one_address_is_not_reached_on_another() {
    with_world(|world| {
        let server = world.sandbox("server", &["bridge"]);
        serve(netns(&server), 80);
        let on = |host_ip: IpAddr, host_port| PortRequest {
            host_ip: Some(host_ip),
            ..port(80, Protocol::Tcp, host_port)
        };
        let requests = [
            on(Ipv4Addr::LOCALHOST.into(), 8080),
            on(world.host_address, 8081),
            on(Ipv6Addr::LOCALHOST.into(), 8082),
        ];
        assert_eq!(
            world.networks.publish(&server.id, &requests).unwrap().len(),
            3
        );
        connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        cannot_reach(&world.neighbour, (world.host_address, 8080));
        reach(&world.neighbour, (world.host_address, 8081));
        assert!(connect((Ipv4Addr::LOCALHOST, 8081)).is_err());
        connect((Ipv6Addr::LOCALHOST, 8082)).unwrap();
    });
}

#[test]
fn a_container_cannot_use_the_bridge_to_reach_the_hosts_loopback() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let a = world.sandbox("a", &["net"]);
        let secret = UdpSocket::bind("127.0.0.1:7000").unwrap();
        secret.set_read_timeout(Some(SILENCE)).unwrap();
        inside(netns(&a), || {
            // What a hostile process with CAP_NET_ADMIN can bend: the packet leaves by eth0, to the
            // gateway.
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let socket = UdpSocket::bind((address(&a), 0)).unwrap();
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::BindToDevice,
                &"eth0".into(),
            )
            .unwrap();
            socket.send_to(b"secret", "127.0.0.1:7000").unwrap();
        });
        assert!(
            secret.recv(&mut [0; 16]).is_err(),
            "a container's packet reached the host's loopback"
        );
    });
}

#[test]
fn udp_follows_its_port_to_a_new_container() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let (old, new) = (
            world.sandbox("old", &["net"]),
            world.sandbox("new", &["net"]),
        );
        for (sandbox, reply) in [(&old, "old"), (&new, "new")] {
            let socket = inside(netns(sandbox), || UdpSocket::bind("0.0.0.0:53").unwrap());
            std::thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    socket.send_to(reply.as_bytes(), client).unwrap();
                }
            });
        }
        let request = [port(53, Protocol::Udp, 5353)];
        let bindings = world.networks.publish(&old.id, &request).unwrap();
        assert_eq!(
            bindings.len(),
            1,
            "UDP over IPv6 is claimed without being served: {bindings:?}"
        );
        let client = inside(&world.neighbour, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.connect((world.host_address, 5353)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = || {
            client.send(b"?").unwrap();
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(ask(), "old");
        world.networks.publish(&old.id, &[]).unwrap();
        world.networks.publish(&new.id, &request).unwrap();
        assert_eq!(ask(), "new");
    });
}

#[test]
fn ipv6_networks_have_addresses_at_once() {
    with_world(|world| {
        let mut spec = NetworkSpec::bridge("six");
        spec.enable_ipv6 = Some(true);
        let info = world.networks.create(spec).unwrap();
        assert_eq!(info.ipam.len(), 2);
        let (a, b) = (world.sandbox("a", &["six"]), world.sandbox("b", &["six"]));
        serve(netns(&b), 80);
        let v6 =
            |sandbox: &netdriver::Sandbox| IpAddr::V6(sandbox.endpoints[0].ipv6.unwrap().addr());
        assert_eq!(reach(netns(&a), (v6(&b), 80)), v6(&a));
        world
            .networks
            .publish(&b.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        // By the filter to the host's address on the bridge, by the relay to ::1.
        let gateway = IpAddr::V6(a.endpoints[0].gateway_v6.unwrap());
        reach(netns(&a), (gateway, 8080));
        connect((Ipv6Addr::LOCALHOST, 8080)).unwrap();
    });
}

#[test]
fn a_container_with_ipv6_alone_is_published_to_both_families() {
    with_world(|world| {
        let mut spec = NetworkSpec::bridge("six");
        spec.enable_ipv4 = Some(false);
        spec.enable_ipv6 = Some(true);
        world.networks.create(spec).unwrap();
        let a = world.sandbox("a", &["six"]);
        assert_eq!(a.endpoints[0].ipv4, None);
        serve(netns(&a), 80);
        let bindings = world
            .networks
            .publish(&a.id, &[port(80, Protocol::Tcp, 8080)])
            .unwrap();
        assert_eq!(bindings.len(), 2);
        connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        connect((Ipv6Addr::LOCALHOST, 8080)).unwrap();
        reach(&world.neighbour, (world.host_address, 8080));
    });
}
