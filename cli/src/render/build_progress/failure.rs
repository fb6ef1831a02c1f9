//! Why a build failed: the lines of the Dockerfile, then the reason. Source: BuildKit `solver/errdefs/source.go`.

use agent_api::build::{BuildFailure, SourceLine};
use std::fmt::Write as _;

/// `ERROR: failed to build: …`, below the lines it is about.
pub(crate) fn render(failure: &BuildFailure) -> String {
    let mut text = String::new();
    for source in &failure.sources {
        text.push_str(&excerpt(&source.file, &source.lines));
    }
    let _ = write!(text, "ERROR: failed to build: {}", failure.message);
    text
}

/// Lines of a file with the marked ones pointed at; empty when there are none.
pub(super) fn excerpt(file: &str, lines: &[SourceLine]) -> String {
    let Some(first) = lines.iter().find(|line| line.marked) else {
        return String::new();
    };
    let mut text = format!("{file}:{}\n--------------------\n", first.number);
    for line in lines {
        let mark = if line.marked { ">>>" } else { "   " };
        let _ = writeln!(text, "{:>4} | {mark} {}", line.number, line.text);
    }
    text.push_str("--------------------\n");
    text
}
