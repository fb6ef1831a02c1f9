//! `bundle`: a whole project as one archive, and what `up`, `plan` and the other verbs make of one.
//!
//! What is in a bundle and how it is checked is in `compose::bundle`; here it meets files ([`gather`]), the daemon and the
//! terminal. [`site`] is the other end: a bundle as the project of a command, [`unpack`] puts its files in place.

mod gather;
pub(super) mod site;
mod unpack;

use super::perform::INTERRUPTED;
use super::project::{ProgressMode, ProjectFlags};
use super::up::Convergence;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::transfer::LiveTransfer;
use crate::render::units::human_size;
use agent_api::client::{ByteStream, WholeFile};
use agent_api::{Client, ProgressDetail};
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use compose::bundle::{
    Carry, ImageContent, Lock, LockedImage, LockedService, Portable, VERSION, Writer, lock, name,
    open, portable, saved,
};
use futures_util::StreamExt as _;
use gather::Gathered;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Pieces of the images that wait for the disk.
const QUEUE: usize = 16;

/// Write a project with its images into one archive, for a site without a registry
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Holds the resolved model, configs, the compose and env files as they were written, a lock file and all images \
(layers once). `muster up BUNDLE` verifies all of it, loads the images that are missing and never pulls; \
files are unpacked to $XDG_DATA_HOME/muster/bundles/PROJECT (~/.local/share/...), where relative paths start. \
They stay there after `down`, since containers may keep data beside them: remove that directory to be rid of them.

Values under `environment:` and env files travel in clear; secrets do not, unless asked for. Volumes start empty.

Examples:
  muster bundle -o shop.tar
  muster bundle -f compose.yaml --profile all --with-binds -o - | ssh site 'cat > shop.tar'
  muster up -d shop.tar
  muster plan shop.tar
  muster compose -f shop.tar logs -f
  muster down -p shop"
)]
pub(crate) struct BundleArgs {
    /// Write to a file, '-' for STDOUT (default PROJECT.tar)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave the images out: the site has them, or gets them another way
    #[arg(long)]
    no_images: bool,
    /// Take secrets along, in clear: files, and values of variables
    #[arg(long)]
    with_secrets: bool,
    /// Take files and directories of the project along that are bind-mounted
    #[arg(long)]
    with_binds: bool,
    /// Suppress progress and notes
    #[arg(short, long)]
    quiet: bool,
}

/// An image of the project, as the daemon has it.
struct Found {
    id: String,
    names: BTreeSet<String>,
    platform: String,
    created: String,
    layers: Vec<String>,
}

pub(super) async fn run(session: &Session, flags: &ProjectFlags, args: BundleArgs) -> Outcome {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && out::stdout_is_terminal() {
        let reason = "cowardly refusing to write a bundle to a terminal: use -o FILE or redirect";
        return Err(Failure::new(1, reason).into());
    }
    if let Some(bundle) = flags.bundle()? {
        let reason = format!("{} is a bundle already: copy it", bundle.display());
        return Err(Failure::new(1, reason).into());
    }
    let carry = Carry {
        secrets: args.with_secrets,
        binds: args.with_binds,
    };
    let (loaded, raw) = flags.load_twice()?;
    let portable = portable::portable(&loaded.project, carry)?;
    let gathered = gather::gather(&loaded, &raw, &portable)?;
    if !args.quiet {
        notes(&portable, &gathered);
    }
    if flags.dry_run {
        return list(&portable, &gathered, args.no_images);
    }
    let client = session.client().await?;
    Convergence::default()
        .prepare(session, flags, &loaded)
        .await?;
    let images = find(client, &portable).await?;
    let lock = Lock {
        version: VERSION,
        project: loaded.project.name.clone(),
        muster: env!("CARGO_PKG_VERSION").to_owned(),
        created: created(&images)?,
        model: String::new(),
        variables: None,
        services: services(&portable, &images),
        images: BTreeMap::new(),
        files: BTreeMap::new(),
        directories: gathered.directories.clone(),
        left_out: portable.left_out.clone(),
    };
    let path = match &args.output {
        _ if to_stdout => None,
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(format!("{}.tar", loaded.project.name))),
    };
    let bundling = Bundling {
        lock,
        portable,
        gathered,
        images,
        with_images: !args.no_images,
    };
    let progress = !args.quiet && flags.progress_mode() != ProgressMode::Quiet;
    let (lock, digest) = bundling.write(client, path.as_deref(), progress).await?;
    let summary = summary(path.as_deref(), &lock, &digest);
    match to_stdout {
        true if args.quiet => {}
        true => out::note(summary),
        false => out::line(summary)?,
    }
    Ok(0)
}

/// `shop.tar: project shop, 2 services, 2 images, 3 files, sha256:…`
fn summary(path: Option<&Path>, lock: &Lock, digest: &str) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let images = lock.contents().count();
    format!(
        "{}: project {}, {}, {}, {}, {digest}",
        path.map_or("bundle".into(), |path| path.display().to_string()),
        lock.project,
        count(lock.services.len(), "service"),
        count(images, "image"),
        count(lock.files.len(), "file"),
    )
}

