//! Services change while clients ask.

use e2e::Swarm;
use e2e::swarm::{Load, eventually};

use super::{SOON, ask, converged, create_web, published};

fn under_load(order: &str) -> (Swarm, Load) {
    let swarm = Swarm::of(3, 1);
    create_web(
        &swarm,
        3,
        &[
            "--update-order",
            order,
            "--update-parallelism",
            "1",
            "--update-monitor",
            "200ms",
        ],
    );
    converged(&swarm, 1, "web", "3/3");
    for number in 1..=4 {
        eventually(SOON, "it answers", || {
            ask(&swarm, published(number)).is_ok()
        });
    }
    let load = swarm.load(&[published(1), published(2), published(4)], "/");
    (swarm, load)
}

fn nothing_failed(load: Load) {
    let tally = load.stop();
    assert!(tally.answered > 100, "{}", tally.answered);
    assert!(
        tally.failed.is_empty(),
        "{} answered, failed: {:?}",
        tally.answered,
        tally.failed
    );
}

#[test]
fn stop_first_loses_no_request() {
    let (swarm, load) = under_load("stop-first");
    swarm
        .host(2)
        .muster(&["service", "update", "--env-add", "VERSION=2", "web"])
        .ok();
    nothing_failed(load);
    swarm.finish();
}

#[test]
fn start_first_loses_no_request_though_the_leader_dies() {
    let (mut swarm, load) = under_load("start-first");
    swarm
        .host(2)
        .muster(&[
            "service",
            "update",
            "--detach",
            "--env-add",
            "VERSION=2",
            "web",
        ])
        .ok();
    let leader = swarm.leader(2).expect("there is a leader");
    swarm.host_mut(leader).kill_daemon();
    let asked = if leader == 2 { 3 } else { 2 };
    eventually(SOON, "another one leads", || {
        swarm.leader(asked).is_some_and(|new| new != leader)
    });
    // As whoever supervises it does. A host whose daemon stays away goes on balancing to what it last knew, and is not waited
    // for once it counts as down.
    swarm.host_mut(leader).start_daemon(&[]);
    eventually(SOON, "the update is completed", || {
        let state = swarm.host(asked).muster(&[
            "service",
            "inspect",
            "--format",
            "{{.UpdateStatus.State}}",
            "web",
        ]);
        state.stdout.trim() == "completed"
    });
    nothing_failed(load);
    swarm.finish();
}

#[test]
fn an_update_that_fails_is_rolled_back_and_loses_no_request() {
    let (swarm, load) = under_load("start-first");
    let failed = swarm.host(1).muster(&[
        "service",
        "update",
        "--update-failure-action",
        "rollback",
        "--args",
        "false",
        "web",
    ]);
    assert_ne!(failed.code, 0, "{failed}");
    eventually(SOON, "it is rolled back", || {
        let state = swarm.host(2).muster(&[
            "service",
            "inspect",
            "--format",
            "{{.UpdateStatus.State}}",
            "web",
        ]);
        state.stdout.trim() == "rollback_completed"
    });
    converged(&swarm, 3, "web", "3/3");
    nothing_failed(load);
    swarm.finish();
}
