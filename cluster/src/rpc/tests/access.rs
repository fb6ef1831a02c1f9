//! Every method with every role, over real connections.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::Full;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use super::super::access::{Access, METHODS, allows};
use super::super::peers::stranger_channel;
use super::*;

/// Calls a method with an empty message, and gives the code of the answer.
async fn call(channel: &mut Channel, path: &str) -> Code {
    let message = Full::new(Bytes::from_static(&[0; 5]));
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(message))
        .unwrap();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let status = response.headers().get("grpc-status").cloned();
    status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

#[test]
fn the_table_has_every_method_there_is() {
    let generated = include_str!("../../../api/src/proto/generated.rs");
    let methods: BTreeSet<&str> = generated
        .split('"')
        .filter(|text| text.starts_with("/muster.cluster.v1."))
        .collect();
    let table: BTreeSet<&str> = METHODS.iter().map(|(path, _)| *path).collect();
    assert_eq!(table, methods);
    assert_eq!(table.len(), METHODS.len());
}

#[test]
fn only_the_root_and_a_token_are_for_strangers() {
    let anyone: Vec<&str> = METHODS
        .iter()
        .filter(|(_, access)| *access == Access::Anyone)
        .map(|(path, _)| *path)
        .collect();
    assert_eq!(
        anyone,
        [
            "/muster.cluster.v1.Ca/GetRootCertificate",
            "/muster.cluster.v1.Ca/IssueCertificate"
        ]
    );
    assert!(!allows(
        "/muster.cluster.v1.Ca/Unheard",
        Some(NodeRole::Manager)
    ));
}

#[tokio::test]
async fn each_method_answers_those_it_is_for_and_nobody_else() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let root = swarm.identity("x", NodeRole::Worker).root;
    let expect = Expect::Manager;
    let channels = [
        (
            None,
            stranger_channel(&manager.address, Some(&root), &swarm.clock()).unwrap(),
        ),
        (
            Some(NodeRole::Worker),
            swarm
                .peers("w1", NodeRole::Worker)
                .channel(&manager.address, expect.clone()),
        ),
        (
            Some(NodeRole::Manager),
            swarm
                .peers("m2", NodeRole::Manager)
                .channel(&manager.address, expect),
        ),
    ];
    let refused = [Code::PermissionDenied, Code::Unauthenticated];
    for (role, mut channel) in channels {
        for (path, access) in METHODS {
            let wanted = match access {
                Access::Anyone => true,
                Access::Nodes => role.is_some(),
                Access::Managers => role == Some(NodeRole::Manager),
            };
            let code = call(&mut channel, path).await;
            // An empty token is as worthless as no certificate.
            if path.ends_with("/IssueCertificate") {
                assert_eq!(code, Code::Unauthenticated);
                continue;
            }
            assert_eq!(
                !refused.contains(&code),
                wanted,
                "{path} {role:?}: {code:?}"
            );
            let denied = if role.is_none() {
                refused[1]
            } else {
                refused[0]
            };
            assert!(wanted || code == denied, "{path} {role:?}: {code:?}");
        }
        for path in ["/muster.cluster.v1.Ca/Unheard", "/x", "/"] {
            assert!(refused.contains(&call(&mut channel, path).await), "{path}");
        }
    }
}

#[tokio::test]
async fn what_the_cluster_knows_of_a_node_counts_more_than_its_certificate() {
    struct Known;
    impl Roster for Known {
        fn standing(&self, node_id: &str) -> Standing {
            match node_id {
                "m2" => Standing::Member(NodeRole::Worker),
                "w2" => Standing::Member(NodeRole::Manager),
                "m3" => Standing::Removed,
                "m5" => Standing::Stranger,
                _ => Standing::Unknown,
            }
        }
    }
    let swarm = Swarm::new("c1");
    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: None,
    });
    let mut backends = answers.backends();
    backends.roster = Some(Arc::new(Known));
    let (_server, manager) = serve(&swarm.tls("m1", NodeRole::Manager), backends).await;
    let health = async |node_id: &str, role| {
        let answer = swarm.peers(node_id, role).health(&manager).await;
        answer.map_err(|refusal| refusal.to_string())
    };

    health("m4", NodeRole::Manager).await.unwrap();
    let path = "/muster.cluster.v1.Membership/Health";
    assert_eq!(
        health("m2", NodeRole::Manager).await.unwrap_err(),
        format!("worker m2 may not call {path}")
    );
    assert_eq!(
        health("w2", NodeRole::Worker).await.unwrap_err(),
        format!("worker w2 may not call {path}")
    );
    for (node_id, start) in [
        ("m3", "node m3 was removed from the swarm"),
        ("m5", "node m5 is not in the swarm"),
    ] {
        let out = swarm.peers(node_id, NodeRole::Manager);
        let refusal = out.available_blobs(&manager, vec![String::new()]).await;
        assert!(refusal.unwrap_err().to_string().starts_with(start));
    }
}

#[tokio::test]
async fn a_part_a_node_has_not_is_unavailable_until_it_has_it() {
    let swarm = Swarm::new("c1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shared = SharedBackends::new(Backends::default());
    let tls = swarm.tls("m1", NodeRole::Manager);
    let server = Server::start(listener, tls, shared.clone()).unwrap();
    let manager = ManagerAddress {
        node_id: "m1".into(),
        address: server.address().to_string(),
    };
    let peers = swarm.peers("m2", NodeRole::Manager);
    let refusal = peers.leave(&manager).await.unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Unavailable("this node is no manager now".into())
    );
    // That it is there it says all the same, and that nothing was asked of a leader.
    assert_eq!(peers.health(&manager).await.unwrap().raft_id, 0);
    let forwarded = peers.forward(&manager, proto::ForwardRequest::default());
    let refusal = forwarded.await.unwrap_err();
    assert_eq!(refusal, Refusal::NotLeader { leader: None });

    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: None,
    });
    shared.replace(answers.backends());
    assert_eq!(peers.health(&manager).await.unwrap().raft_id, 7);
    shared.update(|backends| backends.membership = None);
    assert_eq!(peers.health(&manager).await.unwrap().raft_id, 0);
}
