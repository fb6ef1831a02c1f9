//! Addresses of git repositories as `ADD`, the main context and named contexts take them.
//!
//! ```text
//! https://host/repo.git#reference:subdirectory
//! https://host/repo.git?ref=…&tag=…&branch=…&subdir=…&commit=…&keep-git-dir=true&submodules=false
//! git@host:repo.git#reference        ssh://git@host/repo        git://host/repo
//! ```
//!
//! Follows BuildKit's `frontend/dockerfile/dfgitutil` and `util/gitutil`. Must not: connect anywhere.

use super::GitOp;
use super::options::parse_bool;
use super::path;
use crate::quote::quote;

/// A repository, and what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitAddress {
    /// Address without fragment and query.
    pub remote: String,
    /// Branch, tag or commit; empty for the remote's `HEAD`.
    pub reference: String,
    /// Directory in the repository; empty for all of it.
    pub subdirectory: String,
    /// Commit that the reference must lead to.
    pub checksum: Option<String>,
    /// Whether `.git` stays, when the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are checked out, when the address says so.
    pub submodules: Option<bool>,
}

/// An address of a repository that asks for something impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GitAddressError(pub String);

impl GitAddress {
    /// Reads an address; `None` when the text is none (a path, or an `http://` address that does not end in `.git`).
    ///
    /// # Errors
    /// It is one, but its query asks for something unknown or contradictory.
    pub fn parse(text: &str) -> Result<Option<GitAddress>, GitAddressError> {
        let Some((remote, query, fragment)) = split(text) else {
            return Ok(None);
        };
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut address = GitAddress {
            remote: remote.to_owned(),
            reference: percent_decoded(reference),
            subdirectory: path::join("/", &percent_decoded(subdirectory))[1..].to_owned(),
            ..GitAddress::default()
        };
        address.apply(query)?;
        Ok(Some(address))
    }

    /// The checkout that the address asks for.
    pub fn op(&self, keep_git_dir: bool) -> GitOp {
        GitOp {
            remote: self.remote.clone(),
            reference: self.reference.clone(),
            subdirectory: self.subdirectory.clone(),
            keep_git_dir,
            submodules: self.submodules.unwrap_or(true),
            checksum: self.checksum.clone(),
        }
    }

    fn apply(&mut self, query: &str) -> Result<(), GitAddressError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (percent_decoded(key), percent_decoded(value));
            if seen.contains(&key) {
                return refused(format!("query {} has multiple values", quote(&key)));
            }
            let switch = matches!(key.as_str(), "submodules" | "keep-git-dir");
            if value.is_empty() && !switch {
                return refused(format!("query {} has no value", quote(&key)));
            }
            match key.as_str() {
                "ref" => self.set_reference(value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => {
                    let known = &self.subdirectory;
                    if !known.is_empty() && *known != value {
                        let (known, value) = (quote(known), quote(&value));
                        return refused(format!("subdir conflicts: {known} vs {value}"));
                    }
                    self.subdirectory = path::join("/", &value)[1..].to_owned();
                }
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(truth(&key, &value)?),
                "submodules" => self.submodules = Some(truth(&key, &value)?),
                _ => return refused(format!("unexpected query {}", quote(&key))),
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return refused("branch conflicts with tag".to_owned());
        }
        match tag.or(branch) {
            Some(reference) => self.set_reference(reference),
            None => Ok(()),
        }
    }

    fn set_reference(&mut self, reference: String) -> Result<(), GitAddressError> {
        if !self.reference.is_empty() && self.reference != reference {
            let (known, new) = (quote(&self.reference), quote(&reference));
            return refused(format!("ref conflicts: {known} vs {new}"));
        }
        self.reference = reference;
        Ok(())
    }
}

fn refused<T>(message: String) -> Result<T, GitAddressError> {
    Err(GitAddressError(message))
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) {
        return name.to_owned();
    }
    format!("{prefix}{name}")
}

