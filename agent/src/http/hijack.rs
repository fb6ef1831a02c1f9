//! Attach and exec: the connection stops being HTTP and becomes two byte streams.
//!
//! ```text
//! client ──▶ [detach keys, terminals only] ──▶ container's stdin      client's shutdown(WR) = end of stdin
//! client ◀──────────────────────────────────── container's output     end of output = end of the connection
//! ```
//!
//! A client that sends `Upgrade` gets `101 UPGRADED`, any other a `200` head without length; both heads are written here
//! by hand, because that is what clients were built against. The bytes of the container are passed on as they are: they
//! were framed where they were read. Nothing here knows what runs at the other end.
//!
//! Source: moby `api/server/router/container/container_routes.go` (`postContainersAttach`), `exec.go`, moby/term `proxy.go`.

use std::future::{Future, pending};
use std::io;

use agent_api::{FRAME_HEADER, MULTIPLEXED_STREAM, RAW_STREAM, StreamKind};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http::header::UPGRADE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::Outcome;
use super::error::HttpError;
use super::router::ApiVersion;

/// Bytes copied at a time, in each direction.
const CHUNK: usize = 16 * 1024;
/// Longest sequence of detach keys.
const MAX_DETACH_KEYS: usize = 64;

/// A connection after HTTP.
pub(super) struct Taken {
    pub(super) stream: UnixStream,
    /// What was read beyond the request.
    pub(super) early: Bytes,
}

/// What goes on with a connection after HTTP.
pub(super) type Job = Box<dyn FnOnce(Taken) -> BoxFuture<'static, ()> + Send>;

/// Takes a connection away from HTTP.
#[derive(Clone)]
pub(super) struct Takeover(mpsc::Sender<Job>);

impl Takeover {
    /// The handle for handlers and the end that the connection's task watches.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Hands the connection to `job`. Never returns on success: the handler is dropped with the rest of HTTP.
    pub(super) async fn take<F, W>(self, job: F) -> Outcome
    where
        F: FnOnce(Taken) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let job: Job = Box::new(move |taken| Box::pin(job(taken)));
        if self.0.send(job).await.is_err() {
            return Err(HttpError::internal("the connection is gone"));
        }
        pending().await
    }
}

/// The bytes that answer a request whose connection is taken over. `more` are header lines.
pub(super) fn head(headers: &HeaderMap, version: ApiVersion, tty: bool, more: &str) -> String {
    if !headers.contains_key(UPGRADE) {
        return format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n{more}\r\n");
    }
    let content_type = if tty || version.before(42) {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    };
    format!(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{more}\r\n"
    )
}

