//! Downloads and repositories from servers on loopback: one that answers as a test says, and git's own.

mod server;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use agent_build::plan::{GitAddress, GitOp, HttpOp};
use tokio_util::sync::CancellationToken;

use super::{git, http};
use crate::builder::Sessions;
use crate::builder::run::OutputSink;
use crate::builder::session::{Ask, Session};
use server::{Answer, GitDaemon, Server};

fn download(url: String) -> HttpOp {
    HttpOp {
        url,
        file_name: "file".into(),
        checksum: None,
    }
}

/// No proxy, and a directory of one's own.
fn way(root: &tempfile::TempDir) -> http::Way {
    http::Way {
        root: root.path().to_owned(),
        proxies: agent_image::Proxies::default(),
    }
}

#[tokio::test]
async fn a_file_is_asked_for_through_the_proxy() {
    let root = tempfile::tempdir().unwrap();
    let proxy = Server::start(|question| match question.path.as_str() {
        "http://far.invalid/file" => Answer::ok("hello"),
        _ => Answer::status(404),
    });
    let way = http::Way {
        proxies: agent_image::Proxies::new(&proxy.url(""), "", "").unwrap(),
        ..way(&root)
    };
    let op = download("http://far.invalid/file".to_owned());
    let state = http::resolve_in(&way, &op, &CancellationToken::new()).await;
    assert_eq!(state.unwrap().digest.to_string(), SUM);
}

#[tokio::test]
async fn a_file_that_was_packed_for_the_way_is_unpacked() {
    let root = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let server = Server::start(|question| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packer, b"hello").unwrap();
        let mut packed = packer.finish().unwrap();
        let (encoding, cut) = match question.path.as_str() {
            "/whole" => ("gzip", 0),
            "/cut" => ("gzip", 4),
            _ => ("br", 0),
        };
        packed.truncate(packed.len() - cut);
        Answer::bytes(packed).with("Content-Encoding", encoding)
    });
    let resolve = |path: &str| {
        let (way, op, never) = (way(&root), download(server.url(path)), never.clone());
        async move { http::resolve_in(&way, &op, &never).await }
    };
    assert_eq!(resolve("/whole").await.unwrap().digest.to_string(), SUM);
    let told = |state: crate::error::Result<_>| state.err().unwrap().to_string();
    let cut = told(resolve("/cut").await.map(drop));
    assert!(cut.contains("cannot unpack"), "{cut}");
    let other = told(resolve("/other").await.map(drop));
    assert!(other.contains("\"br\""), "{other}");
}

#[tokio::test]
async fn a_repository_is_asked_for_through_the_proxy() {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let proxy = Server::start(move |question| {
        let _ = asked.send(question.path.clone());
        Answer::status(404)
    });
    let proxies = agent_image::Proxies::new(&proxy.url(""), "", "").unwrap();
    let (nobody, never) = (Sessions::default(), CancellationToken::new());
    let op = op("http://far.invalid/app.git");
    let resolved = git::resolve(&op, &proxies, &nobody, &never).await;
    assert!(resolved.is_err(), "the proxy has nothing");
    let first = was_asked.recv().unwrap();
    assert!(
        first.starts_with("http://far.invalid/app.git/info/refs"),
        "{first}"
    );
}

const SUM: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[tokio::test]
async fn a_file_is_asked_for_once_as_long_as_it_does_not_change() {
    let root = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let server = Server::start(|question| match question.header("if-none-match") {
        Some("\"v1\"") => Answer::status(304),
        _ => Answer::ok("hello")
            .with("ETag", "\"v1\"")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    });
    let op = download(server.url("/dir/file"));
    let state = http::resolve_in(&way(&root), &op, &never).await.unwrap();
    assert_eq!(state.digest.to_string(), SUM);
    let into = tempfile::tempdir().unwrap();
    http::place_in(&way(&root), &op, &state, into.path(), &never)
        .await
        .unwrap();
    let placed = into.path().join("file");
    let metadata = fs::metadata(&placed).unwrap();
    assert_eq!(fs::read_to_string(&placed).unwrap(), "hello");
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.mtime()),
        (0o600, 784_111_777)
    );
    // Known by its tag; downloaded again where it is needed again.
    let again = http::resolve_in(&way(&root), &op, &never).await.unwrap();
    assert_eq!(again.digest, state.digest);
    assert_eq!(server.statuses(), [200, 304]);
    let other = tempfile::tempdir().unwrap();
    http::place_in(&way(&root), &op, &again, other.path(), &never)
        .await
        .unwrap();
    assert_eq!(
        fs::metadata(other.path().join("file")).unwrap().mtime(),
        784_111_777
    );
    assert_eq!(server.statuses(), [200, 304, 200]);
    // Nothing half done is left.
    assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 0);
}

