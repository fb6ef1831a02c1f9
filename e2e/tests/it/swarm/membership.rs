//! Who is in the swarm, and as what.

use e2e::Swarm;
use e2e::swarm::eventually;

use super::{SOON, converged, create_web, running};

#[test]
fn nodes_are_drained_promoted_demoted_and_removed() {
    let mut swarm = Swarm::of(3, 1);
    create_web(&swarm, 4, &[]);
    converged(&swarm, 1, "web", "4/4");
    let worker = swarm.node_id(4);

    swarm
        .host(2)
        .muster(&["node", "update", "--availability", "drain", &worker])
        .ok();
    eventually(SOON, "a drained node is empty", || {
        swarm.containers(4).is_empty()
    });
    converged(&swarm, 3, "web", "4/4");

    // The worker becomes a manager, then the leader itself a worker.
    swarm.host(1).muster(&["node", "promote", &worker]).ok();
    eventually(SOON, "a promoted node manages", || {
        swarm.host(4).muster(&["node", "ls"]).code == 0
    });
    let leader = swarm.leader(2).expect("there is a leader");
    let demoted = swarm.node_id(leader);
    let asked = if leader == 4 { 3 } else { 4 };
    swarm.host(asked).muster(&["node", "demote", &demoted]).ok();
    eventually(SOON, "a demoted leader manages no more", || {
        swarm.host(leader).muster(&["node", "ls"]).code != 0
    });
    eventually(SOON, "another leads", || {
        swarm.leader(asked).is_some_and(|now| now != leader)
    });
    converged(&swarm, asked, "web", "4/4");

    // It leaves and is removed; its tasks are elsewhere.
    swarm
        .host(asked)
        .muster(&["node", "rm", &demoted])
        .fails(1, "is not down");
    swarm.host(leader).muster(&["swarm", "leave"]).ok();
    eventually(SOON, "a node that left is down", || {
        let listed = swarm.host(asked).muster(&[
            "node",
            "inspect",
            "--format",
            "{{.Status.State}}",
            &demoted,
        ]);
        listed.ok().trim() == "down"
    });
    swarm.host(asked).muster(&["node", "rm", &demoted]).ok();
    swarm
        .host(asked)
        .muster(&["node", "update", "--availability", "active", &worker])
        .ok();
    converged(&swarm, asked, "web", "4/4");
    assert!(running(&swarm).iter().all(|(number, _)| *number != leader));
    assert_eq!(
        swarm
            .host_mut(leader)
            .muster(&["info", "--format", "{{.Swarm.LocalNodeState}}"])
            .ok(),
        "inactive"
    );
    swarm.finish();
}

#[test]
fn only_good_tokens_open_a_swarm_and_a_rotated_one_is_none() {
    let swarm = Swarm::apart(2);
    let (one, two) = (swarm.host(1), swarm.host(2));
    one.muster(&["swarm", "init", "--advertise-addr", "192.0.2.1"])
        .ok();
    one.muster(&["swarm", "init", "--advertise-addr", "192.0.2.1"])
        .fails(1, "already part of a swarm");
    let old = one
        .muster(&["swarm", "join-token", "--quiet", "worker"])
        .ok();
    let new = one
        .muster(&["swarm", "join-token", "--rotate", "--quiet", "worker"])
        .ok();
    assert_ne!(old, new);
    let join = |token: &str| {
        two.muster(&[
            "swarm",
            "join",
            "--token",
            token,
            "--advertise-addr",
            "192.0.2.2",
            "192.0.2.1",
        ])
    };
    join("SWMTKN-1-nonsense").fails(1, "invalid join token");
    join(&old).fails(1, "join token is not valid");
    // Another swarm's root.
    let (start, secret) = new.rsplit_once('-').unwrap();
    let mut other = start.to_owned();
    let last = if other.ends_with('0') { '1' } else { '0' };
    other.pop();
    other.push(last);
    join(&format!("{other}-{secret}")).fails(1, "not the one the token names");
    two.muster(&["node", "ls"])
        .fails(1, "This node is not a swarm manager");
    assert!(!two.path("data/swarm/node.json").exists());
    join(&new).ok();
    two.muster(&["node", "ls"]).fails(
        1,
        "Worker nodes can't be used to view or modify cluster state",
    );
    one.muster(&["swarm", "leave"])
        .fails(1, "participating as a manager");
    swarm.finish();
}
