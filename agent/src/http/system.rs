//! `/_ping`, `/version`, `/info`, `/system/df`.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body, Reply};
use super::error::HttpError;
use super::router::{Route, get, head};
use super::{Call, Outcome, compat};

pub(super) const ROUTES: &[Route] = &[
    get("/_ping", |_| Box::pin(async { Ok(ping("OK")) })),
    head("/_ping", |_| Box::pin(async { Ok(ping("")) })),
    get("/version", |call| {
        Box::pin(async move { Ok(body::ok(&call.engine.version())) })
    }),
    get("/info", |call| Box::pin(info(call))),
    get("/system/df", |call| Box::pin(disk_usage(call))),
];

fn ping(text: &'static str) -> Reply {
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
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    reply
}

async fn info(call: Call) -> Outcome {
    let info = call.engine.info().await?;
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
    let usage = call.engine.disk_usage().await?;
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
