//! `docker-registry` in each side's network, all over the same storage.
//!
//! One process for each network, started there from here: nothing forwards, so nobody's bytes take a longer way. A peer's
//! network is entered by way of any process that lives in it; the registry keeps the file system of this machine.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::peer::Peer;

/// Where each of them listens. Engines take registries on the loopback interface without TLS.
pub(super) const ADDRESS: &str = "127.0.0.1:5055";
/// Until one serves.
const LIMIT: Duration = Duration::from_secs(20);

/// One process; ended when dropped.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    /// Whose network: commands of the sides that share one share the registry.
    network: String,
}

impl Registry {
    /// Starts one for a side, unless there is one in its network.
    pub(super) fn start(
        started: &mut Vec<Self>,
        peer: &Peer,
        directory: &Path,
    ) -> anyhow::Result<()> {
        let network = match peer {
            // Its daemon's network is its own.
            Peer::Muster(_) => peer.name().to_owned(),
            Peer::Command(_) => peer.network_name()?,
        };
        if started.iter().any(|registry| registry.network == network) {
            return Ok(());
        }
        if peer.in_network(|| TcpStream::connect(ADDRESS))?.is_ok() {
            bail!("something else listens on {ADDRESS}");
        }
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {ADDRESS}}}\n",
            storage(directory).display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = peer.spawn_in_network(command)?;
        let mut registry = Self { child, network };
        let begun = Instant::now();
        while peer.in_network(|| TcpStream::connect(ADDRESS))?.is_err() {
            if let Some(status) = registry.child.try_wait()? {
                bail!("docker-registry ended with {status}");
            }
            if begun.elapsed() > LIMIT {
                bail!("docker-registry does not listen on {ADDRESS}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        started.push(registry);
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn storage(directory: &Path) -> std::path::PathBuf {
    directory.join("registry")
}

/// Removes all that was pushed.
pub(super) fn empty(directory: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(storage(directory).join("docker")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("empty the registry")
        }
        _ => Ok(()),
    }
}

/// How much was pushed.
pub(super) fn bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    blobs(directory, &mut |path| {
        total += path.metadata()?.len();
        Ok(())
    })?;
    Ok(total)
}

/// Brings all that was pushed into memory.
pub(super) fn warm(directory: &Path) -> anyhow::Result<()> {
    nix::unistd::sync();
    blobs(directory, &mut |path| {
        std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink()).map(drop)
    })
}

fn blobs(
    directory: &Path,
    each: &mut dyn FnMut(&Path) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut open = vec![storage(directory).join("docker/registry/v2/blobs")];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("read {}", directory.display()))? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => open.push(entry.path()),
                false => each(&entry.path())?,
            }
        }
    }
    Ok(())
}
