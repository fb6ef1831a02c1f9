//! The images that builds start from: those of the store, and of a registry where the store has none for the platform
//! or where the newest is wanted.
//!
//! Source: buildkit `source/containerimage`, resolve modes `default` and `pull`.

use std::sync::Arc;

use agent_build::plan::PlatformError;
use agent_image::{
    Credentials, Digest, HeldFor, Hold, ImageId, ProgressMessage, PullRequest, Reference, Store,
};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// When a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// When the store has no such image for the platform.
    Missing,
    /// Always.
    Always,
}

/// An image that a build wants.
pub(crate) struct ImageRequest {
    /// A name, with tag or digest, or the id of an image of the store.
    pub(crate) reference: String,
    /// `os/architecture[/variant]`; `None` takes what is there.
    pub(crate) platform: Option<String>,
    /// When a registry is asked.
    pub(crate) pull: Pull,
}

/// An image that is in the store.
pub(crate) struct ResolvedImage {
    /// Digest of its configuration.
    pub(crate) id: ImageId,
    /// Its configuration, byte for byte.
    pub(crate) config: Vec<u8>,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Digest>,
    /// Digest under which a registry knows it, if the store was told one.
    pub(crate) digest: Option<Digest>,
    /// Keeps it in the store.
    pub(crate) _hold: Hold,
}

/// Longest configuration of an image.
const CONFIG_MAX: usize = 16 << 20;

/// Finds or pulls an image. A cancel leaves nothing of a pull. `credentials` are for the registry, and asked for only when
/// that is.
pub(crate) async fn image(
    engine: &Engine,
    request: ImageRequest,
    credentials: impl Future<Output = Option<Credentials>> + Send,
    progress: &(dyn Fn(ProgressMessage) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<ResolvedImage> {
    let (shared, request) = (Arc::clone(engine.shared()), Arc::new(request));
    let asked = Arc::clone(&request);
    if let Some(found) = blocking(move || stored(&shared.images, &asked)).await? {
        return Ok(found);
    }
    let credentials = tokio::select! {
        credentials = credentials => credentials,
        () = cancel.cancelled() => None,
    };
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::clone(engine.shared());
    let cancel = cancel.child_token();
    // A caller that is gone does not want it any more.
    let guard = cancel.clone().drop_guard();
    let work = blocking(move || {
        let store = &shared.images;
        let name = parse(&request.reference)?.with_default_tag();
        let pull = PullRequest {
            reference: name.clone(),
            platform: request
                .platform
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error: PlatformError| Error::invalid(error.to_string()))?,
            credentials,
        };
        let sink = |message: ProgressMessage| drop(sender.send(message));
        let registries = &shared.registries;
        // The name may stand for another platform's image by now.
        let (pulled, hold) = store.pull_held(registries, &pull, HeldFor::Build, &cancel, &sink)?;
        shared.image_moved(&name, "pull");
        let mut found = resolved(store, pulled.id, hold, Some(&name))?;
        found.digest = Some(pulled.digest);
        Ok(found)
    });
    let report = async {
        while let Some(message) = receiver.recv().await {
            progress(message);
        }
    };
    let (found, ()) = tokio::join!(work, report);
    drop(guard);
    found
}

/// An image that the store has by a name. `None`: it has none.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn local_image(engine: &Engine, name: &str) -> Result<Option<ResolvedImage>> {
    let (shared, request) = (
        Arc::clone(engine.shared()),
        ImageRequest {
            reference: name.to_owned(),
            platform: None,
            pull: Pull::Missing,
        },
    );
    blocking(move || stored(&shared.images, &request)).await
}

/// What the store has, when that will do.
fn stored(store: &Store, request: &ImageRequest) -> Result<Option<ResolvedImage>> {
    // An id that went through the rules of names: nobody else's image is called so.
    let bare = request.reference.strip_prefix("docker.io/library/");
    let bare = bare.unwrap_or(&request.reference);
    if bare.parse::<ImageId>().is_ok() {
        return held(store, bare, None).map(Some);
    }
    let name = parse(&request.reference)?.with_default_tag();
    let text = name.to_string();
    if request.pull == Pull::Always {
        return Ok(None);
    }
    // Held before it is looked at: the name may come to mean another one.
    let Ok((id, hold)) = store.hold(&text, HeldFor::Build) else {
        return Ok(None);
    };
    let fits = match &request.platform {
        None => true,
        Some(platform) => store.is_for(&id, platform)?,
    };
    match fits {
        true => resolved(store, id, hold, Some(&name)).map(Some),
        false => Ok(None),
    }
}

pub(super) fn held(
    store: &Store,
    reference: &str,
    name: Option<&Reference>,
) -> Result<ResolvedImage> {
    let (id, hold) = store.hold(reference, HeldFor::Build)?;
    resolved(store, id, hold, name)
}

/// What a build wants to know of an image that it holds.
fn resolved(
    store: &Store,
    id: ImageId,
    hold: Hold,
    name: Option<&Reference>,
) -> Result<ResolvedImage> {
    let mut config = Bounded(Vec::new());
    store.write_blob(id.digest(), 0, &mut config)?;
    let image = store.inspect(&id.to_string())?;
    store.used(&id);
    let digest = name.and_then(|name| {
        let known = image.digests.iter();
        let same = |known: &&Reference| known.repository() == name.repository();
        known.filter(same).find_map(Reference::digest).copied()
    });
    Ok(ResolvedImage {
        config: config.0,
        layers: image.config.rootfs.diff_ids.clone(),
        digest,
        id,
        _hold: hold,
    })
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > CONFIG_MAX {
            return Err(std::io::Error::other(format!(
                "the configuration of an image is longer than {CONFIG_MAX} bytes"
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn parse(reference: &str) -> Result<Reference> {
    Reference::parse(reference).map_err(|error| {
        Error::invalid(format!(
            "failed to parse the image name {reference:?}: {error}"
        ))
    })
}
