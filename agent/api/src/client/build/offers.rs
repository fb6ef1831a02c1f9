//! What a client has for the daemon, by the names the request uses, and where it wants outputs.

use super::directory::OpenDirectory;
use super::layout::LayoutImage;
use super::logins::Logins;
use super::place::{self, Links};
use super::serve::{Feed, Service};
use super::ssh::SshSource;
use crate::types::build::{ChannelPurpose, ContextOffer, MAX_SECRET};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use tokio::io::AsyncRead;

/// Everything the daemon may ask for during one build. Each directory, archive and output is given out once.
#[derive(Debug, Default)]
pub struct Offers {
    contexts: HashMap<String, ContextSource>,
    secrets: HashMap<String, SecretSource>,
    ssh: HashMap<String, SshSource>,
    caches: HashMap<String, PathBuf>,
    outputs: HashMap<String, OutputSink>,
    logins: Option<Logins>,
    links: Links,
}

/// Where the files of a context are.
pub enum ContextSource {
    /// A directory.
    Directory(OpenDirectory),
    /// A tar, perhaps compressed, as it comes (mostly stdin).
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    /// An image of an OCI layout.
    OciLayout(LayoutImage),
}

impl fmt::Debug for ContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => f.debug_tuple("Directory").field(directory).finish(),
            Self::Archive(_) => f.write_str("Archive(…)"),
            Self::OciLayout(image) => f.debug_tuple("OciLayout").field(image).finish(),
        }
    }
}

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, read when the daemon asks.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

impl SecretSource {
    /// The bytes, at most [`MAX_SECRET`].
    pub(super) async fn read(self, links: Links) -> Result<Vec<u8>, String> {
        use tokio::io::AsyncReadExt as _;
        let bytes = match self {
            Self::Value(bytes) => bytes,
            Self::File(path) => {
                let cannot = |error| format!("cannot read the secret {}: {error}", path.display());
                let at = path.clone();
                let opened = tokio::task::spawn_blocking(move || place::open(&at, links));
                let file = opened
                    .await
                    .map_err(|panic| panic.to_string())?
                    .map_err(cannot)?;
                let mut bytes = Vec::new();
                tokio::fs::File::from_std(file)
                    .take(MAX_SECRET as u64 + 1)
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(cannot)?;
                bytes
            }
        };
        if bytes.len() > MAX_SECRET {
            return Err(format!("a secret has at most {MAX_SECRET} bytes"));
        }
        Ok(bytes)
    }
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSink {
    /// Unpacked into a directory, which is made when it is missing; files that are there stay unless they are in the
    /// way.
    Directory(PathBuf),
    /// A file, complete or not there: written beside its place and renamed.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl Offers {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a context and tells what to write into the request; the main context's name is empty.
    pub fn context(&mut self, name: &str, source: ContextSource) -> ContextOffer {
        let offer = match &source {
            ContextSource::Directory(directory) => directory.offer(),
            ContextSource::Archive(_) => ContextOffer::Stream,
            ContextSource::OciLayout(image) => ContextOffer::OciLayout {
                reference: image.digest().to_owned(),
            },
        };
        self.contexts.insert(name.to_owned(), source);
        offer
    }

    /// Offers a secret.
    pub fn secret(&mut self, id: &str, source: SecretSource) {
        self.secrets.insert(id.to_owned(), source);
    }

    /// Offers an SSH agent.
    pub fn ssh_agent(&mut self, id: &str, agent: SshSource) {
        self.ssh.insert(id.to_owned(), agent);
    }

    /// Offers a cache: a directory that is an OCI layout.
    pub fn cache(&mut self, id: &str, layout: PathBuf) {
        self.caches.insert(id.to_owned(), layout);
    }

    /// Files are used by their paths without following links: all paths are absolute and have none.
    pub fn refuse_links(&mut self) {
        self.links = Links::Refused;
    }

    /// Offers to say who the user is at the registries that the build speaks to.
    pub fn logins(&mut self, logins: Logins) {
        self.logins = Some(logins);
    }

    /// Says where an output goes.
    pub fn output(&mut self, id: &str, sink: OutputSink) {
        self.outputs.insert(id.to_owned(), sink);
    }

    /// Ids of the secrets.
    #[must_use]
    pub fn secret_ids(&self) -> Vec<String> {
        sorted(self.secrets.keys())
    }

    /// Ids of the SSH agents.
    #[must_use]
    pub fn ssh_ids(&self) -> Vec<String> {
        sorted(self.ssh.keys())
    }

    /// What serves a channel, or why nothing does.
    pub(super) fn take(&mut self, what: &ChannelPurpose) -> Result<Service, String> {
        let gone = |kind: &str, id: &str| format!("the client has no {kind} {id:?} to give");
        let feed = match what {
            ChannelPurpose::Context { name } => match self.contexts.remove(name) {
                Some(ContextSource::Directory(directory)) => Feed::Directory(directory),
                Some(ContextSource::Archive(reader)) => Feed::Archive(reader),
                Some(ContextSource::OciLayout(image)) => {
                    // Asked for once for each platform.
                    let again = ContextSource::OciLayout(image.clone());
                    self.contexts.insert(name.clone(), again);
                    Feed::Image(image)
                }
                None => return Err(gone("context", name)),
            },
            ChannelPurpose::Secret { id } => {
                let source = self.secrets.get(id).ok_or_else(|| gone("secret", id))?;
                Feed::Secret(source.clone(), self.links)
            }
            ChannelPurpose::Ssh { id } => {
                let agent = self.ssh.get(id).ok_or_else(|| gone("SSH agent", id))?;
                Feed::Agent(agent.clone())
            }
            ChannelPurpose::Cache { id } => {
                let path = self.caches.get(id).ok_or_else(|| gone("cache", id))?;
                Feed::Layout(path.clone(), self.links)
            }
            ChannelPurpose::Credentials { server } => match &self.logins {
                Some(logins) => Feed::Login(logins.clone(), server.clone()),
                None => return Err(gone("credentials for", server)),
            },
            ChannelPurpose::Output { id } => {
                let sink = self.outputs.remove(id).ok_or_else(|| gone("output", id))?;
                return Ok(Service::Output(sink, self.links));
            }
        };
        Ok(Service::Feed(feed))
    }
}

impl OpenDirectory {
    fn offer(&self) -> ContextOffer {
        let (fd, device, inode) = self.identity();
        ContextOffer::Directory {
            fd,
            device,
            inode,
            path: self.shown().to_owned(),
            ignore: self.ignore().cloned(),
        }
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_unstable();
    names
}
