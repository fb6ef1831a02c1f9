//! `/images`: what is stored here. What needs a registry is in `registry`.

use agent_api::{ErrorDetail, ImageSummary, ProgressMessage};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;

use super::body::{self, BrokenOff};
use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, compat, registry, to_the_end};
use crate::engine::{ImageImport, ProgressStream};
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

/// Images are stored for one platform each; choosing one of several is refused rather than ignored.
fn refuse_platform(call: &Call, since: u16) -> Result<(), HttpError> {
    let given = ["platform", "platforms"]
        .iter()
        .any(|name| call.query.optional(name).is_some());
    if given && !call.version.before(since) {
        return Err(HttpError::not_implemented(
            "choosing a platform is not supported: images are stored for one platform",
        ));
    }
    Ok(())
}

async fn list(call: Call) -> Outcome {
    let mut filters = call.query.filters()?;
    if call.version.before(41)
        && let Some(pattern) = call.query.optional("filter")
    {
        filters.add("reference", pattern);
    }
    let images = call
        .engine
        .list_images(call.query.flag("all"), filters)
        .await?;
    let images: Vec<_> = images
        .into_iter()
        .map(|image: ImageSummary| compat::image_summary(call.version, image))
        .collect();
    Ok(body::ok(&images))
}

async fn inspect(call: Call) -> Outcome {
    refuse_platform(&call, 49)?;
    let image = call.engine.inspect_image(&call.name).await?;
    Ok(body::ok(&compat::image_inspect(call.version, &image)))
}

async fn history(call: Call) -> Outcome {
    refuse_platform(&call, 48)?;
    Ok(body::ok(&call.engine.image_history(&call.name).await?))
}

async fn load(call: Call) -> Outcome {
    refuse_platform(&call, 48)?;
    let quiet = call.query.flag_or("quiet", true);
    let engine = call.engine.clone();
    let progress = engine.load_images(call.archive(), quiet).await?;
    Ok(body::json_lines(progress.map(or_error)))
}

async fn create(call: Call) -> Outcome {
    if call.query.optional("fromImage").is_some() {
        let progress = registry::pull(&call)?;
        return with_status(progress).await;
    }
    let source = call.query.text("fromSrc").to_owned();
    if source != "-" {
        return Err(HttpError::not_implemented(format!(
            "importing from {source:?} is not supported: download it and send it as the request body (docker import -)"
        )));
    }
    let import = ImageImport {
        repository: call.query.text("repo").to_owned(),
        tag: call.query.text("tag").to_owned(),
        message: call
            .query
            .optional("message")
            .unwrap_or("Imported from -")
            .to_owned(),
        changes: call.query.all("changes"),
        platform: if call.version.before(32) {
            String::new()
        } else {
            call.query.text("platform").to_owned()
        },
    };
    let engine = call.engine.clone();
    let progress = engine.import_image(call.archive(), import).await?;
    with_status(progress).await
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
    refuse_platform(&call, 48)?;
    let names = match call.name.is_empty() {
        true => call.query.all("names"),
        false => vec![call.name],
    };
    let archive = call.engine.save_images(names).await?;
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
    refuse_platform(&call, 50)?;
    let (force, no_prune) = (call.query.flag("force"), call.query.flag("noprune"));
    let (engine, name) = (call.engine, call.name);
    let removed =
        to_the_end(async move { engine.remove_image(&name, force, no_prune).await }).await?;
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
