//! `--cache-from` and `--cache-to`. Source: buildx `util/buildflags/cache.go`, BuildKit `cache/remotecache`.

use super::super::Offers;
use super::super::OutputSink;
use super::{SpecError, bad, csv, output, parse_bool};
use crate::types::build::{CacheExport, CacheImport, CacheMode, LayerCompression};
use indexmap::IndexMap;
use std::path::PathBuf;

/// A cache to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// In a registry.
    Registry {
        /// Its name.
        reference: String,
    },
    /// An OCI layout of the client's.
    Local {
        /// The directory.
        src: PathBuf,
        /// Tag within it.
        tag: String,
        /// Digest within it, or empty.
        digest: String,
    },
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDestination {
    /// Into the image.
    Inline,
    /// To a registry.
    Registry {
        /// Its name.
        reference: String,
        /// How.
        how: CacheWriting,
    },
    /// An OCI layout of the client's.
    Local {
        /// The directory.
        dest: PathBuf,
        /// Tag within it.
        tag: String,
        /// How.
        how: CacheWriting,
    },
}

/// How a cache is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheWriting {
    mode: CacheMode,
    compression: LayerCompression,
    ignore_error: bool,
}

const SUPPORTED: &str = "use registry, local or inline";

impl CacheSource {
    /// Reads `type=registry,ref=…`, `type=local,src=…` or a name.
    ///
    /// # Errors
    /// It is malformed, or an attribute is not known or not supported.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        attributes(text)
            .and_then(Self::read)
            .map_err(|reason| bad("cache-from", text, reason))
    }

    /// Reads attributes that are apart already, as in bake files.
    ///
    /// # Errors
    /// As [`CacheSource::parse`].
    pub fn from_attributes(attributes: IndexMap<String, String>) -> Result<Self, SpecError> {
        let shown = shown(&attributes);
        Self::read(attributes).map_err(|reason| bad("cache-from", &shown, reason))
    }

    fn read(mut attributes: IndexMap<String, String>) -> Result<Self, String> {
        let kind = attributes.shift_remove("type").unwrap_or_default();
        let mut take = |name: &str| attributes.shift_remove(name).unwrap_or_default();
        let source = match kind.as_str() {
            "registry" => Self::Registry {
                reference: required("ref", take("ref"))?,
            },
            "local" => Self::Local {
                src: required("src", take("src"))?.into(),
                tag: Some(take("tag"))
                    .filter(|tag| !tag.is_empty())
                    .unwrap_or_else(|| "latest".to_owned()),
                digest: take("digest"),
            },
            other => return Err(format!("type {other:?} is not supported: {SUPPORTED}")),
        };
        nothing_left(&attributes)?;
        Ok(source)
    }

    /// The request's form; `None` for a directory that is not there (yet).
    pub(super) fn request(self, index: usize, offers: &mut Offers) -> Option<CacheImport> {
        match self {
            Self::Registry { reference } => Some(CacheImport::Registry { reference }),
            Self::Local { src, tag, digest } => {
                if !src.join("index.json").exists() {
                    tracing::warn!(path = %src.display(), "local cache import not found");
                    return None;
                }
                let id = index.to_string();
                offers.cache(&id, src);
                Some(CacheImport::Local { id, tag, digest })
            }
        }
    }
}

