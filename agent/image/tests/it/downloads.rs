//! Several pulls of the same layers at the same time.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use agent_image::{ImageError, ProgressMessage, PullRequest, Pulled, Reference};
use tokio_util::sync::CancellationToken;

use crate::registry::{Image, Puller, image};
use crate::server::{Request, Server};

/// A registry that stops at the large layer when it is asked for it first.
struct Halting {
    server: Server,
    large: String,
    layers: Vec<String>,
    /// It was asked.
    reached: Mutex<Receiver<()>>,
    /// Lets it go on.
    go_on: Sender<()>,
}

impl Halting {
    fn start() -> Self {
        let image = image();
        let layers: Vec<String> = image.layers.iter().map(ToString::to_string).collect();
        let (reach, reached) = channel();
        let (go_on, wait) = channel();
        let first = Mutex::new(Some((reach, wait)));
        let answer = move |image: &Image, request: &Request| {
            let path = request.path.replace("/v2/other/", "/v2/app/");
            let request = Request {
                path,
                method: request.method.clone(),
                headers: request.headers.clone(),
                body: Vec::new(),
                broken: false,
            };
            let gate = match image.is_large_layer(&request) {
                true => first.lock().unwrap().take(),
                false => None,
            };
            if let Some((reach, wait)) = gate {
                reach.send(()).unwrap();
                let _ = wait.recv();
            }
            image.reply(&request)
        };
        Self {
            server: Server::start(move |request| answer(&image, request)),
            large: layers[1].clone(),
            layers,
            reached: Mutex::new(reached),
            go_on,
        }
    }

    fn pull(
        &self,
        puller: &Puller,
        name: &str,
        cancel: &CancellationToken,
        progress: &(dyn Fn(ProgressMessage) + Sync),
    ) -> Result<Pulled, ImageError> {
        let request = PullRequest {
            reference: Reference::parse(&format!("{}/{name}", self.server.address)).unwrap(),
            platform: None,
            credentials: None,
        };
        let store = &puller.bed.store;
        store.pull(&puller.registry, &request, cancel, progress)
    }

    /// Pulls twice at the same time; `waits` is called when the second pull waits for the first one's large layer.
    fn pull_twice(
        &self,
        puller: &Puller,
        first: &CancellationToken,
        waits: &(dyn Fn() + Sync),
    ) -> [Result<Pulled, ImageError>; 2] {
        let short: String = self.large["sha256:".len()..].chars().take(12).collect();
        let seen = |message: ProgressMessage| {
            let about_it = message.id.as_deref() == Some(&short);
            if about_it && message.status.as_deref() == Some("Waiting") {
                waits();
            }
        };
        std::thread::scope(|scope| {
            let one = scope.spawn(|| self.pull(puller, "app:1", first, &agent_image::silent));
            self.reached.lock().unwrap().recv().unwrap();
            let other = self.pull(puller, "other:1", &CancellationToken::new(), &seen);
            [one.join().unwrap(), other]
        })
    }
}

#[test]
fn pulls_of_the_same_layers_download_them_once() {
    let registry = Halting::start();
    let puller = Puller::new();
    let go_on = Mutex::new(registry.go_on.clone());
    let pulled = registry.pull_twice(&puller, &CancellationToken::new(), &|| {
        go_on.lock().unwrap().send(()).unwrap();
    });
    let [one, other] = pulled.map(Result::unwrap);
    assert_eq!(one.id, other.id);
    for layer in &registry.layers {
        assert_eq!(registry.server.asked(layer), 1, "{layer}");
    }
    let name = format!("{}/other:1", registry.server.address);
    let shown = puller.bed.store.inspect(&name).unwrap();
    assert!(shown.layers[2].join("data").exists());
    assert!(
        !puller
            .bed
            .files()
            .iter()
            .any(|file| file.contains("unfinished"))
    );
}

#[test]
fn a_cancelled_pull_leaves_its_layers_to_those_who_wait() {
    let registry = Halting::start();
    let puller = Puller::new();
    let cancel = CancellationToken::new();
    let [one, other] = registry.pull_twice(&puller, &cancel, &|| cancel.cancel());
    let error = one.unwrap_err().to_string();
    assert_eq!(error, "the exchange with the registry was cancelled");
    other.unwrap();
    assert_eq!(registry.server.asked(&registry.large), 2);
    let name = format!("{}/other:1", registry.server.address);
    let shown = puller.bed.store.inspect(&name).unwrap();
    assert!(shown.layers[2].join("data").exists());
    assert!(
        !puller
            .bed
            .files()
            .iter()
            .any(|file| file.contains("unfinished"))
    );
}
