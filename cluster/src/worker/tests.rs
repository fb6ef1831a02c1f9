//! Every promise of the module's head, one case each.

use std::sync::Arc;

use agent_api::swarm::{ContainerSpec, SecretReference, TaskSpec};
use cluster_api::{
    Attachment, ContainerStatus, DesiredState, Network, Now, Secret, Task, TaskState, TaskStatus,
    Time, Timestamp,
};

use super::{
    Action, Fence, Found, FoundState, Happened, Input, Intent, Record, UNBIND_WAIT_MS, Worker,
};
use crate::dispatcher::{Assignments, AssignmentsKind, Change, Endpoints, ItemKind};

const NODE: &str = "node";

/// A worker, what it was told to do, and the clock.
struct Bench {
    worker: Worker,
    time: u64,
    results: u64,
    term: u64,
    index: u64,
    chain: String,
}

impl Bench {
    fn new() -> Self {
        Self::restarted(Fence::default(), Vec::new(), Vec::new())
    }

    fn restarted(fence: Fence, records: Vec<Record>, found: Vec<Found>) -> Self {
        Self {
            worker: Worker::new(NODE, fence, records, found, now(0)),
            time: 0,
            results: 0,
            term: 1,
            index: 10,
            chain: String::new(),
        }
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        let actions = self.worker.handle(input, now(self.time));
        actions.iter().map(brief).collect()
    }

    fn session(&mut self) -> Vec<String> {
        self.tell(Input::SessionUp { term: self.term })
    }

    fn message(&mut self, kind: AssignmentsKind, changes: Vec<Change>) -> Assignments {
        self.results += 1;
        let applies_to = match kind {
            AssignmentsKind::Complete => String::new(),
            AssignmentsKind::Incremental => self.chain.clone(),
        };
        self.chain = self.results.to_string();
        Assignments {
            term: self.term,
            index: self.index,
            applies_to,
            results_in: self.chain.clone(),
            kind,
            changes,
        }
    }

    fn complete(&mut self, changes: Vec<Change>) -> Vec<String> {
        let message = self.message(AssignmentsKind::Complete, changes);
        self.tell(Input::Assignments(message))
    }

    fn change(&mut self, changes: Vec<Change>) -> Vec<String> {
        let message = self.message(AssignmentsKind::Incremental, changes);
        self.tell(Input::Assignments(message))
    }

    fn task(&mut self, happened: Happened) -> Vec<String> {
        let id = "t".to_owned();
        self.tell(Input::Task { id, happened })
    }

    /// With one task that runs.
    fn running(task: Task) -> Self {
        let mut bench = Self::new();
        bench.session();
        bench.complete(vec![change(task)]);
        bench.task(Happened::Prepared);
        bench.task(started());
        bench.task(Happened::Healthy);
        bench
    }
}

fn now(time: u64) -> Now {
    Now {
        mono: Time(time),
        wall: Timestamp(time as i64),
    }
}

fn task() -> Task {
    Task {
        id: "t".to_owned(),
        node_id: NODE.to_owned(),
        status: status(TaskState::Assigned),
        ..Task::default()
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        ..TaskStatus::default()
    }
}

fn change(task: Task) -> Change {
    Change::Task(Arc::new(task))
}

fn to_be(desired: DesiredState) -> Change {
    change(Task { desired, ..task() })
}

fn networked() -> Task {
    Task {
        networks: vec![Attachment {
            network_id: "n".to_owned(),
            ..Attachment::default()
        }],
        ..task()
    }
}

fn network() -> Change {
    Change::Network(Arc::new(Network {
        id: "n".to_owned(),
        ..Network::default()
    }))
}

fn endpoints(version: u64) -> Change {
    Change::Endpoints(Arc::new(Endpoints {
        network_id: "n".to_owned(),
        version,
        ..Endpoints::default()
    }))
}

fn started() -> Happened {
    Happened::Started {
        container: ContainerStatus::default(),
    }
}

fn ended(exit_code: i64) -> Happened {
    Happened::Ended {
        exit_code,
        error: String::new(),
    }
}

