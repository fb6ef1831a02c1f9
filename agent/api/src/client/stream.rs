//! Streams of replies: JSON values one after the other, and output in frames.

use super::error::{ClientError, Result};
use crate::types::{FRAME_HEADER, MULTIPLEXED_STREAM, StreamKind};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Longest single value of a JSON stream, bytes.
const MAX_VALUE: usize = 16 << 20;

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The body of a reply as a stream of bytes.
pub(super) fn bytes_of(response: Response<Incoming>, what: &'static str) -> ByteStream {
    let stream = response.into_body().into_data_stream();
    Box::pin(futures_util::StreamExt::map(stream, move |chunk| {
        chunk.map_err(|source| ClientError::Transport {
            what: what.to_owned(),
            source: source.into(),
        })
    }))
}

/// Concatenated JSON values, with or without line ends between them.
pub struct JsonStream<T> {
    body: ByteStream,
    buffer: BytesMut,
    path: &'static str,
    ended: bool,
    value: PhantomData<fn() -> T>,
}

impl<T> JsonStream<T> {
    pub(super) fn new(response: Response<Incoming>, path: &'static str) -> Self {
        Self {
            body: bytes_of(response, path),
            buffer: BytesMut::new(),
            path,
            ended: false,
            value: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Stream for JsonStream<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(value) = next_value(&mut this.buffer, this.ended) {
                let path = this.path.to_owned();
                return Poll::Ready(Some(
                    value.map_err(|source| ClientError::Decode { path, source }),
                ));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.body.as_mut().poll_next(context)) {
                Some(Ok(chunk)) if this.buffer.len() + chunk.len() <= MAX_VALUE => {
                    this.buffer.extend_from_slice(&chunk)
                }
                Some(Ok(_)) => {
                    this.ended = true;
                    this.buffer.clear();
                    let reason = format!("a value of more than {MAX_VALUE} bytes");
                    return Poll::Ready(Some(Err(ClientError::Protocol {
                        path: this.path.to_owned(),
                        reason,
                    })));
                }
                Some(Err(error)) => {
                    this.ended = true;
                    this.buffer.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.ended = true,
            }
        }
    }
}

/// Takes the first complete value off the buffer; an incomplete rest is an error only at the end.
fn next_value<T: DeserializeOwned>(
    buffer: &mut BytesMut,
    ended: bool,
) -> Option<serde_json::Result<T>> {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<T>();
    match values.next()? {
        Err(error) if error.is_eof() && !ended => None,
        Ok(value) => {
            let used = values.byte_offset();
            buffer.advance(used);
            Some(Ok(value))
        }
        Err(error) => {
            buffer.clear();
            Some(Err(error))
        }
    }
}

/// A piece of a container's output; pieces of one stream are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it was written; with a terminal everything is [`StreamKind::Stdout`].
    pub kind: StreamKind,
    /// At least one byte.
    pub data: Bytes,
}

/// Output of logs, attach and exec, frames taken apart.
pub struct OutputStream {
    body: ByteStream,
    frames: Option<Frames>,
    pending: Bytes,
}

impl OutputStream {
    /// Framed or raw, as the reply's content type says.
    pub(super) fn new(body: ByteStream, multiplexed: bool) -> Self {
        Self {
            body,
            frames: multiplexed.then(Frames::default),
            pending: Bytes::new(),
        }
    }
}

/// Whether a reply says that its body is framed.
pub(super) fn is_multiplexed<T>(response: &Response<T>) -> bool {
    response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes() == MULTIPLEXED_STREAM.as_bytes())
}

