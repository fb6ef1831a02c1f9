//! What users of `docker` expect of the verbs of images beyond the common: platforms, imports from addresses, projects
//! whose images are pulled and built together.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use e2e::Host;

/// How a server of the tests answers.
#[derive(Debug, Clone)]
enum Answer {
    /// All of it.
    Whole(Vec<u8>),
    /// These bytes of a longer file; then it breaks off.
    Part(Vec<u8>),
    /// These bytes, and then nothing until the client leaves.
    Silence(Vec<u8>),
    NotFound,
}

/// A server of files on the host's loopback: what it was asked for, line by line.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(host: &Host, answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let listener = host.on_host(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut reader = BufReader::new(stream);
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) < 3 {
                        break;
                    }
                    lines.push(line.trim_end().to_owned());
                }
                let Some(first) = lines.first().cloned() else {
                    continue;
                };
                log.lock().unwrap().extend(lines);
                give(reader.into_inner(), answer(&first));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn give(mut stream: TcpStream, answer: Answer) {
    let (status, length, body) = match &answer {
        Answer::Whole(body) => ("200 OK", body.len(), &body[..]),
        Answer::Part(body) | Answer::Silence(body) => ("200 OK", body.len() + 4096, &body[..]),
        Answer::NotFound => ("404 Not Found", 8, &b"not here"[..]),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let sent = stream.write_all(head.as_bytes());
    let _ = sent.and_then(|()| stream.write_all(body));
    if matches!(answer, Answer::Silence(_)) {
        // Until the other side closes.
        let _ = stream.read(&mut [0; 1]);
    }
}

/// A tar with one file.
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn images_are_saved_and_loaded_for_a_platform() {
    let host = Host::start();
    let here = host.muster(&[
        "image",
        "inspect",
        "-f",
        "{{.Os}}/{{.Architecture}}",
        "busybox",
    ]);
    let here = here.ok();
    let other = match &*here {
        "linux/s390x" => "linux/amd64",
        _ => "linux/s390x",
    };
    let missing = format!("no suitable export target found for platform {other}");
    host.muster(&["save", "--platform", other, "-o", "no.tar", "busybox"])
        .fails(1, &missing);
    assert!(!host.path("no.tar").exists());
    host.muster(&["save", "--platform", "a/b/c/d", "-o", "no.tar", "busybox"])
        .fails(
            1,
            "invalid platform: \"a/b/c/d\": cannot parse platform specifier: invalid argument",
        );
    host.muster(&["save", "--platform", &here, "-o", "yes.tar", "busybox"])
        .ok();

    host.muster(&["rmi", "--platform", other, "busybox"])
        .fails(1, "does not match the specified platform");
    host.muster(&["history", "--platform", other, "busybox"])
        .fails(1, "does not match the specified platform");
    host.muster(&["image", "inspect", "--platform", other, "busybox"])
        .fails(1, "does not match the specified platform");
    host.muster(&["push", "--platform", other, "busybox"])
        .fails(1, "does not match the specified platform");
    host.muster(&["history", "--platform", &here, "busybox"])
        .ok();

    host.muster(&["rmi", "--platform", &here, "busybox"]).ok();
    host.muster(&["load", "--platform", "nonsense", "-i", "yes.tar"])
        .fails(1, "unknown operating system or architecture");
    let nothing = host.muster(&["load", "--platform", other, "-i", "yes.tar"]);
    assert!(!nothing.stdout.contains("Loaded image"), "{nothing}");
    assert_eq!(host.muster(&["images", "-q"]).ok(), "");
    let loaded = host.muster(&["load", "--platform", &here, "-i", "yes.tar"]);
    assert!(
        loaded.clone().ok().contains("Loaded image: busybox:latest"),
        "{loaded}"
    );
    host.finish();
}

#[test]
fn root_file_systems_are_imported_from_addresses() {
    let mut host = Host::bare();
    let tar = tar_of("etc/answer", b"42\n");
    let server = Server::start(&host, move |line| match line {
        line if line.contains("/root.tar") => Answer::Whole(tar.clone()),
        line if line.contains("/cut.tar") => Answer::Part(tar[..700].to_vec()),
        line if line.contains("/page.html") => Answer::Whole(b"<html>".repeat(200)),
        _ => Answer::NotFound,
    });
    let proxies = format!(
        r#"{{"proxies": {{"http-proxy": "http://me:secret@{}"}}}}"#,
        server.address
    );
    let config = host.write("daemon.json", &proxies);
    host.start_daemon(&["--config-file", config.to_str().unwrap()]);

    let at = |path: &str| format!("http://{}/{path}", server.address);
    let imported = host.muster(&["import", "-c", "CMD [\"x\"]", &at("root.tar"), "direct:1"]);
    let text = imported.ok();
    assert!(
        text.contains(&format!("Downloading from {}", at("root.tar"))),
        "{text}"
    );
    assert!(
        text.lines().last().unwrap().starts_with("sha256:"),
        "{text}"
    );
    let comment = host.muster(&["history", "--format", "{{.Comment}}", "direct:1"]);
    assert_eq!(comment.ok(), format!("Imported from {}", at("root.tar")));

    // What is not this machine goes through the daemon's proxy, which gets the password.
    host.muster(&["import", "http://files.example/root.tar", "proxied:1"])
        .ok();
    let asked = server.asked().join("\n");
    assert!(
        asked.contains("GET http://files.example/root.tar HTTP/1.1"),
        "{asked}"
    );
    assert!(
        asked
            .to_lowercase()
            .contains("proxy-authorization: basic bwu6c2vjcmv0"),
        "{asked}"
    );
    assert!(asked.contains("GET /root.tar HTTP/1.1"), "{asked}");
    let ids = host.muster(&["images", "-q"]).ok();
    assert_eq!(ids.lines().count(), 2, "{ids}");

    host.muster(&["import", &at("none.tar")])
        .fails(1, "with status 404 Not Found: not here");
    host.muster(&["import", &at("cut.tar")]).fails(1, "broke");
    host.muster(&["import", &at("page.html")]).fails(1, "");
    host.muster(&["import", "http://127.0.0.1:1/x"])
        .fails(1, "cannot reach 127.0.0.1:1");
    host.muster(&["import", "ftp://127.0.0.1/x"])
        .fails(1, "cannot open ftp://127.0.0.1/x");
    assert_eq!(host.muster(&["images", "-q"]).ok(), ids);
    host.finish();
}

#[test]
fn an_import_ends_with_its_client() {
    let mut host = Host::bare();
    let tar = tar_of("file", &[b'x'; 100_000]);
    let server = Server::start(&host, move |_| Answer::Silence(tar.clone()));
    host.start_daemon(&[]);
    let mut command = host.muster_command(&[
        "import",
        &format!("http://{}/slow.tar", server.address),
        "slow",
    ]);
    command.stdout(std::process::Stdio::piped());
    let mut client = host.spawn(command);
    e2e::read_until(&mut client, "Downloading from");
    client.kill().unwrap();
    client.wait().unwrap();
    // The daemon stops at once, although the server would never end; nothing of the image is left.
    assert_eq!(host.muster(&["images", "-aq"]).ok(), "");
    host.finish();
}
