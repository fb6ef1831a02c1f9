//! The store's promises, on random transactions over few ids and names, so that they get in each other's way.

mod scale;

use std::sync::Arc;

use agent_api::swarm::{
    Annotations, ConfigReference, ContainerSpec, NetworkAttachmentConfig, SecretReference,
    ServiceSpec, TaskSpec,
};
use cluster_api::{
    Attachment, Cluster, Config, DesiredState, Kind, Meta, Network, Node, Object, Secret, Service,
    Task, TaskState, TaskStatus, Timestamp,
};
use proptest::prelude::*;

use super::{Conflict, Store, StoreAction, StoreEvent, Transaction};

const IDS: usize = 5;

fn id(kind: Kind, number: usize) -> String {
    format!("{kind}{}", number % IDS)
}

fn annotations(number: usize) -> Annotations {
    Annotations {
        name: format!("name{}", number % 4),
        ..Annotations::default()
    }
}

fn spec(number: usize) -> TaskSpec {
    TaskSpec {
        container_spec: Some(ContainerSpec {
            image: format!("image{}", number % 3),
            secrets: vec![SecretReference {
                secret_id: id(Kind::Secret, number),
                ..SecretReference::default()
            }],
            configs: vec![ConfigReference {
                config_id: id(Kind::Config, number / 2),
                ..ConfigReference::default()
            }],
            ..ContainerSpec::default()
        }),
        networks: vec![NetworkAttachmentConfig {
            target: id(Kind::Network, number),
            ..NetworkAttachmentConfig::default()
        }],
        ..TaskSpec::default()
    }
}

/// An object of some kind, all its members following from the two numbers.
fn object(kind: Kind, which: usize, what: usize) -> Object {
    let id = id(kind, which);
    let meta = Meta::default();
    match kind {
        Kind::Node => Node {
            id,
            meta,
            ..Node::default()
        }
        .into(),
        Kind::Service => {
            let service = ServiceSpec {
                annotations: annotations(what),
                task_template: spec(what),
                ..ServiceSpec::default()
            };
            Service {
                id,
                meta,
                spec: Arc::new(service),
                pending_delete: what.is_multiple_of(5),
                ..Service::default()
            }
            .into()
        }
        Kind::Task => Task {
            id,
            meta,
            service_id: self::id(Kind::Service, what),
            slot: (what % 3) as u64,
            node_id: if what.is_multiple_of(4) {
                String::new()
            } else {
                self::id(Kind::Node, what)
            },
            spec: Arc::new(spec(what)),
            networks: vec![Attachment {
                network_id: self::id(Kind::Network, what / 3),
                ..Attachment::default()
            }],
            ..Task::default()
        }
        .into(),
        Kind::Network => {
            let mut network = Network {
                id,
                meta,
                ..Network::default()
            };
            network.spec.annotations = annotations(what);
            network.pending_delete = what.is_multiple_of(7);
            network.into()
        }
        Kind::Config => {
            let mut config = Config {
                id,
                meta,
                ..Config::default()
            };
            config.spec.annotations = annotations(what);
            config.into()
        }
        Kind::Secret | Kind::Cluster => {
            let mut secret = Secret {
                id: self::id(Kind::Secret, which),
                meta,
                ..Secret::default()
            };
            secret.spec.annotations = annotations(what);
            secret.into()
        }
    }
}

/// An action before it is known which version its object has.
#[derive(Debug, Clone)]
enum Draft {
    Create(Object),
    /// Stale ones name a version that never was.
    Update(Object, bool),
    Remove(Kind, String, bool),
    Status(String, TaskState),
    Desired(String, DesiredState),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Node,
        Kind::Service,
        Kind::Task,
        Kind::Task,
        Kind::Network,
        Kind::Secret,
        Kind::Config,
    ])
}

fn draft() -> impl Strategy<Value = Draft> {
    let desired = [
        DesiredState::Ready,
        DesiredState::Running,
        DesiredState::Shutdown,
        DesiredState::Remove,
    ];
    let numbers = || (kind(), 0..IDS, 0..60_usize);
    let stale = || prop::bool::weighted(0.1);
    prop_oneof![
        5 => numbers().prop_map(|(kind, which, what)| Draft::Create(object(kind, which, what))),
        4 => (numbers(), stale())
            .prop_map(|((kind, which, what), stale)| Draft::Update(object(kind, which, what), stale)),
        2 => (kind(), 0..IDS, stale())
            .prop_map(|(kind, which, stale)| Draft::Remove(kind, id(kind, which), stale)),
        2 => (0..IDS, prop::sample::select(TaskState::ALL.to_vec()))
            .prop_map(|(which, state)| Draft::Status(id(Kind::Task, which), state)),
        1 => (0..IDS, prop::sample::select(desired.to_vec()))
            .prop_map(|(which, state)| Draft::Desired(id(Kind::Task, which), state)),
    ]
}

