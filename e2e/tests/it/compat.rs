//! What programs other than the docker command send: old versions of the API, nulls, uploads that are refused.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use e2e::Host;
use serde_json::{Value, json};

/// A reply: its status and its body as text, chunks joined.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    body: String,
}

impl Reply {
    #[track_caller]
    pub(super) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own.
pub(super) fn ask(host: &Host, method: &str, path: &str, body: Option<&Value>) -> Reply {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let mut connection = host.connect();
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("send a request");
    read(connection)
}

fn read(mut connection: UnixStream) -> Reply {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).expect("read a reply");
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head has an end");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head[9..12].parse().expect("a status has three digits");
    let body = &bytes[end + 4..];
    let body = match head.contains("Transfer-Encoding: chunked") {
        true => joined(body),
        false => body.to_vec(),
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Reply { status, head, body }
}

/// The content of a chunked body.
fn joined(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = chunked
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk begins with its length");
        let length = std::str::from_utf8(&chunked[..line]).expect("a length is text");
        let length = usize::from_str_radix(length, 16).expect("a length is hexadecimal");
        if length == 0 {
            return body;
        }
        let start = line + 2;
        body.extend_from_slice(&chunked[start..start + length]);
        chunked = &chunked[start + length + 2..];
    }
}

/// Every version's way through the life of a container.
#[test]
fn every_api_version_is_served() {
    let host = Host::start();
    for version in [
        "1.24", "1.30", "1.35", "1.40", "1.43", "1.44", "1.47", "1.51",
    ] {
        let path = |rest: &str| format!("/v{version}{rest}");
        assert_eq!(ask(&host, "GET", &path("/_ping"), None).body, "OK");
        let create = json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo out; exit 3"]});
        let made = ask(
            &host,
            "POST",
            &path("/containers/create?name=one"),
            Some(&create),
        )
        .json(201);
        let id = made["Id"].as_str().expect("an id").to_owned();
        assert_eq!(
            ask(&host, "POST", &path("/containers/one/start"), None).status,
            204
        );
        let ended = ask(&host, "POST", &path("/containers/one/wait"), None).json(200);
        assert_eq!(ended["StatusCode"], 3, "{version}");
        let logs = ask(&host, "GET", &path("/containers/one/logs?stdout=1"), None);
        assert_eq!(logs.body, "\u{1}\0\0\0\0\0\0\u{4}out\n", "{version}");
        let inspected = ask(&host, "GET", &path("/containers/one/json"), None).json(200);
        assert_eq!(inspected["Id"], id.as_str());
        let ipc = if ["1.24", "1.30", "1.35"].contains(&version) {
            "shareable"
        } else {
            "private"
        };
        assert_eq!(inspected["HostConfig"]["IpcMode"], ipc, "{version}");
        let listed = ask(&host, "GET", &path("/containers/json?all=1"), None).json(200);
        assert_eq!(listed[0]["Names"], json!(["/one"]));
        for list in ["/images/json", "/networks", "/volumes", "/info", "/version"] {
            ask(&host, "GET", &path(list), None).json(200);
        }
        assert_eq!(
            ask(&host, "DELETE", &path("/containers/one"), None).status,
            204
        );
    }
    let too_new = ask(&host, "GET", "/v1.99/info", None).json(400);
    assert!(
        too_new["message"].as_str().unwrap().contains("1.99"),
        "{too_new}"
    );
    let newest = ask(&host, "GET", "/_ping", None);
    assert!(newest.head.contains("Api-Version: 1.51"), "{newest:?}");
    host.finish();
}

/// docker-py writes null for what was not given.
#[test]
fn nulls_are_nothing_given() {
    let host = Host::start();
    let health = json!({"Test": ["CMD", "true"], "Interval": 3_600_000_000_000_i64, "Timeout": null, "Retries": null,
        "StartPeriod": null});
    let create = json!({"Image": "busybox", "Cmd": "true", "Tty": null, "OpenStdin": null, "Healthcheck": health,
        "HostConfig": {"Memory": null, "Privileged": null, "PortBindings": null, "RestartPolicy": null},
        "NetworkingConfig": null});
    ask(&host, "POST", "/containers/create?name=one", Some(&create)).json(201);
    let made = ask(&host, "GET", "/containers/one/json", None).json(200);
    assert_eq!(
        made["Config"]["Healthcheck"]["Test"],
        json!(["CMD", "true"])
    );
    assert_eq!(made["HostConfig"]["Memory"], 0);
    host.finish();
}

/// The reason must arrive although the body was not read, and the daemon must not wait for it.
#[test]
fn a_refused_upload_says_why() {
    let host = Host::start();
    let mut connection = host.connect();
    let length = 64 << 20;
    write!(
        connection,
        "POST /images/create?fromSrc=-&repo=x&changes=BOGUS+x HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n"
    )
    .expect("send a request");
    for _ in 0..32 {
        connection
            .write_all(&[0; 64 << 10])
            .expect("nothing is broken off while it is sent");
    }
    let reply = read(connection);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(
        reply.body.contains("is not a valid change command"),
        "{reply:?}"
    );
    host.finish();
}

/// As with Docker the connection is taken before anything is known about the command.
#[test]
fn an_exec_that_cannot_be_run_says_so_in_its_output() {
    let host = Host::start();
    host.muster(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"])
        .ok();
    for (command, output, code) in [
        (json!(["echo", "quick"]), "\u{1}\0\0\0\0\0\0\u{6}quick\n", 0),
        (
            json!(["nosuch"]),
            "executable file not found in $PATH\r\n",
            127,
        ),
    ] {
        let create = json!({"Cmd": command, "AttachStdout": true});
        let id = ask(&host, "POST", "/containers/one/exec", Some(&create)).json(201);
        let id = id["Id"].as_str().expect("an id").to_owned();
        let mut connection = host.connect();
        let body = "{}";
        write!(
            connection,
            "POST /exec/{id}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{body}"
        )
        .expect("send a request");
        let mut all = String::new();
        connection
            .read_to_string(&mut all)
            .expect("read the output");
        let (head, rest) = all.split_once("\r\n\r\n").expect("a head has an end");
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
        assert!(rest.ends_with(output), "{rest:?}");
        let ended = ask(&host, "GET", &format!("/exec/{id}/json"), None).json(200);
        assert_eq!(ended["ExitCode"], code);
    }
    host.finish();
}
