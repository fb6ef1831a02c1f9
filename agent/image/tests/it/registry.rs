//! Pulling from a registry that is written here, so that it can do everything wrong that a registry can.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use agent_build::plan::Platform;
use agent_image::{
    Credentials, Digest, ErrorClass, HeldFor, ImageError, ProgressMessage, PruneFilter,
    PullRequest, Pulled, Reference, Registry, RegistryConfig, RemoveOptions, silent,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Bed;
use crate::archive::{Tar, config, docker_archive, gzip};
use crate::server::{Reply, Request, Server};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image as a registry holds it: documents and blobs by path.
pub(crate) struct Image {
    paths: HashMap<String, (String, Vec<u8>)>,
    manifest: Digest,
    pub(crate) layers: Vec<Digest>,
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

/// `app:1` with four layers, one of them of some length.
pub(crate) fn image() -> Image {
    let tars = [
        Tar::new().dir("bin/").file("bin/sh", "#!").end(),
        Tar::new().file("data", noise(7, 1 << 20)).end(),
        Tar::new().file("etc/motd", "hello").end(),
        Tar::new().file("last", "one").end(),
    ];
    let refs: Vec<&[u8]> = tars.iter().map(|tar| &tar[..]).collect();
    let config = config(&refs, "0");
    let blobs: Vec<Vec<u8>> = refs.iter().map(|tar| gzip(tar)).collect();
    let descriptor = |kind: &str, blob: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(blob).to_string(), "size": blob.len() });
    let layer_kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &config),
        "layers": blobs.iter().map(|blob| descriptor(layer_kind, blob)).collect::<Vec<Value>>(),
    }))
    .unwrap();
    let digest = Digest::of(&manifest);
    let mut paths = HashMap::new();
    for name in ["1", &digest.to_string()] {
        let path = format!("/v2/app/manifests/{name}");
        paths.insert(path, (MANIFEST.to_owned(), manifest.clone()));
    }
    let layers: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    for blob in blobs.into_iter().chain([config]) {
        let path = format!("/v2/app/blobs/{}", Digest::of(&blob));
        paths.insert(path, (String::new(), blob));
    }
    Image {
        paths,
        manifest: digest,
        layers,
    }
}

impl Image {
    /// What a good registry answers.
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        let Some((kind, body)) = self.paths.get(&request.path) else {
            return Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#,
            );
        };
        let reply = match request.headers.get("range") {
            None => Reply::new(200, body.clone()),
            Some(range) => {
                let from: usize = range["bytes=".len()..]
                    .trim_end_matches('-')
                    .parse()
                    .unwrap();
                let whole = body.len();
                Reply::new(206, &body[from..]).with(
                    "content-range",
                    format!("bytes {from}-{}/{whole}", whole - 1),
                )
            }
        };
        match kind.is_empty() {
            true => reply,
            false => reply
                .with("content-type", kind)
                .with("docker-content-digest", Digest::of(body)),
        }
    }

    pub(crate) fn is_large_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&self.layers[1].to_string())
    }
}

/// A store and a client.
pub(crate) struct Puller {
    pub(crate) bed: Bed,
    pub(crate) registry: Registry,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Puller {
    pub(crate) fn new() -> Self {
        Self::with(RegistryConfig::default())
    }

    fn with(config: RegistryConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            bed: Bed::new(),
            registry: Registry::new(config, runtime.handle().clone()),
            cancel: CancellationToken::new(),
            runtime,
        }
    }

    fn pull(&self, server: &Server, name: &str) -> Result<Pulled, ImageError> {
        self.pull_as(server, name, None)
    }

