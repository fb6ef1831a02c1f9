//! `/_ping`, `/version`, `/info`, `/system/df`.

use agent_api::build::BuildCacheRecord;
use agent_api::swarm::LocalNodeState;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::error::HttpError;
use super::router::{Route, get, head};
use super::{Call, Outcome, compat};
use crate::builder::{Builder, CacheRecord};
use crate::engine::{PreviewRequest, blocking};
use crate::space;

pub(super) const ROUTES: &[Route] = &[
    get("/_ping", |call| Box::pin(ping(call, "OK"))),
    head("/_ping", |call| Box::pin(ping(call, ""))),
    get("/version", |call| {
        Box::pin(async move { Ok(body::ok(&call.engine.version())) })
    }),
    get("/info", |call| Box::pin(info(call))),
    get("/system/df", |call| Box::pin(disk_usage(call))),
    get("/system/df/explain", |call| Box::pin(explain(call))),
    get("/system/prune", |call| Box::pin(preview(call))),
];

/// Every byte below the data root and whose it is; only here.
async fn explain(call: Call) -> Outcome {
    let shared = call.engine.shared().clone();
    let explained = blocking(move || space::explain(&shared)).await?;
    Ok(body::ok(&explained))
}

/// What a prune of everything would remove; only here.
async fn preview(call: Call) -> Outcome {
    let request = PreviewRequest {
        filters: call.query.filters()?,
        all_images: call.query.flag("all"),
        volumes: call.query.flag("volumes"),
    };
    Ok(body::ok(&call.engine.preview_prune(request).await?))
}

/// The records of the build cache; a builder that was never used is not opened for it.
fn build_cache(builder: &Builder) -> crate::error::Result<Vec<BuildCacheRecord>> {
    if !builder.has_cache() {
        return Ok(Vec::new());
    }
    let record = |record: CacheRecord| BuildCacheRecord {
        id: record.id,
        parents: record.parents,
        kind: record.kind.to_owned(),
        description: record.description,
        in_use: record.in_use,
        shared: record.shared,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: record.created.to_string(),
        last_used_at: record.last_used.map(|time| time.to_string()),
        usage_count: i64::try_from(record.uses).unwrap_or(i64::MAX),
    };
    Ok(builder.usage()?.into_iter().map(record).collect())
}

async fn ping(call: Call, text: &'static str) -> Outcome {
    let mut reply = Response::new(Body::Full(Some(text.into())));
    let headers = reply.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    // 2 would promise BuildKit's gRPC session.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    let swarm = HeaderValue::from_static(swarm_status(&call));
    headers.insert("Swarm", swarm);
    Ok(reply)
}

/// The header `Swarm`: whether the node is in a swarm, and as what.
fn swarm_status(call: &Call) -> &'static str {
    match (call.swarm.local_state(), call.swarm.is_manager()) {
        (LocalNodeState::Active, Ok(())) => "active/manager",
        (LocalNodeState::Active, Err(_)) => "active/worker",
        (LocalNodeState::Inactive, _) => "inactive",
        (LocalNodeState::Pending, _) => "pending",
        (LocalNodeState::Error, _) => "error",
        (LocalNodeState::Locked, _) => "locked",
    }
}

async fn info(call: Call) -> Outcome {
    let mut info = call.engine.info().await?;
    info.swarm = call.swarm.info().await;
    Ok(body::ok(&compat::info(call.version, &info)))
}

/// The kinds of objects `type` can ask for, and the fields that tell of them.
const KINDS: [(&str, &str); 4] = [
    ("container", "Containers"),
    ("image", "Images"),
    ("volume", "Volumes"),
    ("build-cache", "BuildCache"),
];

async fn disk_usage(call: Call) -> Outcome {
    let wanted = if call.version.before(42) {
        Vec::new()
    } else {
        call.query.all("type")
    };
    if let Some(unknown) = wanted
        .iter()
        .find(|kind| !KINDS.iter().any(|(known, _)| known == kind))
    {
        return Err(HttpError::bad_request(format!(
            "unknown object type: {unknown}"
        )));
    }
    let mut usage = call.engine.disk_usage().await?;
    let builder = call.builder.clone();
    usage.build_cache = blocking(move || build_cache(&builder)).await?;
    let mut reply = json!(usage);
    for (kind, field) in KINDS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == kind) {
            reply[field] = Value::Null;
            if kind == "image" {
                reply["LayersSize"] = json!(0);
            }
        }
    }
    Ok(body::json(StatusCode::OK, &reply))
}
