//! Carrying out `RUN`: its inputs are put in place, its upper directory becomes the result.

use std::sync::Arc;

use agent_build::plan::{CopyOp, CopySource, InputIndex, Platform, RunOp};
use tokio_util::sync::CancellationToken;

use super::steady::steady;
use super::{PlanSteps, Solved, identity, output, root, tell_of};
use crate::builder::cache::Lease;
use crate::builder::contexts::Context;
use crate::builder::failure::Failure;
use crate::builder::flights::Cabin;
use crate::builder::records::{Kind, Made};
use crate::builder::run::{self, RunError, RunStep, StepInput};
use crate::builder::solve::{Read, combine};
use agent_image::Digest;
use agent_image::build::{Work, copy};

impl PlanSteps {
    /// Runs a command on its inputs.
    pub(super) async fn command(
        &self,
        step: usize,
        op: &RunOp,
        inputs: &[Solved],
        cabin: &Cabin,
        cancel: &CancellationToken,
    ) -> Result<(Made, Read), Failure> {
        foreign(&op.platform)?;
        let place = || self.placed(inputs, cancel);
        // What is mounted must be there until the step has ended.
        let (leases, read) = match Self::may_change(inputs) {
            false => (place().await?, Read::AsKeyed),
            true => {
                let keyed = self.readings(step).await?;
                let (leases, readings) = steady(keyed, || self.read(step, cancel), place).await?;
                let read = self
                    .compare(step, inputs, readings.as_ref(), cancel)
                    .await?;
                (leases, read)
            }
        };
        let step_input = |lease: &Arc<Lease>| StepInput {
            layers: lease.held().lowers(),
            identity: identity(&lease.record().stack),
        };
        let work = self.shop.work.directory()?;
        cabin.begin();
        tell_of(read, cabin);
        let run = RunStep {
            op: op.clone(),
            inputs: leases.iter().map(step_input).collect(),
            network: self.network.clone(),
            sessions: cabin.sessions().clone(),
            cache_mounts: self.shop.cache_mounts.clone(),
            turns: Arc::clone(&self.shop.permits.run),
            work: work.path().to_owned(),
            output: output(cabin),
            endings: self.endings.clone(),
            cancel: cancel.clone(),
        };
        let upper = match Box::pin(run::run(&self.shop.engine, run)).await {
            Ok(upper) => upper,
            Err(RunError::Exit { code, oom }) => {
                return Err(Failure::exit(&op.args, code, oom).after(&cabin.output()));
            }
            Err(RunError::Cancelled) => return Err(Failure::cancelled()),
            Err(RunError::Refused(text)) => return Err(Failure::step(text)),
            Err(RunError::System(text)) => return Err(Failure::system(text)),
        };
        let taken = self.snapshots(move |snapshots| snapshots.take(&upper));
        let made = Made::on(root(&self.vertex(step).op, inputs), taken.await?);
        drop((leases, work));
        Ok((made, read))
    }

    /// The inputs as file systems that can be mounted.
    async fn placed(
        &self,
        inputs: &[Solved],
        cancel: &CancellationToken,
    ) -> Result<Vec<Arc<Lease>>, Failure> {
        let mut leases = Vec::with_capacity(inputs.len());
        for input in inputs {
            leases.push(match input {
                Solved::Files(lease) => Arc::clone(lease),
                Solved::Context(context) => self.materialise(context, cancel).await?,
            });
        }
        Ok(leases)
    }

    /// A context as a file system that can be mounted, without what its ignore file names.
    async fn materialise(
        &self,
        context: &Context,
        cancel: &CancellationToken,
    ) -> Result<Arc<Lease>, Failure> {
        let key = |whole: Digest| combine(Digest::of(b"context"), [whole]);
        let read = || self.whole(context, cancel);
        let first = read().await?;
        if let Some(lease) = self.cached(key(first.digest)).await {
            return Ok(Arc::new(lease));
        }
        let fill = || self.fill(context, cancel);
        let (work, reading) = match context.may_change() {
            false => (fill().await?, Some(first)),
            true => steady(first, read, fill).await?,
        };
        let made = Made::on(None, self.finish(work).await?);
        let description = "local source for context".to_owned();
        let lease = self.insert(Kind::Local, description, made).await?;
        if let Some(reading) = reading {
            let key = key(reading.digest);
            self.shop.cache.also(&lease.record().id, &[key]);
        }
        Ok(lease)
    }

    /// Copies all of a context.
    async fn fill(&self, context: &Context, cancel: &CancellationToken) -> Result<Work, Failure> {
        let op = CopyOp {
            root: None,
            link: false,
            sources: vec![CopySource::Paths {
                input: InputIndex(0),
                path: "/".to_owned(),
                parents: None,
                required: Vec::new(),
                unpack: false,
            }],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            excludes: Vec::new(),
        };
        let (shop, cancel, view) = (Arc::clone(&self.shop), cancel.clone(), context.view.clone());
        let copied = self.files(move || {
            let work = shop.cache.snapshots().begin()?;
            copy(&op, &[view], &work, &cancel)?;
            Ok(work)
        });
        copied.await
    }
}

/// Refuses to run programs of another processor where the kernel has no interpreter for any.
fn foreign(platform: &Platform) -> Result<(), Failure> {
    let own = Platform::host();
    let runs = platform.architecture == own.architecture
        || (platform.architecture == "386" && own.architecture == "amd64");
    if runs || interprets() {
        return Ok(());
    }
    Err(Failure::step(format!(
        "this step runs programs for {platform}, and this machine is {own}: register an emulator with binfmt_misc \
         (for example Debian's qemu-user-static), or copy from a stage that is built with FROM --platform=$BUILDPLATFORM"
    )))
}

/// Whether binfmt_misc has an interpreter that is switched on.
fn interprets() -> bool {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc");
    let enabled = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        text.starts_with("enabled") && text.contains("interpreter ")
    };
    entries.into_iter().flatten().flatten().any(enabled)
}
