//! Where a layer's directories are born, on file systems that are slow beside their own recent past.
//!
//! ext4 without a journal does not use a freed inode again for one to six minutes, and looks for another by passing over all
//! such inodes of a block group one by one, for each file anew (`fs/ext4/ialloc.c`: `recently_deleted`, `find_inode_bit`). It
//! puts a directory beside its parent and files beside their directory, so a layer's files all go to the few groups that an
//! earlier layer, or anybody's temporary files, have just left: up to 0.5 ms for each file. Measured with an image of 40,000
//! files in 20 layers, the same system before and after the deletion of 200,000 files: unpacking took 3.9 and 25.2 s, of
//! which 22 s were that search.
//!
//! Directories below one that is marked as a top of a hierarchy (`chattr +T`) are spread over the whole disk instead, and so
//! is what is made in them. The mark is of no use on the layer's directories themselves, since containers would see it; so
//! each directory is made below one that has it, and renamed to its place. An inode stays where it was made. Fewer places for
//! more directories do not help: with one for every 64 the second round is twice as slow as the first, for every 256 four
//! times.
//!
//! Spreading has its price, a group's bitmaps and tables for a few files each: the image above takes 5.2 s with it, but
//! always, and 2.9 to 15.7 s without. So directories are spread from when the search is seen to be long, layer by layer.
//! On file systems that do not search so, and elsewhere than on ext4, a layer's files are better off together.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, IFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const EXT4_SUPER_MAGIC: u64 = 0xef53;
const NAME: &str = "nursery";
/// Files that are made between two looks at what that has cost.
const FILES: u32 = 32;
/// Processor time for making an empty file. Without a long search it is 10 to 25 µs.
const LONG: Duration = Duration::from_micros(60);

/// Whether the file system of `directory` calls for it. Not knowing counts as no.
pub(super) fn is_needed(directory: &Path) -> bool {
    let is_ext4 = rustix::fs::statfs(directory)
        .is_ok_and(|about| u64::try_from(about.f_type) == Ok(EXT4_SUPER_MAGIC));
    is_ext4 && has_no_journal(directory).unwrap_or(false)
}

/// `journal_task` (Linux 4.19) names the thread of the journal, or says that there is none.
fn has_no_journal(directory: &Path) -> io::Result<bool> {
    let device = rustix::fs::stat(directory)?.st_dev;
    let number = format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let block = std::fs::read_link(number)?;
    let name = block.file_name().ok_or(io::ErrorKind::NotFound)?;
    let task = Path::new("/sys/fs/ext4").join(name).join("journal_task");
    Ok(std::fs::read_to_string(task)?.trim() == "<none>")
}

/// Belongs to one layer while it is being unpacked.
pub(super) struct Nursery {
    directory: OwnedFd,
    /// Number for the next name.
    next: u64,
    /// Directories are made in it from now on.
    is_open: bool,
    /// Files made since the last look, and what that has cost.
    files: u32,
    cost: Duration,
}

