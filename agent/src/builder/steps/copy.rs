//! Carrying out `COPY` and `ADD`.

use std::sync::Arc;

use agent_build::plan::CopyOp;
use agent_image::Digest;
use agent_image::build::{View, Work, copy};
use tokio_util::sync::CancellationToken;

use super::steady::steady;
use super::{PlanSteps, Solved, blocking_files};
use crate::builder::failure::Failure;
use crate::builder::flights::Cabin;
use crate::builder::records::{Kind, Made};
use crate::builder::solve::{Read, combine};

impl PlanSteps {
    /// A copy that does not depend on what it is laid over: if it was made on another root, that layer is taken. Its bytes are
    /// those of the record without a root.
    pub(super) async fn link(
        &self,
        step: usize,
        op: &CopyOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<(Made, Read), Failure> {
        let vertex = self.vertex(step);
        let readings = self.readings(step).await?;
        let parts = self.parts(step, inputs, &readings).await?;
        let canonical = Digest::of(&vertex.op.canonical());
        let key = combine(Digest::of(b"link"), [canonical].into_iter().chain(parts));
        let root = op.root.and_then(|input| inputs[input.0].record());
        if !vertex.no_cache
            && let Some(lease) = self.shop.cache.find(&key)
        {
            let record = lease.record();
            if let [layer] = record.own_entries() {
                let time = record.times.last().copied().flatten();
                return Ok((Made::over(root, layer.clone(), time, 0), Read::AsKeyed));
            }
        }
        let alone = CopyOp {
            root: None,
            ..op.clone()
        };
        let (made, read) = self.copy(step, &alone, inputs, cabin, cancel).await?;
        let (layer, time) = (made.stack.entries[0].clone(), made.times[0]);
        let lease = self
            .insert(Kind::Regular, vertex.name.clone(), made)
            .await?;
        if read == Read::AsKeyed {
            self.shop.cache.also(&lease.record().id, &[key]);
        }
        Ok((Made::over(root, layer, time, 0), read))
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
                let (work, readings) = steady(keyed, || self.read(step), copied).await?;
                (work, self.compare(step, inputs, readings.as_ref()).await?)
            }
        };
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
        let _permit = self.shop.permits.files.acquire().await;
        cabin.begin();
        let copied = blocking_files(move || {
            let work = shop.cache.snapshots().begin()?;
            copy(&op, &views, &work, &cancel)?;
            Ok(work)
        });
        copied.await
    }
}

/// Whether what a copy writes is independent of its root: names of owners are looked up there.
pub(super) fn is_independent(op: &CopyOp) -> bool {
    let number = |part: &str| part.is_empty() || part.parse::<u32>().is_ok();
    let owner = op.chown.as_deref().unwrap_or_default();
    op.link && owner.split(':').all(number)
}
