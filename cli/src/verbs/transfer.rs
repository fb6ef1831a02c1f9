//! Images and file systems in and out: load, save, import, export.

use super::pull::{Lines, progress};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::platform;
use crate::out;
use agent_api::client::{ByteStream, ImportOptions, WholeFile};
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt as _};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

/// Size of the pieces an archive is sent in, bytes.
const PIECE: usize = 256 << 10;

/// Load an image from a tar archive or STDIN
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster load -i images.tar.gz
  ssh other muster save web | muster load
  muster load --platform linux/arm64 -i multi.tar")]
pub(crate) struct LoadArgs {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only the given platform variant
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn load(session: &Session, args: LoadArgs) -> Outcome {
    let platform = platform::platform(args.platform.as_deref())?;
    if args.input.is_none() && io::stdin().is_terminal() {
        return Err(Failure::new(
            1,
            "requested load from stdin, but stdin is empty: use -i FILE",
        )
        .into());
    }
    let archive = open(args.input.as_deref()).await?;
    let messages = session
        .client()
        .await?
        .load_images(
            archive,
            platform.as_ref(),
            args.quiet || !out::stdout_is_terminal(),
        )
        .await?;
    progress(messages, Lines::Stdout).await?;
    Ok(0)
}

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster import https://example.com/rootfs.tar.xz base:1
  tar c -C rootfs . | muster import - base:1
  muster import -c 'CMD [\"sh\"]' rootfs.tar busybox:latest")]
pub(crate) struct ImportArgs {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long)]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// A tar archive, an address that the daemon downloads it from, or '-' for STDIN
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) async fn import(session: &Session, args: ImportArgs) -> Outcome {
    let options = ImportOptions {
        reference: args.reference,
        message: args.message,
        changes: args.change,
        platform: args.platform,
    };
    let client = session.client().await?;
    let messages = match is_url(&args.source) {
        true => client.import_image_from(&options, &args.source).await?,
        false => {
            let path = Some(args.source.as_str()).filter(|&source| source != "-");
            let archive = open(path.map(Path::new)).await?;
            client.import_image(&options, archive).await?
        }
    };
    progress(messages, Lines::Stdout).await?;
    Ok(0)
}

/// An address that the daemon downloads; everything else is a file.
fn is_url(source: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
}

/// Save one or more images to a tar archive (streamed to STDOUT by default)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster save -o web.tar web:1.2
  muster save busybox nginx | zstd > images.tar.zst
  muster save --platform linux/amd64 -o web.tar web")]
pub(crate) struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only the given platform variant
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn save(session: &Session, args: SaveArgs) -> Outcome {
    let platform = platform::platform(args.platform.as_deref())?;
    check_output(args.output.as_deref())?;
    let archive = session
        .client()
        .await?
        .save_images(&args.images, platform.as_ref())
        .await?;
    write(archive, args.output.as_deref()).await?;
    Ok(0)
}

/// Export a container's filesystem as a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster export web | tar t")]
pub(crate) struct ExportArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    container: String,
}

pub(crate) async fn export(session: &Session, args: ExportArgs) -> Outcome {
    check_output(args.output.as_deref())?;
    let archive = session
        .client()
        .await?
        .export_container(&args.container)
        .await?;
    write(archive, args.output.as_deref()).await?;
    Ok(0)
}

/// The archive as a stream; `None` is stdin.
async fn open(
    path: Option<&Path>,
) -> anyhow::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let reader: Box<dyn AsyncRead + Send + Unpin> = match path {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            Box::new(file.with_context(|| format!("cannot open {}", path.display()))?)
        }
        None => Box::new(tokio::io::stdin()),
    };
    Ok(ReaderStream::with_capacity(reader, PIECE))
}

fn check_output(path: Option<&Path>) -> anyhow::Result<()> {
    if path.is_none() && out::stdout_is_terminal() {
        return Err(Failure::new(
            1,
            "cowardly refusing to save to a terminal: use the -o flag or redirect",
        )
        .into());
    }
    Ok(())
}

/// Writes to stdout, or to a file that appears under its name only when it is complete.
async fn write(mut archive: ByteStream, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else {
        let mut stdout = tokio::io::stdout();
        while let Some(piece) = archive.next().await {
            stdout.write_all(&piece?).await?;
        }
        return Ok(stdout.flush().await?);
    };
    // The user's alone, as Docker's.
    let written = async {
        let whole = WholeFile::create(path, 0o600)?;
        let mut file = tokio::fs::File::from_std(whole.file().try_clone()?);
        while let Some(piece) = archive.next().await {
            file.write_all(&piece?).await?;
        }
        file.flush().await?;
        anyhow::Ok(whole.finish()?)
    };
    written
        .await
        .with_context(|| format!("cannot write {}", path.display()))
}