fn record(state: TaskState, intent: Intent) -> Record {
    Record {
        task: Arc::new(task()),
        status: status(state),
        intent,
        assigned: true,
    }
}

fn found(state: FoundState) -> Vec<Found> {
    vec![Found {
        task_id: "t".to_owned(),
        state,
    }]
}

fn brief(action: &Action) -> String {
    match action {
        Action::Save(record) => format!(
            "save {:?} {}{}",
            record.intent,
            record.status.state,
            if record.assigned { "" } else { " unassigned" }
        ),
        Action::Forget { .. } => "forget".to_owned(),
        Action::SaveFence(fence) => format!("fence {}/{}", fence.term, fence.index),
        Action::Prepare(preparation) => {
            format!("prepare with {} secrets", preparation.secrets.len())
        }
        Action::Start { .. } => "start".to_owned(),
        Action::Adopt { .. } => "adopt".to_owned(),
        Action::Stop { .. } => "stop".to_owned(),
        Action::Release { .. } => "release".to_owned(),
        Action::Remove { .. } => "remove".to_owned(),
        Action::Program { endpoints, .. } => format!("program {}", endpoints.version),
        Action::Unprogram { .. } => "unprogram".to_owned(),
        Action::Report(updates) => {
            let states: Vec<String> = updates
                .iter()
                .map(|(_, status)| {
                    let error = if status.error.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", status.error)
                    };
                    format!("{}{error}", status.state)
                })
                .collect();
            format!("report {}", states.join(", "))
        }
        Action::Acknowledge { results_in } => format!("acknowledge {results_in}"),
        Action::Resync { .. } => "resync".to_owned(),
        Action::Leave { .. } => "leave".to_owned(),
    }
}

#[test]
fn a_task_is_prepared_started_and_reported_each_step_saved_before_it_is_taken() {
    let mut bench = Bench::new();
    assert_eq!(bench.session(), ["fence 1/0"]);
    assert_eq!(
        bench.complete(vec![change(task())]),
        [
            "fence 1/10",
            "save Prepare preparing",
            "prepare with 0 secrets",
            "report preparing",
            "acknowledge 1"
        ]
    );
    assert_eq!(
        bench.task(Happened::Prepared),
        ["save Start starting", "start", "report starting"]
    );
    assert_eq!(bench.task(started()), ["report starting"]);
    assert_eq!(
        bench.task(Happened::Healthy),
        ["save Start running", "report running"]
    );
    assert_eq!(
        bench.task(ended(0)),
        ["save Start complete", "release", "report complete"]
    );
    bench.index += 1;
    assert_eq!(
        bench.change(vec![Change::Remove {
            kind: ItemKind::Task,
            id: "t".to_owned()
        }]),
        [
            "fence 1/11",
            "save Remove complete unassigned",
            "remove",
            "acknowledge 2"
        ]
    );
    assert_eq!(bench.task(Happened::Removed), ["forget"]);
    assert_eq!(bench.worker.assigned().count(), 0);
}

#[test]
fn a_task_that_is_to_be_ready_waits_for_the_order_to_run() {
    let mut bench = Bench::new();
    bench.session();
    bench.complete(vec![to_be(DesiredState::Ready)]);
    assert_eq!(bench.task(Happened::Prepared), ["report ready"]);
    assert_eq!(
        bench.change(vec![to_be(DesiredState::Running)]),
        [
            "save Start starting",
            "start",
            "report starting",
            "acknowledge 2"
        ]
    );
}

#[test]
fn a_task_waits_for_its_secrets() {
    let mut bench = Bench::new();
    bench.session();
    let spec = TaskSpec {
        container_spec: Some(ContainerSpec {
            secrets: vec![SecretReference {
                secret_id: "s".to_owned(),
                ..SecretReference::default()
            }],
            ..ContainerSpec::default()
        }),
        ..TaskSpec::default()
    };
    let needs = Task {
        spec: Arc::new(spec),
        ..task()
    };
    assert_eq!(
        bench.complete(vec![change(needs)]),
        [
            "fence 1/10",
            "save Accept accepted",
            "report accepted",
            "acknowledge 1"
        ]
    );
    let secret = Change::Secret(Arc::new(Secret {
        id: "s".to_owned(),
        ..Secret::default()
    }));
    assert_eq!(
        bench.change(vec![secret]),
        [
            "save Prepare preparing",
            "prepare with 1 secrets",
            "report preparing",
            "acknowledge 2"
        ]
    );
}