    fn pull_as(
        &self,
        server: &Server,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Pulled, ImageError> {
        let request = PullRequest {
            reference: Reference::parse(&format!("{}/{name}", server.address)).unwrap(),
            platform: None,
            credentials,
        };
        let store = &self.bed.store;
        store.pull(&self.registry, &request, &self.cancel, &silent)
    }

    /// The text of the failure, after checking that it left nothing.
    fn refused(&self, server: &Server, name: &str) -> String {
        let before = self.bed.files();
        let error = self.pull(server, name).unwrap_err();
        assert_eq!(self.bed.files(), before, "{error}");
        error.to_string()
    }
}

fn me() -> Credentials {
    Credentials {
        username: "me".into(),
        password: "secret".into(),
        ..Credentials::default()
    }
}

#[test]
fn an_image_is_pulled_once_and_found_by_tag_and_digest() {
    let image = image();
    let digest = image.manifest;
    let server = Server::start(move |request| image.reply(request));
    let puller = Puller::new();
    let request = PullRequest {
        reference: Reference::parse(&format!("{}/app:1", server.address)).unwrap(),
        platform: None,
        credentials: None,
    };
    let seen = Mutex::new(Vec::new());
    let sink = |message: ProgressMessage| {
        if message
            .progress_detail
            .is_none_or(|detail| detail.current.is_none())
        {
            seen.lock().unwrap().push(message.status.unwrap());
        }
    };
    let store = &puller.bed.store;
    let pulled = store
        .pull(&puller.registry, &request, &puller.cancel, &sink)
        .unwrap();
    assert!(pulled.newer);
    assert_eq!(pulled.digest, digest);
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen[0], "Pulling from app");
    let name = format!("{}/app:1", server.address);
    assert_eq!(seen[seen.len() - 2], format!("Digest: {digest}"));
    assert_eq!(
        seen[seen.len() - 1],
        format!("Status: Downloaded newer image for {name}")
    );
    for text in ["Pulling fs layer", "Download complete", "Pull complete"] {
        assert_eq!(
            seen.iter().filter(|status| *status == text).count(),
            4,
            "{text}"
        );
    }
    assert_eq!(store.resolve(&name).unwrap(), pulled.id);
    let pinned = format!("{}/app@{digest}", server.address);
    assert_eq!(store.resolve(&pinned).unwrap(), pulled.id);
    let shown = store.inspect(&name).unwrap();
    assert_eq!(shown.digests[0].to_string(), pinned);
    assert_eq!(
        std::fs::read(shown.layers[2].join("data")).unwrap(),
        noise(7, 1 << 20)
    );

    let blobs = server.asked("/blobs/");
    let again = puller.pull(&server, "app:1").unwrap();
    assert_eq!((again.id, again.newer), (pulled.id, false));
    assert_eq!(server.asked("/blobs/"), blobs);
    let by_digest = puller.pull(&server, &format!("app@{digest}")).unwrap();
    assert_eq!((by_digest.id, by_digest.newer), (pulled.id, false));
}

#[test]
fn a_layer_goes_on_where_the_connection_broke() {
    for ranges in [true, false] {
        let image = image();
        let layer = image.layers[1];
        let tries = Mutex::new(0);
        let server = Server::start(move |request| {
            let mut reply = image.reply(request);
            if image.is_large_layer(request) {
                let mut tries = tries.lock().unwrap();
                *tries += 1;
                if !ranges {
                    // A registry that does not know ranges sends everything again.
                    reply = Reply::new(200, image.paths[&request.path].1.clone());
                }
                if *tries <= 2 {
                    reply.cut = Some(reply.body.len() / 2);
                }
            }
            reply
        });
        Puller::new().pull(&server, "app:1").unwrap();
        assert_eq!(server.asked(&format!("{layer} bytes=")), 2);
    }
}

#[test]
fn a_connection_that_breaks_again_and_again_is_an_error() {
    let image = image();
    let server = Server::start(move |request| {
        let mut reply = image.reply(request);
        if image.is_large_layer(request) {
            reply.cut = Some(0);
        }
        reply
    });
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("cannot reach registry"), "{error}");
}

#[test]
fn wrong_bytes_are_refused() {
    // Another layer's bytes of the same length; and a longer one; and a manifest that is not the one pinned.
    let good = image();
    let large = good.layers[1];
    let server = Server::start(move |request| {
        let mut reply = good.reply(request);
        if request.path.contains("/v2/app/blobs/") && good.is_large_layer(request) {
            let last = reply.body.len() - 5;
            reply.body[last] ^= 1;
        }
        reply
    });
    let error = Puller::new().refused(&server, "app:1");
    assert!(
        error.contains("verification failed") || error.contains("gzip"),
        "{error}"
    );

    let good = image();
    let server = Server::start(move |request| {
        let mut reply = good.reply(request);
        if good.is_large_layer(request) {
            reply.body.extend_from_slice(b"more");
        }
        reply
    });
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("longer than the promised"), "{error}");
    assert!(error.contains(&large.to_string()), "{error}");

    let good = image();
    let digest = good.manifest;
    let server = Server::start(move |request| {
        let mut reply = good.reply(request);
        if request.path.contains("/manifests/sha256:") {
            reply.body.push(b'\n');
        }
        reply
    });
    let error = Puller::new().refused(&server, &format!("app@{digest}"));
    assert!(error.contains("verification failed"), "{error}");
}

