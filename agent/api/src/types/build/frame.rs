//! Frames of the build protocol: `length:u32 BE, kind:u8, channel:u32 BE, payload`, the length being the payload's.
//! Without I/O: bytes in, frames out, and back.

use super::result::Message;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Bytes in front of a payload.
const HEADER: usize = 9;
/// Longest payload of [`FrameKind::Data`], bytes.
pub const MAX_DATA: usize = 64 << 10;
/// Longest payload of [`FrameKind::Message`], bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Longest payload of [`FrameKind::Reset`], bytes; a longer reason is cut.
pub const MAX_REASON: usize = 4 << 10;
/// Longest secret, bytes.
pub const MAX_SECRET: usize = 500 << 10;
/// Channels that may be open at the same time.
pub const MAX_CHANNELS: usize = 1024;
/// Most lines of [`BuildFailure::tail`](super::BuildFailure::tail).
pub const MAX_TAIL: usize = 100;
/// The channel of messages.
pub const CONTROL: u32 = 0;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// JSON of a [`Message`].
    Message,
    /// Bytes of a channel.
    Data,
    /// No more data of this side on the channel.
    End,
    /// The channel is broken; the payload is the reason. Neither side sends on it any more.
    Reset,
}

impl FrameKind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Message,
            1 => Self::Data,
            2 => Self::End,
            3 => Self::Reset,
            _ => return None,
        })
    }

    /// Longest payload, bytes.
    const fn limit(self) -> usize {
        match self {
            Self::Message => MAX_MESSAGE,
            Self::Data => MAX_DATA,
            Self::End => 0,
            Self::Reset => MAX_REASON,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Which channel it belongs to.
    pub channel: u32,
    /// At most the limit of its kind.
    pub payload: Bytes,
}

impl Frame {
    /// A message on channel 0.
    #[must_use]
    pub fn message(message: &Message) -> Self {
        let payload = serde_json::to_vec(message).expect("messages have a JSON form");
        Self::new(FrameKind::Message, CONTROL, payload)
    }

    /// Bytes of a channel, at most [`MAX_DATA`] of them.
    #[must_use]
    pub fn data(channel: u32, payload: impl Into<Bytes>) -> Self {
        Self::new(FrameKind::Data, channel, payload)
    }

    /// This side has no more data for the channel.
    #[must_use]
    pub fn end(channel: u32) -> Self {
        Self::new(FrameKind::End, channel, Bytes::new())
    }

    /// The channel is broken, and why.
    #[must_use]
    pub fn reset(channel: u32, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(
            FrameKind::Reset,
            channel,
            Bytes::copy_from_slice(&reason.as_bytes()[..end]),
        )
    }

    fn new(kind: FrameKind, channel: u32, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            channel,
            payload: payload.into(),
        }
    }

    /// The message in it.
    ///
    /// # Errors
    /// [`FrameError::NotAMessage`] for other frames and other channels, [`FrameError::Json`] when it cannot be read.
    pub fn to_message(&self) -> Result<Message, FrameError> {
        if self.kind != FrameKind::Message || self.channel != CONTROL {
            return Err(FrameError::NotAMessage {
                channel: self.channel,
            });
        }
        Ok(serde_json::from_slice(&self.payload)?)
    }
}

