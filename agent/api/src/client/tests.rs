//! The client against a scripted server on a unix socket: real connections, exact bytes.

use super::*;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A socket in a directory of its own, and a client of it.
struct Fixture {
    listener: UnixListener,
    client: Client,
    _directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&format!("unix://{}", path.display())).unwrap();
    Fixture {
        listener,
        client,
        _directory: directory,
    }
}

/// Reads one request's head and, by its content length, its body.
async fn request(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(|n| n.parse().unwrap())
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

async fn reply(stream: &mut UnixStream, status: &str, headers: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Accepts the first connection and answers the client's `_ping`.
async fn accept(listener: &UnixListener, version: &str) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(
        request(&mut stream)
            .await
            .starts_with("GET /_ping HTTP/1.1\r\n")
    );
    reply(
        &mut stream,
        "200 OK",
        &format!("Api-Version: {version}\r\n"),
        "OK",
    )
    .await;
    stream
}

#[tokio::test]
async fn the_lower_of_both_versions_is_spoken_on_one_reused_connection() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    let server = tokio::spawn(async move {
        let mut stream = accept(&listener, "1.47").await;
        assert!(
            request(&mut stream)
                .await
                .starts_with("GET /v1.47/containers/json?all=1 HTTP/1.1\r\n")
        );
        reply(
            &mut stream,
            "200 OK",
            "",
            r#"[{"Id":"a","State":"running","Ports":null}]"#,
        )
        .await;
        assert!(
            request(&mut stream)
                .await
                .starts_with("GET /v1.47/networks HTTP/1.1\r\n")
        );
        reply(&mut stream, "200 OK", "", "[]").await;
    });
    let options = ListContainersOptions {
        all: true,
        ..Default::default()
    };
    let containers = client.list_containers(&options).await.unwrap();
    assert_eq!((containers.len(), containers[0].id.as_str()), (1, "a"));
    assert!(
        client
            .list_networks(&crate::Filters::new())
            .await
            .unwrap()
            .is_empty()
    );
    server.await.unwrap();
}

#[tokio::test]
async fn a_newer_daemon_is_spoken_to_in_our_version_and_a_too_old_one_refused() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    tokio::spawn(async move { accept(&listener, "9.99").await });
    assert_eq!(client.api_version().await.unwrap(), API_VERSION);

    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    tokio::spawn(async move { accept(&listener, "1.24").await });
    let message = client.version().await.unwrap_err().to_string();
    assert!(
        message.contains("speaks API 1.24 at most, 1.44 is the oldest"),
        "{message}"
    );
}

#[tokio::test]
async fn a_connection_that_the_daemon_closed_meanwhile_is_replaced() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    let server = tokio::spawn(async move {
        drop(accept(&listener, "1.51").await);
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(
            request(&mut stream)
                .await
                .starts_with("POST /v1.51/containers/a/start")
        );
        stream
            .write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            .await
            .unwrap();
        // Keep it open until the client is done.
        stream
    });
    client.api_version().await.unwrap();
    assert_eq!(
        client.start_container("a").await.unwrap(),
        Outcome::AlreadyThere
    );
    server.await.unwrap();
}

#[tokio::test]
async fn refusals_carry_the_status_and_the_daemons_words() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    tokio::spawn(async move {
        let mut stream = accept(&listener, "1.51").await;
        let text = request(&mut stream).await;
        assert!(
            text.contains("POST /v1.51/containers/create?name=x HTTP/1.1\r\n"),
            "{text}"
        );
        assert!(text.contains(r#""Image":"none""#), "{text}");
        reply(
            &mut stream,
            "404 Not Found",
            "",
            r#"{"message":"No such image: none"}"#,
        )
        .await;
        request(&mut stream).await;
        reply(&mut stream, "500 Internal Server Error", "", "").await;
    });
    let mut create = crate::ContainerCreateRequest::default();
    create.config.image = "none".into();
    let error = client
        .create_container(Some("x"), None, &create)
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "No such image: none");
    let error = client.info().await.unwrap_err();
    assert_eq!(error.status(), Some(500));
    assert!(error.to_string().contains("without a reason"), "{error}");
}

