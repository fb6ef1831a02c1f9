//! What a step mounts beside its root.
//!
//! ```text
//! bind     a stack: its layers put together. Written to: an overlay whose upper directory is dropped with the step
//! cache    a directory of `cache_mounts`, or what is in it
//! tmpfs    new
//! secret   a file of one tmpfs, detached as soon as the process has it; or a variable. Never on disk
//! ssh      a socket; connections go to the client's agent
//! script   a directory with one file
//! ```
//!
//! Trees are attached below the step's place while the launch copies the mounts. A part of a tree is looked up once, and
//! what was found is mounted by its descriptor: whoever can write to the tree may put a link there at any time
//! (CVE-2024-23651).
//!
//! Clients are asked only here: when the step really runs. Source: buildkit `solver/llbsolver/mounts/mount.go`,
//! `frontend/dockerfile/dockerfile2llb/convert_runmount.go`.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use agent_build::plan::{InputIndex, MountKind as Kind, Ownership, RunMount};
use agent_runtime::spec::{Mount, MountKind, MountOptions};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags};

use super::cache_mounts::{CacheRequest, Lease, Seed};
use super::ending::Ending;
use super::place::{self, Place};
use super::ssh::Agent;
use super::{RunError, RunStep, StepInput};
use crate::engine::blocking;
use crate::error::Error;

/// Owner and mode of a secret that does not say.
const SECRET: Ownership = Ownership {
    uid: 0,
    gid: 0,
    mode: 0o400,
};
/// Owner and mode of an agent's socket that does not say.
const SOCKET: Ownership = Ownership {
    uid: 0,
    gid: 0,
    mode: 0o600,
};
/// Where the n-th agent's socket is unless the step says.
const AGENT: &str = "/run/buildkit/ssh_agent";

/// Mounts of a step that is about to be launched, and what must be held meanwhile and while it runs.
#[derive(Default)]
pub(super) struct Prepared {
    /// For the launch, in the order of mounting.
    pub(super) mounts: Vec<Mount>,
    /// `NAME=value` of secrets and agents.
    pub(super) env: Vec<String>,
    targets: Vec<PathBuf>,
    attached: Vec<PathBuf>,
    caches: Vec<Lease>,
    agents: Vec<Agent>,
}

/// Obtains everything, unless the step ends before; what was attached until then goes with the step's place. Waits for
/// other steps and for clients. Must not be dropped: a thread may be mounting.
pub(super) async fn prepare(
    step: &RunStep,
    place: &Place,
    ending: &Ending,
) -> Result<Prepared, RunError> {
    // Parents before what is inside of them.
    let mut wanted: Vec<&RunMount> = step.op.mounts.iter().collect();
    wanted.sort_by(|a, b| a.target.cmp(&b.target));
    let mut prepared = Prepared {
        caches: leases(step, &wanted, ending).await?,
        ..Prepared::default()
    };
    for (number, mount) in wanted.iter().enumerate() {
        let target = mount.target.as_ref().map(PathBuf::from);
        ending.check()?;
        let at = At {
            step,
            place,
            number,
            ending,
        };
        let made = prepared.one(at, mount).await?;
        match (made, target) {
            (Some((kind, options)), Some(target)) => prepared.add(target, kind, options),
            // An agent that chose no place.
            (Some((kind, options)), None) => {
                let target = PathBuf::from(format!("{AGENT}.{}", prepared.agents.len() - 1));
                prepared.add(target, kind, options);
            }
            (None, _) => {}
        }
    }
    Ok(prepared)
}

type Made = Option<(MountKind, MountOptions)>;

/// Which mount of which step.
#[derive(Clone, Copy)]
struct At<'a> {
    step: &'a RunStep,
    place: &'a Place,
    number: usize,
    ending: &'a Ending,
}

impl Prepared {
    /// The places in the root that are mounted on.
    pub(super) fn targets(&self) -> Vec<PathBuf> {
        self.targets.clone()
    }

    /// The process has its own copies of what was attached for it.
    pub(super) async fn unmount(&mut self) {
        let attached = std::mem::take(&mut self.attached);
        if attached.is_empty() {
            return;
        }
        let unmounted = blocking(move || attached.iter().try_for_each(|path| place::unmount(path)));
        if let Err(error) = unmounted.await {
            // It is tried once more with the step's place.
            tracing::warn!(%error, "a mount for a step stays attached while it runs");
        }
    }