fn truth(key: &str, value: &str) -> Result<bool, GitAddressError> {
    if value.is_empty() {
        return Ok(true);
    }
    parse_bool(value)
        .ok_or_else(|| GitAddressError(format!("invalid {key} value: {}", quote(value))))
}

/// Remote, query and fragment, if this is the address of a repository.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    if text.starts_with("./") || text.starts_with("../") {
        return None;
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_git = match remote.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => !rest.is_empty(),
            "http" | "https" => {
                let place = rest.split_once('/').map(|(_, place)| place);
                place.is_some_and(|place| place.ends_with(".git"))
            }
            _ => false,
        },
        None => is_scp_like(remote),
    };
    is_git.then_some((remote, query, fragment))
}

/// `user@host:path`
fn is_scp_like(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str, extra: &[char]| {
        let valid = |c: char| c.is_ascii_alphanumeric() || extra.contains(&c);
        !text.is_empty() && text.chars().all(valid)
    };
    word(user, &['-', '_']) && word(host, &['-', '.'])
}

/// A part of an address with `%xx` taken back; what is no such sequence stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> GitAddress {
        GitAddress::parse(text).unwrap().unwrap()
    }

    #[test]
    fn an_address_says_what_of_the_repository_is_wanted() {
        for (text, remote, reference, subdirectory) in [
            ("https://h/r.git", "https://h/r.git", "", ""),
            (
                "https://h/r.git#main:a/../b",
                "https://h/r.git",
                "main",
                "b",
            ),
            ("https://h/r.git#:sub", "https://h/r.git", "", "sub"),
            ("git@h:me/r.git#v1", "git@h:me/r.git", "v1", ""),
            ("ssh://git@h/r", "ssh://git@h/r", "", ""),
            ("git://h/r#x", "git://h/r", "x", ""),
            (
                "https://h/r.git?tag=v1&subdir=d",
                "https://h/r.git",
                "refs/tags/v1",
                "d",
            ),
            (
                "https://h/r.git?branch=b",
                "https://h/r.git",
                "refs/heads/b",
                "",
            ),
            ("https://h/r.git?ref=x#x", "https://h/r.git", "x", ""),
        ] {
            let address = parsed(text);
            assert_eq!(
                (
                    address.remote.as_str(),
                    address.reference.as_str(),
                    address.subdirectory.as_str()
                ),
                (remote, reference, subdirectory),
                "{text}"
            );
        }
    }

    #[test]
    fn switches_of_the_query_reach_the_checkout() {
        let address = parsed("https://h/r.git?keep-git-dir&submodules=false&commit=abc");
        assert_eq!(address.keep_git_dir, Some(true));
        let op = address.op(false);
        assert_eq!(
            (op.submodules, op.checksum.as_deref(), op.keep_git_dir),
            (false, Some("abc"), false)
        );
    }

    #[test]
    fn other_texts_are_no_address() {
        for text in [
            "a",
            "./x.git",
            "../x.git",
            "https://h/file",
            "https://h",
            "ftp://h/r.git",
            "user@host",
            "github.com/moby/buildkit",
        ] {
            assert_eq!(GitAddress::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn contradictions_are_errors() {
        for (text, message) in [
            ("https://h/r.git?ref=a#b", r#"ref conflicts: "b" vs "a""#),
            (
                "https://h/r.git?tag=a&branch=b",
                "branch conflicts with tag",
            ),
            ("https://h/r.git?what=1", r#"unexpected query "what""#),
            ("https://h/r.git?ref", r#"query "ref" has no value"#),
            (
                "https://h/r.git?ref=a&ref=a",
                r#"query "ref" has multiple values"#,
            ),
            (
                "https://h/r.git?submodules=x",
                r#"invalid submodules value: "x""#,
            ),
        ] {
            assert_eq!(GitAddress::parse(text).unwrap_err().0, message, "{text}");
        }
    }
}