#[test]
fn an_older_term_an_older_state_and_another_nodes_task_end_the_session() {
    let older: [fn(&mut Assignments); 3] = [
        |message| message.term = 0,
        |message| message.index = 9,
        |message| {
            message.changes = vec![change(Task {
                node_id: "another".to_owned(),
                ..task()
            })];
        },
    ];
    for spoil in older {
        let mut bench = Bench::running(task());
        let mut message = bench.message(AssignmentsKind::Complete, vec![]);
        spoil(&mut message);
        assert_eq!(bench.tell(Input::Assignments(message)), ["leave"]);
        // What comes after on the same stream counts no more.
        assert_eq!(bench.complete(vec![]), Vec::<String>::new());
    }
    let mut bench = Bench::running(task());
    bench.term = 0;
    assert_eq!(bench.session(), ["leave"]);
}

#[test]
fn the_fence_outlives_the_agent() {
    let fence = Fence { term: 4, index: 70 };
    let mut bench = Bench::restarted(fence, Vec::new(), Vec::new());
    bench.term = 3;
    assert_eq!(bench.session(), ["leave"]);
    bench.term = 4;
    assert_eq!(bench.session(), Vec::<String>::new());
    bench.index = 69;
    assert_eq!(bench.complete(vec![change(task())]), ["leave"]);
}

#[test]
fn a_gap_in_the_chain_is_asked_for_again_and_what_follows_it_ignored() {
    let mut bench = Bench::running(task());
    bench.message(AssignmentsKind::Incremental, vec![]);
    assert_eq!(bench.change(vec![]), ["resync"]);
    assert_eq!(
        bench.change(vec![to_be(DesiredState::Remove)]),
        Vec::<String>::new()
    );
    assert_eq!(bench.complete(vec![change(task())]), ["acknowledge 5"]);
}

#[test]
fn an_empty_complete_set_that_would_stop_containers_is_asked_for_twice() {
    let mut bench = Bench::running(task());
    assert_eq!(bench.complete(vec![]), ["resync"]);
    assert_eq!(
        bench.complete(vec![]),
        ["save Stop running unassigned", "stop", "acknowledge 3"]
    );
}

#[test]
fn containers_go_on_without_a_session_and_everything_is_reported_on_the_next() {
    let mut bench = Bench::running(task());
    assert_eq!(bench.tell(Input::SessionDown), Vec::<String>::new());
    bench.time = 3_600_000;
    assert_eq!(bench.tell(Input::Time), Vec::<String>::new());
    bench.term = 2;
    assert_eq!(bench.session(), ["fence 2/10", "report running"]);
    assert_eq!(bench.complete(vec![change(task())]), ["acknowledge 2"]);
}

#[test]
fn a_task_on_a_network_is_stopped_only_when_nobody_sends_to_it() {
    let mut bench = Bench::new();
    bench.session();
    bench.complete(vec![network(), endpoints(1), change(networked())]);
    bench.task(Happened::Prepared);
    bench.task(started());
    bench.task(Happened::Healthy);
    let stop = Task {
        desired: DesiredState::Shutdown,
        ..networked()
    };
    assert_eq!(
        bench.change(vec![change(stop.clone())]),
        ["save Start running"]
    );
    assert_eq!(bench.worker.wake_at(), Some(Time(UNBIND_WAIT_MS)));
    let unbound = Change::Unbound {
        task_id: "t".to_owned(),
    };
    assert_eq!(bench.change(vec![unbound]), ["save Stop running", "stop"]);
    assert_eq!(
        bench.task(ended(143)),
        ["save Stop shutdown", "release", "report shutdown"]
    );
}

