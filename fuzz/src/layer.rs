//! A layer's tar: unpacked into the store, and written again.

use agent_image::{ImportOptions, RemoveOptions, silent};

use crate::scratch::STORE;

/// An archive that can be imported can be saved again; nothing stays behind.
pub fn layer(mut data: &[u8]) {
    let Ok(id) = STORE.import(&mut data, &ImportOptions::default(), &silent) else {
        return;
    };
    let name = id.to_string();
    let mut saved = Vec::new();
    STORE
        .save(&[&name], &mut saved)
        .expect("what was imported can be saved");
    assert!(!saved.is_empty());
    STORE
        .remove(&name, RemoveOptions::default(), Vec::new)
        .expect("what was imported can be removed");
}
