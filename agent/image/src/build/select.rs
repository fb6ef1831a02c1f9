//! Which files a step reads: patterns, patterns of what is left out, links on the way.
//!
//! One walk serves the copy and its digest, so that they cannot differ in what they select. It follows BuildKit's
//! `solver/llbsolver/file/backend.go` (`docopy`) and `tonistiigi/fsutil/copy`, where `COPY` and `ADD` are made of such
//! selections.

use std::sync::Arc;

use agent_build::pattern::{Patterns, glob};
use agent_build::plan::{CopyOp, CopySource, InputIndex};
use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::error::{FilesError, Result};
use super::view::{Directory, Found, LastLink, Node, View, join, too_deep};

/// Entries in one selection.
const ENTRIES_MAX: u64 = 10_000_000;

/// What one source of a copy reads of its input.
pub(super) struct Selection {
    pub(super) input: InputIndex,
    /// Absolute.
    path: String,
    wildcards: bool,
    /// Of a directory that the path leads to: what is in it, not it.
    pub(super) contents: bool,
    last: LastLink,
    /// `--parents`: only what matches below `path`.
    include: Option<Include>,
    exclude: Patterns,
    required: Vec<String>,
    /// An archive is unpacked.
    pub(super) unpack: bool,
}

struct Include {
    patterns: Patterns,
    /// The first parts of the pattern, up to one with a wildcard.
    literal: Vec<String>,
}

/// One thing that a selection selects.
pub(super) struct Source {
    /// The last part of the path by which it was selected: what it is called in a destination directory. Empty for the root.
    pub(super) name: Vec<u8>,
    /// A pattern matched its name, so that the name is not known from the step alone.
    pub(super) matched: bool,
    pub(super) found: Found,
}

/// Why the walk hands a directory to its visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the source.
    Top,
    /// It is selected.
    Inner,
    /// Something in it is selected.
    Parent,
}

/// What is done with what is selected. Directories are entered before anything in them and left after, and are not
/// entered at all when nothing in them is selected.
pub(super) trait Visitor {
    fn enter(&mut self, view: &View, directory: &Directory, role: Role) -> Result<()>;
    fn leave(&mut self, view: &View, directory: &Directory, role: Role) -> Result<()>;
    /// Anything that is no directory. `top`: it is the source itself.
    fn file(&mut self, view: &View, parent: &Directory, node: &Node, top: bool) -> Result<()>;
}

impl Selection {
    /// What a source of `op` reads; a heredoc reads nothing.
    pub(super) fn of(op: &CopyOp, source: &CopySource) -> Result<Option<Self>> {
        let excludes = || Patterns::new(&op.excludes);
        Ok(match source {
            CopySource::Paths {
                input,
                path,
                parents,
                required,
                unpack,
            } => Some(Self {
                input: *input,
                path: path.clone(),
                wildcards: true,
                contents: true,
                last: LastLink::Follow,
                include: parents.as_deref().map(Include::new).transpose()?,
                exclude: excludes()?,
                required: required.clone(),
                unpack: *unpack,
            }),
            CopySource::Http {
                input,
                file_name,
                unpack,
            } => Some(Self {
                unpack: *unpack,
                ..Self::plain(*input, file_name, excludes()?)
            }),
            CopySource::Git { input } => Some(Self::plain(*input, "/", excludes()?)),
            CopySource::Inline { .. } => None,
        })
    }

    fn plain(input: InputIndex, path: &str, exclude: Patterns) -> Self {
        Self {
            input,
            path: path.to_owned(),
            wildcards: false,
            contents: false,
            last: LastLink::Keep,
            include: None,
            exclude,
            required: Vec::new(),
            unpack: false,
        }
    }

    /// Everything at and below one path.
    pub(super) fn everything(path: &str) -> Self {
        Self {
            last: LastLink::Follow,
            ..Self::plain(InputIndex(0), path, Patterns::default())
        }
    }

    /// What the path leads to. A pattern may lead to nothing, anything else must be there.
    pub(super) fn sources(&self, view: &View) -> Result<Vec<Source>> {
        for required in &self.required {
            if matches!(
                view.resolve(required.as_bytes(), LastLink::Keep)?,
                Found::Missing
            ) {
                return Err(FilesError::NotFound(required.clone()));
            }
        }
        let all: Vec<&str> = self
            .path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        let literal = match self.wildcards {
            true => all.iter().take_while(|part| !has_wildcards(part)).count(),
            false => all.len(),
        };
        let (base, patterns) = all.split_at(literal);
        let base_path = base.join("/");
        if patterns.is_empty() {
            // A backslash takes its meaning from what follows; where no pattern is, it was only that.
            let name = base
                .last()
                .map_or_else(Vec::new, |name| name.as_bytes().to_vec());
            let found = view.resolve(base_path.as_bytes(), self.last)?;
            if matches!(found, Found::Missing) {
                return Err(FilesError::NotFound(format!("/{base_path}")));
            }
            return Ok(vec![Source {
                name,
                matched: false,
                found,
            }]);
        }
        let mut sources = Vec::new();
        match view.resolve(base_path.as_bytes(), LastLink::Follow)? {
            Found::Directory(directory) => {
                self.expand(view, &directory, patterns, &mut sources)?;
            }
            Found::Other(..) => {}
            Found::Missing => {
                return Err(FilesError::Invalid(format!(
                    "lstat /{base_path}: no such file or directory"
                )));
            }
        }
        Ok(sources)
    }

