//! The life of a container as a table: what a request means in each state, and what follows an exit.
//!
//! ```text
//!            start                       pause
//! Created ──────────▶ Running ◀──────────────────▶ Paused
//!    │                │  ▲  ▲ exit                   │
//!    │           exit │  │  └────── Restarting ◀──┐  │ kill, stop (thawed first)
//!    │                ▼  │ start        │ stop    │  │
//!    │              Exited ◀────────────┘         │  │
//!    │ remove         │                           │  │
//!    └──────▶ Removing ◀── remove (force: killed first), or by itself after an exit with --rm
//! ```
//!
//! Pure: no clock, no I/O. An illegal move is a value ([`Refusal`]), "already there" is an outcome.
//! Texts and classes of refusals are dockerd's (moby `daemon/{start,stop,kill,pause,delete,exec}.go`).

use agent_api::ContainerStatus::{
    self, Created, Dead, Exited, Paused, Removing, Restarting, Running,
};

use crate::error::Error;

/// What somebody wants of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Remove {
        force: bool,
    },
    Exec,
    /// Use of its processes: top, resize.
    Touch,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run the start steps (a pending restart is cancelled).
    Launch,
    /// Send the signal to a running container.
    Signal,
    /// Send the signal and thaw, so that it is received.
    SignalAndThaw,
    /// Give up the pending restart: the container is exited.
    CancelRestart,
    /// Stop it, start it after the exit.
    StopThenLaunch,
    Freeze,
    Thaw,
    /// Remove it now.
    Delete,
    /// Kill it, remove it after the exit.
    KillThenDelete,
    /// Go ahead: the request touches no state.
    Pass,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Do(Action),
    /// The container is as wanted already.
    Already,
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotRunning,
    NotPaused,
    AlreadyPaused,
    Restarting,
    StartPaused,
    StartRemoving,
    ExecPaused,
    RemoveRunning,
    RemovePaused,
    RemoveRestarting,
    RemovalInProgress,
}

/// The table.
pub(crate) fn decide(status: ContainerStatus, request: Request) -> Decision {
    use Action::*;
    use Decision::*;
    match (request, status) {
        (Request::Start, Created | Exited | Restarting) => Do(Launch),
        (Request::Start, Running) => Already,
        (Request::Start, Paused) => Refused(Refusal::StartPaused),
        (Request::Start | Request::Restart, Removing | Dead) => Refused(Refusal::StartRemoving),

        (Request::Stop, Running) => Do(Signal),
        (Request::Stop, Paused) => Do(SignalAndThaw),
        (Request::Stop, Restarting) => Do(CancelRestart),
        (Request::Stop, Created | Exited | Removing | Dead) => Already,

        (Request::Restart, Running | Paused) => Do(StopThenLaunch),
        (Request::Restart, Created | Exited | Restarting) => Do(Launch),

        (Request::Kill, Running) => Do(Signal),
        (Request::Kill, Paused) => Do(SignalAndThaw),
        (Request::Kill, Restarting) => Do(CancelRestart),
        (Request::Kill, Created | Exited | Removing | Dead) => Refused(Refusal::NotRunning),

        (Request::Pause, Running) => Do(Freeze),
        (Request::Pause, Paused) => Refused(Refusal::AlreadyPaused),
        (Request::Pause, Restarting) => Refused(Refusal::Restarting),
        (Request::Pause, Created | Exited | Removing | Dead) => Refused(Refusal::NotRunning),

        (Request::Unpause, Paused) => Do(Thaw),
        (Request::Unpause, _) => Refused(Refusal::NotPaused),

        (Request::Remove { .. }, Created | Exited | Dead) => Do(Delete),
        (Request::Remove { force: true }, Running | Paused) => Do(KillThenDelete),
        (Request::Remove { force: true }, Restarting) => Do(Delete),
        (Request::Remove { force: false }, Running) => Refused(Refusal::RemoveRunning),
        (Request::Remove { force: false }, Paused) => Refused(Refusal::RemovePaused),
        (Request::Remove { force: false }, Restarting) => Refused(Refusal::RemoveRestarting),
        (Request::Remove { .. }, Removing) => Refused(Refusal::RemovalInProgress),

        (Request::Exec, Running) => Do(Pass),
        (Request::Exec, Paused) => Refused(Refusal::ExecPaused),
        (Request::Touch, Running | Paused) => Do(Pass),
        (Request::Exec | Request::Touch, Restarting) => Refused(Refusal::Restarting),
        (Request::Exec | Request::Touch, Created | Exited | Removing | Dead) => {
            Refused(Refusal::NotRunning)
        }
    }
}

