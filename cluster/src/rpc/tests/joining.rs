//! From a token to a node, and everything that may be wrong with it.

use super::super::joining::JoinError;
use super::*;
use crate::ca::{CaError, IdentityStore, JoinToken, join_token};

fn token(swarm: &Swarm, role: NodeRole) -> JoinToken {
    join_token(&swarm.cluster.lock(), role).unwrap()
}

/// The whole way.
async fn join(
    swarm: &Swarm,
    address: &str,
    token: &JoinToken,
    key: NodeKey,
) -> Result<Identity, JoinError> {
    let root = download_root(address, token, &swarm.clock()).await?;
    request_identity(address, root, token, key, "active", &swarm.clock()).await
}

fn refused(result: Result<Identity, JoinError>) -> Refusal {
    match result {
        Err(JoinError::Refused { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_makes_a_node_of_its_role() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    for role in [NodeRole::Worker, NodeRole::Manager] {
        let folder = tempfile::tempdir().unwrap();
        let store = IdentityStore::new(folder.path().to_owned());
        let token = token(&swarm, role);
        let key = store.pending_key().unwrap();
        let identity = join(&swarm, &manager.address, &token, key).await.unwrap();
        assert_eq!(identity.certificate.subject.role, role);
        assert_eq!(identity.certificate.subject.cluster_id, "c1");

        // The answer got lost: the same node asks again.
        let key = store.pending_key().unwrap();
        let again = join(&swarm, &manager.address, &token, key).await.unwrap();
        assert_eq!(again.certificate.subject, identity.certificate.subject);

        store.save(&again).unwrap();
        let loaded = store.load().unwrap().unwrap();
        let peers = Peers::new(NodeTls::new(loaded, swarm.clock()).unwrap());
        peers.available_blobs(&manager, Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn worthless_tokens_let_nobody_in() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let good = token(&swarm, NodeRole::Worker);
    let key = || NodeKey::generate().unwrap();

    let mut wrong = good.clone();
    wrong.secret = TokenSecret::generate(&mut IdSource::seeded(99));
    let refusal = refused(join(&swarm, &manager.address, &wrong, key()).await);
    assert!(matches!(refusal, Refusal::Unauthenticated(_)));
    assert!(
        refusal.to_string().contains("swarm join-token"),
        "{refusal}"
    );

    let rotated = TokenSecret::generate(&mut IdSource::seeded(7));
    swarm.cluster.lock().root_ca.tokens.worker = rotated.as_str().to_owned();
    let refusal = refused(join(&swarm, &manager.address, &good, key()).await);
    assert!(matches!(refusal, Refusal::Unauthenticated(_)));
    let new = token(&swarm, NodeRole::Worker);
    join(&swarm, &manager.address, &new, key()).await.unwrap();
}

#[tokio::test]
async fn a_token_of_another_cluster_stops_before_it_is_told_to_anyone() {
    let (swarm, other) = (Swarm::new("c1"), Swarm::new("c2"));
    let (_server, manager) = swarm.manager("m1").await;
    let foreign = token(&other, NodeRole::Worker);
    let result = download_root(&manager.address, &foreign, &swarm.clock()).await;
    assert!(matches!(
        result,
        Err(JoinError::Ca(CaError::WrongRoot { .. }))
    ));

    // Someone in between who shows the right root but has no certificate of it.
    let root = other.identity("x", NodeRole::Worker).root;
    let key = NodeKey::generate().unwrap();
    let clock = swarm.clock();
    let result = request_identity(&manager.address, root, &foreign, key, "", &clock).await;
    assert!(matches!(
        refused(result),
        Refusal::Unavailable(_) | Refusal::Unreached(_)
    ));

    // The manager does not take it either.
    let root = swarm.identity("x", NodeRole::Worker).root;
    let key = NodeKey::generate().unwrap();
    let result = request_identity(&manager.address, root, &foreign, key, "", &clock).await;
    assert!(refused(result).to_string().contains("of another swarm"));
}

#[tokio::test]
async fn strangers_cannot_send_much() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let root = swarm.identity("x", NodeRole::Worker).root;
    let channel =
        super::super::peers::stranger_channel(&manager.address, Some(&root), &swarm.clock())
            .unwrap();
    let mut client = proto::ca_client::CaClient::new(channel);
    let ask = |csr: Vec<u8>| proto::IssueCertificateRequest {
        csr: csr.into(),
        token: token(&swarm, NodeRole::Worker).to_string(),
        availability: String::new(),
    };
    let status = client
        .issue_certificate(ask(vec![0; limits::ANONYMOUS_BYTES]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    let status = client
        .issue_certificate(ask(vec![0; 5000]))
        .await
        .unwrap_err();
    assert!(
        status.message().contains("at most 4096 are allowed"),
        "{status:?}"
    );

    let mut bad = ask(NodeKey::generate().unwrap().request().unwrap());
    bad.availability = "sometimes".into();
    let status = client.issue_certificate(bad).await.unwrap_err();
    assert!(
        status.message().contains("\"sometimes\" is unknown"),
        "{status:?}"
    );
}
