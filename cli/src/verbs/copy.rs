//! `cp`: files and directories between a container and this machine.
//!
//! What lands where under which name is decided by [`landing`], which is pure; the rules, `/.` at the end included, are
//! those of cp(1) as Docker has them. Source: docker/cli `cli/command/container/cp.go`, `moby/go-archive:copy.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::units::human_size_3;
use agent::archive::{
    ByteReceiver, Destination, ExtractOptions, Limits, Overwrite, Owner, byte_pipe, extract,
    write_tree,
};
use agent_api::Client;
use agent_api::client::UploadOptions;
use agent_api::{MODE_TYPE, PathStat};
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt as _};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt as _;

/// Size of the pieces standard input is sent in, bytes.
const PIECE: usize = 256 << 10;
/// Links that are followed to find where a copy lands.
const LINKS_MAX: usize = 40;

/// Copy files/folders between a container and the local filesystem
#[derive(Debug, Args)]
#[command(
    after_help = "Use '-' as the source to read a tar archive from stdin and extract it to a directory in a \
container, or as the destination to stream a tar archive of a container source to stdout.

Examples:
  muster cp web:/etc/nginx/nginx.conf .
  muster cp site/. web:/usr/share/nginx/html
  muster cp web:/var/log - | tar t"
)]
pub(crate) struct CpArgs {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "CONTAINER:SRC_PATH|SRC_PATH|-")]
    source: String,
    #[arg(value_name = "CONTAINER:DEST_PATH|DEST_PATH|-")]
    destination: String,
}

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Into a container: its user owns the files. Out of one: who owns them there.
    pub(crate) archive: bool,
    pub(crate) follow_link: bool,
    pub(crate) quiet: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A tar on standard input or output.
    Stream,
    Local(String),
    Container {
        name: String,
        path: String,
    },
}

impl Place {
    /// A colon separates a container from a path, unless the text is plainly a local path.
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !text.starts_with(['/', '.']) => Self::Container {
                name: name.to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Local(text.to_owned()),
        }
    }

    /// The same with a container's id in place of its name.
    pub(crate) fn in_container(&self, id: &str) -> Self {
        match self {
            Self::Container { path, .. } => Self::Container {
                name: id.to_owned(),
                path: path.clone(),
            },
            other => other.clone(),
        }
    }
}

pub(crate) async fn run(session: &Session, args: CpArgs) -> Outcome {
    for (text, what) in [(&args.source, "source"), (&args.destination, "destination")] {
        if text.is_empty() {
            return Err(refused(format!("{what} can not be empty")));
        }
    }
    let manner = Manner {
        archive: args.archive,
        follow_link: args.follow_link,
        quiet: args.quiet,
    };
    let (source, destination) = (Place::parse(&args.source), Place::parse(&args.destination));
    match (&source, &destination) {
        (Place::Container { .. }, Place::Container { .. }) => {
            Err(refused("copying between containers is not supported"))
        }
        (Place::Container { .. }, _) | (_, Place::Container { .. }) => {
            copy(session.client().await?, &source, &destination, manner).await?;
            Ok(0)
        }
        _ => Err(refused("must specify at least one container source")),
    }
}

/// Copies from one place to the other, exactly one of which is in a container.
pub(crate) async fn copy(
    client: &Client,
    source: &Place,
    destination: &Place,
    manner: Manner,
) -> anyhow::Result<()> {
    let bytes = match (source, destination) {
        (Place::Container { name, path }, _) => {
            copy_out(client, (name, path), destination, manner).await?
        }
        (_, Place::Container { name, path }) => {
            copy_in(client, source, (name, path), manner).await?
        }
        _ => return Err(refused("must specify at least one container source")),
    };
    if *destination != Place::Stream && !manner.quiet && out::stderr_is_terminal() {
        let to = match destination {
            Place::Container { name, path } => format!("{name}:{path}"),
            Place::Local(path) => path.clone(),
            Place::Stream => String::new(),
        };
        let size = human_size_3(i64::try_from(bytes).unwrap_or(i64::MAX));
        out::note(format!("Successfully copied {size} to {to}"));
    }
    Ok(())
}

fn refused(reason: impl Into<String>) -> anyhow::Error {
    Failure::new(1, reason).into()
}

/// What is to be copied.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    /// Last part of its path; `.` when its contents are meant.
    name: &'a str,
    directory: bool,
}

/// Where it is to go.
#[derive(Debug, Clone, Copy)]
struct Goal<'a> {
    path: &'a str,
    /// What is there: a directory or something else; `None` for nothing.
    directory: Option<bool>,
}

