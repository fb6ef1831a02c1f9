//! Building: a file of six stages cold, cached and after an edit; a large context; peak memory meanwhile.
//!
//! Every side builds the same files in its turn, round by round. A step that fails on one side is left out from then on,
//! for that side alone. What the builds made is removed at the end, but for the peers' build caches.
//!
//! What a cold build makes is new each time: a store that finds equal layers would delete one of them, which no first
//! build does, and deleting is slow on some disks.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit};

use crate::cost::{Cost, Costs, cost};
use crate::measure::{Beside, Table, settle};
use crate::peer::Peer;

/// Files of the large context.
const FILES: usize = 20_000;

/// Stages that do not depend on each other make files, another one compiles the sources, the last one collects. `MARK` is
/// something else each time.
const DOCKERFILE: &str = r#"FROM busybox AS base
RUN mkdir -p /work /out && echo MARK > /out/mark && adduser -D -H builder 2>/dev/null || true
WORKDIR /work

FROM base AS deps-a
RUN i=0; while [ $i -lt 400 ]; do echo "a $i MARK" > /out/a$i; i=$((i+1)); done
RUN dd if=/dev/zero bs=1M count=24 2>/dev/null | sha256sum > /out/a.sum

FROM base AS deps-b
RUN i=0; while [ $i -lt 400 ]; do echo "b $i MARK" > /out/b$i; i=$((i+1)); done
RUN dd if=/dev/zero bs=1M count=24 2>/dev/null | md5sum > /out/b.sum

