//! Temporary.
use super::run::OutputSink;
use super::session::Sessions;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use agent_build::plan::{GitOp, HttpOp};
use agent_image::{Credentials, Digest, Hold, ImageId, ProgressMessage, PullRequest, Reference};
use std::path::Path;
use tokio_util::sync::CancellationToken;
pub(crate) enum Pull {
    Missing,
    Always,
}
pub(crate) struct ImageRequest {
    pub(crate) reference: String,
    pub(crate) platform: Option<String>,
    pub(crate) pull: Pull,
    pub(crate) credentials: Option<Credentials>,
}
pub(crate) struct ResolvedImage {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Digest>,
    pub(crate) digest: Option<Digest>,
    pub(crate) hold: Hold,
}
pub(crate) struct HttpState {
    pub(crate) digest: Digest,
}
pub(crate) async fn image(
    engine: &Engine,
    request: ImageRequest,
    _progress: &(dyn Fn(ProgressMessage) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<ResolvedImage> {
    let shared = engine.shared().clone();
    let cancel = cancel.clone();
    blocking(move || {
        let name = Reference::parse(&request.reference)
            .map_err(|e| Error::invalid(e.to_string()))?
            .with_default_tag();
        let missing = shared.images.resolve(&name.to_string()).is_err();
        if missing || matches!(request.pull, Pull::Always) {
            let pull = PullRequest {
                reference: name.clone(),
                platform: request.platform,
                credentials: request.credentials,
            };
            shared
                .images
                .pull(&shared.registries, &pull, &cancel, &|_| {})?;
        }
        let (id, hold) = shared.images.hold(&name.to_string())?;
        let mut config = Vec::new();
        shared.images.write_blob(id.digest(), 0, &mut config)?;
        let image = shared.images.inspect(&id.to_string())?;
        Ok(ResolvedImage {
            id,
            config,
            layers: image.config.rootfs.diff_ids.clone(),
            digest: None,
            hold,
        })
    })
    .await
}
pub(crate) async fn git_resolve(
    _: &Engine,
    _: &GitOp,
    _: &Sessions,
    _: &CancellationToken,
) -> Result<String> {
    Err(Error::unsupported("git"))
}
pub(crate) async fn git_checkout(
    _: &Engine,
    _: &GitOp,
    _: &str,
    _: &Path,
    _: &OutputSink,
    _: &Sessions,
    _: &CancellationToken,
) -> Result<()> {
    Err(Error::unsupported("git"))
}
pub(crate) async fn http_resolve(
    _: &Engine,
    _: &HttpOp,
    _: &CancellationToken,
) -> Result<HttpState> {
    Err(Error::unsupported("http"))
}
pub(crate) async fn http_place(
    _: &Engine,
    _: &HttpOp,
    _: &HttpState,
    _: &Path,
    _: &CancellationToken,
) -> Result<()> {
    Err(Error::unsupported("http"))
}
