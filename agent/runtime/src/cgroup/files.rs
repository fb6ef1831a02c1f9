//! Reading, writing, making and removing in cgroup file systems, with errors that name the file.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::CgroupError;

/// Most a cgroup file may have: `memory.stat` and `io.stat` are far below.
const MAX_BYTES: u64 = 1 << 20;

/// An error about one file.
pub(super) fn failed(
    action: impl Into<String>,
    path: &Path,
    source: impl Into<io::Error>,
) -> CgroupError {
    CgroupError::Io {
        action: action.into(),
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Makes a directory and its parents.
pub(super) fn make_directory(path: &Path) -> Result<(), CgroupError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            std::fs::create_dir_all(path).map_err(|error| failed("make cgroup", path, error))
        }
        Err(errno) => Err(failed("make cgroup", path, errno)),
    }
}

/// Opens a file for writing only.
pub(super) fn open_for_writing(path: &Path) -> Result<OwnedFd, CgroupError> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open", path, e))
}

/// Opens a directory.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| failed("open", path, e))
}

/// Writes a value in one call, as the kernel wants it.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let file = open_for_writing(path)?;
    rustix::io::write(&file, value.as_bytes())
        .map_err(|errno| failed(format!("write {value:?} to"), path, errno))?;
    Ok(())
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| failed("read", path, error))?;
    Ok(text)
}

/// Reads a number; `max` and values near the top of the range (v1's way to say unlimited) are `None`.
pub(super) fn read_limit(path: &Path) -> Result<Option<u64>, CgroupError> {
    let text = read(path)?;
    let word = text.trim();
    if word == "max" || word == "-1" {
        return Ok(None);
    }
    let value: u64 = word.parse().map_err(|_| {
        failed(
            "understand",
            path,
            io::Error::from(io::ErrorKind::InvalidData),
        )
    })?;
    Ok((value < 1 << 62).then_some(value))
}

/// Reads a number.
pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    Ok(read_limit(path)?.unwrap_or(u64::MAX))
}

/// Whether an error means that the file or directory is not there.
pub(super) fn is_missing(error: &CgroupError) -> bool {
    matches!(error, CgroupError::Io { source, .. }
        if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))
}

/// Removes a cgroup and those below it.
///
/// A directory whose processes have all been reaped is free at once. One whose last process is dead but not yet gone
/// (a zombie of somebody else) stays busy, and that is the caller's to know.
pub(super) fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => {}
        Err(errno) => return Err(failed("remove cgroup", path, errno)),
    }
    // Busy: perhaps only because of cgroups below.
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list cgroup", path, error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(CgroupError::Busy {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed("remove cgroup", path, errno)),
    }
}
