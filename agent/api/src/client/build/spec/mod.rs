//! A build in the client's own terms: paths, files and environment in place of descriptors and ids.
//!
//! [`BuildSpec::prepare`] opens and reads what the request needs and leaves the rest to be asked for. The small
//! languages of `--output`, `--cache-from`, `--secret`, `--ssh` and `--build-context` are read here, so that the command
//! line, bake files and compose files agree on them. An option that is not supported is an error that names it.
//! Source: buildx `build/opt.go`, `util/buildflags`, docker/cli `cli/command/image/build`.

mod cache;
mod context;
mod csv;
mod output;
mod reach;
mod secret;

pub use cache::{CacheDestination, CacheSource};
pub use context::is_remote;
pub use csv::{fields as option_fields, values as option_values};
pub use output::{OutputSpec, OutputTarget};
pub use reach::Reach;
pub use secret::{SecretSpec, SshSpec};

use super::Offers;
use crate::types::build::{BuildRequest, ContextOffer};
use indexmap::IndexMap;
use std::io;
use std::path::PathBuf;

/// Where the Dockerfile is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DockerfilePlace {
    /// `Dockerfile` at the root of the context.
    #[default]
    Default,
    /// A file: of the client when the context is a directory, else of the context (unless absolute).
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// Here.
    Inline(String),
}

/// One build as a user describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildSpec {
    /// A directory, an address, or `-` for standard input.
    pub context: String,
    /// The Dockerfile.
    pub dockerfile: DockerfilePlace,
    /// `--build-context`: names with a directory, an address, `docker-image://`, `oci-layout://`.
    pub named_contexts: IndexMap<String, String>,
    /// `--secret`
    pub secrets: Vec<SecretSpec>,
    /// `--ssh`
    pub ssh: Vec<SshSpec>,
    /// `--output`; the daemon's image store when empty.
    pub outputs: Vec<OutputSpec>,
    /// `--cache-from`
    pub cache_from: Vec<CacheSource>,
    /// `--cache-to`
    pub cache_to: Vec<CacheDestination>,
    /// [`BuildSpec::settle`] has made its paths ones without links, which stay so.
    pub settled: bool,
    /// Everything that needs nothing of the client. Contexts, Dockerfile, ids, outputs and caches are filled in.
    pub request: BuildRequest,
}

/// Something of a description that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The text of an option is malformed or asks for something that is not supported.
    #[error("invalid {option} {text:?}: {reason}")]
    Option {
        /// `output`, `cache-from` …
        option: &'static str,
        /// What was given.
        text: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The main context is not there.
    #[error("unable to prepare context: path {0:?} not found")]
    NoContext(String),
    /// A context cannot be used.
    #[error("unable to prepare context {name:?}: {source}")]
    Context {
        /// What was given for it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The Dockerfile cannot be read.
    #[error("failed to read dockerfile: open {}: {}", path.display(), reason(source))]
    Dockerfile {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard input is asked for twice.
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StdinTwice,
    /// Standard input cannot be used.
    #[error("failed to read from stdin: {0}")]
    Stdin(String),
    /// A secret is not there.
    #[error("secret {id:?}: {reason}")]
    Secret {
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// An SSH agent is not there.
    #[error("ssh {id:?}: {reason}")]
    Ssh {
        /// Its id.
        id: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// Go's words for the most frequent reason, which tools look for.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

impl BuildSpec {
    /// Opens and reads what the request needs. `env` is the user's environment.
    ///
    /// # Errors
    /// A context, Dockerfile, secret or agent is not there or cannot be read.
    pub fn prepare(
        self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(BuildRequest, Offers), SpecError> {
        let Self {
            context,
            dockerfile,
            named_contexts,
            secrets,
            ssh,
            outputs,
            cache_from,
            cache_to,
            settled,
            mut request,
        } = self;
        let mut offers = Offers::new();
        if settled {
            offers.refuse_links();
        }
        context::main(&context, dockerfile, &mut request, &mut offers)?;
        for (name, place) in named_contexts {
            let offer = context::named(&name, &place, &mut offers)?;
            request.named_contexts.insert(name, offer);
        }
        for secret in secrets {
            let (id, source) = secret.find(env)?;
            offers.secret(&id, source);
        }
        for agent in ssh {
            let (id, source) = agent.find(env)?;
            offers.ssh_agent(&id, source);
        }
        request.secrets = offers.secret_ids();
        request.ssh = offers.ssh_ids();
        for (index, output) in outputs.into_iter().enumerate() {
            let output = output.request(index, &mut request.annotations, &mut offers);
            request.outputs.push(output);
        }
        for (index, cache) in cache_from.into_iter().enumerate() {
            // As BuildKit: a cache that is not there yet is no reason to fail.
            request.cache_from.extend(cache.request(index, &mut offers));
        }
        for (index, cache) in cache_to.into_iter().enumerate() {
            request.cache_to.push(cache.request(index, &mut offers));
        }
        Ok((request, offers))
    }
}

/// `true`, `1`, `t` … as Go reads them.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What an option's text is called in its errors.
fn bad(option: &'static str, text: &str, reason: impl Into<String>) -> SpecError {
    SpecError::Option {
        option,
        text: text.to_owned(),
        reason: reason.into(),
    }
}

/// A named context that stands for an image of the daemon's store.
#[must_use]
pub fn image_context(id: &str) -> String {
    format!("docker-image://{id}")
}

/// The offer of an address, which needs nothing of the client.
fn remote(url: &str) -> ContextOffer {
    ContextOffer::Remote {
        url: url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
