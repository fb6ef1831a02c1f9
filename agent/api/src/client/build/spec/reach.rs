//! Which files of the client a build reads and writes, for whoever has to allow it first. What is said here is what
//! [`BuildSpec::prepare`] and the outputs do with the same description: both ask the functions that read its parts.

use super::{BuildSpec, CacheDestination, CacheSource, OutputTarget, context};
use crate::client::build::OutputSink;
use std::path::{Path, PathBuf};

/// One thing of the client's that a build uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A file or everything in a directory is read.
    Read(PathBuf),
    /// A file, or what is in a directory, is written.
    Write(PathBuf),
    /// Keys are used, by an agent or by this process.
    Keys,
}

impl BuildSpec {
    /// Everything that the build uses of the client, with paths as they are opened. `env` is the user's environment.
    #[must_use]
    pub fn reach(&self, env: &dyn Fn(&str) -> Option<String>) -> Vec<Reach> {
        let mut reach: Vec<Reach> = Vec::new();
        let mut read = context::files(&self.context, &self.dockerfile);
        let contexts = self.named_contexts.values();
        read.extend(contexts.filter_map(|place| context::named_files(place)));
        read.extend(self.secrets.iter().filter_map(|secret| secret.file(env)));
        read.extend(self.ssh.iter().flat_map(|agent| agent.paths.clone()));
        for source in &self.cache_from {
            match source {
                CacheSource::Local { src, .. } => read.push(src.clone()),
                CacheSource::Registry { .. } => {}
            }
        }
        reach.extend(read.into_iter().map(Reach::Read));
        for output in &self.outputs {
            match &output.target {
                OutputTarget::Local { dest, .. } => reach.push(Reach::Write(dest.clone())),
                OutputTarget::Tar { dest, .. }
                | OutputTarget::Oci { dest, .. }
                | OutputTarget::Docker { dest, .. } => match dest {
                    OutputSink::Directory(path) | OutputSink::File(path) => {
                        reach.push(Reach::Write(path.clone()));
                    }
                    OutputSink::Stdout => {}
                },
                OutputTarget::Image(_) | OutputTarget::CacheOnly => {}
            }
        }
        for destination in &self.cache_to {
            match destination {
                CacheDestination::Local { dest, .. } => reach.push(Reach::Write(dest.clone())),
                CacheDestination::Inline | CacheDestination::Registry { .. } => {}
            }
        }
        if !self.ssh.is_empty() {
            reach.push(Reach::Keys);
        }
        reach
    }

    /// Makes the paths that are used after [`BuildSpec::prepare`] what they are now, links followed: `real` says what
    /// that is. A link that is put there later is an error, so that what was judged is what is used.
    pub fn settle(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        real: &dyn Fn(&Path) -> PathBuf,
    ) {
        self.settled = true;
        for secret in &mut self.secrets {
            if let Some(path) = secret.file(env) {
                secret.src = Some(real(&path));
            }
        }
        for source in &mut self.cache_from {
            if let CacheSource::Local { src, .. } = source {
                *src = real(src);
            }
        }
        for destination in &mut self.cache_to {
            if let CacheDestination::Local { dest, .. } = destination {
                *dest = real(dest);
            }
        }
        for output in &mut self.outputs {
            match &mut output.target {
                OutputTarget::Local { dest, .. }
                | OutputTarget::Tar {
                    dest: OutputSink::Directory(dest) | OutputSink::File(dest),
                    ..
                }
                | OutputTarget::Oci {
                    dest: OutputSink::Directory(dest) | OutputSink::File(dest),
                    ..
                }
                | OutputTarget::Docker {
                    dest: OutputSink::Directory(dest) | OutputSink::File(dest),
                    ..
                } => {
                    *dest = real(dest);
                }
                _ => {}
            }
        }
    }
}
