//! What lints found, listed after a build. Source: buildx `commands/build.go:printWarnings`.

use super::failure::excerpt;
use agent_api::build::{SourceLine, VertexWarning};
use std::fmt::Write as _;

/// Lines around those a warning is about.
const AROUND: usize = 2;

/// The list, empty when there is nothing to warn of.
pub(super) fn render(warnings: &[VertexWarning], expand: bool, hint: &str, colour: bool) -> String {
    let mut text = String::new();
    if warnings.is_empty() {
        return text;
    }
    let count = match warnings.len() {
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let hint = if expand {
        String::new()
    } else {
        format!(" ({hint})")
    };
    let (on, off) = if colour {
        ("\x1b[33m", "\x1b[0m")
    } else {
        ("", "")
    };
    let _ = write!(text, "\n {on}{count}{hint}:\n{off}");
    for warning in warnings {
        let _ = writeln!(text, " - {}", String::from_utf8_lossy(&warning.short));
        if !expand {
            continue;
        }
        for detail in &warning.detail {
            let _ = writeln!(text, "{}", String::from_utf8_lossy(detail));
        }
        if !warning.url.is_empty() {
            let _ = writeln!(text, "More info: {}", warning.url);
        }
        if let Some(source) = &warning.source_info {
            let ranges = warning
                .range
                .iter()
                .map(|range| (range.start.line, range.end.line));
            text.push_str(&lines_of(&source.filename, &source.data, ranges));
        }
        text.push('\n');
    }
    text
}

/// The lines of a file that ranges cover, with some around them.
pub(super) fn lines_of(
    file: &str,
    data: &[u8],
    ranges: impl Iterator<Item = (u32, u32)> + Clone,
) -> String {
    let Some(first) = ranges.clone().map(|(start, _)| start).min() else {
        return String::new();
    };
    let last = ranges
        .clone()
        .map(|(start, end)| end.max(start))
        .max()
        .unwrap_or(first);
    let source = String::from_utf8_lossy(data);
    let lines = source
        .split('\n')
        .zip(1_u32..)
        .filter_map(|(line, number)| {
            let near = number as usize + AROUND >= first as usize
                && number as usize <= last as usize + AROUND;
            let marked = ranges
                .clone()
                .any(|(start, end)| (start..=end.max(start)).contains(&number));
            near.then(|| SourceLine {
                number,
                text: line.trim_end_matches('\r').to_owned(),
                marked,
            })
        });
    excerpt(file, &lines.collect::<Vec<_>>())
}
