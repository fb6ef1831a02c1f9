//! When images were used last: the modification time of the configuration blob.
//!
//! Noting a use is one system call without waiting for the disk; the kernel writes it out in its own time, together with
//! others. A killed process loses nothing, a machine that loses power loses the last half minute, which only makes an image
//! look that much older. There is no file that could be damaged or grow.

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::Store;
use crate::digest::ImageId;

impl Store {
    /// Notes that an image is being used now. Never fails: an image that cannot be noted is being removed.
    pub fn used(&self, id: &ImageId) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let path = self.content.path(id.digest());
        if let Err(error) = rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()) {
            tracing::debug!(image.id = %id, %error, "the use of an image is not noted");
        }
    }

    /// When an image was used last: made, named, pulled, pushed, built on or run. `None`: it is not here.
    pub fn last_used(&self, id: &ImageId) -> Option<Timestamp> {
        let modified = std::fs::metadata(self.content.path(id.digest()))
            .and_then(|metadata| metadata.modified())
            .ok()?;
        Timestamp::try_from(modified).ok()
    }
}
