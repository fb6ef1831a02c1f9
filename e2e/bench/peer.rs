//! The two sides: muster with a daemon of its own in a private host, and a docker command that reaches a daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use e2e::Host;

/// What `--only` chooses from, in the order of the table.
const CASES: [&str; 15] = [
    "memory",
    "run",
    "compose",
    "podman",
    "oci",
    "build",
    "images",
    "failover",
    "crash",
    "idle",
    "scale",
    "ingress",
    "writes",
    "scheduling",
    "networks",
];

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    /// Words of the docker command.
    docker: Vec<String>,
    /// Words of the podman command.
    podman: Vec<String>,
    /// Words of an OCI runtime's command.
    pub(crate) runtime: Vec<String>,
    /// Words of a `docker-registry` command in the peer's network; none where that is muster's, too.
    pub(crate) registry: Vec<String>,
    /// Where files for the peer go, and how the peer calls that place.
    pub(crate) share: Option<(PathBuf, PathBuf)>,
    /// Repetitions of the shortest case; longer ones take fewer.
    pub(crate) rounds: usize,
    /// Names of the cases to measure; none means all.
    only: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            docker: words("docker"),
            podman: words("podman"),
            runtime: words("crun"),
            registry: Vec::new(),
            share: None,
            rounds: 20,
            only: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--docker" => options.docker = words(&value),
                "--podman" => options.podman = words(&value),
                "--runtime" => options.runtime = words(&value),
                "--registry" => options.registry = words(&value),
                "--share" => {
                    let (outside, inside) =
                        value.split_once('=').context("--share OUTSIDE=INSIDE")?;
                    options.share = Some((outside.into(), inside.into()));
                }
                "--rounds" => options.rounds = value.parse().context("--rounds NUMBER")?,
                "--only" => {
                    options.only = value.split(',').map(str::to_owned).collect();
                    let unknown = options
                        .only
                        .iter()
                        .find(|name| !CASES.contains(&name.as_str()));
                    if let Some(unknown) = unknown {
                        bail!("--only {unknown}: there are {}", CASES.join(", "));
                    }
                }
                _ => bail!(
                    "unknown flag {flag}: --docker COMMAND, --podman COMMAND, --runtime COMMAND, --registry COMMAND, --share OUTSIDE=INSIDE, --rounds NUMBER, --only CASE,…"
                ),
            }
        }
        Ok(options)
    }

    /// Whether a case is to be measured.
    pub(crate) fn wants(&self, case: &str) -> bool {
        debug_assert!(CASES.contains(&case), "{case} cannot be chosen");
        self.only.is_empty() || self.only.iter().any(|name| name == case)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// One side of the comparison.
#[derive(Debug)]
pub(crate) enum Peer {
    /// Muster, with its own daemon.
    Muster(Box<Host>),
    /// A docker command.
    Docker {
        words: Vec<String>,
        outside: PathBuf,
        inside: PathBuf,
        version: String,
    },
}

impl Peer {
    pub(crate) fn muster() -> anyhow::Result<Self> {
        Ok(Self::Muster(Box::new(Host::start())))
    }

    /// `None` when no daemon answers.
    pub(crate) fn docker(options: &Options) -> anyhow::Result<Option<Self>> {
        Self::command_line(
            &options.docker,
            &["version", "--format", "{{.Server.Version}}"],
            options,
        )
    }

    /// `None` when there is no such command.
    pub(crate) fn podman(options: &Options) -> anyhow::Result<Option<Self>> {
        Self::command_line(
            &options.podman,
            &["version", "--format", "{{.Client.Version}}"],
            options,
        )
    }

    fn command_line(
        words: &[String],
        ask: &[&str],
        options: &Options,
    ) -> anyhow::Result<Option<Self>> {
        let temporary = std::env::temp_dir();
        let (outside, inside) = options
            .share
            .clone()
            .unwrap_or((temporary.clone(), temporary));
        let mut peer = Self::Docker {
            words: words.to_vec(),
            outside,
            inside,
            version: String::new(),
        };
        let Ok(said) = peer.command(ask).output() else {
            return Ok(None);
        };
        if !said.status.success() {
            return Ok(None);
        }
        if let Self::Docker { version, .. } = &mut peer {
            *version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        }
        let tar = std::fs::File::open(e2e::busybox())?;
        let imported = peer
            .command(&["import", "-", "busybox"])
            .stdin(tar)
            .stdout(Stdio::null())
            .status()?;
        ensure!(imported.success(), "{} import failed", words.join(" "));
        Ok(Some(peer))
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Muster(_) => "muster".to_owned(),
            Self::Docker { words, version, .. } => {
                format!("{version} by `{}`", words.join(" "))
            }
        }
    }

    /// The command `run …`, `compose …` of this side.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        match self {
            Self::Muster(host) => host.muster_command(arguments),
            Self::Docker { words, .. } => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).args(arguments);
                command
            }
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "{}: {arguments:?}: {}",
            self.describe(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a file that this side can read, and gives the path by which it does.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let (outside, inside) = match self {
            Self::Muster(host) => (host.path(name), host.path(name)),
            Self::Docker {
                outside, inside, ..
            } => (outside.join(name), inside.join(name)),
        };
        if let Some(parent) = outside.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&outside, text).with_context(|| format!("write {}", outside.display()))?;
        Ok(inside.to_string_lossy().into_owned())
    }

    /// Starts the engine's peaks of memory anew.
    pub(crate) fn forget_peaks(&self) -> anyhow::Result<()> {
        for pid in self.engine_processes()? {
            // 5: the peak of the resident set, proc(5).
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Ok(())
    }

    /// Sum of the peaks of the engine's processes, MiB. They need not have been at the same time.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for pid in self.engine_processes()? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let size = line.and_then(|line| line.split_whitespace().next());
            total += size
                .and_then(|size| size.parse::<f64>().ok())
                .unwrap_or(0.0);
        }
        Ok(total / 1024.0)
    }

    /// Process ids of the engine: daemon, keeper, shims; without the containers themselves.
    pub(crate) fn engine_processes(&self) -> anyhow::Result<Vec<i32>> {
        match self {
            Self::Muster(host) => Ok([Some(host.daemon().pid()), host.keeper()]
                .into_iter()
                .flatten()
                .collect()),
            Self::Docker { .. } => {
                let names = ["dockerd", "containerd", "containerd-shim", "docker-proxy"];
                Ok(processes()?
                    .into_iter()
                    .filter(|pid| names.contains(&name(*pid).as_str()))
                    .collect())
            }
        }
    }
}

fn processes() -> anyhow::Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// Command name; the kernel cuts it at 15 characters.
fn name(pid: i32) -> String {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