/// The directory that the copy is put into, and its name there; without a name what is copied are contents.
fn landing<'a>(
    origin: Origin<'a>,
    goal: Goal<'a>,
) -> Result<(String, Option<&'a str>), &'static str> {
    let asks_directory = goal.path.ends_with('/') || goal.path.ends_with("/.") || goal.path == ".";
    match goal.directory {
        Some(true) => {
            let name = (!matches!(origin.name, "." | "/" | "")).then_some(origin.name);
            return Ok((goal.path.to_owned(), name));
        }
        Some(false) if origin.directory => return Err("cannot copy directory"),
        None if !origin.directory && asks_directory => return Err("no such directory"),
        _ => {}
    }
    let path = goal.path.trim_end_matches("/.").trim_end_matches('/');
    let (parent, name) = match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => (".", path),
    };
    Ok((parent.to_owned(), Some(name)))
}

/// Last part of a path; `.` if it ends so.
fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

async fn copy_in(
    client: &Client,
    source: &Place,
    (container, path): (&str, &str),
    manner: Manner,
) -> anyhow::Result<u64> {
    let (path, there) = destination_in(client, container, path).await;
    if let Some(stat) = &there
        && !stat.is_directory()
        && stat.mode & MODE_TYPE != 0
    {
        return Err(refused(format!(
            "destination {:?} must be a directory or a regular file",
            format!("{container}:{path}")
        )));
    }
    let directory = there.as_ref().map(PathStat::is_directory);
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let count = move |piece: io::Result<Bytes>| {
        let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        counter.fetch_add(length, Ordering::Relaxed);
        piece
    };
    let mut options = UploadOptions {
        path: path.clone(),
        no_overwrite_dir_non_dir: true,
        copy_uid_gid: manner.archive,
    };
    let Place::Local(local) = source else {
        if directory != Some(true) {
            return Err(refused(format!(
                "destination {:?} must be a directory",
                format!("{container}:{path}")
            )));
        }
        let archive = tokio_util::io::ReaderStream::with_capacity(tokio::io::stdin(), PIECE);
        client
            .write_container_archive(container, &options, archive.map(count))
            .await?;
        return Ok(sent.load(Ordering::Relaxed));
    };
    let (real, metadata) = look(local, manner.follow_link)?;
    let origin = Origin {
        name: base(local),
        directory: metadata.is_dir(),
    };
    let goal = Goal {
        path: &path,
        directory,
    };
    let (parent, name) = landing(origin, goal).map_err(refused)?;
    options.path = parent;
    let name = name.unwrap_or(".").to_owned();
    let archive = pack(real, metadata.is_dir(), name);
    client
        .write_container_archive(container, &options, archive.map(count))
        .await?;
    Ok(sent.load(Ordering::Relaxed))
}

/// The path in the container, a link followed once as Docker does, and what is there.
async fn destination_in(
    client: &Client,
    container: &str,
    path: &str,
) -> (String, Option<PathStat>) {
    let path = if path.is_empty() { "/" } else { path };
    // Whatever is wrong shows again, with words, when the archive is sent.
    match client.container_path_stat(container, path).await.ok() {
        Some(stat) if stat.is_symlink() && !stat.link_target.is_empty() => {
            let target = stat.link_target;
            let there = client.container_path_stat(container, &target).await.ok();
            (target, there)
        }
        there => (path.to_owned(), there),
    }
}

