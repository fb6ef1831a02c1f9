//! What interrupted transfers left of large blobs, to be gone on with.

use std::time::Duration;

use super::Store;
use crate::digest::Digest;
use crate::registry::Partial;

impl Store {
    /// What an interrupted transfer left of a blob of `size` bytes, to be read and gone on with. `None`: it is not worth
    /// keeping, or another transfer is at it.
    pub fn partial(&self, blob: &Digest, size: u64) -> Option<Partial> {
        self.partials.take(blob, size)
    }

    /// Removes what an interrupted transfer left of a blob.
    pub fn forget_partial(&self, blob: &Digest) {
        self.partials.forget(blob);
    }

    /// Removes what interrupted pulls have left and nobody has gone on with for `age`. Returns the bytes this gave back.
    pub fn sweep_partials(&self, age: Duration) -> u64 {
        self.partials.sweep(age)
    }

    /// Bytes that interrupted pulls have left.
    pub fn partial_bytes(&self) -> u64 {
        self.partials.usage()
    }
}
