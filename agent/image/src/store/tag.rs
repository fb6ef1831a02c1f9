//! Giving names.

use jiff::Timestamp;

use super::index::Catalog;
use super::inspect::resolve;
use super::{Additions, Result, Store};
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::reference::Reference;

impl Store {
    /// Gives `source` (name or id) the further name `target` (default tag `latest`), taking it away from any other
    /// image. An image that loses its last name stays, as `<none>`. Returns the image.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<ImageId> {
        if target.digest().is_some() {
            return Err(ImageError::Invalid(
                "refusing to create a tag with a digest reference".to_owned(),
            ));
        }
        let target = target.clone().with_default_tag();
        let (id, _) = self.change(Additions::default(), |catalog| {
            let id = resolve(catalog, source)?;
            give_name(catalog, target, id);
            // Before the lock is released: whoever waits for it may be looking for what nobody has used for long.
            self.used(&id);
            Ok(id)
        })?;
        Ok(id)
    }
}

/// Returns the image that had the name before, if it is another one.
pub(super) fn give_name(catalog: &mut Catalog, name: Reference, id: ImageId) -> Option<ImageId> {
    let before = catalog.names.insert(name, id);
    if let Some(record) = catalog.images.get_mut(&id) {
        record.last_tagged = Some(Timestamp::now());
    }
    before.filter(|before| *before != id)
}
