//! What the host must have, said before anything is touched, and the directories the daemon lives in.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::DaemonError;

/// Oldest kernel: pidfds, the mount API, `clone3` into cgroups, `close_range`, `openat2`.
const MIN_KERNEL: (u32, u32) = (5, 10);
/// Namespaces every container gets.
const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Refuses a host that cannot run containers, saying what is missing and what to do.
pub(super) fn check() -> Result<(), DaemonError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::Host("the daemon needs to be started with root privileges: run it as root (for example with sudo)".to_owned()));
    }
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if kernel_version(&release).is_some_and(|version| version < MIN_KERNEL) {
        return Err(DaemonError::Host(format!(
            "the kernel is {release}, and {}.{} is the oldest one that works: upgrade it",
            MIN_KERNEL.0, MIN_KERNEL.1
        )));
    }
    let absent: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if !absent.is_empty() {
        return Err(DaemonError::Host(format!(
            "the kernel has no {} namespaces, or /proc is not mounted: containers need them",
            absent.join(", ")
        )));
    }
    let controllers = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !has_cgroups(&controllers) {
        return Err(DaemonError::Host(
            "no cgroup hierarchy is mounted: mount one, for example with \"mount -t cgroup2 none /sys/fs/cgroup\"".to_owned(),
        ));
    }
    Ok(())
}

/// `6.1.0-18-amd64` → (6, 1)
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|symbol: char| !symbol.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn has_cgroups(mountinfo: &str) -> bool {
    mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .any(|(_, kind)| kind.starts_with("cgroup ") || kind.starts_with("cgroup2 "))
}

/// Makes one of the daemon's directories, or checks the one there is: it must be root's and nobody else may write to it.
pub(super) fn make_root(path: &Path, mode: u32) -> Result<(), DaemonError> {
    let failed = |failure: std::io::Error| {
        DaemonError::Place(format!("cannot create {}: {failure}", path.display()))
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => return Ok(()),
        Err(failure) if failure.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(failure) => return Err(failed(failure)),
    }
    let found = std::fs::metadata(path).map_err(failed)?;
    let problem = match found {
        ref found if !found.is_dir() => "is not a directory",
        ref found if found.uid() != rustix::process::geteuid().as_raw() => {
            "belongs to another user"
        }
        ref found if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 => {
            "can be written to by others"
        }
        _ => return Ok(()),
    };
    Err(DaemonError::Place(format!(
        "{} {problem}: the daemon needs a directory that only root can change",
        path.display()
    )))
}

/// Published ports, sandboxes and connections hold descriptors: as many as the hard limit allows. Containers get limits of
/// their own.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(failure) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(error = %failure, "cannot raise the number of files the daemon may open");
    }
}

/// Whether the process runs the same executable as this one and is not this one.
pub(super) fn is_daemon(pid: u32) -> bool {
    let executable = |process: &str| std::fs::read_link(format!("/proc/{process}/exe")).ok();
    pid != std::process::id()
        && executable("self").is_some()
        && executable(&pid.to_string()) == executable("self")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.10.223+"), Some((5, 10)));
        assert_eq!(kernel_version("odd"), None);
    }

    #[test]
    fn cgroups_are_found_in_every_arrangement() {
        assert!(has_cgroups(
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        ));
        assert!(has_cgroups(
            "31 23 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n"
        ));
        assert!(!has_cgroups("22 1 0:5 / /sys rw - sysfs sysfs rw\n"));
    }

    #[test]
    fn a_root_is_made_private_and_an_open_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/b");
        make_root(&root, 0o710).unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o777, 0o710);
        make_root(&root, 0o710).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
        let message = make_root(&root, 0o710).unwrap_err().to_string();
        assert!(message.contains("can be written to by others"), "{message}");
    }
}
