//! Who gets through the handshake, and who does not.

use std::io;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const DAY: u64 = 24 * 3600;

fn unavailable(answer: Result<proto::HealthResponse, Refusal>) -> String {
    match answer {
        Err(Refusal::Unavailable(reason) | Refusal::Unreached(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// A client without a certificate that trusts anyone, and the first that the server says to it.
async fn shake(
    address: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> io::Result<(TlsStream<TcpStream>, Vec<u8>)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(crate::rpc::tls::any_server())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("swarm-manager").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    // An HTTP/2 server speaks first.
    let mut first = vec![0; 9];
    stream.read_exact(&mut first).await?;
    Ok((stream, first))
}

#[tokio::test]
async fn nodes_of_one_cluster_understand_each_other() {
    let swarm = Swarm::new("c1");
    let (server, manager) = swarm.manager("m1").await;
    let peers = swarm.peers("m2", NodeRole::Manager);
    assert_eq!(peers.health(&manager).await.unwrap().raft_id, 7);
    server.stop().await;
    unavailable(peers.health(&manager).await);
}

#[tokio::test]
async fn without_tls_1_3_and_http_2_nothing_is_answered() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let address = &manager.address;

    // The control: what is refused below is refused for its version or protocol alone.
    let tls13 = &[&rustls::version::TLS13];
    let (_, settings) = shake(address, tls13, &[b"h2"]).await.unwrap();
    assert_eq!(settings[3], 4, "an HTTP/2 settings frame");

    let error = shake(address, &[&rustls::version::TLS12], &[b"h2"]).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let error = shake(address, tls13, &[b"http/1.1"]).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    shake(address, tls13, &[]).await.unwrap_err();

    let mut socket = TcpStream::connect(address).await.unwrap();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = socket.read_to_end(&mut answer).await;
    let alert = 21;
    assert!(answer.is_empty() || answer[0] == alert, "{answer:?}");
    assert!(answer.len() < 16);
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    // Its clock stands still while the server's moves on.
    let frozen = Arc::new(TestClock(AtomicU64::new(START)));
    let identity = swarm.identity("m2", NodeRole::Manager);
    let slow = Peers::new(NodeTls::new(identity, frozen).unwrap());
    let fast = swarm.peers("m3", NodeRole::Manager);
    swarm.clock.0.store(START + 90 * DAY + 1, Ordering::Relaxed);

    let reason = unavailable(slow.health(&manager).await);
    assert!(reason.to_lowercase().contains("expired"), "{reason}");
    let reason = unavailable(fast.health(&manager).await);
    assert!(reason.to_lowercase().contains("expired"), "{reason}");

    // Within the backdating, a clock that is behind does no harm.
    swarm.clock.0.store(START - 3599, Ordering::Relaxed);
    assert_eq!(fast.health(&manager).await.unwrap().raft_id, 7);
    swarm.clock.0.store(START - 3601, Ordering::Relaxed);
    fast.forget(&manager.address);
    let reason = unavailable(fast.health(&manager).await);
    assert!(reason.contains("not valid yet"), "{reason}");
}

#[tokio::test]
async fn certificates_of_another_cluster_are_refused() {
    let (swarm, other) = (Swarm::new("c1"), Swarm::new("c1"));
    let (_server, manager) = swarm.manager("m1").await;
    let reason = unavailable(other.peers("m2", NodeRole::Manager).health(&manager).await);
    assert!(
        reason.contains("UnknownIssuer") || reason.contains("BadSignature"),
        "{reason}"
    );

    // The same root, but another cluster's name in the certificate.
    swarm.cluster.lock().id = "c2".to_owned();
    let stranger = swarm.peers("m2", NodeRole::Manager);
    let reason = unavailable(stranger.health(&manager).await);
    assert!(
        reason.contains("node m1 belongs to another cluster (c1)"),
        "{reason}"
    );

    // And as the server sees it: a client that does not mind.
    let (config, name) = crate::rpc::tls::careless(&stranger.tls().identity());
    let socket = TcpStream::connect(&manager.address).await.unwrap();
    let mut stream = TlsConnector::from(config)
        .connect(name, socket)
        .await
        .unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err().to_string();
    assert!(error.contains("alert"), "{error}");
}

#[tokio::test]
async fn a_client_insists_on_the_node_it_wants() {
    let swarm = Swarm::new("c1");
    let worker = swarm.tls("w1", NodeRole::Worker);
    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: None,
    });
    let (_server, worker) = serve(&worker, answers.backends()).await;
    let peers = swarm.peers("m2", NodeRole::Manager);

    let refused = async |node_id: &str, want: &str| {
        let address = ManagerAddress {
            node_id: node_id.to_owned(),
            address: worker.address.clone(),
        };
        let reason = unavailable(peers.health(&address).await);
        assert!(reason.contains(want), "{reason}");
    };
    // Any manager; a manager of another name; a manager of this name.
    refused("", "not valid for name").await;
    refused("m1", "not valid for name").await;
    refused("w1", "manager w1 is wanted, this is node w1").await;

    let blobs = peers.available_blobs(&worker, vec!["sha256:1".into()]);
    assert_eq!(blobs.await.unwrap()[0].digest, "sha256:1");
}

#[tokio::test]
async fn strangers_that_stay_keep_no_node_out() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let tls13 = &[&rustls::version::TLS13];
    let mut strangers = Vec::new();
    for _ in 0..limits::ANONYMOUS_CONNECTIONS {
        strangers.push(shake(&manager.address, tls13, &[b"h2"]).await.unwrap());
    }
    shake(&manager.address, tls13, &[b"h2"]).await.unwrap_err();
    let peers = swarm.peers("w1", NodeRole::Worker);
    peers
        .available_blobs(&manager, vec!["sha256:1".into()])
        .await
        .unwrap();
}
