//! Parts of the swarm fail.

use std::time::Duration;

use e2e::Swarm;
use e2e::swarm::eventually;

use super::{SOON, ask, converged, create_web, published, running};

#[test]
fn the_leader_is_killed_and_comes_back() {
    let mut swarm = Swarm::of(3, 1);
    create_web(&swarm, 4, &[]);
    converged(&swarm, 2, "web", "4/4");
    let before = running(&swarm);
    let leader = swarm.leader(2).expect("there is a leader");
    let other = if leader == 2 { 3 } else { 2 };
    swarm.host_mut(leader).kill_daemon();
    eventually(SOON, "writes are accepted again", || {
        swarm
            .host(other)
            .muster(&["service", "update", "--label-add", "a=b", "--detach", "web"])
            .code
            == 0
    });
    swarm.host_mut(leader).start_daemon(&[]);
    eventually(SOON, "it is a manager again", || {
        swarm.host(leader).muster(&["node", "ls"]).code == 0
    });
    converged(&swarm, leader, "web", "4/4");
    // Nothing was started anew for it where nothing was lost: its containers went on, and it was back soon.
    let kept = before
        .iter()
        .filter(|(number, _)| *number != leader)
        .all(|one| running(&swarm).contains(one));
    assert!(kept, "{before:?} {:?}", running(&swarm));
    swarm.finish();
}

#[test]
fn a_dead_workers_tasks_are_replaced_and_a_short_silence_moves_nothing() {
    let mut swarm = Swarm::of(1, 2);
    create_web(&swarm, 3, &["--constraint", "node.role==worker"]);
    converged(&swarm, 1, "web", "3/3");
    let before = running(&swarm);
    swarm.freeze(3);
    std::thread::sleep(Duration::from_secs(3));
    swarm.thaw(3);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(running(&swarm), before);

    let lost = swarm.containers(3).len();
    assert!(lost > 0);
    swarm.host_mut(3).kill_daemon();
    eventually(SOON, "host 2 has them all", || {
        swarm.containers(2).len() == 3
    });
    swarm.host_mut(3).start_daemon(&[]);
    // What was replaced ends where it went on.
    eventually(SOON, "three run in all", || running(&swarm).len() == 3);
    converged(&swarm, 1, "web", "3/3");
    swarm.finish();
}

#[test]
fn a_host_that_is_cut_off_is_taken_back_when_it_is_there_again() {
    let swarm = Swarm::of(3, 1);
    create_web(&swarm, 4, &[]);
    converged(&swarm, 1, "web", "4/4");
    swarm.cut_off(4);
    eventually(SOON, "the others replace its task", || {
        (1..=3)
            .map(|number| swarm.containers(number).len())
            .sum::<usize>()
            == 4
    });
    // Containers of a node without managers go on.
    assert_eq!(swarm.containers(4).len(), 1);
    swarm.reconnect(4);
    eventually(SOON, "four run in all", || running(&swarm).len() == 4);
    eventually(SOON, "its port answers", || {
        ask(&swarm, published(4)).is_ok()
    });
    swarm.finish();
}

#[test]
fn everything_is_killed_at_once_and_goes_on() {
    let mut swarm = Swarm::of(3, 1);
    create_web(&swarm, 4, &[]);
    converged(&swarm, 1, "web", "4/4");
    let before = running(&swarm);
    for number in 1..=4 {
        swarm.host_mut(number).kill_daemon();
    }
    for number in 1..=4 {
        swarm.host_mut(number).start_daemon(&[]);
    }
    eventually(SOON, "there is a leader", || swarm.leader(1).is_some());
    converged(&swarm, 2, "web", "4/4");
    assert_eq!(running(&swarm), before, "containers outlive their daemons");
    eventually(SOON, "it answers", || ask(&swarm, published(4)).is_ok());
    swarm.finish();
}

#[test]
fn without_a_majority_nothing_is_accepted_and_with_it_again_everything_is_there() {
    let mut swarm = Swarm::of(3, 0);
    create_web(&swarm, 1, &[]);
    swarm.host_mut(2).kill_daemon();
    swarm.host_mut(3).kill_daemon();
    eventually(SOON, "it says that there is no leader", || {
        let refused = swarm
            .host(1)
            .muster(&["service", "scale", "--detach", "web=2"]);
        refused.code != 0 && refused.stderr.contains("does not have a leader")
    });
    swarm.host_mut(2).start_daemon(&[]);
    eventually(SOON, "two are a majority", || {
        swarm
            .host(1)
            .muster(&["service", "scale", "--detach", "web=2"])
            .code
            == 0
    });
    converged(&swarm, 2, "web", "2/2");
    swarm.host_mut(3).start_daemon(&[]);
    swarm.finish();
}

#[test]
fn a_leader_that_hangs_is_replaced_and_follows_when_it_goes_on() {
    let swarm = Swarm::of(3, 0);
    create_web(&swarm, 3, &[]);
    converged(&swarm, 1, "web", "3/3");
    let old = swarm.leader(1).expect("there is a leader");
    let asked = if old == 1 { 2 } else { 1 };
    swarm.freeze(old);
    eventually(SOON, "the others go on without it", || {
        let labelled = ["service", "update", "--detach", "--label-add", "a=b", "web"];
        swarm.host(asked).muster(&labelled).code == 0
    });
    swarm.thaw(old);
    eventually(SOON, "it knows the new leader", || {
        swarm.leader(old).is_some_and(|leader| leader != old)
    });
    let read = [
        "service",
        "inspect",
        "--format",
        "{{index .Spec.Labels \"a\"}}",
        "web",
    ];
    assert_eq!(swarm.host(old).muster(&read).ok(), "b");

    // A follower that hangs is not missed.
    let follower = if old == 3 { 2 } else { 3 };
    let leader = swarm.leader(old).expect("there is a leader");
    let follower = if follower == leader { old } else { follower };
    let asked = leader;
    swarm.freeze(follower);
    let labelled = ["service", "update", "--detach", "--label-add", "a=c", "web"];
    swarm.host(asked).muster(&labelled).ok();
    swarm.thaw(follower);
    eventually(SOON, "it catches up", || {
        swarm.host(follower).muster(&read).stdout.trim() == "c"
    });
    converged(&swarm, asked, "web", "3/3");
    swarm.finish();
}
