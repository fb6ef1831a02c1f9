//! File trees of builds: stacks, snapshots, steps that move files.

mod cases;
mod crash;
mod digest;
mod export;
mod footing;
mod hostile;
mod snapshots;
mod view;

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_image::build::{Entry, Held, Snapshots, Stack, View};
use agent_image::{Limits, Store};

use crate::layers::mounted;

/// A store and a builder's snapshots in a directory of their own.
pub(crate) struct Yard {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) snapshots: Snapshots,
}

impl Yard {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(directory: tempfile::TempDir) -> Self {
        let store = Arc::new(Store::open(directory.path(), Limits::default()).unwrap());
        let build = directory.path().join("build");
        Self {
            snapshots: Snapshots::open(Arc::clone(&store), &build).unwrap(),
            directory,
            store,
        }
    }

    /// The same after a restart.
    pub(crate) fn reopened(self) -> Self {
        let Self {
            directory,
            store,
            snapshots,
        } = self;
        drop(snapshots);
        drop(store);
        Self::at(directory)
    }

    /// A snapshot that `fill` writes.
    pub(crate) fn snapshot(&self, fill: impl FnOnce(&Path)) -> Entry {
        let work = self.snapshots.begin().unwrap();
        fill(work.diff());
        Entry::Loose(self.snapshots.finish(work).unwrap().id)
    }

    pub(crate) fn hold(&self, stack: &Stack) -> Held {
        self.snapshots.hold(stack).unwrap()
    }

    /// What is seen where the stack is mounted: a line for each path.
    pub(crate) fn seen(&self, stack: &Stack) -> Vec<String> {
        let held = self.hold(stack);
        let lowers = held.lowers();
        if lowers.is_empty() {
            return Vec::new();
        }
        let scratch = tempfile::tempdir().unwrap();
        mounted(&lowers, scratch.path(), lines)
    }
}

pub(crate) fn stack(entries: impl IntoIterator<Item = Entry>) -> Stack {
    Stack {
        entries: entries.into_iter().collect(),
    }
}

pub(crate) fn context(directory: &Path, ignore: &[&str]) -> View {
    let ignore = agent_build::pattern::Patterns::new(ignore).unwrap();
    View::context(File::open(directory).unwrap().into(), ignore)
}

/// Makes what a line says:
///
/// ```text
/// d PATH MODE [UID:GID]             f PATH MODE [UID:GID] CONTENT     l PATH -> TARGET    h PATH -> FIRST
/// c|b PATH MODE UID:GID MAJOR MINOR p PATH MODE [UID:GID]             s PATH MODE         chown PATH UID GID
/// ```
///
/// `owned`: whether owners are written.
pub(crate) fn make(root: &Path, line: &str, owned: bool) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let words: Vec<&str> = line.splitn(if owned { 5 } else { 4 }, ' ').collect();
    let path = root.join(text(words[1]));
    match words[0] {
        "l" => return symlink(words[3], path).unwrap(),
        "h" => return std::fs::hard_link(root.join(text(words[3])), path).unwrap(),
        "chown" => {
            let (uid, gid) = (words[2].parse().unwrap(), words[3].parse().unwrap());
            return lchown(path, Some(uid), Some(gid)).unwrap();
        }
        "d" => std::fs::create_dir(&path).unwrap(),
        "f" => std::fs::write(&path, text(words.last().unwrap())).unwrap(),
        "p" => nix::unistd::mkfifo(&path, Mode::empty()).unwrap(),
        "s" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
        kind => {
            let numbers: Vec<u64> = words[4].split(' ').map(|n| n.parse().unwrap()).collect();
            let kind = if kind == "c" {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFBLK
            };
            mknod(&path, kind, Mode::empty(), makedev(numbers[0], numbers[1])).unwrap();
        }
    }
    if owned {
        let (uid, gid) = words[3].split_once(':').unwrap();
        lchown(
            &path,
            Some(uid.parse().unwrap()),
            Some(gid.parse().unwrap()),
        )
        .unwrap();
    }
    let mode = u32::from_str_radix(words[2], 8).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

fn text(escaped: &str) -> String {
    escaped.replace("\\n", "\n").replace("\\x20", " ")
}

/// A line for each path below `root`, in order of path, in the form of [`make`].
pub(crate) fn lines(root: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    let mut named: Vec<(String, PathBuf)> = paths
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (name.replace(' ', "\\x20").replace('\n', "\\n"), path)
        })
        .collect();
    named.sort();
    let mut first: std::collections::HashMap<u64, String> = std::collections::HashMap::new();
    let mut lines = Vec::new();
    for (name, path) in named {
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        let (major, minor) = (metadata.rdev() >> 8, metadata.rdev() & 0xff);
        lines.push(if kind.is_dir() {
            format!("d {name} {mode} {owner}")
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            format!("l {name} {owner} -> {}", target.display())
        } else if kind.is_char_device() {
            format!("c {name} {mode} {owner} {major} {minor}")
        } else if kind.is_block_device() {
            format!("b {name} {mode} {owner} {major} {minor}")
        } else if kind.is_fifo() {
            format!("p {name} {mode} {owner}")
        } else if kind.is_socket() {
            format!("s {name} {mode} {owner}")
        } else if let Some(first) = first.get(&metadata.ino()) {
            format!("h {name} -> {first}")
        } else {
            if metadata.nlink() > 1 {
                first.insert(metadata.ino(), name.clone());
            }
            let content = std::fs::read(&path).unwrap();
            let content = match content.iter().any(|b| matches!(b, 0 | 0x1f)) {
                true => "(binary)".to_owned(),
                false => String::from_utf8_lossy(&content).replace('\n', "\\n"),
            };
            format!("f {name} {mode} {owner} {content}")
                .trim_end()
                .to_owned()
        });
    }
    lines
}
