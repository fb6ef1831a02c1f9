//! In which compressed forms a layer is known, and which repositories have them: what pulls and pushes saw. With it a push
//! asks for a blob, or has it mounted from another repository, without compressing anything.
//!
//! ```text
//! <hex>/forms.json   the newest first; goes with the layer
//! ```
//!
//! Nothing here is needed: a lost file costs compressing once more. So writing is atomic but not synced, and a file that
//! cannot be read counts as empty. Source of the idea: moby `daemon/internal/distribution/metadata/v2_metadata_service.go`.

use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::LayerStore;
use crate::digest::Digest;

/// Forms of one layer, and repositories of one form, as moby.
const FORMS_MAX: usize = 16;
const REPOSITORIES_MAX: usize = 50;
/// Bytes of the file.
const FILE_MAX: u64 = 1 << 20;

/// One file is changed at a time: they are small, and changes rare.
static CHANGING: Mutex<()> = Mutex::new(());

/// A compressed form of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    /// Of the compressed bytes.
    pub(crate) digest: Digest,
    /// Their number.
    pub(crate) size: u64,
    /// As the manifest had it.
    pub(crate) media_type: String,
    /// `host/path` of repositories that have it, the last one seen first.
    #[serde(default)]
    pub(crate) repositories: Vec<String>,
}

impl LayerStore {
    /// The forms of a layer, newest first.
    pub(crate) fn forms(&self, diff_id: &Digest) -> Vec<Form> {
        let path = self.forms_path(diff_id);
        let small = std::fs::metadata(&path).is_ok_and(|about| about.len() <= FILE_MAX);
        let bytes = small.then(|| std::fs::read(&path).ok()).flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Whether `blob` has been seen to be a form of the layer. What a manifest says about it alone is no proof.
    pub(crate) fn has_form(&self, diff_id: &Digest, blob: &Digest) -> bool {
        let arrived = self
            .get(diff_id)
            .is_ok_and(|layer| layer.blob == Some(*blob));
        arrived || self.forms(diff_id).iter().any(|form| form.digest == *blob)
    }

    /// Notes that `repository` (`host/path`) has the layer in a form, which somebody has seen to be one.
    pub(crate) fn remember_form(
        &self,
        diff_id: &Digest,
        (digest, size): (Digest, u64),
        media_type: &str,
        repository: &str,
    ) {
        let _changing = CHANGING.lock();
        let before = self.forms(diff_id);
        let mut forms = before.clone();
        let known = forms.iter().position(|form| form.digest == digest);
        let mut form = match known {
            Some(at) => forms.remove(at),
            None => Form {
                digest,
                size,
                media_type: media_type.to_owned(),
                repositories: Vec::new(),
            },
        };
        form.repositories.retain(|known| known != repository);
        form.repositories.insert(0, repository.to_owned());
        form.repositories.truncate(REPOSITORIES_MAX);
        forms.insert(0, form);
        forms.truncate(FORMS_MAX);
        if forms != before {
            self.write_forms(diff_id, &forms);
        }
    }

    /// Notes that `repository` does not have a form any more.
    pub(crate) fn forget_form(&self, diff_id: &Digest, digest: &Digest, repository: &str) {
        let _changing = CHANGING.lock();
        let mut forms = self.forms(diff_id);
        for form in forms.iter_mut().filter(|form| form.digest == *digest) {
            form.repositories.retain(|known| known != repository);
        }
        self.write_forms(diff_id, &forms);
    }

    fn write_forms(&self, diff_id: &Digest, forms: &[Form]) {
        let path = self.forms_path(diff_id);
        let new = path.with_extension("new");
        let json = serde_json::to_vec(forms).expect("plain data has a JSON form");
        let written = std::fs::write(&new, json).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "a compressed form is not noted");
        }
    }

    fn forms_path(&self, diff_id: &Digest) -> PathBuf {
        self.path(diff_id).join("forms.json")
    }
}
