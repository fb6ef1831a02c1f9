//! Images and file systems in and out: load, save, import, export.

use super::pull::{Lines, progress};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use agent_api::client::{ByteStream, ImportOptions};
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
#[command(after_help = "Example:
  muster load -i images.tar.gz")]
pub(crate) struct LoadArgs {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn load(session: &Session, args: LoadArgs) -> Outcome {
    if args.platform.is_some() {
        return Err(Failure::new(
            1,
            "--platform is not supported: the variant for this machine is loaded",
        )
        .into());
    }
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
        .load_images(archive, args.quiet || !out::stdout_is_terminal())
        .await?;
    progress(messages, Lines::Stdout).await?;
    Ok(0)
}

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, Args)]
#[command(after_help = "Example:
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
    /// A tar archive, '-' for STDIN
    #[arg(value_name = "FILE|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(crate) async fn import(session: &Session, args: ImportArgs) -> Outcome {
    if args.source.contains("://") {
        let reason = format!(
            "cannot import from {}: download it first and name the file",
            args.source
        );
        return Err(Failure::new(1, reason).into());
    }
    let archive = open(
        Some(args.source.as_str())
            .filter(|&source| source != "-")
            .map(Path::new),
    )
    .await?;
    let options = ImportOptions {
        reference: args.reference,
        message: args.message,
        changes: args.change,
        platform: args.platform,
    };
    let messages = session
        .client()
        .await?
        .import_image(&options, archive)
        .await?;
    progress(messages, Lines::Stdout).await?;
    Ok(0)
}

/// Save one or more images to a tar archive (streamed to STDOUT by default)
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster save busybox nginx | zstd > images.tar.zst")]
pub(crate) struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn save(session: &Session, args: SaveArgs) -> Outcome {
    if args.platform.is_some() {
        return Err(Failure::new(
            1,
            "--platform is not supported: images are saved as they are",
        )
        .into());
    }
    check_output(args.output.as_deref())?;
    let archive = session.client().await?.save_images(&args.images).await?;
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
    // A device or a pipe is written to; a rename would put a file in its place.
    let special = tokio::fs::metadata(path).await;
    let special = special.is_ok_and(|found| !found.is_file());
    let mut name = path.as_os_str().to_owned();
    if !special {
        name.push(format!(".{}.part", std::process::id()));
    }
    let part = PathBuf::from(name);
    let result = async {
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(!special).truncate(!special);
        let mut file = options.open(&part).await?;
        while let Some(piece) = archive.next().await {
            file.write_all(&piece?).await?;
        }
        file.flush().await?;
        if !special {
            tokio::fs::rename(&part, path).await?;
        }
        anyhow::Ok(())
    };
    let result = result
        .await
        .with_context(|| format!("cannot write {}", path.display()));
    if result.is_err() && !special {
        let _ = tokio::fs::remove_file(&part).await;
    }
    result
}
