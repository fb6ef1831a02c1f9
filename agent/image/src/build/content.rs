//! Copying the bytes of a file: shared where the file system can, in the kernel where it cannot, holes kept.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

/// Bytes copied between two looks at whether anybody wants them.
const PIECE: usize = 16 << 20;

/// Writes the content of `from`, which has the size that `stat` says, to the empty file `to`. A file that shrinks meanwhile is
/// filled up with zeros. An error after `cancel` may be of that.
pub(super) fn copy_content(
    from: &OwnedFd,
    to: &File,
    stat: &Stat,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let size = stat.st_size as u64;
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    // Fewer blocks than bytes: there are holes.
    if (stat.st_blocks as u64) * 512 < size {
        to.set_len(size)?;
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                // No data up to the end.
                Err(Errno::NXIO) => return Ok(()),
                // The file system does not tell.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    return copy_range(from, to, at, size, cancel);
                }
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
            copy_range(from, to, start, end, cancel)?;
            at = end.max(start + 1);
        }
        return Ok(());
    }
    copy_range(from, to, 0, size, cancel)?;
    if to.metadata()?.len() < size {
        to.set_len(size)?;
    }
    Ok(())
}

fn copy_range(
    from: &OwnedFd,
    to: &File,
    mut at: u64,
    end: u64,
    cancel: &CancellationToken,
) -> io::Result<()> {
    while at < end {
        wanted(cancel)?;
        let (mut source, mut target) = (at, at);
        let len = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), len) {
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            // Between some file systems the kernel does not copy.
            Err(
                Errno::XDEV
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::IO,
            ) => return copy_through(from, to, at, end, cancel),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through(
    from: &OwnedFd,
    to: &File,
    mut at: u64,
    end: u64,
    cancel: &CancellationToken,
) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0u8; 128 << 10];
    while at < end {
        wanted(cancel)?;
        let want = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        match rustix::io::pread(from, &mut buffer[..want], at) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                to.write_all_at(&buffer[..len], at)?;
                at += len as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wanted(cancel: &CancellationToken) -> io::Result<()> {
    match cancel.is_cancelled() {
        true => Err(io::Error::other("canceled")),
        false => Ok(()),
    }
}