/// Bytes that are no frames, or a frame that must not be sent.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A kind that does not exist.
    #[error("a frame of kind {0}, which there is none of")]
    Kind(u8),
    /// A payload past the limit of its kind.
    #[error(
        "a frame of {length} bytes on channel {channel}, more than the {limit} that are allowed"
    )]
    TooLong {
        /// Which channel.
        channel: u32,
        /// What the header says.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A message was expected.
    #[error("a frame of channel {channel} in place of a message")]
    NotAMessage {
        /// Which channel.
        channel: u32,
    },
    /// A message is not what it should be.
    #[error("a message that cannot be read")]
    Json(#[from] serde_json::Error),
    /// The connection ended within a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The connection failed.
    #[error("the connection of the build failed")]
    Io(#[from] std::io::Error),
}

/// Takes frames apart and puts them together; never holds more than one frame beyond what was read.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if input.len() < HEADER {
            return Ok(None);
        }
        let mut header = &input[..HEADER];
        let length = header.get_u32() as usize;
        let kind = header.get_u8();
        let channel = header.get_u32();
        let kind = FrameKind::parse(kind).ok_or(FrameError::Kind(kind))?;
        check(kind, channel, length)?;
        if input.len() < HEADER + length {
            input.reserve(HEADER + length - input.len());
            return Ok(None);
        }
        input.advance(HEADER);
        Ok(Some(Frame::new(
            kind,
            channel,
            input.split_to(length).freeze(),
        )))
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(input)? {
            None if !input.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, output: &mut BytesMut) -> Result<(), FrameError> {
        let length = frame.payload.len();
        check(frame.kind, frame.channel, length)?;
        output.reserve(HEADER + length);
        output.put_u32(u32::try_from(length).expect("limits are far below 4 GiB"));
        output.put_u8(frame.kind as u8);
        output.put_u32(frame.channel);
        output.extend_from_slice(&frame.payload);
        Ok(())
    }
}

fn check(kind: FrameKind, channel: u32, length: usize) -> Result<(), FrameError> {
    let limit = kind.limit();
    if length > limit {
        return Err(FrameError::TooLong {
            channel,
            length,
            limit,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        let frame = (0_u8..4, any::<u32>(), payload).prop_map(|(kind, channel, payload)| {
            let kind = FrameKind::parse(kind).unwrap();
            let keep = payload.len().min(kind.limit());
            Frame::new(kind, channel, payload[..keep].to_vec())
        });
        proptest::collection::vec(frame, 0..20)
    }

    fn encode(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            FrameCodec.encode(frame.clone(), &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(sent in frames(), cut in 1_usize..64) {
            let mut got = Vec::new();
            let mut buffer = BytesMut::new();
            for chunk in encode(&sent).chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert!(FrameCodec.decode_eof(&mut buffer).unwrap().is_none());
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn arbitrary_bytes_end_in_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = FrameCodec.decode(&mut buffer) {
                prop_assert!(frame.payload.len() <= frame.kind.limit());
            }
            prop_assert!(buffer.capacity() <= bytes.len().max(64) + HEADER + MAX_MESSAGE);
        }
    }

    #[test]
    fn nothing_past_the_limits_is_sent_or_taken() {
        let long = Frame::data(1, vec![0; MAX_DATA + 1]);
        let mut bytes = BytesMut::new();
        assert!(FrameCodec.encode(long, &mut bytes).is_err() && bytes.is_empty());
        let mut header = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 1][..]);
        let error = FrameCodec.decode(&mut header).unwrap_err().to_string();
        assert!(error.contains("4294967295 bytes on channel 1"), "{error}");
        let mut half = BytesMut::from(&encode(&[Frame::end(3)])[..5]);
        assert!(matches!(
            FrameCodec.decode_eof(&mut half),
            Err(FrameError::Truncated)
        ));
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let reason = "ä".repeat(MAX_REASON);
        let frame = Frame::reset(1, &reason);
        assert!(frame.payload.len() <= MAX_REASON);
        assert!(std::str::from_utf8(&frame.payload).is_ok());
    }

    #[test]
    fn messages_travel_on_channel_0_only() {
        let message = Message::Open {
            channel: 1,
            what: super::super::ChannelPurpose::Secret { id: "t".to_owned() },
        };
        let frame = Frame::message(&message);
        assert_eq!(
            std::str::from_utf8(&frame.payload).unwrap(),
            r#"{"type":"open","value":{"channel":1,"what":{"kind":"secret","id":"t"}}}"#
        );
        assert_eq!(frame.to_message().unwrap(), message);
        let other = Frame {
            channel: 2,
            ..frame
        };
        assert!(other.to_message().is_err());
    }
}
