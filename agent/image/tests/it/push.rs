//! Pushing into a registry that is written here: what is sent, what is not, and what happens when connections break.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use agent_image::{
    Digest, ErrorClass, ImageError, ProgressMessage, PullRequest, PushRequest, Pushed, Reference,
    Registry, RegistryConfig, RemoveOptions, silent,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Bed;
use crate::archive::{Tar, config, docker_archive, gzip};
use crate::server::{Reply, Request, Server};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a registry holds.
#[derive(Default)]
struct Depot {
    /// By repository and digest.
    blobs: HashMap<(String, String), Vec<u8>>,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    next: u32,
    /// Whether blobs are mounted.
    mounts: bool,
}

impl Depot {
    fn serve() -> (Server, Arc<Mutex<Self>>) {
        let depot = Arc::new(Mutex::new(Self {
            mounts: true,
            ..Self::default()
        }));
        let shared = Arc::clone(&depot);
        let server = Server::start(move |request| shared.lock().unwrap().reply(request));
        (server, depot)
    }

    fn reply(&mut self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                (
                    name.to_owned(),
                    value.replace("%3A", ":").replace("%2F", "/"),
                )
            })
            .collect();
        let Some(rest) = path.strip_prefix("/v2/").filter(|rest| !rest.is_empty()) else {
            return Reply::new(200, "{}");
        };
        let method = &*request.method;
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return self.upload(request, method, repository, id, &query);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return match self.blobs.get(&(repository.into(), digest.into())) {
                Some(blob) => whole(blob),
                None => Reply::new(404, ""),
            };
        }
        let Some((repository, name)) = rest.split_once("/manifests/") else {
            return Reply::new(404, "");
        };
        let key = (repository.to_owned(), name.to_owned());
        if method == "PUT" {
            let manifest: Value = serde_json::from_slice(&request.body).unwrap();
            let layers = manifest["layers"].as_array().unwrap();
            for blob in layers.iter().chain([&manifest["config"]]) {
                let digest = blob["digest"].as_str().unwrap().to_owned();
                let found = self.blobs.get(&(repository.to_owned(), digest));
                let size = found.map(|found| found.len() as u64);
                if size != blob["size"].as_u64() {
                    return Reply::new(400, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#);
                }
            }
            let kind = request.headers["content-type"].clone();
            let digest = Digest::of(&request.body).to_string();
            let whole = (kind, request.body.clone());
            self.manifests
                .insert((key.0.clone(), digest), whole.clone());
            self.manifests.insert(key, whole);
            return Reply::new(201, "");
        }
        match self.manifests.get(&key) {
            Some((kind, bytes)) => whole(bytes).with("content-type", kind),
            None => Reply::new(404, ""),
        }
    }

    fn upload(
        &mut self,
        request: &Request,
        method: &str,
        repository: &str,
        id: &str,
        query: &HashMap<String, String>,
    ) -> Reply {
        // Relative, and with a query that must survive.
        let to = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=s%2Bt");
        if method == "POST" {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
                let found = self.blobs.get(&(from.clone(), digest.clone())).cloned();
                if let Some(blob) = found.filter(|_| self.mounts) {
                    self.blobs.insert((repository.into(), digest.clone()), blob);
                    return Reply::new(201, "");
                }
            }
            self.next += 1;
            let id = self.next.to_string();
            self.uploads.insert(id.clone(), Vec::new());
            return Reply::new(202, "").with("location", to(&id));
        }
        if query.get("state").map(String::as_str) != Some("s%2Bt") {
            return Reply::new(400, "the query of the location is lost");
        }
        let Some(upload) = self.uploads.get_mut(id) else {
            return Reply::new(404, "");
        };
        let range = |upload: &[u8]| format!("0-{}", upload.len().max(1) - 1);
        match method {
            "GET" => Reply::new(204, "")
                .with("location", to(id))
                .with("range", range(upload)),
            "PATCH" => {
                if let Some(range) = request.headers.get("content-range") {
                    let start: usize = range.split_once('-').unwrap().0.parse().unwrap();
                    if start != upload.len() {
                        return Reply::new(416, "");
                    }
                }
                upload.extend(&request.body);
                Reply::new(202, "").with("location", to(id))
            }
            "DELETE" => {
                self.uploads.remove(id);
                Reply::new(204, "")
            }
            _ => {
                let mut blob = self.uploads.remove(id).unwrap();
                if request.broken {
                    return Reply::new(500, "");
                }
                blob.extend(&request.body);
                if Digest::of(&blob).to_string() != query["digest"] {
                    return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                let key = (repository.to_owned(), query["digest"].clone());
                self.blobs.insert(key, blob);
                Reply::new(201, "")
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Reply {
    Reply::new(200, bytes).with("docker-content-digest", Digest::of(bytes))
}

/// A store with a client, and the image `app:1` of three layers, one of which is large.
struct Pusher {
    bed: Bed,
    registry: Registry,
    cancel: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 9u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

const LARGE: usize = 20 << 20;

fn tars() -> [Vec<u8>; 3] {
    [
        Tar::new().dir("bin/").file("bin/sh", "#!").end(),
        Tar::new().file("data", noise(LARGE)).end(),
        Tar::new().file("etc/motd", "hello").end(),
    ]
}

impl Pusher {
    fn empty() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            bed: Bed::new(),
            registry: Registry::new(RegistryConfig::default(), runtime.handle().clone()),
            cancel: CancellationToken::new(),
            _runtime: runtime,
        }
    }

    fn new() -> Self {
        let pusher = Self::empty();
        let tars = tars();
        let refs: Vec<&[u8]> = tars.iter().map(|tar| &tar[..]).collect();
        let archive = docker_archive(&[(&refs, &["app:1"])]);
        pusher.bed.load(&archive).unwrap();
        pusher
    }

    /// Names the image and pushes it; the statuses that came, with the layers' ids cut off.
    fn push(&self, server: &Server, name: &str) -> Result<(Vec<Pushed>, Vec<String>), ImageError> {
        let name = format!("{}/{name}", server.address);
        let reference = Reference::parse(&name).unwrap();
        if self.bed.store.resolve("app:1").is_ok() && !reference.is_name_only() {
            self.bed.store.tag("app:1", &reference).unwrap();
        }
        let request = PushRequest {
            image: None,
            reference,
            credentials: None,
        };
        let statuses = Mutex::new(Vec::new());
        let sink = |message: ProgressMessage| {
            let status = message.status.unwrap_or_default();
            if !matches!(&*status, "" | "Pushing" | "Preparing" | "Waiting") {
                statuses.lock().unwrap().push(status);
            }
        };
        let store = &self.bed.store;
        let pushed = store.push(&self.registry, &request, &self.cancel, &sink)?;
        Ok((pushed, statuses.into_inner().unwrap()))
    }

    fn pull(&self, server: &Server, name: &str) -> agent_image::Pulled {
        let request = PullRequest {
            reference: Reference::parse(&format!("{}/{name}", server.address)).unwrap(),
            platform: None,
            credentials: None,
        };
        let store = &self.bed.store;
        store
            .pull(&self.registry, &request, &self.cancel, &silent)
            .unwrap()
    }
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn an_image_is_sent_once_and_comes_back_as_it_was() {
    let (server, depot) = Depot::serve();
    let pusher = Pusher::new();
    let id = pusher.bed.store.resolve("app:1").unwrap();
    let (pushed, told) = pusher.push(&server, "a/app:1").unwrap();
    let repository = format!("{}/a/app", server.address);
    assert_eq!(
        told[0],
        format!("The push refers to repository [{repository}]")
    );
    assert_eq!(count(&told, "Pushed"), 3);
    let last = format!("1: digest: {} size: {}", pushed[0].digest, pushed[0].size);
    assert_eq!(told.last().unwrap(), &last);
    {
        let depot = depot.lock().unwrap();
        let (kind, bytes) = &depot.manifests[&("a/app".to_owned(), "1".to_owned())];
        assert_eq!(kind, DOCKER);
        assert_eq!(Digest::of(bytes), pushed[0].digest);
        assert!(depot.uploads.is_empty(), "no upload is left open");
    }
    let pinned = format!("{repository}@{}", pushed[0].digest);
    assert_eq!(pusher.bed.store.resolve(&pinned).unwrap(), id);

    // Everything is there: nothing is compressed, nothing is sent.
    server.log();
    let (again, told) = pusher.push(&server, "a/app:2").unwrap();
    assert_eq!(count(&told, "Layer already exists"), 3);
    assert_eq!(again[0].digest, pushed[0].digest);
    let asked = server.log();
    assert_eq!(count(&asked, "POST "), 0, "{asked:?}");
    assert_eq!(count(&asked, "PATCH "), 0, "{asked:?}");

    // Another repository of the registry gets them from this one.
    let (_, told) = pusher.push(&server, "b/app:1").unwrap();
    assert_eq!(count(&told, "Mounted from a/app"), 3);
    assert_eq!(count(&server.log(), "PATCH "), 0);

    // All tags of a repository.
    let (all, _) = pusher.push(&server, "a/app").unwrap();
    assert_eq!(all.len(), 2);

    // The same id elsewhere, and what was pulled is pushed on under the same digest.
    let other = Pusher::empty();
    let pulled = other.pull(&server, "a/app:1");
    assert_eq!((pulled.id, pulled.digest), (id, pushed[0].digest));
    let name = Reference::parse(&format!("{}/c/app:1", server.address)).unwrap();
    let from = format!("{}/a/app:1", server.address);
    other.bed.store.tag(&from, &name).unwrap();
    let (moved, told) = other.push(&server, "c/app:1").unwrap();
    assert_eq!(moved[0].digest, pushed[0].digest);
    assert_eq!(count(&told, "Mounted from a/app"), 3);
}

#[test]
fn a_name_with_a_digest_is_that_name_and_no_other() {
    let (server, _) = Depot::serve();
    let pusher = Pusher::new();
    let (pushed, _) = pusher.push(&server, "a/app:1").unwrap();
    let store = &pusher.bed.store;
    let repository = format!("{}/a/app", server.address);
    let id = store.resolve("app:1").unwrap();
    let digest = pushed[0].digest;
    let remove = |name: String| {
        let removed = store.remove(&name, RemoveOptions::default(), Vec::new);
        removed
            .map(|steps| steps.len())
            .map_err(|error| error.to_string())
    };
    // A tag beside a digest says nothing.
    assert_eq!(
        store.resolve(&format!("{repository}:9@{digest}")).unwrap(),
        id
    );
    // An image's id is no digest of a name.
    let wrong = format!("{repository}@{id}");
    assert!(store.resolve(&wrong).is_err());
    assert_eq!(
        remove(wrong.clone()),
        Err(format!("No such image: {wrong}"))
    );
    assert_eq!(remove(format!("{repository}:1@{digest}")), Ok(1));
    assert!(store.resolve(&format!("{repository}@{digest}")).is_err());
    let again = format!("{repository}@{digest}");
    assert_eq!(
        remove(again.clone()),
        Err(format!("No such image: {again}"))
    );
    assert_eq!(store.resolve(&format!("{repository}:1")).unwrap(), id);
}

#[test]
fn what_a_manifest_says_about_a_layer_that_was_here_is_not_believed() {
    let (server, depot) = Depot::serve();
    let (shared, own) = (
        Tar::new().file("etc/motd", "hello").end(),
        Tar::new().file("own", "x").end(),
    );
    let pusher = Pusher::empty();
    let archive = docker_archive(&[(&[&shared], &["app:1"])]);
    pusher.bed.load(&archive).unwrap();
    // An image whose configuration has the layer, and whose manifest names other content for it.
    let lie = gzip(&Tar::new().file("etc/motd", "evil").end());
    let config = config(&[&shared, &own], "evil");
    let descriptor = |kind: &str, blob: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(blob).to_string(), "size": blob.len() });
    let layer_kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let layers = [&lie, &gzip(&own)].map(|blob| descriptor(layer_kind, blob));
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": DOCKER,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &config),
        "layers": layers,
    }))
    .unwrap();
    {
        let mut depot = depot.lock().unwrap();
        for blob in [config, lie.clone(), gzip(&own)] {
            let key = ("evil/x".to_owned(), Digest::of(&blob).to_string());
            depot.blobs.insert(key, blob);
        }
        let key = ("evil/x".to_owned(), "1".to_owned());
        depot.manifests.insert(key, (DOCKER.to_owned(), manifest));
    }
    pusher.pull(&server, "evil/x:1");
    let lie = Digest::of(&lie).to_string();
    assert_eq!(server.asked(&lie), 0, "the layer was here already");
    // Neither another image with the layer nor this one goes on with it.
    let evil = format!("{}/evil/x:1", server.address);
    let other = Reference::parse(&format!("{}/me/copy:1", server.address)).unwrap();
    pusher.push(&server, "me/app:1").unwrap();
    pusher.bed.store.tag(&evil, &other).unwrap();
    pusher
        .bed
        .store
        .remove("app:1", RemoveOptions::default(), Vec::new)
        .unwrap();
    pusher.push(&server, "me/copy:1").unwrap();
    assert_eq!(server.asked(&lie), 0);
    for name in ["me/app", "me/copy"] {
        let depot = depot.lock().unwrap();
        let (_, manifest) = &depot.manifests[&(name.to_owned(), "1".to_owned())];
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let blob = &depot.blobs[&(name.to_owned(), layer.to_owned())];
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&blob[..])
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(Digest::of(&tar), Digest::of(&shared), "{name}");
    }
}

