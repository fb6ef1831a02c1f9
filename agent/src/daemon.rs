//! The composition root: the only file that sees all parts.
//!
//! ```text
//! start   log · checks of the host · directories · locks · pid file · Engine::open · sockets · READY=1
//! run     one thread; blocking work goes to a few small threads that come and go
//! stop    no more requests · [live-restore=false: containers] · engine · sockets and pid file removed
//! ```
//!
//! The sockets exist only once requests are answered. Containers outlive the daemon. Decides nothing that a request could
//! ask for.

mod host;
mod listen;
mod logging;
mod notify;
mod tls;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::builder::Builder;
use crate::config::{Config, Flags, Host};
use crate::engine::{Engine, EngineOptions, ListOptions, StopOptions};
use crate::http::Server;
use crate::space;
use crate::swarm::Swarm;
use logging::Logging;
use tls::Front;

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The host lacks something.
    #[error("{0}")]
    Host(String),
    /// A directory, lock or pid file cannot be had.
    #[error("{0}")]
    Place(String),
    /// A socket cannot be served.
    #[error("cannot serve {host}: {reason}")]
    Socket {
        /// As given with `--host`.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The engine does not open.
    #[error("cannot open the engine in {}: {source}", root.display())]
    Engine {
        /// The data root.
        root: PathBuf,
        /// Why not.
        #[source]
        source: crate::error::Error,
    },
    /// The node cannot go on as the member of a swarm that it is.
    #[error("cannot go on with the swarm in {}: {source}", root.display())]
    Swarm {
        /// The data root.
        root: PathBuf,
        /// Why not.
        #[source]
        source: crate::error::Error,
    },
    /// The async runtime or signal handling cannot be set up.
    #[error("cannot set up the daemon's process: {0}")]
    Process(#[from] std::io::Error),
}

/// How long requests that have begun may take to end when the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Blocking operations (mounts, archives, file trees) at the same time; more wait.
const BLOCKING_THREADS: usize = 64;
/// Their stacks.
const STACK_BYTES: usize = 512 * 1024;
/// Idle ones end after this, to give memory back.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to stop. Blocks, and must not be called from within an async runtime.
///
/// # Errors
/// Why it could not start. What fails later is logged and answered to whom it concerns.
pub fn run(config: Config, flags: Flags) -> Result<(), DaemonError> {
    let logging = Logging::start(&config);
    host::check()?;
    let places = Places::take(&config)?;
    host::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()?;
    let result = runtime.block_on(serve(&config, &flags, &logging));
    runtime.shutdown_timeout(STOP_PATIENCE);
    places.release();
    result
}

async fn serve(config: &Config, flags: &Flags, logging: &Logging) -> Result<(), DaemonError> {
    // From here on signals are events: one that comes during start-up is served after it.
    let mut signals = Signals::new()?;
    let engine = Engine::open(engine_options(config)?)
        .await
        .map_err(|source| DaemonError::Engine {
            root: config.data_root.clone(),
            source,
        })?;
    let swarm = Swarm::open(
        engine.clone(),
        config.data_root.clone(),
        config.exec_root.clone(),
    )
    .await
    .map_err(|source| DaemonError::Swarm {
        root: config.data_root.clone(),
        source,
    })?;
    let builder = Builder::new(engine.clone());
    let server = Server::new(engine.clone(), builder.clone(), swarm.clone());
    let mut sockets = Vec::new();
    for host in &config.hosts {
        if let Host::Tls(address) = host {
            let front = Front::bind(*address, &config.tls).await?;
            info!(address = %host, "serving the API");
            tokio::spawn(front.serve(server.clone()));
            continue;
        }
        sockets.extend(listen::listen(host, config.group.as_deref())?);
    }
    let mut paths = Vec::new();
    for socket in sockets {
        info!(address = %socket.address, "serving the API");
        paths.extend(socket.path);
        let (server, listener) = (server.clone(), UnixListener::from_std(socket.listener)?);
        tokio::spawn(async move { server.serve(listener).await });
    }
    if let Err(failure) = space::start(engine.clone(), builder, config.space.clone()).await {
        error!(%failure, "images and build cache are not collected");
    }
    notify::send("READY=1");
    info!(data_root = %config.data_root.display(), version = env!("CARGO_PKG_VERSION"), "daemon is ready");

    let mut reloadable = config.reloadable.clone();
    loop {
        match signals.next().await {
            Asked::Stop(name) => {
                info!(signal = name, "stopping");
                break;
            }
            Asked::Reload => match reload(config, flags) {
                Ok(new) if new == reloadable => {
                    info!("configuration read again: nothing has changed")
                }
                Ok(new) => {
                    logging.set_level(&new);
                    engine.reload(new.debug, new.labels.clone());
                    reloadable = new;
                    info!("configuration read again");
                }
                Err(failure) => error!(error = %failure, "the configuration was not read again"),
            },
        }
    }
    notify::send("STOPPING=1");
    // A second signal ends the process at once: nothing below is needed for containers to go on.
    tokio::spawn(async move {
        loop {
            if let Asked::Stop(name) = signals.next().await {
                warn!(signal = name, "stopping at once");
                std::process::exit(1);
            }
        }
    });
    for path in &paths {
        let _ = std::fs::remove_file(path);
    }
    let left = server.stop(STOP_PATIENCE).await;
    if left > 0 {
        warn!(connections = left, "requests were cut off");
    }
    if !config.live_restore {
        stop_containers(&engine, config.shutdown_timeout).await;
    }
    swarm.stop().await;
    engine.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Reads flags and file once more. Names in the log what only a restart changes.
fn reload(
    config: &Config,
    flags: &Flags,
) -> Result<crate::config::Reloadable, crate::config::ConfigError> {
    let new = Config::load(flags)?;
    let unchanged = Config {
        reloadable: config.reloadable.clone(),
        ..new.clone()
    };
    if unchanged != *config {
        warn!(
            file = %config.file.display(),
            "some options were changed that a running daemon does not take: restart it (only debug, log-level and labels are read again)"
        );
    }
    Ok(new.reloadable)
}

/// Stops everything that runs, all at once, and waits for it.
async fn stop_containers(engine: &Engine, timeout: Option<Duration>) {
    let running = engine
        .list_containers(ListOptions::default())
        .await
        .unwrap_or_default();
    let timeout = timeout.map_or(-1, |timeout| {
        i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)
    });
    info!(containers = running.len(), "stopping containers");
    join_all(running.iter().map(|container| async {
        let options = StopOptions {
            signal: None,
            timeout: Some(timeout),
        };
        if let Err(failure) = engine.stop_container(&container.id, options).await {
            error!(container.id, error = %failure, "cannot stop a container");
        }
    }))
    .await;
}

fn engine_options(config: &Config) -> Result<EngineOptions, DaemonError> {
    let executable = std::env::current_exe().map_err(|failure| {
        DaemonError::Host(format!(
            "cannot find the daemon's own executable: {failure}"
        ))
    })?;
    let containers = &config.containers;
    let networks = &config.networks;
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let registries = config
        .registries
        .client_config(environment)
        .map_err(|failure| DaemonError::Host(format!("the environment: {failure}")))?;
    Ok(EngineOptions {
        debug: config.reloadable.debug,
        labels: config.reloadable.labels.clone(),
        log_driver: containers.log_driver.clone(),
        log_options: containers.log_options.clone(),
        default_ulimits: containers.ulimits.clone(),
        default_shm_size: containers.shm_size_bytes,
        init: containers.init,
        dns: containers.dns.clone(),
        dns_search: containers.dns_search.clone(),
        dns_options: containers.dns_options.clone(),
        cgroup_parent: containers.cgroup_parent.clone(),
        host_gateway: containers.host_gateway,
        default_address_pools: networks
            .address_pools
            .iter()
            .map(|(base, size)| netdriver::AddressPool {
                base: (*base).into(),
                size: *size,
            })
            .collect(),
        bridge_address: networks.bridge_address,
        mtu: networks.mtu.unwrap_or(0),
        default_publish_address: networks.publish_address,
        registries,
        ..EngineOptions::new(&config.data_root, &config.exec_root, executable)
    })
}

/// What a signal asks for.
enum Asked {
    Stop(&'static str),
    Reload,
}

/// The signals the daemon listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

/// What this daemon alone may use while it runs.
struct Places {
    /// Held open: closing gives the lock up.
    _locks: [File; 2],
    pidfile: PathBuf,
}

impl Places {
    fn take(config: &Config) -> Result<Self, DaemonError> {
        // The socket is in the exec root, and its users must be able to reach it.
        host::make_root(&config.data_root, 0o710)?;
        host::make_root(&config.exec_root, 0o711)?;
        let locks = [
            lock(&config.data_root, "--data-root")?,
            lock(&config.exec_root, "--exec-root")?,
        ];
        write_pidfile(&config.pidfile)?;
        Ok(Self {
            _locks: locks,
            pidfile: config.pidfile.clone(),
        })
    }

    fn release(self) {
        if std::fs::read_to_string(&self.pidfile)
            .is_ok_and(|text| text.trim() == std::process::id().to_string())
        {
            let _ = std::fs::remove_file(&self.pidfile);
        }
    }
}

/// Locks a root for as long as the file is open; the kernel gives the lock up when the process dies, however it dies.
fn lock(root: &Path, option: &str) -> Result<File, DaemonError> {
    use std::io::{Read, Seek, Write};
    let path = root.join("daemon.lock");
    let failed = |failure: std::io::Error| {
        DaemonError::Place(format!("cannot lock {}: {failure}", path.display()))
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut pid);
            return Err(DaemonError::Place(format!(
                "{} is in use by another muster daemon (process {}): stop that one, or give this one a {option} of its own",
                root.display(),
                pid.trim()
            )));
        }
        Err(failure) => return Err(failed(failure.into())),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

fn write_pidfile(path: &Path) -> Result<(), DaemonError> {
    if let Some(pid) = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        && host::is_daemon(pid)
    {
        return Err(DaemonError::Place(format!(
            "the daemon with process id {pid} that wrote {} is still running: stop it, or choose another --pidfile",
            path.display()
        )));
    }
    let failed = |failure: std::io::Error| {
        DaemonError::Place(format!("cannot write {}: {failure}", path.display()))
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, format!("{}\n", std::process::id())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_locked_for_one_daemon() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(root.path(), "--data-root").unwrap();
        let message = lock(root.path(), "--data-root").unwrap_err().to_string();
        assert_eq!(
            message,
            format!(
                "{} is in use by another muster daemon (process {}): stop that one, or give this one a --data-root of its own",
                root.path().display(),
                std::process::id()
            )
        );
        drop(held);
        lock(root.path(), "--data-root").unwrap();
    }

    #[test]
    fn a_pidfile_of_a_dead_daemon_is_replaced_and_of_another_program_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/muster.pid");
        // Process 1 is alive, and no daemon of ours.
        for before in ["4194304", "1", "junk"] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, before).unwrap();
            write_pidfile(&path).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                format!("{}\n", std::process::id())
            );
        }
    }
}
