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

/// As Docker 28: whatever the umask, nobody else reads them. What is no file is written to as it is.
#[test]
fn archives_are_their_users_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::start();
    host.muster(&["create", "--name", "box", "busybox", "true"])
        .ok();
    std::fs::create_dir(host.path("out")).unwrap();
    for (name, verb, what) in [("s.tar", "save", "busybox"), ("e.tar", "export", "box")] {
        // A file of that name that others can read is replaced, not kept.
        let path = host.write(&format!("out/{name}"), "before");
        host.muster(&[verb, "-o", path.to_str().unwrap(), what])
            .ok();
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{verb}");
        assert!(metadata.len() > 1000);
        host.muster(&[verb, "-o", path.to_str().unwrap(), "nothing"])
            .fails(1, "nothing");
        assert_eq!(path.metadata().unwrap().len(), metadata.len());
        host.muster(&[verb, "-o", "/dev/null", what]).ok();
    }
    let left = std::fs::read_dir(host.path("out")).unwrap().count();
    assert_eq!(left, 2, "parts are left");
    host.finish();
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

#[test]
fn projects_pull_each_image_once_and_say_what_must_be_built() {
    let host = Host::start();
    let server = Server::start(&host, |_| Answer::NotFound);
    let registry = server.address;
    host.write(
        "shop/compose.yaml",
        &format!(
            "services:
  here: {{image: busybox, pull_policy: never}}
  one: {{image: '{registry}/one:1'}}
  again: {{image: '{registry}/one:1'}}
  made: {{image: '{registry}/made:1', build: .}}
  nameless: {{build: .}}
"
        ),
    );
    let all = host.muster_in("shop", &["compose", "pull", "--ignore-pull-failures"]);
    all.clone().ok();
    for line in [
        " here Skipped",
        " one Skipped - Image is already being pulled by again",
        " nameless Skipped - No image to be pulled",
        " again Pulling",
        " again Error",
        " made Pulling",
        " made Warning",
        "muster compose build made",
    ] {
        assert!(all.stderr.contains(line), "{line:?} is missing: {all}");
    }
    let manifests = |name: &str| {
        let asked = server.asked();
        let of = |line: &&String| line.contains(&format!("/v2/{name}/manifests/1"));
        asked.iter().filter(of).count()
    };
    // Perhaps asked for by HEAD, then by GET, but for one service alone.
    let (once, of_made) = (manifests("one"), manifests("made"));
    assert!(once > 0 && once == of_made, "{once}, {of_made}");
    host.muster_in("shop", &["compose", "pull"])
        .fails(1, "again Error");
    host.muster_in("shop", &["compose", "pull", "made", "--ignore-buildable"])
        .ok();
    host.muster_in("shop", &["compose", "pull", "--policy", "frob"])
        .fails(125, "--policy");
    host.muster_in("shop", &["compose", "push"])
        .fails(1, &format!("{registry}/made:1"));
    host.muster_in("shop", &["compose", "push", "--ignore-push-failures"])
        .ok();
    host.finish();
}

#[test]
fn projects_are_bake_files() {
    let host = Host::start();
    host.write(
        "shop/compose.yaml",
        "services:
  base.image:
    build: {context: base, x-bake: {tags: ['shop/base:x']}}
  web:
    image: shop/web:1
    build:
      context: web
      args: {WHO: bake}
      additional_contexts: {below: 'service:base.image'}
",
    );
    host.write(
        "shop/base/Dockerfile",
        "FROM busybox\nRUN echo base > /base\n",
    );
    host.write(
        "shop/web/Dockerfile",
        "FROM below\nARG WHO\nRUN echo $WHO > /who && cat /base >> /who\n",
    );
    host.muster_in("shop", &["buildx", "bake"]).ok();
    let run = |image: &str| host.muster(&["run", "--rm", image, "cat", "/who"]).ok();
    assert_eq!(run("shop/web:1"), "bake\nbase");
    host.muster(&["image", "inspect", "shop/base:x"]).ok();
    let print = [
        "buildx",
        "bake",
        "--print",
        "--set",
        "web.args.WHO=set",
        "web",
    ];
    let printed = host.muster_in("shop", &print).ok();
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["target"]["web"]["args"]["WHO"], "set");
    assert_eq!(
        printed["target"]["web"]["contexts"]["below"],
        "target:base_image"
    );

    // The other way: what Compose would build, as a bake file.
    host.muster(&["rmi", "shop/web:1"]).ok();
    let text = host
        .muster_in(
            "shop",
            &[
                "-D",
                "compose",
                "build",
                "--print",
                "--build-arg",
                "WHO=printed",
            ],
        )
        .ok();
    host.write("shop/printed.json", &text);
    let dotted = host.muster_in("shop", &["buildx", "bake", "-f", "printed.json"]);
    dotted.ok();
    assert_eq!(run("shop/web:1"), "printed\nbase");
    host.finish();
}

