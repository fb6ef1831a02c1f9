//! Whose line it is: `web-1  | text`, aligned and coloured per service. Source: docker/compose `cmd/formatter/logs.go`.

use anstyle::{AnsiColor, Color};
use std::collections::BTreeMap;

/// How lines are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) prefix: bool,
    pub(crate) colour: bool,
}

/// Colours in the order services get them.
const COLOURS: &[AnsiColor] = &[
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightYellow,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// The prefixes of all containers seen so far; they grow to the longest name.
#[derive(Debug)]
pub(crate) struct Prefixes {
    style: Style,
    colours: BTreeMap<String, AnsiColor>,
    width: usize,
}

impl Prefixes {
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            colours: BTreeMap::new(),
            width: 0,
        }
    }

    /// Makes room for a container before its first line, so that the column does not move.
    pub(crate) fn know(&mut self, service: &str, number: u32) {
        self.width = self.width.max(name(service, number).len());
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        self.colours.entry(service.to_owned()).or_insert(next);
    }

    /// A line with its prefix and line end.
    pub(crate) fn line(&mut self, service: &str, number: u32, line: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(line.len() + self.width + 16);
        if self.style.prefix {
            self.know(service, number);
            let text = format!("{:<width$}  | ", name(service, number), width = self.width);
            out.extend_from_slice(self.paint(service, &text).as_bytes());
        }
        out.extend_from_slice(line);
        out.push(b'\n');
        out
    }

    /// What is said when a container ended.
    pub(crate) fn exited(&mut self, service: &str, number: u32, code: i64) -> String {
        self.know(service, number);
        self.paint(
            service,
            &format!("{} exited with code {code}", name(service, number)),
        )
    }

    fn paint(&self, service: &str, text: &str) -> String {
        match self.colours.get(service).filter(|_| self.style.colour) {
            Some(&colour) => {
                let style = anstyle::Style::new().fg_color(Some(Color::Ansi(colour)));
                format!("{style}{text}{style:#}")
            }
            None => text.to_owned(),
        }
    }
}

fn name(service: &str, number: u32) -> String {
    format!("{service}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_aligned_and_coloured_on_demand() {
        let mut plain = Prefixes::new(Style {
            prefix: true,
            colour: false,
        });
        plain.know("database", 1);
        assert_eq!(plain.line("web", 2, b"hi"), b"web-2       | hi\n");
        assert_eq!(plain.line("database", 1, b"\xff"), b"database-1  | \xff\n");
        assert_eq!(plain.exited("web", 2, 3), "web-2 exited with code 3");
        let mut none = Prefixes::new(Style {
            prefix: false,
            colour: true,
        });
        assert_eq!(none.line("web", 1, b"hi"), b"hi\n");
        let mut coloured = Prefixes::new(Style {
            prefix: true,
            colour: true,
        });
        let line = coloured.line("web", 1, b"hi");
        assert_eq!(line, b"\x1b[36mweb-1  | \x1b[0mhi\n");
    }
}
