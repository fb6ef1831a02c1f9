//! From a method and a path to a handler and an API version.
//!
//! Paths are `/v1.NN/…` or without version, which means the newest. Docker's patterns have the name of an object in the
//! middle, and the name of an image may contain slashes: `/images/registry:5000/a/b:c/json`. Nothing here knows what a
//! handler does.
//!
//! Source: moby `api/server/server.go`, `api/server/middleware/version.go`.

use agent_api::{API_VERSION, MIN_API_VERSION};
use http::Method;

use super::{Call, Outcome};
use futures_util::future::BoxFuture;

/// Serves one request.
pub(super) type Handler = fn(Call) -> BoxFuture<'static, Outcome>;

/// One endpoint.
pub(super) struct Route {
    method: Method,
    /// `/images/{}/json`: `{}` stands for one or more segments.
    pattern: &'static str,
    handler: Handler,
}

pub(super) const fn get(pattern: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::GET,
        pattern,
        handler,
    }
}

pub(super) const fn head(pattern: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::HEAD,
        pattern,
        handler,
    }
}

pub(super) const fn post(pattern: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::POST,
        pattern,
        handler,
    }
}

pub(super) const fn put(pattern: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::PUT,
        pattern,
        handler,
    }
}

pub(super) const fn delete(pattern: &'static str, handler: Handler) -> Route {
    Route {
        method: Method::DELETE,
        pattern,
        handler,
    }
}

/// A version of the API: `1.43`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion(pub(super) u16, pub(super) u16);

impl ApiVersion {
    /// The newest one served.
    pub(super) const NEWEST: Self = Self(API_VERSION.0, API_VERSION.1);
    /// The oldest one served.
    pub(super) const OLDEST: Self = Self(MIN_API_VERSION.0, MIN_API_VERSION.1);

    /// Whether the client's version is before `1.<minor>`.
    pub(super) fn before(self, minor: u16) -> bool {
        self < Self(1, minor)
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// The client's version is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VersionError {
    /// Clients this old expect errors as plain text.
    TooOld(String),
    TooNew(String),
}

/// Where a request goes.
pub(super) struct Match {
    pub(super) handler: Handler,
    pub(super) version: Result<ApiVersion, VersionError>,
    /// What `{}` stood for, decoded; empty when the pattern has none.
    pub(super) name: String,
}

/// Finds the route. `path` is as it came, percent-encoded. `None` is a 404, for a wrong method too.
pub(super) fn find<'a>(
    routes: impl IntoIterator<Item = &'a Route>,
    method: &Method,
    path: &str,
) -> Option<Match> {
    let decoded = percent_decode(path)?;
    let (version, path) = split_version(&decoded);
    let (handler, name) = routes
        .into_iter()
        .filter(|route| route.method == *method)
        .find_map(|route| Some((route.handler, capture(route.pattern, path)?)))?;
    let version = match version {
        None => Ok(ApiVersion::NEWEST),
        Some(text) => check_version(text),
    };
    Some(Match {
        handler,
        version,
        name: name.to_owned(),
    })
}

/// `/v1.43/info` → (`1.43`, `/info`).
fn split_version(path: &str) -> (Option<&str>, &str) {
    if let Some(rest) = path.strip_prefix("/v")
        && let Some(end) = rest.find('/')
    {
        let version = &rest[..end];
        if !version.is_empty()
            && version
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return (Some(version), &rest[end..]);
        }
    }
    (None, path)
}

fn check_version(text: &str) -> Result<ApiVersion, VersionError> {
    let mut parts = text.split('.').map(|part| {
        part.parse::<u16>()
            .unwrap_or(if part.is_empty() { 0 } else { u16::MAX })
    });
    let version = ApiVersion(parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < ApiVersion::OLDEST {
        return Err(VersionError::TooOld(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            ApiVersion::OLDEST
        )));
    }
    if version > ApiVersion::NEWEST {
        return Err(VersionError::TooNew(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::NEWEST
        )));
    }
    Ok(version)
}