impl CacheDestination {
    /// Reads `type=inline`, `type=registry,ref=…,mode=max`, `type=local,dest=…` or a name.
    ///
    /// # Errors
    /// It is malformed, or an attribute is not known or not supported.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        attributes(text)
            .and_then(Self::read)
            .map_err(|reason| bad("cache-to", text, reason))
    }

    /// Reads attributes that are apart already, as in bake files.
    ///
    /// # Errors
    /// As [`CacheDestination::parse`].
    pub fn from_attributes(attributes: IndexMap<String, String>) -> Result<Self, SpecError> {
        let shown = shown(&attributes);
        Self::read(attributes).map_err(|reason| bad("cache-to", &shown, reason))
    }

    fn read(mut attributes: IndexMap<String, String>) -> Result<Self, String> {
        let kind = attributes.shift_remove("type").unwrap_or_default();
        let destination = match kind.as_str() {
            "inline" => Self::Inline,
            "registry" => Self::Registry {
                reference: required("ref", attributes.shift_remove("ref").unwrap_or_default())?,
                how: writing(&mut attributes)?,
            },
            "local" => Self::Local {
                dest: required("dest", attributes.shift_remove("dest").unwrap_or_default())?.into(),
                tag: attributes
                    .shift_remove("tag")
                    .unwrap_or_else(|| "latest".to_owned()),
                how: writing(&mut attributes)?,
            },
            other => return Err(format!("type {other:?} is not supported: {SUPPORTED}")),
        };
        nothing_left(&attributes)?;
        Ok(destination)
    }

    pub(super) fn request(self, index: usize, offers: &mut Offers) -> CacheExport {
        match self {
            Self::Inline => CacheExport::Inline,
            Self::Registry { reference, how } => CacheExport::Registry {
                reference,
                mode: how.mode,
                compression: how.compression,
                ignore_error: how.ignore_error,
            },
            Self::Local { dest, tag, how } => {
                let id = format!("cache-{index}");
                offers.output(&id, OutputSink::Directory(dest));
                CacheExport::Local {
                    id,
                    tag,
                    mode: how.mode,
                    compression: how.compression,
                    ignore_error: how.ignore_error,
                }
            }
        }
    }
}

/// The attributes of a text; a bare name is a registry's.
fn attributes(text: &str) -> Result<IndexMap<String, String>, String> {
    let fields = csv::fields(text)?;
    if fields.iter().all(|(_, value)| value.is_none()) {
        let registry = |reference: &str| {
            IndexMap::from([
                ("type".to_owned(), "registry".to_owned()),
                ("ref".to_owned(), reference.to_owned()),
            ])
        };
        return match &fields[..] {
            [(name, None)] => Ok(registry(name)),
            _ => Err("several names: give the option once for each".to_owned()),
        };
    }
    let pair = |(key, value): (String, Option<String>)| match value {
        Some(value) => Ok((key, value)),
        None => Err(format!("{key:?} has no value: write {key}=…")),
    };
    fields.into_iter().map(pair).collect()
}

fn writing(attributes: &mut IndexMap<String, String>) -> Result<CacheWriting, String> {
    let mut take = |name: &str| attributes.shift_remove(name);
    let flag = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_bool(&text)
            .map(Some)
            .ok_or_else(|| format!("{name}={text} is neither true nor false")),
    };
    let mode = match take("mode").as_deref() {
        None | Some("" | "min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(format!("mode={other}: use min or max")),
    };
    // What is written is always an OCI image manifest.
    for name in ["image-manifest", "oci-mediatypes"] {
        if flag(name, take(name))? == Some(false) {
            return Err(format!("{name}=false is not supported: leave it out"));
        }
    }
    let level = match take("compression-level") {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| format!("compression-level={text} is not a number"))?,
        ),
    };
    Ok(CacheWriting {
        mode,
        compression: LayerCompression {
            kind: take("compression")
                .map(|text| output::compression(&text))
                .transpose()?,
            level,
            force: flag("force-compression", take("force-compression"))?.unwrap_or(false),
        },
        ignore_error: flag("ignore-error", take("ignore-error"))?.unwrap_or(false),
    })
}

fn required(name: &str, value: String) -> Result<String, String> {
    if value.is_empty() {
        return Err(format!("{name} is required"));
    }
    Ok(value)
}

fn nothing_left(attributes: &IndexMap<String, String>) -> Result<(), String> {
    match attributes.first() {
        Some((key, _)) => Err(format!("attribute {key:?} is not supported")),
        None => Ok(()),
    }
}

fn shown(attributes: &IndexMap<String, String>) -> String {
    let pairs = attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}
