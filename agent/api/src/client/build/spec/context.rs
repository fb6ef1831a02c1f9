//! Contexts and the Dockerfile. Source: buildx `build/opt.go:LoadInputs`, BuildKit `frontend/dockerui`.

use super::super::{ContextSource, LayoutImage, Offers, OpenDirectory};
use super::{DockerfilePlace, SpecError, reason, remote};
use crate::types::build::{BuildRequest, ContextOffer, DockerfileSource, IgnoreFile};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Longest Dockerfile or ignore file that is sent, bytes.
const MAX_TEXT: u64 = 2 << 20;
/// What Dockerfiles are called, the usual name first.
const DOCKERFILES: [&str; 2] = ["Dockerfile", "dockerfile"];
/// What ignore files are called, alone or after the name of a Dockerfile.
const IGNORE: &str = ".dockerignore";
/// Bytes of standard input that tell an archive from a Dockerfile.
const PEEK: usize = 512;

/// Whether a context is an address: a git repository or something to be fetched. Which of both it is, and whether it is
/// well-formed, is for the daemon to say.
#[must_use]
pub fn is_remote(context: &str) -> bool {
    const SCHEMES: [&str; 5] = ["http://", "https://", "git://", "ssh://", "github.com/"];
    if SCHEMES.iter().any(|scheme| context.starts_with(scheme)) {
        return true;
    }
    // user@host:path, as ssh has it.
    context.split_once(':').is_some_and(|(host, _)| {
        let name = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
        host.split_once('@')
            .is_some_and(|(user, host)| name(user) && name(host))
    })
}

/// The main context and the Dockerfile, which may be in it, beside it, on standard input or in the request.
pub(super) fn main(
    context: &str,
    dockerfile: DockerfilePlace,
    request: &mut BuildRequest,
    offers: &mut Offers,
) -> Result<(), SpecError> {
    if context == "-" {
        return stdin(dockerfile, request, offers);
    }
    let directory = Path::new(context);
    if !directory.is_dir() {
        if !is_remote(context) {
            return Err(SpecError::NoContext(context.to_owned()));
        }
        request.context = remote(context);
        request.dockerfile = beside_remote(dockerfile)?;
        return Ok(());
    }
    let (name, text, ignore) = match dockerfile {
        DockerfilePlace::Inline(text) => ("Dockerfile".to_owned(), text, None),
        DockerfilePlace::Stdin => ("Dockerfile".to_owned(), read_stdin()?, None),
        DockerfilePlace::Default => {
            let (path, text) = default_dockerfile(directory)?;
            (file_name(&path), text, own_ignore(&path)?)
        }
        DockerfilePlace::Path(path) => {
            let text = read_dockerfile(&path)?;
            (file_name(&path), text, own_ignore(&path)?)
        }
    };
    let ignore = match ignore {
        Some(own) => Some(own),
        None => ignore_of(directory)?,
    };
    request.dockerfile = DockerfileSource::Inline {
        name,
        text,
        ignore: ignore.clone(),
    };
    let opened = open(context, directory, ignore)?;
    request.context = offers.context("", ContextSource::Directory(opened));
    if let ContextOffer::Directory { ignore, .. } = &mut request.context {
        // It is with the Dockerfile already.
        *ignore = None;
    }
    Ok(())
}

/// What [`main`] opens.
pub(super) fn files(context: &str, dockerfile: &DockerfilePlace) -> Vec<PathBuf> {
    let directory = Path::new(context);
    let local = context != "-" && directory.is_dir();
    let mut files = Vec::new();
    if local {
        files.push(directory.to_owned());
        files.push(directory.join(IGNORE));
    }
    match dockerfile {
        DockerfilePlace::Inline(_) | DockerfilePlace::Stdin => {}
        DockerfilePlace::Default if local => {
            for name in DOCKERFILES {
                let path = directory.join(name);
                files.push(ignore_name(&path));
                files.push(path);
            }
        }
        DockerfilePlace::Default => {}
        DockerfilePlace::Path(path) => {
            if local || path.is_absolute() {
                files.push(ignore_name(path));
                files.push(path.clone());
            }
        }
    }
    // A context that is neither there nor an address is an error, of which the path is no secret.
    files
}

