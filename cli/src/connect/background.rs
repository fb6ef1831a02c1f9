//! Starts `muster daemon` in the background and waits until it says that it is ready.
//!
//! ```text
//! lock /run/muster/start.lock ─▶ is there one by now? ─▶ bind <dir>/notify ─▶ spawn `muster daemon` (own session,
//!   output to the log) ─▶ READY=1 on NOTIFY_SOCKET, or its end, whichever comes first
//! ```
//! The readiness message is systemd's (sd_notify(3)), which the daemon sends to any supervisor.

use super::Host;
use crate::out;
use agent_api::Client;
use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::process::Command;

/// Longest time a daemon may take to become ready: it may have many containers to look after.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of the log's end is shown when the daemon fails, bytes.
const TAIL: u64 = 2048;

pub(super) async fn start(host: &Host, debug: bool) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "no muster daemon is running at {host}, and only root can start one: run \"sudo muster daemon\", or this \
             command as root"
        );
    }
    let directory = host
        .socket()
        .expect("only the default address is started at, which is a socket")
        .parent()
        .expect("a socket's path is absolute")
        .to_owned();
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let _lock = lock(directory.join("start.lock")).await?;
    if Client::at(host.clone()).ping().await.is_ok() {
        return Ok(());
    }
    let log = directory.join("daemon.log");
    let notify = directory.join("notify.sock");
    remove(&notify)?;
    let ready = UnixDatagram::bind(&notify)
        .with_context(|| format!("cannot listen at {}", notify.display()))?;
    let result = spawn(host, &log, &notify, &ready, debug).await;
    let _ = remove(&notify);
    let pid = result?;
    out::note(format!(
        "muster: no daemon is running, started one (pid {pid}, log at {})",
        log.display()
    ));
    Ok(())
}

async fn spawn(
    host: &Host,
    log: &Path,
    notify: &Path,
    ready: &UnixDatagram,
    debug: bool,
) -> anyhow::Result<u32> {
    let cannot_log = || format!("cannot write the daemon's log {}", log.display());
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(cannot_log)?;
    let start = file.metadata().with_context(cannot_log)?.len();
    let executable = std::env::current_exe().context("cannot tell the path of this executable")?;
    let mut command = Command::new(executable);
    command.args(["daemon", "--new-session", "--host", &host.to_string()]);
    if debug {
        command.arg("--debug");
    }
    let mut child = command
        .env("NOTIFY_SOCKET", notify)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone().with_context(cannot_log)?)
        .stderr(file)
        .spawn()
        .context("cannot start the daemon")?;
    let pid = child.id().context("the daemon ended at once")?;
    let said_ready = async {
        let mut message = [0; 4096];
        loop {
            let length = ready.recv(&mut message).await?;
            if message[..length]
                .split(|&byte| byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                return std::io::Result::Ok(());
            }
        }
    };
    tokio::select! {
        message = said_ready => {
            message.context("cannot hear from the daemon")?;
            Ok(pid)
        }
        status = child.wait() => {
            let status = status.context("cannot wait for the daemon")?;
            bail!("the daemon did not start ({status}); the end of its log {}:\n{}", log.display(), tail(log, start))
        }
        () = tokio::time::sleep(PATIENCE) => {
            bail!("the daemon (pid {pid}) is not ready after {} s; the end of its log {}:\n{}", PATIENCE.as_secs(), log.display(), tail(log, start))
        }
    }
}

/// Waits for whoever else is starting a daemon.
async fn lock(path: PathBuf) -> anyhow::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    tokio::task::spawn_blocking(move || {
        rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    })
    .await?
}

/// What this daemon wrote to the log, its end.
fn tail(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
