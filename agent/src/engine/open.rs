//! Opening the engine: what the records say and what the keeper holds are brought together.
//!
//! ```text
//! records ──┐                      ┌─ runs:            adopted, its health watched again
//! keeper  ──┼─▶ one by one ────────┼─ exited meanwhile: the keeper's exit is entered as if it came now
//! boot id ──┘                      ├─ vanished:        exited (255): the machine was restarted, or the keeper died
//!                                  ├─ being removed:   removed
//!                                  └─ stopped:         started if its restart policy says so
//! ```
//!
//! Sandboxes, half-made directories and half-filled volumes are each reconciled by whoever owns them.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agent_api::ContainerStatus;
use agent_image::{Limits, Store};
use agent_runtime::cgroup::{Cgroup, CgroupError, Hierarchy};
use agent_runtime::keeper::{Event, Exit, HeldProcess};
use jiff::Timestamp;
use parking_lot::RwLock;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EngineOptions;
use super::build_step::{self, BuildSteps};
use super::container::{Container, Definition, State};
use super::driver::{Command, Driver, Resume, attachment};
use super::events::Events;
use super::exec::{self, Execs};
use super::keeper::{Keeper, KeeperEvents};
use super::records::{Found, Records};
use super::registry::Registry;
use super::restart::Policy;
use super::shared::{Reloadable, Shared, blocking};
use super::transfers::Transfers;
use super::validate::Host;
use super::volumes::Volumes;
use crate::error::{Error, Result};

/// How long a killed process may take to end.
const END_PATIENCE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};
const KILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;
/// Exit code of a run whose end nobody saw.
const LOST: i32 = 255;

/// Opens the parts and adopts what is there.
pub(crate) async fn open(mut options: EngineOptions) -> Result<Arc<Shared>> {
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    options.default_ulimits = super::spec::default_ulimits(options.default_ulimits, nofile.maximum);
    let runtime = tokio::runtime::Handle::current();
    let (parts, keeper) = tokio::join!(
        {
            let options = options.clone();
            blocking(move || open_parts(&options, runtime))
        },
        async {
            super::records::make_private_directory(&options.exec_root)?;
            Keeper::connect(&options).await
        }
    );
    let (parts, (keeper, events)) = (parts?, keeper?);
    let held = keeper.list().await?;
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        host: Host::detect(),
        records: parts.records,
        registry: Registry::default(),
        volumes: parts.volumes,
        images: Arc::new(parts.images),
        registries: agent_image::Registry::new(
            options.registries.clone(),
            tokio::runtime::Handle::current(),
        ),
        networks: parts.networks,
        keeper,
        hierarchy: parts.hierarchy,
        events: Events::new(),
        execs: Execs::default(),
        build_steps: BuildSteps::default(),
        transfers: Transfers::new(tasks.clone()),
        tasks,
        closing: CancellationToken::new(),
        reloadable: RwLock::new(Reloadable {
            debug: options.debug,
            labels: options.labels.clone(),
        }),
        options,
    });
    for problem in &parts.found.problems {
        tracing::error!(
            problem,
            "a container is not shown until its record is repaired"
        );
    }
    // A container whose record cannot be read may need its image.
    let all_shown = parts.found.problems.is_empty();
    adopt(&shared, parts.found, held).await?;
    if all_shown {
        let shared = Arc::clone(&shared);
        let uses = super::images::uses;
        blocking(move || Ok(shared.images.collect_departed(|| uses(&shared))?)).await?;
    }
    shared.tasks.spawn(route(Arc::clone(&shared), events));
    Ok(shared)
}

struct Parts {
    records: Records,
    found: Found,
    volumes: Volumes,
    images: Store,
    networks: netdriver::Networks,
    hierarchy: Hierarchy,
}

fn open_parts(options: &EngineOptions, runtime: tokio::runtime::Handle) -> Result<Parts> {
    let root = &options.data_root;
    super::records::make_private_directory(root)?;
    // First: the store's lock keeps a second engine off this root.
    let images = Store::open(root, Limits::default())?;
    let (records, found) = Records::open(root)?;
    let volumes = Volumes::open(root)?;
    let hierarchy = Hierarchy::detect().map_err(|error| Error::system(error.to_string()))?;
    let mut config = netdriver::Config::new(root.join("networks"), &options.exec_root, runtime);
    config
        .default_address_pools
        .clone_from(&options.default_address_pools);
    config.bridge_address = options.bridge_address;
    config.bridge_name.clone_from(&options.bridge_name);
    if options.mtu != 0 {
        config.mtu = options.mtu;
    }
    config.default_publish_address = options.default_publish_address;
    config.host_gateway = options.host_gateway;
    let networks = netdriver::Networks::open(config)?;
    Ok(Parts {
        records,
        found,
        volumes,
        images,
        networks,
        hierarchy,
    })
}

