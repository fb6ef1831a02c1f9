//! Carrying out `COPY` and `ADD`.

use std::sync::Arc;

use agent_build::plan::CopyOp;
use agent_image::Digest;
use agent_image::build::{View, Work, copy, footing};
use tokio_util::sync::CancellationToken;

use super::steady::steady;
use super::{PlanSteps, Solved, blocking_files, tell_of};
use crate::builder::cache::Lease;
use crate::builder::failure::Failure;
use crate::builder::flights::Cabin;
use crate::builder::records::{Kind, Made};
use crate::builder::solve::{Key, Read, combine};

/// What came of a copy.
pub(super) struct Copied {
    pub(super) made: Made,
    pub(super) read: Read,
    /// What its layer is found by for other roots.
    pub(super) key: Option<Key>,
    /// Keeps the layer there until the result is recorded, too.
    pub(super) _layer: Option<Arc<Lease>>,
}

impl PlanSteps {
    /// A copy. If its layer was made on another root and would be the same on this one, that is taken.
    pub(super) async fn lay(
        &self,
        step: usize,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Copied, Failure> {
        let vertex = self.vertex(step);
        let root = op.root.and_then(|input| inputs[input.0].record());
        let key = match self.basis(op, inputs).await {
            None => None,
            Some(basis) => {
                let readings = self.readings(step).await?;
                let parts = self.parts(step, inputs, &readings, cancel).await?;
                let canonical = Digest::of(&vertex.op.canonical());
                Some(combine(basis, [canonical].into_iter().chain(parts)))
            }
        };
        if let Some(key) = key.filter(|_| !vertex.no_cache)
            && let Some(lease) = self.cached(key).await
            && let [layer] = lease.record().own_entries()
        {
            let time = lease.record().times.last().copied().flatten();
            cabin.begin();
            return Ok(Copied {
                made: Made::over(root, layer.clone(), time),
                read: Read::AsKeyed,
                key: None,
                _layer: Some(Arc::new(lease)),
            });
        }
        if !is_independent(op) {
            let (made, read) = self.copy(step, op, inputs, cabin, cancel).await?;
            return Ok(Copied {
                made,
                read,
                key: key.filter(|_| read == Read::AsKeyed),
                _layer: None,
            });
        }
        // Its bytes are those of a record without a root.
        let alone = CopyOp {
            root: None,
            ..op.clone()
        };
        let (made, read) = self.copy(step, &alone, inputs, cabin, cancel).await?;
        let (layer, time) = (made.stack.entries[0].clone(), made.times[0]);
        let lease = self
            .insert(Kind::Regular, vertex.name.clone(), made)
            .await?;
        if let Some(key) = key.filter(|_| read == Read::AsKeyed) {
            self.shop.cache.also(&lease.record().id, &[key]);
        }
        Ok(Copied {
            made: Made::over(root, layer, time),
            read,
            key: None,
            _layer: Some(lease),
        })
    }

    /// What of its root a copy's layer depends on, if that can be said.
    async fn basis(&self, op: &CopyOp, inputs: &[Solved]) -> Option<Digest> {
        if is_independent(op) {
            return Some(Digest::of(b"link"));
        }
        let root = inputs[op.root?.0].view();
        if op.link || !numeric_owner(op) {
            return None;
        }
        let views: Vec<View> = inputs.iter().map(Solved::view).collect();
        let op = op.clone();
        // A failure is the copy's own to tell.
        let footing = self.files(move || Ok(footing(&op, &root, &views)?)).await;
        let footing = footing.ok().flatten()?;
        Some(combine(Digest::of(b"over"), [footing]))
    }

    /// A copy over its root.
    pub(super) async fn copy(
        &self,
        step: usize,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<(Made, Read), Failure> {
        let copied = || self.copied(op, inputs, cabin, cancel);
        let (work, read) = match Self::may_change(inputs) {
            false => (copied().await?, Read::AsKeyed),
            true => {
                let keyed = self.readings(step).await?;
                let (work, readings) = steady(keyed, || self.read(step, cancel), copied).await?;
                let read = self
                    .compare(step, inputs, readings.as_ref(), cancel)
                    .await?;
                (work, read)
            }
        };
        tell_of(read, cabin);
        let snapshot = self.finish(work).await?;
        let root = op.root.and_then(|input| inputs[input.0].record());
        Ok((Made::on(root, snapshot), read))
    }

    async fn copied(
        &self,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<Work, Failure> {
        let (op, shop, cancel) = (op.clone(), Arc::clone(&self.shop), cancel.clone());
        let views: Vec<View> = inputs.iter().map(Solved::view).collect();
        let permit = self.shop.permits.files().await;
        cabin.begin();
        let copied = blocking_files(move || {
            let _permit = permit;
            let work = shop.cache.snapshots().begin()?;
            copy(&op, &views, &work, &cancel)?;
            Ok(work)
        });
        copied.await
    }
}

/// Whether what a copy writes is independent of its root.
fn is_independent(op: &CopyOp) -> bool {
    op.link && numeric_owner(op)
}

/// Whether the owner is nobody whose name would be looked up in the root.
fn numeric_owner(op: &CopyOp) -> bool {
    let number = |part: &str| part.is_empty() || part.parse::<u32>().is_ok();
    let owner = op.chown.as_deref().unwrap_or_default();
    owner.split(':').all(number)
}
