//! `ADD` of an address: one file, downloaded once as long as its server says that it has not changed.
//!
//! ```text
//! <root>/build/http/<sha256 of the address>.json   what the server said about the file last: tag, time, digest; not the
//!                                                  address, which may have credentials in it
//! <root>/build/work/http-…                         a download, until it is placed or not wanted
//! ```
//!
//! The file has mode 0600, belongs to root, and is as old as its server says (1970 where it says nothing). What was packed for the
//! way is unpacked (`Content-Encoding: gzip`), and the digest is of what was in it. Source:
//! buildkit `source/http/source.go`.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agent_build::plan::HttpOp;
use agent_build::redacted;
use agent_image::{Digest, Proxies};
use flate2::write::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::client::{FetchError, Question, STALL_LIMIT, ask, host_of};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// Longest file.
const MAX_BYTES: u64 = 64 << 30;
/// Bytes that are unpacked at once: some thousand times as many may come of them.
const PIECE: usize = 8 << 10;
/// Longest record that is read.
const RECORD_MAX: u64 = 64 << 10;
/// Files of which it is remembered what their servers said.
const RECORDS_MAX: usize = 2000;

/// What is at an address now.
pub(crate) struct HttpState {
    /// Digest of the content.
    pub(crate) digest: Digest,
    /// Seconds since 1970.
    modified: i64,
    /// The content, unless it is not here: the server said that it is what it was.
    content: Mutex<Option<NamedTempFile>>,
}

/// What a server said about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    etag: Option<String>,
    last_modified: Option<String>,
    digest: String,
}

