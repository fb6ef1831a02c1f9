//! Raft's links: order, and what happens to members that are not there.

use tokio::runtime::Handle;

use super::*;

fn member(raft_id: u64, node: &ManagerAddress) -> proto::Member {
    proto::Member {
        raft_id,
        node_id: node.node_id.clone(),
        address: node.address.clone(),
    }
}

/// A transport, and the members it could not reach.
fn transport(swarm: &Swarm) -> (RaftTransport, mpsc::UnboundedReceiver<u64>) {
    let (lost, unreachable) = mpsc::unbounded_channel();
    let report: Unreachable = Arc::new(move |id| {
        let _ = lost.send(id);
    });
    let peers = swarm.peers("m2", NodeRole::Manager);
    (
        RaftTransport::new(2, peers, Handle::current(), report),
        unreachable,
    )
}

/// A manager that shows what Raft sends it.
async fn listener(
    swarm: &Arc<Swarm>,
    tls: &Arc<NodeTls>,
) -> (
    Server,
    ManagerAddress,
    mpsc::Receiver<(PeerIdentity, proto::RaftMessages)>,
) {
    let (batches, received) = mpsc::channel(1);
    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: Some(batches),
    });
    let (server, address) = serve(tls, answers.backends()).await;
    (server, address, received)
}

#[tokio::test]
async fn messages_arrive_in_the_order_sent() {
    let swarm = Swarm::new("c1");
    let (_server, manager, mut received) =
        listener(&swarm, &swarm.tls("m1", NodeRole::Manager)).await;
    let (mut transport, _lost) = transport(&swarm);
    transport.set_members([member(1, &manager)]);
    for number in 0..1000_u32 {
        transport.send(1, number.to_be_bytes().to_vec());
    }
    let mut next = 0_u32;
    while next < 1000 {
        let (peer, batch) = received.recv().await.unwrap();
        assert_eq!((batch.from, batch.to), (2, 1));
        assert_eq!(peer.node_id, "m2");
        for message in batch.messages {
            assert_eq!(&message[..], next.to_be_bytes());
            next += 1;
        }
    }
}

#[tokio::test]
async fn members_that_are_not_there_are_reported_and_found_again() {
    let swarm = Swarm::new("c1");
    let tls = swarm.tls("m1", NodeRole::Manager);
    let (server, manager, _received) = listener(&swarm, &tls).await;
    server.stop().await;
    let (mut transport, mut lost) = transport(&swarm);

    // Not a member at all.
    transport.send(9, &b"x"[..]);
    assert_eq!(lost.recv().await, Some(9));
    // A member that does not listen.
    transport.set_members([member(1, &manager)]);
    transport.send(1, &b"x"[..]);
    assert_eq!(lost.recv().await, Some(1));

    // It comes back; until then messages are lost, as Raft expects.
    let listener = TcpListener::bind(&manager.address).await.unwrap();
    let (batches, mut received) = mpsc::channel(1);
    let answers = Arc::new(Answers {
        swarm: swarm.clone(),
        batches: Some(batches),
    });
    let shared = SharedBackends::new(answers.backends());
    let _server = Server::start(listener, tls, shared).unwrap();
    let heartbeat = async {
        loop {
            transport.send(1, &b"y"[..]);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = heartbeat => unreachable!(),
        batch = received.recv() => assert_eq!(&batch.unwrap().1.messages[0][..], b"y"),
    }

    // No longer a member.
    transport.set_members([]);
    while lost.try_recv().is_ok() {}
    transport.send(1, &b"z"[..]);
    assert_eq!(lost.recv().await, Some(1));
}

#[tokio::test]
async fn a_member_that_does_not_read_costs_a_bounded_queue() {
    let swarm = Swarm::new("c1");
    let (_server, manager, _received) = listener(&swarm, &swarm.tls("m1", NodeRole::Manager)).await;
    let (mut transport, mut lost) = transport(&swarm);
    transport.set_members([member(1, &manager)]);
    let message = bytes::Bytes::from(vec![0; 1024 * 1024]);
    let mut sent = 0;
    let report = loop {
        transport.send(1, message.clone());
        sent += 1;
        tokio::task::yield_now().await;
        if let Ok(report) = lost.try_recv() {
            break report;
        }
        assert!(sent < 200, "nothing was ever dropped");
    };
    assert_eq!(report, 1);
    assert!(sent * message.len() > limits::RAFT_QUEUE_BYTES);
}
