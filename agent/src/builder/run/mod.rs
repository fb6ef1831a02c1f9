//! One `RUN`: a command in a sandbox on the file system of the steps before it.
//!
//! ```text
//! run ── place        <exec-root>/build/<id>/   what the step needs besides its root; first of all: which cgroup is its own
//!     ── mounts       bind · cache · tmpfs · secret · ssh · script → launch mounts, held until the process has them
//!     ── network      sandbox on the bridge, a named network, the host's, or none
//!     ── stubs        which mount points the root lacks
//!     ── launch       the keeper, like a container (engine::build_step); root = overlay with `work/upper` on top
//!     ── output       frames → lines of the client, clipped
//!     ── end          exit · kill · cancel
//!     ── stubs        what was made only to mount on it goes from `work/upper`, which is the result
//! ```
//!
//! Nothing of a step shows among containers. Whatever happens (exit, cancel, a caller that stops listening) the process and its
//! mounts are gone before [`run`] returns. Its cgroup, sandbox and `<exec-root>/build/<id>` go while the next step begins already,
//! and are gone when [`Endings::settled`] returns; what a killed daemon leaves is killed when the engine opens (process, sandbox)
//! and by [`sweep`] (cgroup, mounts, directories).
//!
//! Must not: know plans, caches or clients beyond [`Sessions`]. Behaviour: buildkit `executor/runcexecutor`,
//! `executor/oci/spec.go`, `solver/llbsolver/mounts`.

mod cache_mounts;
mod ending;
mod mounts;
mod network;
mod output;
mod place;
mod spec;
mod ssh;
mod stubs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_build::plan::{InputIndex, RunOp};
use agent_runtime::keeper::Exit;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::engine::{Engine, blocking, new_build_step_id};
use crate::error::Error;
use ending::Ending;
use place::Place;

pub(crate) use cache_mounts::{CacheMount, CacheMounts};
pub(crate) use output::StreamKind;
pub(crate) use place::sweep;

/// Takes what a step prints, in pieces, in order. Called from one task at a time; must not block.
pub(crate) type OutputSink = Arc<dyn Fn(StreamKind, &[u8]) + Send + Sync>;

/// A command to run and what it needs.
pub(crate) struct RunStep {
    /// The command. Its [`InputIndex`]es are places in `inputs`.
    pub(crate) op: RunOp,
    /// File systems that the step reads, as the vertex lists them.
    pub(crate) inputs: Vec<StepInput>,
    /// The network of steps that do not choose one: empty, `default` or `bridge`, `host`, `none`, or the name of a
    /// network.
    pub(crate) network: String,
    /// Whom to ask for secrets and agents.
    pub(crate) sessions: Sessions,
    /// Where cache mounts are kept: those of `<root>/build/mounts`.
    pub(crate) cache_mounts: CacheMounts,
    /// How many commands run at once. Whoever waits for a client or for another step's cache has no turn yet.
    pub(crate) turns: Arc<Semaphore>,
    /// An empty directory of the step's own on the file system of the snapshots. The caller removes it; while the step
    /// runs, nothing is mounted in it.
    pub(crate) work: PathBuf,
    /// Takes the output.
    pub(crate) output: OutputSink,
    /// Knows when all of the step is gone.
    pub(crate) endings: Endings,
    /// Ends the step.
    pub(crate) cancel: CancellationToken,
}

/// Steps of a build of which something may be left for a while. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Endings(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Endings {
    fn add(&self, step: JoinHandle<()>) {
        let mut steps = self.0.lock();
        steps.retain(|step| !step.is_finished());
        steps.push(step);
    }

    /// Waits until nothing is left of the steps so far.
    pub(crate) async fn settled(&self) {
        loop {
            let Some(step) = self.0.lock().pop() else {
                return;
            };
            // A panic was told where it happened.
            drop(step.await);
        }
    }
}

/// A file system that a step reads: layers, put together.
#[derive(Debug, Clone)]
pub(crate) struct StepInput {
    /// Their directories, the uppermost first. None is an empty file system.
    pub(crate) layers: Vec<PathBuf>,
    /// What it is, whatever the directories are called: part of the identity of cache mounts filled from it.
    pub(crate) identity: String,
}

