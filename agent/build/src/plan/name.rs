//! Names of images: what a short name means in full, and how a full one is shortened.
//!
//! Grammar and rules of the `distribution/reference` package. Must not: know registries or whether an image exists.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

use crate::quote::quote;

/// A name in full: `docker.io/library/alpine:3@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageName {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

const HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{label}(?:\.{label})*|\[(?:[a-fA-F0-9:]+)\])");
    let part = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
    let tag = "[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}";
    Regex::new(&format!(
        "^({host}(?::[0-9]+)?)/({part}(?:/{part})*)(?::({tag}))?(?:@({digest}))?$"
    ))
    .expect("the grammar is a valid expression")
});

impl ImageName {
    /// The full name that a written one means. The error is the message, without saying whose name it was.
    pub(super) fn parse(written: &str) -> Result<ImageName, String> {
        let is_id = written.len() == 64
            && written
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_id {
            return Err(format!(
                "invalid repository name ({written}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (domain, rest) = split_domain(written);
        let repository = rest.split(':').next().unwrap_or_default();
        if repository.to_lowercase() != repository {
            return Err(format!(
                "invalid reference format: repository name ({repository}) must be lowercase"
            ));
        }
        let full = format!("{domain}/{rest}");
        let Some(parts) = REFERENCE.captures(&full) else {
            return Err("invalid reference format".to_owned());
        };
        let part = |n: usize| parts.get(n).map(|part| part.as_str().to_owned());
        let name = ImageName {
            domain: part(1).unwrap_or_default(),
            path: part(2).unwrap_or_default(),
            tag: part(3),
            digest: part(4),
        };
        if name.path.len() > 255 {
            return Err("repository name must not be more than 255 characters".to_owned());
        }
        if let Some(digest) = &name.digest {
            check_digest(digest)?;
        }
        Ok(name)
    }

    /// With the tag `latest` when there is neither tag nor digest.
    #[must_use]
    pub(super) fn tagged(mut self) -> ImageName {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// With another digest.
    #[must_use]
    pub(super) fn with_digest(mut self, digest: &str) -> ImageName {
        self.digest = Some(digest.to_owned());
        self
    }

    /// As short as it can be written, also without the tag `latest`: what named contexts are known by.
    pub(super) fn short(&self) -> String {
        let path = match self.path.strip_prefix(OFFICIAL) {
            Some(official) if self.domain == HUB && !official.contains('/') => official,
            _ => &self.path,
        };
        let mut short = match self.domain.as_str() {
            HUB => path.to_owned(),
            domain => format!("{domain}/{path}"),
        };
        match (self.tag.as_deref(), &self.digest) {
            (Some("latest"), None) | (None, _) => {}
            (Some(tag), _) => short = format!("{short}:{tag}"),
        }
        if let Some(digest) = &self.digest {
            short = format!("{short}@{digest}");
        }
        short
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, rest) = match name.split_once('/') {
        None => return (HUB.to_owned(), format!("{OFFICIAL}{name}")),
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        Some(_) => (HUB, name),
    };
    if domain == HUB && !rest.contains('/') {
        return (HUB.to_owned(), format!("{OFFICIAL}{rest}"));
    }
    (domain.to_owned(), rest.to_owned())
}

/// Whether a text is a digest of an algorithm that can be computed; the error is the message.
pub(super) fn check_digest(digest: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return Err("invalid checksum digest format".to_owned());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        "" => return Err("invalid checksum digest format".to_owned()),
        other => return Err(format!("unsupported digest algorithm {}", quote(other))),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !hex.bytes().all(lower_hex) {
        return Err("invalid checksum digest format".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_means_a_full_one() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (written, full, short) in [
            (
                "alpine",
                "docker.io/library/alpine:latest".to_owned(),
                "alpine".to_owned(),
            ),
            (
                "alpine:3",
                "docker.io/library/alpine:3".to_owned(),
                "alpine:3".to_owned(),
            ),
            (
                "me/app",
                "docker.io/me/app:latest".to_owned(),
                "me/app".to_owned(),
            ),
            (
                "index.docker.io/app",
                "docker.io/library/app:latest".to_owned(),
                "app".to_owned(),
            ),
            (
                "host:5000/app:1",
                "host:5000/app:1".to_owned(),
                "host:5000/app:1".to_owned(),
            ),
            (
                "localhost/app",
                "localhost/app:latest".to_owned(),
                "localhost/app".to_owned(),
            ),
            (
                &format!("alpine@{digest}"),
                format!("docker.io/library/alpine@{digest}"),
                format!("alpine@{digest}"),
            ),
        ] {
            let name = ImageName::parse(written).unwrap().tagged();
            assert_eq!(name.to_string(), full, "{written}");
            assert_eq!(name.short(), short, "{written}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (written, reason) in [
            ("Alpine", "must be lowercase"),
            ("", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("alpine:", "invalid reference format"),
            (&"ab".repeat(32), "64-byte hexadecimal"),
            (
                "alpine@sha256:1234567890123456789012345678901234",
                "checksum digest length",
            ),
        ] {
            let error = ImageName::parse(written).unwrap_err();
            assert!(error.contains(reason), "{written:?}: {error}");
        }
    }
}