#[test]
fn what_is_not_there_is_said_in_dockers_words() {
    let image = image();
    let server = Server::start(move |request| image.reply(request));
    let puller = Puller::new();
    let error = puller.refused(&server, "app:nope");
    assert_eq!(
        error,
        format!(
            "manifest for {}/app:nope not found: manifest unknown: manifest unknown",
            server.address
        )
    );
    let server =
        Server::start(|_| Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""));
    assert!(
        puller
            .refused(&server, "app:1")
            .contains("no basic auth credentials")
    );
    let error = puller.pull_as(&server, "app:1", Some(me())).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized);
    // Once without, once with: a registry that always says no is not asked for ever.
    assert!(server.asked("manifests") <= 3);
    let server = Server::start(|_| Reply::new(403, ""));
    assert!(
        puller
            .refused(&server, "app:1")
            .contains("pull access denied for")
    );
}

#[test]
fn an_image_of_another_platform_is_pulled_with_a_warning_whether_it_is_here_or_not() {
    let image = image();
    let server = Server::start(move |request| image.reply(request));
    let puller = Puller::new();
    let name = format!("{}/app:1", server.address);
    for (platform, newer, warned) in [
        (Some("linux/arm64/v8"), true, true),
        (Some("linux/arm64/v8"), false, true),
        (Some("arm"), false, true),
        (Some("linux/amd64/v3"), false, false),
        (Some("linux"), false, false),
        (None, false, false),
    ] {
        let wanted: Option<Platform> = platform.map(|text| text.parse().unwrap());
        let request = PullRequest {
            reference: Reference::parse(&name).unwrap(),
            platform: wanted.clone(),
            credentials: None,
        };
        let told = Mutex::new(Vec::new());
        let sink = |message: ProgressMessage| told.lock().unwrap().extend(message.status);
        let store = &puller.bed.store;
        let pulled = store.pull(&puller.registry, &request, &puller.cancel, &sink);
        assert_eq!(pulled.unwrap().newer, newer, "{platform:?}");
        let told = told.into_inner().unwrap();
        // What Docker 28 says, after everything else.
        let warning = wanted.filter(|_| warned).map(|wanted| {
            format!(
                "WARNING: image with reference {name} was found but its platform (linux/amd64) does not match the specified platform ({wanted})"
            )
        });
        let last = told.last().filter(|text| text.starts_with("WARNING"));
        assert_eq!(last, warning.as_ref(), "{platform:?}");
    }
}

#[test]
fn what_was_pulled_for_a_build_stays_whatever_its_name_means() {
    let image = image();
    let server = Server::start(move |request| image.reply(request));
    let puller = Puller::new();
    let store = &puller.bed.store;
    let name = Reference::parse(&format!("{}/app:1", server.address)).unwrap();
    let request = PullRequest {
        reference: name.clone(),
        platform: None,
        credentials: None,
    };
    let other = docker_archive(&[(&[&Tar::new().file("f", "f").end()], &["other:1"])]);
    puller.bed.load(&other).unwrap();
    // Twice: when it comes, and when it is here.
    for _ in 0..2 {
        let (pulled, hold) = store
            .pull_held(
                &puller.registry,
                &request,
                HeldFor::Build,
                &puller.cancel,
                &silent,
            )
            .unwrap();
        store.tag("other:1", &name).unwrap();
        assert_ne!(store.resolve(&name.to_string()).unwrap(), pulled.id);
        let forced = RemoveOptions {
            force: true,
            no_prune: false,
        };
        let refused = store.remove(&pulled.id.hex(), forced, Vec::new);
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("is being used by a build"), "{told}");
        let all = PruneFilter {
            dangling_only: false,
            ..PruneFilter::default()
        };
        store.prune(&all, Vec::new).unwrap();
        store.layers(&pulled.id).unwrap();
        drop(hold);
        puller.bed.load(&other).unwrap();
    }
}

