//! Settings of the swarm and its join tokens (SwarmKit `controlapi/cluster.go`, moby `convert/swarm.go`). A setting that
//! is left out or zero keeps its value.

use agent_api::swarm::{
    Annotations, CaConfig, DispatcherConfig, OrchestrationConfig, RaftConfig, SwarmSpec,
};
use cluster_api::Cluster;

use super::Refusal;
use super::request::TokenRotation;
use crate::Context;
use crate::ca::TokenSecret;
use crate::store::Transaction;

/// The one name a cluster may have.
const NAME: &str = "default";
/// What Raft runs with (the defaults of `raft::Config`); told to clients, not to be set by them.
const SNAPSHOT_INTERVAL: u64 = 10_000;
const KEPT_ENTRIES: u64 = 500;
/// See above.
pub const ELECTION_TICK: u64 = 10;
/// See above.
pub const HEARTBEAT_TICK: u64 = 2;
/// Period of the nodes' heartbeats unless a user sets another.
pub const HEARTBEAT_PERIOD_NANOS: u64 = 1_000_000_000;
const HOUR_NANOS: u64 = 3_600_000_000_000;
const CERT_EXPIRY_NANOS: u64 = 90 * 24 * HOUR_NANOS;
/// A heartbeat above this is negative in the client's number, or makes no sense.
const MAX_HEARTBEAT_NANOS: u64 = 24 * HOUR_NANOS;

/// The spec of a new swarm: the defaults with what the user gave.
///
/// # Errors
///
/// A setting is out of range or not supported.
pub fn initial_spec(given: &SwarmSpec) -> Result<SwarmSpec, Refusal> {
    merge(&default_spec(), given)
}

fn default_spec() -> SwarmSpec {
    SwarmSpec {
        annotations: Annotations {
            name: NAME.to_owned(),
            ..Annotations::default()
        },
        orchestration: OrchestrationConfig {
            task_history_retention_limit: Some(5),
        },
        raft: RaftConfig {
            snapshot_interval: SNAPSHOT_INTERVAL,
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: KEPT_ENTRIES,
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
        },
        dispatcher: DispatcherConfig {
            heartbeat_period: HEARTBEAT_PERIOD_NANOS,
        },
        ca_config: CaConfig {
            node_cert_expiry: CERT_EXPIRY_NANOS,
            ..CaConfig::default()
        },
        ..SwarmSpec::default()
    }
}

pub(super) fn update(
    context: &mut Context<'_>,
    change: &mut Transaction,
    version: u64,
    spec: &SwarmSpec,
    rotate: TokenRotation,
) -> Result<(), Refusal> {
    let cluster = context
        .store
        .cluster()
        .ok_or_else(|| Refusal::Unavailable("This node is not part of a swarm".to_owned()))?;
    let spec = merge(&cluster.spec, spec)?;
    if cluster.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    let mut cluster = Cluster::clone(cluster);
    cluster.spec = spec;
    if rotate.worker {
        cluster.root_ca.tokens.worker = TokenSecret::generate(context.ids).as_str().to_owned();
    }
    if rotate.manager {
        cluster.root_ca.tokens.manager = TokenSecret::generate(context.ids).as_str().to_owned();
    }
    change.update(cluster);
    Ok(())
}

fn merge(old: &SwarmSpec, given: &SwarmSpec) -> Result<SwarmSpec, Refusal> {
    check(old, given)?;
    let mut spec = old.clone();
    if !given.annotations.labels.is_empty() {
        spec.annotations.labels = given.annotations.labels.clone();
    }
    if given.orchestration.task_history_retention_limit.is_some() {
        spec.orchestration = given.orchestration.clone();
    }
    set(
        &mut spec.dispatcher.heartbeat_period,
        given.dispatcher.heartbeat_period,
    );
    set(
        &mut spec.ca_config.node_cert_expiry,
        given.ca_config.node_cert_expiry,
    );
    if given.task_defaults.log_driver.is_some() {
        spec.task_defaults = given.task_defaults.clone();
    }
    Ok(spec)
}

fn set(value: &mut u64, given: u64) {
    if given != 0 {
        *value = given;
    }
}

fn check(old: &SwarmSpec, given: &SwarmSpec) -> Result<(), Refusal> {
    let name = &given.annotations.name;
    if !name.is_empty() && name != NAME {
        return Err(Refusal::invalid(
            "modification of cluster name is not allowed",
        ));
    }
    if (1..HOUR_NANOS).contains(&given.ca_config.node_cert_expiry) {
        return Err(Refusal::invalid(
            "minimum certificate expiry time is: 1h0m0s",
        ));
    }
    if given.dispatcher.heartbeat_period > i64::MAX.unsigned_abs() {
        return Err(Refusal::invalid(
            "heartbeat time period cannot be a negative duration",
        ));
    }
    if given.dispatcher.heartbeat_period > MAX_HEARTBEAT_NANOS {
        return Err(Refusal::invalid(
            "heartbeat time period cannot be longer than a day",
        ));
    }
    let other = |given: u64, old: u64| given != 0 && given != old;
    let refused = [
        (given.encryption_config.auto_lock_managers, "autolock"),
        (!given.ca_config.external_cas.is_empty(), "an external CA"),
        (
            !given.ca_config.signing_ca_cert.is_empty()
                || !given.ca_config.signing_ca_key.is_empty()
                || given.ca_config.force_rotate != old.ca_config.force_rotate,
            "rotation of the root CA",
        ),
        (
            given.raft.keep_old_snapshots.unwrap_or(0) != 0,
            "keeping old snapshots (--max-snapshots)",
        ),
        (
            other(given.raft.snapshot_interval, old.raft.snapshot_interval),
            "changing the snapshot interval",
        ),
        (
            other(
                given.raft.log_entries_for_slow_followers,
                old.raft.log_entries_for_slow_followers,
            ),
            "changing how many log entries are kept for slow followers",
        ),
        (
            other(given.raft.election_tick, old.raft.election_tick)
                || other(given.raft.heartbeat_tick, old.raft.heartbeat_tick),
            "changing the ticks of Raft",
        ),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(Refusal::unsupported(option)),
        None => Ok(()),
    }
}
