//! What a step reads of its inputs, and the keys that are made of it.
//!
//! What is read of a context is read once for both keys of a step, so that they cannot differ; whether it was still the same
//! when the step read it is found out afterwards ([`super::steady`]). The own key is read for the build of these steps;
//! everything later may be wanted by others, too, and ends only when the work that it is for is given up.

use std::sync::Arc;

use agent_build::plan::{CopyOp, CopySource, InputIndex, MountKind, Op, RunMount, Vertex};
use agent_image::Digest;
use agent_image::build::{Reading, StatCache, View, content_digest, path_digest};
use tokio_util::sync::CancellationToken;

use super::{PlanSteps, Solved};
use crate::builder::contexts::Context;
use crate::builder::failure::Failure;
use crate::builder::solve::{Key, Read, combine};

/// What a step reads of its contexts, in the order of [`selections`].
pub(crate) type Readings = Arc<[Reading]>;

/// What a step reads of an input.
enum Selected<'a> {
    /// What a copy selects.
    Sources(&'a CopyOp),
    /// A path and what is below it.
    Path(&'a str),
    /// The same to fill a cache mount with. Of another step's result the identity counts, which the directory is kept by.
    Seed(&'a str),
}

impl PlanSteps {
    /// The context that an input is, if it is one.
    fn context_input(&self, vertex: &Vertex, input: InputIndex) -> Option<&str> {
        match &self.plan.vertices[vertex.inputs[input.0].0].op {
            Op::Context(context) => Some(&context.name),
            _ => None,
        }
    }

    pub(super) async fn try_own_key(&self, step: usize) -> Result<Key, Failure> {
        let vertex = self.vertex(step);
        let canonical = Digest::of(&vertex.op.canonical());
        match &vertex.op {
            Op::Image(_) | Op::Context(_) | Op::MakeDir(_) => Ok(canonical),
            Op::Git(op) => {
                let commit = self.commit(step, op).await?;
                Ok(combine(canonical, [Digest::of(commit.as_bytes())]))
            }
            Op::Http(op) => {
                let state = self.download(step, op).await?;
                Ok(combine(canonical, [state.digest]))
            }
            Op::Copy(_) | Op::Run(_) => {
                let readings = self.readings(step).await?;
                Ok(combine(
                    canonical,
                    readings.iter().map(|reading| reading.digest),
                ))
            }
        }
    }

    pub(super) async fn try_content_key(
        &self,
        step: usize,
        inputs: &[Solved],
        cancel: &CancellationToken,
    ) -> Result<Option<Key>, Failure> {
        match &self.vertex(step).op {
            Op::Image(_) | Op::Context(_) | Op::Git(_) | Op::Http(_) => Ok(None),
            Op::Run(_) | Op::Copy(_) | Op::MakeDir(_) => {
                let readings = self.readings(step).await?;
                let content = self.content(step, inputs, &readings, cancel);
                Ok(Some(content.await?))
            }
        }
    }

    /// The content key of a step that read this of its contexts.
    async fn content(
        &self,
        step: usize,
        inputs: &[Solved],
        readings: &[Reading],
        cancel: &CancellationToken,
    ) -> Result<Key, Failure> {
        let op = &self.vertex(step).op;
        let root = op.root().map(|input| identity(&inputs[input.0]));
        let parts = self.parts(step, inputs, readings, cancel).await?;
        let parts = root.into_iter().chain(parts);
        Ok(combine(Digest::of(&op.canonical()), parts))
    }

    /// Digests of what a step reads of its inputs, when it read this of its contexts.
    pub(super) async fn parts(
        &self,
        step: usize,
        inputs: &[Solved],
        readings: &[Reading],
        cancel: &CancellationToken,
    ) -> Result<Vec<Digest>, Failure> {
        let vertex = self.vertex(step);
        let mut readings = readings.iter();
        let mut parts = Vec::new();
        for (number, (input, selected)) in selections(&vertex.op).into_iter().enumerate() {
            if self.context_input(vertex, input).is_some() {
                parts.extend(readings.next().map(|reading| reading.digest));
                continue;
            }
            if let Selected::Seed(_) = selected {
                parts.push(identity(&inputs[input.0]));
                continue;
            }
            let known = self.digests.lock().get(&(step, number)).copied();
            parts.push(match known {
                Some(digest) => digest,
                None => {
                    let view = inputs[input.0].view();
                    let reading = self.reading(input, &selected, view, None, cancel);
                    let digest = reading.await?.digest;
                    self.digests.lock().insert((step, number), digest);
                    digest
                }
            });
        }
        Ok(parts)
    }

    /// What a step read of its contexts when its keys were made.
    pub(super) async fn readings(&self, step: usize) -> Result<Readings, Failure> {
        let known = self.readings.lock().get(&step).cloned();
        match known {
            Some(readings) => Ok(readings),
            None => {
                let readings = self.read(step, &self.cancel).await?;
                self.readings.lock().insert(step, Arc::clone(&readings));
                Ok(readings)
            }
        }
    }

    /// What a step reads of its contexts as they are now.
    pub(super) async fn read(
        &self,
        step: usize,
        cancel: &CancellationToken,
    ) -> Result<Readings, Failure> {
        let vertex = self.vertex(step);
        let mut readings = Vec::new();
        for (input, selected) in selections(&vertex.op) {
            if let Some(name) = self.context_input(vertex, input) {
                let read = || async {
                    let view = self.contexts.get(name).await?.view.clone();
                    let stats = Some(&self.stats);
                    self.reading(input, &selected, view, stats, cancel).await
                };
                readings.push(match read().await {
                    Err(failure) if self.contexts.is_sent_after(&failure, name).await? => {
                        read().await?
                    }
                    reading => reading?,
                });
            }
        }
        Ok(readings.into())
    }

    /// Whether what a step reads of its contexts may change while it reads.
    pub(super) fn may_change(inputs: &[Solved]) -> bool {
        let changing = |input: &Solved| match input {
            Solved::Context(context) => context.may_change(),
            Solved::Files(_) => false,
        };
        inputs.iter().any(changing)
    }

    /// What has become of a step's keys when it was done on this.
    pub(super) async fn compare(
        &self,
        step: usize,
        inputs: &[Solved],
        readings: Option<&Readings>,
        cancel: &CancellationToken,
    ) -> Result<Read, Failure> {
        let Some(readings) = readings else {
            return Ok(Read::Unsteady);
        };
        let keyed = self.readings(step).await?;
        let digests = |readings: &Readings| {
            let digests = readings.iter().map(|reading| reading.digest);
            digests.collect::<Vec<Digest>>()
        };
        match digests(readings) == digests(&keyed) {
            true => Ok(Read::AsKeyed),
            false => {
                let content = self.content(step, inputs, readings, cancel);
                Ok(Read::Changed(content.await?))
            }
        }
    }

    async fn reading(
        &self,
        input: InputIndex,
        selected: &Selected<'_>,
        view: View,
        stats: Option<&Arc<StatCache>>,
        cancel: &CancellationToken,
    ) -> Result<Reading, Failure> {
        let (stats, cancel) = (stats.cloned(), cancel.clone());
        let reading = match *selected {
            Selected::Sources(op) => {
                let op = op.clone();
                self.files(move || {
                    let reading = content_digest(&op, input, &view, stats.as_deref(), &cancel);
                    Ok(reading?)
                })
                .await
            }
            Selected::Path(path) | Selected::Seed(path) => {
                let path = path.to_owned();
                self.files(move || Ok(path_digest(&view, &path, stats.as_deref(), &cancel)?))
                    .await
            }
        };
        reading.map_err(checksum)
    }

    /// All of a context.
    pub(super) async fn whole(
        &self,
        context: &Context,
        cancel: &CancellationToken,
    ) -> Result<Reading, Failure> {
        let (everything, view) = (Selected::Path("/"), context.view.clone());
        self.reading(InputIndex(0), &everything, view, Some(&self.stats), cancel)
            .await
    }
}

fn identity(input: &Solved) -> Digest {
    Digest::of(input.identity().unwrap_or_default().as_bytes())
}

/// What a step reads of its inputs.
fn selections(op: &Op) -> Vec<(InputIndex, Selected<'_>)> {
    match op {
        Op::Copy(op) => {
            let inputs = copy_inputs(op).into_iter();
            inputs.map(|input| (input, Selected::Sources(op))).collect()
        }
        Op::Run(op) => op.mounts.iter().filter_map(mounted).collect(),
        _ => Vec::new(),
    }
}

/// The inputs that a copy reads from, each once, in order.
fn copy_inputs(op: &CopyOp) -> Vec<InputIndex> {
    let mut inputs = Vec::new();
    for source in &op.sources {
        let input = match source {
            CopySource::Paths { input, .. }
            | CopySource::Http { input, .. }
            | CopySource::Git { input } => *input,
            CopySource::Inline { .. } => continue,
        };
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

/// What a command has of an input in a mount.
fn mounted(mount: &RunMount) -> Option<(InputIndex, Selected<'_>)> {
    match &mount.kind {
        MountKind::Bind {
            from: Some(input),
            source,
            ..
        } => Some((*input, Selected::Path(source))),
        MountKind::Cache {
            from: Some(input),
            source,
            ..
        } => Some((*input, Selected::Seed(source))),
        _ => None,
    }
}

/// The words BuildKit has for a file that is not there.
fn checksum(failure: Failure) -> Failure {
    match failure.kind() {
        agent_api::build::FailureKind::Step => {
            failure.context("failed to compute cache key: failed to calculate checksum of ref")
        }
        _ => failure,
    }
}