/// A file that was downloaded.
pub(super) struct Download {
    pub(super) file: NamedTempFile,
    digest: Digest,
    headers: HeaderMap,
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Address(_) | FetchError::Redirects(_) => Self::invalid(error.to_string()),
            FetchError::Unreachable { .. } | FetchError::Silent { .. } | FetchError::Cancelled => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

/// Finds out what is at the address, which may take downloading it.
///
/// # Errors
/// The server cannot be asked or refuses, or the content is not the one that the step wants.
pub(crate) async fn resolve(
    engine: &Engine,
    op: &HttpOp,
    cancel: &CancellationToken,
) -> Result<HttpState> {
    resolve_in(&Way::of(engine), op, cancel).await
}

/// Puts the file into a directory.
///
/// # Errors
/// It has to be downloaded again and is not the same any more, or the host fails.
pub(crate) async fn place(
    engine: &Engine,
    op: &HttpOp,
    state: &HttpState,
    into: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    place_in(&Way::of(engine), op, state, into, cancel).await
}

/// Where files are kept, and how servers are reached.
pub(super) struct Way {
    /// `<root>/build`
    pub(super) root: PathBuf,
    pub(super) proxies: Proxies,
}

impl Way {
    fn of(engine: &Engine) -> Self {
        Self {
            root: root(engine),
            proxies: engine.shared().options.registries.proxies.clone(),
        }
    }
}

/// `<root>/build`
pub(super) fn root(engine: &Engine) -> PathBuf {
    engine.shared().options.data_root.join("build")
}

pub(super) async fn resolve_in(
    way: &Way,
    op: &HttpOp,
    cancel: &CancellationToken,
) -> Result<HttpState> {
    let url = parse(&op.url)?;
    let record = record_path(&way.root, &op.url);
    let remembered = {
        let record = record.clone();
        blocking(move || Ok(read_record(&record))).await?
    };
    let mut question = Question::get(url.clone()).through(&way.proxies);
    if let Some(known) = &remembered {
        condition(&mut question.headers, IF_NONE_MATCH, known.etag.as_deref());
        condition(
            &mut question.headers,
            IF_MODIFIED_SINCE,
            known.last_modified.as_deref(),
        );
    }
    let (_, answer) = ask(question, cancel).await?;
    if answer.status() == StatusCode::NOT_MODIFIED
        && let Some(known) = remembered
        && let Ok(digest) = known.digest.parse()
    {
        checked(op, &digest)?;
        return Ok(HttpState {
            digest,
            modified: modified(known.last_modified.as_deref()),
            content: Mutex::new(None),
        });
    }
    let download = receive(&way.root, &url, answer, cancel).await?;
    checked(op, &download.digest)?;
    let text = |name| {
        let value: Option<&HeaderValue> = download.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let said = Remembered {
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
        digest: download.digest.to_string(),
    };
    let state = HttpState {
        digest: download.digest,
        modified: modified(said.last_modified.as_deref()),
        content: Mutex::new(Some(download.file)),
    };
    if said.etag.is_some() || said.last_modified.is_some() {
        let written = blocking(move || write_record(&record, &said)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "it is not remembered what a server said about a file");
        }
    }
    Ok(state)
}

pub(super) async fn place_in(
    way: &Way,
    op: &HttpOp,
    state: &HttpState,
    into: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    let name = Path::new(&op.file_name);
    if name.file_name() != Some(name.as_os_str()) {
        return Err(Error::invalid(format!(
            "{:?} is not the name of a file",
            op.file_name
        )));
    }
    let here = state.content.lock().take();
    let file = match here {
        Some(file) => file,
        None => {
            let url = parse(&op.url)?;
            let question = Question::get(url.clone()).through(&way.proxies);
            let (_, answer) = ask(question, cancel).await?;
            let download = receive(&way.root, &url, answer, cancel).await?;
            if download.digest != state.digest {
                return Err(Error::Unavailable(format!(
                    "{} has changed since the build began: build again",
                    shown(&url)
                )));
            }
            download.file
        }
    };
    let (target, modified) = (into.join(name), state.modified);
    blocking(move || {
        let placed = || -> io::Result<()> {
            let kept = file.persist(&target).map_err(|error| error.error)?;
            kept.set_permissions(fs::Permissions::from_mode(0o600))?;
            let seconds = Duration::from_secs(u64::try_from(modified).unwrap_or(0));
            kept.set_modified(SystemTime::UNIX_EPOCH + seconds)
        };
        placed().map_err(Error::io("write", &target))
    })
    .await
}

/// Downloads what an answer brings into a file that nobody knows yet.
pub(super) async fn receive(
    root: &Path,
    url: &Url,
    answer: http::Response<Incoming>,
    cancel: &CancellationToken,
) -> Result<Download> {
    if !answer.status().is_success() {
        return Err(Error::not_found(format!(
            "{}: invalid response status {}",
            shown(url),
            answer.status().as_u16()
        )));
    }
    let too_long = || Error::invalid(format!("{} is longer than {MAX_BYTES} bytes", shown(url)));
    let (head, mut body) = answer.into_parts();
    let mut content = Content::of(&head.headers, url)?;
    if body.size_hint().lower() > MAX_BYTES {
        return Err(too_long());
    }
    let directory = root.join("work");
    let (file, writer) = blocking(move || new_file(&directory)).await?;
    let mut writer =
        tokio::io::BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(writer));
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut length = 0u64;
    loop {
        let frame = tokio::time::timeout(STALL_LIMIT, body.frame());
        let frame = tokio::select! {
            frame = frame => frame.map_err(|_| FetchError::Silent {
                host: host_of(url),
                limit: STALL_LIMIT,
            })?,
            () = cancel.cancelled() => return Err(FetchError::Cancelled.into()),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Error::Unavailable(format!("the connection to {} broke: {error}", host_of(url)))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        for piece in data.chunks(PIECE) {
            let piece = content.decoded(piece, url)?;
            length += piece.len() as u64;
            if length > MAX_BYTES {
                return Err(too_long());
            }
            hash.update(&piece);
            let written = writer.write_all(&piece).await;
            written.map_err(Error::io("write", file.path()))?;
        }
    }
    let last = content.end(url)?;
    hash.update(&last);
    let written = writer.write_all(&last).await;
    written.map_err(Error::io("write", file.path()))?;
    writer
        .flush()
        .await
        .map_err(Error::io("write", file.path()))?;
    Ok(Download {
        file,
        digest: Digest::from_hex(&hex::encode(hash.finish().as_ref()))
            .expect("a sum of that length is a digest"),
        headers: head.headers,
    })
}

/// What an answer's body is to be read as. Some servers pack files unasked, and what is meant is the file.
enum Content {
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Content {
    fn of(headers: &HeaderMap, url: &Url) -> Result<Self> {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Self::Plain),
            Some(b"gzip" | b"x-gzip") => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            Some(other) => Err(Error::unsupported(format!(
                "the encoding {:?} in which the server sends {}",
                String::from_utf8_lossy(other),
                shown(url)
            ))),
        }
    }

