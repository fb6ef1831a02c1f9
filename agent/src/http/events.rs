//! `/events`: what happens, as lines of JSON, for as long as the client listens.

use futures_util::{StreamExt, future};

use super::body;
use super::error::HttpError;
use super::router::{Route, get};
use super::{Call, Outcome};
use crate::engine::EventOptions;

pub(super) const ROUTES: &[Route] = &[get("/events", |call| Box::pin(events(call)))];

async fn events(call: Call) -> Outcome {
    let options = EventOptions {
        since: call.query.time("since")?,
        until: call.query.time("until")?,
        filters: call.query.filters()?,
    };
    if let (Some(since), Some(until)) = (options.since, options.until)
        && until < since
    {
        let (since, until) = (call.query.text("since"), call.query.text("until"));
        return Err(HttpError::bad_request(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    // Creation of images is told since API 1.46.
    let hide_image_create = call.version.before(46);
    let events = call
        .engine
        .events(options)
        .await?
        .filter(move |event| {
            future::ready(!(hide_image_create && event.kind == "image" && event.action == "create"))
        })
        .take_until(call.closing.cancelled_owned());
    Ok(body::json_lines(events))
}
