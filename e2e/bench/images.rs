//! Images of a gigabyte in twenty layers: load, save, push and pull, and the peak memory of each.
//!
//! Every round has an image of its own (the same files, another first file in each layer), so that nothing is deleted
//! between measurements: ext4 passes over the inodes of files that were deleted in the last minutes one by one when it
//! makes new ones (`fs/ext4/ialloc.c:recently_deleted`), which would be the next side's time; what was deleted before is
//! forgotten before the first measurement ([`FORGOTTEN`]). Who comes first changes
//! from round to round; what a side has written is on the disk before the next one's turn. A step that fails on one
//! side is left out for that side alone.
//!
//! Skopeo is measured as what it is: it copies. Into `containers-storage:` it unpacks as podman does and can be the
//! best; into `dir:` it only downloads and verifies, which is shown and is nobody's best.

mod archive;
mod registry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use self::registry::{ADDRESS, Registry};
use crate::cost::{Cost, Costs, cost};
use crate::measure::{Beside, Table};
use crate::peer::{Options, Peer};

/// What a round writes: two images on each of four sides, two archives, the registry's and the copied blobs.
const ROUND_BYTES: u64 = 11 << 30;

/// So long after a deletion that is on the disk ext4 remembers it (`RECENTCY_MIN`, a minute).
const FORGOTTEN: Duration = Duration::from_secs(61);

/// What is done with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Load,
    Save,
    Push,
    Pull,
    Copy,
}

/// The lines of the table, with the aim beside the best peer.
const STEPS: [(Step, &str, Option<f64>); 4] = [
    (Step::Load, "load 1 GB, 20 layers", Some(0.5)),
    (Step::Save, "save 1 GB, 20 layers", None),
    (Step::Push, "push 1 GB, 20 layers", None),
    (Step::Pull, "pull 1 GB, 20 layers (gzip)", Some(0.5)),
];

/// One side, with what its steps have cost.
struct Side<'a> {
    peer: &'a Peer,
    steps: Vec<(Step, Costs)>,
    /// What its pushes made of the image, MiB.
    pushed: Vec<f64>,
    /// Names of images that are there.
    names: Vec<String>,
    /// Why nothing is asked of it any more in a step.
    failed: Vec<Step>,
}

/// All of it.
pub(crate) fn run(
    table: &mut Table,
    muster: &Peer,
    peers: &[&Peer],
    options: &Options,
) -> anyhow::Result<()> {
    let bed = Bed::new(options)?;
    let all = std::iter::once(muster).chain(peers.iter().copied());
    let mut sides: Vec<Side<'_>> = all.map(Side::new).collect();
    let mut registries = Vec::new();
    for side in &sides {
        if let Err(error) = Registry::start(&mut registries, side.peer, &bed.outside) {
            let who = side.peer.name();
            table.left_out(
                &format!("{who}: a registry in its network"),
                &format!("{error:#}"),
            );
        }
    }
    eprintln!("bench: waiting until the file system has forgotten what was deleted before");
    nix::unistd::sync();
    std::thread::sleep(FORGOTTEN);
    let rounds = options.rounds.div_ceil(7);
    let measured = (0..rounds).try_for_each(|round| {
        let free = free_bytes(&bed.outside)?;
        ensure!(
            free > ROUND_BYTES,
            "a round writes up to {} GB and {} are free",
            ROUND_BYTES >> 30,
            free >> 30
        );
        let count = sides.len();
        sides.rotate_left(round.min(1) % count);
        a_round(table, &bed, &mut sides, round, rounds)
    });
    if let Err(error) = measured {
        table.left_out("rounds of images", &format!("{error:#}"));
    }
    // In the order of the first round again.
    let order = |side: &Side<'_>| {
        ["muster", "docker", "podman", "skopeo"]
            .iter()
            .position(|name| *name == side.peer.name())
    };
    sides.sort_by_key(order);
    show(table, &sides);
    drop(registries);
    // Hundreds of thousands of files, which some disks take a while to delete.
    eprintln!("bench: removing the images");
    let cleaned: Vec<_> = std::thread::scope(|scope| {
        let clean = |side| {
            scope.spawn({
                let bed = &bed;
                move || Side::clean(side, bed)
            })
        };
        let threads: Vec<_> = sides.iter().map(clean).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.expect("removing does not panic"))
            .collect()
    });
    for (side, cleaned) in sides.iter().zip(cleaned) {
        if let Err(error) = cleaned {
            let what = format!("{}: cleaning up", side.peer.name());
            table.left_out(&what, &format!("{error:#}"));
        }
    }
    bed.remove()
}