#[test]
fn a_build_for_another_platform_takes_no_name_from_an_image() {
    let image = image();
    let server = Server::start(move |request| image.reply(request));
    let puller = Puller::new();
    let store = &puller.bed.store;
    let name = Reference::parse(&format!("{}/app:1", server.address)).unwrap();
    let own = docker_archive(&[(&[&Tar::new().file("f", "f").end()], &["own:1"])]);
    puller.bed.load(&own).unwrap();
    store.tag("own:1", &name).unwrap();
    let own = store.resolve(&name.to_string()).unwrap();
    let pull = |platform: &str, purpose: HeldFor| {
        let request = PullRequest {
            reference: name.clone(),
            platform: Some(platform.parse().unwrap()),
            credentials: None,
        };
        let pulled = store.pull_held(&puller.registry, &request, purpose, &puller.cancel, &silent);
        pulled.unwrap().0.id
    };
    let foreign = pull("linux/arm64", HeldFor::Build);
    assert_eq!(store.resolve(&name.to_string()).unwrap(), own);
    // Not nameless either: nobody takes it for left over.
    assert_eq!(
        store.inspect(&foreign.to_string()).unwrap().digests.len(),
        1
    );
    // A newer one for this platform takes it, and so does who asks for the other one.
    assert_eq!(pull("linux/amd64", HeldFor::Build), foreign);
    assert_eq!(store.resolve(&name.to_string()).unwrap(), foreign);
    store.tag("own:1", &name).unwrap();
    pull("linux/arm64", HeldFor::Pull);
    assert_eq!(store.resolve(&name.to_string()).unwrap(), foreign);
}

#[test]
fn documents_are_read_as_go_reads_them() {
    let image = image();
    let server = Server::start(move |request| {
        let mut reply = image.reply(request);
        if request.path.contains("/manifests/") {
            let manifest = String::from_utf8(reply.body).unwrap();
            let manifest = manifest.replace("\"layers\"", "\"annotations\":null,\"LAYERS\"");
            let manifest = manifest.replace("\"config\"", "\"config\":null,\"Config\"");
            reply = Reply::new(200, manifest).with("content-type", MANIFEST);
        }
        reply
    });
    let pulled = Puller::new().pull(&server, "app:1").unwrap();
    assert!(pulled.newer);
    // The two ways of saying what it is are still told apart from being both (CVE-2021-41190).
    let both = r#"{"schemaVersion":2,"MediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"Layers":[]}"#;
    let server = Server::start(move |_| Reply::new(200, both).with("content-type", INDEX));
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("a manifest and an index at once"), "{error}");
}

#[test]
fn what_plain_http_fails_with_is_told_where_nobody_speaks_tls() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let mut greetings = Vec::new();
        while greetings.len() < 2 {
            let (mut client, _) = listener.accept().unwrap();
            let mut first = [0];
            client.read_exact(&mut first).unwrap();
            greetings.push(first[0]);
            if first[0] == 0x16 {
                client
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .unwrap();
            }
        }
        greetings
    });
    let puller = Puller::with(RegistryConfig {
        attempts: 1,
        ..RegistryConfig::default()
    });
    let request = PullRequest {
        reference: Reference::parse(&format!("{address}/app:1")).unwrap(),
        platform: None,
        credentials: None,
    };
    let store = &puller.bed.store;
    let refused = store.pull(&puller.registry, &request, &puller.cancel, &silent);
    let told = refused.unwrap_err().to_string();
    assert!(told.contains(&format!("http://{address}")), "{told}");
    // TLS first, and then once without.
    assert_eq!(served.join().unwrap(), [0x16, b'G']);
}

#[test]
fn a_registrys_own_reason_is_told() {
    let told = |body: &'static str| {
        let server = Server::start(move |_| Reply::new(403, body));
        Puller::new().refused(&server, "app:1")
    };
    let start = "repository does not exist or may require 'docker login': denied: ";
    let quota = told(r#"{"errors":[{"code":"DENIED","message":"billing is \u0007not set up"}]}"#);
    assert!(
        quota.ends_with(&format!("{start}billing is not set up")),
        "{quota}"
    );
    for nothing in ["", "<html>", r#"{"errors":[{"code":"DENIED"}]}"#] {
        let text = told(nothing);
        let usual = format!("{start}requested access to the resource is denied");
        assert!(text.ends_with(&usual), "{text}");
    }
}

