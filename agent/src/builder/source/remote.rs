//! A main context given by its address, as the classic `remote=` and `docker build URL` have it.
//!
//! ```text
//! a repository            checked out
//! anything over HTTP      an archive by its content ─▶ unpacked by the caller; else the text of a Dockerfile
//! ```
//!
//! Source: buildkit `frontend/dockerui/context.go` (`DetectHTTPContext`), moby `daemon/builder/remotecontext`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use agent_build::plan::GitAddress;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::client::{Question, ask};
use super::{git, http};
use crate::builder::Sessions;
use crate::builder::run::OutputSink;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// Longest Dockerfile.
const DOCKERFILE_MAX: u64 = 16 << 20;

/// Where a context is.
#[derive(Clone, Copy)]
pub(crate) struct RemoteAddress<'a> {
    /// Its address.
    pub(crate) url: &'a str,
    /// The `.git` of a repository stays, unless the address says whether it does.
    pub(crate) keep_git_dir: Option<bool>,
}

/// What was found.
pub(crate) enum Remote {
    /// A tree, checked out into the directory that was given; the commit it is.
    Tree(String),
    /// A tar, packed or not.
    Archive(NamedTempFile),
    /// The text of a Dockerfile; there is no context.
    Dockerfile(Vec<u8>),
}

/// Obtains a context. `into` is an empty directory, and comes back.
pub(crate) async fn remote<D>(
    engine: &Engine,
    address: RemoteAddress<'_>,
    sessions: &Sessions,
    into: D,
    output: &OutputSink,
    cancel: &CancellationToken,
) -> Result<(Remote, D)>
where
    D: AsRef<Path> + Send + 'static,
{
    let proxies = &engine.shared().options.registries.proxies;
    let repository =
        GitAddress::parse(address.url).map_err(|error| Error::invalid(error.to_string()))?;
    if let Some(repository) = repository {
        let keep = repository.keep_git_dir.or(address.keep_git_dir);
        let op = repository.op(keep.unwrap_or(false));
        let commit = git::resolve(&op, proxies, sessions, cancel).await?;
        let checkout = git::checkout(&op, &commit, into, proxies, output, sessions, cancel);
        let into = checkout.await?;
        return Ok((Remote::Tree(commit), into));
    }
    let url = http::parse(address.url)?;
    let question = Question::get(url.clone()).through(proxies);
    let (_, answer) = ask(question, cancel).await?;
    let download = http::receive(&http::root(engine), &url, answer, cancel).await?;
    let found = blocking(move || {
        let mut file = download.file;
        let path = file.path().to_owned();
        let mut read = || -> std::io::Result<Option<Vec<u8>>> {
            let mut head = Vec::new();
            let inner = file.as_file_mut();
            inner.seek(SeekFrom::Start(0))?;
            inner.by_ref().take(512).read_to_end(&mut head)?;
            if is_archive(&head) {
                return Ok(None);
            }
            inner.take(DOCKERFILE_MAX + 1).read_to_end(&mut head)?;
            Ok(Some(head))
        };
        match read().map_err(Error::io("read", &path))? {
            None => Ok(Remote::Archive(file)),
            Some(text) if text.len() as u64 > DOCKERFILE_MAX => Err(Error::invalid(format!(
                "{} is neither an archive nor a Dockerfile: it is longer than {DOCKERFILE_MAX} bytes",
                http::shown(&url)
            ))),
            Some(text) => Ok(Remote::Dockerfile(text)),
        }
    });
    Ok((found.await?, into))
}

/// A tar, or something that a tar may be packed in: gzip, bzip2, xz, zstd.
fn is_archive(head: &[u8]) -> bool {
    let packed: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    packed.iter().any(|magic| head.starts_with(magic)) || is_tar(head)
}

/// The checksum of a tar's first header.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let stated = std::str::from_utf8(&header[148..156]).ok();
    let stated = stated.and_then(|text| {
        u32::from_str_radix(text.trim_matches(|c: char| c == '\0' || c == ' '), 8).ok()
    });
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(place, byte)| match place {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    stated == Some(sum) && sum != 8 * u32::from(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_content() {
        let mut tar = [0; 512];
        tar[..4].copy_from_slice(b"file");
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_archive(&tar));
        tar[0] = b'F';
        assert!(!is_archive(&tar));
        assert!(is_archive(b"\x1f\x8b\x08\0"));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[0; 512]));
        assert!(!is_archive(&[b'#'; 512]));
    }
}
