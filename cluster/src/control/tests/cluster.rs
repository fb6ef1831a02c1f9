//! Settings of the swarm, and its tokens.

use agent_api::swarm::SwarmSpec;
use serde_json::{Value, json};

use super::super::{Reply, Request, TokenRotation, initial_spec};
use super::World;
use crate::ca::TokenSecret;

fn update(world: &World, spec: Value) -> Request {
    Request::SwarmUpdate {
        version: world.store.cluster().unwrap().meta.version,
        spec: Box::new(serde_json::from_value(spec).expect("a spec")),
        rotate: TokenRotation::default(),
    }
}

#[test]
fn a_new_swarm_has_docker_s_defaults_and_its_own_heartbeat() {
    let spec = initial_spec(&SwarmSpec::default()).unwrap();
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        json!({
            "Name": "default", "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 5},
            "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500, "ElectionTick": 10, "HeartbeatTick": 2},
            "Dispatcher": {"HeartbeatPeriod": 1_000_000_000},
            "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64},
            "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false},
        })
    );
    let given =
        serde_json::from_value(json!({"Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64}}));
    let spec = initial_spec(&given.unwrap()).unwrap();
    assert_eq!(spec.dispatcher.heartbeat_period, 5_000_000_000);
}

#[test]
fn settings_are_checked() {
    let cases = [
        (
            json!({"Name": "x"}),
            "400 modification of cluster name is not allowed",
        ),
        (
            json!({"CAConfig": {"NodeCertExpiry": 1}}),
            "400 minimum certificate expiry time is: 1h0m0s",
        ),
        (
            json!({"Dispatcher": {"HeartbeatPeriod": 90_000_000_000_000_u64}}),
            "400 heartbeat time period cannot be longer than a day",
        ),
        (
            json!({"EncryptionConfig": {"AutoLockManagers": true}}),
            "501 autolock is not supported",
        ),
        (
            json!({"CAConfig": {"ExternalCAs": [{"URL": "https://x"}]}}),
            "501 an external CA is not supported",
        ),
        (
            json!({"CAConfig": {"ForceRotate": 1}}),
            "501 rotation of the root CA is not supported",
        ),
        (
            json!({"CAConfig": {"SigningCACert": "x"}}),
            "501 rotation of the root CA is not supported",
        ),
        (
            json!({"Raft": {"KeepOldSnapshots": 3}}),
            "501 keeping old snapshots (--max-snapshots) is not supported",
        ),
        (
            json!({"Raft": {"SnapshotInterval": 5}}),
            "501 changing the snapshot interval is not supported",
        ),
        (
            json!({"Raft": {"LogEntriesForSlowFollowers": 5}}),
            "501 changing how many log entries are kept for slow followers is not supported",
        ),
        (
            json!({"Raft": {"ElectionTick": 3}}),
            "501 changing the ticks of Raft is not supported",
        ),
    ];
    let mut world = World::new();
    for (spec, text) in cases {
        let request = update(&world, spec.clone());
        assert_eq!(world.refused(request), text, "{spec}");
    }
}

#[test]
fn what_is_left_out_keeps_its_value_and_what_was_read_may_be_sent_back() {
    let mut world = World::new();
    let request = update(
        &world,
        json!({"Orchestration": {"TaskHistoryRetentionLimit": 9}}),
    );
    assert_eq!(world.request(request.clone()), Ok(Reply::Done));
    let spec = world.store.cluster().unwrap().spec.clone();
    assert_eq!(spec.orchestration.task_history_retention_limit, Some(9));
    assert_eq!(spec.raft.snapshot_interval, 10_000);
    assert_eq!(world.refused(request), "500 update out of sequence");
    let same = update(&world, serde_json::to_value(&spec).unwrap());
    world.request(same).unwrap();
    assert_eq!(world.store.cluster().unwrap().spec, spec);
}

#[test]
fn each_token_is_rotated_alone() {
    let mut world = World::new();
    let rotate = |world: &mut World, worker, manager| {
        let Request::SwarmUpdate { version, spec, .. } = update(world, json!({})) else {
            unreachable!("it was made above");
        };
        let rotate = TokenRotation { worker, manager };
        world
            .request(Request::SwarmUpdate {
                version,
                spec,
                rotate,
            })
            .unwrap();
        world.store.cluster().unwrap().root_ca.tokens.clone()
    };
    let first = rotate(&mut world, true, true);
    for secret in [&first.worker, &first.manager] {
        secret.parse::<TokenSecret>().unwrap();
    }
    let second = rotate(&mut world, true, false);
    assert_ne!(second.worker, first.worker);
    assert_eq!(second.manager, first.manager);
    let third = rotate(&mut world, false, true);
    assert_eq!(third.worker, second.worker);
    assert_ne!(third.manager, second.manager);
    assert_eq!(rotate(&mut world, false, false), third);
}

#[test]
fn without_a_swarm_nothing_is_updated() {
    let mut world = World::empty();
    assert_eq!(
        world.refused(Request::SwarmUpdate {
            version: 1,
            spec: Box::default(),
            rotate: TokenRotation::default(),
        }),
        "503 This node is not part of a swarm"
    );
}

/// What clients are told is what Raft really does.
#[test]
fn the_shown_settings_of_raft_are_those_it_runs_with() {
    let shown = initial_spec(&SwarmSpec::default()).unwrap().raft;
    let real = crate::raft::Config::default();
    assert_eq!(shown.snapshot_interval, real.snapshot_entries);
    assert_eq!(shown.log_entries_for_slow_followers, real.keep_entries);
    assert_eq!(shown.election_tick, real.election_ticks as u64);
    assert_eq!(shown.heartbeat_tick, real.heartbeat_ticks as u64);
}