#[test]
fn a_layer_of_which_no_part_can_be_had_is_fetched_whole() {
    let image = image();
    let cut = Arc::new(Mutex::new(true));
    let first = Arc::clone(&cut);
    let server = Server::start(move |request| {
        if image.is_large_layer(request) && request.headers.contains_key("range") {
            return Reply::new(416, "");
        }
        let mut reply = image.reply(request);
        if image.is_large_layer(request) && std::mem::take(&mut *first.lock().unwrap()) {
            reply.cut = Some(400_000);
        }
        reply
    });
    let puller = Puller::new();
    puller.pull(&server, "app:1").unwrap();
    assert!(!*cut.lock().unwrap(), "the connection broke once");
}

#[test]
fn documents_are_bounded() {
    let server =
        Server::start(|_| Reply::new(200, vec![b' '; 5 << 20]).with("content-type", MANIFEST));
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("longer than 4194304 bytes"), "{error}");

    // An index that leads to itself has no digest that fits; one that leads nowhere ends.
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": MANIFEST, "digest": Digest::of(b"x").to_string(), "size": 1,
          "platform": { "os": "linux", "architecture": "s390x" } } ] });
    let index = serde_json::to_vec(&index).unwrap();
    let server = Server::start(move |_| Reply::new(200, index.clone()).with("content-type", INDEX));
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("no matching manifest for linux/"), "{error}");
    assert!(error.contains("linux/s390x"), "{error}");
}

/// A registry whose token service is itself.
fn with_tokens(
    image: Image,
    address: Arc<Mutex<String>>,
    good: &'static str,
) -> impl Fn(&Request) -> Reply {
    move |request| {
        if request.path.starts_with("/token") {
            let basic = request.headers.get("authorization").map(String::as_str);
            let by_password = basic == Some("Basic bWU6c2VjcmV0");
            let by_identity = request.method == "POST"
                && request.text().contains("grant_type=refresh_token")
                && request.text().contains("refresh_token=identity");
            let scoped = format!("{} {}", request.path, request.text())
                .contains("scope=repository%3Aapp%3Apull");
            return match (by_password || by_identity) && scoped {
                true => Reply::new(200, r#"{"token":"good","expires_in":300}"#),
                false => Reply::new(401, ""),
            };
        }
        if request.headers.get("authorization").map(String::as_str) == Some(good) {
            return image.reply(request);
        }
        let address = address.lock().unwrap();
        Reply::new(401, "").with(
            "www-authenticate",
            format!("Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"x\""),
        )
    }
}

#[test]
fn a_token_is_got_once_by_password_or_identity() {
    for credentials in [
        me(),
        Credentials {
            identity_token: "identity".into(),
            ..Credentials::default()
        },
    ] {
        let address = Arc::new(Mutex::new(String::new()));
        let server = Server::start(with_tokens(image(), Arc::clone(&address), "Bearer good"));
        address.lock().unwrap().clone_from(&server.address);
        Puller::new()
            .pull_as(&server, "app:1", Some(credentials))
            .unwrap();
        assert_eq!(server.asked("/token"), 1);
    }
}

#[test]
fn a_registry_that_refuses_its_own_tokens_is_not_asked_for_ever() {
    let address = Arc::new(Mutex::new(String::new()));
    let server = Server::start(with_tokens(image(), Arc::clone(&address), "Bearer never"));
    address.lock().unwrap().clone_from(&server.address);
    let error = Puller::new()
        .pull_as(&server, "app:1", Some(me()))
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized, "{error}");
    assert_eq!(server.asked("/token"), 1);
    let wrong = Credentials {
        password: "wrong".into(),
        ..me()
    };
    let error = Puller::new()
        .pull_as(&server, "app:1", Some(wrong))
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized, "{error}");
}

