//! Text → [`Dockerfile`].
//!
//! Must not: expand variables, look at other files, know images.
//! Follows BuildKit's `frontend/dockerfile/{parser,instructions}`, messages included.

mod ast;
mod mount;

pub use ast::*;
pub use mount::{Mount, MountType, Sharing};

/// Why a text is not a Dockerfile. `Display` is BuildKit's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The message; for an instruction it begins with `dockerfile parse error on line N: `.
    pub message: String,
    /// Where, for [`crate::excerpt`]; `None` when the place is not in the text.
    pub lines: Option<Lines>,
}

impl Dockerfile {
    /// Parses a Dockerfile; `name` is what messages call it.
    ///
    /// # Errors
    /// [`ParseError`] with the place; also for a file or a line that is too long, and for a `# syntax=` other than
    /// `docker/dockerfile`.
    pub fn parse(text: impl AsRef<[u8]>, name: &str) -> Result<Dockerfile, ParseError> {
        let _ = (text.as_ref(), name);
        todo!()
    }
}

/// Parses an ONBUILD trigger of a base image (or [`Kind::Onbuild`]); `lines` are those of the FROM that inherits it.
///
/// # Errors
/// As [`Dockerfile::parse`]; also when it is not exactly one instruction, or FROM.
pub fn parse_trigger(text: &str, lines: Lines) -> Result<Instruction, ParseError> {
    let _ = (text, lines);
    todo!()
}
