//! Endpoints that need a registry: pull, distribution, login; push and search are not there yet, and each says so
//! together with what works instead.
//!
//! Source: moby `daemon/server/router/{image,distribution,system}`, `api/pkg/authconfig`.

use agent_image::Credentials;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::json;

use super::error::HttpError;
use super::router::{Route, get, post};
use super::{Call, Outcome, body};
use crate::engine::ProgressStream;

/// Clients pad, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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

/// `X-Registry-Auth`, and the body of `POST /auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    /// `user:password` in base64, where the two are not given.
    auth: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl AuthConfig {
    fn credentials(self) -> Option<Credentials> {
        let mut credentials = Credentials {
            username: self.username,
            password: self.password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        };
        if credentials.username.is_empty() && credentials.password.is_empty() {
            let pair = base64::engine::general_purpose::STANDARD.decode(&self.auth);
            let pair = pair.ok().and_then(|pair| String::from_utf8(pair).ok());
            if let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
                user.clone_into(&mut credentials.username);
                password.clone_into(&mut credentials.password);
            }
        }
        (credentials != Credentials::default()).then_some(credentials)
    }
}

/// Nothing, `{}` and what cannot be read mean nobody, as in Docker.
fn credentials(call: &Call) -> Option<Credentials> {
    let header = call.headers.get("x-registry-auth")?;
    let json = BASE64.decode(header.as_bytes()).ok()?;
    let auth: AuthConfig = serde_json::from_slice(&json).ok()?;
    auth.credentials()
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
