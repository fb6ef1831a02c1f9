//! Reading a file tree without mounting it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use agent_build::pattern::Patterns;

/// A file tree: a stack of layers, or a directory. Cheap to clone; may be read by several threads at once.
#[derive(Clone)]
pub struct View(Arc<Tree>);

struct Tree {}

impl View {
    /// The empty tree.
    pub fn empty() -> Self {
        todo!()
    }

    /// A context: a directory of somebody else's, without what `ignore` matches. Everything in it counts as owned by 0:0,
    /// as BuildKit's clients send it. Others may write to it meanwhile; nothing outside of it is ever read.
    pub fn context(directory: OwnedFd, ignore: Patterns) -> Self {
        let _ = (directory, ignore);
        todo!()
    }

    /// A directory with everything in it as it is (an unpacked archive, a checkout, a download).
    pub fn directory(directory: OwnedFd) -> Self {
        let _ = directory;
        todo!()
    }

    /// The content of a regular file, links followed inside of the tree; `None` when there is none. For small files that the
    /// builder itself reads (a Dockerfile, an ignore file, `/etc/passwd`).
    ///
    /// # Errors
    /// It is longer than `limit` bytes, no regular file, or cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> super::error::Result<Option<Vec<u8>>> {
        let _ = (path, limit);
        todo!()
    }
}
