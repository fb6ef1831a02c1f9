//! Endpoints that need a registry: pull, push, search, distribution, login.
//!
//! Source: moby `daemon/server/router/{image,distribution,system}`, `api/pkg/authconfig`.

use agent_api::ImageSearchResult;
use agent_api::build::RegistryCredentials;
use agent_build::plan::Platform;
use agent_image::{Credentials, SearchFilter};
use serde_json::json;

use super::error::HttpError;
use super::images::{json_progress, platform};
use super::router::{Route, get, post};
use super::{Call, Outcome, body};
use crate::engine::ProgressStream;
use crate::registry_auth;

/// Results of a search that does not say how many it wants, and the most it may want.
const SEARCH_LIMIT: i64 = 25;
const SEARCH_LIMIT_MAX: i64 = 100;

pub(super) const ROUTES: &[Route] = &[
    get("/images/search", |call| Box::pin(search(call))),
    get("/distribution/{}/json", |call| Box::pin(describe(call))),
    post("/images/{}/push", |call| Box::pin(push(call))),
    post("/auth", |call| Box::pin(log_in(call))),
];

/// Who asks, as the request says it.
fn credentials(call: &Call) -> Option<Credentials> {
    registry_auth::from_header(call.headers.get("x-registry-auth")?.as_bytes())
}

/// Who asks for an image.
fn credentials_for(call: &Call, image: &str) -> Result<Option<Credentials>, HttpError> {
    let Some(header) = call.headers.get("x-registry-auth") else {
        return Ok(None);
    };
    registry_auth::for_image(header.as_bytes(), image)
        .map_err(|error| HttpError::bad_request(error.to_string()))
}

/// Answers `POST /images/create?fromImage=…`. A name without tag means all tags, as in Docker.
pub(super) fn pull(call: &Call) -> Result<ProgressStream, HttpError> {
    let (image, tag) = (call.query.text("fromImage"), call.query.text("tag"));
    // "pull -a" of old clients ends the name with a colon.
    let image = image.strip_suffix(':').unwrap_or(image);
    let reference = match tag {
        "" => image.to_owned(),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    let platform = match call.version.before(32) {
        true => "",
        false => call.query.text("platform"),
    };
    let platform = match platform {
        "" => None,
        text => Some(
            text.parse::<Platform>()
                .map_err(|error| HttpError::bad_request(format!("{error}: invalid argument")))?,
        ),
    };
    let credentials = credentials_for(call, &reference)?;
    let engine = &call.engine;
    let name_only =
        agent_image::Reference::parse(&reference).is_ok_and(|reference| reference.is_name_only());
    Ok(match name_only {
        true => engine.pull_all_tags(&reference, platform, credentials)?,
        false => engine.pull_image(&reference, platform, credentials)?,
    })
}

async fn push(call: Call) -> Outcome {
    let platform = platform(&call, 46)?;
    let reference = match call.query.text("tag") {
        "" => call.name.clone(),
        tag => format!("{}:{tag}", call.name),
    };
    if let Some(platform) = platform {
        // What is stored is one variant: it is the one that is asked for, or there is none.
        call.engine
            .inspect_image(&reference, Some(&platform))
            .await?;
    }
    let credentials = credentials_for(&call, &reference)?;
    let progress = call.engine.push_image(&reference, credentials)?;
    Ok(json_progress(progress))
}

async fn search(call: Call) -> Outcome {
    let limit = match call.query.integer("limit")? {
        None | Some(0) => SEARCH_LIMIT,
        Some(limit) => limit,
    };
    if !(1..=SEARCH_LIMIT_MAX).contains(&limit) {
        return Err(HttpError::bad_request(format!(
            "limit {limit} is outside the range of [1, {SEARCH_LIMIT_MAX}]"
        )));
    }
    let filters = call.query.filters()?;
    let bad = |error: agent_api::FilterError| HttpError::bad_request(error.to_string());
    filters
        .allow(&["is-automated", "is-official", "stars"])
        .map_err(bad)?;
    let mut stars = 0;
    for text in filters.get("stars") {
        let number = text
            .parse::<i64>()
            .map_err(|_| HttpError::bad_request(format!("invalid filter 'stars={text}'")))?;
        stars = stars.max(number);
    }
    let filter = SearchFilter {
        official: filters.boolean("is-official").map_err(bad)?,
        stars,
    };
    // Nothing has been built by the hub itself for years.
    if filters.boolean("is-automated").map_err(bad)? == Some(true) {
        return Ok(body::ok(&Vec::<ImageSearchResult>::new()));
    }
    let credentials = credentials(&call);
    let term = call.query.text("term").to_owned();
    let limit = u32::try_from(limit).unwrap_or_default();
    let found = call
        .engine
        .search_images(term, limit, filter, credentials)
        .await?;
    let found: Vec<ImageSearchResult> = found
        .into_iter()
        .map(|image| ImageSearchResult {
            star_count: image.star_count,
            is_official: image.is_official,
            name: image.name,
            is_automated: false,
            description: image.description,
        })
        .collect();
    Ok(body::ok(&found))
}

async fn describe(call: Call) -> Outcome {
    let credentials = credentials_for(&call, &call.name)?;
    let found = call.engine.describe_image(&call.name, credentials).await?;
    let platforms: Vec<_> = found
        .platforms
        .iter()
        .map(|platform| {
            let mut parts = platform.split('/').map(str::to_owned);
            let (os, architecture) = (parts.next(), parts.next());
            match parts.next() {
                None => json!({ "architecture": architecture, "os": os }),
                Some(variant) => {
                    json!({ "architecture": architecture, "os": os, "variant": variant })
                }
            }
        })
        .collect();
    Ok(body::ok(&json!({
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest.to_string(),
            "size": found.size,
        },
        "Platforms": platforms,
    })))
}

async fn log_in(mut call: Call) -> Outcome {
    let given: RegistryCredentials = call.go_json().await?;
    let credentials = registry_auth::credentials(&given)
        .ok_or_else(|| HttpError::bad_request("no user is given: username and password"))?;
    let identity = call
        .engine
        .log_in(&given.serveraddress, credentials)
        .await?;
    Ok(body::ok(
        &json!({ "IdentityToken": identity, "Status": "Login Succeeded" }),
    ))
}