#[test]
fn a_redirect_does_not_carry_the_password_away() {
    let image = Arc::new(image());
    let behind = Arc::clone(&image);
    let storage = Server::start(move |request| match request.headers.get("authorization") {
        None => behind.reply(request),
        Some(_) => Reply::new(400, ""),
    });
    let to = storage.address.clone();
    let server = Server::start(move |request| {
        if !request.headers.contains_key("authorization") {
            return Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\"");
        }
        match request.path.contains("/blobs/") {
            true => Reply::new(307, "").with("location", format!("http://{to}{}", request.path)),
            false => image.reply(request),
        }
    });
    Puller::new().pull_as(&server, "app:1", Some(me())).unwrap();
    assert_eq!(storage.asked("/blobs/"), 5);

    let server = Server::start(|_| Reply::new(302, "").with("location", "/v2/app/manifests/1"));
    let error = Puller::new().refused(&server, "app:1");
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn where_it_redirects_to_nobody_learns_who_asks() {
    // It says so itself, and would love to have a password.
    let own = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&own);
    let greedy = Server::start(move |request| {
        assert!(!request.headers.contains_key("authorization"));
        let realm = format!("http://{}/token", address.lock().unwrap());
        match request.path.starts_with("/token") {
            true => Reply::new(200, r#"{"token":"t","refresh_token":"r"}"#),
            false => Reply::new(401, "").with(
                "www-authenticate",
                format!("Bearer realm=\"{realm}\",service=\"s\""),
            ),
        }
    });
    own.lock().unwrap().clone_from(&greedy.address);
    let reason = format!("refusing to authenticate to http://{}", greedy.address);
    for redirected in ["/v2/", "/manifests/", "/blobs/"] {
        let (image, to) = (image(), greedy.address.clone());
        let server = Server::start(move |request| {
            if request.path.contains(redirected) && (redirected != "/v2/" || request.path == "/v2/")
            {
                let location = format!("http://{to}{}", request.path);
                return Reply::new(307, "").with("location", location);
            }
            image.reply(request)
        });
        let puller = Puller::new();
        let (registry, cancel) = (&puller.registry, &puller.cancel);
        let error = match redirected {
            "/v2/" => registry
                .login(&server.address, me(), cancel)
                .unwrap_err()
                .to_string(),
            _ => puller
                .pull_as(&server, "app:1", Some(me()))
                .unwrap_err()
                .to_string(),
        };
        assert!(error.contains(&reason), "{redirected}: {error}");
        assert_ne!(greedy.asked(redirected), 0);
    }
    assert_eq!(greedy.asked("/token"), 0);
}

#[test]
fn an_overloaded_registry_is_asked_again() {
    let image = image();
    let busy = Mutex::new(2);
    let server = Server::start(move |request| {
        let mut busy = busy.lock().unwrap();
        if *busy > 0 {
            *busy -= 1;
            return Reply::new(503, "");
        }
        image.reply(request)
    });
    Puller::new().pull(&server, "app:1").unwrap();
}

#[test]
fn a_cancelled_pull_ends_at_once_and_leaves_nothing() {
    let image = image();
    let (reached, wait) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let shared = Mutex::new((reached, released));
    let server = Server::start(move |request| {
        let reply = image.reply(request);
        if image.is_large_layer(request) {
            let shared = shared.lock().unwrap();
            shared.0.send(()).unwrap();
            // Silent until the test is over.
            let _ = shared.1.recv();
        }
        reply
    });
    let puller = Puller::new();
    let before = puller.bed.files();
    let cancel = puller.cancel.clone();
    let canceller = std::thread::spawn(move || {
        wait.recv().unwrap();
        cancel.cancel();
    });
    let error = puller.pull(&server, "app:1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the exchange with the registry was cancelled"
    );
    canceller.join().unwrap();
    drop(release);
    assert_eq!(puller.bed.files(), before);
    drop(puller.runtime);
}

/// `app:1` as Docker Hub and its mirrors call it.
fn hub_image() -> Image {
    let mut image = image();
    let moved =
        |(path, document): (String, _)| (path.replace("/v2/app/", "/m/v2/library/app/"), document);
    image.paths = image.paths.drain().map(moved).collect();
    image
}

fn mirrored(mirrors: &[&Server]) -> Puller {
    let mirrors = mirrors
        .iter()
        .map(|server| format!("http://{}/m/", server.address));
    Puller::with(RegistryConfig {
        mirrors: mirrors.collect(),
        ..RegistryConfig::default()
    })
}

