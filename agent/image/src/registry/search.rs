//! Finding images by a word. Only the old index protocol can do so, which Docker Hub and few others still speak.
//! Source: moby `daemon/pkg/registry/{search,session}.go`.

use agent_build::go_json;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Endpoint, Purpose};
use super::error::RegistryError;
use super::transport::{Ask, SMALL_BODY};
use super::{Asker, Credentials, Missed, Registry, Session};
use crate::reference::Reference;

const HUB: &str = "docker.io";
const HUB_INDEX: &str = "index.docker.io";

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct SearchResult {
    /// How many people like it.
    pub star_count: i64,
    /// Whether the registry's owner vouches for it.
    pub is_official: bool,
    /// Repository.
    pub name: String,
    /// Always false nowadays.
    pub is_automated: bool,
    /// In its owner's words.
    pub description: String,
}

/// Which of them are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchFilter {
    /// Official ones, or the others.
    pub official: Option<bool>,
    /// Liked by at least so many.
    pub stars: i64,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

impl Registry {
    /// Searches a registry: `term`, or `host[:port]/term`. Blocks.
    ///
    /// # Errors
    /// The registry cannot be reached, or cannot be searched, as most.
    pub fn search(
        &self,
        term: &str,
        limit: u32,
        filter: &SearchFilter,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<SearchResult>, RegistryError> {
        let (domain, words) = split(term);
        let reference = Reference::parse(&format!("{domain}/search"))
            .map_err(|_| RegistryError::Address(domain.to_owned()))?;
        let endpoints = match domain {
            HUB => vec![Endpoint::secure(HUB_INDEX)],
            host => self.config.endpoints(host, Purpose::Write),
        };
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("q", words)
            .append_pair("n", &limit.to_string())
            .finish();
        let path = format!("/v1/search?{query}");
        let asker = Asker {
            reference: &reference,
            purpose: Purpose::Read,
            credentials,
            cancel,
        };
        let mut found = self.try_each(endpoints, &asker, |session| {
            session.search(&path).map_err(Missed::by)
        })?;
        found.retain(|image| {
            image.star_count >= filter.stars
                && filter
                    .official
                    .is_none_or(|wanted| wanted == image.is_official)
        });
        Ok(found)
    }
}

impl Session<'_> {
    fn search(&self, path: &str) -> Result<Vec<SearchResult>, RegistryError> {
        let reply = match self.ask(Ask::get(path).without_scope()) {
            Ok(reply) => reply,
            Err(RegistryError::Status { status, .. }) => {
                let reason = format!("Unexpected status code {status}: it cannot be searched");
                return Err(self.protocol("", reason));
            }
            Err(error) => return Err(error),
        };
        let bytes = self.read_all(path, reply, SMALL_BODY)?;
        let found: Found =
            go_json::from_slice(&bytes).map_err(|error| self.protocol(path, error))?;
        Ok(found.results.unwrap_or_default())
    }
}

/// Registry and words.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => match host {
            HUB_INDEX => (HUB, words),
            host => (host, words),
        },
        _ => (HUB, term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_may_name_a_registry() {
        for (term, expected) in [
            ("redis", ("docker.io", "redis")),
            ("me/redis", ("docker.io", "me/redis")),
            ("host:5000/redis", ("host:5000", "redis")),
            ("localhost/a/b", ("localhost", "a/b")),
            ("index.docker.io/x", ("docker.io", "x")),
        ] {
            assert_eq!(split(term), expected);
        }
    }
}
