//! `--output`. Source: buildx `util/buildflags/export.go`, `build/opt.go:CreateExports`.

use super::super::{Offers, OutputSink};
use super::{SpecError, bad, csv, parse_bool};
use crate::types::build::{ArchiveOutput, CompressionKind, ImageOutput, LayerCompression, Output};
use indexmap::IndexMap;
use std::path::PathBuf;

/// What becomes of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// The kind, and where it goes.
    pub target: OutputTarget,
    /// Annotations it adds.
    pub annotations: IndexMap<String, String>,
}

/// Kinds of outputs.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputTarget {
    /// The daemon's store, a registry or both.
    Image(ImageOutput),
    /// Files.
    Local {
        /// The directory.
        dest: PathBuf,
        /// A directory for each platform.
        platform_split: Option<bool>,
    },
    /// Files as a tar.
    Tar {
        /// File or standard output.
        dest: OutputSink,
        /// A directory for each platform.
        platform_split: Option<bool>,
    },
    /// An OCI layout.
    Oci {
        /// A tar, or a directory it is unpacked into.
        dest: OutputSink,
        /// How.
        archive: ArchiveOutput,
    },
    /// What `docker save` writes.
    Docker {
        /// A tar, or a directory it is unpacked into.
        dest: OutputSink,
        /// How.
        archive: ArchiveOutput,
    },
    /// Nothing.
    CacheOnly,
}

impl OutputSpec {
    /// `type=docker` without a destination: the daemon's store.
    #[must_use]
    pub fn store() -> Self {
        Self::from(OutputTarget::Image(ImageOutput::default()))
    }

    /// `type=registry`: the store and the registry.
    #[must_use]
    pub fn registry() -> Self {
        Self::from(OutputTarget::Image(ImageOutput {
            push: true,
            ..ImageOutput::default()
        }))
    }

    /// Nothing but the cache.
    #[must_use]
    pub fn cache_only() -> Self {
        Self::from(OutputTarget::CacheOnly)
    }

    /// Whether it is written to standard output, which then can hold nothing else.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        match &self.target {
            OutputTarget::Tar { dest, .. }
            | OutputTarget::Oci { dest, .. }
            | OutputTarget::Docker { dest, .. } => *dest == OutputSink::Stdout,
            _ => false,
        }
    }

    /// Reads `type=local,dest=path`, `path` or `-`.
    ///
    /// # Errors
    /// It is malformed, or an attribute is not known or not supported.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fail = |reason: String| bad("output", text, reason);
        let fields = csv::fields(text).map_err(fail)?;
        if let [(path, None)] = &fields[..] {
            return Ok(Self::from(match path.as_str() {
                "-" => OutputTarget::Tar {
                    dest: OutputSink::Stdout,
                    platform_split: None,
                },
                path => OutputTarget::Local {
                    dest: path.into(),
                    platform_split: None,
                },
            }));
        }
        let mut attributes = Attributes(IndexMap::new());
        for (key, value) in fields {
            let value =
                value.ok_or_else(|| fail(format!("{key:?} has no value: write {key}=…")))?;
            attributes.0.insert(key, value);
        }
        attributes.read().map_err(fail)
    }

    /// Reads attributes that are apart already, as in bake files.
    ///
    /// # Errors
    /// As [`OutputSpec::parse`].
    pub fn from_attributes(attributes: IndexMap<String, String>) -> Result<Self, SpecError> {
        let shown = attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        Attributes(attributes)
            .read()
            .map_err(|reason| bad("output", &shown, reason))
    }

    /// The request's form; where it goes becomes an offer.
    pub(super) fn request(
        self,
        index: usize,
        annotations: &mut IndexMap<String, String>,
        offers: &mut Offers,
    ) -> Output {
        annotations.extend(self.annotations);
        let id = index.to_string();
        let archive = |archive| ArchiveOutput {
            id: id.clone(),
            ..archive
        };
        let (output, sink) = match self.target {
            OutputTarget::Image(image) => return Output::Image(image),
            OutputTarget::CacheOnly => return Output::CacheOnly,
            OutputTarget::Local {
                dest,
                platform_split,
            } => {
                let id = id.clone();
                let output = Output::Local { id, platform_split };
                (output, OutputSink::Directory(dest))
            }
            OutputTarget::Tar {
                dest,
                platform_split,
            } => {
                let id = id.clone();
                (Output::Tar { id, platform_split }, dest)
            }
            OutputTarget::Oci { dest, archive: how } => (Output::Oci(archive(how)), dest),
            OutputTarget::Docker { dest, archive: how } => (Output::Docker(archive(how)), dest),
        };
        offers.output(&id, sink);
        output
    }
}

impl From<OutputTarget> for OutputSpec {
    fn from(target: OutputTarget) -> Self {
        Self {
            target,
            annotations: IndexMap::new(),
        }
    }
}

/// Attributes that are still to be understood; what is left at the end is not known.
struct Attributes(IndexMap<String, String>);