#[test]
fn what_cannot_be_mounted_is_sent_and_known_next_time() {
    let (server, depot) = Depot::serve();
    let pusher = Pusher::new();
    pusher.push(&server, "a/app:1").unwrap();
    depot.lock().unwrap().mounts = false;
    let (_, told) = pusher.push(&server, "b/app:1").unwrap();
    assert_eq!(count(&told, "Pushed"), 3);
    assert!(depot.lock().unwrap().uploads.is_empty());
    // A repository that lost its blobs gets them again.
    depot
        .lock()
        .unwrap()
        .blobs
        .retain(|(repository, _), _| repository != "a/app");
    let (_, told) = pusher.push(&server, "a/app:1").unwrap();
    assert_eq!(count(&told, "Pushed"), 3);
}

#[test]
fn an_upload_goes_on_where_the_connection_broke() {
    // In the stream; in a piece after it; and twice in a piece.
    for breaks in [
        &[5 << 20][..],
        &[5 << 20, 1 << 20],
        &[200 << 10, 7 << 20, 3 << 20],
    ] {
        let (server, depot) = Depot::serve();
        let pusher = Pusher::new();
        for at in breaks {
            server.break_after(*at);
        }
        let (pushed, _) = pusher.push(&server, "a/app:1").unwrap();
        let asked = server.log();
        assert!(
            count(&asked, "GET /v2/a/app/blobs/uploads/") >= 1,
            "{asked:?}"
        );
        assert_eq!(count(&asked, "POST "), 4, "one upload each: {asked:?}");
        let sent: usize = depot.lock().unwrap().blobs.values().map(Vec::len).sum();
        assert!(sent > LARGE);
        let other = Pusher::empty();
        assert_eq!(other.pull(&server, "a/app:1").digest, pushed[0].digest);
    }
}