#[tokio::test]
async fn downloads_that_are_not_what_was_asked_for_fail() {
    let root = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let server = Server::start(|question| match question.path.as_str() {
        "/file" => Answer::ok("hello"),
        "/moved" => Answer::status(302).with("Location", "/file"),
        "/round" => Answer::status(302).with("Location", "/round"),
        _ => Answer::status(404),
    });
    let mut op = download(server.url("/moved"));
    op.checksum = Some(SUM.into());
    http::resolve_in(&way(&root), &op, &never).await.unwrap();
    op.checksum = Some(SUM.replace('2', "3"));
    let error = http::resolve_in(&way(&root), &op, &never)
        .await
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("digest mismatch sha256:2cf24d"),
        "{error}"
    );
    let gone = download(server.url("/gone?token=secret"));
    let error = http::resolve_in(&way(&root), &gone, &never)
        .await
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.ends_with("/gone: invalid response status 404"),
        "{text}"
    );
    let round = download(server.url("/round"));
    let error = http::resolve_in(&way(&root), &round, &never)
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("redirects more than 10 times"),
        "{error}"
    );
    let file = download("file:///etc/passwd".into());
    assert!(http::resolve_in(&way(&root), &file, &never).await.is_err());
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let silent = Server::start(|_| Answer::never());
    let op = download(silent.url("/"));
    assert!(
        http::resolve_in(&way(&root), &op, &cancelled)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let root = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let other = Server::start(|question| match question.header("authorization") {
        None => Answer::ok("hello"),
        Some(_) => Answer::status(500),
    });
    let elsewhere = other.url("/file");
    let server = Server::start(move |question| match question.header("authorization") {
        Some("Basic bWU6cHc=") => Answer::status(307).with("Location", &elsewhere),
        _ => Answer::status(401),
    });
    let url = server.url("/file").replace("http://", "http://me:pw@");
    http::resolve_in(&way(&root), &download(url), &never)
        .await
        .unwrap();
    assert_eq!(other.statuses(), [200]);
}

/// Repositories `app` (with a submodule and a tag) and `lib`; `None` where there is no git.
struct Repositories {
    directory: tempfile::TempDir,
    first: String,
    second: String,
}

impl Repositories {
    fn make() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            eprintln!("SKIPPED: git is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["lib", "app"] {
            fs::create_dir(at(name)).unwrap();
            git(&at(name), &["init", "-q", "-b", "main"]);
        }
        fs::write(at("lib/lib.txt"), "lib\n").unwrap();
        git(&at("lib"), &["add", "."]);
        git(&at("lib"), &["commit", "-qm", "lib"]);
        git(
            directory.path(),
            &["clone", "-q", "--bare", "lib", "lib.git"],
        );
        let app = at("app");
        fs::create_dir_all(app.join("sub/deep")).unwrap();
        fs::write(app.join("sub/deep/file"), "one\n").unwrap();
        fs::write(app.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(app.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("sub", app.join("link")).unwrap();
        let module = "[submodule \"lib\"]\n\tpath = sub/lib\n\turl = ../lib.git\n";
        fs::write(app.join(".gitmodules"), module).unwrap();
        git(&app, &["add", "."]);
        let lib = git(&at("lib"), &["rev-parse", "HEAD"]);
        let entry = format!("160000,{lib},sub/lib");
        git(&app, &["update-index", "--add", "--cacheinfo", &entry]);
        git(&app, &["commit", "-qm", "one"]);
        let first = git(&app, &["rev-parse", "HEAD"]);
        git(&app, &["tag", "-a", "v1", "-m", "v1"]);
        fs::write(app.join("sub/deep/file"), "two\n").unwrap();
        git(&app, &["add", "sub/deep/file"]);
        git(&app, &["commit", "-qm", "two"]);
        let second = git(&app, &["rev-parse", "HEAD"]);
        git(
            directory.path(),
            &["clone", "-q", "--bare", "app", "app.git"],
        );
        Some(Self {
            directory,
            first,
            second,
        })
    }
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(at)
        .args([
            "-c",
            "user.email=a@b",
            "-c",
            "user.name=n",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn make_tree(at: &Path, list: &str) -> String {
    let mut git = Command::new("git")
        .current_dir(at)
        .arg("mktree")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut git.stdin.take().unwrap(), list.as_bytes()).unwrap();
    let output = git.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn op(address: &str) -> GitOp {
    let address = GitAddress::parse(address).unwrap().unwrap();
    address.op(address.keep_git_dir.unwrap_or(false))
}

fn quiet() -> OutputSink {
    Arc::new(|_, _| {})
}

/// The checkout of an address, and its commit.
async fn checked_out(
    address: &str,
    sessions: &Sessions,
) -> crate::error::Result<(tempfile::TempDir, String)> {
    let op = op(address);
    let never = CancellationToken::new();
    let direct = agent_image::Proxies::default();
    let commit = git::resolve(&op, &direct, sessions, &never).await?;
    let into = tempfile::tempdir().unwrap();
    let output = quiet();
    let checkout = git::checkout(&op, &commit, into, &direct, &output, sessions, &never);
    let into = checkout.await?;
    Ok((into, commit))
}

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && name == ".git" => found.push(".git".into()),
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_symlink() => found.push(format!("{name}@")),
                _ => found.push(format!(
                    "{name}={}",
                    fs::read_to_string(&path).unwrap().trim()
                )),
            }
        }
    }
    found.retain(|name| !name.starts_with(".gitmodules"));
    found.sort();
    found
}