#[test]
fn the_wait_for_balancers_is_bounded() {
    let mut bench = Bench::new();
    bench.session();
    bench.complete(vec![network(), endpoints(1), change(networked())]);
    bench.task(Happened::Prepared);
    bench.task(started());
    bench.task(Happened::Healthy);
    let stop = Task {
        desired: DesiredState::Remove,
        ..networked()
    };
    bench.change(vec![change(stop)]);
    bench.time = UNBIND_WAIT_MS - 1;
    assert_eq!(bench.tell(Input::Time), Vec::<String>::new());
    bench.time = UNBIND_WAIT_MS;
    assert_eq!(bench.tell(Input::Time), ["save Stop running", "stop"]);
}

#[test]
fn an_acknowledgement_waits_until_the_balancers_are_programmed() {
    let mut bench = Bench::new();
    bench.session();
    assert_eq!(
        bench.complete(vec![network(), endpoints(1)]),
        ["fence 1/10", "program 1"]
    );
    assert_eq!(bench.change(vec![endpoints(2)]), ["program 2"]);
    let programmed = |version| Input::Programmed {
        network_id: "n".to_owned(),
        version,
    };
    assert_eq!(bench.tell(programmed(1)), Vec::<String>::new());
    assert_eq!(bench.tell(programmed(2)), ["acknowledge 2"]);
    let gone = [ItemKind::Endpoints, ItemKind::Network].map(|kind| Change::Remove {
        kind,
        id: "n".to_owned(),
    });
    assert_eq!(bench.change(gone.to_vec()), ["unprogram", "acknowledge 3"]);
}

#[test]
fn a_task_stopped_before_it_started_leaves_nothing() {
    let mut bench = Bench::new();
    bench.session();
    bench.complete(vec![change(task())]);
    assert_eq!(
        bench.change(vec![to_be(DesiredState::Shutdown)]),
        ["save Stop preparing", "stop", "acknowledge 2"]
    );
    assert_eq!(bench.task(Happened::Prepared), Vec::<String>::new());
    assert_eq!(
        bench.task(ended(0)),
        ["save Stop shutdown", "release", "report shutdown"]
    );
}

#[test]
fn how_a_container_ends_is_how_its_task_ends() {
    let mut bench = Bench::running(task());
    assert_eq!(
        bench.task(ended(3)),
        [
            "save Start failed",
            "release",
            "report failed (task: non-zero exit (3))"
        ]
    );
    let mut bench = Bench::running(task());
    let unhealthy = Happened::Unhealthy {
        error: "no answer".to_owned(),
    };
    assert_eq!(
        bench.task(unhealthy),
        ["save Stop running", "stop", "report running (no answer)"]
    );
    assert_eq!(
        bench.task(ended(143)),
        ["save Stop failed", "release", "report failed (no answer)"]
    );
    let mut bench = Bench::new();
    bench.session();
    bench.complete(vec![change(task())]);
    let not_prepared = Happened::NotPrepared {
        error: "no such image".to_owned(),
    };
    assert_eq!(
        bench.task(not_prepared),
        [
            "save Prepare rejected",
            "release",
            "report rejected (no such image)"
        ]
    );
}

#[test]
fn an_ended_state_written_by_a_manager_is_an_order_to_stop() {
    let mut bench = Bench::running(task());
    let given_up = Task {
        status: status(TaskState::Orphaned),
        ..task()
    };
    assert_eq!(
        bench.change(vec![change(given_up)]),
        ["save Stop running", "stop", "acknowledge 2"]
    );
}