/// Text as it has to look in the stream: framed unless there is a terminal.
pub(super) fn in_stream(kind: StreamKind, tty: bool, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEADER + text.len());
    if !tty {
        let length = u32::try_from(text.len()).expect("messages are far shorter than 4 GiB");
        bytes.extend_from_slice(&kind.header(length));
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Copies until the output ends, the client has gone or the detach keys were typed. After the output the connection stays
/// open until `settled` resolves: a client that asks for the exit code then must get it.
pub(super) async fn splice<S>(
    taken: Taken,
    attached: UnixStream,
    detach: Option<DetachKeys>,
    settled: S,
) -> io::Result<()>
where
    S: Future<Output = ()>,
{
    let Taken { mut stream, early } = taken;
    let mut attached = attached;
    let hung_up = watch_hang_up(&stream)?;
    let (client_in, mut client_out) = stream.split();
    let (mut output, input) = attached.split();
    {
        let copy_out = async {
            copy(&mut output, &mut client_out).await?;
            settled.await;
            Ok::<_, io::Error>(())
        };
        let copy_in = async {
            match forward_input(client_in, early, input, detach).await {
                // Half-closed: output goes on until the client is gone altogether.
                InputEnd::Closed => hung_up.await,
                InputEnd::Detached => {}
            }
        };
        tokio::select! {
            result = copy_out => result?,
            () = copy_in => return Ok(()),
        }
    }
    client_out.shutdown().await
}

/// How the client's side of the input ended.
enum InputEnd {
    /// End of file, an error, or nobody to take it.
    Closed,
    /// The detach keys.
    Detached,
}

async fn forward_input(
    mut client: ReadHalf<'_>,
    early: Bytes,
    mut input: WriteHalf<'_>,
    detach: Option<DetachKeys>,
) -> InputEnd {
    let mut filter = detach.map(DetachFilter::new);
    let mut buffer = vec![0; CHUNK];
    let mut passed = Vec::new();
    let mut chunk: &[u8] = &early;
    loop {
        let mut found = false;
        let bytes = match &mut filter {
            None => chunk,
            Some(filter) => {
                passed.clear();
                found = filter.feed(chunk, &mut passed);
                &passed
            }
        };
        if !bytes.is_empty() && input.write_all(bytes).await.is_err() {
            return InputEnd::Closed;
        }
        if found {
            return InputEnd::Detached;
        }
        chunk = match client.read(&mut buffer).await {
            Ok(length @ 1..) => &buffer[..length],
            Ok(0) | Err(_) => {
                if let Some(filter) = &mut filter {
                    // Keys that turned out not to be the sequence belong to the container.
                    let _ = input.write_all(filter.rest()).await;
                }
                let _ = input.shutdown().await;
                return InputEnd::Closed;
            }
        };
    }
}

async fn copy(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}

/// Resolves when the peer has closed both directions. Reading cannot tell that from a half-close; a second registration of
/// the socket for writability is told by `EPOLLHUP`.
fn watch_hang_up(stream: &UnixStream) -> io::Result<impl Future<Output = ()> + use<>> {
    let socket = rustix::io::fcntl_dupfd_cloexec(stream, 3)?;
    Ok(async move {
        let Ok(socket) = UnixStream::from_std(socket.into()) else {
            return;
        };
        while let Ok(ready) = socket.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            // Forget that it is writable: what comes next is news.
            let _ = socket.try_io(Interest::WRITABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    })
}

/// The key sequence that detaches from a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`; empty is that default.
    pub(super) fn parse(text: &str) -> Result<Self, HttpError> {
        let invalid = |problem: String| {
            HttpError::bad_request(format!("invalid detach keys ({text}): {problem}"))
        };
        if text.is_empty() {
            return Ok(Self(vec![0x10, 0x11]));
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        match keys {
            Some(keys) if keys.len() <= MAX_DETACH_KEYS => Ok(Self(keys)),
            Some(_) => Err(invalid(format!("more than {MAX_DETACH_KEYS} keys"))),
            None => Err(invalid(
                "a key is one character, ctrl-<a-z, @, [, \\, ], ^ or _> or DEL".to_owned(),
            )),
        }
    }
}

/// Source: moby/term `ascii.go`.
fn key(name: &str) -> Option<u8> {
    match name.as_bytes() {
        [byte] => Some(*byte),
        b"DEL" => Some(0x7f),
        [b'c', b't', b'r', b'l', b'-', byte] => match byte.to_ascii_uppercase() {
            control @ b'@'..=b'_' => Some(control - b'@'),
            _ => None,
        },
        _ => None,
    }
}

/// Looks for the keys in a stream that comes in pieces. A beginning of the sequence is held back until it is clear whether
/// it is one.
#[derive(Debug)]
struct DetachFilter {
    keys: Vec<u8>,
    /// The end of what was seen, as far as it may be the beginning of the sequence.
    held: Vec<u8>,
}

impl DetachFilter {
    fn new(keys: DetachKeys) -> Self {
        Self {
            keys: keys.0,
            held: Vec::new(),
        }
    }

    /// Appends to `output` what is not part of the sequence; `true` when the sequence is complete, and then the rest of
    /// `input` is nobody's.
    fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        for &byte in input {
            self.held.push(byte);
            while !self.keys.starts_with(&self.held) {
                output.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.len() {
                self.held.clear();
                return true;
            }
        }
        false
    }

    /// What is held back when the input ends.
    fn rest(&self) -> &[u8] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::time::Duration;

    /// Feeds pieces; what came through, and whether the keys were found.
    fn filter(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut filter = DetachFilter::new(DetachKeys::parse(keys).unwrap());
        let mut output = Vec::new();
        for piece in pieces {
            if filter.feed(piece, &mut output) {
                return (output, true);
            }
        }
        output.extend_from_slice(filter.rest());
        (output, false)
    }

    #[test]
    fn keys_are_read_as_docker_writes_them() {
        for (text, bytes) in [
            ("", &[0x10, 0x11][..]),
            ("ctrl-p,ctrl-q", &[0x10, 0x11]),
            ("ctrl-@,ctrl-[,ctrl-_", &[0, 27, 31]),
            ("a,B,DEL", &[b'a', b'B', 127]),
        ] {
            assert_eq!(
                DetachKeys::parse(text),
                Ok(DetachKeys(bytes.to_vec())),
                "{text}"
            );
        }
        for text in ["ctrl-", "ctrl-1", "ab", "a,", &vec!["a"; 65].join(",")] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_sequence_is_found_wherever_it_is_cut() {
        assert_eq!(filter("", &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(filter("", &[b"ab\x10", b"\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(filter("x", &[b"abxcd"]), (b"ab".to_vec(), true));
        assert_eq!(filter("a,a,b", &[b"a", b"a", b"b"]), (Vec::new(), true));
        assert_eq!(filter("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
    }

    #[test]
    fn half_a_sequence_is_given_back() {
        assert_eq!(filter("", &[b"\x10x"]), (b"\x10x".to_vec(), false));
        assert_eq!(filter("", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(filter("", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(filter("", &[b"\x10"]), (b"\x10".to_vec(), false));
        assert_eq!(
            filter("a,b,c", &[b"abab", b"x"]),
            (b"ababx".to_vec(), false)
        );
    }

    proptest::proptest! {
        /// However the input is cut: what comes out is what a search in the whole input finds.
        #[test]
        fn cuts_do_not_matter(input in proptest::collection::vec(0_u8..3, 0..40), cuts in proptest::collection::vec(1_usize..5, 0..40)) {
            let keys = DetachKeys(vec![1, 1, 2]);
            let mut filter = DetachFilter::new(keys);
            let (mut output, mut rest, mut found) = (Vec::new(), &input[..], false);
            for cut in cuts.into_iter().chain([40]) {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                rest = tail;
                if filter.feed(piece, &mut output) {
                    found = true;
                    break;
                }
            }
            if !found {
                output.extend_from_slice(filter.rest());
            }
            let place = input.windows(3).position(|part| part == [1, 1, 2]);
            proptest::prop_assert_eq!(found, place.is_some());
            proptest::prop_assert_eq!(&output[..], &input[..place.unwrap_or(input.len())]);
        }
    }

    #[test]
    fn heads_are_dockers() {
        let mut upgrade = HeaderMap::new();
        upgrade.insert(UPGRADE, HeaderValue::from_static("tcp"));
        let upgraded = |content_type: &str| {
            format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        };
        assert_eq!(
            head(&upgrade, ApiVersion(1, 42), false, ""),
            upgraded("application/vnd.docker.multiplexed-stream")
        );
        assert_eq!(
            head(&upgrade, ApiVersion(1, 41), false, ""),
            upgraded("application/vnd.docker.raw-stream")
        );
        assert_eq!(
            head(&upgrade, ApiVersion(1, 51), true, ""),
            upgraded("application/vnd.docker.raw-stream")
        );
        assert_eq!(
            head(
                &HeaderMap::new(),
                ApiVersion(1, 51),
                false,
                "Ostype: linux\r\n"
            ),
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nOstype: linux\r\n\r\n"
        );
    }

    #[test]
    fn text_is_framed_unless_there_is_a_terminal() {
        assert_eq!(
            in_stream(StreamKind::Stderr, false, "no"),
            b"\x02\0\0\0\0\0\0\x02no"
        );
        assert_eq!(in_stream(StreamKind::Stderr, true, "no"), b"no");
    }

    /// A splice between two socket pairs: the client's end, the container's end and the task.
    fn spliced(
        early: &'static [u8],
        keys: Option<&str>,
    ) -> (
        UnixStream,
        UnixStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (client, ours) = UnixStream::pair().unwrap();
        let (container, attached) = UnixStream::pair().unwrap();
        let taken = Taken {
            stream: ours,
            early: Bytes::from_static(early),
        };
        let keys = keys.map(|keys| DetachKeys::parse(keys).unwrap());
        (
            client,
            container,
            tokio::spawn(splice(taken, attached, keys, async {})),
        )
    }

    async fn within<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), work)
            .await
            .expect("must not hang")
    }

    #[tokio::test]
    async fn a_half_close_ends_stdin_and_output_goes_on() {
        let (mut client, mut container, task) = spliced(b"early ", None);
        client.write_all(b"input").await.unwrap();
        client.shutdown().await.unwrap();
        let mut input = Vec::new();
        within(container.read_to_end(&mut input)).await.unwrap();
        assert_eq!(input, b"early input");
        container.write_all(b"output").await.unwrap();
        drop(container);
        let mut output = Vec::new();
        within(client.read_to_end(&mut output)).await.unwrap();
        assert_eq!(output, b"output");
        within(task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_splice() {
        let (client, mut container, task) = spliced(b"", None);
        drop(client);
        within(task).await.unwrap().unwrap();
        assert_eq!(within(container.read(&mut [0; 8])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_leaves_after_a_half_close_ends_the_splice() {
        let (mut client, container, task) = spliced(b"", None);
        client.shutdown().await.unwrap();
        let mut container = container;
        assert_eq!(within(container.read(&mut [0; 8])).await.unwrap(), 0);
        drop(client);
        within(task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn detach_keys_end_the_connection_and_nothing_else() {
        let (mut client, mut container, task) = spliced(b"", Some("ctrl-p,ctrl-q"));
        client.write_all(b"ls\n\x10\x11").await.unwrap();
        let mut line = [0; 3];
        within(container.read_exact(&mut line)).await.unwrap();
        assert_eq!(&line, b"ls\n");
        within(task).await.unwrap().unwrap();
        assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn megabytes_pass_in_both_directions_at_once() {
        let (client, container, task) = spliced(b"", None);
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut client_in, mut client_out) = client.into_split();
        let (mut container_in, mut container_out) = container.into_split();
        let (up, down) = (data.clone(), data.clone());
        let send_up = async move {
            client_out.write_all(&up).await.unwrap();
            client_out.shutdown().await.unwrap();
        };
        let echo = async move {
            let mut received = Vec::new();
            let send = async {
                container_out.write_all(&down).await.unwrap();
            };
            tokio::join!(send, async {
                container_in.read_to_end(&mut received).await.unwrap()
            });
            drop(container_out);
            received
        };
        let receive_down = async move {
            let mut received = Vec::new();
            client_in.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received_up, received_down) =
            within(async { tokio::join!(send_up, echo, receive_down) }).await;
        assert!(received_up == data && received_down == data);
        within(task).await.unwrap().unwrap();
    }
}
