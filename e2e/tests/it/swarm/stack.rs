//! The compose file of `up`, on many hosts.

use e2e::Swarm;
use e2e::swarm::eventually;

use super::{SOON, running};

const FILE: &str = "\
services:
  migrate:
    image: busybox
    command: sh -c 'sleep 1; exit 0'
    deploy:
      restart_policy: {condition: none}
  web:
    image: busybox
    init: true
    command: httpd -f -p 80 -h /etc
    depends_on:
      migrate: {condition: service_completed_successfully}
    environment:
      GREETING: ${GREETING}
    healthcheck:
      test: [\"CMD\", \"wget\", \"-qO-\", \"http://127.0.0.1/passwd\"]
      interval: 1s
      start_period: 10s
      start_interval: 200ms
    ports: [\"8080:80\"]
    configs: [page]
    deploy:
      replicas: 2
configs:
  page:
    content: first
";

#[test]
fn a_stack_is_planned_deployed_changed_and_removed() {
    let swarm = Swarm::of(1, 1);
    let host = swarm.host(1);
    host.write("app/compose.yaml", FILE);
    host.write("app/.env", "GREETING=hello\n");
    let stack = |arguments: &[&str]| {
        let mut all = vec!["stack"];
        all.extend(arguments);
        host.muster_in("app", &all)
    };
    let plan = stack(&["deploy", "--plan", "-c", "compose.yaml", "app"]).ok();
    assert!(
        plan.contains("app_web") && plan.contains("app_migrate"),
        "{plan}"
    );
    assert_eq!(host.muster(&["service", "ls", "--quiet"]).ok(), "");
    stack(&["deploy", "-c", "compose.yaml", "app"]).ok();
    // It returned: everything is there.
    let web: Vec<_> = running(&swarm)
        .into_iter()
        .filter(|(_, name)| name.starts_with("app_web."))
        .collect();
    assert_eq!(web.len(), 2, "{web:?}");
    let (number, name) = &web[0];
    let seen = swarm
        .host(*number)
        .muster(&["exec", name, "sh", "-c", "echo $GREETING; cat /page"])
        .ok();
    assert_eq!(seen, "hello\nfirst");

    // Editing a file and deploying again is enough.
    host.write(
        "app/compose.yaml",
        &FILE.replace("content: first", "content: second"),
    );
    stack(&["deploy", "-c", "compose.yaml", "app"]).ok();
    let web: Vec<_> = running(&swarm)
        .into_iter()
        .filter(|(_, name)| name.starts_with("app_web."))
        .collect();
    assert_eq!(web.len(), 2, "{web:?}");
    for (number, name) in &web {
        assert_eq!(
            swarm
                .host(*number)
                .muster(&["exec", name, "cat", "/page"])
                .ok(),
            "second"
        );
    }
    stack(&["rm", "app"]).ok();
    for kind in ["service", "config"] {
        assert_eq!(host.muster(&[kind, "ls", "--quiet"]).ok(), "", "{kind}");
    }
    eventually(SOON, "nothing runs", || running(&swarm).is_empty());
    swarm.finish();
}
