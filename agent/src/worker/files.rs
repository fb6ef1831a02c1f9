//! Secrets and configs of a task as files: in a tmpfs of the task's own, so that nothing of them ever reaches a disk,
//! and only as long as the task needs them.
//!
//! ```text
//! <run>/swarm/files/<task id>/    tmpfs, root only
//!   s0 s1 …                       secrets in the order of the task's references
//!   c0 c1 …                       configs likewise
//! ```
//!
//! Each file is bind-mounted read-only to where the task wants it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::Mount;
use agent_api::swarm::{ContainerSpec, ReferenceFile};
use base64::Engine as _;
use cluster_api::{Config, Secret};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::container::file_mount;
use super::records::is_id;

/// Room for the files of one task; Docker's limits per object are 500 and 1000 KiB.
const SIZE: &str = "size=64m,mode=0700,nr_inodes=4096";

/// The files cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{kind} {name} has not come with the task")]
    Missing { kind: &'static str, name: String },
    #[error("{kind} {name} is not base64")]
    Data { kind: &'static str, name: String },
    #[error("{kind} {name} has a template driver, which this node does not support")]
    Template { kind: &'static str, name: String },
    #[error("{kind} {name}: {value:?} is no user or group number")]
    Owner {
        kind: &'static str,
        name: String,
        value: String,
    },
    #[error("{0:?} is no id of a task")]
    Id(String),
}

/// Where the tasks' files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

/// One file to be written.
struct Payload<'a> {
    kind: &'static str,
    name: &'a str,
    data: Option<&'a str>,
    templated: bool,
    file: &'a ReferenceFile,
    /// Where relative targets are.
    below: &'static str,
}

impl Files {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Puts everything the container refers to in place, anew if something was there. Returns the mounts.
    pub(crate) fn place(
        &self,
        task_id: &str,
        spec: &ContainerSpec,
        secrets: &[Arc<Secret>],
        configs: &[Arc<Config>],
    ) -> Result<Vec<Mount>, FilesError> {
        let mut payloads = Vec::new();
        for reference in &spec.secrets {
            let missing = || FilesError::Missing {
                kind: "secret",
                name: reference.secret_name.clone(),
            };
            let secret = secrets
                .iter()
                .find(|secret| secret.id == reference.secret_id);
            let secret = secret.ok_or_else(missing)?;
            let Some(file) = &reference.file else {
                continue;
            };
            payloads.push(Payload {
                kind: "secret",
                name: &reference.secret_name,
                data: secret.spec.data.as_deref(),
                templated: secret.spec.templating.is_some(),
                file,
                below: "/run/secrets",
            });
        }
        for reference in &spec.configs {
            let missing = || FilesError::Missing {
                kind: "config",
                name: reference.config_name.clone(),
            };
            let config = configs
                .iter()
                .find(|config| config.id == reference.config_id);
            let config = config.ok_or_else(missing)?;
            let Some(file) = &reference.file else {
                continue;
            };
            payloads.push(Payload {
                kind: "config",
                name: &reference.config_name,
                data: config.spec.data.as_deref(),
                templated: config.spec.templating.is_some(),
                file,
                below: "/",
            });
        }
        self.remove(task_id)?;
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        let directory = self.directory(task_id)?;
        mount_tmpfs(&directory)?;
        let written: Result<Vec<Mount>, FilesError> = payloads
            .iter()
            .enumerate()
            .map(|(number, payload)| {
                let path = directory.join(format!("{}{number}", &payload.kind[..1]));
                write(&path, payload)?;
                let target = Path::new(payload.below).join(&payload.file.name);
                Ok(file_mount(&path, &target.display().to_string()))
            })
            .collect();
        if written.is_err() {
            self.remove(task_id)?;
        }
        written
    }

    /// Takes the files of a task away. Containers that still have them mounted keep them until they end.
    pub(crate) fn remove(&self, task_id: &str) -> Result<(), FilesError> {
        let directory = self.directory(task_id)?;
        // Twice mounted by a crash between mount and record: until there is nothing left to unmount.
        while unmount(&directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the files of every task away that is not one of `kept`: what a crash left.
    pub(crate) fn sweep(&self, kept: impl Fn(&str) -> bool) -> Result<(), FilesError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("list", &self.root))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &self.root))?;
            if let Some(id) = entry.file_name().to_str().filter(|id| !kept(id)) {
                self.remove(id)?;
            }
        }
        Ok(())
    }

    fn directory(&self, task_id: &str) -> Result<PathBuf, FilesError> {
        if is_id(task_id) {
            Ok(self.root.join(task_id))
        } else {
            Err(FilesError::Id(task_id.to_owned()))
        }
    }
}

fn mount_tmpfs(directory: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(directory).map_err(failed("make", directory))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = |options: &str| {
        let options = std::ffi::CString::new(options).expect("a constant without zeros");
        mount("muster", directory, "tmpfs", flags, options.as_c_str())
    };
    // `noswap` is of Linux 6.4; before, the host's swap may see the files, as it may with Docker.
    mounted(&format!("{SIZE},noswap"))
        .or_else(|_| mounted(SIZE))
        .map_err(|errno| failed("mount a tmpfs on", directory)(errno.into()))
}

fn write(path: &Path, payload: &Payload<'_>) -> Result<(), FilesError> {
    let (kind, name) = (payload.kind, || payload.name.to_owned());
    if payload.templated {
        return Err(FilesError::Template { kind, name: name() });
    }
    let data = base64::engine::general_purpose::STANDARD
        .decode(payload.data.unwrap_or_default())
        .map_err(|_| FilesError::Data { kind, name: name() })?;
    let number = |value: &str| match value {
        "" => Ok(0),
        value => value.parse().map_err(|_| FilesError::Owner {
            kind,
            name: name(),
            value: value.to_owned(),
        }),
    };
    let (uid, gid) = (number(&payload.file.uid)?, number(&payload.file.gid)?);
    let put = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&data)?;
        fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(Permissions::from_mode(payload.file.mode & 0o7777))
    };
    put().map_err(failed("write", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::File { what, path, source }
}
