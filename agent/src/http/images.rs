//! `/images`: what is stored here. What needs a registry is in `registry`.

use agent_api::{ErrorDetail, ImageSummary, ProgressDetail, ProgressMessage};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::body::{self, BrokenOff};
use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, compat, registry, to_the_end};
use crate::builder::{self, Download};
use crate::engine::{Engine, ImageImport, ImageListing, ProgressStream};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/images/json", |call| Box::pin(list(call))),
    get("/images/get", |call| Box::pin(save(call))),
    get("/images/{}/get", |call| Box::pin(save(call))),
    get("/images/{}/history", |call| Box::pin(history(call))),
    get("/images/{}/json", |call| Box::pin(inspect(call))),
    post("/images/load", |call| Box::pin(load(call))),
    post("/images/create", |call| Box::pin(create(call))),
    post("/images/prune", |call| Box::pin(prune(call))),
    post("/images/{}/tag", |call| Box::pin(tag(call))),
    delete("/images/{}", |call| Box::pin(remove(call))),
];

/// The platforms a request names, as `os/architecture[/variant]`; clients before API 1.`since` cannot name any.
/// Source: moby `api/server/httputils/form.go` (`DecodePlatform`).
fn platforms(call: &Call, parameter: &str, since: u16) -> Result<Vec<String>, HttpError> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Platform {
        os: String,
        architecture: String,
        variant: String,
    }
    if call.version.before(since) {
        return Ok(Vec::new());
    }
    let given = call.query.all(parameter).into_iter();
    given
        .filter(|text| !text.is_empty())
        .map(|text| {
            let parsed: Platform = serde_json::from_str(&text).map_err(|failure| {
                HttpError::bad_request(format!("failed to parse platform: {failure}"))
            })?;
            if parsed.os.is_empty() || parsed.architecture.is_empty() {
                return Err(HttpError::bad_request(
                    "both OS and Architecture must be provided",
                ));
            }
            let parts = [parsed.os, parsed.architecture, parsed.variant];
            Ok(parts.join("/").trim_end_matches('/').to_owned())
        })
        .collect()
}

/// The one platform a request may name.
pub(super) fn platform(call: &Call, since: u16) -> Result<Option<String>, HttpError> {
    Ok(platforms(call, "platform", since)?.pop())
}

async fn list(call: Call) -> Outcome {
    let mut filters = call.query.filters()?;
    if call.version.before(41)
        && let Some(pattern) = call.query.optional("filter")
    {
        filters.add("reference", pattern);
    }
    let listing = ImageListing {
        all: call.query.flag("all"),
        shared_size: call.query.flag("shared-size") && !call.version.before(42),
        filters,
    };
    let images = call.engine.list_images(listing).await?;
    let images: Vec<_> = images
        .into_iter()
        .map(|image: ImageSummary| compat::image_summary(call.version, image))
        .collect();
    Ok(body::ok(&images))
}