impl Refusal {
    /// The error dockerd gives. `reference` is what the user called the container.
    pub(crate) fn error(self, id: &str, reference: &str) -> Error {
        match self {
            Self::NotRunning => Error::conflict(format!("container {id} is not running")),
            Self::NotPaused => Error::system(format!("Container {id} is not paused")),
            Self::AlreadyPaused => Error::conflict(format!("Container {id} is already paused")),
            Self::Restarting => Error::conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            )),
            Self::StartPaused => {
                Error::conflict("cannot start a paused container, try unpause instead")
            }
            Self::StartRemoving => {
                Error::conflict("container is marked for removal and cannot be started")
            }
            Self::ExecPaused => Error::conflict(format!(
                "Container {reference} is paused, unpause the container before exec"
            )),
            Self::RemoveRunning => Error::conflict(format!(
                "cannot remove container {reference:?}: container is running: stop the container before removing or force remove"
            )),
            Self::RemovePaused => Error::conflict(format!(
                "cannot remove container {reference:?}: container is paused and must be unpaused first"
            )),
            Self::RemoveRestarting => Error::conflict(format!(
                "cannot remove container {reference:?}: container is restarting: stop the container before removing or force remove"
            )),
            Self::RemovalInProgress => Error::conflict(format!(
                "removal of container {reference} is already in progress"
            )),
        }
    }
}

/// What somebody asked for while the container was still alive, to be done once it has exited.
/// A later, larger wish replaces a smaller one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AfterExit {
    /// Nothing: the restart policy decides.
    #[default]
    Policy,
    /// Stay down.
    Rest,
    /// Start again at once.
    Launch,
    /// Remove it.
    Delete,
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Rest,
    Launch,
    /// Start again by policy, after the delay the policy asks for.
    Restart,
    Delete,
}

/// Decides what follows an exit. `policy_restarts` is the restart policy's verdict.
pub(crate) fn after_exit(wish: AfterExit, auto_remove: bool, policy_restarts: bool) -> Next {
    match wish {
        AfterExit::Delete => Next::Delete,
        AfterExit::Launch => Next::Launch,
        AfterExit::Rest if auto_remove => Next::Delete,
        AfterExit::Rest => Next::Rest,
        AfterExit::Policy if policy_restarts => Next::Restart,
        AfterExit::Policy if auto_remove => Next::Delete,
        AfterExit::Policy => Next::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ContainerStatus; 7] =
        [Created, Running, Paused, Restarting, Removing, Exited, Dead];

    fn row(request: Request) -> String {
        let cells = STATES.map(|status| match decide(status, request) {
            Decision::Do(action) => format!("{action:?}"),
            Decision::Already => "-".to_owned(),
            Decision::Refused(refusal) => format!("!{refusal:?}"),
        });
        cells.join(" ")
    }

    #[test]
    fn the_table_is_dockers() {
        // Created Running Paused Restarting Removing Exited Dead
        for (request, expected) in [
            (
                Request::Start,
                "Launch - !StartPaused Launch !StartRemoving Launch !StartRemoving",
            ),
            (Request::Stop, "- Signal SignalAndThaw CancelRestart - - -"),
            (
                Request::Restart,
                "Launch StopThenLaunch StopThenLaunch Launch !StartRemoving Launch !StartRemoving",
            ),
            (
                Request::Kill,
                "!NotRunning Signal SignalAndThaw CancelRestart !NotRunning !NotRunning !NotRunning",
            ),
            (
                Request::Pause,
                "!NotRunning Freeze !AlreadyPaused !Restarting !NotRunning !NotRunning !NotRunning",
            ),
            (
                Request::Unpause,
                "!NotPaused !NotPaused Thaw !NotPaused !NotPaused !NotPaused !NotPaused",
            ),
            (
                Request::Remove { force: false },
                "Delete !RemoveRunning !RemovePaused !RemoveRestarting !RemovalInProgress Delete Delete",
            ),
            (
                Request::Remove { force: true },
                "Delete KillThenDelete KillThenDelete Delete !RemovalInProgress Delete Delete",
            ),
            (
                Request::Exec,
                "!NotRunning Pass !ExecPaused !Restarting !NotRunning !NotRunning !NotRunning",
            ),
            (
                Request::Touch,
                "!NotRunning Pass Pass !Restarting !NotRunning !NotRunning !NotRunning",
            ),
        ] {
            assert_eq!(row(request), expected, "{request:?}");
        }
    }

    #[test]
    fn a_wish_of_the_user_goes_before_policy_and_auto_remove() {
        use AfterExit::*;
        for (wish, auto_remove, restarts, expected) in [
            (Policy, false, false, Next::Rest),
            (Policy, false, true, Next::Restart),
            (Policy, true, false, Next::Delete),
            (Rest, false, true, Next::Rest),
            (Rest, true, false, Next::Delete),
            (Launch, true, false, Next::Launch),
            (Launch, false, true, Next::Launch),
            (Delete, false, true, Next::Delete),
        ] {
            assert_eq!(
                after_exit(wish, auto_remove, restarts),
                expected,
                "{wish:?}"
            );
        }
        assert!(Delete > Launch && Launch > Rest && Rest > Policy);
    }

    #[test]
    fn refusals_read_like_dockers() {
        let text = |refusal: Refusal| refusal.error("f1697d9cafdf", "zz").to_string();
        assert_eq!(
            text(Refusal::NotRunning),
            "container f1697d9cafdf is not running"
        );
        assert_eq!(
            text(Refusal::RemoveRunning),
            "cannot remove container \"zz\": container is running: stop the container before removing or force remove"
        );
    }
}
