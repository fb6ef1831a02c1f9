//! Images of a gigabyte in twenty layers: load, save, push and pull, and the engines' peak memory meanwhile.
//!
//! Every round has an image of its own (the same files, another first file in each layer), so that nothing is deleted
//! between measurements: ext4 passes over the inodes of files that were deleted in the last minutes one by one when it
//! makes new ones (`fs/ext4/ialloc.c:recently_deleted`), which would be the next side's time. The registry is
//! `docker-registry`, one process in each side's network over the same storage.

mod archive;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::measure::{Table, milliseconds};
use crate::peer::{Options, Peer};

/// Where the registries listen.
const REGISTRY: &str = "127.0.0.1:5055";

/// What one kind of measurement has gathered, for each side.
#[derive(Default)]
struct Times {
    muster: Vec<f64>,
    docker: Vec<f64>,
    podman: Vec<f64>,
    skopeo: Vec<f64>,
}

impl Times {
    fn show(self, table: &mut Table, what: &str) {
        let best = [&self.docker, &self.podman]
            .into_iter()
            .any(|times| !times.is_empty());
        if best {
            table.add(what, "ms", self.muster.clone(), self.docker, Some(0.5));
            table.add_against("podman", what, self.muster.clone(), self.podman);
        } else {
            table.add_alone(what, "ms", self.muster.clone());
        }
        if !self.skopeo.is_empty() {
            table.add_against("skopeo", what, self.muster, self.skopeo);
        }
    }
}

/// All of it.
pub(crate) fn run(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    options: &Options,
) -> anyhow::Result<()> {
    let podman = Peer::podman(options)?;
    let bed = Bed::new(muster, docker.or(podman.as_ref()), options)?;
    let (mut load, mut save, mut pull) = (Times::default(), Times::default(), Times::default());
    let mut push = Times::default();
    for round in 0..options.rounds.div_ceil(7) {
        let (outside, inside) = bed.archive(round)?;
        let name = archive::name(round);
        let ours = |arguments: &[&str]| timed(muster.command(arguments));
        load.muster.push(ours(&["load", "-q", "-i", &outside])?);
        save.muster.push(ours(&["save", &name])?);
        let pushed = format!("{REGISTRY}/muster/round:{round}");
        muster.run(&["tag", &name, &pushed])?;
        push.muster.push(ours(&["push", "-q", &pushed])?);
        for (peer, times) in [(docker, Side::Docker), (podman.as_ref(), Side::Podman)] {
            let Some(peer) = peer else { continue };
            let quiet = ["load", "-q", "-i", inside.as_str()];
            times.of(&mut load).push(timed(peer.command(&quiet))?);
            times
                .of(&mut save)
                .push(timed(peer.command(&["save", &name]))?);
            let pushed = format!("{REGISTRY}/{}/round:{round}", times.word());
            peer.run(&["tag", &name, &pushed])?;
            let mut arguments = vec!["push", "-q", pushed.as_str()];
            if matches!(times, Side::Podman) {
                arguments.push("--tls-verify=false");
            }
            times.of(&mut push).push(timed(peer.command(&arguments))?);
        }
        // What is pulled is what nobody has: another image, brought to the registry by a third party.
        let strange = options.rounds + round;
        let (outside, _) = bed.archive(strange)?;
        let remote = format!("{REGISTRY}/strange/round:{round}");
        bed.upload(&outside, &remote)?;
        pull.muster
            .push(timed(muster.command(&["pull", "-q", &remote]))?);
        if let Some(docker) = docker {
            pull.docker
                .push(timed(docker.command(&["pull", "-q", &remote]))?);
        }
        if let Some(podman) = &podman {
            let arguments = ["pull", "-q", "--tls-verify=false", &remote];
            pull.podman.push(timed(podman.command(&arguments))?);
        }
        pull.skopeo.push(bed.skopeo_copy(&remote, round)?);
    }
    load.show(table, "load 1 GB, 20 layers");
    save.show(table, "save 1 GB, 20 layers");
    push.show(table, "push 1 GB, 20 layers");
    pull.show(table, "pull 1 GB, 20 layers (gzip)");
    let peak = |peer: &Peer| -> anyhow::Result<Vec<f64>> { Ok(vec![peak_memory(peer)?]) };
    let theirs = docker.map(peak).transpose()?.unwrap_or_default();
    table.add(
        "peak memory of the engine",
        "MiB",
        peak(muster)?,
        theirs,
        Some(0.5),
    );
    bed.clean(options.rounds, muster, docker, podman.as_ref())
}

/// Whose times.
#[derive(Clone, Copy)]
enum Side {
    Docker,
    Podman,
}

