//! A bundle as the project of a command: `up shop.tar`, `plan shop.tar`, `compose -f shop.tar logs`.
//!
//! ```text
//! options  the model, from memory, with the directory of the project's bundle as its project directory
//! pinned   services run images by id: no name can make them something else, and nothing is pulled
//! overlay  for a plan: what the bundle will bring counts as there; nothing is written
//! bring    verify every byte ──▶ load the images that are missing ──▶ unpack the files
//! ```

use super::super::project::{ProgressMode, ProjectFlags};
use super::unpack;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out;
use crate::render::transfer::LiveTransfer;
use crate::render::units::human_size;
use crate::verbs::pull::{Lines, progress};
use agent_api::client::ListImagesOptions;
use agent_api::{Client, ProgressDetail};
use anyhow::Context as _;
use bytes::Bytes;
use compose::ObservedState;
use compose::bundle::{Bundle, BundleError, Lock, digest, lock, ship};
use compose::state::{Content, Contents, ObservedImage};
use compose_model::{LoadOptions, MountType, Project};
use futures_util::StreamExt as _;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Bytes of a piece that is sent, and pieces that wait for the daemon.
const PIECE: usize = 256 << 10;
const QUEUE: usize = 16;
/// Images that are asked about at the same time.
const PARALLEL: usize = 16;

/// The file's name says what it is: no service is called so.
pub(in super::super) fn is_bundle(word: &Path) -> bool {
    word.extension().is_some_and(|extension| extension == "tar")
}

/// Opens a bundle and checks everything but the bytes of files and layers.
pub(in super::super) fn open(path: &Path) -> anyhow::Result<Bundle<File>> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {}", shown()))?;
    Bundle::open(file).with_context(shown)
}

/// `$XDG_DATA_HOME/muster/bundles/PROJECT`, where the files of a project's bundle are.
fn directory(project: &str) -> anyhow::Result<PathBuf> {
    let from = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let data = from("XDG_DATA_HOME").or_else(|| Some(from("HOME")?.join(".local/share")));
    let data = data.context("cannot tell where bundles are unpacked: set HOME or XDG_DATA_HOME")?;
    Ok(data.join("muster/bundles").join(project))
}

/// What is loaded in place of compose files.
pub(in super::super) fn options(path: &Path, options: LoadOptions) -> anyhow::Result<LoadOptions> {
    let bundle = open(path)?;
    let given = options.project_name.or_else(|| {
        let name = options.environment.get("COMPOSE_PROJECT_NAME").cloned();
        name.filter(|name| !name.is_empty())
    });
    let name = given.unwrap_or_else(|| bundle.lock.project.clone());
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if name.is_empty() || name.starts_with(['-', '_']) || !name.bytes().all(plain) {
        let reason = format!(
            "invalid project name {name:?}: use lower-case letters, digits, `-` and `_`, starting with a letter or digit"
        );
        return Err(Failure::new(1, reason).into());
    }
    let mut environment = bundle.variables.clone();
    environment.extend(options.environment);
    Ok(LoadOptions {
        files: vec![PathBuf::from("-")],
        stdin: Some(bundle.model),
        project_directory: Some(directory(&name)?),
        project_name: Some(name),
        environment,
        ..options
    })
}

/// Makes every service run the image that the lock says, by id, and lets the project know where its files are.
pub(in super::super) fn pinned(path: &Path, project: &mut Project) -> anyhow::Result<()> {
    let bundle = open(path)?;
    let references = bundle.lock.references();
    let name = project.name.clone();
    let id = |what: String, image: &str| {
        let id = references.get(image).map(|id| (*id).to_owned());
        id.ok_or_else(|| {
            let reason = format!("{what} uses image {image}, which the lock does not have");
            anyhow::Error::from(Failure::new(1, format!("{}: {reason}", path.display())))
        })
    };
    for (key, service) in &mut project.services {
        if service.build.is_some() {
            let reason = format!(
                "{}: service {key} is built, and bundles hold images",
                path.display()
            );
            return Err(Failure::new(1, reason).into());
        }
        if service.provider.is_none() {
            let image = service.image_or_default(&name, key);
            service.image = Some(id(format!("service {key}"), &image)?);
        }
        for volume in &mut service.volumes {
            if let (MountType::Image, Some(source)) = (volume.r#type, &mut volume.source) {
                *source = id(format!("a mount of service {key}"), source)?;
            }
        }
    }
    project.compose_files = vec![project.working_dir.join(unpack::MODEL)];
    Ok(())
}

