//! One connection: HTTP/1.1 until a handler takes it away.
//!
//! Knows neither routes nor headers. When the client leaves, the request in work is dropped; when the daemon stops, the
//! request in work is finished and the connection closed.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body::Reply;
use super::hijack::{Taken, Takeover};

/// How long a client may take to send the head of a request, and a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Bound of the buffer for what a client sends.
const READ_BUFFER: usize = 64 * 1024;
/// How long a client may go on sending what nobody wants any more; as in Go's net/http (`rstAvoidanceDelay`).
const LINGER: Duration = Duration::from_millis(500);

/// Serves a connection from accept to close.
pub(super) async fn serve<A, F>(stream: UnixStream, answer: A, closing: CancellationToken)
where
    A: Fn(Request<Incoming>, Takeover) -> F + Unpin,
    F: Future<Output = Reply>,
{
    let (takeover, mut jobs) = Takeover::channel();
    let service = service_fn(move |request| {
        let reply = answer(request, takeover.clone());
        Box::pin(async move { Ok::<_, Infallible>(reply.await) })
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut asked_to_close = false;
    let job = loop {
        tokio::select! {
            biased;
            Some(job) = jobs.recv() => break Some(job),
            result = poll_fn(|context| http.poll_without_shutdown(context)) => {
                if let Err(failure) = result {
                    debug!(error = %failure, "connection ended early");
                }
                break None;
            }
            () = closing.cancelled(), if !asked_to_close => {
                asked_to_close = true;
                std::pin::Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    let parts = http.into_parts();
    let taken = Taken {
        stream: parts.io.into_inner(),
        early: parts.read_buf,
    };
    let rest = async {
        match job {
            Some(job) => job(taken).await,
            None => linger(taken.stream).await,
        }
    };
    tokio::select! {
        () = rest => {}
        () = closing.cancelled() => {}
    }
}

/// Closes a connection without breaking off a client that still sends the body of a request which was refused: it would
/// see its own write fail and never read why.
async fn linger(mut stream: UnixStream) {
    let discard = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; READ_BUFFER];
        while stream.read(&mut buffer).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}

#[cfg(test)]
mod tests {
    use super::super::{body, error::HttpError};
    use super::*;
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use tokio::sync::Notify;

    async fn within<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), work)
            .await
            .expect("must not hang")
    }

    /// The client's end of a connection with this handler, and the token that stops the daemon.
    fn client<A, F>(answer: A) -> (UnixStream, CancellationToken)
    where
        A: Fn(Request<Incoming>, Takeover) -> F + Unpin + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let (client, server) = UnixStream::pair().unwrap();
        let closing = CancellationToken::new();
        tokio::spawn(serve(server, answer, closing.clone()));
        (client, closing)
    }

    /// Reads until the text is there.
    async fn read_until(client: &mut UnixStream, end: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            assert!(
                within(client.read_buf(&mut read)).await.unwrap() > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&read)
            );
        }
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn a_handler_takes_the_connection_with_what_was_sent_early() {
        let (mut client, _closing) = client(|mut request, takeover| async move {
            let sent = request.body_mut().collect().await.unwrap().to_bytes();
            let echo = takeover.take(move |mut taken: Taken| async move {
                taken.stream.write_all(b"RAW ").await.unwrap();
                taken.stream.write_all(&sent).await.unwrap();
                taken.stream.write_all(&taken.early).await.unwrap();
                let (mut input, mut output) = taken.stream.split();
                tokio::io::copy(&mut input, &mut output).await.unwrap();
            });
            echo.await.unwrap_or_else(HttpError::into_reply)
        });
        let request = b"POST /x HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 4\r\n\r\nbodyearly ";
        client.write_all(request).await.unwrap();
        assert_eq!(read_until(&mut client, "early ").await, "RAW bodyearly ");
        client.write_all(b"late").await.unwrap();
        assert_eq!(read_until(&mut client, "late").await, "late");
        client.shutdown().await.unwrap();
        assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn without_an_upgrade_the_connection_is_taken_as_well() {
        let (mut client, _closing) = client(|_, takeover| async move {
            let reply = takeover.take(|mut taken: Taken| async move {
                taken
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\nraw")
                    .await
                    .unwrap();
            });
            reply.await.unwrap_or_else(HttpError::into_reply)
        });
        client
            .write_all(b"POST /x HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        let mut all = String::new();
        within(client.read_to_string(&mut all)).await.unwrap();
        assert_eq!(all, "HTTP/1.1 200 OK\r\n\r\nraw");
    }

    #[tokio::test]
    async fn the_head_of_a_stream_goes_out_before_its_first_chunk() {
        let go_on = Arc::new(Notify::new());
        let waiting = Arc::clone(&go_on);
        let (mut client, _closing) = client(move |_, _| {
            let waiting = Arc::clone(&waiting);
            async move {
                body::stream(
                    "application/json",
                    stream::once(async move {
                        waiting.notified().await;
                        Ok(Bytes::from_static(b"{}\n"))
                    }),
                )
            }
        });
        client
            .write_all(b"POST /wait HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"), "{head}");
        go_on.notify_one();
        assert_eq!(
            read_until(&mut client, "0\r\n\r\n").await,
            "3\r\n{}\n\r\n0\r\n\r\n"
        );
    }

    /// Tells when it is dropped.
    struct Dropped(Arc<Notify>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_client_leaves() {
        let dropped = Arc::new(Notify::new());
        let signal = Arc::clone(&dropped);
        let (mut client, _closing) = client(move |_, _| {
            let guard = Dropped(Arc::clone(&signal));
            async move {
                let endless = stream::unfold(guard, |guard| async move {
                    std::future::pending::<()>().await;
                    Some((Ok(Bytes::new()), guard))
                });
                body::stream("application/json", endless)
            }
        });
        client
            .write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut client, "\r\n\r\n").await;
        drop(client);
        within(dropped.notified()).await;
    }

    #[tokio::test]
    async fn a_client_that_still_sends_can_read_why_it_was_refused() {
        let (mut client, _closing) =
            client(|_, _| async { HttpError::bad_request("no").into_reply() });
        client
            .write_all(b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 8000000\r\n\r\n")
            .await
            .unwrap();
        let (mut answers, mut body) = client.split();
        let send = async {
            for _ in 0..80 {
                body.write_all(&[0; 100_000]).await?;
            }
            std::io::Result::Ok(())
        };
        let read = async {
            let mut all = String::new();
            answers.read_to_string(&mut all).await.unwrap();
            all
        };
        let (sent, answer) = within(async { tokio::join!(send, read) }).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
        sent.expect("nothing is broken off while the client sends");
    }

    #[tokio::test]
    async fn a_daemon_that_stops_finishes_the_request_in_work() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (working, waiting) = (Arc::clone(&begun), Arc::clone(&go_on));
        let (mut client, closing) = client(move |_, _| {
            let (working, waiting) = (Arc::clone(&working), Arc::clone(&waiting));
            async move {
                working.notify_one();
                waiting.notified().await;
                body::ok(&7)
            }
        });
        client
            .write_all(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
            .await
            .unwrap();
        within(begun.notified()).await;
        closing.cancel();
        go_on.notify_one();
        let mut all = String::new();
        within(client.read_to_string(&mut all)).await.unwrap();
        assert!(
            all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\n7\n"),
            "{all}"
        );
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_the_other() {
        let (mut client, _closing) =
            client(|request, _| async move { body::ok(request.uri().path()) });
        for path in ["/a", "/b"] {
            client
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let reply = read_until(&mut client, &format!("\"{path}\"\n")).await;
            assert!(reply.contains("Content-Length: 5\r\n"), "{reply}");
        }
    }
}
