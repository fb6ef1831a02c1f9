//! The facade's operations on files inside containers: archives out and in (`cp`), and of everything (`export`).
//!
//! Whoever works on a container's files holds its files lock, which a start waits for: the root of a stopped container
//! is mounted by one at a time. Every path is resolved inside the root by the kernel (see `container_path`).
//! Source: moby `daemon/archive.go`, `daemon/archive_unix.go`, `daemon/export.go`.

use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::{ContainerStatus, PathStat};
use agent_image::{Destination, ExtractError, ExtractOptions, ImageError, Overwrite, Owner};
use agent_runtime::spec::Rootfs;
use agent_runtime::view::{self, ViewError, ViewMount};
use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::container::Container;
use super::container_path as path;
use super::mounts::MountSource;
use super::shared::{Shared, blocking};
use super::{ByteReceiver, ByteSender, Engine, byte_pipe};
use crate::error::{Error, Result};

/// A path of a container as an archive.
pub struct Archived {
    /// What is there.
    pub stat: PathStat,
    /// The tar.
    pub archive: ByteReceiver,
}

/// How to unpack an archive in a container.
#[derive(Debug, Clone, Default)]
pub struct ArchiveUpload {
    /// Directory in the container.
    pub path: String,
    /// Let neither directories replace files nor files directories.
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to the container's user, instead of whom the archive names.
    pub copy_uid_gid: bool,
}

impl Engine {
    /// What is at a path of a container.
    pub async fn container_path_stat(&self, reference: &str, path: &str) -> Result<PathStat> {
        let work = self.work(reference, path).await?;
        blocking(move || {
            let absolute = path::absolute(&work.path);
            work.in_view(|root| path::stat(root, &absolute))?
                .map_err(|error| work.path_error(error))
        })
        .await
    }

    /// A path of a container as a tar: a directory with everything in it, or one file or link.
    pub async fn read_container_archive(&self, reference: &str, path: &str) -> Result<Archived> {
        let work = self.work(reference, path).await?;
        let shared = Arc::clone(&work.shared);
        let definition = Arc::clone(&work.container.definition);
        let attributes = path.to_owned();
        let (sender, archive) = byte_pipe();
        let (found, is_found) = oneshot::channel();
        self.shared.transfers.spawn(move || {
            let absolute = path::absolute(&work.path);
            // Taken by whichever comes first: the stat, or an error before it.
            let mut found = Some(found);
            let done = work.in_view(|root| {
                let stat = path::stat(root, &absolute).map_err(|error| work.path_error(error))?;
                let directory = stat.is_directory();
                if let Some(found) = found.take() {
                    let _ = found.send(Ok(stat));
                }
                write(root, &absolute, directory, sender);
                Ok(())
            });
            if let (Err(error), Some(found)) = (done.and_then(|done| done), found) {
                let _ = found.send(Err(error));
            }
        });
        let stat = is_found
            .await
            .map_err(|_| Error::Unavailable("the daemon is shutting down".to_owned()))??;
        let attributes = [("path", attributes.as_str())];
        shared
            .events
            .container(&definition, "archive-path", &attributes);
        Ok(Archived { stat, archive })
    }

    /// Unpacks a tar in a directory of a container.
    pub async fn write_container_archive(
        &self,
        reference: &str,
        upload: ArchiveUpload,
        archive: ByteReceiver,
    ) -> Result<()> {
        let work = self.work(reference, &upload.path).await?;
        let transfers = self.shared.transfers.clone();
        transfers
            .run(move || {
                work.in_view(|root| work.unpack(root, &upload, archive))??;
                let attributes = [("path", upload.path.as_str())];
                let events = &work.shared.events;
                events.container(&work.container.definition, "extract-to-dir", &attributes);
                Ok(())
            })
            .await
    }

    /// The whole file system of a container as a tar, without what is mounted in it.
    pub async fn export_container(&self, reference: &str) -> Result<ByteReceiver> {
        let work = self.work(reference, "/").await?;
        let (mut sender, archive) = byte_pipe();
        let shared = Arc::clone(&work.shared);
        let definition = Arc::clone(&work.container.definition);
        let (mounted, is_mounted) = oneshot::channel();
        self.shared.transfers.spawn(move || {
            let root = match work.root_alone() {
                Ok(root) => root,
                Err(error) => {
                    let _ = mounted.send(Err(error));
                    return;
                }
            };
            let _ = mounted.send(Ok(()));
            // A magic link is no directory by itself, what it leads to is.
            let place = PathBuf::from(format!("/proc/self/fd/{}/.", root.as_raw_fd()));
            finish(agent_image::export(&place, &mut sender), sender);
        });
        is_mounted
            .await
            .map_err(|_| Error::Unavailable("the daemon is shutting down".to_owned()))??;
        shared.events.container(&definition, "export", &[]);
        Ok(archive)
    }

