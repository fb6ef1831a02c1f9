//! Endpoints that need a registry: pull, distribution, login; push and search are not there yet, and each says so
//! together with what works instead.
//!
//! Source: moby `daemon/server/router/{image,distribution,system}`, `api/pkg/authconfig`.

use agent_image::Credentials;
use serde_json::json;

use super::error::HttpError;
use super::router::{Route, get, post};
use super::{Call, Outcome, body};
use crate::engine::ProgressStream;
use crate::registry_auth::{self, AuthConfig};

pub(super) const ROUTES: &[Route] = &[
    get("/images/search", |_| {
        Box::pin(async {
            refuse(
                "searching a registry",
                "look with the registry's own website",
            )
        })
    }),
    get("/distribution/{}/json", |call| Box::pin(describe(call))),
    post("/images/{}/push", |call| {
        Box::pin(async move {
            refuse(
                &format!("pushing {}", call.name),
                "docker save it and push it from there, for example with skopeo",
            )
        })
    }),
    post("/auth", |call| Box::pin(log_in(call))),
];

fn refuse(what: &str, instead: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is not supported yet: {instead}"
    )))
}

/// Who pulls, as the request says it.
fn credentials(call: &Call) -> Option<Credentials> {
    registry_auth::from_header(call.headers.get("x-registry-auth")?.as_bytes())
}

/// Answers `POST /images/create?fromImage=…`.
pub(super) fn pull(call: &Call) -> Result<ProgressStream, HttpError> {
    let (image, tag) = (call.query.text("fromImage"), call.query.text("tag"));
    let reference = match tag {
        "" => image.to_owned(),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    let platform = match call.version.before(32) {
        true => "",
        false => call.query.text("platform"),
    };
    let platform = Some(platform.to_owned()).filter(|platform| !platform.is_empty());
    Ok(call
        .engine
        .pull_image(&reference, platform, credentials(call))?)
}

async fn describe(call: Call) -> Outcome {
    let credentials = credentials(&call);
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
    let auth: AuthConfig = call.json().await?;
    let address = auth.serveraddress.clone();
    let credentials = auth
        .credentials()
        .ok_or_else(|| HttpError::bad_request("no user is given: username and password"))?;
    call.engine.log_in(&address, credentials).await?;
    Ok(body::ok(
        &json!({ "Status": "Login Succeeded", "IdentityToken": "" }),
    ))
}
