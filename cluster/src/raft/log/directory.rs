//! The few file operations the log is made of, so that it runs unchanged on a real directory and on a simulated disk
//! that is slow, torn or full.

use std::io;

/// A directory of flat files. What is not synced may be lost or torn in a crash, in any order; a name made, changed or
/// removed is durable after [`Directory::sync_names`] only.
pub trait Directory {
    /// Takes the directory for this process alone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another has it.
    fn lock(&mut self) -> io::Result<()>;
    /// Names of the files there are, in any order.
    ///
    /// # Errors
    /// The disk's.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// A whole file.
    ///
    /// # Errors
    /// The disk's.
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
    /// A new empty file; an existing one of that name is emptied.
    ///
    /// # Errors
    /// The disk's.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Adds to the end of a file.
    ///
    /// # Errors
    /// The disk's; then any part of the bytes may have been added.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes the contents of a file durable. Not its name.
    ///
    /// # Errors
    /// The disk's; then nothing is known of what was added since the last time.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a file to a length.
    ///
    /// # Errors
    /// The disk's.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync_names(&mut self) -> io::Result<()>;
}