    /// What a piece of the body, of at most [`PIECE`] bytes, brings.
    fn decoded<'a>(&mut self, piece: &'a [u8], url: &Url) -> Result<Cow<'a, [u8]>> {
        let Self::Gzip(decoder) = self else {
            return Ok(Cow::Borrowed(piece));
        };
        let decoded = io::Write::write_all(decoder, piece);
        decoded.map_err(|error| damaged(url, &error))?;
        Ok(Cow::Owned(std::mem::take(decoder.get_mut())))
    }

    /// What is left at the end of the body; it was whole.
    fn end(self, url: &Url) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Gzip(decoder) => decoder.finish().map_err(|error| damaged(url, &error)),
        }
    }
}

fn damaged(url: &Url, error: &io::Error) -> Error {
    Error::Unavailable(format!("cannot unpack what {} sent: {error}", host_of(url)))
}

fn new_file(directory: &Path) -> Result<(NamedTempFile, fs::File)> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let make = || -> io::Result<_> {
        let file = tempfile::Builder::new()
            .prefix("http-")
            .tempfile_in(directory)?;
        let writer = file.reopen()?;
        Ok((file, writer))
    };
    make().map_err(Error::io("make a file in", directory))
}

/// The content is the one that was asked for.
fn checked(op: &HttpOp, digest: &Digest) -> Result<()> {
    let Some(wanted) = &op.checksum else {
        return Ok(());
    };
    let actual = digest.to_string();
    match *wanted == actual {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "digest mismatch {actual}: {wanted}"
        ))),
    }
}

pub(super) fn parse(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| {
        Error::invalid(format!(
            "the address {:?} is malformed: {error}",
            redacted(text)
        ))
    })
}

/// An address without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_query(None);
    plain.to_string()
}

fn condition(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

/// `Last-Modified` in seconds since 1970; what is missing or malformed is 1970.
fn modified(text: Option<&str>) -> i64 {
    let format = "%a, %d %b %Y %H:%M:%S GMT";
    let parsed = text.and_then(|text| jiff::fmt::strtime::parse(format, text.trim()).ok());
    let utc = parsed.and_then(|parsed| parsed.to_datetime().ok());
    let zoned = utc.and_then(|utc| utc.to_zoned(jiff::tz::TimeZone::UTC).ok());
    zoned.map_or(0, |zoned| zoned.timestamp().as_second())
}

fn record_path(root: &Path, url: &str) -> PathBuf {
    let name = Digest::of(url.as_bytes()).hex();
    root.join("http").join(format!("{name}.json"))
}

fn read_record(path: &Path) -> Option<Remembered> {
    let file = fs::File::open(path).ok()?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, RECORD_MAX), &mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_record(path: &Path, record: &Remembered) -> Result<()> {
    let directory = path.parent().expect("it was joined to a directory");
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    // Forgetting costs a download: no need to choose well.
    let there: Vec<_> = fs::read_dir(directory)
        .map_err(Error::io("read", directory))?
        .flatten()
        .collect();
    for entry in there.iter().skip(RECORDS_MAX) {
        let _ = fs::remove_file(entry.path());
    }
    let text = serde_json::to_vec(record).expect("a record has only fields that JSON can hold");
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::io("write", path))
}