fn from_hub() -> PullRequest {
    PullRequest {
        reference: Reference::parse("app:1").unwrap(),
        platform: None,
        credentials: Some(me()),
    }
}

#[test]
fn mirrors_serve_docker_hub_without_its_password() {
    let image = hub_image();
    let server = Server::start(move |request| match request.headers.get("authorization") {
        None => image.reply(request),
        Some(_) => Reply::new(400, ""),
    });
    let puller = mirrored(&[&server]);
    let store = &puller.bed.store;
    store
        .pull(&puller.registry, &from_hub(), &puller.cancel, &silent)
        .unwrap();
    assert!(store.resolve("app:1").is_ok());
}

#[test]
fn a_mirror_that_breaks_in_the_middle_leads_to_the_next() {
    type Fault = fn(&mut Reply);
    let faults: [Fault; 4] = [
        |reply| *reply = Reply::new(404, ""),
        |reply| *reply = Reply::new(500, ""),
        |reply| *reply = Reply::new(401, ""),
        |reply| {
            let last = reply.body.len() - 5;
            reply.body[last] ^= 1;
        },
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        for broken in 1..=5 {
            let (bad, good) = (hub_image(), hub_image());
            let large = good.layers[1];
            let asked = Mutex::new(Vec::new());
            let mirror = Server::start(move |request| {
                let mut reply = bad.reply(request);
                let mut asked = asked.lock().unwrap();
                let of = request.path.clone();
                if of.contains("/blobs/") && !asked.contains(&of) {
                    asked.push(of.clone());
                }
                // The configuration comes first, then the layers.
                if asked.iter().position(|path| *path == of) == Some(broken - 1) {
                    fault(&mut reply);
                }
                reply
            });
            let next = Server::start(move |request| good.reply(request));
            let puller = Puller::with(RegistryConfig {
                mirrors: [&mirror, &next]
                    .map(|server| format!("http://{}/m/", server.address))
                    .to_vec(),
                attempts: 1,
                ..RegistryConfig::default()
            });
            let store = &puller.bed.store;
            store
                .pull(&puller.registry, &from_hub(), &puller.cancel, &silent)
                .unwrap_or_else(|error| panic!("fault {number} of blob {broken}: {error}"));
            assert_ne!(next.asked("/blobs/"), 0);
            // What the first has sent whole is not fetched again.
            let twice =
                mirror.asked(&large.to_string()) != 0 && next.asked(&large.to_string()) != 0;
            assert!(!twice || broken > 1);
            assert_eq!(store.partial_bytes(), 0);
        }
    }
}

#[test]
fn a_mirror_that_is_down_is_asked_once_and_then_last() {
    for overloaded in [true, false] {
        let bad = hub_image();
        let mirror = Server::start(move |request| match overloaded {
            true => Reply::new(503, ""),
            false => Reply {
                cut: Some(10),
                ..bad.reply(request)
            },
        });
        let good = hub_image();
        let next = Server::start(move |request| good.reply(request));
        let puller = mirrored(&[&mirror, &next]);
        let store = &puller.bed.store;
        for _ in 0..2 {
            store
                .pull(&puller.registry, &from_hub(), &puller.cancel, &silent)
                .unwrap();
        }
        // Who says that it is busy may have time for the next one.
        let expected = if overloaded { 2 } else { 1 };
        assert_eq!(mirror.asked(""), expected, "{:?}", mirror.log());
    }
}

#[test]
fn a_cancelled_pull_asks_no_other_mirror() {
    let image = hub_image();
    let puller_cancel = CancellationToken::new();
    let cancel = puller_cancel.clone();
    let mirror = Server::start(move |request| {
        if request.path.contains("/blobs/") {
            cancel.cancel();
        }
        image.reply(request)
    });
    let good = hub_image();
    let next = Server::start(move |request| good.reply(request));
    let puller = mirrored(&[&mirror, &next]);
    let store = &puller.bed.store;
    let error = store.pull(&puller.registry, &from_hub(), &puller_cancel, &silent);
    assert!(error.unwrap_err().to_string().contains("cancelled"));
    assert_eq!(next.asked(""), 0);
}