fn drafts() -> impl Strategy<Value = Vec<Vec<Draft>>> {
    prop::collection::vec(prop::collection::vec(draft(), 1..5), 1..40)
}

/// The transaction a writer makes who sees `store`.
fn write(store: &Store, index: u64, drafts: &[Draft]) -> Transaction {
    let mut transaction = Transaction::new(Timestamp(i64::try_from(index).unwrap() * 1000));
    let seen = |kind, id: &str, stale: bool| match store.object(kind, id) {
        Some(object) if !stale => object.meta().version,
        _ => 999_999,
    };
    for draft in drafts {
        transaction.actions.push(match draft.clone() {
            Draft::Create(object) => StoreAction::Create(object),
            Draft::Update(mut object, stale) => {
                object.set_meta(Meta {
                    version: seen(object.kind(), object.id(), stale),
                    ..Meta::default()
                });
                StoreAction::Update(object)
            }
            Draft::Remove(kind, id, stale) => StoreAction::Remove {
                version: seen(kind, &id, stale),
                kind,
                id,
            },
            Draft::Status(id, state) => StoreAction::TaskStatus {
                id,
                status: TaskStatus {
                    state,
                    ..TaskStatus::default()
                },
            },
            Draft::Desired(id, desired) => StoreAction::TaskDesired { id, desired },
        });
    }
    transaction
}

/// Through bytes, as a transaction comes out of the log of another manager.
fn from_log(transaction: &Transaction) -> Transaction {
    serde_json::from_slice(&serde_json::to_vec(transaction).unwrap()).unwrap()
}

fn run(
    drafts: &[Vec<Draft>],
    mut each: impl FnMut(&Store, &Store, &Result<Vec<StoreEvent>, Conflict>),
) -> Store {
    let mut store = Store::default();
    for (draft, index) in drafts.iter().zip(1..) {
        let before = store.clone();
        let transaction = write(&store, index, draft);
        let result = store.apply(index, &transaction);
        each(&before, &store, &result);
    }
    store
}

proptest! {
    #[test]
    fn a_transaction_happens_whole_or_not_at_all(drafts in drafts()) {
        run(&drafts, |before, after, result| {
            let mut expected = before.clone();
            expected.skip_to(after.index());
            match result {
                Err(_) => assert_eq!(&expected, after),
                Ok(events) => assert_eq!(events.is_empty(), &expected == after),
            }
        });
    }

    #[test]
    fn indexes_and_names_are_those_of_the_objects(drafts in drafts()) {
        run(&drafts, |_, store, _| {
            // A restored store has built all of them anew.
            assert_eq!(&Store::restore(&store.snapshot()).unwrap(), store);
        });
    }

    #[test]
    fn managers_that_apply_the_same_log_are_equal(drafts in drafts(), restored_at in 0_usize..40) {
        let mut leader = Store::default();
        let mut follower = Store::default();
        for (number, (draft, index)) in drafts.iter().zip(1..).enumerate() {
            let transaction = write(&leader, index, draft);
            if number == restored_at {
                follower = Store::restore(&follower.snapshot()).unwrap();
            }
            let told = follower.apply(index, &from_log(&transaction));
            prop_assert_eq!(leader.apply(index, &transaction), told);
            prop_assert_eq!(&leader, &follower);
            prop_assert_eq!(leader.snapshot().len(), follower.snapshot().len());
        }
    }

    #[test]
    fn events_say_what_changed(drafts in drafts()) {
        run(&drafts, |before, after, result| {
            for event in result.iter().flatten() {
                let object = event.object();
                if let StoreEvent::Updated { old, new } = event {
                    assert_eq!((old.kind(), old.id()), (new.kind(), new.id()));
                    assert_eq!(new.meta().version, after.index());
                    assert_eq!(new.meta().created_at, old.meta().created_at);
                }
                assert_eq!(event.kind(), object.kind());
            }
            // What no event names did not change.
            let touched = |kind: Kind, id: &str| {
                result.iter().flatten().any(|event| event.kind() == kind && event.object().id() == id)
            };
            for kind in [Kind::Node, Kind::Service, Kind::Task, Kind::Network, Kind::Secret, Kind::Config] {
                for which in 0..IDS {
                    let id = id(kind, which);
                    if !touched(kind, &id) {
                        assert_eq!(before.object(kind, &id), after.object(kind, &id));
                    }
                }
            }
        });
    }

    #[test]
    fn states_of_tasks_only_grow(drafts in drafts()) {
        run(&drafts, |_, _, result| {
            for event in result.iter().flatten() {
                let StoreEvent::Updated { old: Object::Task(old), new: Object::Task(new) } = event else {
                    continue;
                };
                // An update may write anything; a report may not.
                if old.spec == new.spec && old.slot == new.slot && old.node_id == new.node_id {
                    assert!(
                        new.status.state == old.status.state
                            || old.status.state.may_become(new.status.state)
                            || new.status.state == TaskState::New
                    );
                }
            }
        });
    }

    #[test]
    fn reports_in_any_order_end_in_the_greatest_state(
        mut states in prop::collection::vec(0_usize..8, 1..8), seed in any::<u64>()
    ) {
        let final_state = |states: &[usize]| {
            let mut store = Store::default();
            let mut create = Transaction::default();
            create.create(Task { id: "t".into(), ..Task::default() });
            store.apply(1, &create).unwrap();
            for (state, index) in states.iter().zip(2..) {
                let mut report = Transaction::default();
                let state = TaskState::ALL[*state];
                report.task_status("t", TaskStatus { state, ..TaskStatus::default() });
                store.apply(index, &report).unwrap();
            }
            store.task("t").unwrap().status.state
        };
        let one = final_state(&states);
        // A rotation and a reversal reach orders enough.
        let turn = usize::try_from(seed % 7).unwrap() % states.len();
        states.rotate_left(turn);
        prop_assert_eq!(one, final_state(&states));
        states.reverse();
        prop_assert_eq!(one, final_state(&states));
    }
}