fn a_round(
    table: &mut Table,
    bed: &Bed,
    sides: &mut [Side<'_>],
    round: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let own = bed.archive(round)?;
    for side in &mut *sides {
        side.step(table, Step::Load, |side| side.load(bed, &own, round));
    }
    for side in &mut *sides {
        side.step(table, Step::Save, |side| side.save(round));
    }
    for side in &mut *sides {
        bed.empty_registry()?;
        side.step(table, Step::Push, |side| side.push(bed, &own, round));
    }
    bed.empty_registry()?;
    std::fs::remove_file(&own.outside)?;
    // What is pulled is what nobody has: another image, brought to the registry by a third party.
    let strange = bed.archive(rounds + round)?;
    let remote = format!("{ADDRESS}/strange/round:{round}");
    let skopeo = sides.iter().find(|side| side.peer.name() == "skopeo");
    let skopeo = skopeo.context("pull is left out: skopeo is not there to fill the registry")?;
    let source = format!("docker-archive:{}", strange.seen_by(skopeo.peer));
    skopeo.peer.run(&[
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &source,
        &format!("docker://{remote}"),
    ])?;
    std::fs::remove_file(&strange.outside)?;
    registry::warm(&bed.outside)?;
    for side in &mut *sides {
        side.step(table, Step::Pull, |side| side.pull(bed, &remote));
    }
    for side in &mut *sides {
        side.step(table, Step::Copy, |side| side.copy(bed, &remote, round));
    }
    bed.empty_registry()
}

fn show(table: &mut Table, sides: &[Side<'_>]) {
    let (muster, peers) = sides.split_first().expect("muster is a side");
    type Values = fn(&Costs) -> &Vec<f64>;
    let mut lines = |step: Step, what: &str, unit: &'static str, aim, values: Values| {
        let of = |side: &Side<'_>, step: Step| values(side.costs(step)).clone();
        let mut beside: Vec<Beside> = peers
            .iter()
            .map(|side| Beside {
                name: side.peer.name(),
                how: side.how(step),
                values: of(side, step),
                all: true,
            })
            .collect();
        if step == Step::Pull {
            beside.extend(peers.iter().map(|side| Beside {
                name: side.peer.name(),
                how: side.how(Step::Copy),
                values: of(side, Step::Copy),
                all: false,
            }));
        }
        table.compare(what, unit, &of(muster, step), beside, aim);
    };
    for (step, what, aim) in STEPS {
        lines(step, what, "ms", aim, |costs| &costs.milliseconds);
    }
    for (step, what, _) in STEPS {
        let word = what.split(' ').next().unwrap_or(what);
        lines(
            step,
            &format!("  {word}: peak memory"),
            "MiB",
            None,
            |costs| &costs.peak_mib,
        );
    }
    let beside = peers.iter().map(|side| Beside {
        name: side.peer.name(),
        how: "",
        values: side.pushed.clone(),
        all: true,
    });
    table.compare(
        "  push: size of the blobs",
        "MiB",
        &muster.pushed,
        beside.collect(),
        None,
    );
}

impl<'a> Side<'a> {
    fn new(peer: &'a Peer) -> Self {
        let steps = [Step::Load, Step::Save, Step::Push, Step::Pull, Step::Copy];
        Self {
            peer,
            steps: steps.map(|step| (step, Costs::default())).into(),
            pushed: Vec::new(),
            names: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn costs(&self, step: Step) -> &Costs {
        let found = self.steps.iter().find(|(other, _)| *other == step);
        &found.expect("every step is listed").1
    }

    /// Does a step unless it has failed before. `None`: it is not one for this side.
    fn step(
        &mut self,
        table: &mut Table,
        step: Step,
        work: impl FnOnce(&mut Self) -> anyhow::Result<Option<Cost>>,
    ) {
        if self.failed.contains(&step) {
            return;
        }
        match work(self) {
            Ok(None) => {}
            Ok(Some(cost)) => {
                let found = self.steps.iter_mut().find(|(other, _)| *other == step);
                found.expect("every step is listed").1.push(cost);
            }
            Err(error) => {
                self.failed.push(step);
                let what = format!("{}: {step:?}", self.peer.name()).to_lowercase();
                table.left_out(&what, &format!("{error:#}"));
            }
        }
    }

    /// What skopeo did in a step.
    fn how(&self, step: Step) -> &'static str {
        match (self.peer.name(), step) {
            ("skopeo", Step::Load) => "copy docker-archive: to containers-storage:, unpacked",
            ("skopeo", Step::Push) => "copy docker-archive: to docker://",
            ("skopeo", Step::Pull) => "copy docker:// to containers-storage:, unpacked",
            ("skopeo", Step::Copy) => "copy docker:// to dir:, nothing unpacked",
            _ => "",
        }
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Option<Cost>> {
        cost(self.peer, self.peer.command(arguments)).map(Some)
    }

    fn load(&mut self, bed: &Bed, archive: &Place, round: usize) -> anyhow::Result<Option<Cost>> {
        let file = archive.seen_by(self.peer);
        if self.peer.name() == "skopeo" {
            let target = bed.storage(self.peer, &archive::name(round));
            return self.run(&["copy", "-q", &format!("docker-archive:{file}"), &target]);
        }
        let cost = self.run(&["load", "-q", "-i", &file])?;
        self.names.push(archive::name(round));
        Ok(cost)
    }

    fn has(&self, round: usize) -> bool {
        self.names.contains(&archive::name(round))
    }

    fn save(&self, round: usize) -> anyhow::Result<Option<Cost>> {
        if self.peer.name() == "skopeo" {
            return Ok(None);
        }
        ensure!(self.has(round), "the image was not loaded");
        self.run(&["save", &archive::name(round)])
    }

    fn push(&mut self, bed: &Bed, archive: &Place, round: usize) -> anyhow::Result<Option<Cost>> {
        let remote = format!("{ADDRESS}/{}/round:{round}", self.peer.name());
        let cost = match self.peer.name() {
            "skopeo" => {
                let source = format!("docker-archive:{}", archive.seen_by(self.peer));
                let target = format!("docker://{remote}");
                self.run(&["copy", "-q", "--dest-tls-verify=false", &source, &target])?
            }
            name => {
                ensure!(self.has(round), "the image was not loaded");
                self.peer.run(&["tag", &archive::name(round), &remote])?;
                self.names.push(remote.clone());
                let insecure = ["--tls-verify=false"];
                let insecure = if name == "podman" { &insecure[..] } else { &[] };
                self.run(&[&["push", "-q"], insecure, &[&*remote]].concat())?
            }
        };
        let bytes = registry::bytes(&bed.outside)?;
        ensure!(bytes > 0, "the registry has nothing of it");
        self.pushed.push(bytes as f64 / f64::from(1 << 20));
        Ok(cost)
    }

    fn pull(&mut self, bed: &Bed, remote: &str) -> anyhow::Result<Option<Cost>> {
        let insecure = ["--tls-verify=false"];
        let insecure = match self.peer.name() {
            "skopeo" => {
                let source = format!("docker://{remote}");
                let target = bed.storage(self.peer, remote);
                return self.run(&["copy", "-q", "--src-tls-verify=false", &source, &target]);
            }
            "podman" => &insecure[..],
            _ => &[],
        };
        let cost = self.run(&[&["pull", "-q"], insecure, &[remote]].concat())?;
        self.names.push(remote.to_owned());
        Ok(cost)
    }

    fn copy(&self, bed: &Bed, remote: &str, round: usize) -> anyhow::Result<Option<Cost>> {
        if self.peer.name() != "skopeo" {
            return Ok(None);
        }
        let source = format!("docker://{remote}");
        let target = bed.place(&format!("copy-{round}"));
        let seen = format!("dir:{}", target.seen_by(self.peer));
        self.run(&["copy", "-q", "--src-tls-verify=false", &source, &seen])
    }

    /// Removes the images.
    fn clean(&self, bed: &Bed) -> anyhow::Result<()> {
        if self.peer.name() == "skopeo" {
            return bed.remove_storage();
        }
        if self.names.is_empty() {
            return Ok(());
        }
        let mut remove = vec!["rmi", "-f"];
        remove.extend(self.names.iter().map(String::as_str));
        self.peer.run(&remove).map(drop)
    }
}

/// A path as it is here and as the peers behind a prefix call it.
struct Place {
    outside: PathBuf,
    inside: PathBuf,
}

impl Place {
    fn seen_by(&self, peer: &Peer) -> String {
        let path = if peer.entrance().is_some() {
            &self.inside
        } else {
            &self.outside
        };
        path.to_string_lossy().into_owned()
    }
}

/// The directory in which all this happens.
struct Bed {
    outside: PathBuf,
    inside: PathBuf,
}

impl Bed {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let temporary = std::env::temp_dir();
        let (outside, inside) = options
            .share
            .clone()
            .unwrap_or((temporary.clone(), temporary));
        let bed = Self {
            outside: outside.join("bench-images"),
            inside: inside.join("bench-images"),
        };
        if bed.outside.exists() {
            // Of a run that was killed.
            bed.remove_storage()?;
            std::fs::remove_dir_all(&bed.outside).context("remove what an earlier run left")?;
        }
        std::fs::create_dir_all(bed.outside.join("registry"))?;
        Ok(bed)
    }

    fn place(&self, name: &str) -> Place {
        Place {
            outside: self.outside.join(name),
            inside: self.inside.join(name),
        }
    }

    /// The archive of a round; its bytes are in memory afterwards.
    fn archive(&self, round: usize) -> anyhow::Result<Place> {
        let place = self.place(&format!("round-{round}.tar"));
        archive::write(&place.outside, round).context("make the image")?;
        nix::unistd::sync();
        std::io::copy(
            &mut std::fs::File::open(&place.outside)?,
            &mut std::io::sink(),
        )?;
        Ok(place)
    }

    /// An image in a storage of the bench's own, of the kind that podman has.
    fn storage(&self, peer: &Peer, image: &str) -> String {
        let root = self.place("storage").seen_by(peer);
        let run = self.place("storage-run").seen_by(peer);
        format!("containers-storage:[overlay@{root}+{run}]{image}")
    }

    fn remove_storage(&self) -> anyhow::Result<()> {
        for name in ["storage", "storage-run"] {
            let path = self.outside.join(name);
            if path.exists() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// As before the first push ever. The registry keeps nothing of it in memory.
    fn empty_registry(&self) -> anyhow::Result<()> {
        registry::empty(&self.outside)
    }

    fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.outside).context("remove the bench's directory")
    }
}

fn free_bytes(path: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(path).context("ask for the free space")?;
    Ok(disk.f_bavail * disk.f_frsize)
}
