//! Frames of attach, exec and logs when there is no terminal: `[stream,0,0,0,length u32 big endian]` and the payload.

/// Length of a frame's header.
pub const FRAME_HEADER: usize = 8;
/// Content type of framed streams, API 1.42 and later.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of unframed streams and of everything before API 1.42.
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Never sent by a server.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the engine, in place of further output.
    System,
}

impl StreamKind {
    /// The header in front of `length` bytes of this stream.
    #[must_use]
    pub fn header(self, length: u32) -> [u8; FRAME_HEADER] {
        let size = length.to_be_bytes();
        [self as u8, 0, 0, 0, size[0], size[1], size[2], size[3]]
    }

    /// Reads a header; `None` for a stream number that does not exist.
    #[must_use]
    pub fn parse(header: [u8; FRAME_HEADER]) -> Option<(Self, u32)> {
        let kind = match header[0] {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::System,
            _ => return None,
        };
        Some((
            kind,
            u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ))
    }
}
