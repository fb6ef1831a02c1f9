//! The table inside a sandbox: DNS queries to 127.0.0.11 port 53 go to the ports our server listens
//! on there.
//!
//! The server listens on random ports so that an image may bind port 53 itself. Connection tracking
//! turns the answers back.

use std::io;
use std::net::Ipv4Addr;

use super::expression::*;
use super::message::{ChainDefinition, NFPROTO_IPV4, Nfnetlink, Ownership, Transaction};
use super::ruleset::HOOK_OUTPUT;
use crate::spec::Protocol;

const TABLE: &str = "muster_dns";

/// Installs the table in the calling thread's network namespace, replacing one from before.
pub(crate) fn redirect_dns(server: Ipv4Addr, udp_port: u16, tcp_port: u16) -> io::Result<()> {
    let mut socket = Nfnetlink::open()?;
    let mut transaction = Transaction::new(NFPROTO_IPV4, TABLE);
    transaction.add_new_table();
    add_rules(&mut transaction, server, udp_port, tcp_port);
    match socket.commit(&transaction) {
        // Deleting costs milliseconds when the socket is closed: only where an earlier daemon was.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let mut transaction = Transaction::new(NFPROTO_IPV4, TABLE);
    transaction.delete_table();
    transaction.add_table(Ownership::Shared);
    add_rules(&mut transaction, server, udp_port, tcp_port);
    socket.commit(&transaction)
}

fn add_rules(transaction: &mut Transaction<'_>, server: Ipv4Addr, udp_port: u16, tcp_port: u16) {
    transaction.add_chain(&ChainDefinition {
        name: "output",
        kind: "nat",
        hook: HOOK_OUTPUT,
        priority: -100,
    });
    for (protocol, port) in [(Protocol::Udp, udp_port), (Protocol::Tcp, tcp_port)] {
        let rule = [
            payload(Field::Ip4Destination, R0),
            compare(R0, Test::Equal, &server.octets()),
            meta(Meta::L4proto, R0),
            compare(R0, Test::Equal, &[protocol.number()]),
            payload(Field::DestinationPort, R0),
            compare(R0, Test::Equal, &53u16.to_be_bytes()),
            load(&server.octets(), R0),
            load(&port.to_be_bytes(), Register(1)),
            dnat(NFPROTO_IPV4, R0, Register(1)),
        ];
        transaction.add_rule("output", &rule);
    }
}