async fn adopt(shared: &Arc<Shared>, found: Found, held: Vec<HeldProcess>) -> Result<()> {
    let held: HashMap<String, HeldProcess> = held
        .into_iter()
        .map(|process| (process.id.clone(), process))
        .collect();
    let live: HashSet<String> = held
        .values()
        .filter(|process| process.exit.is_none() && !build_step::is_orphan(process))
        .map(|process| process.id.clone())
        .collect();
    for process in held.values().filter(|held| build_step::is_orphan(held)) {
        if let Err(error) = shared.keeper.signal(&process.id, KILL).await {
            tracing::warn!(step.id = process.id, %error, "a step of a build that nobody waits for runs on");
        }
    }
    let reconciled = {
        let (networks, live) = (shared.networks.clone(), live.clone());
        blocking(move || Ok(networks.reconcile(&live))).await?
    };
    let left = {
        let (exec_root, live) = (shared.options.exec_root.clone(), live.clone());
        blocking(move || Ok(super::shm::reconcile(&exec_root, &live))).await?
    };
    for error in left {
        tracing::warn!(%error, "shared memory of a container that does not run is left");
    }
    for problem in &reconciled.problems {
        tracing::warn!(problem, "network state could not be restored completely");
    }
    for (mut definition, state) in found.containers {
        if let Err(error) = shared
            .registry
            .reserve_name(Some(&definition.name), &definition.id)
        {
            // Two records of one name: a crash between the writes of two renames.
            tracing::error!(container.id = definition.id, %error, "the container gets a new name");
            definition.name = shared.registry.reserve_name(None, &definition.id)?;
        }
        adopt_one(shared, definition, state, &held).await;
    }
    for process in held.values().filter(|process| process.exit.is_some()) {
        if shared.registry.get(&process.id).is_none() {
            shared.keeper.forget(&process.id).await;
        }
    }
    Ok(())
}

async fn adopt_one(
    shared: &Arc<Shared>,
    definition: Definition,
    state: State,
    held: &HashMap<String, HeldProcess>,
) {
    let id = definition.id.clone();
    let was_alive = matches!(
        state.status,
        ContainerStatus::Running | ContainerStatus::Paused
    );
    let was_restarting = state.status == ContainerStatus::Restarting;
    let policy = Policy::of(&definition.host.restart_policy);
    let auto_remove = definition.host.auto_remove;
    let recorded = state.clone();
    let mut container = Container::new(definition, state);
    let process = held.get(&id);
    let mut messages = Vec::new();
    match process {
        _ if container.state.status == ContainerStatus::Removing => {
            messages.push(Command::Resume(Resume::Remove));
        }
        Some(process)
            if process.exit.is_none() || was_alive || started_after(process, &container.state) =>
        {
            run_again(shared, &mut container, process).await;
            messages.push(Command::Resume(Resume::Adopt));
            if let Some(exit) = process.exit {
                messages.push(Command::Exited { exit });
            }
        }
        _ => {
            if was_alive || was_restarting {
                if was_alive {
                    container.state.exit_code = LOST;
                    container.state.exits += 1;
                    container.state.finished_at = Some(Timestamp::now());
                    if container.state.boot == shared.records.boot() {
                        kill_leftovers(shared, &container).await;
                    }
                }
                container.state.status = ContainerStatus::Exited;
                container.state.pid = 0;
            }
            if process.is_some() {
                shared.keeper.forget(&id).await;
            }
            let state = &container.state;
            let starts = was_restarting && !state.stopped_by_user
                || policy.starts_with_engine(
                    was_alive,
                    state.stopped_by_user,
                    state.exit_code,
                    if was_alive { 0 } else { state.restart_count },
                );
            let ran = state.status != ContainerStatus::Created;
            if auto_remove && ran {
                messages.push(Command::Resume(Resume::Remove));
                container.state.remove_volumes = true;
            } else if starts && ran && policy != Policy::No {
                messages.push(Command::Resume(Resume::Start));
            }
            if container.state != recorded {
                let (definition, state) = (&container.definition, &container.state);
                shared.records.write_state(definition, state).await;
            }
        }
    }
    let (handle, driver) = Driver::new(shared, container);
    for message in messages {
        // A new mailbox has room for two.
        let _ = handle.mailbox.try_send(message);
    }
    shared.registry.insert(&id, handle);
    shared.tasks.spawn(driver.run());
}

/// The keeper holds a run that the record does not know: the engine died between the launch and the record.
fn started_after(process: &HeldProcess, state: &State) -> bool {
    let started = Timestamp::from_nanosecond(process.started.started_at.into()).ok();
    started > state.started_at
}

