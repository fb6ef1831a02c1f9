//! Keeps images and build cache within what the configuration allows.
//!
//! ```text
//! start ──┐                                     ┌─ rules of the build cache, one after the other
//! events ─┤                                     │
//! builds ─┴─▶ one pass at a time, on a thread ──┤
//!                                               └─ budget: the oldest image or record goes, until the rest fits
//! ```
//!
//! Every removal is one change of the image store or the builder, and an event. What came in while a pass was at work
//! makes one more pass. A pass that is killed leaves less to do for the next one, nothing else.

use agent_api::Filters;
use agent_image::{Image, ImageId, ListFilter};
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;

use super::policy::{Candidate, Disk, Policy, by_age, cache_victims, uses};
use crate::builder::Builder;
use crate::engine::{Engine, EventOptions, blocking};
use crate::error::{Error, Result};

/// After these events the disk may be fuller, or something on it may be unused. The end of a build is another occasion, for
/// which Docker has no event.
const OCCASIONS: [(&str, &[&str]); 2] = [
    ("image", &["pull", "load", "import", "create", "tag"]),
    ("container", &["commit", "destroy"]),
];

/// Starts the collector, unless there is nothing for it to keep. It ends with the engine.
///
/// # Errors
/// Events cannot be listened to.
pub(crate) async fn start(engine: Engine, builder: Builder, policy: Policy) -> Result<()> {
    if policy.budget.is_none() && policy.cache.is_empty() {
        return Ok(());
    }
    let mut filters = Filters::new();
    for (kind, actions) in OCCASIONS {
        filters.add("type", kind);
        for action in actions {
            filters.add("event", *action);
        }
    }
    let mut events = engine
        .events(EventOptions {
            filters,
            ..EventOptions::default()
        })
        .await?;
    let shared = engine.shared().clone();
    let closing = shared.closing.clone();
    let work = async move {
        loop {
            // One pass for all that has happened.
            while let Some(Some(_)) = events.next().now_or_never() {}
            let passed = {
                let (engine, builder, policy) = (engine.clone(), builder.clone(), policy.clone());
                blocking(move || pass(&engine, &builder, &policy)).await
            };
            if let Err(error) = passed {
                tracing::warn!(%error, "the garbage collection did not get to its end; it goes on after the next change");
            }
            tokio::select! {
                event = events.next() => if event.is_none() { return },
                () = builder.settled() => {}
            }
        }
    };
    shared.tasks.spawn(async move {
        closing.run_until_cancelled(work).await;
    });
    Ok(())
}

/// One pass. Blocks.
fn pass(engine: &Engine, builder: &Builder, policy: &Policy) -> Result<()> {
    let mut freed = 0;
    for rule in &policy.cache {
        // A builder that was never used has nothing, and is not opened for that.
        if !builder.has_cache() {
            break;
        }
        // Records may have files in common: what came free is known afterwards only.
        loop {
            let victims = cache_victims(rule, &builder.usage()?, disk(engine)?, Timestamp::now());
            if victims.is_empty() {
                break;
            }
            let (removed, bytes) = remove_records(engine, builder, &victims)?;
            freed += bytes;
            if removed == 0 {
                break;
            }
        }
    }
    if let Some(budget) = policy.budget {
        freed += keep_budget(engine, builder, policy, budget.bytes(disk(engine)?))?;
    }
    if freed > 0 {
        tracing::info!(bytes = freed, "garbage collected");
    }
    Ok(())
}

/// What the budget can do without.
enum What {
    Image(ImageId),
    Record(String),
}

fn keep_budget(engine: &Engine, builder: &Builder, policy: &Policy, budget: u64) -> Result<u64> {
    let mut total = total(engine, builder)?;
    if total <= budget {
        return Ok(0);
    }
    tracing::info!(
        bytes = total,
        budget,
        "images and build cache are over their budget"
    );
    let before = total;
    for Candidate { what, last_used } in by_age(
        candidates(engine, builder, policy)?,
        policy.grace,
        Timestamp::now(),
    ) {
        let freed = match what {
            What::Image(id) => engine.collect_image(&id, last_used)?,
            What::Record(id) => remove_records(engine, builder, &[id])?.1,
        };
        total = total.saturating_sub(freed);
        if total <= budget {
            return Ok(before - total);
        }
    }
    tracing::warn!(
        bytes = total,
        budget,
        "images and build cache stay over their budget: what is left is in use, was used a short while ago, or is to be kept"
    );
    Ok(before - total)
}

/// Bytes of the files of all layers, and of what the build cache has besides them.
fn total(engine: &Engine, builder: &Builder) -> Result<u64> {
    let layers = engine.shared().images.layers_total();
    let loose: u64 = match builder.has_cache() {
        true => builder.usage()?.iter().map(|record| record.loose).sum(),
        false => 0,
    };
    Ok(layers + loose)
}

fn candidates(engine: &Engine, builder: &Builder, policy: &Policy) -> Result<Vec<Candidate<What>>> {
    let images = &engine.shared().images;
    let list = |filter: ListFilter| {
        images.list(&ListFilter {
            all: true,
            ..filter
        })
    };
    let mut kept: Vec<ImageId> = Vec::new();
    let ids = |images: Vec<Image>| images.into_iter().map(|image| image.id).collect::<Vec<_>>();
    if !policy.keep_names.is_empty() {
        kept.extend(ids(list(ListFilter {
            references: policy.keep_names.clone(),
            ..ListFilter::default()
        })?));
    }
    for label in &policy.keep_labels {
        kept.extend(ids(list(ListFilter {
            labels: vec![label.clone()],
            ..ListFilter::default()
        })?));
    }
    let mut candidates = Vec::new();
    for id in ids(list(ListFilter::default())?) {
        if let (false, Some(last_used)) = (kept.contains(&id), images.last_used(&id)) {
            candidates.push(Candidate {
                what: What::Image(id),
                last_used,
            });
        }
    }
    if builder.has_cache() {
        let records = builder.usage()?;
        for (record, last_used) in uses(&records) {
            if !record.in_use {
                candidates.push(Candidate {
                    last_used,
                    what: What::Record(record.id.clone()),
                });
            }
        }
    }
    Ok(candidates)
}

/// How many went, and the bytes that came free.
fn remove_records(engine: &Engine, builder: &Builder, ids: &[String]) -> Result<(usize, u64)> {
    let (removed, freed) = builder.remove_records(ids)?;
    if !removed.is_empty() {
        let reclaimed = freed.to_string();
        let attributes = [("reclaimed", reclaimed.as_str())];
        let events = &engine.shared().events;
        events.other("builder", "", "prune", &attributes);
    }
    Ok((removed.len(), freed))
}

fn disk(engine: &Engine) -> Result<Disk> {
    let root = &engine.shared().options.data_root;
    let stat = rustix::fs::statvfs(root)
        .map_err(|error| Error::io("ask for the free space of", root)(error.into()))?;
    Ok(Disk {
        size: stat.f_blocks * stat.f_frsize,
        free: stat.f_bavail * stat.f_frsize,
    })
}
