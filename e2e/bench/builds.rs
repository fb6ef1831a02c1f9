//! Building: a file of six stages cold, cached and after an edit; a large context; peak memory of the engine.

use std::fmt::Write as _;

use crate::measure::{Table, milliseconds, settle};
use crate::peer::{Options, Peer};

/// Files of the large context.
const FILES: usize = 20_000;

/// Stages that do not depend on each other make files, another one compiles the sources, the last one collects.
const DOCKERFILE: &str = r#"FROM busybox AS base
RUN mkdir -p /work /out && adduser -D -H builder 2>/dev/null || true
WORKDIR /work

FROM base AS deps-a
RUN i=0; while [ $i -lt 400 ]; do echo "a $i" > /out/a$i; i=$((i+1)); done
RUN dd if=/dev/zero bs=1M count=24 2>/dev/null | sha256sum > /out/a.sum

FROM base AS deps-b
RUN i=0; while [ $i -lt 400 ]; do echo "b $i" > /out/b$i; i=$((i+1)); done
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

/// The project in a directory of one side; its path as that side sees it.
fn project(peer: &Peer) -> anyhow::Result<String> {
    for number in 0..60 {
        let mut text = String::new();
        for line in 0..200 {
            writeln!(text, "line {line} of source {number}")?;
        }
        peer.file(&format!("bench-build/src/s{number}.c"), &text)?;
        peer.file(&format!("bench-build/docs/d{number}.md"), &text)?;
    }
    let dockerfile = peer.file("bench-build/Dockerfile", DOCKERFILE)?;
    Ok(dockerfile.trim_end_matches("/Dockerfile").to_owned())
}

/// Six stages: cold, nothing changed, one source changed. `aims` are ratios, where there are any.
pub(crate) fn stages(
    table: &mut Table,
    name: &'static str,
    muster: &Peer,
    peer: Option<&Peer>,
    rounds: usize,
) -> anyhow::Result<()> {
    let sides: Vec<&Peer> = std::iter::once(muster).chain(peer).collect();
    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    for round in 0..=rounds {
        for (side, peer) in sides.iter().enumerate() {
            let context = project(peer)?;
            let plain = ["build", "-q", "-t", "bench-build", context.as_str()];
            let cold = [
                "build",
                "-q",
                "--no-cache",
                "-t",
                "bench-build",
                context.as_str(),
            ];
            let mut measured = [milliseconds(|| peer.run(&cold))?.0, 0.0, 0.0];
            measured[1] = milliseconds(|| peer.run(&plain))?.0;
            peer.file(
                "bench-build/src/s7.c",
                &format!("changed in round {round}\n"),
            )?;
            measured[2] = milliseconds(|| peer.run(&plain))?.0;
            if round > 0 {
                for (times, time) in times[side].iter_mut().zip(measured) {
                    times.push(time);
                }
            }
            settle();
        }
    }
    let [ours, theirs] = times;
    let names = ["cold", "nothing changed", "one source changed"];
    let aims = [None, Some(0.2), None];
    for (((ours, theirs), what), aim) in ours.into_iter().zip(theirs).zip(names).zip(aims) {
        table.add_beside(
            name,
            format!("build of six stages: {what}"),
            ours,
            theirs,
            aim,
        );
    }
    Ok(())
}

/// A context of many files of which nothing has changed.
pub(crate) fn large_context(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for (side, peer) in [Some(muster), docker].into_iter().enumerate() {
        let Some(peer) = peer else { continue };
        let mut context = String::new();
        for number in 0..FILES {
            let name = format!("bench-context/d{}/f{number}", number % 100);
            context = peer.file(&name, &format!("file {number}\n"))?;
        }
        let _ = context;
        let dockerfile = peer.file("bench-context/Dockerfile", "FROM busybox\nCOPY . /src\n")?;
        let context = dockerfile.trim_end_matches("/Dockerfile").to_owned();
        let build = ["build", "-q", "-t", "bench-context", context.as_str()];
        peer.run(&build)?;
        for _ in 0..rounds {
            times[side].push(milliseconds(|| peer.run(&build))?.0);
        }
    }
    let [ours, theirs] = times;
    table.add(
        format!("build, {FILES} files, nothing changed"),
        "ms",
        ours,
        theirs,
        None,
    );
    Ok(())
}

/// The most memory the engine's processes have had while six stages are built cold.
pub(crate) fn peak(table: &mut Table, muster: &Peer, docker: Option<&Peer>) -> anyhow::Result<()> {
    let mut peaks = [Vec::new(), Vec::new()];
    for (side, peer) in [Some(muster), docker].into_iter().enumerate() {
        let Some(peer) = peer else { continue };
        let context = project(peer)?;
        peer.forget_peaks()?;
        peer.run(&[
            "build",
            "-q",
            "--no-cache",
            "-t",
            "bench-build",
            context.as_str(),
        ])?;
        peaks[side].push(peer.peak_memory()?);
    }
    let [ours, theirs] = peaks;
    table.add(
        "peak memory of the engine, six stages cold",
        "MiB",
        ours,
        theirs,
        None,
    );
    Ok(())
}

/// All of it.
pub(crate) fn run(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    options: &Options,
) -> anyhow::Result<()> {
    let rounds = options.rounds.div_ceil(4);
    stages(table, "docker", muster, docker, rounds)?;
    if let Some(podman) = Peer::podman(options)? {
        match podman.run(&["run", "--rm", "--network", "none", "busybox", "true"]) {
            Ok(_) => stages(table, "podman", muster, Some(&podman), rounds.div_ceil(2))?,
            Err(error) => table.left_out("podman build", &format!("{error:#}")),
        }
    }
    large_context(table, muster, docker, rounds)?;
    peak(table, muster, docker)
}