/// What a person should know before the archive travels.
fn notes(portable: &Portable, gathered: &Gathered) {
    for left in &portable.left_out {
        out::note(format!("not in the bundle: {} ({})", left.what, left.place));
    }
    for note in &gathered.notes {
        out::note(note);
    }
    for wanted in &portable.wanted {
        let secret = wanted.what.starts_with("secret ");
        let clear = if secret { ", in clear" } else { "" };
        out::note(format!(
            "in the bundle{clear}: {} ({})",
            wanted.what,
            wanted.path.display()
        ));
    }
    for variable in portable.variables.keys() {
        out::note(format!("in the bundle, in clear: the value of ${variable}"));
    }
}

/// `--dry-run`: what would be in it.
fn list(portable: &Portable, gathered: &Gathered, no_images: bool) -> Outcome {
    out::line(name::MODEL)?;
    for file in gathered.files.keys() {
        out::line(name::of_file(file))?;
    }
    for directory in &gathered.directories {
        out::line(format!("{}/", name::of_file(directory)))?;
    }
    if !no_images {
        for image in &portable.images {
            out::line(format!("image {image}"))?;
        }
    }
    Ok(0)
}

/// The images by the names that the project uses.
async fn find(client: &Client, portable: &Portable) -> anyhow::Result<Vec<Found>> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for reference in &portable.images {
        let image = match client.inspect_image(reference).await {
            Err(error) if error.is_not_found() => {
                let service = portable
                    .services
                    .iter()
                    .find(|(_, image)| *image == reference);
                let hint = match service {
                    Some((service, _)) => format!(
                        "build it with \"muster compose build {service}\", or fetch it with \"muster pull {reference}\""
                    ),
                    None => format!("fetch it with \"muster pull {reference}\""),
                };
                let reason = format!("image {reference} is not there: {hint}");
                return Err(Failure::new(1, reason).into());
            }
            image => image?,
        };
        let variant = Some(&image.variant).filter(|variant| !variant.is_empty());
        let variant = variant.map_or(String::new(), |variant| format!("/{variant}"));
        let platform = format!("{}/{}{variant}", image.os, image.architecture);
        let known = found.entry(image.id.clone()).or_insert_with(|| Found {
            id: image.id,
            names: BTreeSet::new(),
            platform,
            created: image.created,
            layers: image.root_fs.layers,
        });
        known.names.insert(reference.clone());
    }
    Ok(found.into_values().collect())
}

fn services(portable: &Portable, images: &[Found]) -> BTreeMap<String, LockedService> {
    let id = |image: &String| {
        let found = images.iter().find(|found| found.names.contains(image));
        found.map(|found| found.id.clone()).unwrap_or_default()
    };
    let services = portable.services.iter();
    services
        .map(|(service, image)| {
            let locked = LockedService {
                image: image.clone(),
                id: id(image),
            };
            (service.clone(), locked)
        })
        .collect()
}

/// `SOURCE_DATE_EPOCH`, else when the youngest image was made.
fn created(images: &[Found]) -> anyhow::Result<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) if !seconds.is_empty() => {
            let at = seconds.parse().ok();
            let at = at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            let at = at.with_context(|| {
                format!("SOURCE_DATE_EPOCH is {seconds:?}: it must be seconds since 1970")
            })?;
            Ok(at.to_string())
        }
        _ => {
            let times = images.iter().map(|image| image.created.as_str());
            Ok(times.max().unwrap_or_default().to_owned())
        }
    }
}

/// A bundle that is being written.
struct Bundling {
    lock: Lock,
    portable: Portable,
    gathered: Gathered,
    images: Vec<Found>,
    with_images: bool,
}

