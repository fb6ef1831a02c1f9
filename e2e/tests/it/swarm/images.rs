//! Images and files reach the nodes that need them.

use e2e::Swarm;

use super::{converged, running};

#[test]
fn a_node_without_the_image_gets_it_from_one_that_has_it() {
    let swarm = Swarm::of(1, 2);
    let image = |number: usize| {
        let listed = swarm
            .host(number)
            .muster(&["images", "--quiet", "--no-trunc"]);
        listed.ok()
    };
    assert_eq!((image(2), image(3)), (String::new(), String::new()));
    swarm
        .host(1)
        .muster(&[
            "service", "create", "--name", "app", "--mode", "global", "busybox", "sleep", "1000",
        ])
        .ok();
    assert_eq!(running(&swarm).len(), 3);
    assert_eq!(image(2), image(1));
    assert_eq!(image(3), image(1));
    swarm.finish();
}

#[test]
fn an_image_nobody_has_is_said_to_be_missing() {
    let swarm = Swarm::of(1, 1);
    let host = swarm.host(1);
    host.muster(&[
        "service",
        "create",
        "--detach",
        "--name",
        "app",
        "--restart-condition",
        "none",
        "localhost:1/nothing",
    ])
    .ok();
    e2e::swarm::eventually(super::SOON, "the reason is shown", || {
        let listed = host.muster(&[
            "service",
            "ps",
            "--no-trunc",
            "--format",
            "{{.Error}}",
            "app",
        ]);
        listed.stdout.contains("No such image: localhost:1/nothing")
    });
    swarm.finish();
}

#[test]
fn secrets_are_files_in_memory_and_gone_with_their_task() {
    let swarm = Swarm::of(1, 1);
    let host = swarm.host(1);
    let file = host.write("password", "correct horse");
    host.muster(&["secret", "create", "password", file.to_str().unwrap()])
        .ok();
    assert!(
        !host
            .muster(&["secret", "inspect", "password"])
            .ok()
            .contains("horse")
    );
    host.muster(&[
        "service",
        "create",
        "--name",
        "app",
        "--constraint",
        "node.role==worker",
        "--secret",
        "source=password,target=pw,uid=7,mode=0400",
        "--init",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    converged(&swarm, 1, "app", "1/1");
    let (number, name) = running(&swarm).remove(0);
    assert_eq!(number, 2);
    let seen = swarm.host(2).muster(&[
        "exec",
        &name,
        "sh",
        "-c",
        "cat /run/secrets/pw; stat -c ' %u %a' /run/secrets/pw; grep /run/secrets /proc/mounts",
    ]);
    let seen = seen.ok();
    assert!(seen.starts_with("correct horse 7 400"), "{seen}");
    assert!(seen.contains("tmpfs"), "{seen}");
    let files = swarm.host(2).path("run/swarm/files");
    assert_eq!(files.read_dir().unwrap().count(), 1);
    host.muster(&["secret", "rm", "password"])
        .fails(1, "in use by the following service: app");
    host.muster(&["service", "rm", "app"]).ok();
    e2e::swarm::eventually(super::SOON, "its files are gone", || {
        files.read_dir().map_or(0, Iterator::count) == 0
    });
    host.muster(&["secret", "rm", "password"]).ok();
    // No disk of the worker has ever seen it.
    let found = swarm.host(2).tool(
        "grep",
        &[
            "-rl",
            "correct horse",
            swarm.host(2).path("data").to_str().unwrap(),
        ],
    );
    assert_eq!(found.stdout, "");
    swarm.finish();
}