#[tokio::test]
async fn commits_are_checked_out_from_a_daemon() {
    let Some(repositories) = Repositories::make() else {
        return;
    };
    let Some(daemon) = GitDaemon::start(repositories.directory.path()) else {
        return;
    };
    let base = daemon.url("/app.git");
    let nobody = Sessions::default();
    let (into, commit) = checked_out(&base, &nobody).await.unwrap();
    assert_eq!(commit, repositories.second);
    let all = [
        "link@",
        "run.sh=#!/bin/sh",
        "sub/deep/file=two",
        "sub/lib/lib.txt=lib",
    ];
    assert_eq!(files(into.path()), all);
    let mode = fs::metadata(into.path().join("run.sh")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o755);
    // A tag, with nothing but a directory of it.
    let (into, commit) = checked_out(&format!("{base}#v1:sub/deep"), &nobody)
        .await
        .unwrap();
    assert_eq!(commit, repositories.first);
    assert_eq!(files(into.path()), ["file=one"]);
    // A commit, insisted on, without submodules and with its repository.
    let first = &repositories.first;
    let address = format!("{base}?commit={first}&submodules=false&keep-git-dir=true#{first}");
    let (into, _) = checked_out(&address, &nobody).await.unwrap();
    assert_eq!(
        files(into.path()),
        [".git", "link@", "run.sh=#!/bin/sh", "sub/deep/file=one"]
    );
    assert_eq!(git(into.path(), &["rev-parse", "HEAD"]), *first);
    assert_eq!(git(into.path(), &["status", "--porcelain"]), "");
    assert_eq!(
        git(into.path(), &["rev-list", "--count", "HEAD"]),
        "1",
        "no history"
    );
    git(into.path(), &["fsck"]);
    for (wrong, says) in [
        ("#absent", "does not contain ref absent"),
        ("#main:absent", "has no directory \"absent\""),
        ("#main:link", "has no directory \"link\""),
        (
            "?commit=0123456#main",
            "expected checksum to match 0123456, got",
        ),
    ] {
        let error = checked_out(&format!("{base}{wrong}"), &nobody)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(says), "{wrong}: {error}");
    }
    let absent = checked_out(&daemon.url("/absent.git"), &nobody)
        .await
        .unwrap_err();
    assert!(absent.to_string().contains("/absent.git"), "{absent}");
}

/// A client that has one secret.
fn client(id: &'static str, secret: &'static [u8]) -> Sessions {
    let (session, mut asked) = Session::channel();
    tokio::spawn(async move {
        while let Some(ask) = asked.recv().await {
            if let Ask::Secret { id: wanted, reply } = ask {
                let _ = reply.send((wanted == id).then(|| secret.to_vec()));
            }
        }
    });
    let sessions = Sessions::default();
    sessions.add(session);
    sessions
}

#[tokio::test]
async fn commits_are_checked_out_over_http_with_a_token() {
    let Some(repositories) = Repositories::make() else {
        return;
    };
    let project = repositories.directory.path().to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = Server::start(move |question| {
        let given = question.header("authorization").map(str::to_owned);
        noted.lock().unwrap().push(given.clone());
        match given.as_deref() {
            // x-access-token:t0k
            Some("basic eC1hY2Nlc3MtdG9rZW46dDBr") => server::http_backend(&project, question),
            _ => Answer::status(401).with("WWW-Authenticate", "Basic"),
        }
    });
    let address = server.url("/app.git");
    let known = client("GIT_AUTH_TOKEN", b"t0k\n");
    let (into, commit) = checked_out(&address, &known).await.unwrap();
    assert_eq!(commit, repositories.second);
    assert_eq!(
        files(into.path()),
        [
            "link@",
            "run.sh=#!/bin/sh",
            "sub/deep/file=two",
            "sub/lib/lib.txt=lib"
        ]
    );
    let error = checked_out(&address, &Sessions::default())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("refuses access") && text.contains("GIT_AUTH_TOKEN"),
        "{text}"
    );
    let whole = client("GIT_AUTH_HEADER", b"basic eC1hY2Nlc3MtdG9rZW46dDBr");
    checked_out(&format!("{address}#main"), &whole)
        .await
        .unwrap();
    assert!(seen.lock().unwrap().iter().flatten().count() > 4);
}