    /// The step has ended: others may have its cache mounts, and agents are not needed any more.
    pub(super) async fn release(self) {
        for lease in self.caches {
            lease.release().await;
        }
    }

    fn add(&mut self, target: PathBuf, kind: MountKind, options: MountOptions) {
        self.targets.push(target.clone());
        self.mounts.push(Mount {
            target,
            kind,
            options,
        });
    }

    /// One mount; none where an optional one cannot be had, or where it is a variable.
    async fn one(&mut self, at: At<'_>, mount: &RunMount) -> Result<Made, RunError> {
        match &mount.kind {
            Kind::Bind {
                from,
                source,
                writable,
            } => self.bind(at, *from, source, *writable).await,
            Kind::Cache {
                source, read_only, ..
            } => self.cache(at, &mount.kind, source, *read_only).await,
            Kind::Tmpfs { size_bytes } => Ok(Some(tmpfs(*size_bytes))),
            Kind::Secret {
                id,
                env,
                required,
                ownership,
            } => {
                let Some(secret) = self.secret(at, id, *required).await? else {
                    return Ok(None);
                };
                if let Some(name) = env {
                    self.env.push(variable(id, name, &secret)?);
                }
                match mount.target {
                    Some(_) => self.secret_file(at, secret, *ownership).await,
                    None => Ok(None),
                }
            }
            Kind::Ssh {
                id,
                required,
                ownership,
            } => {
                let target = mount.target.as_deref();
                let made = self.ssh(at, id, *ownership).await?;
                match made {
                    None if *required => Err(RunError::Refused(format!(
                        "no SSH key {id:?} forwarded from the client"
                    ))),
                    None => Ok(None),
                    Some(made) => {
                        self.name_agent(at.step, target);
                        Ok(Some(made))
                    }
                }
            }
            Kind::Script { name, content } => {
                script(at.place, at.number, name, content).await.map(Some)
            }
        }
    }

    async fn bind(
        &mut self,
        at: At<'_>,
        from: Option<InputIndex>,
        source: &str,
        writable: bool,
    ) -> Result<Made, RunError> {
        let mut layers = match from {
            None => Vec::new(),
            Some(index) => at.step.input(index)?.layers.clone(),
        };
        // Also what makes one layer an overlay: whiteouts in it are not for the step to see.
        layers.push(at.place.empty());
        let tree = at.place.subdirectory("mounts", at.number)?;
        let drop_in = at.step.work.join(format!("bind-{}", at.number));
        let attach = {
            let tree = tree.clone();
            move || match writable {
                true => attach_writable(&layers, &drop_in, &tree),
                false => attach(overlay(&layers)?, &tree),
            }
        };
        self.attached.push(tree.clone());
        blocking(attach).await?;
        let shown = match source.trim_matches('/') {
            "" => tree,
            _ => self.part(at, tree, source).await?,
        };
        Ok(Some((bound(shown), read_only(!writable))))
    }

    async fn cache(
        &mut self,
        at: At<'_>,
        kind: &Kind,
        source: &str,
        readonly: bool,
    ) -> Result<Made, RunError> {
        let request = cache_request(at.step, kind)?.expect("only called for a cache mount");
        let lease = self.caches.iter().find(|lease| lease.is_for(&request));
        let lease = lease.expect("leases were taken for all cache mounts");
        let shown = self.part(at, lease.data(), source).await?;
        Ok(Some((bound(shown), read_only(readonly))))
    }

    /// Attaches what is at a path in a tree; links lead nowhere outside of the tree. Where it is then.
    async fn part(&mut self, at: At<'_>, tree: PathBuf, source: &str) -> Result<PathBuf, RunError> {
        let shown = at.place.part(at.number)?;
        self.attached.push(shown.clone());
        let (path, source) = (shown.clone(), source.to_owned());
        blocking(move || Ok(attach_part(&tree, &source, &path))).await??;
        Ok(shown)
    }

