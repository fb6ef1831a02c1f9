//! Getting a token from the service that a registry names: with Basic credentials by GET, or by POST in exchange for an
//! identity token (distribution `docs/spec/auth/{token,oauth}.md`).

use agent_build::go_json;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use url::Url;

use super::Session;
use super::auth::{TokenKey, TokenReply};
use super::error::RegistryError;
use super::transport::{HEAD_LIMIT, SMALL_BODY, chain, whole};

/// How this client calls itself there.
const CLIENT_ID: &str = "muster";
const WHAT: &str = "get a token";

/// Whether the service is asked for a token that outlives the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    No,
    /// Stands for user and password from then on.
    Identity,
}

impl Session<'_> {
    /// A token, kept for the next time.
    pub(super) fn token(
        &self,
        key: TokenKey,
        realm: &str,
        service: &str,
    ) -> Result<String, RegistryError> {
        let reply = self.ask_token_service(&key.scope, realm, service, Lasting::No)?;
        self.registry
            .tokens
            .keep(key, reply)
            .ok_or_else(|| self.protocol(WHAT, "the reply holds no token"))
    }

    pub(super) fn ask_token_service(
        &self,
        scope: &str,
        realm: &str,
        service: &str,
        lasting: Lasting,
    ) -> Result<TokenReply, RegistryError> {
        let mut url = Url::parse(realm)
            .map_err(|error| self.protocol(WHAT, format!("bad realm {realm:?}: {error}")))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.endpoint.insecure) {
            let reason = format!("the token service {realm} would be asked without TLS");
            return Err(self.protocol(WHAT, reason));
        }
        let identity = self
            .credentials
            .as_ref()
            .filter(|user| !user.identity_token.is_empty());
        let request = match identity {
            Some(user) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("service", service)
                    .append_pair("client_id", CLIENT_ID)
                    .append_pair("refresh_token", &user.identity_token);
                if !scope.is_empty() {
                    // One parameter, separated by blanks (RFC 6749 §3.3).
                    form.append_pair("scope", scope);
                }
                if lasting == Lasting::Identity {
                    form.append_pair("access_type", "offline");
                }
                let mut request = self.request(&Method::POST, &url, None)?;
                request.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
                *request.body_mut() = whole(form.finish());
                request
            }
            None => {
                let mut query = url.query_pairs_mut();
                if !service.is_empty() {
                    query.append_pair("service", service);
                }
                for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                    query.append_pair("scope", scope);
                }
                if lasting == Lasting::Identity {
                    query
                        .append_pair("offline_token", "true")
                        .append_pair("client_id", CLIENT_ID);
                }
                if let Some(user) = &self.credentials {
                    query.append_pair("account", &user.username);
                }
                drop(query);
                let mut request = self.request(&Method::GET, &url, None)?;
                if let Some(user) = &self.credentials {
                    let mut basic = HeaderValue::from_str(&user.basic())
                        .map_err(|_| self.protocol(WHAT, "the password is no text"))?;
                    basic.set_sensitive(true);
                    request.headers_mut().insert(AUTHORIZATION, basic);
                }
                request
            }
        };
        let reply = self.wait(HEAD_LIMIT, async {
            self.connection
                .request(request)
                .await
                .map_err(|error| self.unreachable(chain(&error)))
        })?;
        let status = reply.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Unauthorized(
                url.host_str().unwrap_or(realm).to_owned(),
            ));
        }
        if !status.is_success() {
            return Err(self.status(WHAT, reply));
        }
        let bytes = self.read_all(WHAT, reply, SMALL_BODY)?;
        go_json::from_slice(&bytes).map_err(|error| self.protocol(WHAT, error))
    }
}
