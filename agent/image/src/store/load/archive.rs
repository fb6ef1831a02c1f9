//! The members of an archive, each dealt with while it streams by.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Pins;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::inflate::{Compression, Inflate};
use crate::layers::{Unfinished, UnpackError};
use crate::limits::Limits;
use crate::progress::{ProgressMessage, ProgressSink};
use crate::store::{Result, Store};
use crate::tar_stream::{Entry, Kind, TarError, TarReader, looks_like_tar};

/// How much of a member is looked at to tell what it is.
const HEAD: usize = 512;
/// Links from member to member that are followed.
const LINKS_MAX: usize = 8;
/// Least time between two progress messages of a layer (Docker's).
const PROGRESS_MS: u64 = 100;

pub(super) struct Archive {
    members: HashMap<String, Member>,
    unfinished: Vec<Option<Unfinished>>,
}

enum Member {
    Json(Vec<u8>),
    Layer {
        at: LayerAt,
        diff_id: Digest,
    },
    Link(String),
    /// It was looked at and is bad.
    Bad(ImageError),
    /// Neither a layer nor JSON, or too big to keep.
    Other(&'static str),
}

/// Where a layer of the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerAt {
    /// Unpacked by this load; the number is for [`Archive::take`].
    Unfinished(usize),
    /// In the store.
    Known(Digest),
}

impl Archive {
    /// Reads `input` to its end.
    pub(super) fn read(
        store: &Store,
        pins: &Pins<'_>,
        input: &mut (dyn Read + Send),
        progress: ProgressSink<'_>,
    ) -> Result<Self> {
        let mut head = [0u8; HEAD];
        let len = fill(input, &mut head).map_err(ImageError::Input)?;
        let compression = Compression::detect(&head[..len]);
        let source = io::Cursor::new(&head[..len]).chain(input);
        let limits = Limits {
            entries: store.limits.members,
            ..store.limits.clone()
        };
        let source =
            BufReader::with_capacity(256 << 10, Inflate::new(source, compression, &limits));
        let mut tar = TarReader::new(source, (), limits);
        let mut archive = Self {
            members: HashMap::new(),
            unfinished: Vec::new(),
        };
        let mut json_left = store.limits.json_total_bytes;
        while let Some(entry) = tar.next_entry().map_err(outer)? {
            let Some(name) = member_name(&entry.path) else {
                continue;
            };
            let member = match entry.kind {
                Kind::File => {
                    archive.file(store, pins, &name, &mut tar, &mut json_left, progress)?
                }
                // What its name promises is looked at where the bytes are.
                Kind::Symlink | Kind::HardLink if promised(&name).is_some() => Member::Bad(
                    ImageError::Archive(format!("{name} is a link: blobs are regular files")),
                ),
                Kind::Symlink => match link_target(&name, &entry) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::HardLink => match member_name(&entry.link) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            archive.members.insert(name, member);
        }
        tar.finish().map_err(outer)?;
        Ok(archive)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A JSON document.
    pub(super) fn json(&self, name: &str) -> Result<&[u8]> {
        match self.member(name)? {
            Member::Json(bytes) => Ok(bytes),
            Member::Layer { .. } => {
                Err(ImageError::Archive(format!("{name} is a layer, not JSON")))
            }
            other => Err(other.why(name)),
        }
    }

    /// A layer: where it is, and its diff id.
    pub(super) fn layer(&self, name: &str) -> Result<(LayerAt, Digest)> {
        match self.member(name)? {
            Member::Layer { at, diff_id } => Ok((*at, *diff_id)),
            Member::Json(_) => Err(ImageError::Archive(format!("{name} is not a layer"))),
            other => Err(other.why(name)),
        }
    }

    /// Hands out an unpacked layer. Each number once.
    pub(super) fn take(&mut self, number: usize) -> Unfinished {
        self.unfinished[number]
            .take()
            .expect("the caller takes each layer once")
    }

    fn member(&self, name: &str) -> Result<&Member> {
        let cleaned = member_name(name.as_bytes());
        let mut name_now = cleaned.as_deref().unwrap_or(name);
        for _ in 0..LINKS_MAX {
            match self.members.get(name_now) {
                Some(Member::Link(target)) => name_now = target,
                Some(member) => return Ok(member),
                None => break,
            }
        }
        Err(ImageError::Archive(format!("{name} is missing")))
    }

    /// A regular file: a layer is unpacked, a JSON document kept, anything else passed over.
    fn file<R: BufRead + Send>(
        &mut self,
        store: &Store,
        pins: &Pins<'_>,
        name: &str,
        tar: &mut TarReader<R, ()>,
        json_left: &mut u64,
        progress: ProgressSink<'_>,
    ) -> Result<Member> {
        let size = tar.remaining();
        let promised = promised(name);
        let mut head = [0u8; HEAD];
        let len = fill(&mut Payload(tar), &mut head).map_err(ImageError::Input)?;
        let head = &head[..len];
        let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
        let json = matches!(first, Some(b'{' | b'['))
            || matches!(name, "manifest.json" | "index.json" | "repositories");
        if json {
            if size > store.limits.json_bytes {
                return Ok(Member::Other("is too large for a JSON document"));
            }
            *json_left = json_left.checked_sub(size).ok_or_else(|| {
                ImageError::Archive(format!(
                    "its JSON documents together are larger than {} bytes",
                    store.limits.json_total_bytes
                ))
            })?;
            let mut bytes = head.to_vec();
            Payload(tar)
                .read_to_end(&mut bytes)
                .map_err(ImageError::Input)?;
            return Ok(match promised {
                Some(expected) if Digest::of(&bytes) != expected => {
                    Member::wrong(name, expected, Digest::of(&bytes))
                }
                _ => Member::Json(bytes),
            });
        }
        let compression = Compression::detect(head);
        let is_layer = len == 0 || compression != Compression::None || looks_like_tar(head);
        if !is_layer {
            return Ok(Member::Other("is neither a layer nor JSON"));
        }
        if let Some(diff_id) = promised.and_then(|digest| pins.find(&digest)) {
            let at = LayerAt::Known(diff_id);
            return Ok(Member::Layer { at, diff_id });
        }
        let report = Report::new(name, size, progress);
        match store
            .layers
            .ingest(head, &mut Payload(tar), &|count| report.at(count))
        {
            // The archive itself is broken, not just this layer.
            Err(UnpackError::Tar(TarError::Read(error))) if is_outer(&error) => {
                Err(ImageError::Input(error))
            }
            Err(source) => {
                let layer = name.to_owned();
                let error = ImageError::Layer { layer, source };
                if error.class() == crate::error::ErrorClass::System {
                    return Err(error);
                }
                Ok(Member::Bad(error))
            }
            Ok((_, actual)) if promised.is_some_and(|expected| expected != actual) => {
                Ok(Member::wrong(name, promised.unwrap_or(actual), actual))
            }
            Ok((unfinished, _)) => {
                report.done();
                let diff_id = unfinished.layer.diff_id;
                let at = match pins.find(&diff_id) {
                    Some(known) => LayerAt::Known(known),
                    None => {
                        self.unfinished.push(Some(unfinished));
                        LayerAt::Unfinished(self.unfinished.len() - 1)
                    }
                };
                Ok(Member::Layer { at, diff_id })
            }
        }
    }
}

/// The digest that a blob of an OCI layout has by its name.
fn promised(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("blobs/sha256/")?;
    Digest::from_hex(hex).ok()
}

impl Member {
    fn wrong(name: &str, expected: Digest, actual: Digest) -> Self {
        Self::Bad(ImageError::WrongDigest {
            what: name.to_owned(),
            expected,
            actual,
        })
    }

    /// Why this member cannot be used.
    fn why(&self, name: &str) -> ImageError {
        match self {
            Self::Other(what) => ImageError::Archive(format!("{name} {what}")),
            // Errors are not copied: the text carries all there is to say.
            Self::Bad(ImageError::WrongDigest {
                what,
                expected,
                actual,
            }) => ImageError::WrongDigest {
                what: what.clone(),
                expected: *expected,
                actual: *actual,
            },
            Self::Bad(error) => ImageError::Archive(error.to_string()),
            Self::Json(_) | Self::Layer { .. } | Self::Link(_) => {
                ImageError::Archive(format!("{name} is not what it should be"))
            }
        }
    }
}

/// The payload of the current member.
struct Payload<'a, R>(&'a mut TarReader<R, ()>);

impl<R: BufRead> Read for Payload<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.fill_payload().map_err(|error| match error {
            TarError::Read(error) => io::Error::new(error.kind(), Outer(error.to_string())),
            error => io::Error::other(Outer(error.to_string())),
        })?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.0.consume_payload(len);
        Ok(len)
    }
}