impl Bundling {
    /// Writes to stdout, or to a file that appears under its name only when it is complete. Ctrl-C leaves nothing.
    async fn write(
        self,
        client: &Client,
        path: Option<&Path>,
        progress: bool,
    ) -> anyhow::Result<(Lock, String)> {
        // From here on a signal must not end the process before the unfinished file is removed.
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let ids: Vec<String> = self.images.iter().map(|image| image.id.clone()).collect();
        let archive: ByteStream = match self.with_images && !ids.is_empty() {
            true => client.save_images(&ids, None).await?,
            false => Box::pin(futures_util::stream::empty()),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let target = path.map(Path::to_owned);
        let writing = tokio::task::spawn_blocking(move || self.store(target, Pieces::of(receiver)));
        let forward = forward(archive, &sender, progress);
        let interrupted = tokio::select! {
            () = forward => false,
            _ = interrupts.recv() => true,
            _ = terminations.recv() => true,
        };
        if interrupted {
            let _ = sender.send(Err(io::Error::other("interrupted"))).await;
        }
        drop(sender);
        let written = writing
            .await
            .expect("the writer does not panic and is never aborted");
        match interrupted {
            true => Err(Failure::new(INTERRUPTED, "interrupted: nothing was written").into()),
            false => written,
        }
    }

    fn store(self, path: Option<PathBuf>, images: impl Read) -> anyhow::Result<(Lock, String)> {
        let Some(path) = path else {
            let output = BufWriter::with_capacity(256 << 10, io::stdout().lock());
            let (lock, digest, _) = self.fill(output, images)?;
            return Ok((lock, digest));
        };
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            let reason = "it is no file; `--output -` is standard output";
            return Err(
                Failure::new(1, format!("cannot write {}: {reason}", path.display())).into(),
            );
        }
        let secret = self
            .portable
            .wanted
            .iter()
            .any(|wanted| wanted.what.starts_with("secret "))
            || !self.portable.variables.is_empty();
        let cannot = || format!("cannot write {}", path.display());
        let mode = if secret { 0o600 } else { 0o666 };
        let whole = WholeFile::create(&path, mode).with_context(cannot)?;
        let filled = self
            .fill(BufWriter::with_capacity(256 << 10, whole), images)
            .and_then(|(lock, digest, output)| {
                let whole = output.into_inner().map_err(|error| error.into_error())?;
                whole.file().sync_all()?;
                whole.finish()?;
                Ok((lock, digest))
            });
        filled.with_context(cannot)
    }

    fn fill<W: Write>(mut self, output: W, images: impl Read) -> anyhow::Result<(Lock, String, W)> {
        let mut writer = Writer::new(output);
        let model = self.portable.model.as_bytes();
        writer.bytes(name::MODEL, 0o644, model)?;
        self.lock.model = compose::bundle::digest(model);
        if !self.portable.variables.is_empty() {
            let bytes = serde_json::to_vec(&self.portable.variables)?;
            writer.bytes(name::VARIABLES, 0o600, &bytes)?;
            self.lock.variables = Some(compose::bundle::digest(&bytes));
        }
        for (place, file) in &self.gathered.files {
            let locked = file.write(&mut writer, &name::of_file(place))?;
            self.lock.files.insert(place.clone(), locked);
        }
        let mut wanted = BTreeSet::new();
        if self.with_images {
            for image in &self.images {
                wanted.insert(image.id.clone());
                wanted.extend(image.layers.iter().cloned());
            }
        }
        let sizes = match wanted.is_empty() {
            true => BTreeMap::new(),
            false => saved::copy(images, &wanted, &mut writer)?,
        };
        for image in &self.images {
            let content = match self.with_images {
                true => Some(content(image, &sizes, &mut writer)?),
                false => None,
            };
            let locked = LockedImage {
                names: image.names.clone(),
                platform: image.platform.clone(),
                content,
            };
            self.lock.images.insert(image.id.clone(), locked);
        }
        for (name, bytes) in self.lock.documents() {
            writer.bytes(name, 0o644, &bytes)?;
        }
        let lock = self.lock.to_bytes();
        Lock::parse(&lock)?;
        writer.bytes(name::LOCK, 0o644, &lock)?;
        let output = writer.finish()?;
        Ok((self.lock, compose::bundle::digest(&lock), output))
    }
}

/// What an image consists of, its manifest written.
fn content(
    image: &Found,
    sizes: &BTreeMap<String, u64>,
    writer: &mut Writer<impl Write>,
) -> anyhow::Result<ImageContent> {
    let layers = image.layers.iter().map(|digest| lock::Blob {
        digest: digest.clone(),
        size: sizes[digest],
    });
    let layers: Vec<_> = layers.collect();
    let bytes = lock::manifest(&image.id, sizes[&image.id], &layers);
    let manifest = open::blob_of(&bytes);
    let entry = name::of_blob(&manifest.digest).expect("it was made as a digest");
    if !writer.has(&entry) {
        writer.bytes(&entry, 0o644, &bytes)?;
    }
    Ok(ImageContent {
        config_size: sizes[&image.id],
        manifest,
        layers,
    })
}

/// Passes the images on to the writer, and says how far they are.
async fn forward(
    mut archive: ByteStream,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    progress: bool,
) {
    let mut live = (progress && out::stderr_is_terminal()).then(LiveTransfer::on_stderr);
    let mut moved = 0;
    while let Some(piece) = archive.next().await {
        if let Ok(piece) = &piece {
            moved += i64::try_from(piece.len()).unwrap_or(0);
        }
        if sender.send(piece.map_err(io::Error::other)).await.is_err() {
            // The writer has ended with an error of its own.
            return;
        }
        if let Some(live) = &mut live {
            let detail = ProgressDetail {
                current: Some(moved),
                total: None,
            };
            live.step("images", "Saving", &detail);
        }
    }
    if progress && live.is_none() && moved > 0 {
        out::note(format!("images: saved {}", human_size(moved)));
    }
}

/// What comes through a channel, as a reader for a thread of its own.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    fn of(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
