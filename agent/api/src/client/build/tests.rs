//! A build against a scripted daemon on a unix socket: real connections, frames of the daemon's making.

use super::*;
use crate::types::build::{ChannelPurpose, FailureKind};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::Framed;

type Daemon = Framed<UnixStream, FrameCodec>;

/// A client whose daemon runs the script once the build has been asked for.
fn daemon<F>(script: impl FnOnce(Daemon) -> F + Send + 'static) -> (Client, tempfile::TempDir)
where
    F: Future<Output = ()> + Send,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\nOK";
        stream.write_all(ping).await.unwrap();
        let request = head(&mut stream).await;
        assert!(
            request.starts_with("POST /v1.51/build HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("upgrade: muster-build\r\n"), "{request}");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: muster-build\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        script(Framed::new(stream, FrameCodec)).await;
    });
    let client = Client::new(&format!("unix://{}", path.display())).unwrap();
    (client, directory)
}

async fn head(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    head.replacen(
        "post /v1.51/build http/1.1",
        "POST /v1.51/build HTTP/1.1",
        1,
    )
}

async fn open(daemon: &mut Daemon, channel: u32, what: ChannelPurpose) {
    let frame = Frame::message(&Message::Open { channel, what });
    daemon.send(frame).await.unwrap();
}

/// What the client sends on one channel up to its end, or the reason it gives for none.
async fn read(daemon: &mut Daemon, channel: u32) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let frame = daemon.next().await.unwrap().unwrap();
        assert_eq!(frame.channel, channel);
        match frame.kind {
            FrameKind::Data => bytes.extend_from_slice(&frame.payload),
            FrameKind::End => return Ok(bytes),
            FrameKind::Reset => return Err(String::from_utf8(frame.payload.to_vec()).unwrap()),
            FrameKind::Message => panic!("the client says nothing on channel 0"),
        }
    }
}

async fn done(daemon: &mut Daemon) {
    let frame = Frame::message(&Message::Done(Box::default()));
    daemon.send(frame).await.unwrap();
}

fn secret(id: &str) -> ChannelPurpose {
    ChannelPurpose::Secret { id: id.to_owned() }
}

fn output(id: &str) -> ChannelPurpose {
    ChannelPurpose::Output { id: id.to_owned() }
}

async fn build(client: &Client, offers: Offers) -> Result<BuildResult, BuildError> {
    client.build(&BuildRequest::default(), offers, |_| ()).await
}

#[tokio::test]
async fn credentials_are_given_for_the_registry_that_is_asked_for() {
    let (client, directory) = daemon(|mut daemon| async move {
        let of = |server: &str| ChannelPurpose::Credentials {
            server: server.to_owned(),
        };
        open(&mut daemon, 1, of("here:5000")).await;
        let json = read(&mut daemon, 1).await.unwrap();
        let found: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&found["username"], &found["password"]),
            (&"me".into(), &"secret".into())
        );
        open(&mut daemon, 2, of("other")).await;
        assert_eq!(read(&mut daemon, 2).await.unwrap(), b"");
        done(&mut daemon).await;
    });
    let path = directory.path().join("config.json");
    std::fs::write(
        &path,
        r#"{"auths": {"here:5000": {"auth": "bWU6c2VjcmV0"}}}"#,
    )
    .unwrap();
    let config = crate::client::credentials::ConfigFile::read(&path).unwrap();
    let mut offers = Offers::new();
    offers.logins(Logins::new(config));
    build(&client, offers).await.unwrap();
}

#[tokio::test]
async fn the_daemon_gets_what_was_offered_and_nothing_else() {
    let (client, directory) = daemon(|mut daemon| async move {
        open(&mut daemon, 1, secret("value")).await;
        assert_eq!(read(&mut daemon, 1).await.unwrap(), b"hush");
        open(&mut daemon, 2, secret("file")).await;
        assert_eq!(read(&mut daemon, 2).await.unwrap(), b"in a file");
        open(&mut daemon, 3, secret("other")).await;
        let reason = read(&mut daemon, 3).await.unwrap_err();
        assert!(reason.contains("no secret \"other\""), "{reason}");
        open(&mut daemon, 4, secret("missing")).await;
        let reason = read(&mut daemon, 4).await.unwrap_err();
        assert!(reason.contains("cannot read the secret"), "{reason}");
        open(
            &mut daemon,
            5,
            ChannelPurpose::Context {
                name: String::new(),
            },
        )
        .await;
        assert_eq!(read(&mut daemon, 5).await.unwrap().len(), 300_000);
        done(&mut daemon).await;
    });
    let file = directory.path().join("secret");
    std::fs::write(&file, "in a file").unwrap();
    let mut offers = Offers::new();
    offers.secret("value", SecretSource::Value(b"hush".to_vec()));
    offers.secret("file", SecretSource::File(file));
    offers.secret("missing", SecretSource::File(directory.path().join("none")));
    let tar = std::io::Cursor::new(vec![7; 300_000]);
    offers.context("", ContextSource::Archive(Box::new(tar)));
    assert_eq!(offers.secret_ids(), ["file", "missing", "value"]);
    assert_eq!(
        build(&client, offers).await.unwrap(),
        BuildResult::default()
    );
}