#[tokio::test]
async fn servers_that_are_not_what_they_seem_are_refused() {
    let nobody = Sessions::default();
    let plain = Server::start(|_| Answer::ok("<html>"));
    let error = checked_out(&plain.url("/app.git"), &nobody)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot look into the repository"),
        "{error}"
    );
    let broken = Server::start(|_| {
        Answer::ok("001e# service=git-upload-pack\n0000ffff").with(
            "Content-Type",
            "application/x-git-upload-pack-advertisement",
        )
    });
    assert!(checked_out(&broken.url("/app.git"), &nobody).await.is_err());
    let error = checked_out("git@host:app.git", &nobody).await.unwrap_err();
    assert!(
        error.to_string().contains("there is no ssh client"),
        "{error}"
    );
    let error = checked_out("ssh://git@host/app.git", &nobody)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("ssh is not supported"),
        "{error}"
    );
}

#[tokio::test]
async fn a_cancelled_fetch_ends() {
    let silent = Server::start(|_| Answer::never());
    let address = silent.url("/app.git");
    let cancel = CancellationToken::new();
    let op = op(&address);
    let nobody = Sessions::default();
    let direct = agent_image::Proxies::default();
    let resolve = git::resolve(&op, &direct, &nobody, &cancel);
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        cancel.cancel();
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        tokio::join!(resolve, stop).0
    });
    assert!(ended.await.expect("it ends").is_err());
}

/// Tells when it is let go of.
struct Held(tempfile::TempDir, Option<tokio::sync::oneshot::Sender<()>>);

impl AsRef<Path> for Held {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fields go after this: the directory must be gone when it is told.
        let _ = std::fs::remove_dir_all(self.0.path());
        let _ = self.1.take().expect("once").send(());
    }
}

/// The thread that writes has the directory until it ends, and it ends when nobody waits for it.
#[tokio::test]
async fn a_checkout_that_nobody_waits_for_lets_go_of_its_directory() {
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let asked = std::sync::Mutex::new(Some(asked));
    let silent = Server::start(move |_| {
        if let Some(asked) = asked.lock().unwrap().take() {
            let _ = asked.send(());
        }
        Answer::never()
    });
    let op = op(&silent.url("/app.git"));
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    let into = Held(tempfile::tempdir().unwrap(), Some(gone));
    let path = into.as_ref().to_owned();
    let cancel = CancellationToken::new();
    let (nobody, commit) = (Sessions::default(), "1".repeat(40));
    let (output, direct) = (quiet(), agent_image::Proxies::default());
    tokio::select! {
        _ = git::checkout(&op, &commit, into, &direct, &output, &nobody, &cancel) => panic!("nobody answers"),
        asked = was_asked => asked.unwrap(),
    }
    assert!(path.exists(), "the thread still writes");
    cancel.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), is_gone).await;
    ended.expect("it ends").unwrap();
    assert!(!path.exists());
}

/// Eleven objects that stand for ten billion directories.
#[tokio::test]
async fn trees_of_too_many_files_are_refused() {
    let Some(repositories) = Repositories::make() else {
        return;
    };
    let app = repositories.directory.path().join("app");
    let mut below = make_tree(&app, "");
    for _ in 0..10 {
        let list = (0..10).map(|name| format!("040000 tree {below}\t{name}\n"));
        below = make_tree(&app, &list.collect::<String>());
    }
    let commit = git(&app, &["commit-tree", "-m", "bomb", &below]);
    git(
        &app,
        &[
            "push",
            "-q",
            "../app.git",
            &format!("{commit}:refs/heads/bomb"),
        ],
    );
    let Some(daemon) = GitDaemon::start(repositories.directory.path()) else {
        return;
    };
    let address = daemon.url("/app.git#bomb");
    let error = checked_out(&address, &Sessions::default())
        .await
        .unwrap_err();
    let told = error.to_string();
    assert!(told.contains("has more than 2000000 files"), "{told}");
}
