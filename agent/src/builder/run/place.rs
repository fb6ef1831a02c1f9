//! Where a step keeps what it needs besides its root, and how that is cleared away.
//!
//! ```text
//! <exec-root>/build/<id>/
//!   cgroup          path of the step's cgroup, written before anything else is made: what to kill after a crash
//!   hosts resolv.conf
//!   empty/          stands for a file system without layers
//!   mounts/<n>/     attached only until the process has its own copy of the mount: layers put together
//!   mounts/<n>.part likewise: a part of a tree, which may be a file
//!   secrets/        a tmpfs, likewise
//!   agents/<n>      sockets
//!   scripts/<n>/
//! ```
//!
//! It is safe to lose at reboot.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use agent_runtime::spec::CgroupPath;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::network::Joined;
use super::{RunStep, spec};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

const CGROUP: &str = "cgroup";

/// A step's directory.
pub(super) struct Place {
    id: String,
    directory: PathBuf,
    cgroup: CgroupPath,
}

impl Place {
    /// Makes it. From now on a crash is cleared away by [`sweep`].
    pub(super) async fn make(engine: &Engine, id: &str, cgroup: &CgroupPath) -> Result<Self> {
        let directory = all(engine).join(id);
        let place = Self {
            id: id.to_owned(),
            directory: directory.clone(),
            cgroup: cgroup.clone(),
        };
        let cgroup = cgroup.as_path().to_path_buf();
        blocking(move || {
            private_directory(&directory)?;
            let record = directory.join(CGROUP);
            fs::write(&record, cgroup.as_os_str().as_encoded_bytes())
                .map_err(Error::io("write", &record))?;
            private_directory(&directory.join("empty"))
        })
        .await?;
        Ok(place)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory without anything in it.
    pub(super) fn empty(&self) -> PathBuf {
        self.directory.join("empty")
    }

    /// A new directory of that kind.
    pub(super) fn subdirectory(&self, kind: &str, number: usize) -> Result<PathBuf> {
        let path = self.directory.join(kind).join(number.to_string());
        private_directory(&path)?;
        Ok(path)
    }

    /// Where a part of a tree is to be attached; nothing is there.
    pub(super) fn part(&self, number: usize) -> Result<PathBuf> {
        let all = self.directory.join("mounts");
        private_directory(&all)?;
        Ok(all.join(format!("{number}.part")))
    }

    /// Writes the step's `/etc/hosts` and `/etc/resolv.conf`.
    pub(super) async fn write_names(
        &self,
        engine: &Engine,
        step: &RunStep,
        network: &Joined,
    ) -> Result<()> {
        let (hosts, resolv_conf) = (
            self.directory.join("hosts"),
            self.directory.join("resolv.conf"),
        );
        let text = hosts_file(engine, step)?;
        let (networks, sandbox) = (engine.shared().networks.clone(), network.sandbox.clone());
        blocking(move || {
            fs::write(&hosts, text).map_err(Error::io("write", &hosts))?;
            let resolver = networks.resolv_conf(&sandbox)?;
            fs::write(&resolv_conf, resolver).map_err(Error::io("write", &resolv_conf))
        })
        .await
    }

    /// Clears it away with all that is mounted there, and what is left of the step's cgroup. Goes on past errors, which
    /// are logged.
    pub(super) async fn clear(self, engine: &Engine) {
        if let Err(error) = engine.end_build_step_cgroup(self.cgroup).await {
            tracing::warn!(step.id = self.id, %error, "the cgroup of a step is left");
        }
        let directory = self.directory;
        if let Err(error) = blocking(move || remove(&directory)).await {
            tracing::warn!(step.id = self.id, %error, "what a step needed is left");
        }
    }
}

fn all(engine: &Engine) -> PathBuf {
    engine.shared().options.exec_root.join("build")
}

/// Clears away what steps have left that a killed daemon ran: cgroups, mounts, and their directories below the exec root
/// and in `work`, where nothing of a build that still runs may be. Goes on past errors, which are logged.
pub(crate) async fn sweep(engine: &Engine, work: &Path) {
    let places = all(engine);
    let Ok(left) = blocking(move || Ok(entries(&places))).await else {
        return;
    };
    for directory in left {
        if let Ok(path) = fs::read_to_string(directory.join(CGROUP))
            && let Ok(path) = CgroupPath::try_from(PathBuf::from(path))
            && let Err(error) = engine.end_build_step_cgroup(path).await
        {
            tracing::warn!(path = %directory.display(), %error, "the cgroup of a step is left");
        }
        if let Err(error) = blocking(move || remove(&directory)).await {
            tracing::warn!(%error, "what a step needed is left");
        }
    }
    let work = work.to_path_buf();
    let swept = blocking(move || {
        for path in entries(&work) {
            let removed = match path.is_dir() {
                true => agent_image::remove_tree(&path),
                false => fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "what a step worked on is left");
            }
        }
        Ok(())
    });
    drop(swept.await);
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Removes a place. Nothing is deleted while something is mounted in it. Blocks.
fn remove(directory: &Path) -> Result<()> {
    for mounted in entries(&directory.join("mounts")) {
        unmount(&mounted)?;
        // Neither succeeds where something is mounted still, and nothing below is looked at.
        match fs::remove_dir(&mounted) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&mounted),
            other => other,
        }
        .map_err(Error::io("remove", &mounted))?;
    }
    unmount(&directory.join("secrets"))?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Takes away what is mounted on a directory, also where nothing is. Blocks.
pub(super) fn unmount(path: &Path) -> Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be several, one over the other.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::io("unmount", path)(errno.into())),
        }
    }
}

/// Makes a directory that only root may enter, with its parents.
pub(super) fn private_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))
}

/// The text of `/etc/hosts`: loopback, the step's own name, and what the user adds. Source: buildkit
/// `executor/oci/hosts.go`.
fn hosts_file(engine: &Engine, step: &RunStep) -> Result<String> {
    let name = step.op.hostname.as_deref().unwrap_or(spec::HOSTNAME);
    let mut text =
        format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for extra in &step.op.extra_hosts {
        let address = match extra.address.as_str() {
            "host-gateway" => engine.shared().networks.host_gateway().ok_or_else(|| {
                Error::invalid("unable to derive the IP value for host-gateway: the bridge network has no gateway")
            })?,
            address => address.parse().map_err(|_| {
                Error::invalid(format!("invalid IP address {address:?} of the extra host {}", extra.host))
            })?,
        };
        text.push_str(&format!("{address}\t{}\n", extra.host));
    }
    Ok(text)
}
