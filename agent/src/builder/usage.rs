//! What the build cache takes, and removing from it: records and cache mounts as one list.
//!
//! Decides nothing: who asks for a removal has chosen. Blocks; opens the cache at the first call.

use super::Builder;
use super::cache::CacheRecord;
use super::run::CacheMount;
use crate::error::{Error, Result};

impl Builder {
    /// Whether there can be a cache: a builder that was never used has none, and is not opened to find that out.
    pub(crate) fn has_cache(&self) -> bool {
        self.inner.shop.lock().is_some() || self.root().join("records").is_dir()
    }

    /// Everything that is cached.
    ///
    /// # Errors
    /// The cache or an image cannot be read.
    pub(crate) fn usage(&self) -> Result<Vec<CacheRecord>> {
        let shop = self.shop()?;
        let mut list = shop.cache.list()?;
        list.extend(shop.cache_mounts.list().into_iter().map(of_mount));
        Ok(list)
    }

    /// Removes what is named and not in use, records only with all that is made on them. Returns what went and the bytes that
    /// came free.
    ///
    /// # Errors
    /// Something cannot be removed; the rest is gone.
    pub(crate) fn remove_records(&self, ids: &[String]) -> Result<(Vec<String>, u64)> {
        let shop = self.shop()?;
        let mounts = shop.cache_mounts.list();
        let is_mount = |id: &String| mounts.iter().any(|mount| mount.id == *id);
        let (mounts, records): (Vec<String>, Vec<String>) = ids.iter().cloned().partition(is_mount);
        let (mut removed, mut freed) = shop.cache.remove(&records)?;
        for id in mounts {
            match shop.cache_mounts.remove(&id) {
                Ok(bytes) => {
                    freed += bytes;
                    removed.push(id);
                }
                // A step took it, or somebody else removed it.
                Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((removed, freed))
    }
}

fn of_mount(mount: CacheMount) -> CacheRecord {
    CacheRecord {
        id: mount.id,
        parents: Vec::new(),
        kind: "exec.cachemount",
        mutable: true,
        description: mount.description,
        in_use: mount.in_use,
        shared: false,
        size: mount.size,
        loose: mount.size,
        created: mount.created,
        last_used: mount.last_used,
        uses: mount.uses,
    }
}