#[tokio::test]
async fn an_output_is_whole_before_the_build_is_done() {
    let (client, directory) = daemon(|mut daemon| async move {
        open(&mut daemon, 1, output("tar")).await;
        for _ in 0..500 {
            daemon
                .feed(Frame::data(1, vec![b'x'; 60_000]))
                .await
                .unwrap();
        }
        daemon.feed(Frame::end(1)).await.unwrap();
        done(&mut daemon).await;
    });
    let path = directory.path().join("out.tar");
    let mut offers = Offers::new();
    offers.output("tar", OutputSink::File(path.clone()));
    build(&client, offers).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 30_000_000);
}

#[tokio::test]
async fn half_an_output_is_none() {
    let (client, directory) = daemon(|mut daemon| async move {
        open(&mut daemon, 1, output("tar")).await;
        daemon.send(Frame::data(1, vec![b'x'; 100])).await.unwrap();
        daemon.send(Frame::reset(1, "disk full")).await.unwrap();
        done(&mut daemon).await;
    });
    let path = directory.path().join("out.tar");
    let mut offers = Offers::new();
    offers.output("tar", OutputSink::File(path.clone()));
    let error = build(&client, offers).await.unwrap_err().to_string();
    assert!(
        error.contains("disk full") && error.contains("out.tar"),
        "{error}"
    );
    assert!(!path.exists());
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the socket: {left:?}");
}

/// Answers every request with its bytes in reverse, as an agent that needs several reads would.
async fn reversing_agent(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 5];
            stream.read_exact(&mut request).await.unwrap();
            request.reverse();
            stream.write_all(&request).await.unwrap();
        }
    });
}

#[tokio::test]
async fn an_agent_is_spoken_to_both_ways() {
    let (client, directory) = daemon(|mut daemon| async move {
        let ssh = || ChannelPurpose::Ssh {
            id: "default".to_owned(),
        };
        open(&mut daemon, 1, ssh()).await;
        daemon.send(Frame::data(1, &b"he"[..])).await.unwrap();
        daemon.send(Frame::data(1, &b"llo"[..])).await.unwrap();
        assert_eq!(read(&mut daemon, 1).await.unwrap(), b"olleh");
        open(&mut daemon, 2, ssh()).await;
        daemon.send(Frame::reset(2, "cancelled")).await.unwrap();
        done(&mut daemon).await;
    });
    let socket = directory.path().join("agent.sock");
    reversing_agent(&socket).await;
    let mut offers = Offers::new();
    offers.ssh_agent("default", SshSource::Socket(socket));
    build(&client, offers).await.unwrap();
}

#[tokio::test]
async fn failures_and_silence_are_told_apart() {
    let (client, _directory) = daemon(|mut daemon| async move {
        let failure = BuildFailure {
            message: "exit code: 1".to_owned(),
            kind: FailureKind::Step,
            ..BuildFailure::default()
        };
        let frame = Frame::message(&Message::Failed(Box::new(failure)));
        daemon.send(frame).await.unwrap();
    });
    let error = build(&client, Offers::new()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Failed(failure) if failure.message == "exit code: 1"));
    let (client, _directory) = daemon(|daemon| async move { drop(daemon) });
    let error = build(&client, Offers::new()).await.unwrap_err();
    assert!(matches!(error, BuildError::Ended), "{error}");
}

#[tokio::test]
async fn dropping_a_build_closes_its_connection() {
    let (closed, seen) = tokio::sync::oneshot::channel();
    let (client, _directory) = daemon(|mut daemon| async move {
        open(
            &mut daemon,
            1,
            ChannelPurpose::Context {
                name: String::new(),
            },
        )
        .await;
        while let Some(Ok(_)) = daemon.next().await {}
        closed.send(()).unwrap();
    });
    let mut offers = Offers::new();
    offers.context("", ContextSource::Archive(Box::new(tokio::io::repeat(1))));
    let limit = std::time::Duration::from_millis(200);
    let build = tokio::time::timeout(limit, build(&client, offers));
    assert!(build.await.is_err(), "an endless context has no end");
    seen.await.unwrap();
}
