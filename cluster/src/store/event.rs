//! What a transaction did to one object.

use cluster_api::{Kind, Object};

/// One change, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreEvent {
    Created(Object),
    Updated { old: Object, new: Object },
    Removed(Object),
}

impl StoreEvent {
    /// What kind of object changed.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.object().kind()
    }

    /// The object after the change, or as it was before it was removed.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Created(object) | Self::Removed(object) | Self::Updated { new: object, .. } => {
                object
            }
        }
    }
}
