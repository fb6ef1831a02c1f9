//! Build arguments that set the builder itself, caches in images of the store, and what is said of addresses with
//! credentials.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use e2e::{Host, Output};

#[track_caller]
fn build(host: &Host, arguments: &[&str]) -> Output {
    let all = [&["build", "--progress", "plain"], arguments].concat();
    host.muster(&all)
}

#[test]
fn an_image_with_its_cache_in_it_is_a_cache_without_a_registry() {
    let host = Host::start();
    let text = "FROM busybox\nRUN head -c 9 /dev/urandom | base64 > /once\nRUN cp /once /twice\n";
    host.write("c/Dockerfile", text);
    let inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "app", "c"];
    build(&host, &inline).ok();
    build(&host, &["-t", "plain", "c"]).ok();
    let once = |image: &str| {
        let shown = ["run", "--rm", "--network", "none", image, "cat", "/once"];
        host.muster(&shown).ok()
    };
    let made = once("app");
    assert_eq!(once("plain"), made);
    // All that is left is in the images.
    host.muster(&["builder", "prune", "-af"]).ok();
    let again = build(&host, &["--cache-from", "app", "-t", "again", "c"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 3, "{again}");
    assert_eq!(once("again"), made);
    host.muster(&["builder", "prune", "-af"]).ok();
    // One without a cache in it is asked for where it comes from, which here is nowhere; then everything is made anew.
    let none = build(&host, &["--cache-from", "127.0.0.1:1/plain", "c"]);
    assert!(
        none.stderr
            .contains("importing cache manifest from 127.0.0.1:1/plain"),
        "{none}"
    );
    assert_eq!(none.ok(), "");
    host.finish();
}

#[test]
fn an_index_is_made_also_of_one_platform_when_an_argument_says_so() {
    let host = Host::start();
    host.write("c/Dockerfile", "FROM busybox\nRUN touch /x\n");
    let kinds = |argument: &str| {
        let argument = format!("BUILDKIT_MULTI_PLATFORM={argument}");
        let output = ["-o", "type=oci,dest=out.tar", "--build-arg", &argument, "c"];
        build(&host, &output).ok();
        let mut archive = tar::Archive::new(std::fs::File::open(host.path("out.tar")).unwrap());
        let mut files = archive.entries().unwrap().map(Result::unwrap);
        let mut index = files
            .find(|file| file.path().unwrap().to_str() == Some("index.json"))
            .unwrap();
        let mut text = String::new();
        index.read_to_string(&mut text).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        let kind = index["manifests"][0]["mediaType"].as_str().unwrap();
        kind.rsplit('.').nth(1).unwrap().to_owned()
    };
    assert_eq!(kinds("1"), "index");
    assert_eq!(kinds("0"), "manifest");
    let wrong = ["--build-arg", "BUILDKIT_MULTI_PLATFORM=so", "c"];
    build(&host, &wrong).fails(1, "invalid boolean value for multi-platform: so");
    let other = ["--build-arg", "BUILDKIT_SYNTAX=example.com/other:1", "c"];
    build(&host, &other).fails(1, "syntax example.com/other:1");
    host.finish();
}

#[test]
fn credentials_of_addresses_are_shown_nowhere() {
    let host = Host::start();
    let server = host.on_host(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = server.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        let mut asked = Vec::new();
        let (mut client, _) = server.accept().unwrap();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap() > 0 {
            asked.push(byte[0]);
        }
        let answer = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\nfile\n";
        client.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    let address = format!("http://bob:hush-5d1@127.0.0.1:{port}/file?sig=hush-5d1");
    host.write("c/Dockerfile", &format!("FROM busybox\nADD {address} /\n"));
    let built = build(&host, &["-t", "app", "c"]);
    assert_eq!(answers.join().unwrap().matches("hush-5d1").count(), 1);
    let history = ["history", "--no-trunc", "--format", "{{.CreatedBy}}", "app"];
    let said = [
        host.muster(&history).ok(),
        host.muster(&["builder", "du", "--verbose"]).ok(),
        host.muster(&["system", "df", "--verbose"]).ok(),
        built.stderr.clone(),
    ];
    for said in &said {
        assert!(!said.contains("hush-5d1"), "{said}");
    }
    let shown = format!("ADD http://xxxxx:xxxxx@127.0.0.1:{port}/file?sig=xxxxx /");
    assert!(said[0].contains(&shown), "{}", said[0]);
    assert!(said[3].contains(&shown), "{built}");
    built.ok();
    let directory = host.path("data/build");
    let kept = host.tool("grep", &["-rl", "hush-5d1", directory.to_str().unwrap()]);
    assert_eq!(kept.stdout, "", "{kept}");
    host.finish();
}