fn applied(
    store: &mut Store,
    index: u64,
    fill: impl FnOnce(&mut Transaction),
) -> Result<Vec<StoreEvent>, Conflict> {
    let mut transaction = Transaction::new(Timestamp(1));
    fill(&mut transaction);
    store.apply(index, &transaction)
}

#[test]
fn conflicts_name_the_object() {
    let mut store = Store::default();
    applied(&mut store, 5, |t| t.create(object(Kind::Secret, 0, 1))).unwrap();
    let conflict = |store: &mut Store, fill: fn(&mut Transaction)| {
        applied(store, 6, fill).unwrap_err().to_string()
    };
    assert_eq!(
        conflict(&mut store, |t| t.create(object(Kind::Secret, 0, 2))),
        "secret secret0 already exists"
    );
    assert_eq!(
        conflict(&mut store, |t| t.create(object(Kind::Secret, 1, 1))),
        "a secret named name1 already exists"
    );
    assert_eq!(
        conflict(&mut store, |t| t.update(object(Kind::Secret, 3, 1))),
        "secret secret3 does not exist"
    );
    assert_eq!(
        conflict(&mut store, |t| t.update(object(Kind::Secret, 0, 2))),
        "secret secret0 was changed meanwhile: version 0 was seen, 5 is current"
    );
}

#[test]
fn the_name_of_what_is_being_removed_is_free() {
    let mut store = Store::default();
    applied(&mut store, 1, |t| t.create(object(Kind::Service, 0, 1))).unwrap();
    let mut leaving = Service::clone(store.service("service0").unwrap());
    leaving.pending_delete = true;
    applied(&mut store, 2, |t| t.update(leaving)).unwrap();
    assert_eq!(store.id_of(Kind::Service, "name1"), None);
    applied(&mut store, 3, |t| t.create(object(Kind::Service, 1, 1))).unwrap();
    assert_eq!(store.id_of(Kind::Service, "name1"), Some("service1"));
    // The old one going for good does not take the name from the new one.
    let old = store.object(Kind::Service, "service0").unwrap();
    applied(&mut store, 4, |t| t.remove(&old)).unwrap();
    assert_eq!(store.id_of(Kind::Service, "name1"), Some("service1"));
}

#[test]
fn reports_about_tasks_that_are_gone_change_nothing() {
    let mut store = Store::default();
    let events = applied(&mut store, 1, |t| {
        t.task_status("gone", TaskStatus::default());
        t.task_desired("gone", DesiredState::Shutdown);
        t.create(object(Kind::Node, 0, 0));
    });
    assert_eq!(events.unwrap().len(), 1);
}