#[test]
fn images_of_oci_layouts_are_contexts() {
    let host = Host::start();
    host.write(
        "base/Dockerfile",
        "FROM busybox\nRUN echo laid out > /from\n",
    );
    let output = "type=oci,dest=layout,tar=false,name=team/base:1";
    host.muster(&["build", "-o", output, "base"]).ok();
    let index = std::fs::read_to_string(host.path("layout/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    // What lies beside the image's own blobs is not sent.
    let beside = host.path("layout/blobs/sha256").join("0".repeat(64));
    std::fs::write(beside, "not of this image").unwrap();
    host.write(
        "c/Dockerfile",
        "FROM base\nRUN cat /from > /copy\nCOPY --from=base /from /two\n",
    );
    let layout = host.path("layout").display().to_string();
    for place in [format!("{layout}@{digest}"), layout.clone()] {
        let context = format!("base=oci-layout://{place}");
        host.muster(&["build", "-t", "made", "--build-context", &context, "c"])
            .ok();
        let line = ["run", "--rm", "made", "cat", "/copy", "/two"];
        assert_eq!(host.muster(&line).ok(), "laid out\nlaid out", "{place}");
    }
    let context = format!("base=oci-layout://{layout}:nope");
    host.muster(&["build", "--build-context", &context, "c"])
        .fails(1, "no image with the tag \"nope\"");
    let other = ["build", "--platform", "linux/s390x", "--build-context"];
    let context = format!("base=oci-layout://{layout}");
    let foreign = host.muster(&[&other[..], &[&context, "c"]].concat());
    assert_eq!(foreign.code, 1, "{foreign}");
    // Damaged on its way: refused, and nothing of it is kept.
    let before = host.muster(&["images", "-aq"]).ok();
    let blob = index["manifests"][0]["digest"].as_str().unwrap();
    let blob = blob.strip_prefix("sha256:").unwrap();
    let path = host.path("layout/blobs/sha256").join(blob);
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("sha256:", "sha256: ");
    std::fs::write(&path, text).unwrap();
    let context = format!("base=oci-layout://{layout}@{digest}");
    let damaged = host.muster(&["build", "--no-cache", "--build-context", &context, "c"]);
    assert_eq!(damaged.code, 1, "{damaged}");
    assert_eq!(host.muster(&["images", "-aq"]).ok(), before);
    host.finish();
}

#[test]
fn keys_in_files_sign_inside_of_builds() {
    let host = Host::start();
    let keys = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../agent/api/src/client/build/ssh/testdata"
    );
    host.write(
        "c/Dockerfile",
        "FROM busybox\n\
         RUN --mount=type=ssh,id=deploy echo socket $SSH_AUTH_SOCK; i=0; \
             while [ ! -e /tmp/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done; rm /tmp/go\n",
    );
    let offer = format!("deploy={keys}/ed25519-256,{keys}/rsa-2048");
    let mut command = host.muster_command(&["build", "--progress", "plain", "--ssh", &offer, "c"]);
    command
        .env_remove("SSH_AUTH_SOCK")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let building = host.spawn(command);
    let inside = crate::build_run::until("the agent's socket", || {
        let root = crate::build_run::process_root(&host)?;
        let socket = root.join("run/buildkit/ssh_agent.0");
        socket.exists().then_some((root, socket))
    });
    let mut agent = std::os::unix::net::UnixStream::connect(&inside.1).unwrap();
    agent.write_all(&[0, 0, 0, 1, 11]).unwrap();
    let mut length = [0; 4];
    agent.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    agent.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..5], [12, 0, 0, 0, 2]);
    let text = String::from_utf8_lossy(&answer);
    for part in [
        "ssh-ed25519",
        "ed25519-256@test",
        "ssh-rsa",
        "rsa-2048@test",
    ] {
        assert!(text.contains(part), "{part} is not in {text:?}");
    }
    std::fs::write(inside.0.join("tmp/go"), "").unwrap();
    let output = building.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let refused = host.muster(&["build", "--ssh", &format!("deploy={keys}/encrypted"), "c"]);
    refused.fails(1, "ssh-add");
    host.finish();
}
