//! Bytes → one node for each instruction: its words, flags, heredocs and place. Follows BuildKit's `parser/parser.go`.

use super::arguments::{self, Arguments};
use super::directives::{Name, Reader};
use super::heredoc::{self, Heredoc};
use super::{Lines, ParseError};

/// Longest line, as BuildKit has it.
const MAX_LINE_BYTES: usize = 65_535;
/// Most instructions in one file.
const MAX_INSTRUCTIONS: usize = 20_000;

/// An instruction before it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// First word as written.
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) arguments: Arguments,
    /// The instruction inside of an ONBUILD.
    pub(super) trigger: Option<Box<Node>>,
    pub(super) heredocs: Vec<Heredoc>,
    /// The line with continuations joined.
    pub(super) original: String,
    pub(super) lines: Lines,
    /// Comment lines directly above.
    pub(super) comments: Vec<String>,
}

/// A file.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) escape: char,
    pub(super) empty_continuations: Vec<Lines>,
}

/// Parses a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Tree, ParseError> {
    let mut parser = Parser {
        input: Input {
            rest: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes),
            number: 0,
        },
        directives: Reader::new("#"),
        escape: '\\',
        empty_continuations: Vec::new(),
    };
    let nodes = parser.nodes()?;
    if nodes.is_empty() {
        return Err(ParseError::new("file with no instructions"));
    }
    Ok(Tree {
        nodes,
        escape: parser.escape,
        empty_continuations: parser.empty_continuations,
    })
}

/// The lines not read yet.
struct Input<'a> {
    rest: &'a [u8],
    /// Lines read.
    number: u32,
}

impl<'a> Input<'a> {
    /// The next line with its line ending.
    fn next(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let content = end.unwrap_or(self.rest.len());
        if content > MAX_LINE_BYTES {
            let message =
                format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}");
            return Err(self.error(message));
        }
        let (line, rest) = self.rest.split_at(end.map_or(content, |end| end + 1));
        self.rest = rest;
        Ok(Some(line))
    }

    /// The line as text. Comments are never looked at as text, so that any bytes may be in them.
    fn text(&self, line: &'a [u8]) -> Result<&'a str, ParseError> {
        std::str::from_utf8(line)
            .map_err(|_| self.error(format!("line {} is not valid UTF-8", self.number)))
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::at(message, Lines::one(self.number))
    }
}