#[test]
fn a_lost_upload_begins_anew() {
    // The ways in which registries say so.
    for status in [404, 400, 416] {
        let (_, depot) = Depot::serve();
        let pusher = Pusher::new();
        // It forgets uploads when connections break.
        let server = Server::start(move |request| {
            let mut depot = depot.lock().unwrap();
            let mut reply = depot.reply(request);
            if request.broken {
                depot.uploads.clear();
            }
            if request.method == "GET" && reply.status == 404 {
                reply.status = status;
            }
            reply
        });
        server.break_after(2 << 20);
        pusher.push(&server, "a/app:1").unwrap();
        assert!(count(&server.log(), "POST ") > 4, "{status}");
    }
}

#[test]
fn an_upload_that_does_not_go_on_begins_anew() {
    // It tells what it has of an upload, and then refuses the next piece, or the whole.
    for (refused, status) in [("PATCH", 416), ("PATCH", 400), ("PUT", 416), ("PUT", 400)] {
        let (_, depot) = Depot::serve();
        let pusher = Pusher::new();
        let resumed = Arc::new(Mutex::new(None));
        let server = Server::start(move |request| {
            let id = request.path.split('?').next().map(str::to_owned);
            let mut resumed = resumed.lock().unwrap();
            if request.headers.contains_key("content-range") {
                resumed.clone_from(&id);
                if refused == "PATCH" {
                    return Reply::new(status, "");
                }
            }
            if request.method == "PUT" && refused == "PUT" && *resumed == id {
                return Reply::new(status, "");
            }
            depot.lock().unwrap().reply(request)
        });
        server.break_after(2 << 20);
        let begun = std::time::Instant::now();
        pusher.push(&server, "a/app:1").unwrap();
        assert_eq!(count(&server.log(), "POST "), 5, "{refused} {status}");
        assert!(begun.elapsed().as_secs() < 10, "{refused} {status}");
        let other = Pusher::empty();
        other.pull(&server, "a/app:1");
    }
}