/// What is copied from here, links resolved when they are to be followed or the path asks for a directory.
fn look(path: &str, follow: bool) -> anyhow::Result<(PathBuf, fs::Metadata)> {
    let failed = |error: io::Error| refused(format!("lstat {path}: {}", reason(&error)));
    let follow = follow || path.ends_with('/') || base(path) == ".";
    let metadata = match follow {
        true => fs::metadata(path),
        false => fs::symlink_metadata(path),
    };
    let metadata = metadata.map_err(failed)?;
    let real = match follow || metadata.is_dir() {
        true => fs::canonicalize(path).map_err(failed)?,
        false => PathBuf::from(path),
    };
    Ok((real, metadata))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

/// A tar of a local path, made while it is read.
fn pack(
    path: PathBuf,
    directory: bool,
    name: String,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (mut sender, receiver) = byte_pipe();
    tokio::task::spawn_blocking(move || {
        let written = open_for_packing(&path, directory).and_then(|(opened, child)| {
            write_tree(&opened, child, name.as_bytes(), &path, &mut sender)
                .map_err(io::Error::other)
        });
        if let Err(error) = written {
            sender.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    })
}

fn open_for_packing(path: &Path, directory: bool) -> io::Result<(OwnedFd, Option<&OsStr>)> {
    if directory {
        return Ok((fs::File::open(path)?.into(), None));
    }
    let parent = match path.parent() {
        None => Path::new("/"),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    Ok((fs::File::open(parent)?.into(), path.file_name()))
}

async fn copy_out(
    client: &Client,
    (container, path): (&str, &str),
    destination: &Place,
    manner: Manner,
) -> anyhow::Result<u64> {
    let path = if path.is_empty() { "/" } else { path };
    let mut real = path.to_owned();
    if manner.follow_link
        && let Ok(stat) = client.container_path_stat(container, path).await
        && stat.is_symlink()
    {
        real = stat.link_target;
    }
    let local = match destination {
        Place::Local(local) => Some(local.as_str()),
        _ => None,
    };
    if let Some(local) = local {
        check_parent(local)?;
    } else if out::stdout_is_terminal() {
        return Err(refused(
            "refusing to write an archive to a terminal: redirect it, or name a file",
        ));
    }
    let (stat, mut archive) = client.read_container_archive(container, &real).await?;
    let Some(local) = local else {
        let mut stdout = tokio::io::stdout();
        let mut bytes = 0;
        while let Some(piece) = archive.next().await {
            let piece = piece?;
            bytes += piece.len() as u64;
            stdout.write_all(&piece).await?;
        }
        stdout.flush().await?;
        return Ok(bytes);
    };
    let (local, there) = follow_local(local);
    let origin = Origin {
        // A link that was followed keeps the name that was asked for.
        name: base(path),
        directory: stat.is_directory(),
    };
    let goal = Goal {
        path: &local,
        directory: there.map(|metadata| metadata.is_dir()),
    };
    let (parent, name) = landing(origin, goal).map_err(refused)?;
    let before = match stat.name.as_str() {
        "/" => "",
        name => name,
    };
    let options = ExtractOptions {
        overwrite: Overwrite::SameKind,
        owner: match manner.archive {
            true => Owner::Archive,
            false => Owner::Caller,
        },
        rename: name.map(|name| (before.into(), name.into())),
        limits: Limits::default(),
    };
    let (sender, receiver) = byte_pipe();
    let unpacking = tokio::task::spawn_blocking(move || unpack(receiver, &parent, &options));
    let mut bytes = 0;
    while let Some(piece) = archive.next().await {
        bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let piece =
            piece.map_err(|error| io::Error::other(crate::failure::describe(&error.into())));
        if !sender.send(piece).await {
            break;
        }
    }
    drop(sender);
    unpacking.await.context("unpacking was given up")??;
    Ok(bytes)
}

fn unpack(archive: ByteReceiver, parent: &str, options: &ExtractOptions) -> anyhow::Result<()> {
    let root = fs::File::open(parent).with_context(|| format!("cannot open {parent}"))?;
    let destination = Destination {
        root: root.as_fd(),
        directory: b"",
    };
    Ok(extract(archive, destination, options)?)
}

/// Docker's check before anything is asked of the daemon.
fn check_parent(local: &str) -> anyhow::Result<()> {
    let path = local.trim_end_matches('/');
    match Path::new(path).parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
            Err(refused(format!(
                "invalid output path: directory {:?} does not exist",
                parent.display().to_string()
            )))
        }
        _ => Ok(()),
    }
}

/// Where a local path leads when it is a link, and what is there.
fn follow_local(path: &str) -> (String, Option<fs::Metadata>) {
    let mut here = PathBuf::from(path);
    for _ in 0..LINKS_MAX {
        match fs::read_link(&here) {
            Ok(target) => here = here.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => break,
        }
    }
    let metadata = fs::metadata(&here).ok();
    (here.to_string_lossy().into_owned(), metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_separates_the_container_unless_the_text_is_a_path() {
        let container = |name: &str, path: &str| Place::Container {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("-", Place::Stream),
            ("web:/a:b", container("web", "/a:b")),
            ("web:", container("web", "")),
            ("/a:b", Place::Local("/a:b".to_owned())),
            ("./a:b", Place::Local("./a:b".to_owned())),
            ("a/b", Place::Local("a/b".to_owned())),
        ] {
            assert_eq!(Place::parse(text), expected);
        }
    }

    #[test]
    fn copies_land_as_those_of_cp_do() {
        let file = Origin {
            name: "f",
            directory: false,
        };
        let directory = Origin {
            name: "d",
            directory: true,
        };
        let contents = Origin {
            name: ".",
            directory: true,
        };
        let goal = |path, directory| Goal { path, directory };
        let to = |parent: &str, name: Option<&'static str>| Ok((parent.to_owned(), name));
        for (origin, goal, expected) in [
            (file, goal("/tmp", Some(true)), to("/tmp", Some("f"))),
            (file, goal("/tmp/x", Some(false)), to("/tmp", Some("x"))),
            (file, goal("/tmp/new", None), to("/tmp", Some("new"))),
            (file, goal("/new", None), to("/", Some("new"))),
            (file, goal("new", None), to(".", Some("new"))),
            (file, goal("/tmp/new/", None), Err("no such directory")),
            (directory, goal("/tmp", Some(true)), to("/tmp", Some("d"))),
            (directory, goal("/tmp/new", None), to("/tmp", Some("new"))),
            (directory, goal("/tmp/new/", None), to("/tmp", Some("new"))),
            (
                directory,
                goal("/tmp/x", Some(false)),
                Err("cannot copy directory"),
            ),
            (contents, goal("/tmp", Some(true)), to("/tmp", None)),
            (contents, goal("/tmp/new", None), to("/tmp", Some("new"))),
        ] {
            assert_eq!(landing(origin, goal), expected, "{origin:?} {goal:?}");
        }
    }
}