impl Side {
    fn of(self, times: &mut Times) -> &mut Vec<f64> {
        match self {
            Self::Docker => &mut times.docker,
            Self::Podman => &mut times.podman,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// Runs a command whose output nobody reads.
fn timed(command: Command) -> anyhow::Result<f64> {
    timed_by(|mut command| Ok(command.spawn()?), command)
}

/// The same for a command that somebody else starts.
fn timed_by(
    spawn: impl FnOnce(Command) -> anyhow::Result<Child>,
    mut command: Command,
) -> anyhow::Result<f64> {
    let shown = format!("{command:?}");
    let (time, status) = milliseconds(|| {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("start {shown}"))?;
        // A pipe, since saving asks for one; the reader costs every side the same.
        let mut output = child.stdout.take().context("stdout is piped")?;
        std::io::copy(&mut output, &mut std::io::sink())?;
        Ok(child.wait()?)
    })?;
    ensure!(status.success(), "{shown} failed");
    Ok(time)
}

/// Sum of the engine's processes' largest resident sizes, MiB.
fn peak_memory(peer: &Peer) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for pid in peer.engine_processes()? {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let size = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        total += size.unwrap_or(0.0) / 1024.0;
    }
    Ok(total)
}

/// Archives, and a registry in each side's network.
struct Bed<'a> {
    muster: &'a Peer,
    outside: PathBuf,
    inside: PathBuf,
    registries: Vec<Child>,
}

impl<'a> Bed<'a> {
    fn new(muster: &'a Peer, peer: Option<&Peer>, options: &Options) -> anyhow::Result<Self> {
        let temporary = std::env::temp_dir();
        let (outside, inside) = options
            .share
            .clone()
            .unwrap_or((temporary.clone(), temporary));
        let mut bed = Self {
            muster,
            outside: outside.join("bench-images"),
            inside: inside.join("bench-images"),
            registries: Vec::new(),
        };
        std::fs::create_dir_all(bed.outside.join("registry"))?;
        let Peer::Muster(host) = muster else {
            anyhow::bail!("the first side is muster");
        };
        let (ours, theirs) = (
            bed.config(&bed.outside, "ours")?,
            bed.config(&bed.inside, "theirs")?,
        );
        let mut command = Command::new("docker-registry");
        command.args(["serve", &ours]);
        bed.registries.push(host.spawn(quiet(command)));
        if let (Some(peer), [program, prefix @ ..]) = (peer, &options.registry[..]) {
            let mut command = Command::new(program);
            command.args(prefix).args(["serve", &theirs]);
            bed.registries.push(
                quiet(command)
                    .spawn()
                    .with_context(|| format!("start a registry for {}", peer.describe()))?,
            );
        }
        Ok(bed)
    }

    fn config(&self, root: &Path, name: &str) -> anyhow::Result<String> {
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
            root.join("registry").display()
        );
        std::fs::write(self.outside.join(name), text)?;
        Ok(root.join(name).to_string_lossy().into_owned())
    }

    /// The archive of a round, as muster and as the peer call it; its bytes are in memory afterwards.
    fn archive(&self, round: usize) -> anyhow::Result<(String, String)> {
        let file = format!("round-{round}.tar");
        let path = self.outside.join(&file);
        if !path.exists() {
            archive::write(&path, round).context("make the image")?;
        }
        std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?;
        let seen = self.inside.join(&file);
        Ok((
            path.to_string_lossy().into_owned(),
            seen.to_string_lossy().into_owned(),
        ))
    }

    /// Runs skopeo in muster's network.
    fn skopeo(&self, arguments: &[&str]) -> anyhow::Result<f64> {
        let Peer::Muster(host) = self.muster else {
            anyhow::bail!("the first side is muster");
        };
        let mut command = Command::new("skopeo");
        command.args(arguments);
        timed_by(|command| Ok(host.spawn(command)), command)
    }

    fn upload(&self, archive: &str, remote: &str) -> anyhow::Result<()> {
        let source = format!("docker-archive:{archive}");
        let target = format!("docker://{remote}");
        self.skopeo(&["copy", "-q", "--dest-tls-verify=false", &source, &target])
            .context("skopeo fills the registry")?;
        Ok(())
    }

    /// To a directory: skopeo downloads and verifies, and unpacks nothing.
    fn skopeo_copy(&self, remote: &str, round: usize) -> anyhow::Result<f64> {
        let source = format!("docker://{remote}");
        let target = format!(
            "dir:{}",
            self.outside.join(format!("copy-{round}")).display()
        );
        self.skopeo(&["copy", "-q", "--src-tls-verify=false", &source, &target])
    }

    fn clean(
        mut self,
        rounds: usize,
        muster: &Peer,
        docker: Option<&Peer>,
        podman: Option<&Peer>,
    ) -> anyhow::Result<()> {
        for registry in &mut self.registries {
            registry.kill()?;
            registry.wait()?;
        }
        for (peer, word) in [
            (Some(muster), "muster"),
            (docker, "docker"),
            (podman, "podman"),
        ] {
            let Some(peer) = peer else { continue };
            for round in 0..rounds.div_ceil(7) {
                peer.run(&[
                    "rmi",
                    &archive::name(round),
                    &format!("{REGISTRY}/{word}/round:{round}"),
                    &format!("{REGISTRY}/strange/round:{round}"),
                ])?;
            }
        }
        std::fs::remove_dir_all(&self.outside).context("remove the archives")
    }
}

fn quiet(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