/// Adds what the bundle is going to bring to what was observed.
pub(in super::super) fn overlay(
    path: &Path,
    project: &Project,
    observed: &mut ObservedState,
) -> anyhow::Result<()> {
    let lock = open(path)?.lock;
    for (id, _) in lock.contents() {
        let image = || ObservedImage {
            id: id.to_owned(),
            ..ObservedImage::default()
        };
        observed.images.entry(id.to_owned()).or_insert_with(image);
    }
    let Contents { configs, secrets } = &mut observed.contents;
    let files = project
        .configs
        .iter()
        .map(|(key, config)| (key, &config.file));
    brought(&lock, project, files, configs);
    let files = project
        .secrets
        .iter()
        .map(|(key, secret)| (key, &secret.file));
    brought(&lock, project, files, secrets);
    Ok(())
}

/// Contents of files that are not unpacked yet.
fn brought<'a>(
    lock: &Lock,
    project: &Project,
    files: impl Iterator<Item = (&'a String, &'a Option<String>)>,
    contents: &mut BTreeMap<String, Content>,
) {
    for (key, file) in files {
        let Some(file) = file else { continue };
        let Ok(place) = Path::new(file).strip_prefix(&project.working_dir) else {
            continue;
        };
        let Some(place) = place.to_str() else {
            continue;
        };
        let below = format!("{place}/");
        let known = match lock.files.get(place) {
            Some(file) => file.digest.clone(),
            // A directory counts as an empty file.
            None if lock.files.keys().any(|path| path.starts_with(&below)) => digest(b""),
            None => continue,
        };
        let hex = known.trim_start_matches("sha256:").to_owned();
        contents.insert(key.clone(), Content::Digest(hex));
    }
}

/// Verifies the bundle, loads the images that the daemon lacks and unpacks the files. Nothing is changed before all of
/// the bundle has been verified; when the images and files are here already, nothing of it is read again.
pub(in super::super) async fn bring(
    session: &Session,
    flags: &ProjectFlags,
    path: &Path,
    project: &Project,
) -> anyhow::Result<()> {
    let view = match flags.progress_mode() {
        ProgressMode::Quiet => View::Quiet,
        _ if out::stderr_is_terminal() => View::Live,
        _ => View::Lines,
    };
    let mut bundle = open(path)?;
    let client = session.client().await?;
    let missing = missing(client, &bundle.lock).await?;
    let in_place = unpack::is_in_place(&project.working_dir, &bundle.lock);
    if !missing.is_empty() || !in_place.with_context(|| path.display().to_string())? {
        let mut bar = view.bar("bundle", "Verifying", bundle.size());
        let verified = bundle.verify(&mut |bytes| bar.advance(bytes));
        verified.with_context(|| path.display().to_string())?;
    }
    let bundle = Arc::new(Mutex::new(bundle));
    if !missing.is_empty() {
        load(client, &bundle, &missing, view).await?;
    }
    let lock = locked(&bundle).lock.clone();
    give_names(client, &lock).await?;
    let unpacked = unpack::unpack(&project.working_dir, &mut locked(&bundle));
    unpacked.with_context(|| path.display().to_string())?;
    for left in &lock.left_out {
        let place = project.working_dir.join(&left.place);
        if !left.place.starts_with('$') && !place.exists() {
            out::note(format!(
                "warning: {} was not in the bundle: it is expected at {}",
                left.what,
                place.display()
            ));
        }
    }
    Ok(())
}

