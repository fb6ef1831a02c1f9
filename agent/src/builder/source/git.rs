//! Repositories: `ADD` of one, and contexts that are one. Nothing but what is needed of them is fetched: one commit,
//! without its history.
//!
//! ```text
//! resolve    a name ─▶ which commit: heads before tags, as git-checkout
//! checkout   fetch (depth 1) into <into>/.git or beside it ─▶ tree ─▶ submodules ─▶ subdirectory
//! ```
//!
//! `https://`, `http://` and `git://` are spoken here, by gitoxide; `ssh://` is refused, since no program is run. A token
//! comes from the client's secrets `GIT_AUTH_TOKEN` or `GIT_AUTH_HEADER` (with `.<host>` for one host alone) and goes to
//! the repository's own host only. The daemon's proxies are for `http://` and `https://`; `git://` goes directly. Nothing of the host's own git configuration counts. Source of the rules: buildkit
//! `source/git/source.go`.

mod transport;
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_build::plan::GitOp;
use agent_image::Proxies;
use base64::Engine as _;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::builder::Sessions;
use crate::builder::run::OutputSink;
use crate::builder::run::StreamKind;
use crate::engine::blocking;
use crate::error::{Error, Result};
use transport::Link;

/// The commit that a step means.
///
/// # Errors
/// The repository cannot be asked, or has no such name; the commit is not the one that the step insists on.
pub(crate) async fn resolve(
    op: &GitOp,
    proxies: &Proxies,
    sessions: &Sessions,
    cancel: &CancellationToken,
) -> Result<String> {
    if is_commit(&op.reference) {
        checked(op, &op.reference)?;
        return Ok(op.reference.to_ascii_lowercase());
    }
    let link = link(op, proxies, sessions, cancel).await?;
    let reference = op.reference.clone();
    let names = blocking(move || tree::names(&link)).await?;
    let commit = chosen(&names, &reference).ok_or_else(|| {
        let wanted = match reference.as_str() {
            "" => "HEAD",
            named => named,
        };
        Error::not_found(format!(
            "repository {} does not contain ref {wanted}",
            shown(&op.remote)
        ))
    })?;
    checked(op, &commit)?;
    Ok(commit)
}

