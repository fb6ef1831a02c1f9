//! Compose projects: up, what a second up does, plan, down, and what is said about broken files.

use e2e::Host;

const PROJECT: &str = r#"
services:
  db:
    image: busybox
    command: [sh, -c, "sleep 0.3; touch /ready; exec sleep 1000"]
    healthcheck:
      test: [CMD, test, -e, /ready]
      interval: 1s
    volumes: ["data:/data"]
  job:
    image: busybox
    command: "true"
  web:
    image: busybox
    command: [sh, -c, "mkdir /www; echo $$GREETING > /www/index.html; exec httpd -f -h /www"]
    environment:
      GREETING: ${GREETING:-hello}
    ports: ["8080:80"]
    depends_on:
      db: {condition: service_healthy}
      job: {condition: service_completed_successfully}
volumes:
  data:
"#;

fn started_at(host: &Host, name: &str) -> String {
    host.muster(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name])
        .ok()
}

#[test]
fn up_again_does_nothing_and_a_change_recreates_one_service() {
    let host = Host::start();
    host.write("shop/compose.yaml", PROJECT);
    let plan = host.muster_in("shop", &["compose", "plan"]);
    assert_eq!(plan.code, 2, "changes are to be made: {plan}");
    for word in ["db", "web", "job", "data"] {
        assert!(plan.stdout.contains(word), "{word}: {plan}");
    }
    assert_eq!(
        host.muster(&["ps", "-aq"]).ok(),
        "",
        "a plan writes nothing"
    );
    host.muster_in("shop", &["up", "-d"]).ok();
    assert!(crate::web::get_soon(&host, "127.0.0.1:8080").contains("hello"));
    let names = host.muster(&["ps", "-a", "--format", "{{.Names}}"]).ok();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["shop-db-1", "shop-job-1", "shop-web-1"]);
    let (db, web) = (
        started_at(&host, "shop-db-1"),
        started_at(&host, "shop-web-1"),
    );

    assert_eq!(
        host.muster_in("shop", &["compose", "plan"]).code,
        0,
        "nothing to do"
    );
    host.muster_in("shop", &["up", "-d"]).ok();
    assert_eq!(
        (
            started_at(&host, "shop-db-1"),
            started_at(&host, "shop-web-1")
        ),
        (db.clone(), web.clone())
    );

    host.write("shop/.env", "GREETING=changed\n");
    let plan = host.muster_in("shop", &["compose", "plan"]);
    assert!(
        plan.code == 2 && plan.stdout.contains("environment"),
        "the plan names the attribute: {plan}"
    );
    let dry = host.muster_in("shop", &["up", "-d", "--dry-run"]);
    assert_eq!(dry.code, 0, "{dry}");
    assert_eq!(
        started_at(&host, "shop-web-1"),
        web,
        "a dry run writes nothing"
    );
    host.muster_in("shop", &["up", "-d"]).ok();
    assert!(crate::web::get_soon(&host, "127.0.0.1:8080").contains("changed"));
    assert_eq!(
        started_at(&host, "shop-db-1"),
        db,
        "the unchanged service stays"
    );
    assert_ne!(started_at(&host, "shop-web-1"), web);

    let listed = host.muster(&["compose", "ls", "--format", "json"]).ok();
    assert!(
        listed.contains("shop") && listed.contains("running"),
        "{listed}"
    );
    assert!(
        host.muster_in("shop", &["compose", "exec", "-T", "db", "hostname"])
            .code
            == 0
    );
    assert!(
        host.muster_in("shop", &["compose", "ps", "--services"])
            .ok()
            .contains("db")
    );
    host.muster_in("shop", &["down"]).ok();
    assert_eq!(host.muster(&["ps", "-aq"]).ok(), "");
    assert!(
        host.muster(&["volume", "ls", "-q"])
            .ok()
            .contains("shop_data"),
        "volumes stay"
    );
    host.muster_in("shop", &["down", "--volumes"]).ok();
    assert_eq!(host.muster(&["volume", "ls", "-q"]).ok(), "");
    host.finish();
}

#[test]
fn attached_up_prefixes_logs_and_returns_the_chosen_exit_code() {
    let host = Host::start();
    host.write(
        "job/compose.yaml",
        "services:\n  a:\n    image: busybox\n    command: [sh, -c, 'echo from a; exec sleep 1000']\n    stop_grace_period: 0s\n  b:\n    image: busybox\n    command: [sh, -c, 'echo from b; exit 9']\n    depends_on: [a]\n",
    );
    let output = host.muster_in("job", &["up", "--exit-code-from", "b"]);
    assert_eq!(output.code, 9, "{output}");
    for (prefix, line) in [("a-1", "from a"), ("b-1", "from b")] {
        let found = output
            .stdout
            .lines()
            .any(|text| text.contains(prefix) && text.contains(line));
        assert!(found, "{prefix} {line}: {output}");
    }
    host.muster_in("job", &["down"]).ok();
    host.finish();
}