/// The images that the daemon lacks, by id.
async fn missing(client: &Client, lock: &Lock) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (id, image) in &lock.images {
        match client.inspect_image(id).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() && image.content.is_none() => {
                let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
                let reason = format!(
                    "image {id} ({}) is neither here nor in the bundle, which was written with --no-images",
                    names.join(", ")
                );
                return Err(Failure::new(1, reason).into());
            }
            Err(error) if error.is_not_found() => missing.push(id.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// Sends the images that are missing, and of their layers those that no image of the daemon begins with.
async fn load(
    client: &Client,
    bundle: &Arc<Mutex<Bundle<File>>>,
    missing: &[String],
    view: View,
) -> anyhow::Result<()> {
    let lock = locked(bundle).lock.clone();
    let shipment = ship::lacking(&lock, &known(client).await?);
    let bar = Mutex::new(view.bar("images", "Loading", shipment.size(&lock)));
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (moved, mut heard) = mpsc::unbounded_channel();
    let source = Arc::clone(bundle);
    let sending = tokio::task::spawn_blocking(move || {
        let output = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let written = shipment.write(&mut locked(&source), output, &mut |bytes| {
            let _ = moved.send(bytes);
        });
        if let Err(error) = &written {
            // Whatever the daemon has got by now is not to become an image.
            let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
        written
    });
    let archive = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let show = async {
        while let Some(bytes) = heard.recv().await {
            bar.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .advance(bytes);
        }
    };
    let loading = async {
        let messages = client.load_images(archive, None, true).await?;
        progress(messages, Lines::None).await
    };
    let (loaded, ()) = tokio::join!(loading, show);
    let sent = sending
        .await
        .expect("the sender does not panic and is never aborted");
    // A daemon that refuses breaks the pipe: what it says is the reason.
    loaded.context("cannot load the images of the bundle")?;
    sent.or_else(|error| match error {
        BundleError::Io { .. } => Ok(()),
        other => Err(other),
    })?;
    for id in missing {
        let there = client.inspect_image(id).await;
        there.with_context(|| format!("the daemon has not made image {id} of the bundle"))?;
    }
    Ok(())
}

/// Diff ids of the daemon's images.
async fn known(client: &Client) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let all = ListImagesOptions {
        all: true,
        ..ListImagesOptions::default()
    };
    let images = client.list_images(&all).await?;
    let mut found = futures_util::stream::iter(images)
        .map(|image| async move { client.inspect_image(&image.id).await })
        .buffered(PARALLEL);
    let mut known = BTreeMap::new();
    while let Some(image) = found.next().await {
        match image {
            Ok(image) => {
                known.insert(image.id, image.root_fs.layers);
            }
            // It went in the meantime.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(known)
}

/// Gives images the names that the project knows them by, where nothing else is called so.
async fn give_names(client: &Client, lock: &Lock) -> anyhow::Result<()> {
    for (reference, id) in lock.references() {
        let Some(tag) = lock::tag_of(reference) else {
            continue;
        };
        match client.inspect_image(&tag).await {
            Ok(image) if image.id == id => {}
            Ok(image) => out::note(format!(
                "{tag} is another image here ({}): it keeps its name, and the project runs {id}",
                image.id
            )),
            Err(error) if error.is_not_found() => {
                let (repository, name) = crate::verbs::pull::split_tag(&tag);
                client.tag_image(id, repository, name).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn locked(bundle: &Mutex<Bundle<File>>) -> std::sync::MutexGuard<'_, Bundle<File>> {
    bundle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes into a channel.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far long work is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Quiet,
    Lines,
    Live,
}

/// One line of progress.
struct Bar {
    live: Option<LiveTransfer>,
    what: &'static str,
    doing: &'static str,
    done: u64,
    total: u64,
}

impl View {
    fn bar(self, what: &'static str, doing: &'static str, total: u64) -> Bar {
        let size = i64::try_from(total).unwrap_or(i64::MAX);
        if self == Self::Lines {
            out::note(format!("{what}: {doing} {}", human_size(size)));
        }
        Bar {
            live: (self == Self::Live).then(LiveTransfer::on_stderr),
            what,
            doing,
            done: 0,
            total,
        }
    }
}

impl Bar {
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let number = |bytes| i64::try_from(bytes).ok();
        if let Some(live) = &mut self.live {
            let detail = ProgressDetail {
                current: number(self.done),
                total: number(self.total),
            };
            live.step(self.what, self.doing, &detail);
        }
    }
}