/// Puts the files of a commit into an empty directory. The directory is let go of when the thread that writes into it has
/// ended, also when nobody waits for it any more.
///
/// # Errors
/// The repository cannot be asked or lacks what is wanted, or the host fails.
pub(crate) async fn checkout<D>(
    op: &GitOp,
    commit: &str,
    into: D,
    proxies: &Proxies,
    output: &OutputSink,
    sessions: &Sessions,
    cancel: &CancellationToken,
) -> Result<D>
where
    D: AsRef<Path> + Send + 'static,
{
    if op.keep_git_dir && !op.subdirectory.is_empty() {
        return Err(Error::invalid(
            "a subdirectory of a repository cannot keep the .git directory",
        ));
    }
    let link = link(op, proxies, sessions, cancel).await?;
    let wanted = tree::Wanted {
        commit: commit.to_owned(),
        subdirectory: op.subdirectory.clone(),
        keep_git_dir: op.keep_git_dir,
        submodules: op.submodules,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let watch = {
        let (stop, cancel) = (Arc::clone(&stop), cancel.child_token());
        async move {
            cancel.cancelled().await;
            stop.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
    };
    // What the thread does is stopped also when nobody waits for it any more.
    let guard = StopOnDrop(Arc::clone(&stop));
    let work = blocking(move || {
        tree::check_out(&link, &wanted, into.as_ref(), &stop)?;
        Ok(into)
    });
    let done = tokio::select! {
        done = work => done,
        () = watch => unreachable!("it waits for ever"),
    };
    drop(guard);
    let into = done?;
    output(
        StreamKind::Stdout,
        format!("{commit}\t{}\n", named(op)).as_bytes(),
    );
    Ok(into)
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How to reach a repository, with what the client has for it.
async fn link(
    op: &GitOp,
    proxies: &Proxies,
    sessions: &Sessions,
    cancel: &CancellationToken,
) -> Result<Link> {
    let url = address(&op.remote)?;
    let authorization = match url.scheme() {
        "http" | "https" => authorization(sessions, &url).await?,
        _ => None,
    };
    let (proxies, cancel) = (proxies.clone(), cancel.clone());
    Ok(Link::new(url, authorization, proxies, cancel))
}

/// The address of a repository, if it is of a kind that is spoken.
fn address(remote: &str) -> Result<Url> {
    let refused = |kind: &str| {
        Error::unsupported(format!(
            "{kind} for the repository {}: there is no ssh client in here; use its https:// address, with the secret \
             GIT_AUTH_TOKEN if it is private; ssh",
            shown(remote)
        ))
    };
    match Url::parse(remote) {
        Ok(url) if matches!(url.scheme(), "http" | "https" | "git") && url.has_host() => Ok(url),
        Ok(url) if url.scheme() == "ssh" => Err(refused("ssh://")),
        Ok(url) if url.has_host() => Err(Error::unsupported(format!(
            "{}:// for the repository {}",
            url.scheme(),
            shown(remote)
        ))),
        _ if remote.contains('@') && remote.contains(':') => Err(refused("user@host:path")),
        _ => Err(Error::invalid(format!(
            "{:?} is not the address of a repository",
            shown(remote)
        ))),
    }
}

/// The value of `Authorization`, from the first secret of the client's that there is.
async fn authorization(sessions: &Sessions, url: &Url) -> Result<Option<HeaderValue>> {
    let host = url.host_str().unwrap_or_default();
    for (name, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
        for id in [format!("{name}.{host}"), name.to_owned()] {
            let secret = sessions.secret(&id).await;
            let secret = secret.map_err(|error| Error::Unavailable(error.to_string()))?;
            let Some(secret) = secret else { continue };
            let secret = secret.trim_ascii();
            let value = match is_token {
                true => {
                    let pair = [b"x-access-token:", secret].concat();
                    let text = base64::engine::general_purpose::STANDARD.encode(pair);
                    HeaderValue::try_from(format!("basic {text}"))
                }
                false => HeaderValue::from_bytes(secret),
            };
            let mut value = value.map_err(|_| {
                Error::invalid(format!("the secret {id} cannot be the value of a header"))
            })?;
            value.set_sensitive(true);
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn is_commit(reference: &str) -> bool {
    reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn checked(op: &GitOp, commit: &str) -> Result<()> {
    match &op.checksum {
        Some(wanted) if !commit.starts_with(&wanted.to_ascii_lowercase()) => Err(Error::invalid(
            format!("expected checksum to match {wanted}, got {commit}"),
        )),
        _ => Ok(()),
    }
}

/// What a name means: exactly that name, then a head, then a tag.
fn chosen(names: &[tree::Name], reference: &str) -> Option<String> {
    let find = |full: &str| {
        let name = names.iter().find(|name| name.full == full)?;
        Some(name.commit.clone())
    };
    if reference.is_empty() || reference == "HEAD" {
        return find("HEAD");
    }
    let below = |prefix: &str| {
        let short = reference.strip_prefix(prefix).unwrap_or(reference);
        find(&format!("{prefix}{short}"))
    };
    below("refs/")
        .or_else(|| below("refs/heads/"))
        .or_else(|| below("refs/tags/"))
}

fn named(op: &GitOp) -> &str {
    match op.reference.as_str() {
        "" => "HEAD",
        reference => reference,
    }
}

/// An address without what may be secret in it.
fn shown(remote: &str) -> String {
    match Url::parse(remote) {
        Ok(url) => super::http::shown(&url),
        Err(_) => remote.to_owned(),
    }
}
