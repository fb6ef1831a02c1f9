//! Certificates that renew themselves.

use super::*;
use crate::ca::IdentityStore;

#[tokio::test]
async fn a_certificate_is_renewed_in_time_saved_and_used() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let folder = tempfile::tempdir().unwrap();
    let store = IdentityStore::new(folder.path().to_owned());
    let peers = swarm.peers("w1", NodeRole::Worker);
    let old = peers.tls().identity();
    // Past four fifths of its life: at once.
    swarm.clock.0.fetch_add(80 * 24 * 3600, Ordering::Relaxed);
    let mut generation = peers.tls().generation();
    let gone = ManagerAddress {
        node_id: "m0".into(),
        address: "127.0.0.1:1".into(),
    };
    let renewal = Renewal::start(peers.clone(), store.clone(), vec![gone, manager.clone()]);
    generation.changed().await.unwrap();

    let new = peers.tls().identity();
    assert!(new.certificate.not_before > old.certificate.not_before);
    assert_ne!(new.certificate.public_key, old.certificate.public_key);
    let saved = store.load().unwrap().unwrap();
    assert_eq!(saved.certificate, new.certificate);
    assert_eq!(saved.raft_key, old.raft_key);
    peers.available_blobs(&manager, Vec::new()).await.unwrap();

    // Asked for, because the role changed.
    renewal.renew_now();
    generation.changed().await.unwrap();
    assert_ne!(
        peers.tls().identity().certificate.public_key,
        new.certificate.public_key
    );
}
