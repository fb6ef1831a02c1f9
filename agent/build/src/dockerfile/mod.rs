//! Text → [`Dockerfile`].
//!
//! Must not: expand variables, look at other files, know images.
//! Follows BuildKit's `frontend/dockerfile/{parser,instructions}`, messages included.
//!
//! ```text
//! bytes ── lines (directives, continuations, comments, heredoc bodies) ──► Node: keyword, flags, arguments
//!       ── instruction (flags typed, counts checked) ──► Instruction / FROM ──► Dockerfile
//! ```

mod arguments;
mod ast;
mod directives;
mod duration;
mod flags;
pub mod heredoc;
mod instruction;
mod mount;
mod node;
mod size;

pub use ast::*;
pub use directives::is_builtin_syntax;
pub use mount::{Mount, MountType, Sharing};

use instruction::Parsed;

/// Longest Dockerfile.
const MAX_BYTES: usize = 16 << 20;

/// Why a text is not a Dockerfile. `Display` is BuildKit's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The message; for an instruction it begins with `dockerfile parse error on line N: `.
    pub message: String,
    /// Where, for [`crate::excerpt`]; `None` when the place is not in the text.
    pub lines: Option<Lines>,
}

impl ParseError {
    fn new(message: impl Into<String>) -> ParseError {
        ParseError {
            message: message.into(),
            lines: None,
        }
    }

    fn at(message: impl Into<String>, lines: Lines) -> ParseError {
        ParseError {
            message: message.into(),
            lines: Some(lines),
        }
    }
}

impl Dockerfile {
    /// Parses a Dockerfile; `name` is what messages call it.
    ///
    /// # Errors
    /// [`ParseError`] with the place; also for a file or a line that is too long, and for a `# syntax=` other than
    /// `docker/dockerfile`.
    pub fn parse(text: impl AsRef<[u8]>, name: &str) -> Result<Dockerfile, ParseError> {
        Self::parse_as(text, name, None)
    }

    /// The same of a file whose `# syntax=` says nothing, because the build argument `BUILDKIT_SYNTAX` has this value. That is
    /// for planning to judge.
    ///
    /// # Errors
    /// As [`Dockerfile::parse`].
    pub fn parse_as(
        text: impl AsRef<[u8]>,
        name: &str,
        overriding: Option<&str>,
    ) -> Result<Dockerfile, ParseError> {
        let bytes = text.as_ref();
        if bytes.is_empty() {
            return Err(ParseError::new("the Dockerfile cannot be empty"));
        }
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::new(format!(
                "the Dockerfile is longer than {MAX_BYTES} bytes"
            )));
        }
        let source = String::from_utf8_lossy(bytes).into_owned();
        let syntax = directives::syntax(&source);
        if let (Some(syntax), None) = (&syntax, overriding)
            && !is_builtin_syntax(&syntax.reference)
        {
            let message = format!(
                "syntax {} is not supported: only docker/dockerfile, which is built in",
                syntax.reference
            );
            return Err(ParseError::at(message, syntax.lines));
        }
        let check = directives::check(&source);
        let tree = node::parse(bytes)?;
        let mut dockerfile = Dockerfile {
            name: name.to_string(),
            source,
            syntax,
            escape: tree.escape,
            check,
            global_args: Vec::new(),
            stages: Vec::new(),
            empty_continuations: tree.empty_continuations,
        };
        for node in tree.nodes {
            let lines = node.lines;
            let parsed = instruction::typed(node).map_err(|message| {
                let message = format!("dockerfile parse error on line {}: {message}", lines.first);
                ParseError::at(message, lines)
            })?;
            dockerfile.push(parsed)?;
        }
        if dockerfile.stages.is_empty() {
            return Err(ParseError::new("dockerfile contains no stages to build"));
        }
        Ok(dockerfile)
    }

    fn push(&mut self, parsed: Parsed) -> Result<(), ParseError> {
        match (parsed, self.stages.last_mut()) {
            (Parsed::From(stage), _) => self.stages.push(stage),
            (Parsed::Instruction(instruction), Some(stage)) => stage.instructions.push(instruction),
            (Parsed::Instruction(instruction), None) => match &instruction.kind {
                Kind::Arg(args) => self.global_args.push(GlobalArg {
                    args: args.clone(),
                    instruction,
                }),
                _ => {
                    return Err(ParseError::at(
                        "no build stage in current context",
                        instruction.lines,
                    ));
                }
            },
        }
        Ok(())
    }
}

/// Parses an ONBUILD trigger of a base image (or [`Kind::Onbuild`]); `lines` are those of the FROM that inherits it.
///
/// # Errors
/// As [`Dockerfile::parse`]; also when it is not exactly one instruction, or FROM.
pub fn parse_trigger(text: &str, lines: Lines) -> Result<Instruction, ParseError> {
    let at = |message: String| ParseError::at(message, lines);
    let tree = node::parse(text.as_bytes()).map_err(|error| at(error.message))?;
    let mut nodes = tree.nodes;
    let (Some(node), true) = (nodes.pop(), nodes.is_empty()) else {
        return Err(at("onbuild trigger should be a single expression".into()));
    };
    match instruction::typed(node).map_err(at)? {
        Parsed::Instruction(instruction) => Ok(Instruction {
            lines,
            ..instruction
        }),
        Parsed::From(_) => Err(at("FROM isn't allowed as an ONBUILD trigger".into())),
    }
}

#[cfg(test)]
mod tests;
