//! One case as text, and its build context on disk.
//!
//! ```text
//! What the case shows, in one or two lines.
//! flags: --build-arg A=1 --target last        zero or more lines; given to `build` as they are, split at spaces
//! muster says: text                           part of the error, where another than BuildKit's is meant
//! === Dockerfile
//! FROM scratch
//! === file name [mode] [uid:gid]              text; `name.b64` is base64, `name.gunzip.b64` is gzip in base64
//! === dir name [mode] [uid:gid]
//! === link name -> target
//! === hardlink name -> other
//! === fifo name
//! === xattr name attribute value
//! === base name                               a Dockerfile built first, without a context, as image `name`
//! ```
//!
//! Sections are made in their order. Text that has to begin with `===` cannot be written.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use nix::sys::stat::Mode;

/// A case, parsed.
#[derive(Debug)]
pub struct Case {
    /// File name without its ending.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Further arguments of `build`.
    pub flags: Vec<String>,
    /// Images to build first: name and Dockerfile.
    pub bases: Vec<(String, String)>,
    /// What muster says where BuildKit's error is not worth having.
    pub says: Option<String>,
    sections: Vec<(String, String)>,
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// When it is not there or says something that has no meaning.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_stem().context("a case has a name")?;
        let mut case = Self {
            name: name.to_string_lossy().into_owned(),
            about: String::new(),
            flags: Vec::new(),
            bases: Vec::new(),
            says: None,
            sections: Vec::new(),
        };
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next_if(|line| !line.starts_with("===")) {
            if let Some(flags) = line.strip_prefix("flags:") {
                case.flags
                    .extend(flags.split_whitespace().map(str::to_owned));
            } else if let Some(text) = line.strip_prefix("muster says:") {
                case.says = Some(text.trim().to_owned());
            } else {
                case.about.push_str(line);
            }
        }
        while let Some(line) = lines.next() {
            let head = line
                .strip_prefix("===")
                .expect("a section begins here")
                .trim()
                .to_owned();
            let mut body = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("===")) {
                body.push_str(line);
            }
            match head.strip_prefix("base ") {
                Some(name) => case.bases.push((name.trim().to_owned(), body)),
                None => case.sections.push((head, body)),
            }
        }
        ensure!(
            !case.about.trim().is_empty(),
            "{}: says nothing about itself",
            path.display()
        );
        Ok(case)
    }

    /// Makes the build context in `into`, which must be an empty directory.
    ///
    /// # Errors
    /// When a section cannot be understood or made.
    pub fn materialise(&self, into: &Path) -> Result<()> {
        for (head, body) in &self.sections {
            section(into, head, body).with_context(|| format!("{}: {head}", self.name))?;
        }
        Ok(())
    }
}

fn section(root: &Path, head: &str, body: &str) -> Result<()> {
    let words: Vec<&str> = head.split_whitespace().collect();
    let place = |name: &str| -> Result<PathBuf> {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(path)
    };
    match words[..] {
        ["Dockerfile"] => {
            fs::write(root.join("Dockerfile"), body)?;
        }
        ["file", name, ref rest @ ..] => {
            let (name, bytes) = decoded(name, body)?;
            let path = place(name)?;
            fs::write(&path, bytes)?;
            attributes(&path, 0o644, rest)?;
        }
        ["dir", name, ref rest @ ..] => {
            let path = place(name)?;
            fs::create_dir_all(&path)?;
            attributes(&path, 0o755, rest)?;
        }
        ["link", name, "->", target] => symlink(target, place(name)?)?,
        ["hardlink", name, "->", other] => fs::hard_link(root.join(other), place(name)?)?,
        ["fifo", name] => nix::unistd::mkfifo(&place(name)?, Mode::from_bits_truncate(0o644))?,
        ["xattr", name, attribute, value] => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join(name), attribute, value.as_bytes(), flags)?;
        }
        _ => bail!("no such section"),
    }
    Ok(())
}

/// A file's name and bytes, as its section's name says they are written.
fn decoded<'a>(name: &'a str, body: &str) -> Result<(&'a str, Vec<u8>)> {
    let Some(name) = name.strip_suffix(".b64") else {
        return Ok((name, body.as_bytes().to_vec()));
    };
    let text: String = body.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    let Some(name) = name.strip_suffix(".gunzip") else {
        return Ok((name, bytes));
    };
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut inflated)?;
    Ok((name, inflated))
}

fn attributes(path: &Path, usual: u32, words: &[&str]) -> Result<()> {
    let mut mode = usual;
    for word in words {
        match word.split_once(':') {
            Some((uid, gid)) => chown(path, Some(uid.parse()?), Some(gid.parse()?))?,
            None => mode = u32::from_str_radix(word, 8)?,
        }
    }
    // After chown, which takes set-user-id away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
