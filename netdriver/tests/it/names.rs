//! DNS at 127.0.0.11.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use netdriver::{EndpointSpec, NetworkSpec};

use crate::world::*;

#[test]
fn every_name_of_a_container_resolves_on_its_networks_alone() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("front")).unwrap();
        world.networks.create(NetworkSpec::bridge("back")).unwrap();
        let a = world.sandbox("a", &["front"]);
        let db = world.sandbox("db-1", &["back"]);
        let spec = EndpointSpec {
            aliases: vec!["db".into(), "store".into()],
            ..EndpointSpec::default()
        };
        let endpoint = world.networks.connect(&db.id, "front", spec).unwrap();
        assert_eq!(
            endpoint.dns_names,
            ["db-1", "db", "store", &db.id[..12], "db-1-host"]
        );
        let expected = vec![std::net::IpAddr::V4(endpoint.ipv4.unwrap().addr())];
        for name in ["db-1", "DB", "store", &db.id[..12], "db-1-host", "db.front"] {
            assert_eq!(resolve(netns(&a), name), expected, "{name}");
        }
        // An alias holds on its network alone, and networks are not seen from outside.
        let back = world.sandbox("b", &["back"]);
        assert_eq!(resolve(netns(&back), "db-1"), [address(&db)]);
        assert!(resolve(netns(&back), "store").is_empty());
        assert!(resolve(netns(&a), "b").is_empty());
        // Known, without an IPv6 address: no error and nobody else is asked.
        let empty = ask(netns(&a), "db", RecordType::AAAA);
        assert_eq!(
            (empty.metadata.response_code, empty.answers.len()),
            (ResponseCode::NoError, 0)
        );
        let pointer = ask(netns(&a), &reverse(expected[0]), RecordType::PTR);
        assert_eq!(pointer.answers[0].data.to_string(), "db-1.front.");

        world.networks.rename_sandbox(&db.id, "renamed").unwrap();
        assert_eq!(resolve(netns(&a), "renamed"), expected);
        assert!(resolve(netns(&a), "db-1").is_empty());
        world.networks.disconnect(&db.id, "front").unwrap();
        assert!(resolve(netns(&a), "db").is_empty());
    });
}

fn reverse(address: std::net::IpAddr) -> String {
    let std::net::IpAddr::V4(v4) = address else {
        panic!("{address}")
    };
    let [a, b, c, d] = v4.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
}

#[test]
fn other_names_go_upstream_from_the_sandbox() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let a = world.sandbox("a", &["net"]);
        // No upstream server at all: an error at once, no silence.
        assert_eq!(
            ask(netns(&a), "known.example", RecordType::A)
                .metadata
                .response_code,
            ResponseCode::ServFail
        );
        serve_dns(
            Some(&world.neighbour),
            SocketAddr::new(world.neighbour_address, 53),
        );
        world.set_resolv_conf(&format!("nameserver {}\n", world.neighbour_address));
        assert_eq!(
            resolve(netns(&a), "known.example"),
            ["198.51.100.7".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(
            ask(netns(&a), "other.example", RecordType::A)
                .metadata
                .response_code,
            ResponseCode::NoError
        );
        // Cut short over UDP, whole over TCP.
        assert!(
            ask(netns(&a), "known.example", RecordType::TXT)
                .metadata
                .truncation
        );
        let over_tcp = ask_tcp(&a, &query("known.example", RecordType::TXT));
        assert!(!over_tcp.metadata.truncation);
        let local = ask_tcp(&a, &query("a", RecordType::A));
        assert_eq!(local.answers[0].data.ip_addr(), Some(address(&a)));
    });
}

fn ask_tcp(sandbox: &netdriver::Sandbox, request: &Message) -> Message {
    let bytes = request.to_vec().unwrap();
    inside(netns(sandbox), || {
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())
            .unwrap();
        stream.write_all(&bytes).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut response).unwrap();
        Message::from_vec(&response).unwrap()
    })
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_asked_from_the_host_and_never_for_internal_networks() {
    with_world(|world| {
        serve_dns(None, "127.0.0.1:53".parse().unwrap());
        world.set_resolv_conf("nameserver 127.0.0.1\nsearch corp.example\n");
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let mut internal = NetworkSpec::bridge("inner");
        internal.internal = true;
        world.networks.create(internal).unwrap();
        let (a, b) = (world.sandbox("a", &["net"]), world.sandbox("b", &["inner"]));
        assert_eq!(resolve(netns(&a), "known.example").len(), 1);
        assert_eq!(
            ask(netns(&b), "known.example", RecordType::A)
                .metadata
                .response_code,
            ResponseCode::ServFail
        );
        assert_eq!(resolve(netns(&b), "b"), [address(&b)]);
        // The loopback server that is meant is the host's, not one of the container's choice.
        let text = world.networks.resolv_conf(&a.id).unwrap();
        assert!(
            text.ends_with("nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n"),
            "{text}"
        );
        let c = world.sandbox("c", &["bridge"]);
        let text = world.networks.resolv_conf(&c.id).unwrap();
        assert!(
            text.ends_with("nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch corp.example\n"),
            "{text}"
        );
        let hosts = world.networks.hosts(&a.id, "a", "", &[]).unwrap();
        assert!(hosts.ends_with(&format!("{}\ta\n", address(&a))), "{hosts}");
    });
}

#[test]
fn hostile_packets_do_not_stop_the_server() {
    with_world(|world| {
        world.networks.create(NetworkSpec::bridge("net")).unwrap();
        let a = world.sandbox("a", &["net"]);
        inside(netns(&a), || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for length in [0usize, 1, 11, 12, 13, 512, 9000] {
                socket
                    .send_to(&vec![0xff; length], "127.0.0.11:53")
                    .unwrap();
                socket
                    .send_to(&vec![0x00; length], "127.0.0.11:53")
                    .unwrap();
            }
            // A connection that says nothing and one that promises more than it sends.
            let silent = TcpStream::connect("127.0.0.11:53").unwrap();
            let mut liar = TcpStream::connect("127.0.0.11:53").unwrap();
            liar.write_all(&[0xff, 0xff, 1]).unwrap();
            drop(liar);
            std::mem::forget(silent);
        });
        assert_eq!(resolve(netns(&a), "a"), [address(&a)]);
    });
}
