//! Streams, sizes, and certificates that are renewed under them.

use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::*;

/// A dispatcher whose sessions are fed by the test, and which tells when one was dropped.
struct Sessions {
    feed: parking_lot::Mutex<Option<mpsc::Receiver<proto::SessionMessage>>>,
    dropped: parking_lot::Mutex<Option<oneshot::Sender<()>>>,
}

#[async_trait]
impl DispatcherBackend for Sessions {
    async fn session(
        &self,
        _peer: &PeerIdentity,
        _request: proto::SessionRequest,
    ) -> Result<Messages<proto::SessionMessage>, Refusal> {
        let feed = self.feed.lock().take().unwrap();
        let guard = self.dropped.lock().take().unwrap();
        let stream = futures_util::stream::unfold((feed, guard), async |(mut feed, guard)| {
            let message = feed.recv().await?;
            Some((Ok(message), (feed, guard)))
        });
        Ok(stream.boxed())
    }

    async fn heartbeat(
        &self,
        _peer: &PeerIdentity,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Refusal> {
        Err(Refusal::UnknownSession(request.session_id))
    }

    async fn assignments(
        &self,
        _peer: &PeerIdentity,
        _request: proto::AssignmentsRequest,
    ) -> Result<Messages<proto::AssignmentsMessage>, Refusal> {
        Ok(nothing())
    }

    async fn update_task_status(
        &self,
        _peer: &PeerIdentity,
        _request: proto::UpdateTaskStatusRequest,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    async fn acknowledge(
        &self,
        _peer: &PeerIdentity,
        _request: proto::AckAssignmentsRequest,
    ) -> Result<(), Refusal> {
        Ok(())
    }
}

#[tokio::test]
async fn a_renewal_leaves_open_streams_alone_and_counts_for_the_next() {
    let swarm = Swarm::new("c1");
    let (feed, messages) = mpsc::channel(1);
    let (dropped, gone) = oneshot::channel();
    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: None,
    });
    let mut backends = answers.backends();
    backends.dispatcher = Some(Arc::new(Sessions {
        feed: parking_lot::Mutex::new(Some(messages)),
        dropped: parking_lot::Mutex::new(Some(dropped)),
    }));
    let server_tls = swarm.tls("m1", NodeRole::Manager);
    let (_server, manager) = serve(&server_tls, backends).await;
    let peers = swarm.peers("w1", NodeRole::Worker);
    let channel = || peers.channel(&manager.address, Expect::Manager);
    let client = || proto::dispatcher_client::DispatcherClient::new(channel());

    let request = proto::SessionRequest::default();
    let mut session = client().session(request).await.unwrap().into_inner();
    let message = proto::SessionMessage::default;
    feed.send(message()).await.unwrap();
    assert!(session.message().await.unwrap().is_some());

    // Both sides get new certificates, and time goes on until the old ones are worth nothing.
    let half = 45 * 24 * 3600;
    swarm.clock.0.fetch_add(half, Ordering::Relaxed);
    let key = NodeKey::generate().unwrap();
    let answer = peers
        .renew_certificate(&manager, key.request().unwrap())
        .await
        .unwrap();
    let certificate = crate::ca::NodeCertificate::from_pem(&answer.certificate).unwrap();
    let renewed = peers.tls().identity().renewed(certificate, key).unwrap();
    peers.tls().replace(renewed).unwrap();
    server_tls
        .replace(swarm.identity("m1", NodeRole::Manager))
        .unwrap();
    swarm.clock.0.fetch_add(half + 1, Ordering::Relaxed);

    // The old stream, then a new connection.
    feed.send(message()).await.unwrap();
    assert!(session.message().await.unwrap().is_some());
    let heartbeat = proto::HeartbeatRequest {
        session_id: "s1".into(),
    };
    let status = client().heartbeat(heartbeat).await.unwrap_err();
    assert_eq!(Refusal::from(status), Refusal::UnknownSession("s1".into()));

    // The backend learns when the other side is gone.
    drop(session);
    gone.await.unwrap_err();
}

#[tokio::test]
async fn messages_that_are_too_long_are_refused_and_the_connection_lives() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let peers = swarm.peers("m2", NodeRole::Manager);
    let request = |bytes: usize| proto::ForwardRequest {
        request: vec![b'x'; bytes].into(),
    };
    let refusal = peers
        .forward(&manager, request(limits::MESSAGE_BYTES))
        .await;
    assert!(matches!(refusal, Err(Refusal::TooMuch(_))), "{refusal:?}");

    let answer = peers.forward(&manager, request(1024)).await.unwrap();
    let Some(proto::forward_response::Outcome::Answer(answer)) = answer.outcome else {
        panic!("{answer:?}");
    };
    assert!(answer.starts_with(b"m2x"));
    assert_eq!(answer.len(), 1026);
}