/// Marks an error of the archive around a layer, on its way through the layer's reader.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Outer(String);

fn is_outer(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Outer>())
}

fn outer(error: TarError) -> ImageError {
    match error {
        TarError::Read(error) => ImageError::Input(error),
        other => ImageError::Archive(other.to_string()),
    }
}

/// Progress of one layer, at most ten times a second.
struct Report<'a> {
    id: String,
    total: u64,
    started: Instant,
    /// Milliseconds after `started` of the last message.
    last: AtomicU64,
    sink: ProgressSink<'a>,
}

impl<'a> Report<'a> {
    fn new(name: &str, total: u64, sink: ProgressSink<'a>) -> Self {
        // `blobs/sha256/<digest>`, or `<layer id>/layer.tar`.
        let name = name.strip_prefix("blobs/sha256/").unwrap_or(name);
        let id = name.split('/').next().unwrap_or(name);
        Self {
            id: id.chars().take(12).collect(),
            total,
            started: Instant::now(),
            last: AtomicU64::new(0),
            sink,
        }
    }

    fn at(&self, current: u64) {
        let now = self.started.elapsed().as_millis() as u64;
        if now >= self.last.load(Ordering::Relaxed) + PROGRESS_MS {
            self.last.store(now, Ordering::Relaxed);
            self.send(current);
        }
    }

    fn done(&self) {
        self.send(self.total);
    }

    fn send(&self, current: u64) {
        (self.sink)(ProgressMessage::layer(
            &self.id,
            "Loading layer",
            current,
            self.total,
        ));
    }
}

/// Reads until `buffer` is full or the stream ends.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match source.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A member's name without `.`, `..` and doubled slashes; names are looked up, never opened.
fn member_name(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Old `docker save` wrote a layer that occurs twice as a symbolic link to the other directory.
fn link_target(name: &str, entry: &Entry) -> Option<String> {
    let target = std::str::from_utf8(&entry.link).ok()?;
    if target.starts_with('/') {
        return member_name(target.as_bytes());
    }
    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
    member_name(format!("{parent}/{target}").as_bytes())
}
