//! Steps that several verbs share: stopping with its hooks, hooks after a start.

use agent_api::ContainerStatus;
use compose_model::ServiceHook;

use super::graph::{Builder, Key};
use super::{Cause, ContainerHandle, HookKind, Operation};
use crate::convert;
use crate::state::ObservedContainer;

/// The handle of a container that is there.
pub(super) fn existing(container: &ObservedContainer) -> ContainerHandle {
    ContainerHandle {
        service: container.service.clone(),
        number: container.number,
        name: container.name.clone(),
        id: Some(container.id.clone()),
    }
}

/// `pre_stop` hooks, which need a process to run beside, and the stop; first and last step.
pub(super) fn stop_steps(
    builder: &mut Builder,
    handle: &ContainerHandle,
    container: &ObservedContainer,
    hooks: &[ServiceHook],
    timeout_seconds: Option<i64>,
    cause: &Cause,
    place: Option<String>,
) -> (Key, Key) {
    let mut first = None;
    let mut previous = None;
    if container.state == ContainerStatus::Running {
        for (index, hook) in hooks.iter().enumerate() {
            let request = Box::new(convert::hook(hook));
            let operation = Operation::RunHook {
                container: handle.clone(),
                kind: HookKind::PreStop,
                index,
                request,
            };
            let step = builder.add(operation, Cause::Hook, place.clone());
            if let Some(previous) = previous {
                builder.needs(step, previous);
            }
            first = first.or(Some(step));
            previous = Some(step);
        }
    }
    let operation = Operation::StopContainer {
        container: handle.clone(),
        timeout_seconds,
    };
    let stop = builder.add(operation, cause.clone(), place);
    if let Some(previous) = previous {
        builder.needs(stop, previous);
    }
    (first.unwrap_or(stop), stop)
}

/// `post_start` hooks, one after the other; the last step, or the start itself.
pub(super) fn post_start_steps(
    builder: &mut Builder,
    handle: &ContainerHandle,
    hooks: &[ServiceHook],
    start: Key,
    place: Option<&String>,
) -> Key {
    let mut last = start;
    for (index, hook) in hooks.iter().enumerate() {
        let operation = Operation::RunHook {
            container: handle.clone(),
            kind: HookKind::PostStart,
            index,
            request: Box::new(convert::hook(hook)),
        };
        let step = builder.add(operation, Cause::Hook, place.cloned());
        builder.needs(step, last);
        last = step;
    }
    last
}
