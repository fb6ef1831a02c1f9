//! Which tags a repository has (OCI distribution-spec 1.1, "Listing tags").

use agent_build::go_json;
use http::header::LINK;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::endpoint::Purpose;
use super::error::RegistryError;
use super::transport::{Ask, SMALL_BODY};
use super::{Credentials, Registry, Session};
use crate::reference::Reference;

/// Pages, and tags in all, that are read before the repository counts as endless.
const PAGES_MAX: usize = 1000;
const TAGS_MAX: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Registry {
    /// The tags of a repository, in the registry's order. Blocks.
    ///
    /// # Errors
    /// The registry cannot be reached, or does not tell.
    pub fn tags(
        &self,
        repository: &Reference,
        credentials: Option<&Credentials>,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RegistryError> {
        self.at_first(
            repository,
            credentials,
            cancel,
            |session| session.tags(),
            |_, tags| Ok(tags),
        )
    }
}

impl Session<'_> {
    fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut path = format!("/v2/{}/tags/list", self.reference.path());
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let reply = self.ask(Ask::get(&*path)).map_err(|error| match error {
                RegistryError::Status { status: 404, .. } => {
                    let repository = self.reference.familiar_repository();
                    Purpose::Read.denied(repository, None)
                }
                other => other,
            })?;
            let next = reply.headers().get(LINK);
            let next = next.and_then(|link| next_page(link.to_str().ok()?));
            let bytes = self.read_all(&path, reply, 4 * SMALL_BODY)?;
            let page: Page =
                go_json::from_slice(&bytes).map_err(|error| self.protocol(&path, error))?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) if tags.len() < TAGS_MAX => path = next,
                Some(_) => break,
                None => return Ok(tags),
            }
        }
        Err(self.protocol(&path, format!("there are more than {TAGS_MAX} tags")))
    }
}

/// The path in `<url>; rel="next"`; a host in it is not asked.
fn next_page(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    let path = match target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => target,
    };
    path.starts_with("/v2/").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_within_the_registry() {
        for (link, path) in [
            (
                r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=b&n=2"),
            ),
            (
                r#"<https://x/v2/a/tags/list?last=b>; rel="next""#,
                Some("/v2/a/tags/list?last=b"),
            ),
            (r#"</v2/a/tags/list>; rel="prev""#, None),
            ("</etc>; rel=next", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link).as_deref(), path, "{link}");
        }
    }
}
