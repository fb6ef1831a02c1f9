//! A daemon that is killed at any moment of builds: the cache is never wrong, nothing leaks, the same build goes through.

use std::process::Stdio;
use std::time::Duration;

use e2e::Host;

use super::images_space::adds_up;

/// Settings of a longer run: how many rounds, and which moments.
const ROUNDS: &str = "BUILD_CRASH_ROUNDS";
const SEED: &str = "BUILD_CRASH_SEED";

const DOCKERFILE: &str = "FROM busybox AS one
COPY src /work/src
ARG ROUND
RUN for i in $(seq 150); do echo $i > /work/f$i; done; rm /work/f7; ln /work/f1 /work/link; echo $ROUND > /work/round
FROM busybox AS two
ARG ROUND
RUN mkdir -p /two/deep && head -c 2000000 /dev/zero > /two/zeros && echo $ROUND > /two/round
FROM one
COPY --from=two /two /work/two
RUN rm -r /work/src && mkdir /work/src && echo new > /work/src/new && ln -s src /work/s
COPY src/1 /work/last
COPY --link src/2 /work/linked/
";

/// What the image is, as far as each build makes it alike.
#[track_caller]
fn tree(host: &Host, name: &str, seed: u64) -> String {
    let list = "cd /work; find . | sort | xargs stat -c '%n %a %u:%g %F %h'; find . -type f | sort | xargs md5sum; readlink s";
    let output = host.muster(&["run", "--rm", name, "sh", "-c", list]);
    assert_eq!(output.code, 0, "seed {seed}: {output}");
    // Links to directories are counted by some file systems only.
    let lines = output
        .stdout
        .lines()
        .map(|line| match line.split_once(" directory ") {
            Some((name, _)) => format!("{name} directory\n"),
            None => format!("{line}\n"),
        });
    lines.collect()
}

/// A cheap source of moments.
fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_build_has_nothing_wrong_in_its_cache() {
    let seed = setting(SEED).unwrap_or_else(|| std::process::id().into());
    let rounds = setting(ROUNDS).unwrap_or(8);
    eprintln!("seed {seed}");
    let mut random = seed;
    let mut host = Host::start();
    host.write("c/Dockerfile", DOCKERFILE);
    for number in 0..40 {
        host.write(&format!("c/src/{number}"), &format!("file {number}\n"));
    }
    let arguments = |round: u64, name: &str, more: &[&str]| -> Vec<String> {
        let own = [&["build", "-q", "-t", name, "--build-arg"][..]].concat();
        let mut all: Vec<String> = own.into_iter().map(str::to_owned).collect();
        all.push(format!("ROUND={round}"));
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all.push("c".to_owned());
        all
    };
    let build = |host: &Host, round: u64, name: &str, more: &[&str]| {
        let all = arguments(round, name, more);
        let words: Vec<&str> = all.iter().map(String::as_str).collect();
        let output = host.muster(&words);
        assert_eq!(output.code, 0, "seed {seed}, round {round}: {output}");
    };
    // How long a build takes from nothing to its image.
    let started = std::time::Instant::now();
    build(&host, 1000, "clean", &[]);
    let whole = u64::try_from(started.elapsed().as_millis()).unwrap();
    let clean = tree(&host, "clean", seed);
    let expected = |round: u64| -> Vec<String> {
        // Only the files that name the round differ: what they hold, as a whole, is told by their sums.
        let lines = clean.lines().filter(|line| !line.ends_with("/round"));
        lines
            .map(|line| line.replace("1000", &round.to_string()))
            .collect()
    };
    for round in 0..rounds {
        let mut command = host.muster_command(&[]);
        command
            .args(arguments(round, "app", &[]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut client = host.spawn(command);
        let moment = Duration::from_millis(next(&mut random) % (whole + whole / 4));
        std::thread::sleep(moment);
        host.kill_daemon();
        client.wait().unwrap();
        host.start_daemon(&[]);
        // Every other time the next round begins on what is left of several.
        if round % 2 == 1 || round + 1 == rounds {
            build(&host, round, "app", &[]);
            let found = tree(&host, "app", seed);
            let found: Vec<&str> = found
                .lines()
                .filter(|line| !line.ends_with("/round"))
                .collect();
            assert_eq!(found, expected(round), "seed {seed}, round {round}");
            let named = host.muster(&[
                "run",
                "--rm",
                "app",
                "cat",
                "/work/round",
                "/work/two/round",
            ]);
            assert_eq!(named.ok(), format!("{round}\n{round}"), "seed {seed}");
        }
    }
    assert_eq!(
        std::fs::read_dir(host.path("data/build/work")).map_or(0, Iterator::count),
        0,
        "seed {seed}"
    );
    adds_up(&host, &[]);
    host.muster(&["rmi", "-f", "app", "clean"]).ok();
    host.muster(&["builder", "prune", "-af"]).ok();
    let left = std::fs::read_dir(host.path("data/build/snapshots")).unwrap();
    assert_eq!(left.count(), 0, "seed {seed}: snapshots without a record");
    let left = host.muster(&["image", "prune", "-af"]);
    assert_eq!(left.code, 0, "seed {seed}: {left}");
    let layers = std::fs::read_dir(host.path("data/layers")).unwrap();
    let layers: Vec<_> = layers.map(|entry| entry.unwrap().file_name()).collect();
    assert!(layers.is_empty(), "seed {seed}: {layers:?} are nobody's");
    host.finish();
}