async fn inspect(call: Call) -> Outcome {
    let platform = platform(&call, 49)?;
    if platform.is_some() && call.query.flag("manifests") {
        return Err(HttpError::bad_request(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = call
        .engine
        .inspect_image(&call.name, platform.as_deref())
        .await?;
    Ok(body::ok(&compat::image_inspect(call.version, &image)))
}

async fn history(call: Call) -> Outcome {
    let platform = platform(&call, 48)?;
    let history = call
        .engine
        .image_history(&call.name, platform.as_deref())
        .await?;
    Ok(body::ok(&history))
}

async fn load(call: Call) -> Outcome {
    let platform = platform(&call, 48)?;
    let quiet = call.query.flag_or("quiet", true);
    let engine = call.engine.clone();
    let progress = engine.load_images(call.archive(), platform, quiet).await?;
    Ok(body::json_lines(progress.map(or_error)))
}

async fn create(call: Call) -> Outcome {
    if call.query.optional("fromImage").is_some() {
        let progress = registry::pull(&call)?;
        return with_status(progress).await;
    }
    let source = call.query.text("fromSrc").to_owned();
    let import = ImageImport {
        repository: call.query.text("repo").to_owned(),
        tag: call.query.text("tag").to_owned(),
        message: call
            .query
            .optional("message")
            .map_or_else(|| format!("Imported from {source}"), str::to_owned),
        changes: call.query.all("changes"),
        platform: if call.version.before(32) {
            String::new()
        } else {
            call.query.text("platform").to_owned()
        },
    };
    let engine = call.engine.clone();
    if source != "-" {
        return import_from(&engine, &source, import).await;
    }
    let progress = engine.import_image(call.archive(), import).await?;
    with_status(progress).await
}

/// Imports what is at an address. The client hears how far it is, and stops the download by leaving.
async fn import_from(engine: &Engine, source: &str, import: ImageImport) -> Outcome {
    let cancel = CancellationToken::new();
    let leaving = cancel.clone().drop_guard();
    let proxies = &engine.shared().options.registries.proxies;
    let Download {
        from,
        total,
        received,
        archive,
    } = builder::download(source, proxies, &cancel).await?;
    let imported = engine.import_image(archive, import).await?;
    let begun = ProgressMessage {
        status: Some(format!("Downloading from {from}")),
        ..ProgressMessage::default()
    };
    let news = stream::unfold(received, move |mut received| async move {
        received.changed().await.ok()?;
        let current = *received.borrow_and_update();
        Some((Ok(importing(current, total)), received))
    });
    let all = stream::iter([Ok(begun)])
        .chain(stream::select(news, imported))
        .map(move |message| {
            let _kept = &leaving;
            or_error(message)
        });
    Ok(body::json_lines(all))
}

fn importing(current: u64, total: Option<u64>) -> ProgressMessage {
    let bytes = |count: u64| i64::try_from(count).ok();
    ProgressMessage {
        status: Some("Importing".to_owned()),
        progress_detail: Some(ProgressDetail {
            current: bytes(current),
            total: total.and_then(bytes),
        }),
        ..ProgressMessage::default()
    }
}

/// A failure before any progress is a reply with a status; a later one is the last message.
async fn with_status(mut progress: ProgressStream) -> Outcome {
    let first = match progress.next().await {
        Some(Err(failure)) => return Err(failure.into()),
        first => first,
    };
    Ok(body::json_lines(
        stream::iter(first).chain(progress).map(or_error),
    ))
}

fn or_error(message: Result<ProgressMessage, Error>) -> ProgressMessage {
    message.unwrap_or_else(|failure| {
        let message = failure.to_string();
        ProgressMessage {
            error_detail: Some(ErrorDetail {
                code: None,
                message: message.clone(),
            }),
            error: Some(message),
            ..ProgressMessage::default()
        }
    })
}

/// Progress that begins at once, and ends with what failed if something did.
pub(super) fn json_progress(progress: ProgressStream) -> body::Reply {
    body::json_lines(progress.map(or_error))
}

async fn save(call: Call) -> Outcome {
    let platform = platform(&call, 48)?;
    let names = match call.name.is_empty() {
        true => call.query.all("names"),
        false => vec![call.name],
    };
    let archive = call.engine.save_images(names, platform).await?;
    let chunks = stream::unfold(archive, |mut archive| async move {
        let chunk = archive.recv().await?;
        Some((
            chunk.map_err(|failure| BrokenOff(failure.to_string())),
            archive,
        ))
    });
    Ok(body::stream("application/x-tar", chunks))
}

async fn tag(call: Call) -> Outcome {
    let (repository, tag) = (
        call.query.text("repo").to_owned(),
        call.query.text("tag").to_owned(),
    );
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.tag_image(&name, &repository, &tag).await }).await?;
    Ok(body::empty(StatusCode::CREATED))
}

async fn remove(call: Call) -> Outcome {
    if call.name.trim().is_empty() {
        return Err(HttpError::bad_request("image name cannot be blank"));
    }
    let mut platforms = platforms(&call, "platforms", 50)?;
    let platform = platforms.pop();
    if !platforms.is_empty() {
        return Err(HttpError::bad_request(
            "images are stored for one platform each: name one of platforms",
        ));
    }
    let (force, no_prune) = (call.query.flag("force"), call.query.flag("noprune"));
    let (engine, name) = (call.engine, call.name);
    let removed = to_the_end(async move {
        if platform.is_some() {
            engine.inspect_image(&name, platform.as_deref()).await?;
        }
        engine.remove_image(&name, force, no_prune).await
    })
    .await?;
    Ok(body::ok(&removed))
}

async fn prune(call: Call) -> Outcome {
    let (engine, filters) = (call.engine, call.query.filters()?);
    let pruned = to_the_end(async move { engine.prune_images(filters).await }).await?;
    let deleted = pruned.images_deleted.filter(|deleted| !deleted.is_empty());
    Ok(body::ok(
        &json!({ "ImagesDeleted": deleted, "SpaceReclaimed": pruned.space_reclaimed }),
    ))
}
