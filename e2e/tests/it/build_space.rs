//! What the build cache takes: budgets collect the least recently used and nothing that is needed, prunes say what the disk
//! gained, and neither minds being killed.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Host, read_until};
use serde_json::{Value, json};

use super::compat::ask;
use super::images_space::{adds_up, du};

/// Bytes that each of these contexts adds to the cache, in steps of three, two and one million.
const OWN: u64 = 6_000_000;

/// A context whose steps write noise; `own` makes them differ from those of others.
fn context(host: &Host, own: &str) {
    let noise = |megabytes: usize| {
        format!("RUN head -c {megabytes}000000 /dev/urandom > /{own}{megabytes}\n")
    };
    let text = format!("FROM busybox\n{}{}{}", noise(3), noise(2), noise(1));
    host.write(&format!("{own}/Dockerfile"), &text);
}

/// Builds a context into the cache; gives how many of its three noisy steps were found there.
#[track_caller]
fn cached(host: &Host, own: &str) -> usize {
    let arguments = ["build", "--progress", "plain", "-o", "type=cacheonly", own];
    let output = host.muster(&arguments);
    assert_eq!(output.code, 0, "{output}");
    let plain = output.stderr;
    let lines: Vec<&str> = plain.lines().collect();
    let hits = lines
        .windows(2)
        .filter(|pair| pair[0].contains(" RUN head ") && pair[1].ends_with(" CACHED"));
    hits.count()
}

fn records(host: &Host) -> Vec<Value> {
    let usage = ask(host, "GET", "/v1.50/system/df?type=build-cache", None).json(200);
    usage["BuildCache"].as_array().unwrap().clone()
}

/// Bytes of the records that no image has, too.
fn private(host: &Host) -> u64 {
    let records = records(host).into_iter();
    let own = records.filter(|record| record["Shared"] == json!(false));
    own.map(|record| record["Size"].as_u64().unwrap()).sum()
}

/// Bytes on disk of what is cached, without the records themselves.
fn on_disk(host: &Host) -> u64 {
    let places = ["layers", "build/snapshots", "build/mounts"];
    let places = places.map(|place| host.path(&format!("data/{place}")));
    places
        .iter()
        .filter(|place| place.exists())
        .map(|place| du(place))
        .sum()
}

/// A daemon whose build cache may have so much.
fn with_budget(host: &mut Host, bytes: u64) {
    let policy = json!({ "builder": { "gc": { "policy": [{ "maxUsedSpace": bytes.to_string(), "all": true }] } } });
    let file = host.write("daemon.json", &policy.to_string());
    host.start_daemon(&["--config-file", file.to_str().unwrap()]);
}

#[test]
fn the_cache_keeps_its_budget_and_what_was_used_last() {
    let mut host = Host::bare();
    with_budget(&mut host, 2 * OWN + OWN / 2);
    host.muster(&["import", e2e::busybox().to_str().unwrap(), "busybox"])
        .ok();
    for own in ["a", "b", "c", "held"] {
        context(&host, own);
    }
    // What an image has, too, is not the cache's.
    host.muster(&["build", "-t", "held", "held"]).ok();
    host.muster(&["create", "--name", "holder", "held", "ls", "/held3"])
        .ok();
    let mut events = host.muster_command(&[
        "events",
        "--filter",
        "type=builder",
        "--format",
        "{{.Action}} {{.Actor.Attributes.reclaimed}}",
    ]);
    events.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut events = host.spawn(events);
    assert_eq!(cached(&host, "a"), 0);
    assert_eq!(cached(&host, "b"), 0);
    assert_eq!(cached(&host, "a"), 3);
    let both = private(&host);
    assert!((2 * OWN..2 * OWN + OWN / 2).contains(&both), "{both}");
    // A third one is too much: the one goes that was not used for longest, step by step from its end.
    assert_eq!(cached(&host, "c"), 0);
    let told = read_until(&mut events, "prune ");
    let reclaimed: u64 = told.trim().rsplit(' ').next().unwrap().parse().unwrap();
    events.kill().unwrap();
    events.wait().unwrap();
    let left = private(&host);
    assert!(left <= 2 * OWN + OWN / 2, "{left}");
    assert!(
        reclaimed >= OWN / 2 && left + reclaimed >= 3 * OWN,
        "{left} {reclaimed}"
    );
    assert_eq!(cached(&host, "a"), 3);
    assert_eq!(cached(&host, "c"), 3);
    assert!(cached(&host, "b") < 3);
    assert_eq!(host.muster(&["start", "-a", "holder"]).ok(), "/held3");
    adds_up(&host, &[]);
    host.finish();
}

