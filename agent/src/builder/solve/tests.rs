//! What runs, what is found, what is shared, what is given up: with steps that only say so.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use agent_api::build::SolveStatus;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::*;
use crate::builder::progress::Progress;

/// What all builds of a test see.
#[derive(Default)]
struct World {
    recorded: Mutex<HashMap<Key, String>>,
    ran: Mutex<Vec<String>>,
    given_up: Mutex<Vec<String>>,
    /// What a hit stood on.
    used: Mutex<Vec<String>>,
    /// Steps that wait until they are let go.
    gates: HashMap<&'static str, Semaphore>,
    /// Steps that wait for a gate have begun: one permit each.
    begun: Option<Semaphore>,
    failing: HashSet<&'static str>,
    /// What steps yield, if it is not their name and their inputs.
    outputs: HashMap<&'static str, &'static str>,
    /// What these steps read changes the next time that they run, to another version or all the time.
    changed: Mutex<HashMap<&'static str, Option<&'static str>>>,
}

/// The steps of one plan: `name`, or `name@version` for another step that yields what `name` does.
struct Fake {
    names: Vec<&'static str>,
    world: Arc<World>,
}

impl Fake {
    fn name(&self, step: usize) -> &'static str {
        self.names[step].split('@').next().unwrap()
    }

    /// Waits at the gate, if there is one.
    async fn wait(&self, name: &'static str, cancel: &CancellationToken) -> Result<(), String> {
        let Some(gate) = self.world.gates.get(name) else {
            return Ok(());
        };
        if let Some(begun) = &self.world.begun {
            begun.add_permits(1);
        }
        tokio::select! {
            permit = gate.acquire() => permit.unwrap().forget(),
            () = cancel.cancelled() => {
                self.world.given_up.lock().push(name.to_owned());
                return Err("cancelled".to_owned());
            }
        }
        Ok(())
    }
}

impl Steps for Fake {
    type Output = String;
    type Failure = String;

    async fn own_key(&self, step: usize) -> Result<Key, String> {
        match self.names[step] {
            "unreadable" => Err("unreadable".to_owned()),
            "sent" => {
                self.wait("sent", &CancellationToken::new()).await?;
                Ok(Digest::of(b"sent"))
            }
            name => Ok(Digest::of(name.as_bytes())),
        }
    }

    async fn content_key(
        &self,
        step: usize,
        inputs: &[String],
        cancel: &CancellationToken,
    ) -> Result<Option<Key>, String> {
        if cancel.is_cancelled() {
            return Err("cancelled".to_owned());
        }
        let text = format!("{} of {inputs:?}", self.names[step]);
        Ok((!inputs.is_empty()).then(|| Digest::of(text.as_bytes())))
    }

    async fn find(&self, key: &Key, cancel: &CancellationToken) -> Option<String> {
        if cancel.is_cancelled() {
            return None;
        }
        self.world.recorded.lock().get(key).cloned()
    }

    async fn knows(&self, key: &Key) -> bool {
        self.world.recorded.lock().contains_key(key)
    }

    fn used(&self, keys: Vec<Key>) {
        let recorded = self.world.recorded.lock();
        let outputs = keys.iter().filter_map(|key| recorded.get(key).cloned());
        self.world.used.lock().extend(outputs);
    }

    fn record(&self, _: usize, keys: &[Key], output: &String) {
        let mut recorded = self.world.recorded.lock();
        recorded.extend(keys.iter().map(|key| (*key, output.clone())));
    }

    async fn execute(
        &self,
        step: usize,
        inputs: Vec<String>,
        cabin: Cabin,
        cancel: CancellationToken,
    ) -> Result<(String, Read), String> {
        let name = self.name(step);
        cabin.begin();
        cabin.log(1, name.as_bytes());
        self.world.ran.lock().push(name.to_owned());
        self.wait(name, &cancel).await?;
        match (
            self.world.failing.contains(name),
            self.world.outputs.get(name),
        ) {
            (true, _) => Err(format!("{name} failed")),
            (false, Some(output)) => Ok(((*output).to_owned(), Read::AsKeyed)),
            (false, None) => {
                let changed = self.world.changed.lock().remove(name);
                let (version, read) = match changed {
                    None => ("", Read::AsKeyed),
                    Some(Some(version)) => {
                        let text = format!("{}{version} of {inputs:?}", self.names[step]);
                        (version, Read::Changed(Digest::of(text.as_bytes())))
                    }
                    Some(None) => ("?", Read::Unsteady),
                };
                Ok((format!("{name}{version}({})", inputs.join(",")), read))
            }
        }
    }

