//! The caller's terminal: raw mode, size, and the keys that detach.

use rustix::termios::{self, OptionalActions, Termios};
use std::io::{self, IsTerminal as _};

/// Raw mode of stdin's terminal until dropped. Without a terminal it does nothing.
pub(crate) struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// A line from the terminal on stdin that is not shown. Control-C gives up.
pub(crate) fn read_secret() -> io::Result<String> {
    use std::io::Read as _;
    let _raw = RawMode::enter()?;
    let mut secret = Vec::new();
    for byte in io::stdin().lock().bytes() {
        match byte? {
            b'\r' | b'\n' | 4 => break,
            3 => return Err(io::ErrorKind::Interrupted.into()),
            8 | 127 => {
                secret.pop();
            }
            byte => secret.push(byte),
        }
    }
    String::from_utf8(secret).map_err(io::Error::other)
}

/// Rows and columns of the terminal that stdout or stdin is; `None` without one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout())
        .or_else(|_| termios::tcgetwinsize(io::stdin()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// A sequence of keys that leaves a terminal without ending what runs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a,b`; `None` is Docker's default. Source: moby `pkg/term/ascii.go`.
    pub(crate) fn parse(flag: Option<&str>) -> Result<Self, String> {
        let bad = |key: &str| {
            format!(
                "invalid detach key {key:?}: write single characters or ctrl-<letter>, separated by commas"
            )
        };
        let keys = flag
            .filter(|flag| !flag.is_empty())
            .unwrap_or("ctrl-p,ctrl-q")
            .split(',')
            .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (None, &[byte]) => Ok(byte),
                (Some(name), _) => match *name.as_bytes() {
                    [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                    [b'@'] => Ok(0),
                    [b'['] => Ok(27),
                    [b'\\'] => Ok(28),
                    [b']'] => Ok(29),
                    [b'^'] => Ok(30),
                    [b'_'] => Ok(31),
                    _ => Err(bad(key)),
                },
                (None, _) if key == "DEL" => Ok(127),
                (None, _) => Err(bad(key)),
            });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// A watch over typed bytes.
    pub(crate) fn watch(&self) -> DetachWatch {
        DetachWatch {
            keys: self.0.clone(),
            matched: 0,
        }
    }
}

/// Follows what is typed; keys of a sequence that has begun are held back until it is clear that it is none.
pub(crate) struct DetachWatch {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachWatch {
    /// Bytes to pass on, and whether the sequence is complete.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte != self.keys[self.matched] {
                pass.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
            } else {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_detaches_and_its_halves_pass() {
        let keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys, DetachKeys(vec![16, 17]));
        let mut watch = keys.watch();
        assert_eq!(watch.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(watch.feed(b"\x10\x10\x11x"), (b"\x10".to_vec(), true));
        assert_eq!(
            DetachKeys::parse(Some("a,ctrl-@")).unwrap(),
            DetachKeys(vec![b'a', 0])
        );
        assert!(
            DetachKeys::parse(Some("ctrl-5")).is_err() && DetachKeys::parse(Some("ab")).is_err()
        );
    }
}