    async fn secret(
        &self,
        at: At<'_>,
        id: &str,
        required: bool,
    ) -> Result<Option<Vec<u8>>, RunError> {
        let secret = at.ending.or(at.step.sessions.secret(id)).await?;
        match secret.map_err(|error| RunError::Refused(error.to_string()))? {
            None if required => Err(RunError::Refused(format!("secret {id}: not found"))),
            other => Ok(other),
        }
    }

    async fn secret_file(
        &mut self,
        at: At<'_>,
        secret: Vec<u8>,
        ownership: Option<Ownership>,
    ) -> Result<Made, RunError> {
        let directory = at.place.directory().join("secrets");
        if !self.attached.contains(&directory) {
            self.attached.push(directory.clone());
            let directory = directory.clone();
            blocking(move || mount_secrets(&directory)).await?;
        }
        let file = directory.join(at.number.to_string());
        let path = file.clone();
        blocking(move || write_file(&path, &secret, ownership.unwrap_or(SECRET))).await?;
        Ok(Some((bound(file), guarded(true))))
    }

    async fn ssh(
        &mut self,
        at: At<'_>,
        id: &str,
        ownership: Option<Ownership>,
    ) -> Result<Made, RunError> {
        let (sessions, ownership) = (&at.step.sessions, ownership.unwrap_or(SOCKET));
        let first = at.ending.or(sessions.ssh(id)).await?;
        let Some(first) = first.map_err(|error| RunError::Refused(error.to_string()))? else {
            return Ok(None);
        };
        let directory = at.place.subdirectory("agents", at.number)?;
        let agent = Agent::listen(sessions, id, first, &directory, ownership)?;
        let socket = bound(agent.socket().to_owned());
        self.agents.push(agent);
        Ok(Some((socket, guarded(false))))
    }

    /// Programs are told of the first agent, unless the step tells them of another.
    fn name_agent(&mut self, step: &RunStep, target: Option<&str>) {
        let named = |variable: &String| variable.starts_with("SSH_AUTH_SOCK=");
        if self.agents.len() == 1 && !step.op.env.iter().any(named) {
            let target = target.map_or_else(|| format!("{AGENT}.0"), ToOwned::to_owned);
            self.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
    }
}

/// Leases of all cache mounts, taken in one order by all steps, so that no two wait for each other.
async fn leases(
    step: &RunStep,
    wanted: &[&RunMount],
    ending: &Ending,
) -> Result<Vec<Lease>, RunError> {
    let mut requests = Vec::new();
    for mount in wanted {
        if let Some(request) = cache_request(step, &mount.kind)? {
            let request = request.described(mount.target.as_deref(), &step.op.args);
            if !requests
                .iter()
                .any(|other: &CacheRequest| other.key() == request.key())
            {
                requests.push(request);
            }
        }
    }
    requests.sort_by_key(CacheRequest::key);
    let mut leases = Vec::new();
    for request in requests {
        let lease = ending.or(step.cache_mounts.lease(&request)).await??;
        lease.make(&request).await?;
        leases.push(lease);
    }
    Ok(leases)
}

fn cache_request(step: &RunStep, kind: &Kind) -> Result<Option<CacheRequest>, RunError> {
    let Kind::Cache {
        id,
        sharing,
        from,
        ownership,
        ..
    } = kind
    else {
        return Ok(None);
    };
    let seed = match (from, ownership) {
        (Some(index), _) => {
            let StepInput { layers, identity } = step.input(*index)?.clone();
            Seed::Tree { layers, identity }
        }
        (None, Some(ownership)) => Seed::Owned(*ownership),
        (None, None) => Seed::Empty,
    };
    Ok(Some(CacheRequest::new(id.clone(), *sharing, seed)))
}

fn read_only(readonly: bool) -> MountOptions {
    MountOptions {
        readonly,
        ..MountOptions::default()
    }
}

fn guarded(readonly: bool) -> MountOptions {
    MountOptions {
        readonly,
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountOptions::default()
    }
}

fn bound(source: PathBuf) -> MountKind {
    MountKind::Bind {
        source,
        recursive: false,
    }
}

fn tmpfs(size_bytes: Option<u64>) -> (MountKind, MountOptions) {
    let kind = MountKind::Filesystem {
        fstype: "tmpfs".into(),
        source: "tmpfs".into(),
        data: size_bytes
            .iter()
            .map(|bytes| format!("size={bytes}"))
            .collect(),
    };
    let options = MountOptions {
        nosuid: true,
        ..MountOptions::default()
    };
    (kind, options)
}

fn variable(id: &str, name: &str, secret: &[u8]) -> Result<String, RunError> {
    match std::str::from_utf8(secret) {
        Ok(text) if !text.contains('\0') => Ok(format!("{name}={text}")),
        _ => Err(RunError::Refused(format!(
            "secret {id} cannot be the value of a variable: it is not text; mount it as a file"
        ))),
    }
}

async fn script(
    place: &Place,
    number: usize,
    name: &str,
    content: &str,
) -> Result<(MountKind, MountOptions), RunError> {
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        return Err(RunError::Refused(format!(
            "invalid name of a script: {name:?}"
        )));
    }
    let directory = place.subdirectory("scripts", number)?;
    let (path, content) = (directory.join(name), content.to_owned());
    blocking(move || {
        let executable = Ownership {
            uid: 0,
            gid: 0,
            mode: 0o755,
        };
        let parent = path
            .parent()
            .expect("it was joined to a directory")
            .to_owned();
        write_file(&path, content.as_bytes(), executable)?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&parent, open).map_err(Error::io("open", &parent))
    })
    .await?;
    Ok((bound(directory), read_only(true)))
}

