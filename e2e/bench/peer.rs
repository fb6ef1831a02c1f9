//! The sides: muster with a daemon of its own in a private host, and commands of others: docker, podman, skopeo.
//!
//! A command's words are a prefix that enters a peer's namespaces (there may be none), the program, and its own first
//! arguments: `enter podman --runtime runc`. What the prefix leads to is asked of the peer itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use e2e::Host;
use nix::sched::{CloneFlags, setns};

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
    /// Words of the skopeo command.
    skopeo: Vec<String>,
    /// Words of an OCI runtime's command.
    pub(crate) runtime: Vec<String>,
    /// Where files for the peer go, and how a command with a prefix calls that place.
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
            skopeo: words("skopeo"),
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
                "--skopeo" => options.skopeo = words(&value),
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
                    "unknown flag {flag}: --docker COMMAND, --podman COMMAND, --runtime COMMAND, --skopeo COMMAND, --share OUTSIDE=INSIDE, --rounds NUMBER, --only CASE,…"
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
    /// A command, and maybe a daemon behind it.
    Command(Foreign),
}

/// A peer that is reached by a command.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// `docker`, `podman` or `skopeo`.
    name: &'static str,
    /// The whole command.
    words: Vec<String>,
    /// How many of the words enter the peer's namespaces.
    prefix: usize,
    /// Where files for it are written, and how it calls that place.
    outside: PathBuf,
    inside: PathBuf,
    version: String,
}

impl Peer {
    pub(crate) fn muster() -> anyhow::Result<Self> {
        Ok(Self::Muster(Box::new(Host::start())))
    }

    /// `None` when no daemon answers.
    pub(crate) fn docker(options: &Options) -> anyhow::Result<Option<Self>> {
        let ask = ["version", "--format", "{{.Server.Version}}"];
        let docker = Self::foreign("docker", &options.docker, &ask, options);
        docker.map(Self::with_busybox).transpose()
    }

    /// `None` when there is no such command.
    pub(crate) fn podman(options: &Options) -> anyhow::Result<Option<Self>> {
        let ask = ["version", "--format", "{{.Client.Version}}"];
        let podman = Self::foreign("podman", &options.podman, &ask, options);
        podman.map(Self::with_busybox).transpose()
    }

    /// `None` when there is no such command.
    pub(crate) fn skopeo(options: &Options) -> Option<Self> {
        Self::foreign("skopeo", &options.skopeo, &["--version"], options)
    }