#[tokio::test]
async fn a_blob_is_fetched_from_where_it_stopped() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let peers = swarm.peers("w2", NodeRole::Worker);
    let fetch = async |offset| {
        let pieces = peers.fetch_blob(&manager, "sha256:1".into(), offset).await;
        let pieces: Vec<_> = pieces.unwrap().collect().await;
        let data = |piece: Result<proto::BlobPiece, _>| piece.unwrap().data[0];
        pieces.into_iter().map(data).collect::<Vec<_>>()
    };
    assert_eq!(fetch(0).await, [0, 1, 2]);
    assert_eq!(fetch(2).await, [2]);

    let many = vec![String::from("sha256:1"); limits::BLOBS_PER_QUESTION * 2 + 1];
    let blobs = peers.available_blobs(&manager, many).await.unwrap();
    assert_eq!(blobs.len(), limits::BLOBS_PER_QUESTION * 2 + 1);
}

#[tokio::test]
async fn a_manager_that_does_not_lead_says_who_does() {
    let swarm = Swarm::new("c1");
    let (_server, manager) = swarm.manager("m1").await;
    let peers = swarm.peers("m2", NodeRole::Manager);
    let join = proto::JoinRequest::default();
    let Err(Refusal::NotLeader {
        leader: Some(leader),
    }) = peers.join(&manager, join).await
    else {
        panic!("the leader must be named");
    };
    assert_eq!(
        (leader.node_id.as_str(), leader.address.as_str()),
        ("m9", "10.9.9.9:2377")
    );
}

#[tokio::test]
async fn a_server_that_stops_closes_streams_that_are_open() {
    let swarm = Swarm::new("c1");
    let (_feed, messages) = mpsc::channel(1);
    let (dropped, gone) = oneshot::channel();
    let sessions = Sessions {
        feed: parking_lot::Mutex::new(Some(messages)),
        dropped: parking_lot::Mutex::new(Some(dropped)),
    };
    let backends = Backends {
        dispatcher: Some(Arc::new(sessions)),
        ..Backends::default()
    };
    let (server, manager) = serve(&swarm.tls("m1", NodeRole::Manager), backends).await;
    let peers = swarm.peers("w1", NodeRole::Worker);
    let channel = peers.channel(&manager.address, Expect::Manager);
    let mut client = proto::dispatcher_client::DispatcherClient::new(channel);
    let request = proto::SessionRequest::default();
    let mut session = client.session(request).await.unwrap().into_inner();
    server.stop().await;
    assert!(session.message().await.is_err());
    gone.await.unwrap_err();
}

/// Stands between, and passes nothing on any more once `cut` is true: no reset, no end, just silence.
async fn wire(listener: TcpListener, to: String, cut: watch::Receiver<bool>) {
    let (near, _) = listener.accept().await.unwrap();
    let far = TcpStream::connect(to).await.unwrap();
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (near.into_split(), far.into_split());
    let pass = async |read: &mut tokio::net::tcp::OwnedReadHalf,
                      write: &mut tokio::net::tcp::OwnedWriteHalf| {
        let mut bytes = vec![0; 4096];
        loop {
            let read = tokio::io::AsyncReadExt::read(read, &mut bytes)
                .await
                .unwrap();
            if *cut.borrow() {
                return std::future::pending::<()>().await;
            }
            write.write_all(&bytes[..read]).await.unwrap();
        }
    };
    tokio::join!(
        pass(&mut near_read, &mut far_write),
        pass(&mut far_read, &mut near_write)
    );
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_within_two_seconds() {
    let swarm = Swarm::new("c1");
    let (_feed, messages) = mpsc::channel(1);
    let (dropped, _gone) = oneshot::channel();
    let sessions = Sessions {
        feed: parking_lot::Mutex::new(Some(messages)),
        dropped: parking_lot::Mutex::new(Some(dropped)),
    };
    let backends = Backends {
        dispatcher: Some(Arc::new(sessions)),
        ..Backends::default()
    };
    let (_server, manager) = serve(&swarm.tls("m1", NodeRole::Manager), backends).await;
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = between.local_addr().unwrap().to_string();
    let (cut, watched) = watch::channel(false);
    let wire = tokio::spawn(wire(between, manager.address, watched));

    let peers = swarm.peers("w1", NodeRole::Worker);
    let channel = peers.channel(&address, Expect::Manager);
    let mut client = proto::dispatcher_client::DispatcherClient::new(channel);
    let request = proto::SessionRequest::default();
    let mut session = client.session(request).await.unwrap().into_inner();
    cut.send(true).unwrap();
    let since = Instant::now();
    let status = session.message().await.unwrap_err();
    assert!(
        since.elapsed() < Duration::from_millis(2500),
        "{:?}",
        since.elapsed()
    );
    assert!(matches!(
        Refusal::from(status),
        Refusal::Unavailable(_) | Refusal::Internal(_)
    ));
    wire.abort();
}
