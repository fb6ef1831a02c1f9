//! Whatever happens in whatever order: when it is quiet, what is desired is what is.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::{
    GlobalService, NodeAvailability, NodeState, ReplicatedService, RestartPolicy, ServiceSpec,
    UpdateConfig,
};
use cluster_api::{DesiredState, RolloutState, Task, TaskState};
use proptest::prelude::*;

use super::super::slot::{SlotKey, is_live};
use super::cluster::Cluster;
use crate::store::Store;

const NODES: usize = 4;
const SERVICE: &str = "web";

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Event {
    Scale(u64),
    Update {
        tag: &'static str,
        start_first: bool,
        parallelism: u64,
        action: &'static str,
        delay: i64,
    },
    Rollback,
    /// One of the tasks that run ends by itself.
    End(usize, TaskState),
    Node(usize, NodeState, NodeAvailability),
    RemoveNode(usize),
    FailOver,
    Pass(u64),
}

fn tag() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just("1"),
        3 => Just("2"),
        2 => Just("slow3s"),
        2 => Just("slowstop3s"),
        1 => Just("crash"),
        1 => Just("crash3s"),
        1 => Just("missing"),
        1 => Just("once3s"),
        1 => Just("stuck"),
    ]
}

fn update(tags: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Event> {
    let actions = prop_oneof![Just("pause"), Just("continue"), Just("rollback")];
    (tags, any::<bool>(), 0..4_u64, actions, 0..3_i64).prop_map(
        |(tag, start_first, parallelism, action, delay)| Event::Update {
            tag,
            start_first,
            parallelism,
            action,
            delay,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let ends = prop_oneof![Just(TaskState::Failed), Just(TaskState::Complete)];
    let states = prop_oneof![Just(NodeState::Ready), Just(NodeState::Down)];
    let availabilities = prop_oneof![
        Just(NodeAvailability::Active),
        Just(NodeAvailability::Pause),
        Just(NodeAvailability::Drain),
    ];
    prop_oneof![
        2 => (0..7_u64).prop_map(Event::Scale),
        4 => update(tag()),
        1 => Just(Event::Rollback),
        3 => (0..8_usize, ends).prop_map(|(task, state)| Event::End(task, state)),
        3 => (0..NODES, states, availabilities).prop_map(|(n, s, a)| Event::Node(n, s, a)),
        1 => (0..NODES).prop_map(Event::RemoveNode),
        3 => Just(Event::FailOver),
        5 => (0..15_000_u64).prop_map(Event::Pass),
    ]
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn start(global: bool, change: impl FnOnce(&mut ServiceSpec)) -> Cluster {
    let mut cluster = Cluster::new(7);
    for node in 0..NODES {
        cluster.node(&name(node), |_| {});
    }
    cluster.deploy(SERVICE, |spec| {
        if global {
            spec.mode.global = Some(GlobalService {});
        } else {
            spec.mode.replicated = Some(ReplicatedService { replicas: Some(4) });
        }
        set_tag(spec, "1");
        change(spec);
    });
    cluster
}

fn set_tag(spec: &mut ServiceSpec, tag: &str) {
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.image = format!("{SERVICE}:{tag}");
}

fn running(store: &Store) -> Vec<Arc<Task>> {
    let runs = |task: &&Arc<Task>| task.status.state == TaskState::Running;
    store.tasks().filter(runs).cloned().collect()
}

fn happen(cluster: &mut Cluster, event: &Event) {
    match event {
        Event::Scale(replicas) => cluster.deploy(SERVICE, |spec| {
            if let Some(replicated) = &mut spec.mode.replicated {
                replicated.replicas = Some(*replicas);
            }
        }),
        Event::Update {
            tag,
            start_first,
            parallelism,
            action,
            delay,
        } => cluster.deploy(SERVICE, |spec| {
            set_tag(spec, tag);
            spec.update_config = Some(UpdateConfig {
                parallelism: *parallelism,
                delay: *delay * 1_000_000_000,
                failure_action: (*action).to_owned(),
                order: if *start_first { "start-first" } else { "" }.to_owned(),
                ..UpdateConfig::default()
            });
        }),
        Event::Rollback => {
            let service = cluster.service(SERVICE).expect("always there");
            if service.previous_spec.is_some() {
                cluster.roll_back(SERVICE);
            }
        }
        Event::End(task, state) => {
            let tasks = running(&cluster.store);
            if let Some(task) = tasks.get(task % tasks.len().max(1)) {
                cluster.report(task, *state, "");
            }
        }
        Event::Node(node, state, availability) => cluster.node(&name(*node), |node| {
            node.status.state = *state;
            node.spec.availability = *availability;
        }),
        Event::RemoveNode(node) => cluster.remove_node(&name(*node)),
        Event::FailOver => cluster.fail_over(),
        Event::Pass(milliseconds) => cluster.run(*milliseconds),
    }
}

/// What must hold at any moment.
fn is_sane(store: &Store) {
    let mut live: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in store.tasks().filter(|task| is_live(task)) {
        live.entry(SlotKey::of(task)).or_default().push(task);
    }
    for (slot, tasks) in live {
        assert!(tasks.len() <= 3, "slot {slot} has {} tasks", tasks.len());
        let mut starting: Vec<u64> = tasks
            .iter()
            .filter(|task| {
                task.desired == DesiredState::Running && task.status.state < TaskState::Running
            })
            .map(|task| task.spec_version)
            .collect();
        starting.sort_unstable();
        assert!(
            starting.windows(2).all(|pair| pair[0] != pair[1]),
            "slot {slot} starts two tasks of one spec: {tasks:?}"
        );
    }
}

/// After all is well again, exactly what is wanted runs, and nothing is left.
fn is_settled(cluster: &Cluster, global: bool) {
    let service = cluster.service(SERVICE).expect("always there");
    let replicas = service.spec.mode.replicated.as_ref();
    let wanted: Vec<SlotKey> = if global {
        let nodes = cluster.store.nodes();
        nodes.map(|node| SlotKey::Node(node.id.clone())).collect()
    } else {
        let replicas = replicas.and_then(|replicated| replicated.replicas);
        (1..=replicas.unwrap_or(1)).map(SlotKey::Number).collect()
    };
    let mut slots: Vec<SlotKey> = Vec::new();
    for task in cluster.store.tasks() {
        let state = task.status.state;
        assert_eq!(
            is_live(task),
            state == TaskState::Running,
            "{} is {state} and is to be {}\n{}",
            task.name(),
            task.desired,
            cluster.log.join("\n")
        );
        assert!(
            task.desired != DesiredState::Remove,
            "{} is not deleted",
            task.name()
        );
        if is_live(task) {
            let image = task.spec.container_spec.as_ref().map(|spec| &spec.image);
            assert_eq!(image, Some(&format!("{SERVICE}:good")));
            slots.push(SlotKey::of(task));
        }
    }
    slots.sort();
    if global {
        assert_eq!(slots, wanted);
    } else {
        // The lowest numbers are kept where there was a choice, but holes are not filled by moving tasks.
        assert_eq!(slots.len(), wanted.len(), "{slots:?}");
        slots.dedup();
        assert_eq!(slots.len(), wanted.len(), "two tasks in one slot");
    }
    let rollout = service.rollout.as_ref();
    assert!(
        rollout.is_none_or(|rollout| matches!(
            rollout.state,
            RolloutState::Completed | RolloutState::RollbackCompleted
        )),
        "{rollout:?}\n{}",
        cluster.log.join("\n")
    );
    let mut per_slot: BTreeMap<SlotKey, usize> = BTreeMap::new();
    for task in cluster.store.tasks() {
        *per_slot.entry(SlotKey::of(task)).or_default() += 1;
    }
    assert!(per_slot.values().all(|tasks| *tasks <= 5), "{per_slot:?}");
}

fn heal(cluster: &mut Cluster) {
    for node in 0..NODES {
        cluster.node(&name(node), |node| {
            node.status.state = NodeState::Ready;
            node.spec.availability = NodeAvailability::Active;
        });
    }
    // Tasks of `stuck` images would never end.
    let stuck = |task: &&Arc<Task>| {
        super::cluster::tag_of(task) == "stuck"
            && !task.status.state.is_terminal()
            && task.status.state >= TaskState::Assigned
    };
    cluster.deploy(SERVICE, |spec| set_tag(spec, "good"));
    cluster.run(3_600_000);
    let tasks: Vec<_> = cluster.store.tasks().filter(stuck).cloned().collect();
    for task in tasks {
        assert!(!is_live(&task));
        cluster.report(&task, TaskState::Shutdown, "");
    }
    cluster.run(60_000);
}

fn storm(events: &[Event], global: bool) {
    let mut cluster = start(global, |_| {});
    cluster.watch = Some(is_sane);
    cluster.run(1000);
    for event in events {
        happen(&mut cluster, event);
    }
    heal(&mut cluster);
    is_settled(&cluster, global);
    // Nothing more is to be done, and a new leader finds nothing either.
    cluster.log.clear();
    cluster.fail_over();
    cluster.run(3_600_000);
    assert_eq!(cluster.log, Vec::<String>::new());
}

/// Slots of which no task runs.
fn down(store: &Store, replicas: u64) -> u64 {
    let mut up: Vec<u64> = running(store).iter().map(|task| task.slot).collect();
    up.sort_unstable();
    up.dedup();
    replicas - up.len() as u64
}

fn healthy_tag() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("1"),
        Just("2"),
        Just("slow3s"),
        Just("slowstop3s"),
        Just("slow5s")
    ]
}

/// Updates, leaders and time only.
fn rollout_events() -> impl Strategy<Value = Vec<(bool, &'static str, u64)>> {
    prop::collection::vec((any::<bool>(), healthy_tag(), 0..12_000_u64), 1..12)
}

/// Fewer than proptest's default: each case is a day in the life of a cluster.
fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig::with_cases(asked.and_then(|cases| cases.parse().ok()).unwrap_or(96))
}

proptest! {
    #![proptest_config(cases())]


    #[test]
    fn replicated_services_settle(events in prop::collection::vec(event(), 1..40)) {
        storm(&events, false);
    }

    #[test]
    fn global_services_settle(events in prop::collection::vec(event(), 1..40)) {
        storm(&events, true);
    }

    #[test]
    fn stop_first_takes_down_no_more_slots_than_it_may(
        parallelism in 1..3_u64,
        events in rollout_events(),
    ) {
        let mut cluster = start(false, |spec| {
            spec.update_config = Some(UpdateConfig { parallelism, ..UpdateConfig::default() });
        });
        cluster.run(10_000);
        for (fails_over, tag, milliseconds) in events {
            if fails_over {
                cluster.fail_over();
            } else {
                cluster.deploy(SERVICE, |spec| set_tag(spec, tag));
            }
            for _ in 0..milliseconds / 500 {
                cluster.run(500);
                let down = down(&cluster.store, 4);
                prop_assert!(down <= parallelism, "{down} down\n{}", cluster.log.join("\n"));
            }
        }
    }

    #[test]
    fn start_first_never_runs_less_than_what_is_wanted(events in rollout_events()) {
        let mut cluster = start(false, |spec| {
            spec.update_config = Some(UpdateConfig {
                parallelism: 2,
                order: "start-first".to_owned(),
                ..UpdateConfig::default()
            });
        });
        cluster.run(10_000);
        cluster.watch = Some(|store| assert_eq!(down(store, 4), 0));
        for (fails_over, tag, milliseconds) in events {
            if fails_over {
                cluster.fail_over();
            } else {
                cluster.deploy(SERVICE, |spec| set_tag(spec, tag));
            }
            cluster.run(milliseconds);
        }
    }

    #[test]
    fn restarts_are_counted_whoever_leads(
        limit in 1..5_u64,
        fail_overs in prop::collection::vec(0..3000_u64, 0..12),
    ) {
        let mut cluster = start(false, |spec| {
            set_tag(spec, "crash");
            spec.mode.replicated = Some(ReplicatedService { replicas: Some(1) });
            spec.task_template.restart_policy = Some(RestartPolicy {
                delay: Some(1_000_000_000),
                max_attempts: Some(limit),
                ..RestartPolicy::default()
            });
        });
        for milliseconds in fail_overs {
            cluster.run(milliseconds);
            cluster.fail_over();
        }
        cluster.run(60_000);
        let made = cluster.log.iter().filter(|line| line.contains(" + ")).count() as u64;
        prop_assert_eq!(made, limit + 1);
    }
}
