//! Finding out where every controller lives: `/proc/self/cgroup` and `/proc/self/mountinfo`.
//!
//! Parsing is pure; only [`Hierarchy::detect`] reads. A v1 controller counts when its hierarchy is mounted writable
//! somewhere; a mount of another part of the tree (a container's view) is taken as the root of what can be seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Cgroup, CgroupError, CgroupPath, V1Directory};

/// Which generation the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Controllers on v1 with a v2 hierarchy beside them.
    Hybrid,
}

/// Where every controller of this host lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 hierarchies: controllers and mount point, in the order of mounting.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// The unified hierarchy's mount point.
    v2: Option<PathBuf>,
    /// Its controllers.
    v2_controllers: Vec<String>,
}

/// v1 hierarchies that exist for others' bookkeeping or that nobody limits by.
const UNUSED: [&str; 4] = ["net_cls", "net_prio", "perf_event", "rdma"];

impl Hierarchy {
    /// Reads the layout.
    pub fn detect() -> Result<Hierarchy, CgroupError> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| CgroupError::Detect {
                path: path.into(),
                source,
            })
        };
        let mounts = read("/proc/self/mountinfo")?;
        let mut hierarchy = parse(&mounts);
        if let Some(root) = &hierarchy.v2 {
            let controllers = root.join("cgroup.controllers");
            let text = read(&controllers.to_string_lossy())?;
            hierarchy.v2_controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        Ok(hierarchy)
    }

    /// Generation.
    pub fn version(&self) -> Version {
        let v1_controllers = self
            .v1
            .iter()
            .any(|(controllers, _)| controllers.iter().any(|c| !c.starts_with("name=")));
        match (&self.v2, v1_controllers) {
            (Some(_), false) => Version::V2,
            (Some(_), true) => Version::Hybrid,
            (None, _) => Version::V1,
        }
    }

    /// Names of the controllers there are (`memory`, `pids`, …), sorted.
    pub fn controllers(&self) -> Vec<&str> {
        let v1 = self
            .v1
            .iter()
            .flat_map(|(controllers, _)| controllers)
            .filter(|c| !c.starts_with("name="));
        let mut names: Vec<&str> = v1.chain(&self.v2_controllers).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The cgroup at `path`, whether or not it exists.
    pub fn open(&self, path: &CgroupPath) -> Cgroup {
        let version = self.version();
        let v1 = self.v1.iter().map(|(controllers, mount)| V1Directory {
            controllers: controllers.clone(),
            mount: mount.clone(),
            path: mount.join(path.as_path()),
        });
        Cgroup {
            v1: if version == Version::V2 {
                Vec::new()
            } else {
                v1.collect()
            },
            v2: self.v2.as_ref().map(|mount| mount.join(path.as_path())),
            v2_root: self.v2.clone(),
            version,
        }
    }

    /// Makes the directories of `path` in every hierarchy in use. Existing ones are taken over.
    pub fn create(&self, path: &CgroupPath) -> Result<Cgroup, CgroupError> {
        let cgroup = self.open(path);
        cgroup.create()?;
        Ok(cgroup)
    }

    /// v1 hierarchies with the names their directories have in a container, for the container's view.
    pub(crate) fn v1_mounts(&self) -> impl Iterator<Item = (&[String], &Path)> {
        self.v1
            .iter()
            .map(|(controllers, mount)| (controllers.as_slice(), mount.as_path()))
    }
}

/// Picks the cgroup mounts out of a mountinfo text. The first mount of a hierarchy wins.
fn parse(mountinfo: &str) -> Hierarchy {
    let mut v1: Vec<(Vec<String>, PathBuf)> = Vec::new();
    let mut seen = BTreeMap::new();
    let mut v2 = None;
    for line in mountinfo.lines() {
        // ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPER_OPTIONS
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(fstype), _, Some(options)) = (right.next(), right.next(), right.next()) else {
            continue;
        };
        let point = PathBuf::from(unescape(point));
        match fstype {
            "cgroup2" if v2.is_none() => v2 = Some(point),
            "cgroup" => {
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|option| is_controller(option))
                    .map(str::to_owned)
                    .collect();
                let unused = controllers.iter().all(|c| UNUSED.contains(&c.as_str()));
                if !unused && seen.insert(controllers.clone(), ()).is_none() {
                    v1.push((controllers, point));
                }
            }
            _ => {}
        }
    }
    Hierarchy {
        v1,
        v2,
        v2_controllers: Vec::new(),
    }
}

/// Options of a v1 superblock that are no controller.
fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode" | "favordynmods"
    ) && !option.starts_with("release_agent=")
}

/// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_has_controllers_on_v1_and_a_unified_hierarchy() {
        let hierarchy = parse(HYBRID);
        assert_eq!(hierarchy.version(), Version::Hybrid);
        assert_eq!(hierarchy.controllers(), ["cpu", "cpuacct", "memory"]);
        let cgroup = hierarchy.open(&CgroupPath::try_from(PathBuf::from("docker/x")).unwrap());
        assert_eq!(
            cgroup.v1_directory("cpuacct"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/x"))
        );
        assert_eq!(cgroup.v2, Some("/sys/fs/cgroup/unified/docker/x".into()));
    }

    #[test]
    fn a_unified_host_with_a_named_hierarchy_is_still_v2() {
        let text = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n42 1 0:9 / /x\\040y rw - cgroup none rw,name=x\n";
        let hierarchy = parse(text);
        assert_eq!(hierarchy.version(), Version::V2);
        assert_eq!(hierarchy.v1[0].1, PathBuf::from("/x y"));
        assert!(
            hierarchy
                .open(&CgroupPath::try_from(PathBuf::from("a")).unwrap())
                .v1
                .is_empty()
        );
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped() {
        assert_eq!(parse("\n - \nx y - cgroup\n").version(), Version::V1);
    }
}
