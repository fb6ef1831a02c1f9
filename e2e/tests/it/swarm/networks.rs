//! What tasks and clients see of the swarm's networks.

use e2e::Swarm;
use e2e::swarm::eventually;

use super::{SOON, ask, converged, create_web, published, published6, running};

#[test]
fn every_node_answers_on_a_published_port_and_tasks_see_who_asked() {
    let swarm = Swarm::of(3, 2);
    // Tasks on two of five nodes.
    create_web(&swarm, 2, &["--constraint", "node.role==worker"]);
    converged(&swarm, 2, "web", "2/2");
    for number in 1..=5 {
        for target in [published(number), published6(number)] {
            eventually(SOON, &format!("{target} answers"), || {
                ask(&swarm, target).is_ok()
            });
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for (number, name) in running(&swarm) {
        let log = swarm.host(number).muster(&["logs", &name]);
        let lines = [log.stdout, log.stderr].concat();
        // "[::ffff:192.0.2.100]:40123: response:200"
        let clients = lines.lines().filter_map(|line| {
            let client = line.split("]:").next()?.trim_start_matches('[');
            Some(client.trim_start_matches("::ffff:").to_owned())
        });
        seen.extend(clients);
    }
    let clients = ["192.0.2.100".to_owned(), "2001:db8::100".to_owned()];
    assert_eq!(seen, clients.into());
    swarm.finish();
}

#[test]
fn a_network_that_is_flushed_behind_our_back_is_repaired() {
    let swarm = Swarm::of(1, 1);
    create_web(&swarm, 2, &[]);
    converged(&swarm, 1, "web", "2/2");
    eventually(SOON, "it answers", || ask(&swarm, published(1)).is_ok());
    for number in 1..=2 {
        swarm.host(number).tool("nft", &["flush", "ruleset"]);
    }
    for number in 1..=2 {
        let target = published(number);
        eventually(SOON, &format!("{target} answers again"), || {
            ask(&swarm, target).is_ok()
        });
    }
    swarm.finish();
}

#[test]
fn names_stand_for_services_and_backends_and_stale_ones_go() {
    let swarm = Swarm::of(1, 1);
    let host = swarm.host(1);
    host.muster(&["network", "create", "--driver", "overlay", "back"])
        .ok();
    create_web(&swarm, 3, &["--network", "back"]);
    host.muster(&[
        "service",
        "create",
        "--name",
        "client",
        "--mode",
        "global",
        "--network",
        "back",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let (number, client) = running(&swarm)
        .into_iter()
        .find(|(number, name)| *number == 2 && name.starts_with("client."))
        .expect("a client runs on host 2");
    let look_up = |name: &str| {
        let found = swarm
            .host(number)
            .muster(&["exec", &client, "nslookup", name])
            .stdout;
        found.matches("Address: 10.").count()
    };
    assert_eq!(look_up("web"), 1);
    eventually(SOON, "three backends", || look_up("tasks.web") == 3);
    host.muster(&["service", "scale", "web=1"]).ok();
    eventually(SOON, "one backend", || look_up("tasks.web") == 1);
    let page = swarm
        .host(number)
        .muster(&["exec", &client, "wget", "-qO-", "http://web/"]);
    assert!(
        page.ok().contains("here"),
        "the virtual address leads to a backend"
    );
    swarm.finish();
}

#[test]
fn a_port_of_mode_host_is_published_where_the_task_is() {
    let swarm = Swarm::of(1, 1);
    let host = swarm.host(1);
    host.muster(&[
        "service",
        "create",
        "--name",
        "web",
        "--constraint",
        "node.role==worker",
        "--publish",
        "mode=host,published=8080,target=80",
        "--init",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/etc",
    ])
    .ok();
    converged(&swarm, 1, "web", "1/1");
    let page = |number: usize| {
        let target = published(number);
        swarm
            .switch
            .on_host(move || e2e::swarm::get(target, "/passwd"))
    };
    eventually(SOON, "the task's node answers", || page(2).is_ok());
    assert!(page(1).is_err());
    // Two of them do not fit on one node, and it is said why.
    host.muster(&["service", "scale", "--detach", "web=2"]).ok();
    eventually(SOON, "the reason is shown", || {
        let listed = host.muster(&[
            "service",
            "ps",
            "--no-trunc",
            "--format",
            "{{.Error}}",
            "web",
        ]);
        listed.stdout.contains("host-mode port already in use")
    });
    swarm.finish();
}