    async fn work(&self, reference: &str, path: &str) -> Result<Work> {
        if path.is_empty() {
            return Err(Error::invalid("bad parameter: path cannot be empty"));
        }
        let handle = self.shared.registry.find(reference)?;
        let lock = self.shared.registry.files(handle.container().id());
        let files = lock.lock_owned().await;
        // Looked at only now: it may have been started or removed while the lock was waited for.
        let container = self
            .shared
            .registry
            .get(handle.container().id())
            .ok_or_else(|| Error::not_found(format!("No such container: {reference}")))?
            .container();
        if matches!(
            container.state.status,
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(Error::conflict(format!(
                "container {reference} is being removed: its files cannot be used any more"
            )));
        }
        Ok(Work {
            shared: Arc::clone(&self.shared),
            container,
            reference: reference.to_owned(),
            path: path.to_owned(),
            _files: files,
        })
    }
}

/// One operation on a container's files.
struct Work {
    shared: Arc<Shared>,
    container: Arc<Container>,
    /// What the user called the container.
    reference: String,
    /// As the user wrote it.
    path: String,
    _files: OwnedMutexGuard<()>,
}

impl Work {
    /// Does `work` with the root as the container's processes see it, running or not.
    fn in_view<T: Send>(&self, work: impl FnOnce(BorrowedFd<'_>) -> T + Send) -> Result<T> {
        let done = match self.container.is_alive() {
            true => view::running(self.container.state.pid, self.container.id(), work),
            false => view::stopped(&self.rootfs()?, &self.mounts()?, work),
        };
        done.map_err(|error| self.view_error(&error))
    }

    fn root_alone(&self) -> Result<std::os::fd::OwnedFd> {
        let root = match self.container.is_alive() {
            true => view::running_root_alone(self.container.state.pid, self.container.id()),
            false => view::stopped_root_alone(&self.rootfs()?),
        };
        root.map_err(|error| self.view_error(&error))
    }

    fn view_error(&self, error: &ViewError) -> Error {
        match error {
            ViewError::Ended => Error::conflict(format!(
                "container {} has just ended: try again",
                self.reference
            )),
            ViewError::Failed { .. } => Error::system(format!(
                "cannot open the file system of container {}: {error}",
                self.reference
            )),
        }
    }

    fn path_error(&self, error: std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!(
                "Could not find the file {} in container {}",
                self.path, self.reference
            )),
            _ => Error::system(format!(
                "cannot look at {} in container {}: {error}",
                self.path, self.reference
            )),
        }
    }

    fn rootfs(&self) -> Result<Rootfs> {
        let definition = &self.container.definition;
        let image = definition
            .image
            .parse()
            .map_err(|_| Error::system(format!("malformed image id {:?}", definition.image)))?;
        let directory = self.shared.records.directory(&definition.id);
        let mut lower = self.shared.images.layers(&image)?;
        if lower.is_empty() {
            let empty = directory.join("empty");
            fs::create_dir_all(&empty).map_err(Error::io("create", &empty))?;
            lower.push(empty);
        }
        Ok(Rootfs::Overlay {
            lower,
            upper: directory.join("upper"),
            work: directory.join("work"),
        })
    }

    /// What is mounted when it runs, as far as it is on the host's disk.
    fn mounts(&self) -> Result<Vec<ViewMount>> {
        let definition = &self.container.definition;
        let directory = self.shared.records.directory(&definition.id);
        let mut mounts = Vec::new();
        for name in ["hostname", "hosts", "resolv.conf"] {
            let source = directory.join(name);
            if source.exists() {
                mounts.push(ViewMount {
                    source,
                    target: Path::new("/etc").join(name),
                    read_only: false,
                    recursive: false,
                });
            }
        }
        for plan in &definition.mounts {
            let (source, recursive) = match &plan.source {
                MountSource::Bind {
                    path,
                    create,
                    recursive,
                } => {
                    let path = PathBuf::from(path);
                    if *create && !path.exists() {
                        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
                    }
                    (path, *recursive)
                }
                MountSource::Volume(volume) => {
                    let mut volume = volume.clone();
                    self.shared.volumes.ensure(&mut volume)?;
                    (Path::new(&volume.mountpoint).join(&volume.subpath), true)
                }
                MountSource::Tmpfs { .. } => continue,
            };
            mounts.retain(|mount: &ViewMount| mount.target != Path::new(&plan.target));
            mounts.push(ViewMount {
                source,
                target: plan.target.clone().into(),
                read_only: plan.read_only,
                recursive,
            });
        }
        Ok(mounts)
    }

    fn unpack(
        &self,
        root: BorrowedFd<'_>,
        upload: &ArchiveUpload,
        archive: ByteReceiver,
    ) -> Result<()> {
        let absolute = path::absolute(&self.path);
        let opened = path::open(root, &absolute, OFlags::PATH)
            .map_err(|errno| self.path_error(errno.into()))?;
        let stat = rustix::fs::fstat(&opened).map_err(|errno| self.path_error(errno.into()))?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if kind != rustix::fs::FileType::Directory {
            return Err(Error::invalid("extraction point is not a directory"));
        }
        let real = path::follow(root, &absolute).map_err(|error| self.path_error(error))?;
        self.check_writable(&real)?;
        let owner = match self.container.definition.config.user.as_str() {
            user if upload.copy_uid_gid && !user.is_empty() => {
                let (uid, gid) = view::user_in(root, user).map_err(Error::invalid)?;
                Owner::Fixed(uid, gid)
            }
            _ => Owner::Archive,
        };
        let options = ExtractOptions {
            overwrite: match upload.no_overwrite_dir_non_dir {
                true => Overwrite::SameKind,
                false => Overwrite::Anything,
            },
            owner,
            rename: None,
            limits: agent_image::Limits::default(),
        };
        let destination = Destination {
            root,
            directory: real.trim_matches('/').as_bytes(),
        };
        agent_image::extract(archive, destination, &options).map_err(|error| match error {
            ExtractError::Entry { .. } => Error::system(error.to_string()),
            _ => Error::invalid(error.to_string()),
        })
    }

    /// Docker's refusals, before the kernel's less telling ones.
    fn check_writable(&self, real: &str) -> Result<()> {
        let definition = &self.container.definition;
        let covers = |target: &str| {
            let rest = real.strip_prefix(target.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let alive = self.container.is_alive();
        let mount = definition
            .mounts
            .iter()
            .filter(|plan| covers(&plan.target))
            // Memory file systems are there while it runs.
            .filter(|plan| alive || !matches!(plan.source, MountSource::Tmpfs { .. }))
            .max_by_key(|plan| plan.target.len());
        match mount {
            Some(plan) if plan.read_only => Err(Error::Forbidden(
                "mounted volume is marked read-only".to_owned(),
            )),
            None if definition.host.readonly_rootfs => Err(Error::Forbidden(
                "container rootfs is marked read-only".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Writes the archive of a path that was found.
fn write(root: BorrowedFd<'_>, absolute: &str, directory: bool, mut sender: ByteSender) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (place, child) = match directory {
        true => (absolute, None),
        false => {
            let (parent, child) = path::split(absolute);
            (parent, Some(path::os(child)))
        }
    };
    let name = match path::base(absolute) {
        "/" => "",
        name => name,
    };
    let written = match path::open(root, place, flags) {
        Ok(opened) => agent_image::write_tree(
            &opened,
            child,
            name.as_bytes(),
            Path::new(absolute),
            &mut sender,
        ),
        Err(errno) => Err(ImageError::Io {
            what: "open",
            path: absolute.into(),
            source: errno.into(),
        }),
    };
    finish(written, sender);
}

/// Ends the stream; with an error unless it was the reader that left.
fn finish(written: Result<(), ImageError>, sender: ByteSender) {
    match written {
        Ok(()) | Err(ImageError::Output(_)) => {}
        Err(error) => {
            let error: std::io::Result<Bytes> = Err(std::io::Error::other(error.to_string()));
            sender.blocking_send(error);
        }
    }
}