#[test]
fn an_image_is_pushed_although_its_name_means_another() {
    let (server, depot) = Depot::serve();
    let pusher = Pusher::new();
    let store = &pusher.bed.store;
    let built = store.resolve("app:1").unwrap();
    let reference = Reference::parse(&format!("{}/a/app:1", server.address)).unwrap();
    let other = docker_archive(&[(&[&Tar::new().file("f", "f").end()], &["other:1"])]);
    pusher.bed.load(&other).unwrap();
    store.tag("other:1", &reference).unwrap();
    let request = PushRequest {
        reference: reference.clone(),
        image: Some(built),
        credentials: None,
    };
    let pushed = store
        .push(&pusher.registry, &request, &pusher.cancel, &silent)
        .unwrap();
    assert_eq!(pushed[0].reference, reference);
    let depot = depot.lock().unwrap();
    let (_, manifest) = &depot.manifests[&("a/app".to_owned(), "1".to_owned())];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["config"]["digest"], built.to_string());
    assert_ne!(store.resolve(&reference.to_string()).unwrap(), built);
}

#[test]
fn a_registrys_reason_for_taking_nothing_is_told() {
    let pusher = Pusher::new();
    let full = Server::start(|request| match (&*request.method, &*request.path) {
        (_, "/v2/") => Reply::new(200, ""),
        ("HEAD", _) => Reply::new(404, ""),
        _ => Reply::new(
            403,
            r#"{"errors":[{"code":"DENIED","message":"project quota exceeded"}]}"#,
        ),
    });
    let told = pusher.push(&full, "a/app:1").unwrap_err();
    assert!(
        told.to_string()
            .starts_with("denied: project quota exceeded"),
        "{told}"
    );
    assert_eq!(told.class(), ErrorClass::Unauthorized);
}

