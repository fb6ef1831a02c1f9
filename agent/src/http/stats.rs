//! `/containers/{}/stats`: samples of what a container uses, one or one a second.

use futures_util::StreamExt;

use super::body::{self, BrokenOff};
use super::router::{Route, get};
use super::{Call, Outcome};

pub(super) const ROUTES: &[Route] = &[get("/containers/{}/stats", |call| Box::pin(stats(call)))];

async fn stats(call: Call) -> Outcome {
    if !call.query.flag_or("stream", true) {
        let one_shot = !call.version.before(41) && call.query.flag("one-shot");
        return Ok(body::ok(
            &call.engine.container_stats(&call.name, one_shot).await?,
        ));
    }
    let samples = call.engine.container_stats_stream(&call.name).await?;
    let lines = samples
        .map(|sample| {
            sample
                .map(|sample| body::line(&sample))
                .map_err(|failure| BrokenOff(failure.to_string()))
        })
        .take_until(call.closing.cancelled_owned());
    Ok(body::stream("application/json", lines))
}