impl Nursery {
    /// Makes it in the layer's own directory, beside `diff/`. `None`: the mark is refused, and nothing is left.
    pub(super) fn new(layer: &Path) -> io::Result<Option<Self>> {
        let path = layer.join(NAME);
        std::fs::create_dir(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        let marked = rustix::fs::ioctl_getflags(&directory)
            .and_then(|marks| rustix::fs::ioctl_setflags(&directory, marks | IFlags::TOPDIR));
        if marked.is_err() {
            std::fs::remove_dir(&path)?;
            return Ok(None);
        }
        Ok(Some(Self {
            directory,
            next: 0,
            is_open: false,
            files: 0,
            cost: Duration::ZERO,
        }))
    }

    /// Like `mkdirat`: an entry that is there already is left alone (`EEXIST`). What cannot be moved is made in its place.
    pub(super) fn make_directory(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        mode: Mode,
    ) -> rustix::io::Result<()> {
        if !self.is_open {
            return rustix::fs::mkdirat(parent, name, mode);
        }
        let number = self.next.to_string();
        self.next += 1;
        let born = OsStr::from_bytes(number.as_bytes());
        rustix::fs::mkdirat(&self.directory, born, mode)?;
        let moved =
            rustix::fs::renameat_with(&self.directory, born, parent, name, RenameFlags::NOREPLACE);
        if moved.is_err() {
            rustix::fs::unlinkat(&self.directory, born, AtFlags::REMOVEDIR)?;
        }
        match moved {
            // What is renamed across directories can be restricted where making is not, as by project quotas.
            Err(error) if error != Errno::EXIST => rustix::fs::mkdirat(parent, name, mode),
            other => other,
        }
    }

    /// Makes a file elsewhere, and sees how long the search for its inode takes.
    pub(super) fn watch<T>(&mut self, make: impl FnOnce() -> T) -> T {
        if self.is_open {
            return make();
        }
        let begun = processor_time();
        let made = make();
        self.account(processor_time().saturating_sub(begun));
        made
    }

    fn account(&mut self, cost: Duration) {
        self.cost += cost;
        self.files += 1;
        if self.files == FILES {
            self.is_open = self.cost > LONG * FILES;
            (self.files, self.cost) = (0, Duration::ZERO);
        }
    }

    /// Takes it away again; every directory is in its place.
    pub(super) fn close(layer: &Path) -> io::Result<()> {
        std::fs::remove_dir(layer.join(NAME))
    }
}

/// Of this thread: a search is work, and waiting for a processor or the disk is none.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn directories_arrive_unmarked_and_nothing_is_replaced() {
        let layer = tempfile::tempdir().unwrap();
        let place = layer.path().join("diff");
        std::fs::create_dir(&place).unwrap();
        // The mark exists wherever ext4 is, with or without a journal.
        let Some(mut nursery) = Nursery::new(layer.path()).unwrap() else {
            let left = std::fs::read_dir(layer.path()).unwrap().count();
            assert_eq!(left, 1, "only diff/");
            eprintln!("skipped: directories cannot be marked here");
            return;
        };
        let parent = open(&place);
        nursery.is_open = true;
        let mut make = |name: &str| nursery.make_directory(&parent, OsStr::new(name), Mode::RWXU);
        make("a").unwrap();
        make("b").unwrap();
        std::fs::write(place.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("a", place.join("link")).unwrap();
        for taken in ["a", "file", "link"] {
            assert_eq!(make(taken), Err(Errno::EXIST), "{taken}");
        }
        for made in ["a", "b"] {
            let flags = rustix::fs::ioctl_getflags(open(&place.join(made))).unwrap();
            assert!(!flags.contains(IFlags::TOPDIR), "{made}");
        }
        assert_eq!(std::fs::read(place.join("file")).unwrap(), b"x");
        Nursery::close(layer.path()).unwrap();
        let left = std::fs::read_dir(layer.path()).unwrap().count();
        assert_eq!(left, 1, "only diff/");
    }

    #[test]
    fn it_opens_when_making_files_is_dear_and_stays_open() {
        let layer = tempfile::tempdir().unwrap();
        let Some(mut nursery) = Nursery::new(layer.path()).unwrap() else {
            eprintln!("skipped: directories cannot be marked here");
            return;
        };
        let mut round = |micros: u64| {
            (0..FILES).for_each(|_| nursery.account(Duration::from_micros(micros)));
            nursery.is_open
        };
        assert!(!round(20));
        assert!(!round(60));
        assert!(round(61));
        assert_eq!(nursery.watch(|| 7), 7);
        let parent = open(layer.path());
        let name = OsStr::new("d");
        nursery.make_directory(&parent, name, Mode::RWXU).unwrap();
        assert_eq!(nursery.next, 1, "made inside");
    }

    #[test]
    fn no_journal_is_only_said_of_ext4() {
        let directory = tempfile::tempdir().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        if !mounts
            .lines()
            .any(|line| line.split(' ').nth(2) == Some("ext4"))
        {
            assert!(!is_needed(directory.path()));
        }
        assert!(!is_needed(Path::new("/proc")));
        assert!(!is_needed(&directory.path().join("missing")));
    }
}
