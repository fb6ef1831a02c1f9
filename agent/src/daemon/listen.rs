//! Sockets of the API: made by the daemon, or passed by systemd.
//!
//! A socket that the daemon makes cannot be connected to before it has its owner and mode: those are set between bind(2)
//! and listen(2).

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::DaemonError;
use crate::config::Host;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The first descriptor systemd passes, `SD_LISTEN_FDS_START`.
const FIRST_PASSED: i32 = 3;
/// The group that may use the socket unless `--group` names another.
const DEFAULT_GROUP: &str = "docker";

/// A socket that listens.
pub(super) struct Listening {
    pub(super) listener: UnixListener,
    /// For the log.
    pub(super) address: String,
    /// To be removed in the end; systemd's are its own.
    pub(super) path: Option<PathBuf>,
}

/// Listens on what one `--host` names.
pub(super) fn listen(host: &Host, group: Option<&str>) -> Result<Vec<Listening>, DaemonError> {
    let failed = |reason: String| DaemonError::Socket {
        host: host.to_string(),
        reason,
    };
    match host {
        Host::Unix(path) => {
            let listener = listen_on(path, group).map_err(failed)?;
            Ok(vec![Listening {
                listener,
                address: host.to_string(),
                path: Some(path.clone()),
            }])
        }
        Host::SystemdSockets => passed_sockets().map_err(failed),
        // Not a socket of this kind: `tls` listens there.
        Host::Tls(_) => Ok(Vec::new()),
    }
}

fn listen_on(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let group = find_group(group)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|failure| format!("cannot create {}: {failure}", parent.display()))?;
    }
    remove_stale(path)?;
    let made = || -> std::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::os::unix::fs::lchown(path, Some(0), Some(group))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    made()
        .map(UnixListener::from)
        .map_err(|failure| failure.to_string())
}

/// The id of the group; root's own when there is no default group.
fn find_group(name: Option<&str>) -> Result<u32, String> {
    let wanted = name.unwrap_or(DEFAULT_GROUP);
    match nix::unistd::Group::from_name(wanted) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) if name.is_none() => Ok(0),
        Ok(None) => match wanted.parse() {
            Ok(id) => Ok(id),
            Err(_) => Err(format!(
                "there is no group {wanted:?}: create it, or choose another --group"
            )),
        },
        Err(failure) => Err(format!("cannot look up the group {wanted:?}: {failure}")),
    }
}

/// Removes a socket that a dead daemon left; refuses one that somebody listens on, and anything that is no socket.
fn remove_stale(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(failure) => return Err(failure.to_string()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!("{} exists and is not a socket", path.display()));
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Err(format!(
            "another process listens on {}: stop it, or choose another --host",
            path.display()
        ));
    }
    std::fs::remove_file(path)
        .map_err(|failure| format!("cannot remove the old socket {}: {failure}", path.display()))
}

/// Source: sd_listen_fds(3).
fn passed_sockets() -> Result<Vec<Listening>, String> {
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    let ours = variable("LISTEN_PID").and_then(Pid::from_raw) == Some(rustix::process::getpid());
    let count = variable("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    if count <= 0 {
        return Err("no sockets were passed (LISTEN_FDS): start the daemon through a systemd socket unit, or give it a --host unix://<path>".to_owned());
    }
    let myself = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|failure| format!("cannot take the passed sockets: {failure}"))?;
    (FIRST_PASSED..FIRST_PASSED.saturating_add(count))
        .map(|number| passed_socket(myself.as_fd(), number))
        .collect()
}

fn passed_socket(myself: std::os::fd::BorrowedFd<'_>, number: i32) -> Result<Listening, String> {
    let failed = |failure: &dyn std::fmt::Display| format!("passed descriptor {number}: {failure}");
    // A duplicate that children do not inherit; the original is closed.
    let socket = rustix::process::pidfd_getfd(myself, number, PidfdGetfdFlags::empty())
        .map_err(|errno| failed(&errno))?;
    nix::unistd::close(number).map_err(|errno| failed(&errno))?;
    if rustix::net::sockopt::socket_domain(&socket) != Ok(AddressFamily::UNIX)
        || rustix::net::sockopt::socket_acceptconn(&socket) != Ok(true)
    {
        return Err(failed(
            &"is not a listening unix socket, and the API is served on nothing else",
        ));
    }
    let listener = UnixListener::from(socket);
    listener
        .set_nonblocking(true)
        .map_err(|failure| failed(&failure))?;
    let address = match listener
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().map(Path::to_owned))
    {
        Some(path) => format!("fd://{number} ({})", path.display()),
        None => format!("fd://{number}"),
    };
    Ok(Listening {
        listener,
        address,
        path: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_socket_is_for_root_and_its_group_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/api.sock");
        // A number stands for itself, and root's own group always works.
        let listener = listen_on(&path, Some("0")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        let message = listen_on(&path, Some("0")).unwrap_err();
        assert!(message.contains("another process listens"), "{message}");
        drop(listener);
        listen_on(&path, Some("0")).expect("what a dead daemon left is replaced");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "mine").unwrap();
        assert!(
            listen_on(&path, None)
                .unwrap_err()
                .contains("is not a socket")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_group_that_was_named_must_exist() {
        assert!(
            find_group(Some("no-such-group"))
                .unwrap_err()
                .contains("no-such-group")
        );
        assert!(find_group(None).is_ok());
    }
}
