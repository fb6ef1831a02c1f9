//! What a daemon could leave behind, read from the kernel: mounts, interfaces, nftables tables, cgroups, processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A snapshot of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftovers {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    tables: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<i32>,
}

impl Leftovers {
    /// Looks at the namespaces of the calling thread and the cgroups of that name.
    pub(crate) fn here(name: &str) -> Self {
        let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mounts");
        // Fields 5 and later: mount point, then after " - " type and source; ids differ from run to run.
        let mounts = mountinfo
            .lines()
            .map(|line| {
                let point = line.split(' ').nth(4).unwrap_or_default();
                let kind = line.split_once(" - ").map_or("", |(_, rest)| rest);
                format!("{point} {kind}")
            })
            .collect();
        let devices = fs::read_to_string("/proc/thread-self/net/dev").expect("read the interfaces");
        let interfaces = devices
            .lines()
            .skip(2)
            .filter_map(|line| line.split(':').next())
            .map(|name| name.trim().to_owned())
            .collect();
        let listed = Command::new("nft")
            .args(["list", "tables"])
            .output()
            .expect("run nft (see `make tools`)");
        let tables = String::from_utf8_lossy(&listed.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        let cgroups = cgroups(name);
        let processes = cgroups.iter().flat_map(members).collect();
        Self {
            mounts,
            interfaces,
            tables,
            cgroups: cgroups.into_iter().collect(),
            processes,
        }
    }

    #[track_caller]
    pub(crate) fn assert_same_as(&self, before: &Self) {
        let new = |now: &BTreeSet<String>, then: &BTreeSet<String>| {
            now.difference(then).cloned().collect::<Vec<_>>()
        };
        let none = Vec::<String>::new();
        assert_eq!(new(&self.mounts, &before.mounts), none, "mounts are left");
        assert_eq!(
            new(&self.interfaces, &before.interfaces),
            none,
            "interfaces are left"
        );
        assert_eq!(
            new(&self.tables, &before.tables),
            none,
            "nftables tables are left"
        );
        assert_eq!(self.processes, before.processes, "processes are left");
        assert_eq!(self.cgroups, before.cgroups, "cgroups are left");
    }
}

/// Directories of the cgroup `/<name>` and below, in every hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    if let Ok(entries) = fs::read_dir("/sys/fs/cgroup") {
        roots.extend(
            entries
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.path()),
        );
    }
    for root in roots {
        let top = root.join(name);
        if top.is_dir() {
            collect(top, &mut found);
        }
    }
    found
}

fn collect(directory: PathBuf, found: &mut Vec<PathBuf>) {
    if let Ok(entries) = fs::read_dir(&directory) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            collect(entry.path(), found);
        }
    }
    found.push(directory);
}

fn members(cgroup: impl AsRef<Path>) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.as_ref().join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// After a failed scenario: ends its processes and removes its cgroups, as far as possible.
pub(crate) fn kill_all(name: &str, keeper: Option<i32>) {
    let groups = cgroups(name);
    let pids = groups.iter().flat_map(members).chain(keeper);
    for pid in pids.filter(|pid| *pid > 1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for group in groups {
        let _ = fs::remove_dir(group);
    }
}
