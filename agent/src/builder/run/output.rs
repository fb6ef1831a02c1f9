//! What a step prints: the keeper's frames taken apart, and clipped as BuildKit clips.
//!
//! Each stream may bring 2 MiB in all and 200 KiB in every second since the step began; what is more is read and dropped,
//! and a line says so. Source: buildkit `util/progress/logs/logs.go`.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::OutputSink;

/// Most that one stream of a step may print.
const MAX_BYTES: usize = 2 << 20;
/// Most per second, counted from the beginning.
const MAX_BYTES_PER_SECOND: usize = 200 << 10;
/// Largest piece handed on.
const PIECE: usize = 32 << 10;

/// Which of its two outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamKind {
    /// Standard output, number 1.
    Stdout,
    /// Standard error, number 2.
    Stderr,
}

/// Reads Docker's frames (`kind, 0, 0, 0, length`) to the end and hands on what may be shown.
pub(super) async fn pass_on(mut from: UnixStream, to: &OutputSink) -> io::Result<()> {
    let begun = Instant::now();
    let (mut stdout, mut stderr) = (Clip::default(), Clip::default());
    let mut piece = vec![0; PIECE];
    loop {
        let mut header = [0; 8];
        match from.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let (kind, clip) = match header[0] {
            2 => (StreamKind::Stderr, &mut stderr),
            _ => (StreamKind::Stdout, &mut stdout),
        };
        let [.., a, b, c, d] = header;
        let mut left = u32::from_be_bytes([a, b, c, d]) as usize;
        while left > 0 {
            let wanted = left.min(PIECE);
            let read = from.read(&mut piece[..wanted]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
            let (shown, note) = clip.take(&piece[..read], begun.elapsed());
            if !shown.is_empty() {
                to(kind, shown);
            }
            if let Some(note) = note {
                to(kind, note.as_bytes());
            }
        }
    }
}

/// How much of a stream was seen.
#[derive(Debug, Default)]
struct Clip {
    seen: usize,
    clipping: bool,
}

impl Clip {
    /// What may be shown of a piece, and the line that tells of the rest when clipping begins.
    fn take<'a>(&mut self, piece: &'a [u8], elapsed: Duration) -> (&'a [u8], Option<String>) {
        let before = self.seen;
        self.seen = self.seen.saturating_add(piece.len());
        let seconds = usize::try_from(elapsed.as_secs())
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let by_speed = seconds.saturating_mul(MAX_BYTES_PER_SECOND);
        let (limit, named) = match by_speed < MAX_BYTES {
            true => (by_speed, "200KiB/s"),
            false => (MAX_BYTES, "2MiB"),
        };
        let shown = limit.saturating_sub(before).min(piece.len());
        if shown == piece.len() {
            self.clipping = false;
            return (piece, None);
        }
        let begins = !std::mem::replace(&mut self.clipping, true);
        let note = begins.then(|| format!("\n[output clipped, log limit {named} reached]\n"));
        (&piece[..shown], note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::AsyncWriteExt as _;

    #[test]
    fn what_is_too_fast_is_clipped_until_time_has_passed() {
        let mut clip = Clip::default();
        let second = vec![b'x'; MAX_BYTES_PER_SECOND];
        assert_eq!(clip.take(&second, Duration::ZERO), (&second[..], None));
        let (shown, note) = clip.take(b"more", Duration::ZERO);
        assert!(shown.is_empty());
        assert_eq!(
            note.as_deref(),
            Some("\n[output clipped, log limit 200KiB/s reached]\n")
        );
        assert_eq!(clip.take(b"more", Duration::ZERO), (&b""[..], None));
        let (shown, note) = clip.take(b"again", Duration::from_secs(1));
        assert_eq!((shown, note), (&b"again"[..], None));
    }

    #[test]
    fn a_long_step_is_clipped_at_its_size() {
        let mut clip = Clip::default();
        let late = Duration::from_secs(3600);
        let nearly = vec![b'x'; MAX_BYTES - 2];
        assert_eq!(clip.take(&nearly, late).0.len(), nearly.len());
        let (shown, note) = clip.take(b"abcd", late);
        assert_eq!(shown, b"ab");
        assert_eq!(
            note.as_deref(),
            Some("\n[output clipped, log limit 2MiB reached]\n")
        );
    }

    #[tokio::test]
    async fn frames_are_told_apart_however_they_arrive() {
        let (mut keeper, ours) = UnixStream::pair().unwrap();
        let heard = Arc::new(Mutex::new((String::new(), String::new())));
        let sink: OutputSink = {
            let heard = Arc::clone(&heard);
            Arc::new(move |kind, bytes| {
                let mut heard = heard.lock().unwrap();
                let text = std::str::from_utf8(bytes).unwrap();
                match kind {
                    StreamKind::Stdout => heard.0.push_str(text),
                    StreamKind::Stderr => heard.1.push_str(text),
                }
            })
        };
        let write = async move {
            let frames = b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\x01!";
            for byte in frames {
                keeper.write_all(&[*byte]).await.unwrap();
            }
        };
        let (read, ()) = tokio::join!(pass_on(ours, &sink), write);
        read.unwrap();
        assert_eq!(*heard.lock().unwrap(), ("hello!".into(), "err".into()));
    }
}