    fn foreign(
        name: &'static str,
        words: &[String],
        ask: &[&str],
        options: &Options,
    ) -> Option<Self> {
        let is_program =
            |word: &String| Path::new(word).file_name().is_some_and(|last| last == name);
        // A program of another name has no prefix.
        let prefix = words.iter().rposition(is_program).unwrap_or(0);
        let temporary = std::env::temp_dir();
        let (outside, inside) = options
            .share
            .clone()
            .unwrap_or((temporary.clone(), temporary));
        let mut foreign = Foreign {
            name,
            words: words.to_vec(),
            prefix,
            inside: if prefix == 0 { outside.clone() } else { inside },
            outside,
            version: String::new(),
        };
        let said = foreign.command(ask).output().ok()?;
        if !said.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&said.stdout);
        said.split_whitespace()
            .next_back()?
            .clone_into(&mut foreign.version);
        Some(Self::Command(foreign))
    }

    fn with_busybox(self) -> anyhow::Result<Self> {
        let imported = self
            .command(&["import", "-", "busybox"])
            .stdin(File::open(e2e::busybox())?)
            .output()?;
        let said = String::from_utf8_lossy(&imported.stderr);
        ensure!(
            imported.status.success(),
            "{} import: {said}",
            self.describe()
        );
        Ok(self)
    }

    /// The field's word for it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Muster(_) => "muster",
            Self::Command(foreign) => foreign.name,
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Muster(_) => "muster".to_owned(),
            Self::Command(foreign) => format!(
                "{} {} by `{}`",
                foreign.name,
                foreign.version,
                foreign.words.join(" ")
            ),
        }
    }

    /// The command `run …`, `compose …` of this side.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        match self {
            Self::Muster(host) => host.muster_command(arguments),
            Self::Command(foreign) => foreign.command(arguments),
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

    /// Where files of that name are for this side: where they are written, and how it calls that place.
    pub(crate) fn place(&self, name: &str) -> (PathBuf, PathBuf) {
        match self {
            Self::Muster(host) => (host.path(name), host.path(name)),
            Self::Command(foreign) => (foreign.outside.join(name), foreign.inside.join(name)),
        }
    }

    /// Writes a file that this side can read, and gives the path by which it does.
    pub(crate) fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let (outside, inside) = self.place(name);
        if let Some(parent) = outside.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&outside, text).with_context(|| format!("write {}", outside.display()))?;
        Ok(inside.to_string_lossy().into_owned())
    }

    /// Starts a program of this machine in the network that the side's transfers go through.
    pub(crate) fn spawn_in_network(&self, mut command: Command) -> anyhow::Result<Child> {
        let shown = format!("{command:?}");
        match self {
            Self::Muster(host) => host.on_host(move || command.spawn()),
            Self::Command(foreign) => {
                let network = foreign.network()?;
                in_network(network, move || command.spawn())?
            }
        }
        .with_context(|| format!("start {shown}"))
    }

    /// Does something in the network that the side's transfers go through.
    pub(crate) fn in_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        match self {
            Self::Muster(host) => Ok(host.on_host(work)),
            Self::Command(foreign) => in_network(foreign.network()?, work),
        }
    }

    /// How the kernel calls the network namespace of the side's commands.
    pub(crate) fn network_name(&self) -> anyhow::Result<String> {
        match self {
            // Its commands are started right here; only its daemon is elsewhere.
            Self::Muster(_) => own_network(),
            Self::Command(foreign) => foreign.network_name(),
        }
    }

    /// What the prefix of the command costs: a program that does nothing, by the same way.
    pub(crate) fn entrance(&self) -> Option<Command> {
        match self {
            Self::Command(foreign) if foreign.prefix > 0 => Some(foreign.tool("true", &[])),
            _ => None,
        }
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
        let peaks = self.engine_processes()?.into_iter().map(peak_of);
        Ok(peaks.sum::<f64>() / 1024.0)
    }

    /// Process ids of the engine: daemon, keeper, shims; without the containers themselves.
    pub(crate) fn engine_processes(&self) -> anyhow::Result<Vec<i32>> {
        match self {
            Self::Muster(host) => Ok([Some(host.daemon().pid()), host.keeper()]
                .into_iter()
                .flatten()
                .collect()),
            Self::Command(foreign) if foreign.name == "docker" => {
                let names = [
                    "dockerd",
                    "containerd",
                    "containerd-shim",
                    "docker-proxy",
                    "buildkitd",
                ];
                // Behind a prefix there may be another one than on the machine itself.
                let network = match foreign.prefix {
                    0 => None,
                    _ => Some(foreign.network_name()?),
                };
                Ok(processes()?
                    .into_iter()
                    .filter(|pid| names.contains(&name(*pid).as_str()))
                    .filter(|pid| network.is_none() || network_of(*pid) == network)
                    .collect())
            }
            // No daemon.
            Self::Command(_) => Ok(Vec::new()),
        }
    }
}

impl Foreign {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(arguments);
        command
    }

    /// Another program by the same prefix.
    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let words = [&self.words[..self.prefix], &[program.to_owned()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments);
        command
    }

    fn network_name(&self) -> anyhow::Result<String> {
        if self.prefix == 0 {
            return own_network();
        }
        let output = self.tool("readlink", &["/proc/self/ns/net"]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let where_to = self.words[..self.prefix].join(" ");
        ensure!(
            said.starts_with("net:["),
            "`{where_to} readlink /proc/self/ns/net` says {said:?}"
        );
        Ok(said)
    }

    /// The namespace itself, by any process that lives in it; `None` where there is nothing to enter.
    fn network(&self) -> anyhow::Result<Option<File>> {
        if self.prefix == 0 {
            return Ok(None);
        }
        let wanted = Some(self.network_name()?);
        let resident = processes()?
            .into_iter()
            .find(|pid| network_of(*pid) == wanted);
        let resident = resident
            .with_context(|| format!("no process lives in the network of {}", self.name))?;
        let file = format!("/proc/{resident}/ns/net");
        Ok(Some(
            File::open(&file).with_context(|| format!("open {file}"))?,
        ))
    }
}

/// Works on a thread of its own, since a thread that entered a namespace stays there.
fn in_network<T: Send + 'static>(
    network: Option<File>,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let Some(network) = network else {
        return Ok(work());
    };
    let thread = std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET).context("enter the peer's network")?;
        Ok(work())
    });
    thread.join().expect("the work does not panic")
}

fn own_network() -> anyhow::Result<String> {
    let own = std::process::id().try_into()?;
    network_of(own).context("read the own network's name")
}

/// How the kernel calls a process's network namespace; `None` when the process has ended.
pub(crate) fn network_of(pid: i32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The largest resident size a process has had, KiB; 0 when it has ended.
pub(crate) fn peak_of(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.and_then(|line| line.split_whitespace().next());
    size.and_then(|size| size.parse().ok()).unwrap_or(0.0)
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