#[test]
fn a_killed_collection_of_the_cache_loses_and_leaks_nothing() {
    let mut host = Host::bare();
    with_budget(&mut host, 2 * OWN);
    host.muster(&["import", e2e::busybox().to_str().unwrap(), "busybox"])
        .ok();
    for round in 0..5 {
        let own = format!("r{round}");
        context(&host, &own);
        assert_eq!(cached(&host, &own), 0);
        // The collection is under way, or a little before or after.
        host.kill_daemon();
        with_budget(&mut host, 2 * OWN);
    }
    // A clean stop waits for what the start began.
    assert_eq!(host.stop_daemon(), 0);
    host.start_daemon(&[]);
    let left = private(&host);
    assert!(left <= 2 * OWN, "{left}");
    // Every snapshot is one of a record, and what is found is whole.
    let snapshots = std::fs::read_dir(host.path("data/build/snapshots")).unwrap();
    let noisy = records(&host)
        .into_iter()
        .filter(|record| record["Description"].as_str().unwrap().contains("urandom"));
    assert_eq!(snapshots.count(), noisy.count());
    host.write(
        "r4/Dockerfile",
        &format!(
            "{}RUN wc -c /r43 /r42 /r41\n",
            std::fs::read_to_string(host.path("r4/Dockerfile")).unwrap()
        ),
    );
    let output = host.muster(&["build", "--progress", "plain", "r4"]);
    assert!(output.stderr.contains(" 6000000 total"), "{output}");
    adds_up(&host, &[]);
    host.finish();
}

