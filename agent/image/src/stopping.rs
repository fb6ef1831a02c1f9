//! A writer for work that takes long and may not be wanted any more.

use std::io::{self, Write};

use tokio_util::sync::CancellationToken;

/// Passes on what is written until the token is cancelled; from then on every write fails.
pub struct Stopping<'a, W> {
    output: W,
    cancel: &'a CancellationToken,
}

impl<'a, W: Write> Stopping<'a, W> {
    /// A writer to `output`.
    pub fn new(output: W, cancel: &'a CancellationToken) -> Self {
        Self { output, cancel }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.output
    }
}

impl<W: Write> Write for Stopping<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.cancel.is_cancelled() {
            // Not `Interrupted`, which means: once more.
            true => Err(io::Error::other("canceled")),
            false => self.output.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_once_it_is_cancelled() {
        let cancel = CancellationToken::new();
        let mut writer = Stopping::new(Vec::new(), &cancel);
        writer.write_all(b"wanted").unwrap();
        cancel.cancel();
        assert!(writer.write_all(b" or not").is_err());
        assert_eq!(writer.into_inner(), b"wanted");
    }
}
