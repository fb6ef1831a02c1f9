//! Everything about one service, decided at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_api::{DesiredState, IdSource, Now, Object, Service, Time};

use super::clock::{Clock, Waits};
use super::plan::Plan;
use super::rollout::{self, Phase};
use super::settle::{Settlement, remove, shut_down};
use super::slot::{Slot, SlotKey, slots_of};
use super::stand::Stand;
use super::template::Template;
use super::{gate, global, replicated};
use crate::store::{Store, StoreAction};

/// What a decision leaves behind.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// When to decide again though nothing happened.
    pub(super) wake_at: Option<Time>,
    pub(super) waits: Waits,
    /// Names of services whose changes may change the decision.
    pub(super) awaits: Vec<String>,
}

/// The slots of a service, by what is to become of them.
struct Slots<'a> {
    /// They have a task, or had one that ended for good.
    kept: Vec<Stand<'a>>,
    /// They are to get one.
    missing: Vec<(SlotKey, Slot<'a>)>,
    /// Replicated: how many more, under numbers that are free.
    fresh: u64,
    /// They are not to get another task.
    paused: Vec<Stand<'a>>,
    emptied: Vec<Slot<'a>>,
    dropped: Vec<Slot<'a>>,
}

/// Decides about the service with this id, which may not exist any more.
pub(super) fn decide(
    store: &Store,
    service_id: &str,
    now: Now,
    waits: Waits,
    ids: &mut IdSource,
    plan: &mut Plan,
) -> Outcome {
    match store.service(service_id) {
        Some(service) if !service.pending_delete => run(store, service, now, waits, ids, plan),
        service => {
            clear(store, service_id, service, plan);
            Outcome::default()
        }
    }
}

/// The tasks of a service that is deleted go, and when they are gone so does it.
fn clear(store: &Store, service_id: &str, service: Option<&Arc<Service>>, plan: &mut Plan) {
    let mut tasks = store.tasks_of_service(service_id).peekable();
    match service {
        Some(service) if tasks.peek().is_none() => {
            plan.add(vec![StoreAction::Remove {
                kind: cluster_api::Kind::Service,
                id: service.id.clone(),
                version: service.meta.version,
            }]);
        }
        _ => {
            for task in tasks.filter(|task| task.desired < DesiredState::Remove) {
                plan.add(vec![remove(task)]);
            }
        }
    }
}

fn run(
    store: &Store,
    service: &Service,
    now: Now,
    waits: Waits,
    ids: &mut IdSource,
    plan: &mut Plan,
) -> Outcome {
    let template = Template::new(store, service);
    let mut clock = Clock::new(now, waits);
    let Some(slots) = slots(store, service, &template) else {
        return Outcome::default();
    };
    let verdict = rollout::advance(&template, &slots.kept, &mut clock);
    let is_open = gate::waits_for(store, service).is_none();
    if let Some(changed) = &verdict.changed {
        let before = plan.len();
        plan.add(vec![StoreAction::Update(Object::from(changed.clone()))]);
        let is_planned = plan.len() > before;
        if !is_planned || verdict.phase == Phase::GoingBack {
            let (wake_at, waits) = clock.into_waits();
            return Outcome {
                wake_at,
                waits,
                ..Outcome::default()
            };
        }
    }
    // Slots go before others come, so that what they hold is free the sooner.
    for slot in &slots.dropped {
        plan.add(slot.tasks.iter().map(|task| remove(task)).collect());
    }
    for slot in &slots.emptied {
        plan.add(slot.live().map(|task| shut_down(task)).collect());
    }
    let mut settlement = Settlement {
        template: &template,
        verdict: &verdict,
        is_open,
        clock: &mut clock,
        ids,
        plan,
    };
    for stand in &slots.kept {
        settlement.settle(stand);
    }
    for stand in &slots.paused {
        settlement.go_on_as_is(stand);
    }
    for (key, slot) in &slots.missing {
        settlement.create(key, slot);
    }
    let mut taken: Vec<u64> = slots
        .kept
        .iter()
        .map(|stand| &stand.key)
        .chain(slots.missing.iter().map(|(key, _)| key))
        .filter_map(replicated::number)
        .collect();
    taken.sort_unstable();
    for number in replicated::lowest_free(&taken, slots.fresh) {
        if settlement.plan.is_full() {
            break;
        }
        settlement.create(&SlotKey::Number(number), &Slot::default());
    }
    let (wake_at, waits) = clock.into_waits();
    Outcome {
        wake_at,
        waits,
        awaits: if is_open && !verdict.is_held {
            Vec::new()
        } else {
            gate::dependencies(service)
        },
    }
}

/// `None` for modes this module does not serve.
fn slots<'a>(store: &'a Store, service: &'a Service, template: &Template<'a>) -> Option<Slots<'a>> {
    let there = slots_of(store, &service.id);
    if service.spec.mode.global.is_some() {
        let choice = global::choose(store, service, there);
        let (kept, missing): (Vec<_>, Vec<_>) = choice
            .kept
            .into_iter()
            .map(|(key, slot)| Stand::of(key, slot, template))
            .partition(Stand::is_occupied);
        return Some(Slots {
            kept,
            missing: unoccupied(missing),
            fresh: 0,
            paused: choice
                .paused
                .into_iter()
                .map(|(key, slot)| Stand::of(key, slot, template))
                .collect(),
            emptied: slots_only(choice.emptied),
            dropped: slots_only(choice.dropped),
        });
    }
    if service.spec.mode.replicated_job.is_some() || service.spec.mode.global_job.is_some() {
        return None;
    }
    let replicated = service.spec.mode.replicated.as_ref();
    let replicas = replicated
        .and_then(|replicated| replicated.replicas)
        .unwrap_or(1);
    let stands = there
        .into_iter()
        .map(|(key, slot)| Stand::of(key, slot, template))
        .collect();
    let choice = replicated::choose(stands, replicas);
    Some(Slots {
        kept: choice.kept,
        missing: unoccupied(choice.missing),
        fresh: choice.fresh,
        paused: Vec::new(),
        emptied: Vec::new(),
        dropped: slots_only(unoccupied(choice.dropped)),
    })
}

fn unoccupied(stands: Vec<Stand<'_>>) -> Vec<(SlotKey, Slot<'_>)> {
    stands
        .into_iter()
        .map(|stand| (stand.key, stand.slot))
        .collect()
}

fn slots_only<'a>(slots: Vec<(SlotKey, Slot<'a>)>) -> Vec<Slot<'a>> {
    slots.into_iter().map(|(_, slot)| slot).collect()
}

/// All services a loop must look at when it starts: those there are, and those whose tasks outlived them.
pub(super) fn all(store: &Store) -> BTreeSet<String> {
    let services = store.services().map(|service| service.id.clone());
    let owners = store
        .tasks()
        .filter(|task| !task.service_id.is_empty())
        .map(|task| task.service_id.clone());
    services.chain(owners).collect()
}