/// A new file of that owner and mode.
fn write_file(path: &Path, content: &[u8], ownership: Ownership) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        io::Write::write_all(&mut file, content)?;
        std::os::unix::fs::fchown(&file, Some(ownership.uid), Some(ownership.gid))?;
        file.set_permissions(fs::Permissions::from_mode(ownership.mode & 0o7777))
    };
    write().map_err(Error::io("write", path))
}

/// The tmpfs of a step's secrets.
fn mount_secrets(directory: &Path) -> Result<(), Error> {
    place::private_directory(directory)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let data: &CStr = c"mode=0700";
    rustix::mount::mount("secrets", directory, "tmpfs", flags, data)
        .map_err(|errno| Error::io("mount a tmpfs on", directory)(errno.into()))
}

fn overlay(layers: &[PathBuf]) -> Result<OwnedFd, Error> {
    agent_runtime::root::layers(layers).map_err(|error| {
        Error::system(format!(
            "cannot put {} layers together: {error}",
            layers.len()
        ))
    })
}

fn attach_writable(layers: &[PathBuf], drop_in: &Path, at: &Path) -> Result<(), Error> {
    let (upper, work) = (drop_in.join("upper"), drop_in.join("overlay"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    }
    let mount = agent_runtime::root::writable_layers(layers, &upper, &work).map_err(|error| {
        Error::system(format!(
            "cannot put {} layers together: {error}",
            layers.len()
        ))
    })?;
    attach(mount, at)
}

fn attach(mount: OwnedFd, at: &Path) -> Result<(), Error> {
    rustix::mount::move_mount(
        &mount,
        c"",
        rustix::fs::CWD,
        at,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| Error::io("mount layers on", at)(errno.into()))
}

/// Attaches what is at `source` in a tree at a path that nothing is at.
fn attach_part(tree: &Path, source: &str, at: &Path) -> Result<(), RunError> {
    let clone = || -> io::Result<(OwnedFd, FileType)> {
        let found = beneath(tree, source)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok((rustix::mount::open_tree(&found, c"", flags)?, kind))
    };
    let (mount, kind) = clone().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            RunError::Refused(format!("{source:?}: not found"))
        }
        _ => RunError::System(format!("cannot open {source:?} to mount it: {error}")),
    })?;
    match kind {
        FileType::Directory => place::private_directory(at)?,
        _ => drop(fs::File::create_new(at).map_err(Error::io("create", at))?),
    }
    Ok(attach(mount, at)?)
}

/// What is at `source` in a tree, whose links lead nowhere outside of it.
fn beneath(tree: &Path, source: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(tree, flags | OFlags::DIRECTORY, Mode::empty())?;
    let inside = source.trim_start_matches('/');
    let inside = if inside.is_empty() { "." } else { inside };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, inside, flags, Mode::empty(), resolve);
    Ok(found?)
}
