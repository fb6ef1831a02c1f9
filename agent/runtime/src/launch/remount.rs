//! Mount attributes on kernels before 5.12, which have no `mount_setattr`.
//!
//! Called in the child, too: same rules as there. The mount is named through the host's `/proc/self/fd`, so it must be
//! attached already. Only propagation can be recursive: a recursive read-only request is refused earlier.

use core::ffi::CStr;

use super::step::attr;
use crate::sys::raw::{self, Errno, MountAttr};

/// Applies attributes and propagation to an attached mount; `reach` is `MS_REC` or 0 and concerns the propagation.
pub(crate) fn by_path(mount: i32, attr: &MountAttr, reach: u64) -> Result<(), Errno> {
    let mut path = [0u8; 38];
    let mut relative = [0u8; 32];
    let prefix = b"/proc/";
    let name = super::child::descriptor_path(mount, &mut relative)
        .ok_or(libc::EINVAL)?
        .to_bytes();
    let end = prefix.len().wrapping_add(name.len());
    path.get_mut(..prefix.len())
        .ok_or(libc::EINVAL)?
        .copy_from_slice(prefix);
    path.get_mut(prefix.len()..end)
        .ok_or(libc::EINVAL)?
        .copy_from_slice(name);
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| libc::EINVAL)?;
    if attr.propagation != 0 {
        raw::mount_flags(path, attr.propagation | reach)?;
    }
    if attr.set != 0 {
        let kept = raw::mount_flags_of(mount)?;
        raw::mount_flags(
            path,
            libc::MS_REMOUNT | libc::MS_BIND | kept | flags(attr.set),
        )?;
    }
    Ok(())
}

/// `MS_*` for `MOUNT_ATTR_*`.
fn flags(set: u64) -> u64 {
    const PAIRS: [(u64, u64); 7] = [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NOATIME, libc::MS_NOATIME),
        (attr::STRICTATIME, libc::MS_STRICTATIME),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
    ];
    PAIRS
        .iter()
        .filter(|(bit, _)| set & bit != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
}
