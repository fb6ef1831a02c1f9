//! Whole clusters in simulated time: real managers (`cluster::core` on the real log over a disk that tears), real agents
//! (`cluster::worker`), and everything around them simulated and hostile. A seed decides everything, so a failure is run
//! again with its seed.
//!
//! `SIM_SEED` and `SIM_STEPS` choose one run of `storm`, `SIM_TRACE` how many lines of it a failure shows; `endless` goes on from `SIM_SEED` until something fails.

#![expect(clippy::print_stderr, reason = "a run says how it went")]

mod agent;
mod bugs;
mod check;
mod client;
mod containers;
mod dice;
mod disk;
mod faults;
mod host;
mod manager;
mod network;
mod settle;
mod world;

use bugs::Bug;
use world::{Options, Report, Violation, World};

/// Steps of the ordinary test, over all its seeds.
const STEPS: u64 = 200_000;
const STEPS_OF_A_SEED: u64 = 10_000;
const TRACE_LINES: u64 = 150;
/// A mistake made on purpose must be found within so many.
const STEPS_TO_FIND: u64 = 150_000;

fn run(seed: u64, steps: u64, bug: Option<Bug>) -> Result<Report, Box<Violation>> {
    let options = Options {
        seed,
        steps,
        bug,
        trace_lines: 0,
    };
    World::run(options)
}

/// Runs a seed; a failure is run once more to show how it came about.
fn must_hold(seed: u64, steps: u64) -> Report {
    match run(seed, steps, None) {
        Ok(report) => report,
        Err(violation) => {
            let options = Options {
                seed,
                steps,
                bug: None,
                trace_lines: from_env("SIM_TRACE").unwrap_or(TRACE_LINES) as usize,
            };
            let again = World::run(options).expect_err("a seed always gives the same run");
            panic!(
                "{}\n\nseed {seed}, step {}, {:.3} s: {}\nagain: SIM_SEED={seed} SIM_STEPS={steps} \
                 cargo nextest run -p cluster sim::storm",
                again.trace.join("\n"),
                violation.step,
                violation.time_ms as f64 / 1000.0,
                violation.what,
            );
        }
    }
}

/// Whether the checks notice a mistake, and what they say.
fn finds(bug: Bug, words: &[&str]) {
    let mut steps = 0;
    for seed in 1.. {
        assert!(
            steps < STEPS_TO_FIND,
            "{bug:?} is not found within {steps} steps"
        );
        match run(seed, STEPS_OF_A_SEED, Some(bug)) {
            Ok(report) => steps += report.steps,
            Err(violation) => {
                let Violation { step, what, .. } = *violation;
                assert!(
                    words.iter().any(|word| what.contains(word)),
                    "{bug:?} is found as something else: {what}"
                );
                eprintln!(
                    "{bug:?} is found in seed {seed} after {} steps: {what}",
                    steps + step
                );
                return;
            }
        }
    }
}

#[test]
fn a_disk_that_acknowledges_before_it_syncs_is_found() {
    finds(
        Bug::AcknowledgeBeforeSync,
        &["acknowledged", "is not what another", "two leaders"],
    );
}

#[test]
fn a_snapshot_without_the_members_is_found() {
    finds(
        Bug::SnapshotWithoutMembership,
        &["the group at index", "gives up", "not settled"],
    );
}

#[test]
fn assignments_of_an_older_leader_are_found() {
    finds(
        Bug::StaleAssignments,
        &["which is to be", "sends to", "not settled"],
    );
}

#[test]
fn a_snapshot_of_a_later_state_is_found() {
    finds(Bug::SnapshotOfLaterState, &["is not what another"]);
}

#[test]
fn an_agent_that_does_not_find_its_containers_is_found() {
    finds(
        Bug::ContainersNotFound,
        &[
            "still runs",
            "is used by",
            "its container is",
            "while it runs",
        ],
    );
}

#[test]
fn balancers_acknowledged_before_they_are_programmed_are_found() {
    finds(Bug::AcknowledgeBeforeProgrammed, &["still sends to it"]);
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The run `SIM_SEED` asks for, or a quarter of all steps, so that the quarters run beside each other.
#[test]
fn storm() {
    match from_env("SIM_SEED") {
        Some(seed) => {
            let report = must_hold(seed, from_env("SIM_STEPS").unwrap_or(STEPS_OF_A_SEED));
            eprintln!("{report:?}");
        }
        None => quarter(0),
    }
}

#[test]
fn storm_second_quarter() {
    quarter(1);
}

#[test]
fn storm_third_quarter() {
    quarter(2);
}

#[test]
fn storm_fourth_quarter() {
    quarter(3);
}

fn quarter(number: u64) {
    let mut steps = 0;
    let mut seed = 1 + number * 1000;
    while steps < STEPS / 4 {
        let report = must_hold(seed, STEPS_OF_A_SEED);
        let Report {
            acknowledged,
            tasks_run,
            elections,
            settled_after_ms,
            ..
        } = report;
        eprintln!(
            "seed {seed}: {} steps, {} s, {acknowledged} writes, {tasks_run} containers, {elections} elections, \
             settled after {settled_after_ms} ms",
            report.steps,
            report.time_ms / 1000,
        );
        assert!(
            acknowledged > 0 && tasks_run > 0,
            "seed {seed} does nothing"
        );
        steps += report.steps;
        seed += 1;
    }
}

#[test]
#[ignore = "goes on until something fails: make sim"]
fn endless() {
    let mut seed = from_env("SIM_SEED").unwrap_or(1);
    let steps = from_env("SIM_STEPS").unwrap_or(50_000);
    loop {
        let report = must_hold(seed, steps);
        eprintln!("seed {seed}: {report:?}");
        seed += 1;
    }
}