#[tokio::test]
async fn an_absent_daemon_is_told_with_the_way_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(&format!("unix://{}/none.sock", directory.path().display())).unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(error.is_daemon_absent());
    let message = error.to_string();
    assert!(
        message.contains("/none.sock: is it running? start it with \"muster daemon\""),
        "{message}"
    );
}

#[tokio::test]
async fn a_wait_is_taken_note_of_before_it_ends() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut stream = accept(&listener, "1.51").await;
        assert!(
            request(&mut stream)
                .await
                .contains("/containers/a/wait?condition=removed")
        );
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n")
            .await
            .unwrap();
        gone.await.unwrap();
        stream.write_all(br#"{"StatusCode": 42}"#).await.unwrap();
    });
    let wait = client
        .wait_container("a", WaitCondition::Removed)
        .await
        .unwrap();
    go.send(()).unwrap();
    assert_eq!(wait.result().await.unwrap().status_code, 42);
}

#[tokio::test]
async fn a_hijacked_connection_half_closes_and_keeps_early_output() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    tokio::spawn(async move {
        let mut stream = accept(&listener, "1.51").await;
        let text = request(&mut stream).await.to_ascii_lowercase();
        assert!(
            text.contains("/containers/a/attach?stdin=1&stdout=1&stream=1"),
            "{text}"
        );
        assert!(
            text.contains("upgrade: tcp\r\n") && text.contains("connection: upgrade\r\n"),
            "{text}"
        );
        let head = format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
            crate::MULTIPLEXED_STREAM
        );
        let mut bytes = head.into_bytes();
        bytes.extend(crate::StreamKind::Stdout.header(5));
        bytes.extend(b"first");
        stream.write_all(&bytes).await.unwrap();
        let mut input = Vec::new();
        stream.read_to_end(&mut input).await.unwrap();
        bytes = crate::StreamKind::Stderr
            .header(u32::try_from(input.len()).unwrap())
            .to_vec();
        bytes.extend(input);
        stream.write_all(&bytes).await.unwrap();
    });
    let options = AttachOptions {
        stdin: true,
        stdout: true,
        stream: true,
        ..Default::default()
    };
    let hijacked = client.attach_container("a", &options).await.unwrap();
    assert!(hijacked.multiplexed());
    let (output, mut input) = hijacked.split();
    input.write_all(b"typed").await.unwrap();
    input.shutdown().await.unwrap();
    let mut text = (Vec::new(), Vec::new());
    for chunk in output.collect::<Vec<_>>().await {
        let chunk = chunk.unwrap();
        if chunk.kind == crate::StreamKind::Stderr {
            text.1.extend(chunk.data)
        } else {
            text.0.extend(chunk.data)
        }
    }
    assert_eq!(text, (b"first".to_vec(), b"typed".to_vec()));
}

#[tokio::test]
async fn progress_streams_are_read_message_by_message_while_the_archive_is_sent() {
    let Fixture {
        listener,
        client,
        _directory,
    } = fixture();
    tokio::spawn(async move {
        let mut stream = accept(&listener, "1.51").await;
        let text = request(&mut stream).await.to_ascii_lowercase();
        assert!(
            text.contains("post /v1.51/images/load?quiet=1") && text.contains("chunked"),
            "{text}"
        );
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(body, b"3\r\ntar\r\n0\r\n\r\n");
        reply(
            &mut stream,
            "200 OK",
            "",
            "{\"stream\":\"Loaded image: a\\n\"}\n{\"error\":\"no\"}\n",
        )
        .await;
    });
    let archive = futures_util::stream::iter([Ok(Bytes::from_static(b"tar"))]);
    let messages = client
        .load_images(archive, None, true)
        .await
        .unwrap()
        .map(|message| message.unwrap());
    let messages = messages.collect::<Vec<_>>().await;
    assert_eq!(messages[0].stream.as_deref(), Some("Loaded image: a\n"));
    assert_eq!(messages[1].error.as_deref(), Some("no"));
}