#[test]
fn refusals_are_told_in_dockers_words() {
    let (server, _) = Depot::serve();
    let pusher = Pusher::new();
    let error = |name: &str| {
        let request = PushRequest {
            image: None,
            reference: Reference::parse(name).unwrap(),
            credentials: None,
        };
        let store = &pusher.bed.store;
        let pushed = store.push(&pusher.registry, &request, &pusher.cancel, &silent);
        pushed.unwrap_err().to_string()
    };
    let address = &server.address;
    assert_eq!(
        error(&format!("{address}/no/such:1")),
        format!("An image does not exist locally with the tag: {address}/no/such")
    );
    pusher.push(&server, "a/app:1").unwrap();
    assert_eq!(
        error(&format!("{address}/a/app:7")),
        format!("tag does not exist: {address}/a/app:7")
    );
    assert_eq!(
        error(&format!("{address}/a/app@{}", Digest::of(b""))),
        "cannot push a digest reference"
    );
    let closed = Server::start(|request| match request.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(403, ""),
    });
    let told = pusher.push(&closed, "a/app:1").unwrap_err().to_string();
    assert!(
        told.starts_with("denied: requested access to the resource is denied"),
        "{told}"
    );
}

#[test]
fn a_cancelled_push_ends_at_once_and_no_tag_is_there() {
    let (server, depot) = Depot::serve();
    let pusher = Pusher::new();
    let cancel = pusher.cancel.clone();
    let name = format!("{}/a/app:1", server.address);
    let reference = Reference::parse(&name).unwrap();
    pusher.bed.store.tag("app:1", &reference).unwrap();
    let request = PushRequest {
        image: None,
        reference,
        credentials: None,
    };
    let sink = |message: ProgressMessage| {
        if message.status.as_deref() == Some("Pushing") {
            cancel.cancel();
        }
    };
    let store = &pusher.bed.store;
    let error = store
        .push(&pusher.registry, &request, &pusher.cancel, &sink)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the exchange with the registry was cancelled"
    );
    assert!(depot.lock().unwrap().manifests.is_empty());
}

