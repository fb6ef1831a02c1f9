//! Images out of Dockerfiles: obtains what a build starts from, solves its plan, exports the result.
//!
//! ```text
//! Job ─▶ Dockerfile ─▶ bases ─▶ plan (pure, agent-build) ─▶ solve ─▶ export ─▶ image, files, archive
//!                                                             │
//!        records (two keys per step) ◀── cache ◀── find ──────┤ flights: equal steps of all builds run once
//!        snapshots (agent-image)     ◀── steps: run · copy · source ─┘
//! ```
//!
//! | files | topic |
//! |---|---|
//! | `job` `options` `contexts` `calls` `failure` | one build from the top |
//! | `solve` `flights` | which steps run, once for all builds; know nothing of what steps do |
//! | `steps` `run` `source` | what steps do |
//! | `cache` `records` `usage` `prune` | what is known already; what it takes; removing it |
//! | `export` | what becomes of a result |
//! | `progress` `session` | the two directions of talking with a client |
//!
//! ```text
//! <root>/build/records/<id>.json   results by their keys                                   [records]
//! <root>/build/snapshots/          their files, unless they are layers of images           [agent-image]
//! <root>/build/mounts/             cache mounts                                            [run]
//! <root>/build/work/<n>/           what a build needs for a while; empty when none runs    [work]
//! ```
//!
//! Sits on top of the engine and uses its images, networks and keeper. Must not: know HTTP, or do anything before the
//! first build, or the first question about the cache, asks for it.

mod cache;
mod calls;
mod contexts;
mod export;
mod failure;
mod flights;
mod job;
mod options;
mod progress;
mod prune;
mod records;
mod remote_cache;
mod run;
mod session;
mod shares;
mod solve;
mod source;
mod steps;
mod usage;
mod work;

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::build::{BuildFailure, BuildResult};
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use cache::Cache;
use failure::Failure;
use flights::Flights;
use solve::StepFlights;
use steps::{Permits, PlanSteps, Shop};
use work::WorkRoot;

pub(crate) use cache::CacheRecord;
pub(crate) use job::Job;
pub(crate) use progress::Progress;
pub(crate) use prune::{Bounds, PruneOptions, least_recently_used};
pub(crate) use session::{Ask, Output, Session, Sessions};
pub(crate) use source::{Download, download};

use crate::engine::{Engine, blocking};
use crate::error::Result;

/// Builds images. Cheap to clone; all clones are the same builder. Touches nothing until it is first used.
#[derive(Clone)]
pub struct Builder {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    flights: Arc<StepFlights<PlanSteps>>,
    /// What steps of a daemon that was killed left is gone.
    swept: OnceCell<()>,
    shop: Mutex<Option<Arc<Shop>>>,
    /// Builds that can be cancelled by name.
    jobs: Mutex<HashMap<String, CancellationToken>>,
    /// A build is over, and what it has cached is on disk.
    settled: Notify,
}

impl Builder {
    /// A builder that stores what it makes in the engine's image store.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        let flights = Flights::new(engine.shared().tasks.clone());
        Self {
            inner: Arc::new(Inner {
                engine,
                flights,
                swept: OnceCell::new(),
                shop: Mutex::new(None),
                jobs: Mutex::default(),
                settled: Notify::new(),
            }),
        }
    }

    /// Builds; news go to `progress`, which is closed at the end. Dropping the future cancels the build: what nobody
    /// else waits for is given up and leaves nothing.
    pub(crate) async fn build(
        &self,
        job: &Job,
        progress: &Progress,
    ) -> Result<BuildResult, Box<BuildFailure>> {
        let cancel = self.inner.engine.shared().closing.child_token();
        let _over = cancel.clone().drop_guard();
        let _named = self.register(&job.request.build_id, &cancel);
        let shop = match self.ready().await {
            Ok(shop) => shop,
            Err(error) => return Err(Box::new(Failure::from(error).report(None))),
        };
        // Also when the client leaves: what was complete by then stays cached.
        let _settle = Settle {
            builder: self,
            cache: Arc::clone(&shop.cache),
        };
        let endings = run::Endings::default();
        let run = job::Run {
            shop: &shop,
            flights: &self.inner.flights,
            job,
            progress,
            endings: endings.clone(),
            cancel: cancel.clone(),
        };
        let result = tokio::select! {
            result = Box::pin(run.run()) => result,
            () = cancel.cancelled() => Err(Failure::cancelled().report(None)),
        };
        // Whoever has the answer finds nothing of the build that is not a result.
        endings.settled().await;
        progress.close();
        result.map_err(Box::new)
    }

    /// Waits for a build to be over that nobody has waited for before. For one who waits, again and again.
    pub(crate) async fn settled(&self) {
        self.inner.settled.notified().await;
    }

    /// Cancels the build of this name, if there is one.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(build) = self.inner.jobs.lock().get(id) {
            build.cancel();
        }
    }

    fn register(&self, id: &str, cancel: &CancellationToken) -> Option<Named<'_>> {
        if id.is_empty() {
            return None;
        }
        self.inner.jobs.lock().insert(id.to_owned(), cancel.clone());
        Some(Named {
            builder: self,
            id: id.to_owned(),
        })
    }

    async fn ready(&self) -> Result<Arc<Shop>> {
        if !self.inner.swept.initialized() {
            // To its end, also when the client leaves: nobody may build beside it.
            let (inner, work) = (Arc::clone(&self.inner), self.root().join("work"));
            let sweep = async move {
                let sweep = || Box::pin(run::sweep(&inner.engine, &work));
                inner.swept.get_or_init(sweep).await;
            };
            let tasks = &self.inner.engine.shared().tasks;
            // An error means that the engine closes.
            drop(tasks.spawn(sweep).await);
        }
        let builder = self.clone();
        blocking(move || builder.shop()).await
    }

    /// Everything that builds share; opened at the first call. Blocks.
    fn shop(&self) -> Result<Arc<Shop>> {
        let mut shop = self.inner.shop.lock();
        if let Some(shop) = &*shop {
            return Ok(Arc::clone(shop));
        }
        let (root, shared) = (self.root(), self.inner.engine.shared());
        let cache_mounts = run::CacheMounts::new(root.join("mounts"), shared.tasks.clone());
        let left = cache_mounts.left();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = &shared.tasks;
            drop(tasks.spawn_blocking_on(move || left.remove(), &runtime));
        }
        let opened = Arc::new(Shop {
            engine: self.inner.engine.clone(),
            cache: Cache::open(&root, Arc::clone(&shared.images), shared.tasks.clone())?,
            work: Arc::new(WorkRoot::new(root.join("work"), shared.tasks.clone())),
            permits: Permits::new(shared.host.cpus),
            cache_mounts,
        });
        *shop = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn root(&self) -> std::path::PathBuf {
        self.inner.engine.shared().options.data_root.join("build")
    }
}

/// A build that is over when this is dropped.
struct Settle<'a> {
    builder: &'a Builder,
    cache: Arc<Cache>,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        let (builder, cache) = (self.builder.clone(), Arc::clone(&self.cache));
        let settle = move || {
            cache.settle();
            builder.inner.settled.notify_one();
        };
        let tasks = &self.builder.inner.engine.shared().tasks;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(tasks.spawn_blocking_on(settle, &runtime)),
            Err(_) => settle(),
        }
    }
}

/// A build that can be cancelled by name, for as long as it runs.
struct Named<'a> {
    builder: &'a Builder,
    id: String,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.builder.inner.jobs.lock().remove(&self.id);
    }
}