#[test]
fn a_prune_says_what_the_disk_gained() {
    let host = Host::start();
    for own in ["a", "b", "c", "image"] {
        context(&host, own);
    }
    let prune = |query: &str| {
        let before = on_disk(&host);
        let path = format!("/v1.50/build/prune{query}");
        let pruned = ask(&host, "POST", &path, None).json(200);
        let gained = before - on_disk(&host);
        let reclaimed = pruned["SpaceReclaimed"].as_u64().unwrap();
        let gone = pruned["CachesDeleted"].as_array().map_or(0, Vec::len);
        // A layer has a recipe and directories besides its files.
        assert!(
            gained.abs_diff(reclaimed) <= 32_768 * (1 + gone as u64),
            "{query}: {gained} bytes were gained, {pruned}"
        );
        (gone, reclaimed)
    };
    assert_eq!(prune("?all=1"), (0, 0), "there is no cache yet");
    host.write(
        "m/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/m head -c 2000000 /dev/urandom > /m/f\n",
    );
    host.muster(&["build", "-q", "m"]).ok();
    for own in ["a", "b", "c"] {
        assert_eq!(cached(&host, own), 0);
    }
    host.muster(&["build", "-t", "image", "image"]).ok();

    assert_eq!(
        prune("?filters=%7B%22until%22%3A%5B%2224h%22%5D%7D"),
        (0, 0)
    );
    assert_eq!(prune("?filters=%7B%22id%22%3A%5B%22none%22%5D%7D"), (0, 0));
    assert_eq!(prune("?min-free-space=1"), (0, 0), "as much is free");
    assert_eq!(prune("?max-used-space=100000000").0, 0);
    let (gone, bytes) = prune("?filters=%7B%22type%22%3A%7B%22exec.cachemount%22%3Atrue%7D%7D");
    assert_eq!(gone, 1);
    assert!((2_000_000..2_100_000).contains(&bytes), "{bytes}");

    // Two of three fit; what the image has, too, is not counted and stays.
    prune("?max-used-space=13000000");
    let left = private(&host);
    assert!((2 * OWN..=13_000_000).contains(&left), "{left}");
    // The old name of the bound, and the old version that knows only that.
    let path = "/v1.47/build/prune?keep-storage=7000000&max-used-space=1";
    ask(&host, "POST", path, None).json(200);
    let left = private(&host);
    assert!((OWN..=7_000_000).contains(&left), "{left}");
    assert_eq!(cached(&host, "c"), 3, "it was made last");

    let before = private(&host);
    let told = host
        .muster(&["builder", "prune", "--force", "--max-used-space", "3200kB"])
        .ok();
    let left = private(&host);
    assert!((3_000_000..=3_200 << 10).contains(&left), "{left}");
    let total = told.lines().last().unwrap();
    assert_eq!(
        total.split_whitespace().collect::<Vec<_>>(),
        ["Total:", "3.015MB"],
        "{} of {before}: {told}",
        before - left
    );
    let reserved = host.muster(&["builder", "prune", "-f", "--reserved-space", "50MB"]);
    assert_eq!(reserved.ok(), "Total:\t0B");

    // Everything: without --all what the image has stays found, with it nothing does, and the image lives on.
    host.muster(&["builder", "prune", "-f"]).ok();
    assert_eq!(private(&host), 0);
    assert_eq!(cached(&host, "image"), 3);
    host.muster(&["rmi", "image"]).ok();
    let (gone, bytes) = prune("?all=true");
    assert!(gone >= 3 && bytes >= OWN, "{gone} {bytes}");
    assert!(records(&host).is_empty());
    let wrong = ask(
        &host,
        "POST",
        "/v1.50/build/prune?max-used-space=much",
        None,
    );
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let wrong = "/v1.50/build/prune?filters=%7B%22until%22%3A%5B%221h%22%2C%222h%22%5D%7D";
    assert_eq!(ask(&host, "POST", wrong, None).status, 400);
    adds_up(&host, &[]);
    host.finish();
}

#[test]
fn builds_and_prunes_are_no_obstacle_to_each_other() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox AS one\nARG N\nRUN mkdir /d && for i in 1 2 3 4; do head -c 20000 /dev/urandom > /d/$i; done; echo $N > /d/n\n\
         FROM busybox AS two\nRUN echo two > /two; sleep 0.1\n\
         FROM one\nCOPY --from=two /two /\nCOPY --from=one /d /e\nCOPY Dockerfile /f\n\
         RUN --mount=from=two,target=/m cat /m/two /e/n; rm /e/1\n",
    );
    let builders = AtomicUsize::new(2);
    let round = |name: &str, number: usize| {
        let argument = format!("N={}", number % 3);
        host.muster(&["build", "-q", "-t", name, "--build-arg", &argument, "c"])
            .ok();
        // What was built is whole, whatever went meanwhile.
        let read = ["run", "--rm", name, "cat", "/e/n", "/two", "/d/1"];
        let output = host.muster(&read);
        assert_eq!(output.code, 0, "{output}");
        let expected = format!("{}\ntwo\n", number % 3);
        assert!(output.stdout.starts_with(&expected), "{output}");
    };
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (round, builders) = (&round, &builders);
            scope.spawn(move || {
                let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    (0..5).for_each(|number| round(name, number));
                }));
                builders.fetch_sub(1, Ordering::SeqCst);
                rounds.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            });
        }
        while builders.load(Ordering::SeqCst) > 0 {
            host.muster(&["builder", "prune", "-af"]).ok();
            host.muster(&["image", "prune", "-f"]).ok();
        }
    });
    adds_up(&host, &[]);
    host.finish();
}
