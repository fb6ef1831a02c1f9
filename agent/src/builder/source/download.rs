//! An archive at an address, handed on while it comes: what `import` makes images of. Nothing of it is stored here.
//!
//! Bounded in length and in silence, and ended by dropping what reads it. Must not: look into the archive.

use std::io;
use std::time::Duration;

use agent_image::Proxies;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::client::{Question, STALL_LIMIT, ask, host_of};
use super::http::{parse, shown};
use crate::engine::{ByteReceiver, ByteSender, byte_pipe};
use crate::error::{Error, Result};

/// Longest archive.
const MAX_BYTES: u64 = 64 << 30;
/// Most of what a server says about a refusal.
const REASON_MAX: usize = 1024;
/// How often it is told how far the download is.
const NEWS: Duration = Duration::from_millis(100);

/// A download that has begun.
pub(crate) struct Download {
    /// The address, without what may be secret in it.
    pub(crate) from: String,
    /// All bytes there will be, where the server says so.
    pub(crate) total: Option<u64>,
    /// The bytes so far; closed at the end.
    pub(crate) received: watch::Receiver<u64>,
    pub(crate) archive: ByteReceiver,
}

/// Asks for an archive; an address of no kind is one of `http://`. Source: moby `daemon/server/router/image`,
/// `builder/remotecontext/remote.go` (`GetWithStatusError`).
///
/// # Errors
/// The address is malformed, the server cannot be asked or refuses, or it says that the archive is too long.
pub(crate) async fn download(
    address: &str,
    proxies: &Proxies,
    cancel: &CancellationToken,
) -> Result<Download> {
    let url = match address.contains("://") {
        true => parse(address)?,
        false => parse(&format!("http://{address}"))?,
    };
    let (_, answer) = ask(Question::get(url.clone()).through(proxies), cancel).await?;
    let (from, status) = (shown(&url), answer.status());
    if !status.is_success() {
        let reason = reason(answer.into_body()).await;
        let message = format!("failed to GET {from} with status {status}: {reason}");
        return Err(match status.as_u16() {
            404 => Error::not_found(message),
            400..500 => Error::invalid(message),
            _ => Error::Unavailable(message),
        });
    }
    let body = answer.into_body();
    let total = body.size_hint().exact();
    if body.size_hint().lower() > MAX_BYTES {
        return Err(too_long(&from));
    }
    let (sender, archive) = byte_pipe();
    let (news, received) = watch::channel(0);
    tokio::spawn(pump(body, url, sender, news, cancel.clone()));
    Ok(Download {
        from,
        total,
        received,
        archive,
    })
}

fn too_long(from: &str) -> Error {
    Error::invalid(format!("{from} is longer than {MAX_BYTES} bytes"))
}

/// The beginning of what a server says about its refusal.
async fn reason(mut body: Incoming) -> String {
    let mut text = Vec::new();
    while text.len() < REASON_MAX
        && let Ok(Some(Ok(frame))) = timeout(STALL_LIMIT, body.frame()).await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    text.truncate(REASON_MAX);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Hands on what comes; whoever reads sets the pace. Ends with the archive, an error, or the reader.
async fn pump(
    mut body: Incoming,
    url: Url,
    sender: ByteSender,
    news: watch::Sender<u64>,
    cancel: CancellationToken,
) {
    let mut length = 0;
    let mut told = Instant::now();
    loop {
        let frame = tokio::select! {
            frame = timeout(STALL_LIMIT, body.frame()) => frame,
            () = cancel.cancelled() => {
                let _ = sender.send(Err(io::Error::other("the download was canceled"))).await;
                return;
            }
        };
        let host = host_of(&url);
        let broken = match frame {
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                length += data.len() as u64;
                if length <= MAX_BYTES {
                    if !sender.send(Ok(data)).await {
                        return;
                    }
                    if told.elapsed() >= NEWS {
                        told = Instant::now();
                        news.send_replace(length);
                    }
                    continue;
                }
                too_long(&shown(&url)).to_string()
            }
            Ok(None) => {
                news.send_replace(length);
                return;
            }
            Ok(Some(Err(error))) => format!("the connection to {host} broke: {error}"),
            Err(_) => format!("{host} sent nothing for {} s", STALL_LIMIT.as_secs()),
        };
        let _ = sender.send(Err(io::Error::other(broken))).await;
        return;
    }
}