/// What `{}` stands for; empty text when the pattern has none; `None` when the path does not match. As in Docker's
/// patterns the name may be empty.
fn capture<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once("{}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => path.strip_prefix(before)?.strip_suffix(after),
    }
}

/// `None` for text that is no valid encoding of UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: Method, path: &str) -> Option<(String, Result<ApiVersion, VersionError>)> {
        find(super::super::routes(), &method, path).map(|found| (found.name, found.version))
    }

    /// The pattern that serves a path.
    fn pattern(method: Method, path: &str) -> Option<&'static str> {
        let (_, path) = split_version(path);
        super::super::routes()
            .filter(|route| route.method == method)
            .find(|route| capture(route.pattern, path).is_some())
            .map(|route| route.pattern)
    }

    #[test]
    fn names_of_images_may_have_slashes() {
        for (path, name) in [
            ("/images/busybox/json", "busybox"),
            ("/v1.43/images/a/b/c:d/json", "a/b/c:d"),
            (
                "/images/localhost:5000/a%2Fb@sha256:12/json",
                "localhost:5000/a/b@sha256:12",
            ),
            ("/v1.51/images/json/json", "json"),
        ] {
            let (found, version) = route(Method::GET, path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(found, name);
            assert!(version.is_ok());
        }
    }

    #[test]
    fn fixed_paths_win_over_names() {
        for (method, path, expected) in [
            (Method::GET, "/containers/json", "/containers/json"),
            (Method::GET, "/images/json", "/images/json"),
            (Method::GET, "/images/get", "/images/get"),
            (Method::POST, "/containers/prune", "/containers/prune"),
            (Method::POST, "/networks/create", "/networks/create"),
            (Method::POST, "/volumes/prune", "/volumes/prune"),
            (Method::GET, "/networks/x", "/networks/{}"),
            (Method::GET, "/networks/", "/networks"),
            (Method::DELETE, "/containers/x", "/containers/{}"),
        ] {
            assert_eq!(
                pattern(method, path).map(|found| found.trim_end_matches('/')),
                Some(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn what_docker_does_not_route_is_not_found() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/v1.43"),
            (Method::GET, "/v1.43/"),
            (Method::GET, "/vfoo/info"),
            (Method::GET, "/infox"),
            (Method::PUT, "/containers/json"),
            (Method::HEAD, "/info"),
            (Method::GET, "/v1.43/v1.43/info"),
            (Method::GET, "/info%zz"),
            (Method::GET, "/containers/%ff/json"),
        ] {
            assert!(route(method.clone(), path).is_none(), "{method} {path}");
        }
    }

    #[test]
    fn versions_from_1_24_to_the_newest_are_served() {
        for minor in MIN_API_VERSION.1..=API_VERSION.1 {
            let (_, version) = route(Method::GET, &format!("/v1.{minor}/info")).unwrap();
            assert_eq!(version, Ok(ApiVersion(1, minor)));
        }
        assert_eq!(
            route(Method::GET, "/info").unwrap().1,
            Ok(ApiVersion::NEWEST)
        );
        let too_old = |text: &str| {
            Err(VersionError::TooOld(format!(
                "client version {text} is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
            )))
        };
        let too_new = |text: &str| {
            Err(VersionError::TooNew(format!(
                "client version {text} is too new. Maximum supported API version is 1.51"
            )))
        };
        for text in ["1.23", "1", "0.99", "1.9", "."] {
            assert_eq!(
                route(Method::GET, &format!("/v{text}/info")).unwrap().1,
                too_old(text)
            );
        }
        for text in ["1.52", "1.100", "2.0", "1.99999999"] {
            assert_eq!(
                route(Method::GET, &format!("/v{text}/info")).unwrap().1,
                too_new(text)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_is_too_strange(path in "(/|%|v1.43|images|json|[a-z%0-9.:@é]){0,12}") {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::HEAD] {
                let _ = find(super::super::routes(), &method, &path);
            }
        }
    }
}
