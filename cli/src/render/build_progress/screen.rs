//! The last lines a step wrote, as a small terminal would show them: returns overwrite, escapes are left out.

use std::collections::VecDeque;

/// Lines that are kept.
pub(super) const HEIGHT: usize = 6;
/// Longest line that is kept, characters; a terminal is not wider.
const WIDTH: usize = 1024;

/// A terminal of a few lines.
#[derive(Debug, Default)]
pub(super) struct Screen {
    lines: VecDeque<Vec<char>>,
    column: usize,
    escape: Escape,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    /// The line is complete: what comes next begins a new one.
    complete: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    /// `ESC [ … letter`
    Control,
    /// `ESC ] … BEL`
    Title,
}

impl Screen {
    /// Something was written.
    pub(super) fn is_used(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The lines that are not empty, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.lines
            .iter()
            .map(|line| line.iter().collect::<String>())
            .filter(|line| !line.trim().is_empty())
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        self.pending.extend_from_slice(data);
        let bytes = std::mem::take(&mut self.pending);
        let (text, rest) = match std::str::from_utf8(&bytes) {
            Ok(text) => (text.into(), &[][..]),
            // An incomplete character at the end waits for the rest of it.
            Err(error) if error.error_len().is_none() => {
                let (text, rest) = bytes.split_at(error.valid_up_to());
                (String::from_utf8_lossy(text), rest)
            }
            Err(_) => (String::from_utf8_lossy(&bytes), &[][..]),
        };
        self.pending = rest.to_vec();
        for character in text.chars() {
            self.put(character);
        }
    }

    fn put(&mut self, character: char) {
        match (self.escape, character) {
            (Escape::None, '\x1b') => self.escape = Escape::Begun,
            (Escape::None, '\n') => {
                self.complete = true;
                self.column = 0;
            }
            (Escape::None, '\r') => self.column = 0,
            (Escape::None, '\x08') => self.column = self.column.saturating_sub(1),
            (Escape::None, '\t') => {
                for _ in 0..8 - self.column % 8 {
                    self.letter(' ');
                }
            }
            (Escape::None, letter) if letter.is_control() => {}
            (Escape::None, letter) => self.letter(letter),
            (Escape::Begun, '[') => self.escape = Escape::Control,
            (Escape::Begun, ']') => self.escape = Escape::Title,
            (Escape::Begun, _) => self.escape = Escape::None,
            (Escape::Control, '@'..='~') => self.escape = Escape::None,
            (Escape::Title, '\x07' | '\\') => self.escape = Escape::None,
            (Escape::Control | Escape::Title, _) => {}
        }
    }

    fn letter(&mut self, letter: char) {
        if self.complete || self.lines.is_empty() {
            self.complete = false;
            if self.lines.len() == HEIGHT {
                self.lines.pop_front();
            }
            self.lines.push_back(Vec::new());
        }
        if let Some(line) = self.lines.back_mut()
            && self.column < WIDTH
        {
            if self.column < line.len() {
                line[self.column] = letter;
            } else {
                line.resize(self.column, ' ');
                line.push(letter);
            }
            self.column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> Vec<String> {
        let mut screen = Screen::default();
        for piece in pieces {
            screen.write(piece);
        }
        screen.lines().collect()
    }

    #[test]
    fn the_last_lines_are_kept() {
        let lines: String = (1..=9).map(|line| format!("{line}\n")).collect();
        assert_eq!(shown(&[lines.as_bytes()]), ["4", "5", "6", "7", "8", "9"]);
        assert_eq!(shown(&[b"a", b"b\n\nc"]), ["ab", "c"]);
    }

    #[test]
    fn returns_overwrite_and_escapes_leave_nothing() {
        assert_eq!(shown(&[b"10%\r20%\r100%"]), ["100%"]);
        assert_eq!(shown(&[b"\x1b[31mred\x1b[0m \x1b]0;title\x07x"]), ["red x"]);
        assert_eq!(shown(&[b"a\tb\x08c"]), ["a       c"]);
    }

    #[test]
    fn characters_may_come_in_pieces_and_need_not_be_characters() {
        assert_eq!(shown(&[&[0xc3], &[0xa4, b'x']]), ["äx"]);
        assert_eq!(shown(&[&[b'a', 0xff, b'b']]), ["a\u{fffd}b"]);
        let long = vec![b'x'; 5000];
        assert_eq!(shown(&[&long])[0].len(), WIDTH);
    }
}
