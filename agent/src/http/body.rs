//! Replies and their bodies: nothing, a value, or a stream that is flushed as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use serde::Serialize;

/// A whole reply.
pub(super) type Reply = Response<Body>;

/// The producer of a streamed body failed after the reply had begun: all that is left is to break the connection off, so
/// that the client does not take the part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the reply broke off: {0}")]
pub(super) struct BrokenOff(pub(super) String);

/// Body of a reply.
pub(super) enum Body {
    /// No byte, or all of them.
    Full(Option<Bytes>),
    /// Chunks; each is sent as soon as it is there.
    Stream(BoxStream<'static, Result<Bytes, BrokenOff>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream
                .poll_next_unpin(context)
                .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_end_stream() {
            "Body(empty)"
        } else {
            "Body"
        })
    }
}

/// A reply without a body: 204, 304, 201.
pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Body::Full(None));
    *reply.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        reply
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    reply
}

/// A JSON reply; like Go's encoder, with a newline at the end.
pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Reply {
    let mut reply = Response::new(Body::Full(Some(line(value))));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// A 200 JSON reply.
pub(super) fn ok<T: Serialize + ?Sized>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// One value as a line of JSON.
pub(super) fn line<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut bytes =
        serde_json::to_vec(value).expect("wire types have string keys and no failing serialisers");
    bytes.push(b'\n');
    bytes.into()
}

/// A reply whose head goes out at once and whose chunks follow as they come.
pub(super) fn stream<S>(content_type: &'static str, chunks: S) -> Reply
where
    S: Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static,
{
    let mut reply = Response::new(Body::Stream(chunks.boxed()));
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// The same for values that are sent as lines of JSON.
pub(super) fn json_lines<S, T>(values: S) -> Reply
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize,
{
    stream("application/json", values.map(|value| Ok(line(&value))))
}