impl Stream for OutputStream {
    type Item = Result<OutputChunk>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let next = match &mut this.frames {
                None => (!this.pending.is_empty()).then(|| {
                    Ok(OutputChunk {
                        kind: StreamKind::Stdout,
                        data: std::mem::take(&mut this.pending),
                    })
                }),
                Some(frames) => frames.next(&mut this.pending),
            };
            match next {
                Some(Ok(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Some(Err(error)) => {
                    this.pending.clear();
                    this.body = Box::pin(futures_util::stream::empty());
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
            match ready!(this.body.as_mut().poll_next(context)) {
                Some(Ok(chunk)) => this.pending = chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Takes frames apart without holding a whole one: payload is handed on as it arrives.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; FRAME_HEADER],
    /// Bytes of `header` that are there.
    filled: usize,
    /// The frame whose payload is being read, and how much of it is still to come.
    current: Option<(StreamKind, u32)>,
}

impl Frames {
    /// The next piece of payload in `input`, which is consumed; `None` when more input is needed.
    fn next(&mut self, input: &mut Bytes) -> Option<Result<OutputChunk>> {
        while !input.is_empty() {
            if let Some((kind, left)) = self.current {
                let take = input.len().min(left as usize);
                let data = input.split_to(take);
                let left = left - u32::try_from(take).expect("no more than left, which is a u32");
                self.current = (left > 0).then_some((kind, left));
                if kind == StreamKind::System {
                    let message = String::from_utf8_lossy(&data).trim().to_owned();
                    return Some(Err(ClientError::Api {
                        status: 500,
                        message,
                    }));
                }
                return Some(Ok(OutputChunk { kind, data }));
            }
            let take = input.len().min(FRAME_HEADER - self.filled);
            self.header[self.filled..self.filled + take].copy_from_slice(&input.split_to(take));
            self.filled += take;
            if self.filled == FRAME_HEADER {
                self.filled = 0;
                match StreamKind::parse(self.header) {
                    Some((_, 0)) => {}
                    Some(frame) => self.current = Some(frame),
                    None => {
                        let reason = format!("a frame of stream {}", self.header[0]);
                        return Some(Err(ClientError::Protocol {
                            path: "an output stream".to_owned(),
                            reason,
                        }));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn output(chunks: Vec<Vec<u8>>, multiplexed: bool) -> OutputStream {
        let body =
            futures_util::stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        OutputStream::new(Box::pin(body), multiplexed)
    }

    fn frame(kind: StreamKind, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.header(u32::try_from(data.len()).unwrap()).to_vec();
        bytes.extend_from_slice(data);
        bytes
    }

    async fn text(stream: OutputStream) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        for chunk in stream.map(|chunk| chunk.unwrap()).collect::<Vec<_>>().await {
            let into = if chunk.kind == StreamKind::Stderr {
                &mut err
            } else {
                &mut out
            };
            into.push_str(std::str::from_utf8(&chunk.data).unwrap());
        }
        (out, err)
    }

    #[tokio::test]
    async fn frames_survive_any_cut() {
        let mut bytes = frame(StreamKind::Stdout, b"hello ");
        bytes.extend(frame(StreamKind::Stderr, b"oops"));
        bytes.extend(frame(StreamKind::Stdout, b""));
        bytes.extend(frame(StreamKind::Stdout, b"world"));
        for size in 1..bytes.len() {
            let chunks = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(
                text(output(chunks, true)).await,
                ("hello world".into(), "oops".into()),
                "cut every {size}"
            );
        }
    }

    #[tokio::test]
    async fn raw_output_is_handed_on() {
        assert_eq!(
            text(output(vec![b"a".to_vec(), b"b".to_vec()], false)).await,
            ("ab".into(), String::new())
        );
    }

    #[tokio::test]
    async fn an_error_frame_and_an_unknown_stream_end_the_output() {
        let error = output(vec![frame(StreamKind::System, b"disk full")], true)
            .next()
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.to_string(), "disk full");
        let mut stream = output(vec![vec![9, 0, 0, 0, 0, 0, 0, 1, b'x']], true);
        assert!(stream.next().await.unwrap().is_err());
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn json_values_are_taken_one_by_one() {
        let mut buffer = BytesMut::from(&b"{\"a\":1}\n{\"a\":2}{\"a\""[..]);
        let value = |buffer: &mut BytesMut, ended| {
            next_value::<serde_json::Value>(buffer, ended)
                .map(|value| value.map(|value| value["a"].clone()))
        };
        assert_eq!(value(&mut buffer, false).unwrap().unwrap(), 1);
        assert_eq!(value(&mut buffer, false).unwrap().unwrap(), 2);
        assert!(value(&mut buffer, false).is_none());
        assert!(value(&mut buffer, true).unwrap().is_err());
        assert!(value(&mut BytesMut::from(&b" \n"[..]), true).is_none());
    }
}