#[test]
fn damaged_snapshots_are_refused_with_the_place() {
    let mut store = Store::default();
    applied(&mut store, 7, |t| {
        t.create(object(Kind::Node, 0, 0));
        t.create(object(Kind::Task, 0, 1));
    })
    .unwrap();
    let bytes = store.snapshot();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let refused = |text: &str| Store::restore(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused(""), "read line 1 of a snapshot of the store");
    assert_eq!(
        refused(&text.replacen("\"format\":3", "\"format\":9", 1)),
        "the snapshot of the store has format 9, this version of muster reads formats 2 to 3"
    );
    let cut = text.lines().take(3).collect::<Vec<_>>().join("\n");
    assert_eq!(
        refused(&cut),
        "the snapshot of the store says it has 5 lines and has 2"
    );
    let lost = text
        .lines()
        .filter(|line| !line.starts_with("{\"spec\""))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(
        refused(&lost),
        "line 5 of a snapshot of the store refers to spec 0, which is not there"
    );
    for end in 0..bytes.len() - 1 {
        assert!(Store::restore(&bytes[..end]).is_err(), "cut off at {end}");
    }
}

/// As it was written before removed nodes were remembered.
#[test]
fn a_snapshot_of_format_2_is_read() {
    let text = concat!(
        r#"{"format":2,"index":9,"lines":1}"#,
        "\n",
        r#"{"object":{"node":{"id":"n1","meta":{"version":3,"created_at":0,"updated_at":0},"spec":{"Name":"","Labels":null,"Role":"worker","Availability":"active"},"description":null,"status":{"State":"unknown","Message":"","Addr":""},"status_since":0,"role":"worker","member":null,"data_path_addr":null,"attachments":{}}}}"#,
        "\n",
    );
    let mut store = Store::restore(text.as_bytes()).unwrap();
    assert_eq!((store.index(), store.nodes().count()), (9, 1));
    let node = Object::Node(store.node("n1").unwrap().clone());
    applied(&mut store, 10, |t| t.remove(&node)).unwrap();
    assert!(store.was_removed("n1"));
}

#[test]
fn a_removed_node_is_remembered_as_long_as_its_certificate_may_be_valid() {
    const DAY: i64 = 24 * 3_600_000_000_000;
    let mut store = Store::default();
    let mut days = 0;
    let mut index = 0;
    let mut apply = |store: &mut Store, day: i64, change: &dyn Fn(&mut Transaction)| {
        assert!(day >= std::mem::replace(&mut days, day));
        index += 1;
        let mut transaction = Transaction::new(Timestamp(day * DAY));
        change(&mut transaction);
        store.apply(index, &transaction).unwrap();
    };
    let mut cluster = Cluster {
        id: "c".into(),
        ..Cluster::default()
    };
    cluster.spec.ca_config.node_cert_expiry = 30 * DAY.unsigned_abs();
    let node = |id: &str| Node {
        id: id.into(),
        ..Node::default()
    };
    apply(&mut store, 0, &|t| t.create(cluster.clone()));
    for id in ["a", "b", "c"] {
        apply(&mut store, 0, &|t| t.create(node(id)));
    }
    // A shorter life does not end the certificates there are.
    let mut shorter = Cluster::clone(store.cluster().unwrap());
    shorter.spec.ca_config.node_cert_expiry = DAY.unsigned_abs();
    apply(&mut store, 1, &|t| t.update(shorter.clone()));
    let a = Object::Node(store.node("a").unwrap().clone());
    apply(&mut store, 10, &|t| t.remove(&a));
    assert!(store.was_removed("a") && !store.was_removed("b"));

    let mut store = Store::restore(&store.snapshot()).unwrap();
    let b = Object::Node(store.node("b").unwrap().clone());
    apply(&mut store, 40, &|t| t.remove(&b));
    assert!(store.was_removed("a") && store.was_removed("b"));
    let c = Object::Node(store.node("c").unwrap().clone());
    apply(&mut store, 42, &|t| t.remove(&c));
    assert_eq!(store.removed_nodes().collect::<Vec<_>>(), ["b", "c"]);
    // Joined again: it is a node like any other.
    apply(&mut store, 43, &|t| t.create(node("b")));
    assert!(!store.was_removed("b"));
}

#[test]
fn tasks_of_one_service_share_their_spec() {
    let mut store = Store::default();
    for number in 0..4_u64 {
        let mut task = Task {
            id: format!("t{number}"),
            service_id: "s".into(),
            ..Task::default()
        };
        task.spec = Arc::new(spec(usize::from(number == 3)));
        applied(&mut store, number + 1, |t| t.create(task)).unwrap();
    }
    for store in [Store::restore(&store.snapshot()).unwrap(), store] {
        let spec = |id| &store.task(id).unwrap().spec;
        assert!(Arc::ptr_eq(spec("t0"), spec("t1")));
        assert!(Arc::ptr_eq(spec("t0"), spec("t2")));
        assert!(!Arc::ptr_eq(spec("t0"), spec("t3")));
    }
}