/// Enters what the keeper and netdriver know about a run.
async fn run_again(shared: &Arc<Shared>, container: &mut Container, process: &HeldProcess) {
    let state = &mut container.state;
    if state.status != ContainerStatus::Paused {
        state.status = ContainerStatus::Running;
    }
    state.pid = process.started.pid;
    state.started_at = Timestamp::from_nanosecond(process.started.started_at.into()).ok();
    let cgroup = shared.cgroup(&container.definition);
    let (networks, id) = (shared.networks.clone(), container.id().to_owned());
    let looked = blocking(move || {
        let frozen = cgroup.ok().and_then(|cgroup| cgroup.is_frozen().ok());
        Ok((frozen, attachment(&networks, &id).ok()))
    })
    .await;
    if let Ok((frozen, attachment)) = looked {
        match frozen {
            Some(true) => container.state.status = ContainerStatus::Paused,
            Some(false) => container.state.status = ContainerStatus::Running,
            None => {}
        }
        container.attachment = attachment.map(Arc::new);
    }
}

/// Processes of a run whose keeper is gone would write to an upper directory that the next run uses.
async fn kill_leftovers(shared: &Arc<Shared>, container: &Container) {
    let Ok(cgroup) = shared.cgroup(&container.definition) else {
        return;
    };
    let killed = blocking(move || {
        if cgroup.exists() {
            end_all(&cgroup).map_err(|error| Error::system(error.to_string()))?;
        }
        Ok(())
    })
    .await;
    if let Err(error) = killed {
        tracing::warn!(container.id = container.id(), %error, "processes of the last run may be left");
    }
}

/// Kills everything in a cgroup, waits for the ends and removes it. Blocks.
pub(super) fn end_all(cgroup: &Cgroup) -> Result<(), CgroupError> {
    let ends: Vec<OwnedFd> = cgroup
        .processes()?
        .into_iter()
        .filter_map(rustix::process::Pid::from_raw)
        .filter_map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect();
    cgroup.kill()?;
    for end in &ends {
        let mut waiting = [PollFd::new(end, PollFlags::IN)];
        // One that does not end in time makes the removal fail, which is reported.
        let _ = rustix::event::poll(&mut waiting, Some(&END_PATIENCE));
    }
    cgroup.remove()
}

/// Brings the keeper's events to whom they belong; makes the connection anew when the keeper dies.
async fn route(shared: Arc<Shared>, mut events: KeeperEvents) {
    loop {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Exited { id, exit }) => deliver(&shared, &id, exit).await,
                    None => break,
                },
                () = shared.closing.cancelled() => return,
            }
        }
        tracing::error!(
            "the connection to the keeper is gone; connecting anew, or starting another keeper"
        );
        events = match shared.keeper.reconnect(&shared.options).await {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "cannot start a keeper: no container can be started until the daemon is restarted");
                return;
            }
        };
        // What ran before anybody could use the new connection.
        let containers = shared.registry.pictures();
        let execs = shared.execs.running();
        let steps = shared.build_steps.running();
        match shared.keeper.list().await {
            Ok(held) => {
                enter_lost(&shared, &containers, &execs, &held).await;
                build_step::enter_missed(&shared, &steps, &held, lost()).await;
            }
            Err(error) => tracing::error!(%error, "the keeper is gone again"),
        }
    }
}

/// An end that nobody saw.
fn lost() -> Exit {
    Exit {
        exit_code: LOST,
        oom_killed: false,
        finished_at: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
    }
}

/// Enters the ends that were missed, and those nobody saw.
async fn enter_lost(
    shared: &Arc<Shared>,
    containers: &[Arc<Container>],
    execs: &[String],
    held: &[HeldProcess],
) {
    let find = |id: &str| held.iter().find(|process| process.id == id);
    for container in containers.iter().filter(|container| container.is_alive()) {
        match find(container.id()) {
            Some(HeldProcess { exit: None, .. }) => {}
            Some(HeldProcess {
                exit: Some(exit), ..
            }) => deliver(shared, container.id(), *exit).await,
            None => {
                kill_leftovers(shared, container).await;
                deliver(shared, container.id(), lost()).await;
            }
        }
    }
    for id in execs.iter().filter(|id| find(id).is_none()) {
        exec::exited(shared, id, &lost());
    }
}

async fn deliver(shared: &Arc<Shared>, id: &str, exit: Exit) {
    if let Some(handle) = shared.registry.get(id) {
        // A driver that is busy must not hold up the exits of others.
        let mailbox = handle.mailbox.clone();
        match mailbox.try_send(Command::Exited { exit }) {
            Ok(()) => {}
            Err(tokio::sync::mpsc::error::TrySendError::Full(command)) => {
                shared.tasks.spawn(async move {
                    let _ = mailbox.send(command).await;
                });
            }
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => {
                shared.keeper.forget(id).await
            }
        }
        return;
    }
    if !shared.build_steps.ended(id, exit) {
        exec::exited(shared, id, &exit);
    }
    shared.keeper.forget(id).await;
}