/// Why a step has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RunError {
    /// The command failed.
    #[error("exit code: {code}")]
    Exit {
        /// Its exit code, or 128 and the signal.
        code: i32,
        /// The kernel killed something of it for lack of memory.
        oom: bool,
    },
    /// Somebody did not want it any more.
    #[error("canceled")]
    Cancelled,
    /// The step asks for something that cannot be had.
    #[error("{0}")]
    Refused(String),
    /// The host failed.
    #[error("{0}")]
    System(String),
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        match error {
            Error::System(text) | Error::Unavailable(text) => Self::System(text),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Runs a step to its end. The result is the directory `upper` in `step.work`: what the command changed, in overlayfs'
/// form, ready to be renamed into a snapshot. Dropping the future cancels the step; what has to be undone then goes on in
/// a task of the engine's.
///
/// # Errors
/// [`RunError::Exit`] when the command failed; the others when it did not get that far.
pub(crate) async fn run(engine: &Engine, step: RunStep) -> Result<PathBuf, RunError> {
    let cancel = step.cancel.child_token();
    let _guard = cancel.clone().drop_guard();
    let (told, outcome) = oneshot::channel();
    let endings = step.endings.clone();
    let task = {
        let (engine, tasks) = (engine.clone(), &engine.shared().tasks);
        tasks.spawn(async move { Box::pin(carry_out(&engine, step, cancel, told)).await })
    };
    let outcome = outcome.await;
    // Not before: what runs on for another build is nothing that this one waits for.
    endings.add(task);
    outcome.unwrap_or_else(|_| Err(RunError::System("a step was lost".to_owned())))
}

/// The step with everything around it, which goes away whatever its outcome is, and after that is told.
async fn carry_out(
    engine: &Engine,
    step: RunStep,
    cancel: CancellationToken,
    told: oneshot::Sender<Result<PathBuf, RunError>>,
) {
    let id = new_build_step_id();
    let made = async {
        let parent = step.op.cgroup_parent.as_deref().unwrap_or_default();
        let cgroup = engine.build_step_cgroup(parent, &id)?;
        let place = Place::make(engine, &id, &cgroup).await?;
        Ok::<_, Error>((cgroup, place))
    };
    let (cgroup, place) = match made.await {
        Ok(made) => made,
        Err(error) => {
            drop(told.send(Err(error.into())));
            return;
        }
    };
    let ending = Ending {
        cancel,
        closing: engine.shared().closing.clone(),
    };
    let outcome = attempt(engine, &step, &place, cgroup, &ending).await;
    drop(told.send(match outcome {
        // A command that a cancel killed has no exit code of its own.
        Err(RunError::Exit { .. }) if ending.cancel.is_cancelled() => Err(RunError::Cancelled),
        other => other,
    }));
    tokio::join!(network::leave(engine, &id), place.clear(engine));
}

async fn attempt(
    engine: &Engine,
    step: &RunStep,
    place: &Place,
    cgroup: agent_runtime::spec::CgroupPath,
    ending: &Ending,
) -> Result<PathBuf, RunError> {
    let mut prepared = mounts::prepare(step, place, ending).await?;
    let _turn = ending.or(step.turns.acquire()).await?;
    let root = root_layers(step, place)?;
    let (targets, work) = (prepared.targets(), step.work.clone());
    let found = blocking(move || {
        let missing = stubs::find(&root, &targets)?;
        let upper = make_upper(&work)?;
        Ok((root, missing, upper))
    });
    // Both to their end, whatever the other brings.
    let (network, found) = tokio::join!(network::join(engine, step, place.id()), found);
    let (network, (root, missing, upper)) = (network?, found?);
    place.write_names(engine, step, &network).await?;
    let launch = spec::launch_spec(spec::Resolved {
        op: &step.op,
        root,
        work: &step.work,
        place: place.directory(),
        net: network.namespace.clone(),
        cgroup,
        shm_bytes: engine.shared().options.default_shm_size,
        default_ulimits: &engine.shared().options.default_ulimits,
        own_cgroup_namespace: engine.shared().hierarchy.version()
            == agent_runtime::cgroup::Version::V2,
        devices: spec::devices(&step.op)?,
        mounts: std::mem::take(&mut prepared.mounts),
        env: std::mem::take(&mut prepared.env),
    })?;
    ending.check()?;
    let (ours, theirs) = stream_pair()?;
    let started = engine
        .start_build_step(place.id(), launch, theirs)
        .await
        .map_err(|failure| match failure.exit_code {
            126 | 127 => not_started(step, failure.exit_code, &failure.error.to_string()),
            _ => failure.error.into(),
        })?;
    let begun = std::time::SystemTime::now();
    // The process has its own copies of the mounts.
    prepared.unmount().await;
    let ended = follow(engine, step, place.id(), ours, started, ending).await;
    prepared.release().await;
    let exit = ended?;
    if exit.exit_code != 0 {
        return Err(RunError::Exit {
            code: exit.exit_code,
            oom: exit.oom_killed,
        });
    }
    let clean = upper.clone();
    blocking(move || stubs::remove(&clean, &missing, begun)).await?;
    Ok(upper)
}

/// A program that cannot be started fails as in BuildKit, whose runtime says why among the step's output.
fn not_started(step: &RunStep, code: i32, why: &str) -> RunError {
    (step.output)(StreamKind::Stderr, format!("{why}\n").as_bytes());
    RunError::Exit { code, oom: false }
}

/// Passes output on and waits for the end, which a cancel brings about.
async fn follow(
    engine: &Engine,
    step: &RunStep,
    id: &str,
    output: UnixStream,
    ended: oneshot::Receiver<Exit>,
    ending: &Ending,
) -> Result<Exit, RunError> {
    let kill = async {
        ending.reached().await;
        if let Err(error) = engine.kill_build_step(id).await {
            tracing::warn!(step.id = id, %error, "cannot kill a step");
        }
        std::future::pending::<()>().await;
    };
    let finish = async {
        // The end of the output is the end of the process; why it ended comes right behind, unless the engine closes and
        // nobody listens to the keeper any more.
        if let Err(error) = output::pass_on(output, &step.output).await {
            tracing::warn!(step.id = id, %error, "the output of a step is not complete");
        }
        tokio::select! {
            biased;
            exit = ended => {
                exit.map_err(|_| RunError::System("nobody saw the end of the step".to_owned()))
            }
            () = engine.shared().closing.cancelled() => Err(RunError::Cancelled),
        }
    };
    tokio::select! {
        exit = finish => exit,
        () = kill => unreachable!("it waits for the end for ever"),
    }
}

/// The layers of the step's root; one empty directory stands for none.
fn root_layers(step: &RunStep, place: &Place) -> Result<Vec<PathBuf>, RunError> {
    let layers = match step.op.root {
        None => Vec::new(),
        Some(index) => step.input(index)?.layers.clone(),
    };
    Ok(match layers.is_empty() {
        true => vec![place.empty()],
        false => layers,
    })
}

impl RunStep {
    fn input(&self, index: InputIndex) -> Result<&StepInput, RunError> {
        self.inputs.get(index.0).ok_or_else(|| {
            RunError::System(format!(
                "the step has {} inputs and reads number {}",
                self.inputs.len(),
                index.0
            ))
        })
    }
}

/// Makes the directories of the root's writable layer.
fn make_upper(work: &Path) -> Result<PathBuf, Error> {
    let upper = work.join("upper");
    for directory in [&upper, &work.join("overlay")] {
        std::fs::create_dir(directory).map_err(Error::io("create", directory))?;
    }
    Ok(upper)
}

fn stream_pair() -> Result<(UnixStream, std::os::fd::OwnedFd), RunError> {
    let pair = || -> std::io::Result<_> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(|error| {
        RunError::System(format!(
            "cannot make a socket pair for a step's output: {error}"
        ))
    })
}

#[cfg(test)]
mod tests;