    /// Collects what `patterns`, one for each level, match below `directory`. Links on the way are not followed, a link that
    /// matches is.
    fn expand(
        &self,
        view: &View,
        directory: &Arc<Directory>,
        patterns: &[&str],
        sources: &mut Vec<Source>,
    ) -> Result<()> {
        let Some((pattern, rest)) = patterns.split_first() else {
            return Ok(());
        };
        for node in view.list(directory)? {
            let name = String::from_utf8_lossy(&node.name);
            if !glob(pattern, &name)? {
                continue;
            }
            if rest.is_empty() {
                let name = node.name.clone();
                let found = view.resolve(&join(&directory.path, &name), self.last)?;
                if !matches!(found, Found::Missing) {
                    sources.push(Source {
                        name,
                        matched: true,
                        found,
                    });
                } else if !node.ignored {
                    let path = join(&directory.path, &name);
                    let path = String::from_utf8_lossy(&path);
                    return Err(FilesError::NotFound(format!("/{path}")));
                }
            } else if node.kind() == FileType::Directory {
                self.expand(view, &view.enter(directory, &node)?, rest, sources)?;
            }
        }
        Ok(())
    }

    /// Walks over a source in order of name.
    pub(super) fn walk(
        &self,
        view: &View,
        source: &Source,
        cancel: &CancellationToken,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        match &source.found {
            Found::Directory(directory) => {
                let mut walk = Walk {
                    selection: self,
                    view,
                    cancel,
                    visitor,
                    frames: Vec::new(),
                    entries: 0,
                };
                walk.directory(Arc::clone(directory), String::new(), Role::Top, false)
            }
            Found::Other(parent, node) => visitor.file(view, parent, node, true),
            Found::Missing => Ok(()),
        }
    }
}

struct Walk<'a> {
    selection: &'a Selection,
    view: &'a View,
    cancel: &'a CancellationToken,
    visitor: &'a mut dyn Visitor,
    frames: Vec<Frame>,
    entries: u64,
}

struct Frame {
    directory: Arc<Directory>,
    role: Role,
    entered: bool,
}

impl Walk<'_> {
    /// `path` is relative to the source. `lazy`: enter it only when something in it turns up.
    fn directory(
        &mut self,
        directory: Arc<Directory>,
        path: String,
        role: Role,
        lazy: bool,
    ) -> Result<()> {
        if self.frames.len() > super::DEPTH_MAX {
            return Err(too_deep());
        }
        if self.cancel.is_cancelled() {
            return Err(FilesError::Cancelled);
        }
        self.frames.push(Frame {
            directory: Arc::clone(&directory),
            role,
            entered: false,
        });
        if !lazy {
            self.enter_all()?;
        }
        for node in self.view.list(&directory)? {
            self.entries += 1;
            if self.cancel.is_cancelled() {
                return Err(FilesError::Cancelled);
            }
            if self.entries > ENTRIES_MAX {
                return Err(FilesError::Limit {
                    what: "files in one step",
                    limit: ENTRIES_MAX,
                });
            }
            let name = String::from_utf8_lossy(&node.name);
            let path = match path.as_str() {
                "" => name.into_owned(),
                parent => format!("{parent}/{name}"),
            };
            let excluded =
                !self.selection.exclude.is_empty() && self.selection.exclude.matches(&path);
            let included = !excluded
                && match &self.selection.include {
                    Some(include) => include.patterns.matches(&path),
                    None => true,
                };
            if node.kind() == FileType::Directory {
                let nothing_below = excluded && self.selection.exclude.prunes(&path)
                    || (!included
                        && self
                            .selection
                            .include
                            .as_ref()
                            .is_some_and(|include| !include.may_be_below(&path)));
                if nothing_below {
                    continue;
                }
                let Some(child) = self.view.enter_present(&directory, &node)? else {
                    continue;
                };
                let role = if included { Role::Inner } else { Role::Parent };
                self.directory(child, path, role, !included || node.ignored)?;
            } else if included {
                self.enter_all()?;
                self.visitor.file(self.view, &directory, &node, false)?;
            }
        }
        let frame = self.frames.pop().expect("pushed above");
        if frame.entered {
            self.visitor
                .leave(self.view, &frame.directory, frame.role)?;
        }
        Ok(())
    }

    fn enter_all(&mut self) -> Result<()> {
        for frame in self.frames.iter_mut().filter(|frame| !frame.entered) {
            self.visitor
                .enter(self.view, &frame.directory, frame.role)?;
            frame.entered = true;
        }
        Ok(())
    }
}

impl Include {
    fn new(pattern: &str) -> Result<Self> {
        let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
        Ok(Self {
            literal: parts
                .take_while(|part| !has_wildcards(part) && *part != "..")
                .map(str::to_owned)
                .collect(),
            patterns: Patterns::new([pattern])?,
        })
    }

    /// Whether anything below `path` may match, so that the walk must go there.
    fn may_be_below(&self, path: &str) -> bool {
        path.split('/')
            .zip(&self.literal)
            .all(|(part, wanted)| part == wanted)
    }
}

/// `containsWildcards`: a special character that no backslash takes the meaning from.
fn has_wildcards(part: &str) -> bool {
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}
