//! Credentials for a registry, as clients of the Engine API write them: in any letter case and with `null` for what they
//! have not, since Go reads them ([`agent_build::go_json`]).
//!
//! Source: moby `api/types/registry/authconfig.go`.

use agent_api::build::RegistryCredentials;
use agent_build::go_json;
use agent_image::{Credentials, Reference};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use indexmap::IndexMap;
use serde::de::DeserializeOwned;

/// Clients pad, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The registry that libraries name when their users name none (docker-java, the examples of dockerode).
const UNSAID: &str = "docker.io";

/// Credentials that came for another registry than the one that is to be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the credentials are for {given}, and {image} is at {wanted}: log in there, or leave out serveraddress"
)]
pub(crate) struct WrongRegistry {
    given: String,
    image: String,
    wanted: String,
}

/// Whom credentials stand for; `None`: nobody.
pub(crate) fn credentials(given: &RegistryCredentials) -> Option<Credentials> {
    let mut credentials = Credentials {
        username: given.username.clone(),
        password: given.password.clone(),
        identity_token: given.identitytoken.clone(),
        registry_token: given.registrytoken.clone(),
    };
    if credentials.username.is_empty() && credentials.password.is_empty() {
        let pair = STANDARD.decode(&given.auth);
        let pair = pair.ok().and_then(|pair| String::from_utf8(pair).ok());
        if let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
            user.clone_into(&mut credentials.username);
            password.clone_into(&mut credentials.password);
        }
    }
    (credentials != Credentials::default()).then_some(credentials)
}

/// What a header `X-Registry-Auth` says. Nothing, `{}` and what cannot be read mean nobody, as in Docker.
pub(crate) fn from_header(header: &[u8]) -> Option<Credentials> {
    credentials(&decode(header)?)
}

/// What bare JSON says, in the same way.
pub(crate) fn from_json(json: &[u8]) -> Option<Credentials> {
    credentials(&go_json::from_slice(json).ok()?)
}

/// What such a header says to who asks the registry of an image. Docker's daemon believes its client about whose registry it is; here one
/// that is named, and is another one, gets nothing.
///
/// # Errors
/// The credentials are for another registry.
pub(crate) fn for_image(header: &[u8], image: &str) -> Result<Option<Credentials>, WrongRegistry> {
    let Some(given) = decode::<RegistryCredentials>(header) else {
        return Ok(None);
    };
    if !given.serveraddress.is_empty()
        && let Ok(reference) = Reference::parse(image)
    {
        let registry = agent_image::registry_of(&given.serveraddress);
        if registry != UNSAID && !registry.eq_ignore_ascii_case(reference.domain()) {
            return Err(WrongRegistry {
                given: registry,
                image: image.to_owned(),
                wanted: reference.domain().to_owned(),
            });
        }
    }
    Ok(credentials(&given))
}

/// What a header `X-Registry-Config` says: credentials by registry. What cannot be read is nobody, as in Docker.
pub(crate) fn by_registry(header: &[u8]) -> IndexMap<String, RegistryCredentials> {
    decode(header).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(header: &[u8]) -> Option<T> {
    let json = match BASE64.decode(header) {
        Ok(json) => json,
        Err(error) => {
            tracing::debug!(%error, "credentials are no base64: nobody");
            return None;
        }
    };
    match go_json::from_slice(&json) {
        Ok(read) => Some(read),
        // Without its text, which may hold what was given.
        Err(_) => {
            tracing::debug!("credentials are not what they should be: nobody");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Vec<u8> {
        BASE64.encode(json).into_bytes()
    }

    #[test]
    fn credentials_are_read_as_go_reads_them() {
        let known = Credentials {
            username: "u".to_owned(),
            password: "p".to_owned(),
            ..Credentials::default()
        };
        for json in [
            r#"{"username":"u","password":"p"}"#,
            // docker-py with a credential store.
            r#"{"ServerAddress":"h:5000","Username":"u","Password":"p"}"#,
            r#"{"username":"u","password":"p","identitytoken":null,"email":null}"#,
            r#"{"auth":"dTpw"}"#,
            r#"{"auth":"dTpw","username":null}"#,
        ] {
            assert_eq!(from_header(&header(json)).as_ref(), Some(&known), "{json}");
        }
        let token = from_header(&header(r#"{"IdentityToken":"t"}"#)).unwrap();
        assert_eq!(token.identity_token, "t");
        for json in ["{}", "null", "[]", "x", r#"{"username":null}"#] {
            assert_eq!(from_header(&header(json)), None, "{json}");
        }
        assert_eq!(from_header(b"!"), None);
        assert_eq!(from_header(b""), None);
    }

    #[test]
    fn one_bad_entry_takes_no_other_along() {
        let all = by_registry(&header(
            r#"{"a:1":{"Username":"u","password":"p","auth":null},"b:1":null,"c:1":{"username":"v"}}"#,
        ));
        assert_eq!(all["a:1"].username, "u");
        assert_eq!(credentials(&all["b:1"]), None);
        assert_eq!(all["c:1"].username, "v");
        assert!(by_registry(b"!").is_empty());
    }

    #[test]
    fn credentials_go_to_the_registry_that_they_are_for() {
        let to = |address: &str, image: &str| {
            let json = format!(r#"{{"username":"u","password":"p","serveraddress":"{address}"}}"#);
            for_image(&header(&json), image).map(|credentials| credentials.is_some())
        };
        for (address, image) in [
            ("", "h:5000/a"),
            ("h:5000", "h:5000/a:1"),
            ("https://h:5000/v2/", "h:5000/a"),
            ("http://H:5000", "h:5000/a"),
            ("https://ghcr.io", "ghcr.io/a/b"),
            ("https://ghcr.io:443/", "ghcr.io/a/b"),
            ("https://index.docker.io/v1/", "alpine"),
            ("registry-1.docker.io", "me/app"),
            // Libraries say so of whatever registry.
            ("https://index.docker.io/v1/", "h:5000/a"),
        ] {
            assert_eq!(to(address, image), Ok(true), "{address} {image}");
        }
        for (address, image) in [
            ("h:5000", "alpine"),
            ("h:5000", "h:5001/a"),
            ("https://ghcr.io", "quay.io/a"),
        ] {
            let refused = to(address, image).unwrap_err().to_string();
            assert!(refused.contains("the credentials are for"), "{refused}");
        }
    }
}
