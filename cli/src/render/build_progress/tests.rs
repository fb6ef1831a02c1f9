//! What BuildKit said (recorded from buildx 0.29 with `--progress rawjson`), and what is shown of it.
//! `MUSTER_GOLDEN=write` writes the pictures again.

use super::*;
use std::path::PathBuf;

fn recording(name: &str) -> Vec<SolveStatus> {
    let text = std::fs::read_to_string(golden(&format!("{name}.rawjson"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn golden(name: &str) -> PathBuf {
    let directory = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/render/build_progress/golden"
    );
    PathBuf::from(directory).join(name)
}

fn check(name: &str, shown: &str) {
    let path = golden(name);
    if std::env::var("MUSTER_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(&path).unwrap(), "{name}");
}

/// The latest time a message speaks of: when it was said.
fn time_of(status: &SolveStatus) -> Option<Timestamp> {
    let steps = status
        .vertexes
        .iter()
        .flat_map(|vertex| [vertex.started, vertex.completed]);
    let parts = status.statuses.iter().map(|status| Some(status.timestamp));
    let logs = status.logs.iter().map(|log| Some(log.timestamp));
    steps.chain(parts).chain(logs).flatten().max()
}

/// Trace and time after each message.
fn replay(name: &str, mut each: impl FnMut(&mut Trace, Timestamp)) -> (Trace, Timestamp) {
    let mut trace = Trace::default();
    let mut now = Timestamp::UNIX_EPOCH;
    for status in recording(name) {
        now = time_of(&status).map_or(now, |time| time.max(now));
        trace.update(status, now);
        each(&mut trace, now);
    }
    (trace, now)
}

#[test]
fn plain_lines_are_those_of_buildkit() {
    for name in ["built", "failed"] {
        let mut plain = Plain::new("building with \"default\" instance using docker driver");
        let mut shown = String::new();
        let (mut trace, now) = replay(name, |trace, now| {
            if plain.is_due(trace, now) {
                shown += &plain.print(trace, now);
            }
        });
        shown += &plain.print(&mut trace, now);
        let logs = trace.error_logs();
        check(&format!("{name}.plain"), &(shown + &logs));
    }
}

#[test]
fn pictures_are_drawn_over_each_other() {
    let mut tty = Tty::new("docker:default", false);
    let mut pictures = String::new();
    replay("built", |trace, now| {
        let picture = tty.draw(trace, now, (100, 40), false);
        pictures += &picture.replace('\x1b', "^");
    });
    check("built.tty", &pictures);
}

#[test]
fn what_still_ran_at_the_end_was_cancelled() {
    let mut progress = BuildProgress::new(Mode::Quiet, "muster");
    progress.shown = Shown::Plain(Plain::new(""));
    // Everything until the first step has written something.
    let mut recorded = recording("built").into_iter();
    let mut now = Timestamp::UNIX_EPOCH;
    for status in recorded.by_ref() {
        now = time_of(&status).map_or(now, |time| time.max(now));
        let wrote = !status.logs.is_empty();
        progress.take(status, now);
        if wrote {
            break;
        }
    }
    let running: Vec<String> = progress.running.keys().cloned().collect();
    assert!(!running.is_empty());
    progress.cancel();
    assert!(progress.running.is_empty());
    for digest in &running {
        let step = &progress.trace.steps[digest];
        assert!(step.is_cancelled() && step.is_completed(), "{step:?}");
    }
    let picture = Tty::new("", false).draw(&progress.trace, now, (100, 40), true);
    let cancelled = picture.matches(" => CANCELED ").count();
    assert_eq!(cancelled, running.len(), "{picture}");
    let mut plain = Plain::new("");
    let lines = plain.print(&mut progress.trace, now);
    assert_eq!(
        lines.matches(" CANCELED\n").count(),
        running.len(),
        "{lines}"
    );
    // The clock of another machine is not this one's: a step never ends before it has begun.
    let begun = ProgressVertex {
        started: Some(now),
        ..ProgressVertex::default()
    };
    let late = cancelled_at(begun, Timestamp::UNIX_EPOCH);
    assert_eq!(late.completed, Some(now));
}

fn cancelled_at(vertex: ProgressVertex, now: Timestamp) -> ProgressVertex {
    let running = [(String::new(), vertex)].into();
    cancelled(&running, now).vertexes.remove(0)
}

#[test]
fn a_small_terminal_shows_what_goes_on() {
    replay("built", |trace, now| {
        for size in [(80, 5), (20, 10), (3, 3), (0, 0), (80, 0)] {
            let mut tty = Tty::new("docker:default", true);
            let picture = tty.draw(trace, now, size, false);
            let lines = picture.lines().filter(|line| line.contains("=>")).count();
            assert!(lines <= size.1, "{lines} lines at {size:?}");
            for line in picture
                .lines()
                .skip(1)
                .filter(|line| size.0 >= 20 && line.contains("=>"))
            {
                let plain = line
                    .replace("\x1b[34m", "")
                    .replace("\x1b[0m", "")
                    .replace("\x1b[2m", "");
                assert!(plain.len() <= size.0, "{plain:?}");
            }
        }
    });
}

#[test]
fn warnings_are_listed_once_and_expanded_when_asked() {
    let mut progress = BuildProgress::new(Mode::Quiet, "muster");
    for status in recording("built").into_iter().chain(recording("built")) {
        progress.update(status, "");
    }
    assert_eq!(
        warnings::render(
            &progress.warnings,
            false,
            "use docker --debug to expand",
            true
        ),
        "\n \x1b[33m1 warning found (use docker --debug to expand):\n\x1b[0m - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n"
    );
    let expanded = warnings::render(&progress.warnings, true, "", false);
    assert!(expanded.contains(
        "More info: https://docs.docker.com/go/dockerfile/rule/from-as-casing/\nDockerfile:1\n"
    ));
    assert!(
        expanded.contains("   1 | >>> FROM clbase as base\n"),
        "{expanded}"
    );
}

#[test]
fn failures_end_with_the_line_that_failed() {
    let line = |number, text: &str, marked| agent_api::build::SourceLine {
        number,
        text: text.to_owned(),
        marked,
    };
    let failed = agent_api::build::BuildFailure {
        message: "failed to solve: exit code: 3".to_owned(),
        sources: vec![agent_api::build::FailureSource {
            file: "Bad".to_owned(),
            lines: vec![
                line(4, "    exit 3", false),
                line(5, "COPY x /y", true),
                line(6, "", false),
            ],
        }],
        ..Default::default()
    };
    assert_eq!(
        failure::render(&failed),
        "Bad:5
--------------------
   4 |         exit 3
   5 | >>> COPY x /y
   6 |     
--------------------
ERROR: failed to build: failed to solve: exit code: 3"
    );
}

#[test]
fn several_builds_are_told_apart() {
    assert_eq!(
        prefixed("web", "[internal] load build context"),
        "[web internal] load build context"
    );
    assert_eq!(
        prefixed("web", "exporting to image"),
        "[web] exporting to image"
    );
}
