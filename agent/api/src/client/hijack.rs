//! Attach and exec: a request that turns its connection into a two-way stream.

use super::Client;
use super::error::{ClientError, Result};
use super::stream::{OutputStream, is_multiplexed};
use super::transport::Body;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, WriteHalf};
use tokio_util::io::ReaderStream;

/// A connection to a container's or an exec's standard streams. Shutting down the writing side ends its stdin while
/// output goes on. Reading gives the bytes as they come, framed when [`Hijacked::multiplexed`].
#[derive(Debug)]
pub struct Hijacked {
    stream: TokioIo<Upgraded>,
    multiplexed: bool,
}

/// The writing side: standard input of the process. `shutdown` is end of file.
pub type HijackedInput = WriteHalf<Hijacked>;

impl Hijacked {
    /// Whether output comes in frames (no terminal) or raw.
    #[must_use]
    pub fn multiplexed(&self) -> bool {
        self.multiplexed
    }

    /// Output with its frames taken apart, and input.
    #[must_use]
    pub fn split(self) -> (OutputStream, HijackedInput) {
        let multiplexed = self.multiplexed;
        let (read, write) = tokio::io::split(self);
        let bytes =
            futures_util::StreamExt::map(ReaderStream::with_capacity(read, 32 << 10), |chunk| {
                chunk.map_err(|source| ClientError::Transport {
                    what: "attached output".to_owned(),
                    source: source.into(),
                })
            });
        (OutputStream::new(Box::pin(bytes), multiplexed), write)
    }
}

impl Client {
    /// Sends a request that asks for the raw connection.
    pub(super) async fn hijack(&self, request: Request<Body>) -> Result<Hijacked> {
        self.upgrade(request, "tcp").await
    }

    /// Sends a request that asks for another protocol on its connection.
    pub(super) async fn upgrade(
        &self,
        mut request: Request<Body>,
        protocol: &'static str,
    ) -> Result<Hijacked> {
        let path = request.uri().path().to_owned();
        request
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static(protocol));
        let response = self.stream(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("{} in place of an upgraded connection", response.status());
            return Err(ClientError::Protocol { path, reason });
        }
        let multiplexed = is_multiplexed(&response);
        let stream =
            hyper::upgrade::on(response)
                .await
                .map_err(|source| ClientError::Transport {
                    what: path,
                    source: source.into(),
                })?;
        Ok(Hijacked {
            stream: TokioIo::new(stream),
            multiplexed,
        })
    }
}

impl AsyncRead for Hijacked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