struct Parser<'a> {
    input: Input<'a>,
    directives: Reader,
    escape: char,
    empty_continuations: Vec<Lines>,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<Vec<Node>, ParseError> {
        let mut nodes = Vec::new();
        let mut comments: Vec<String> = Vec::new();
        while let Some(line) = self.input.next()? {
            if is_comment(line) {
                self.comment(line, &mut comments)?;
                continue;
            }
            let line = self
                .input
                .text(line)?
                .trim_end_matches(['\r', '\n'])
                .trim_start();
            // Whatever is not a directive ends the directives.
            self.directives
                .read(line)
                .map_err(|m| self.input.error(m))?;
            if line.is_empty() {
                continue;
            }
            if nodes.len() == MAX_INSTRUCTIONS {
                return Err(self.input.error(format!(
                    "dockerfile has more than {MAX_INSTRUCTIONS} instructions"
                )));
            }
            nodes.push(self.node(line, std::mem::take(&mut comments))?);
        }
        Ok(nodes)
    }

    /// A comment above an instruction, or a directive.
    fn comment(&mut self, line: &[u8], comments: &mut Vec<String>) -> Result<(), ParseError> {
        let text = String::from_utf8_lossy(line);
        let directive = self
            .directives
            .read(text.trim())
            .map_err(|message| self.input.error(message))?;
        match directive {
            Some(directive) if directive.name == Name::Escape => {
                self.escape = match directive.value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message =
                            format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(self.input.error(message));
                    }
                };
            }
            Some(_) => {}
            None => match text.trim().strip_prefix('#').unwrap_or_default().trim() {
                // An empty comment line parts what is above from the instruction.
                "" => comments.clear(),
                comment => comments.push(comment.to_string()),
            },
        }
        Ok(())
    }

    /// An instruction that begins with this line.
    fn node(&mut self, first: &str, comments: Vec<String>) -> Result<Node, ParseError> {
        let start = self.input.number;
        let line = self.joined(first)?;
        let at = |end| Lines::new(start, end);
        let mut node = node_of_line(&line, self.escape, comments, Depth::Top)
            .map_err(|message| ParseError::at(message, at(self.input.number)))?;
        if node.may_have_heredocs() && line.contains("<<") {
            let announced = heredoc::of_line(&line)
                .map_err(|message| ParseError::at(message, at(self.input.number)))?;
            for heredoc in announced {
                node.heredocs.push(self.body(heredoc, start)?);
            }
        }
        node.lines = at(self.input.number);
        Ok(node)
    }

    /// The line with those that continue it.
    fn joined(&mut self, first: &str) -> Result<String, ParseError> {
        let (part, mut continues) = self.without_continuation(first);
        let mut line = part.to_string();
        let mut has_empty = false;
        while continues && let Some(next) = self.input.next()? {
            if is_comment(next) {
                continue;
            }
            let text = self.input.text(next)?.trim_end_matches(['\r', '\n']);
            if text.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let (part, more) = self.without_continuation(text);
            line.push_str(part);
            continues = more;
        }
        if has_empty {
            self.empty_continuations.push(Lines::one(self.input.number));
        }
        Ok(line)
    }

    /// The line without the escape at its end that continues it. An escaped escape does not.
    fn without_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        }
    }

    /// The lines of a heredoc up to its end.
    fn body(&mut self, mut heredoc: Heredoc, start: u32) -> Result<Heredoc, ParseError> {
        while let Some(line) = self.input.next()? {
            let text = self.input.text(line)?;
            let mut end = text.trim_end_matches(['\r', '\n']);
            if heredoc.chomp {
                end = end.trim_start_matches('\t');
            }
            if end == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.content.push_str(text);
        }
        let lines = Lines::new(start, self.input.number);
        Err(ParseError::at("unterminated heredoc", lines))
    }
}

fn is_comment(line: &[u8]) -> bool {
    let text = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    text.trim_start().starts_with('#')
}

/// Whether a line stands by itself or inside of an ONBUILD.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Trigger,
}

fn node_of_line(
    line: &str,
    escape: char,
    comments: Vec<String>,
    depth: Depth,
) -> Result<Node, String> {
    let (keyword, rest) = arguments::first_word(line.trim());
    let (flags, rest) = arguments::flags(rest.unwrap_or_default(), escape);
    let rest = rest.trim();
    let name = keyword.to_lowercase();
    // ONBUILD inside of ONBUILD is refused later; its own trigger is of no interest.
    let trigger = match (name.as_str(), depth) {
        ("onbuild", Depth::Top) if !rest.is_empty() => Some(Box::new(node_of_line(
            rest,
            escape,
            Vec::new(),
            Depth::Trigger,
        )?)),
        _ => None,
    };
    Ok(Node {
        keyword: keyword.to_string(),
        flags,
        arguments: arguments::split(&name, rest, escape)?,
        trigger,
        heredocs: Vec::new(),
        original: line.to_string(),
        lines: Lines::default(),
        comments,
    })
}

impl Node {
    /// The keyword in lower case.
    pub(super) fn name(&self) -> String {
        self.keyword.to_lowercase()
    }

    /// Whether `<<` means anything to this instruction.
    fn may_have_heredocs(&self) -> bool {
        let node = self.trigger.as_deref().unwrap_or(self);
        matches!(node.name().as_str(), "add" | "copy" | "run") && !node.arguments.json
    }
}

#[cfg(test)]
mod tests;