#[test]
fn services_scale_and_orphans_go() {
    let host = Host::start();
    let file = |extra: &str| {
        let text = format!(
            "services:\n  w:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n{extra}"
        );
        host.write("s/compose.yaml", &text);
    };
    let count = || {
        host.muster(&["ps", "-q", "--filter", "label=com.docker.compose.project=s"])
            .ok()
            .lines()
            .count()
    };
    file("  extra:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n");
    host.muster_in("s", &["up", "-d", "--scale", "w=3"]).ok();
    assert_eq!(count(), 4);
    host.muster_in("s", &["up", "-d", "--scale", "w=1"]).ok();
    assert_eq!(count(), 2);
    file("");
    let warned = host.muster_in("s", &["up", "-d"]);
    assert!(
        warned.code == 0 && warned.stderr.contains("orphan"),
        "{warned}"
    );
    host.muster_in("s", &["up", "-d", "--remove-orphans"]).ok();
    assert_eq!(count(), 1);
    host.muster_in("s", &["down"]).ok();
    host.finish();
}

#[test]
fn a_dependency_that_fails_stops_what_needs_it_and_says_why() {
    let host = Host::start();
    host.write(
        "f/compose.yaml",
        "services:\n  bad:\n    image: busybox\n    command: [sh, -c, 'echo no config found; exit 4']\n  app:\n    image: busybox\n    command: sleep 1000\n    depends_on:\n      bad: {condition: service_completed_successfully}\n",
    );
    let output = host.muster_in("f", &["up", "-d"]);
    assert_ne!(output.code, 0, "{output}");
    for said in ["bad", "4", "no config found"] {
        assert!(output.stderr.contains(said), "{said}: {output}");
    }
    let app = host.muster(&["ps", "-q", "--filter", "name=app"]).ok();
    assert_eq!(app, "", "the dependent is not started");
    host.muster_in("f", &["down"]).ok();
    host.finish();
}

#[test]
fn twenty_broken_files_have_twenty_readable_errors() {
    let host = Host::bare();
    // Text, line and column of the fault, and a word of the explanation.
    let cases: &[(&str, &str, &str)] = &[
        ("services:\n  a:\n    image: [x\n", "3:", ""),
        ("services:\n  a:\n\timage: x\n", "3:", "tab"),
        (
            "services:\n  a:\n    image: x\n    image: y\n",
            "4:5",
            "image",
        ),
        ("services:\n  a:\n    imagee: x\n", "3:5", "image"),
        ("service:\n  a:\n    image: x\n", "1:1", "services"),
        (
            "services:\n  a:\n    image: x\n    ports: [\"80:x\"]\n",
            "4:",
            "port",
        ),
        (
            "services:\n  a:\n    image: x\n    ports: [\"70000:80\"]\n",
            "4:",
            "70000",
        ),
        (
            "services:\n  a:\n    image: x\n    ports: [\"8000-8002:80-81\"]\n",
            "4:",
            "range",
        ),
        (
            "services:\n  a:\n    image: x\n    depends_on: [b]\n",
            "4:",
            "b",
        ),
        (
            "services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on: [a]\n",
            ":",
            "cycle",
        ),
        (
            "services:\n  a:\n    image: x\n    networks: [back]\n",
            "4:",
            "back",
        ),
        (
            "services:\n  a:\n    image: x\n    volumes: [\"data:/data\"]\n",
            "4:",
            "data",
        ),
        (
            "services:\n  a:\n    image: x\n    secrets: [key]\n",
            "4:",
            "key",
        ),
        (
            "services:\n  a:\n    image: x\n    mem_limit: lots\n",
            "4:",
            "lots",
        ),
        (
            "services:\n  a:\n    image: x\n    healthcheck:\n      test: [RUN, x]\n",
            "5:",
            "CMD",
        ),
        (
            "services:\n  a:\n    image: x\n    stop_grace_period: soon\n",
            "4:",
            "soon",
        ),
        (
            "services:\n  a:\n    image: \"${IMAGE:?no image given}\"\n",
            "3:",
            "no image given",
        ),
        (
            "services:\n  a:\n    image: \"${IMAGE\"\n",
            "3:",
            "interpolation",
        ),
        (
            "services:\n  a:\n    image: x\n    network_mode: host\n    networks: [default]\n",
            ":",
            "network_mode",
        ),
        (
            "services:\n  a:\n    image: x\n    container_name: one\n    scale: 2\n",
            ":",
            "container_name",
        ),
        ("services:\n  a:\n    command: sleep\n", "2:", "image"),
        (
            "services:\n  a:\n    image: x\n    restart: sometimes\n",
            "4:",
            "restart",
        ),
        (
            "services:\n  a:\n    extends: {service: nobody}\n",
            "3:",
            "nobody",
        ),
        ("services:\n  a b:\n    image: x\n", "2:3", "a b"),
    ];
    let mut wrong = Vec::new();
    for (number, (text, place, word)) in cases.iter().enumerate() {
        let name = format!("case{number}/compose.yaml");
        host.write(&name, text);
        let output = host.muster_in(&format!("case{number}"), &["compose", "config"]);
        let placed = output
            .stderr
            .contains(&format!("compose.yaml:{}", place.trim_start_matches(':')));
        let explained = output.stderr.to_lowercase().contains(&word.to_lowercase());
        let pointed = output.stderr.contains('^');
        if output.code == 0 || !placed || !explained || !pointed {
            wrong.push(format!("{number} ({text:?}, {place}, {word}): {output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
