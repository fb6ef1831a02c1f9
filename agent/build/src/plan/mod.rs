//! Planning: a parsed Dockerfile, options and the configurations of base images → the graph of steps and the
//! configuration of the resulting image.
//!
//! ```text
//! Dockerfile ─┐   bases() ──► which images are still unknown ──► caller resolves them ──┐
//! options ────┤      ▲                                                                  │
//! bases known ┘      └──────────────── until none is unknown ◄──────────────────────────┘
//!             └─► plan() ──► Plan { vertices (topological), target, config, warnings }
//! ```
//!
//! A base image may have ONBUILD triggers that name further images, hence the loop.
//!
//! Must not: do I/O, know a checkout, a client, a clock. Follows BuildKit's `frontend/dockerfile/dockerfile2llb`.

mod args;
mod bases;
mod dispatch;
mod display;
mod env;
mod error;
mod finish;
mod git;
mod graph;
mod history;
mod image;
mod lints;
mod name;
mod op;
mod options;
mod path;
mod planner;
mod platform;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::dockerfile::{Dockerfile, Lines};
use crate::lint::Lint;
use planner::Planner;

pub use error::{PlanError, PlanErrorKind};
pub use git::{GitAddress, GitAddressError};
pub use image::{ContainerDefaults, Empty, Healthcheck, History, ImageConfig};
pub use op::{
    CacheSharing, Chmod, ContextOp, CopyOp, CopySource, ExtraHost, GitOp, HttpOp, ImageOp,
    InputIndex, MakeDirOp, MountKind, NetworkMode, Op, Ownership, Resources, RunMount, RunOp,
    SecurityMode, Ulimit, VertexId,
};
pub use options::{BuildOptions, BuilderArgs, ContextSource, Entitlement, NoCache};
pub use platform::{Platform, PlatformError};

/// The graph of a build and what its result is to say about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The steps that the target needs, inputs before those who read them.
    pub vertices: Vec<Vertex>,
    /// Whose file system is the result's; none: it is empty.
    pub target: Option<VertexId>,
    /// The vertices that make the result's layers above the base image's, oldest first: exactly one layer each, in
    /// step with those lines of `config.history` added by this build that are not `empty_layer`.
    pub layers: Vec<VertexId>,
    /// The vertex of the base image whose layers are below those, unless the result starts from nothing. It is an
    /// [`Op::Image`], or a checkout or the copy of a context that stands in for one.
    pub base: Option<VertexId>,
    /// Configuration of the result, history included.
    pub config: ImageConfig,
    /// Platform of the result.
    pub platform: Platform,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that stand for the time of the build.
    pub source_date_epoch: Option<i64>,
    /// Findings, those of the text alone included.
    pub warnings: Vec<Lint>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Its place in the plan.
    pub id: VertexId,
    /// As progress prints it: `[builder 2/4] RUN make`.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it reads; operations name them by place.
    pub inputs: Vec<VertexId>,
    /// Lines of the instruction; `0` for what the builder adds of its own.
    pub lines: Lines,
    /// Stage that it belongs to, if the Dockerfile names or numbers it.
    pub stage: Option<String>,
    /// It is run even if its result is known.
    pub no_cache: bool,
}

/// An image that must be resolved before the build can be planned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseRequest {
    /// Where it is.
    pub source: BaseSource,
    /// For which platform.
    pub platform: Platform,
    /// As it is written in the Dockerfile or the option: for messages.
    pub written: String,
    /// As progress prints the look-up: `[internal] load metadata for docker.io/library/alpine:3`.
    pub log_name: String,
    /// The instruction that needs it.
    pub lines: Lines,
}

/// Where an image is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseSource {
    /// In the store or a registry; a normalised name with tag or digest.
    Image(String),
    /// In an OCI layout of the client's.
    OciLayout {
        /// Name of the context.
        context: String,
        /// As the option says it: `path[:tag][@digest]`.
        layout: String,
    },
}

/// An image that was resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseImage {
    /// What it *is*, whatever it is called: digest of its configuration or manifest. Goes into cache keys.
    pub id: String,
    /// Digest of the manifest, when it came from a registry: printed behind the name.
    pub digest: Option<String>,
    /// Number of its layers.
    pub layers: usize,
    /// Its configuration.
    pub config: ImageConfig,
}

/// The base images resolved so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bases {
    known: BTreeMap<(BaseSource, Platform), BaseImage>,
}

impl Bases {
    /// Answers a request.
    pub fn insert(&mut self, request: &BaseRequest, image: BaseImage) {
        self.known
            .insert((request.source.clone(), request.platform.clone()), image);
    }

    fn get(&self, source: &BaseSource, platform: &Platform) -> Option<&BaseImage> {
        self.known.get(&(source.clone(), platform.clone()))
    }
}

/// The images that the target needs and that are not `known`; empty when [`plan`] can be called.
///
/// To be called again with the answers: a base image's ONBUILD triggers may name further images.
///
/// # Errors
/// As [`plan`], as far as they show before base images are known.
pub fn bases(
    dockerfile: &Dockerfile,
    options: &BuildOptions,
    known: &Bases,
) -> Result<Vec<BaseRequest>, PlanError> {
    let mut planner = Planner::new(dockerfile, options, known)?;
    let missing = planner.read_stages().and_then(|()| planner.resolve());
    missing.map_err(|error| planner.blame(error))
}

/// The plan of a build for one platform.
///
/// # Errors
/// The Dockerfile or the options ask for something impossible, or for something that the build was not allowed;
/// findings with `# check=error=true`; a base image that is not `known`.
pub fn plan(
    dockerfile: &Dockerfile,
    options: &BuildOptions,
    known: &Bases,
) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(dockerfile, options, known)?;
    let planned = planner.read_stages().and_then(|()| planner.resolve());
    let planned = planned.and_then(|missing| match missing.first() {
        Some(request) => Err(PlanError::unresolved(request)),
        None => planner.dispatch(),
    });
    match planned.and_then(|()| planner.lint_error()) {
        Ok(()) => Ok(planner.finish()),
        Err(error) => Err(planner.blame(error)),
    }
}
