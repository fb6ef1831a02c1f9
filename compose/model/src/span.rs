//! Where a value came from: byte ranges into the files that were read, and the table of those files.
//!
//! A [`Span`] is three numbers so that every node of the tree and every part of a
//! [`Project`](crate::Project) can carry one; text, line and column are looked up in [`Sources`] when a
//! message is written. Nothing here reads files or formats messages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Field name under which the tree hands a mapping's own span to the types (see `bind.rs`).
pub(crate) const SPAN_KEY: &str = "$span";

/// A range of bytes in one of the loaded files; [`Span::NONE`] for values nobody wrote (defaults).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Index into [`Sources`]; `u32::MAX` when there is no source.
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of a value that no file contains.
    pub const NONE: Span = Span {
        file: u32::MAX,
        start: 0,
        end: 0,
    };

    /// Whether the value was written in a file.
    pub fn is_known(self) -> bool {
        self.file != u32::MAX
    }

    /// This span, or `other` if this one is unknown.
    pub fn or(self, other: Span) -> Span {
        if self.is_known() { self } else { other }
    }
}

impl Default for Span {
    fn default() -> Self {
        Span::NONE
    }
}

/// One file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path as the user gave it or as it was found; `-` for standard input.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// All files that took part in a load, in the order they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

/// A place for people: file, line and column, the latter two starting at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Sources {
    /// Adds a file and returns its index for [`Span::file`].
    pub(crate) fn add(&mut self, name: String, text: String) -> u32 {
        self.files.push(Source { name, text });
        u32::try_from(self.files.len() - 1).expect("the number of files is bounded by the loader")
    }

    /// All files, in the order they were read.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }

    /// The file a span points into.
    pub fn get(&self, span: Span) -> Option<&Source> {
        self.files.get(span.file as usize)
    }

    /// Line and column of the first byte of `span`; `None` for [`Span::NONE`].
    pub fn locate(&self, span: Span) -> Option<Location> {
        let source = self.get(span)?;
        let mut start = (span.start as usize).min(source.text.len());
        while !source.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some(Location {
            file: source.name.clone(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        })
    }
}