/// What [`named`] opens.
pub(super) fn named_files(place: &str) -> Option<PathBuf> {
    if place.starts_with("docker-image://") {
        return None;
    }
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        return Some(layout_reference(layout).0.into());
    }
    (!is_remote(place)).then(|| place.into())
}

/// One of the further contexts.
pub(super) fn named(
    name: &str,
    place: &str,
    offers: &mut Offers,
) -> Result<ContextOffer, SpecError> {
    let fail = |source| SpecError::Context {
        name: format!("{name}={place}"),
        source,
    };
    if let Some(reference) = place.strip_prefix("docker-image://") {
        return Ok(ContextOffer::Image {
            reference: reference.to_owned(),
        });
    }
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        let (path, reference) = layout_reference(layout);
        let image = LayoutImage::find(Path::new(path), reference).map_err(fail)?;
        return Ok(offers.context(name, ContextSource::OciLayout(image)));
    }
    if is_remote(place) {
        return Ok(remote(place));
    }
    let directory = Path::new(place);
    let ignore = ignore_of(directory)?;
    let opened = OpenDirectory::open(directory, ignore).map_err(fail)?;
    Ok(offers.context(name, ContextSource::Directory(opened)))
}

/// `path`, `path:tag` or `path@digest`.
fn layout_reference(layout: &str) -> (&str, &str) {
    if let Some((path, digest)) = layout.split_once('@') {
        return (path, digest);
    }
    match layout.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (layout, ""),
    }
}

/// Standard input is an archive, or else a Dockerfile without files.
fn stdin(
    dockerfile: DockerfilePlace,
    request: &mut BuildRequest,
    offers: &mut Offers,
) -> Result<(), SpecError> {
    if dockerfile == DockerfilePlace::Stdin {
        return Err(SpecError::StdinTwice);
    }
    let mut head = Vec::with_capacity(PEEK);
    io::stdin()
        .lock()
        .take(PEEK as u64)
        .read_to_end(&mut head)
        .map_err(|error| SpecError::Stdin(error.to_string()))?;
    if head.is_empty() {
        return Err(SpecError::Stdin("it is empty".to_owned()));
    }
    if is_archive(&head) {
        let whole = tokio::io::AsyncReadExt::chain(io::Cursor::new(head), tokio::io::stdin());
        request.context = offers.context("", ContextSource::Archive(Box::new(whole)));
        request.dockerfile = beside_remote(dockerfile)?;
        return Ok(());
    }
    if dockerfile != DockerfilePlace::Default {
        return Err(SpecError::Stdin(
            "it is no archive, so it is the Dockerfile: do not give another one".to_owned(),
        ));
    }
    let rest = read_stdin()?;
    let text = String::from_utf8(head)
        .map(|head| head + &rest)
        .map_err(|_| SpecError::Stdin("it is neither an archive nor text".to_owned()))?;
    request.context = ContextOffer::Empty;
    request.dockerfile = inline(text);
    Ok(())
}

/// The Dockerfile of a context that cannot be looked into from here.
fn beside_remote(dockerfile: DockerfilePlace) -> Result<DockerfileSource, SpecError> {
    Ok(match dockerfile {
        DockerfilePlace::Default => DockerfileSource::default(),
        DockerfilePlace::Inline(text) => inline(text),
        DockerfilePlace::Stdin => inline(read_stdin()?),
        DockerfilePlace::Path(path) if path.is_absolute() => DockerfileSource::Inline {
            name: file_name(&path),
            text: read_dockerfile(&path)?,
            ignore: own_ignore(&path)?,
        },
        DockerfilePlace::Path(path) => DockerfileSource::Context {
            path: path.to_string_lossy().into_owned(),
        },
    })
}

fn inline(text: String) -> DockerfileSource {
    DockerfileSource::Inline {
        name: "Dockerfile".to_owned(),
        text,
        ignore: None,
    }
}

