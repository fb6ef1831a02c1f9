//! Credentials for a registry, as clients of the Engine API write them.

use agent_image::Credentials;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Deserialize;

/// Clients pad, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// `X-Registry-Auth`, and the body of `POST /auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    username: String,
    password: String,
    /// `user:password` in base64, where the two are not given.
    auth: String,
    pub(crate) serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl AuthConfig {
    /// `None`: nobody.
    pub(crate) fn credentials(self) -> Option<Credentials> {
        let mut credentials = Credentials {
            username: self.username,
            password: self.password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        };
        if credentials.username.is_empty() && credentials.password.is_empty() {
            let pair = STANDARD.decode(&self.auth);
            let pair = pair.ok().and_then(|pair| String::from_utf8(pair).ok());
            if let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
                user.clone_into(&mut credentials.username);
                password.clone_into(&mut credentials.password);
            }
        }
        (credentials != Credentials::default()).then_some(credentials)
    }
}

/// The credentials that came with a build.
pub(crate) fn credentials(given: &agent_api::build::RegistryCredentials) -> Option<Credentials> {
    let given = given.clone();
    let auth = AuthConfig {
        username: given.username,
        password: given.password,
        auth: given.auth,
        serveraddress: given.serveraddress,
        identitytoken: given.identitytoken,
        registrytoken: given.registrytoken,
    };
    auth.credentials()
}

/// What a header `X-Registry-Auth` says. Nothing, `{}` and what cannot be read mean nobody, as in Docker.
pub(crate) fn from_header(header: &[u8]) -> Option<Credentials> {
    let json = BASE64.decode(header).ok()?;
    let auth: AuthConfig = serde_json::from_slice(&json).ok()?;
    auth.credentials()
}
