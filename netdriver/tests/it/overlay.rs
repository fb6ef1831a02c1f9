//! Networks that span hosts: what arrives, what is put right, what is left behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
        let _ = &cluster.outer;
    });
}