FROM base AS docs
COPY docs /work/docs
RUN cat docs/* | wc > /out/docs

FROM base AS compile
COPY --from=deps-a /out /work/deps
COPY src /work/src
RUN for f in src/*; do sha256sum $f; done > /out/objects && tar -cf - src deps | gzip -1 > /out/program

FROM base
COPY --from=compile /out /app
COPY --from=deps-b /out /app/b
COPY --from=docs /out/docs /app/docs
ENV MODE=production
USER 65534
CMD ["/bin/sh", "-c", "cat /app/objects"]
"#;

/// What is built, and with what aim beside the best peer.
const STEPS: [(&str, Option<f64>); 4] = [
    ("build of six stages: cold", None),
    ("build of six stages: nothing changed", Some(0.2)),
    ("build of six stages: one source changed", None),
    ("build, 20000 files, nothing changed", None),
];

/// One side, with what its builds have cost.
struct Side<'a> {
    peer: &'a Peer,
    steps: [Costs; STEPS.len()],
    failed: [bool; STEPS.len()],
    images: BTreeSet<String>,
}

/// All of it.
pub(crate) fn run(table: &mut Table, muster: &Peer, peers: &[&Peer], rounds: usize) {
    let mut sides: Vec<Side<'_>> = std::iter::once(muster)
        .chain(peers.iter().copied())
        .map(|peer| Side {
            peer,
            steps: Default::default(),
            failed: [false; STEPS.len()],
            images: BTreeSet::new(),
        })
        .collect();
    // The first one warms up. No two runs have the same edits, which a cache may have kept.
    for round in 0..=rounds {
        for side in &mut sides {
            let contents = project(side.peer, round);
            let Some(context) = noted(table, side.peer, "builds", contents) else {
                side.failed = [true; STEPS.len()];
                continue;
            };
            let kept = round > 0;
            side.build(table, 0, &context, &["--no-cache"], kept);
            side.build(table, 1, &context, &[], kept);
            let edit = format!("changed in round {round} of {}\n", std::process::id());
            let edited = side.peer.file("bench-build/src/s7.c", &edit);
            if noted(table, side.peer, "an edit", edited).is_some() {
                side.build(table, 2, &context, &[], kept);
            }
            settle();
        }
    }
    for side in &mut sides {
        let contents = large_context(side.peer);
        let Some(context) = noted(table, side.peer, STEPS[3].0, contents) else {
            continue;
        };
        for round in 0..=rounds {
            side.build(table, 3, &context, &[], round > 0);
        }
    }
    for (step, (what, aim)) in STEPS.into_iter().enumerate() {
        let line = Line {
            what,
            unit: "ms",
            aim,
        };
        show(table, line, &sides, |steps| &steps[step].milliseconds);
    }
    for (step, what) in [
        (0, "  six stages, cold: peak memory"),
        (3, "  20000 files: peak memory"),
    ] {
        let line = Line {
            what,
            unit: "MiB",
            aim: None,
        };
        show(table, line, &sides, |steps| &steps[step].peak_mib);
    }
    for side in &sides {
        noted(table, side.peer, "cleaning up", side.clean());
    }
}

/// The head of a line of the table.
struct Line {
    what: &'static str,
    unit: &'static str,
    aim: Option<f64>,
}

fn show(table: &mut Table, line: Line, sides: &[Side<'_>], values: impl Fn(&[Costs]) -> &Vec<f64>) {
    let (muster, peers) = sides.split_first().expect("muster is a side");
    let beside = |side: &Side<'_>| Beside {
        name: side.peer.name(),
        how: "",
        values: values(&side.steps).clone(),
        all: true,
    };
    let beside = peers.iter().map(beside).collect();
    table.compare(
        line.what,
        line.unit,
        values(&muster.steps),
        beside,
        line.aim,
    );
}

/// What failed is told and is nothing.
fn noted<T>(table: &mut Table, peer: &Peer, what: &str, done: anyhow::Result<T>) -> Option<T> {
    done.map_err(|error| table.left_out(&format!("{}: {what}", peer.name()), &format!("{error:#}")))
        .ok()
}

impl Side<'_> {
    /// One build, unless this step has failed before.
    fn build(&mut self, table: &mut Table, step: usize, context: &str, flags: &[&str], kept: bool) {
        if self.failed[step] {
            return;
        }
        let built = self.cost(context, flags);
        self.failed[step] = built.is_err();
        let cost = noted(table, self.peer, STEPS[step].0, built);
        if let Some(cost) = cost.filter(|_| kept) {
            self.steps[step].push(cost);
        }
    }

    fn cost(&mut self, context: &str, flags: &[&str]) -> anyhow::Result<Cost> {
        let tag = tag(context);
        let mut command = self.peer.command(&["build", "-q", "-t", &tag]);
        command.args(flags).args(limits(self.peer)).arg(context);
        let cost = cost(self.peer, command)?;
        let id = self
            .peer
            .run(&["image", "inspect", "--format", "{{.Id}}", &tag])?;
        self.images.insert(id.trim().to_owned());
        Ok(cost)
    }

    /// Removes the images and the files.
    fn clean(&self) -> anyhow::Result<()> {
        for name in ["bench-build", "bench-context"] {
            let (outside, _) = self.peer.place(name);
            match std::fs::remove_dir_all(&outside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", outside.display()));
                }
                _ => {}
            }
        }
        if self.images.is_empty() {
            return Ok(());
        }
        let mut remove = vec!["rmi", "-f"];
        remove.extend(self.images.iter().map(String::as_str));
        self.peer.run(&remove).map(drop)
    }
}

/// Podman gives steps higher limits than its own unless told, which without `CAP_SYS_RESOURCE` is not allowed.
fn limits(peer: &Peer) -> Vec<String> {
    if peer.name() != "podman" {
        return Vec::new();
    }
    let kinds = [
        ("nofile", Resource::RLIMIT_NOFILE),
        ("nproc", Resource::RLIMIT_NPROC),
    ];
    let known = kinds.into_iter().filter_map(|(name, kind)| {
        let (_, hard) = getrlimit(kind).ok()?;
        let number = i64::try_from(hard).unwrap_or(-1);
        Some(format!("--ulimit={name}={number}:{number}"))
    });
    known.collect()
}

/// The project in a directory of one side; its path as that side sees it.
fn project(peer: &Peer, round: usize) -> anyhow::Result<String> {
    for number in 0..60 {
        let mut text = String::new();
        for line in 0..200 {
            writeln!(text, "line {line} of source {number}")?;
        }
        peer.file(&format!("bench-build/src/s{number}.c"), &text)?;
        peer.file(&format!("bench-build/docs/d{number}.md"), &text)?;
    }
    let mark = format!("{round} of {}", std::process::id());
    let dockerfile = DOCKERFILE.replace("MARK", &mark);
    directory(peer.file("bench-build/Dockerfile", &dockerfile))
}

/// A context of many files.
fn large_context(peer: &Peer) -> anyhow::Result<String> {
    for number in 0..FILES {
        let name = format!("bench-context/d{}/f{number}", number % 100);
        peer.file(&name, &format!("file {number}\n"))?;
    }
    directory(peer.file("bench-context/Dockerfile", "FROM busybox\nCOPY . /src\n"))
}

fn directory(dockerfile: anyhow::Result<String>) -> anyhow::Result<String> {
    let suffix = "/Dockerfile";
    dockerfile.map(|path| path.trim_end_matches(suffix).to_owned())
}

/// An image is called like its context.
fn tag(context: &str) -> String {
    let last = context.rsplit('/').next();
    last.unwrap_or(context).to_owned()
}