#[test]
fn a_layer_goes_on_in_another_pull_and_leaves_nothing_then() {
    let (server, depot) = Depot::serve();
    Pusher::new().push(&server, "a/app:1").unwrap();
    let wanted = Arc::new(Mutex::new(Some(9usize << 20)));
    let cut = Arc::clone(&wanted);
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    let flaky = Server::start(move |request| {
        let mut reply = depot.lock().unwrap().reply(request);
        if reply.body.len() > 10 << 20 {
            let from = request.headers.get("range").map_or(0, |range| {
                range["bytes=".len()..]
                    .trim_end_matches('-')
                    .parse()
                    .unwrap()
            });
            seen.lock().unwrap().push(from);
            let whole = reply.body.len();
            if from > 0 {
                reply.body.drain(..from);
                reply.status = 206;
                reply = reply.with(
                    "content-range",
                    format!("bytes {from}-{}/{whole}", whole - 1),
                );
            }
            if let Some(at) = *cut.lock().unwrap() {
                reply.cut = Some(at.saturating_sub(from));
            }
        }
        reply
    });
    let puller = Pusher::empty();
    let request = PullRequest {
        reference: Reference::parse(&format!("{}/a/app:1", flaky.address)).unwrap(),
        platform: None,
        credentials: None,
    };
    let pull = || {
        let store = &puller.bed.store;
        store.pull(&puller.registry, &request, &puller.cancel, &silent)
    };
    pull().unwrap_err();
    assert!(puller.bed.store.partial_bytes() >= 9 << 20);
    *wanted.lock().unwrap() = None;
    ranges.lock().unwrap().clear();
    pull().unwrap();
    assert_eq!(*ranges.lock().unwrap(), [9 << 20]);
    assert_eq!(puller.bed.store.partial_bytes(), 0);

    // Wrong bytes of an earlier pull are noticed, and gone with after that.
    let puller = Pusher::empty();
    let pull = || {
        let store = &puller.bed.store;
        store.pull(&puller.registry, &request, &puller.cancel, &silent)
    };
    *wanted.lock().unwrap() = Some(9 << 20);
    pull().unwrap_err();
    let partial = puller.bed.directory.path().join("content/partial");
    let file = std::fs::read_dir(&partial)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    bytes[4 << 20] ^= 1;
    std::fs::write(file.path(), bytes).unwrap();
    *wanted.lock().unwrap() = None;
    pull().unwrap_err();
    assert_eq!(puller.bed.store.partial_bytes(), 0);
    pull().unwrap();
}