fn open(
    shown: &str,
    directory: &Path,
    ignore: Option<IgnoreFile>,
) -> Result<OpenDirectory, SpecError> {
    OpenDirectory::open(directory, ignore).map_err(|source| SpecError::Context {
        name: shown.to_owned(),
        source,
    })
}

/// `Dockerfile`, or `dockerfile` where there is only that.
fn default_dockerfile(directory: &Path) -> Result<(PathBuf, String), SpecError> {
    let [usual, lower] = DOCKERFILES;
    let path = directory.join(usual);
    match read_dockerfile(&path) {
        Err(SpecError::Dockerfile { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let lower = directory.join(lower);
            match read_dockerfile(&lower) {
                Ok(text) => Ok((lower, text)),
                Err(_) => Err(SpecError::Dockerfile {
                    path: PathBuf::from("Dockerfile"),
                    source,
                }),
            }
        }
        other => Ok((path, other?)),
    }
}

fn read_dockerfile(path: &Path) -> Result<String, SpecError> {
    read_text(path).map_err(|source| SpecError::Dockerfile {
        path: path.to_owned(),
        source,
    })
}

/// `<Dockerfile>.dockerignore`, which goes before the context's.
fn own_ignore(dockerfile: &Path) -> Result<Option<IgnoreFile>, SpecError> {
    optional(&ignore_name(dockerfile))
}

fn ignore_name(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(IGNORE);
    name.into()
}

fn ignore_of(directory: &Path) -> Result<Option<IgnoreFile>, SpecError> {
    optional(&directory.join(IGNORE))
}

fn optional(path: &Path) -> Result<Option<IgnoreFile>, SpecError> {
    match read_text(path) {
        Ok(text) => Ok(Some(IgnoreFile {
            name: file_name(path),
            text,
        })),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(SpecError::Context {
            name: path.display().to_string(),
            source: io::Error::new(error.kind(), format!("cannot read it: {}", reason(&error))),
        }),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_TEXT + 1)
        .read_to_string(&mut text)?;
    bounded(text)
}

fn read_stdin() -> Result<String, SpecError> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_TEXT + 1)
        .read_to_string(&mut text)
        .and_then(|_| bounded(text))
        .map_err(|error| SpecError::Stdin(error.to_string()))
}

fn bounded(text: String) -> io::Result<String> {
    if text.len() as u64 > MAX_TEXT {
        return Err(io::Error::other(format!(
            "it has more than {MAX_TEXT} bytes"
        )));
    }
    Ok(text)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Source: moby `pkg/archive`, docker/cli `build/context.go:IsArchive`.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [
        &[0x1f, 0x8b, 0x08],
        b"BZh",
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    if MAGIC.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Ok(block) = <&[u8; PEEK]>::try_from(head) else {
        return false;
    };
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let Ok(said) = header.cksum() else {
        return false;
    };
    header.set_cksum();
    said != 0 && header.cksum().is_ok_and(|sum| sum == said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_text() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        tar.append_data(&mut header, "a", &b"x"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        assert!(is_archive(&tar[..PEEK]));
        assert!(is_archive(&[0x1f, 0x8b, 0x08, 0]));
        assert!(is_archive(b"BZh91AY"));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[b' '; PEEK]));
        assert!(!is_archive(&[0; PEEK]));
    }

    #[test]
    fn addresses_are_told_from_directories() {
        for remote in [
            "https://host/a.tar.gz",
            "http://host/Dockerfile",
            "git@host:a/b.git",
            "ssh://git@host/a",
            "git://host/a",
            "https://host/a.git#main:sub",
        ] {
            assert!(is_remote(remote), "{remote}");
        }
        for local in [".", "/a/b", "a/b", "a:b"] {
            assert!(!is_remote(local), "{local}");
        }
    }

    #[test]
    fn layouts_have_tags_and_digests() {
        assert_eq!(layout_reference("a/b"), ("a/b", ""));
        assert_eq!(layout_reference("a/b:1"), ("a/b", "1"));
        assert_eq!(layout_reference("a@sha256:ab"), ("a", "sha256:ab"));
    }
}