impl Attributes {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.shift_remove(name).filter(|value| !value.is_empty())
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match parse_bool(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("{name}={text} is neither true nor false")),
        }
    }

    fn read(mut self) -> Result<OutputSpec, String> {
        let kind = self.take("type").ok_or("type is required for output")?;
        let dest = self.take("dest");
        let mut annotations = IndexMap::new();
        self.0
            .retain(|key, value| match key.strip_prefix("annotation") {
                Some(rest) => {
                    // annotation.KEY or annotation-TYPE.KEY
                    let (scope, name) = rest.split_once('.').unwrap_or(("", rest));
                    let name = match scope.strip_prefix('-') {
                        Some(scope) => format!("{scope}:{name}"),
                        None => name.to_owned(),
                    };
                    annotations.insert(name, std::mem::take(value));
                    false
                }
                None => true,
            });
        let target = match kind.as_str() {
            "local" => OutputTarget::Local {
                dest: directory(dest, "local")?,
                platform_split: self.flag("platform-split")?,
            },
            "tar" => OutputTarget::Tar {
                dest: file(dest).unwrap_or(OutputSink::Stdout),
                platform_split: self.flag("platform-split")?,
            },
            "oci" => self.archive(dest, "oci")?,
            "docker" if dest.is_some() => self.archive(dest, "docker")?,
            "docker" | "image" | "registry" => {
                if let Some(dest) = dest {
                    return Err(format!(
                        "dest={dest} is not for type {kind}: use type=docker or type=oci"
                    ));
                }
                self.image(kind == "registry")?
            }
            "cacheonly" => OutputTarget::CacheOnly,
            other => {
                return Err(format!(
                    "type {other:?} is not supported: use local, tar, oci, docker, image, registry or cacheonly"
                ));
            }
        };
        if let Some((key, _)) = self.0.first() {
            return Err(format!("attribute {key:?} of type {kind} is not supported"));
        }
        Ok(OutputSpec {
            target,
            annotations,
        })
    }

    fn archive(&mut self, dest: Option<String>, kind: &str) -> Result<OutputTarget, String> {
        let tar = self.flag("tar")?.unwrap_or(true);
        let dest = if tar {
            file(dest).unwrap_or(OutputSink::Stdout)
        } else {
            OutputSink::Directory(directory(dest, kind)?)
        };
        let archive = ArchiveOutput {
            id: String::new(),
            names: self.names(),
            compression: self.compression()?,
            oci_media_types: self.flag("oci-mediatypes")?,
            rewrite_timestamp: self.flag("rewrite-timestamp")?.unwrap_or(false),
        };
        Ok(match kind {
            "oci" => OutputTarget::Oci { dest, archive },
            _ => OutputTarget::Docker { dest, archive },
        })
    }

    fn image(&mut self, push: bool) -> Result<OutputTarget, String> {
        let image = ImageOutput {
            names: self.names(),
            push: self.flag("push")?.unwrap_or(push),
            push_by_digest: self.flag("push-by-digest")?.unwrap_or(false),
            compression: self.compression()?,
            oci_media_types: self.flag("oci-mediatypes")?,
            rewrite_timestamp: self.flag("rewrite-timestamp")?.unwrap_or(false),
        };
        // Both are always so.
        for name in ["unpack", "store"] {
            if self.flag(name)? == Some(false) {
                return Err(format!(
                    "{name}=false is not supported: an image of the store is always unpacked (type=cacheonly stores none)"
                ));
            }
        }
        Ok(OutputTarget::Image(image))
    }

    fn names(&mut self) -> Vec<String> {
        let names = self.take("name").unwrap_or_default();
        let names = names.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn compression(&mut self) -> Result<LayerCompression, String> {
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| format!("compression-level={text} is not a number"))?,
            ),
        };
        Ok(LayerCompression {
            kind: self
                .take("compression")
                .map(|text| compression(&text))
                .transpose()?,
            level,
            force: self.flag("force-compression")?.unwrap_or(false),
        })
    }
}

/// An algorithm by its name.
pub(super) fn compression(text: &str) -> Result<CompressionKind, String> {
    match text {
        "uncompressed" => Ok(CompressionKind::Uncompressed),
        "gzip" => Ok(CompressionKind::Gzip),
        "zstd" => Ok(CompressionKind::Zstd),
        other => Err(format!(
            "compression {other:?} is not supported: use uncompressed, gzip or zstd"
        )),
    }
}

fn directory(dest: Option<String>, kind: &str) -> Result<PathBuf, String> {
    match dest.as_deref() {
        None => Err(format!("dest is required for {kind} exporter")),
        Some("-") => Err(format!("dest cannot be stdout for {kind} exporter")),
        Some(path) => Ok(path.into()),
    }
}

fn file(dest: Option<String>) -> Option<OutputSink> {
    dest.map(|dest| match dest.as_str() {
        "-" => OutputSink::Stdout,
        path => OutputSink::File(path.into()),
    })
}