    fn cancelled(&self) -> String {
        "cancelled".to_owned()
    }

    fn describe(&self, failure: &String) -> String {
        failure.clone()
    }
}

/// Builds of one daemon.
struct Daemon {
    world: Arc<World>,
    flights: Arc<StepFlights<Fake>>,
    tasks: TaskTracker,
}

impl Daemon {
    fn new(world: World) -> Self {
        let tasks = TaskTracker::new();
        Self {
            world: Arc::new(world),
            flights: Flights::new(tasks.clone()),
            tasks,
        }
    }

    /// A build of steps `(name, inputs)`, the last of which is the target.
    fn plan(&self, steps: &[(&'static str, &[usize])]) -> (Arc<Solve<Fake>>, Progress) {
        self.plan_with(steps, &[])
    }

    fn plan_with(
        &self,
        steps: &[(&'static str, &[usize])],
        fresh: &[usize],
    ) -> (Arc<Solve<Fake>>, Progress) {
        let progress = Progress::default();
        let seat = |(place, (name, _)): (usize, &(&str, &[usize]))| {
            Seat::announce(&progress, &format!("{place}"), Vec::new(), name)
        };
        let node = |(place, (name, inputs)): (usize, &(&str, &[usize]))| Node {
            inputs: inputs.to_vec(),
            fresh: fresh.contains(&place),
            private: false,
            late: *name == "sent",
        };
        let fake = Fake {
            names: steps.iter().map(|(name, _)| *name).collect(),
            world: Arc::clone(&self.world),
        };
        let nodes = steps.iter().enumerate().map(node).collect();
        let seats = steps.iter().enumerate().map(seat).collect();
        let flights = Arc::clone(&self.flights);
        let cancel = CancellationToken::new();
        let solve = Solve::new(fake, nodes, seats, None, flights, cancel);
        (solve, progress)
    }

    async fn build(&self, steps: &[(&'static str, &[usize])]) -> Result<String, String> {
        let (solve, _) = self.plan(steps);
        within(solve.solve(steps.len() - 1)).await
    }

    fn ran(&self) -> String {
        self.world
            .ran
            .lock()
            .drain(..)
            .collect::<Vec<_>>()
            .join(" ")
    }

    async fn begun(&self, count: u32) {
        let begun = self.world.begun.as_ref().unwrap();
        within(begun.acquire_many(count)).await.unwrap().forget();
    }

    fn open(&self, gate: &str) {
        self.world.gates[gate].add_permits(100);
    }

    /// Waits until nothing is under way.
    async fn settled(&self) {
        self.tasks.close();
        within(self.tasks.wait()).await;
    }
}

fn gated(gates: &[&'static str]) -> World {
    World {
        gates: gates
            .iter()
            .map(|name| (*name, Semaphore::new(0)))
            .collect(),
        begun: Some(Semaphore::new(0)),
        ..World::default()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work)
        .await
        .expect("must not hang")
}

async fn news(progress: &Progress) -> SolveStatus {
    progress.close();
    let mut all = SolveStatus::default();
    while let Some(status) = progress.next().await {
        all.vertexes.extend(status.vertexes);
        all.logs.extend(status.logs);
    }
    all
}

const CHAIN: &[(&str, &[usize])] = &[("from", &[]), ("copy", &[0]), ("run", &[1])];

#[tokio::test]
async fn what_was_built_is_found_at_the_target_alone() {
    let daemon = Daemon::new(World::default());
    assert_eq!(daemon.build(CHAIN).await.unwrap(), "run(copy(from()))");
    assert_eq!(daemon.ran(), "from copy run");
    // Even when nothing is left of what is below.
    let top = daemon.world.recorded.lock().clone();
    daemon
        .world
        .recorded
        .lock()
        .retain(|_, output| output.starts_with("run"));
    let (solve, progress) = daemon.plan(CHAIN);
    within(solve.solve(2)).await.unwrap();
    assert_eq!(daemon.ran(), "");
    let told = news(&progress).await;
    let cached = told.vertexes.iter().filter(|vertex| vertex.cached).count();
    assert_eq!(cached, 3, "all steps are shown as cached");
    assert!(top.len() > 3);
}

#[tokio::test]
async fn a_step_that_changes_nothing_does_not_rerun_what_is_above() {
    let mut world = World::default();
    world.outputs.insert("copy", "the same files");
    let daemon = Daemon::new(world);
    daemon.build(CHAIN).await.unwrap();
    daemon.ran();
    let changed: &[(&str, &[usize])] = &[("from", &[]), ("copy@2", &[0]), ("run", &[1])];
    daemon.build(changed).await.unwrap();
    assert_eq!(daemon.ran(), "copy");
    // And the next time it is found at once.
    daemon.build(changed).await.unwrap();
    assert_eq!(daemon.ran(), "");
}

#[tokio::test]
async fn a_step_that_changed_reruns_what_is_above() {
    let daemon = Daemon::new(World::default());
    daemon.build(CHAIN).await.unwrap();
    daemon.ran();
    daemon
        .build(&[("from", &[]), ("other", &[0]), ("run", &[1])])
        .await
        .unwrap();
    assert_eq!(daemon.ran(), "other run");
}

#[tokio::test]
async fn stages_run_side_by_side_and_their_base_once() {
    let daemon = Daemon::new(gated(&["one", "two"]));
    let plan: &[(&str, &[usize])] = &[
        ("from", &[]),
        ("one", &[0]),
        ("two", &[0]),
        ("join", &[1, 2]),
    ];
    let (solve, _) = daemon.plan(plan);
    let build = tokio::spawn(solve.solve(3));
    // Both have begun before either may go on.
    daemon.begun(2).await;
    daemon.open("one");
    daemon.open("two");
    assert_eq!(
        within(build).await.unwrap().unwrap(),
        "join(one(from()),two(from()))"
    );
    let ran = daemon.ran();
    assert_eq!(ran.matches("from").count(), 1, "{ran}");
}

#[tokio::test]
async fn builds_share_a_step_and_each_hears_all_of_it() {
    let daemon = Daemon::new(gated(&["run"]));
    let (first, first_news) = daemon.plan(CHAIN);
    let (second, second_news) = daemon.plan(CHAIN);
    let one = tokio::spawn(first.solve(2));
    daemon.begun(1).await;
    let two = tokio::spawn(second.solve(2));
    // The second has joined when the output that was there is told to it, too.
    while !within(second_news.next())
        .await
        .unwrap()
        .logs
        .iter()
        .any(|log| log.data == b"run")
    {}
    daemon.open("run");
    assert_eq!(within(one).await.unwrap(), within(two).await.unwrap());
    assert_eq!(daemon.ran(), "from copy run");
    assert!(
        news(&first_news)
            .await
            .logs
            .iter()
            .any(|log| log.data == b"run")
    );
}

#[tokio::test]
async fn a_step_goes_on_as_long_as_one_build_waits_for_it() {
    let daemon = Daemon::new(gated(&["run"]));
    let (first, _) = daemon.plan(CHAIN);
    let (second, second_news) = daemon.plan(CHAIN);
    let one = tokio::spawn(first.solve(2));
    daemon.begun(1).await;
    let two = tokio::spawn(second.solve(2));
    while !within(second_news.next())
        .await
        .unwrap()
        .logs
        .iter()
        .any(|log| log.data == b"run")
    {}
    one.abort();
    assert!(within(one).await.unwrap_err().is_cancelled());
    daemon.open("run");
    assert_eq!(within(two).await.unwrap().unwrap(), "run(copy(from()))");
    assert!(daemon.world.given_up.lock().is_empty());
    assert_eq!(daemon.ran(), "from copy run");
}

#[tokio::test]
async fn a_step_that_nobody_waits_for_is_given_up_and_nothing_is_recorded() {
    let daemon = Daemon::new(gated(&["run"]));
    let (solve, _) = daemon.plan(CHAIN);
    let build = tokio::spawn(solve.solve(2));
    daemon.begun(1).await;
    build.abort();
    daemon.settled().await;
    assert_eq!(*daemon.world.given_up.lock(), ["run"]);
    assert!(
        !daemon
            .world
            .recorded
            .lock()
            .values()
            .any(|output| output.starts_with("run"))
    );
    // Who comes later starts anew.
    daemon.ran();
    daemon.open("run");
    daemon.build(CHAIN).await.unwrap();
    assert_eq!(daemon.ran(), "run");
}

#[tokio::test]
async fn the_first_failure_ends_the_build() {
    let mut world = gated(&["slow"]);
    world.failing.insert("bad");
    let daemon = Daemon::new(world);
    let plan: &[(&str, &[usize])] = &[
        ("slow", &[]),
        ("first", &[]),
        ("bad", &[1]),
        ("join", &[0, 2]),
    ];
    let (solve, progress) = daemon.plan(plan);
    assert_eq!(within(solve.solve(3)).await, Err("bad failed".to_owned()));
    daemon.settled().await;
    let given_up = daemon.world.given_up.lock().clone();
    assert!(given_up.is_empty() || given_up == ["slow"], "{given_up:?}");
    solve.give_up();
    let told = news(&progress).await;
    let error = |name: &str| {
        let own = told.vertexes.iter().filter(|vertex| vertex.name == name);
        own.map(|vertex| vertex.error.clone()).next_back().unwrap()
    };
    assert_eq!(error("bad"), "bad failed");
    assert_eq!(error("join"), "", "the failure is told once");
    assert!(!daemon.ran().contains("join"));
}

#[tokio::test]
async fn a_shared_step_fails_for_all() {
    let mut world = gated(&["run"]);
    world.failing.insert("run");
    let daemon = Daemon::new(world);
    let (first, _) = daemon.plan(CHAIN);
    let (second, second_news) = daemon.plan(CHAIN);
    let one = tokio::spawn(first.solve(2));
    daemon.begun(1).await;
    let two = tokio::spawn(second.solve(2));
    while !within(second_news.next())
        .await
        .unwrap()
        .logs
        .iter()
        .any(|log| log.data == b"run")
    {}
    daemon.open("run");
    for build in [one, two] {
        assert_eq!(within(build).await.unwrap(), Err("run failed".to_owned()));
    }
    assert_eq!(daemon.ran(), "from copy run");
    // A failure is not remembered.
    assert!(daemon.build(CHAIN).await.is_err());
    assert_eq!(daemon.ran(), "run");
}

#[tokio::test]
async fn a_fresh_step_runs_and_what_is_above_is_found_by_content() {
    let mut world = World::default();
    world.outputs.insert("copy", "the same files");
    let daemon = Daemon::new(world);
    daemon.build(CHAIN).await.unwrap();
    daemon.ran();
    let (solve, _) = daemon.plan_with(CHAIN, &[1]);
    within(solve.solve(2)).await.unwrap();
    assert_eq!(daemon.ran(), "copy");
    let (solve, _) = daemon.plan_with(CHAIN, &[0, 1, 2]);
    within(solve.solve(2)).await.unwrap();
    assert_eq!(daemon.ran(), "from copy run");
    // It was recorded: the next build finds it.
    daemon.build(CHAIN).await.unwrap();
    assert_eq!(daemon.ran(), "");
}

#[tokio::test]
async fn a_step_that_cannot_be_keyed_fails_by_itself() {
    let daemon = Daemon::new(World::default());
    let plan: &[(&str, &[usize])] = &[("from", &[]), ("unreadable", &[0]), ("run", &[1])];
    let (solve, progress) = daemon.plan(plan);
    assert_eq!(within(solve.solve(2)).await, Err("unreadable".to_owned()));
    assert_eq!(daemon.ran(), "");
    let told = news(&progress).await;
    let failed: Vec<_> = told
        .vertexes
        .iter()
        .filter(|vertex| !vertex.error.is_empty())
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].name, "unreadable");
}

/// A copy of files that may change, and what is made of it.
const CHANGING: &[(&str, &[usize])] = &[("from", &[]), ("copy", &[0]), ("run", &[1])];

#[tokio::test]
async fn what_changed_while_it_was_read_is_not_found_as_what_it_was() {
    for version in [Some("2"), None] {
        let daemon = Daemon::new(World::default());
        daemon.world.changed.lock().insert("copy", version);
        let shown = version.unwrap_or("?");
        let made = daemon.build(CHANGING).await.unwrap();
        assert_eq!(made, format!("run(copy{shown}(from()))"));
        assert_eq!(daemon.ran(), "from copy run");
        // The same files as before the change: nothing made of others is found.
        assert_eq!(daemon.build(CHANGING).await.unwrap(), "run(copy(from()))");
        assert_eq!(daemon.ran(), "copy run");
        assert_eq!(daemon.build(CHANGING).await.unwrap(), "run(copy(from()))");
        assert_eq!(daemon.ran(), "");
    }
}

#[tokio::test]
async fn what_changed_once_is_found_by_what_it_is_now() {
    let daemon = Daemon::new(World::default());
    daemon.world.changed.lock().insert("copy", Some("@2"));
    let first = daemon.build(CHANGING).await.unwrap();
    assert_eq!(daemon.ran(), "from copy run");
    let now: &[(&str, &[usize])] = &[("from", &[]), ("copy@2", &[0]), ("run", &[1])];
    assert_eq!(daemon.build(now).await.unwrap(), first);
    assert_eq!(daemon.ran(), "");
}

#[tokio::test]
async fn a_change_of_one_builds_files_is_no_change_of_anothers() {
    let daemon = Daemon::new(gated(&["copy"]));
    daemon.world.changed.lock().insert("copy", Some("2"));
    let (one, _) = daemon.plan(CHANGING);
    let (other, _) = daemon.plan(CHANGING);
    let one = tokio::spawn(one.solve(2));
    daemon.begun(1).await;
    let mut other = std::pin::pin!(other.solve(2));
    // It waits for the same copy.
    assert!(futures_util::poll!(&mut other).is_pending());
    daemon.open("copy");
    assert_eq!(
        within(one).await.unwrap().unwrap(),
        "run(copy2(from()))",
        "the files had changed"
    );
    assert_eq!(within(other).await.unwrap(), "run(copy(from()))");
}

#[tokio::test]
async fn a_step_that_is_equal_by_content_alone_is_heard_by_all_too() {
    let mut world = gated(&["run"]);
    world.outputs.insert("copy", "the same");
    let daemon = Daemon::new(world);
    let other: &[(&str, &[usize])] = &[("from", &[]), ("copy@2", &[0]), ("run", &[1])];
    let (first, _) = daemon.plan(CHAIN);
    let (second, second_news) = daemon.plan(other);
    let one = tokio::spawn(first.solve(2));
    daemon.begun(1).await;
    let two = tokio::spawn(second.solve(2));
    while !within(second_news.next())
        .await
        .unwrap()
        .logs
        .iter()
        .any(|log| log.data == b"run")
    {}
    // The first one's client leaves; the step goes on.
    one.abort();
    daemon.open("run");
    assert_eq!(within(two).await.unwrap().unwrap(), "run(the same)");
    assert_eq!(daemon.ran(), "from copy run copy");
}

#[test]
fn any_number_of_steps_can_be_one_below_the_other() {
    const STEPS: usize = 3000;
    let solved = std::thread::Builder::new().stack_size(256 << 10).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World {
                outputs: [("step", "done")].into(),
                ..World::default()
            };
            let daemon = Daemon::new(world);
            let inputs: Vec<[usize; 1]> = (0..STEPS).map(|step| [step]).collect();
            let mut steps: Vec<(&'static str, &[usize])> = vec![("from", &[])];
            steps.extend(inputs.iter().map(|input| ("step", &input[..])));
            assert_eq!(daemon.build(&steps).await.unwrap(), "done");
            assert_eq!(daemon.build(&steps).await.unwrap(), "done");
            // Given up in the middle of it.
            let (solve, _) = daemon.plan_with(&steps, &[0]);
            let building = tokio::spawn(solve.solve(STEPS));
            tokio::task::yield_now().await;
            building.abort();
            daemon.settled().await;
        });
    });
    solved.unwrap().join().unwrap();
}

/// `sent` is on its way from the client; `copy` needs it, `tools` does not, and `unused` is not needed at all.
const STREAMED: &[(&str, &[usize])] = &[
    ("from", &[]),
    ("tools", &[0]),
    ("sent", &[]),
    ("unused", &[0]),
    ("copy", &[1, 2]),
];

#[tokio::test]
async fn what_needs_nothing_that_is_late_runs_meanwhile() {
    let daemon = Daemon::new(gated(&["sent", "tools"]));
    let (solve, _) = daemon.plan(STREAMED);
    let build = tokio::spawn(async move { solve.solve(4).await });
    // The key that is on its way, and the step that needs none.
    daemon.begun(2).await;
    assert_eq!(daemon.ran(), "from tools");
    daemon.open("tools");
    daemon.open("sent");
    let built = within(build).await.unwrap();
    assert_eq!(built.unwrap(), "copy(tools(from()),sent())");
    assert_eq!(daemon.ran(), "sent copy", "nothing twice");
}

#[tokio::test]
async fn what_is_cached_is_not_looked_into_before_it_is_needed() {
    let daemon = Daemon::new(gated(&["sent"]));
    daemon.open("sent");
    daemon.build(STREAMED).await.unwrap();
    assert_eq!(daemon.ran().split(' ').count(), 4);
    daemon.world.used.lock().clear();
    assert!(daemon.build(STREAMED).await.is_ok());
    assert_eq!(daemon.ran(), "");
    let used = daemon.world.used.lock().join(" ");
    assert_eq!(
        used, "from() tools(from()) sent()",
        "all that the hit stands on"
    );
}

#[tokio::test]
async fn a_step_that_fails_is_not_run_again_for_the_same_build() {
    let world = World {
        failing: HashSet::from(["tools"]),
        ..gated(&["sent"])
    };
    let daemon = Daemon::new(world);
    let (solve, _) = daemon.plan(STREAMED);
    let build = tokio::spawn(async move { solve.solve(4).await });
    daemon.begun(1).await;
    daemon.open("sent");
    assert_eq!(within(build).await.unwrap().unwrap_err(), "tools failed");
    assert_eq!(daemon.ran().matches("tools").count(), 1);
}

#[tokio::test]
async fn who_joins_late_runs_nothing_again_that_has_landed() {
    let daemon = Daemon::new(gated(&["run"]));
    let fresh = [0, 1, 2];
    let (first, _) = daemon.plan_with(CHAIN, &fresh);
    let first = tokio::spawn(async move { first.solve(2).await });
    daemon.begun(1).await;
    assert_eq!(daemon.ran(), "from copy run");
    let (second, second_news) = daemon.plan_with(CHAIN, &fresh);
    let second = tokio::spawn(async move { second.solve(2).await });
    // It is aboard when it is told that the step runs.
    while !within(second_news.next())
        .await
        .unwrap()
        .vertexes
        .iter()
        .any(|vertex| vertex.started.is_some())
    {}
    tokio::task::yield_now().await;
    daemon.open("run");
    assert_eq!(within(first).await.unwrap().unwrap(), "run(copy(from()))");
    assert_eq!(within(second).await.unwrap().unwrap(), "run(copy(from()))");
    daemon.settled().await;
    assert_eq!(daemon.ran(), "", "nothing ran twice");
}
