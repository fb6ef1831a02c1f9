//! Objects of one kind by id.

use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct Table<T>(BTreeMap<String, Arc<T>>);

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

    pub(super) fn put(&mut self, id: String, object: Arc<T>) {
        self.0.insert(id, object);
    }

    pub(super) fn take(&mut self, id: &str) -> Option<Arc<T>> {
        self.0.remove(id)
    }
}
