//! An image in an OCI layout of the client's (`--build-context name=oci-layout://…`). The client sends the image alone, as
//! a layout without names; it becomes one of the store's, found again by its id when it is sent again.
//!
//! Must not: trust a byte of it. The store verifies all of it before it takes any.

use agent_image::{LoadOptions, silent};

use super::image::{ResolvedImage, held};
use crate::builder::session::Session;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// Receives the image of a context for a platform, and keeps it in the store.
///
/// # Errors
/// The client does not give it, or gives something that is no image for the platform.
pub(crate) async fn oci_layout(
    engine: &Engine,
    session: Option<&Session>,
    context: &str,
    platform: &str,
) -> Result<ResolvedImage> {
    let given = match session {
        Some(session) => session.context(context).await,
        None => None,
    };
    let Some(mut given) = given else {
        return Err(Error::invalid(format!(
            "the client does not give the OCI layout of the context {context:?}"
        )));
    };
    let (engine, platform) = (engine.clone(), platform.to_owned());
    let context = context.to_owned();
    blocking(move || {
        let store = &engine.shared().images;
        let options = LoadOptions {
            platform: Some(platform.clone()),
        };
        let loaded = store.load(&mut given, &options, &silent)?;
        let [image] = &loaded[..] else {
            return Err(Error::not_found(format!(
                "the OCI layout of the context {context:?} has {} images for {platform}",
                loaded.len()
            )));
        };
        held(store, &image.id.to_string(), None)
    })
    .await
}
