//! The block of source lines that is printed with an error.
//!
//! Must not: colour. Follows BuildKit's `solver/errdefs/source.go`.

use std::fmt::Write as _;

use crate::dockerfile::Lines;

const RULER: &str = "--------------------\n";

/// The lines around `lines` with `>>>` before those meant, between rulers, headed `name:line`. Empty when there is
/// nothing to show.
pub fn excerpt(name: &str, source: &str, lines: &[Lines]) -> String {
    let text: Vec<&str> = source.split('\n').collect();
    let count = text.len();
    let Some(first) = lines.iter().map(|range| range.first as usize).min() else {
        return String::new();
    };
    let last = lines
        .iter()
        .map(|range| range.last.max(range.first) as usize)
        .max();
    if first < 1 || first > count {
        return String::new();
    }
    let last = last.unwrap_or(first).min(count);
    let (from, to) = padded(first, last, count);
    let mut out = format!("{name}:{first}\n{RULER}");
    for number in from..=to {
        let meant = lines
            .iter()
            .any(|range| (range.first..=range.last.max(range.first)).contains(&(number as u32)));
        let mark = if meant { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:3} | {mark} {}", text[number - 1]);
    }
    out.push_str(RULER);
    out
}

/// Adds lines before and after, more around a single one.
fn padded(first: usize, last: usize, count: usize) -> (usize, usize) {
    let wanted = if first == last { 4 } else { 2 };
    let (mut from, mut to) = (first, last);
    let mut added = 0;
    while added < wanted {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to != count {
            to += 1;
            added += 1;
        }
        added += 1;
    }
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_meant_are_marked_among_their_neighbours() {
        let source = "FROM a\n\nRUN b\nRUN c\nRUN d\nRUN e\nRUN f\n";
        let block = excerpt("Dockerfile", source, &[Lines::one(4)]);
        let expected = "Dockerfile:4\n--------------------\n   2 |     \n   3 |     RUN b\n   4 | >>> RUN c\n   5 |     RUN d\n   6 |     RUN e\n--------------------\n";
        assert_eq!(block, expected);
        let block = excerpt("x/Dockerfile.dev", source, &[Lines::new(1, 3)]);
        let expected = "x/Dockerfile.dev:1\n--------------------\n   1 | >>> FROM a\n   2 | >>> \n   3 | >>> RUN b\n   4 |     RUN c\n--------------------\n";
        assert_eq!(block, expected);
    }

    #[test]
    fn a_place_outside_of_the_text_shows_nothing() {
        assert_eq!(excerpt("Dockerfile", "FROM a", &[]), "");
        assert_eq!(excerpt("Dockerfile", "FROM a", &[Lines::one(0)]), "");
        assert_eq!(excerpt("Dockerfile", "FROM a", &[Lines::one(9)]), "");
        assert!(excerpt("Dockerfile", "FROM a", &[Lines::new(1, 9)]).contains(">>> FROM a"));
    }
}