#[test]
fn a_restarted_agent_goes_on_from_what_it_began_and_what_it_finds() {
    let exited = |exit_code| FoundState::Exited {
        exit_code,
        error: String::new(),
    };
    let none = || Vec::<Found>::new();
    let cases: [(TaskState, Intent, Vec<Found>, &[&str]); 11] = [
        // Nothing had been begun, or only the preparation: it is done (again) when a session brings what it needs.
        (
            TaskState::Accepted,
            Intent::Accept,
            none(),
            &["save Prepare preparing", "prepare with 0 secrets"],
        ),
        (
            TaskState::Ready,
            Intent::Prepare,
            found(FoundState::Created),
            &["save Prepare ready", "prepare with 0 secrets"],
        ),
        // It was about to be started and was not.
        (
            TaskState::Starting,
            Intent::Start,
            found(FoundState::Created),
            &["save Start starting", "start"],
        ),
        (
            TaskState::Running,
            Intent::Start,
            found(FoundState::Running),
            &["adopt"],
        ),
        (
            TaskState::Running,
            Intent::Start,
            found(exited(0)),
            &["save Start complete", "release"],
        ),
        (
            TaskState::Running,
            Intent::Start,
            found(exited(9)),
            &["save Start failed", "release"],
        ),
        // Lost: never a second time.
        (
            TaskState::Running,
            Intent::Start,
            none(),
            &["save Start failed", "release"],
        ),
        (
            TaskState::Running,
            Intent::Stop,
            found(exited(143)),
            &["save Stop shutdown", "release"],
        ),
        (
            TaskState::Running,
            Intent::Stop,
            none(),
            &["save Stop shutdown", "release"],
        ),
        (
            TaskState::Complete,
            Intent::Start,
            found(exited(0)),
            &["release"],
        ),
        (TaskState::Complete, Intent::Start, none(), &[]),
    ];
    for (state, intent, found, expected) in cases {
        let name = format!("{state} {intent:?} {found:?}");
        let mut bench = Bench::restarted(Fence::default(), vec![record(state, intent)], found);
        assert_eq!(bench.tell(Input::Time), expected, "{name}");
    }
}

#[test]
fn what_is_removed_half_is_removed_after_a_restart_and_retried_until_it_is_gone() {
    let record = Record {
        assigned: false,
        ..record(TaskState::Complete, Intent::Remove)
    };
    let exited = FoundState::Exited {
        exit_code: 0,
        error: String::new(),
    };
    let mut bench = Bench::restarted(Fence::default(), vec![record], found(exited));
    assert_eq!(
        bench.tell(Input::Time),
        ["release", "save Remove complete unassigned", "remove"]
    );
    let error = "device is busy".to_owned();
    assert_eq!(
        bench.task(Happened::NotRemoved { error }),
        Vec::<String>::new()
    );
    bench.time = bench.worker.wake_at().map_or(0, |at| at.0);
    assert_eq!(bench.tell(Input::Time), ["remove"]);
    assert_eq!(bench.task(Happened::Removed), ["forget"]);
}

#[test]
fn a_container_without_a_record_waits_for_the_managers_word() {
    let mut bench = Bench::restarted(Fence::default(), Vec::new(), found(FoundState::Running));
    assert_eq!(bench.tell(Input::Time), Vec::<String>::new());
    bench.session();
    let runs = Task {
        status: status(TaskState::Running),
        ..task()
    };
    assert_eq!(
        bench.complete(vec![change(runs)]),
        [
            "fence 1/10",
            "adopt",
            "save Start running",
            "report running",
            "acknowledge 1"
        ]
    );

    let mut bench = Bench::restarted(Fence::default(), Vec::new(), found(FoundState::Running));
    bench.session();
    let another = Task {
        id: "u".to_owned(),
        ..task()
    };
    let actions = bench.complete(vec![change(another)]);
    assert!(actions.contains(&"stop".to_owned()), "{actions:?}");
    assert_eq!(bench.task(ended(0)), ["release", "remove"]);
    assert_eq!(bench.task(Happened::Removed), ["forget"]);
}

#[test]
fn a_task_that_ran_here_and_of_which_nothing_is_left_is_not_run_again() {
    let mut bench = Bench::new();
    bench.session();
    let runs = Task {
        status: status(TaskState::Running),
        ..task()
    };
    assert_eq!(
        bench.complete(vec![change(runs)]),
        [
            "fence 1/10",
            "save Accept failed",
            "report failed (the node has lost the task's container)",
            "acknowledge 1"
        ]
    );
}
