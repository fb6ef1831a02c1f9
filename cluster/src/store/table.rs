//! Objects of one kind by id.

use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table<T>(BTreeMap<Arc<str>, Arc<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.0.get(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values()
    }

    /// Gives the id as the table keeps it, for indexes to share.
    pub(super) fn put(&mut self, id: &str, object: &Arc<T>) -> Arc<str> {
        let id = Arc::from(id);
        self.0.insert(Arc::clone(&id), Arc::clone(object));
        id
    }

    /// Puts another in the place of one that is there.
    pub(super) fn swap(&mut self, id: &str, object: &Arc<T>) {
        if let Some(place) = self.0.get_mut(id) {
            *place = Arc::clone(object);
        }
    }

    pub(super) fn take(&mut self, id: &str) -> Option<Arc<T>> {
        self.0.remove(id)
    }
}
