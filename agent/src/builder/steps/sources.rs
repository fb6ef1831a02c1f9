//! Steps that obtain what others made: images, checkouts, downloads.

use std::sync::Arc;

use agent_build::plan::{GitOp, HttpOp, ImageOp};
use agent_image::build::Stack;
use tokio_util::sync::CancellationToken;

use super::{PlanSteps, output};
use crate::builder::failure::Failure;
use crate::builder::flights::Cabin;
use crate::builder::records::Made;
use crate::builder::session::Sessions;
use crate::builder::source::{self, HttpState};
use crate::builder::work::WorkDirectory;

impl PlanSteps {
    /// The layers of a base image.
    pub(super) fn image(&self, op: &ImageOp) -> Result<Made, Failure> {
        let Some(image) = self.images.get(&op.id) else {
            return Err(Failure::system(format!(
                "the image {} was not resolved",
                op.reference
            )));
        };
        let stack = Stack::of_layers(image.layers.iter().copied());
        let own = stack.entries.len();
        Ok(Made {
            stack,
            times: vec![None; own],
            own,
        })
    }

    /// The commit that a repository's reference means now.
    pub(super) async fn commit(&self, step: usize, op: &GitOp) -> Result<String, Failure> {
        if let Some(commit) = self.commits.lock().get(&step) {
            return Ok(commit.clone());
        }
        let sessions = self.sessions();
        let proxies = &self.shop.engine.shared().options.registries.proxies;
        let commit = source::git_resolve(op, proxies, &sessions, &self.cancel).await?;
        self.commits.lock().insert(step, commit.clone());
        Ok(commit)
    }

    pub(super) async fn checkout(
        &self,
        step: usize,
        op: &GitOp,
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        cabin.begin();
        let commit = self.commit(step, op).await?;
        let work = self.shop.work.directory()?;
        let (output, sessions) = (output(cabin), cabin.sessions());
        let proxies = &self.shop.engine.shared().options.registries.proxies;
        let checkout = source::git_checkout(op, &commit, work, proxies, &output, sessions, cancel);
        let work = checkout.await?;
        self.snapshot_of(work).await
    }

    /// What a server has now.
    pub(super) async fn download(
        &self,
        step: usize,
        op: &HttpOp,
    ) -> Result<Arc<HttpState>, Failure> {
        if let Some(state) = self.downloads.lock().get(&step) {
            return Ok(Arc::clone(state));
        }
        let state = source::http_resolve(&self.shop.engine, op, &self.cancel).await?;
        let state = Arc::new(state);
        self.downloads.lock().insert(step, Arc::clone(&state));
        Ok(state)
    }

    pub(super) async fn place_download(
        &self,
        step: usize,
        op: &HttpOp,
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        cabin.begin();
        let state = self.download(step, op).await?;
        let work = self.shop.work.directory()?;
        source::http_place(&self.shop.engine, op, &state, work.path(), cancel).await?;
        self.snapshot_of(work).await
    }

    async fn snapshot_of(&self, work: WorkDirectory) -> Result<Made, Failure> {
        let taken = self.snapshots(move |snapshots| {
            let snapshot = snapshots.take(work.path())?;
            drop(work);
            Ok(snapshot)
        });
        Ok(Made::on(None, taken.await?))
    }

    fn sessions(&self) -> Sessions {
        let sessions = Sessions::default();
        if let Some(session) = &self.session {
            sessions.add(session.clone());
        }
        sessions
    }
}
