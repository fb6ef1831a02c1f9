//! A bounded pipe of byte chunks between an async task and a blocking thread, in both directions.
//!
//! The image store reads and writes archives with blocking `Read` and `Write`; request bodies are async streams.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks that may wait in the pipe.
const DEPTH: usize = 8;
/// Chunk size of the writing side.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Makes a pipe.
pub fn byte_pipe() -> (ByteSender, ByteReceiver) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (
        ByteSender {
            sender,
            buffer: Vec::new(),
        },
        ByteReceiver {
            receiver,
            rest: Bytes::new(),
        },
    )
}

/// Where bytes go in. Dropping it is the end of the stream.
pub struct ByteSender {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// Where bytes come out.
pub struct ByteReceiver {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl ByteSender {
    /// Sends one chunk, or the error that ends the stream. `false` when nobody reads any more.
    pub async fn send(&self, chunk: io::Result<Bytes>) -> bool {
        self.sender.send(chunk).await.is_ok()
    }

    /// As [`ByteSender::send`], from a blocking thread.
    pub fn blocking_send(&self, chunk: io::Result<Bytes>) -> bool {
        self.sender.blocking_send(chunk).is_ok()
    }
}

impl ByteReceiver {
    /// The next chunk; `None` at the end.
    pub async fn recv(&mut self) -> Option<io::Result<Bytes>> {
        self.receiver.recv().await
    }
}

/// Blocks; only for threads outside the async runtime.
impl Write for ByteSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        match self.blocking_send(Ok(chunk)) {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the reader is gone",
            )),
        }
    }
}

/// Blocks; only for threads outside the async runtime.
impl Read for ByteReceiver {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.rest = chunk?,
            }
        }
        let length = into.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_across_chunk_borders() {
        let (mut sender, mut receiver) = byte_pipe();
        let sent: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            for part in sent.chunks(777) {
                sender.write_all(part).unwrap();
            }
            sender.flush().unwrap();
        });
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert_eq!(received, expected);
    }

    #[test]
    fn an_error_of_the_sender_reaches_the_reader() {
        let (sender, mut receiver) = byte_pipe();
        assert!(sender.blocking_send(Err(io::Error::other("cut off"))));
        assert_eq!(
            receiver.read(&mut [0; 8]).unwrap_err().to_string(),
            "cut off"
        );
    }

    #[test]
    fn writing_to_nobody_is_a_broken_pipe() {
        let (mut sender, receiver) = byte_pipe();
        drop(receiver);
        sender.write_all(b"x").unwrap();
        assert_eq!(
            sender.flush().unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
