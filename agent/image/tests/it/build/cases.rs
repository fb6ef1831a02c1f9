//! `cases/*.txt`: what `COPY`, `ADD` and `WORKDIR` make of trees.
//!
//! The results in `copy.txt` and `archives.txt` were recorded from BuildKit as it is in Docker 28.5.2; those in
//! `link.txt` and `parents.txt` follow its reference, since that Docker has `--parents` only behind a downloaded frontend and
//! treats `--link` as if it were not there. Errors are ours.

use std::path::Path;

use agent_build::dockerfile::Dockerfile;
use agent_build::plan::{BaseImage, Bases, BuildOptions, ImageConfig, Op, bases, plan};
use agent_image::build::{Entry, Stack, View, copy, make_directory};
use tokio_util::sync::CancellationToken;

use super::{Yard, context, make};
use crate::archive::{Tar, gzip};

#[derive(Default)]
struct Case<'a> {
    name: &'a str,
    base: Vec<&'a str>,
    context: Vec<&'a str>,
    run: Vec<&'a str>,
    result: Vec<&'a str>,
    error: Option<&'a str>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name,
                ..Case::default()
            });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        if let Some(error) = line.strip_prefix("error: ") {
            case.error = Some(error);
            continue;
        }
        let Some(line) = line.strip_prefix("  ") else {
            section = line;
            continue;
        };
        match section {
            "base:" => case.base.push(line),
            "context:" => case.context.push(line),
            "run:" => case.run.push(line),
            "result:" => case.result.push(line),
            other => panic!("{}: no section {other}", case.name),
        }
    }
    cases
}

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#;

/// The archive that a line `a PATH MODE KIND` makes.
fn archive(kind: &str) -> Vec<u8> {
    let tar = Tar::new()
        .add("d/", tar::EntryType::Directory, "", b"", |h| {
            h.set_mode(0o750);
            h.set_uid(5);
            h.set_gid(6);
        })
        .file("d/file", "content")
        .symlink("link", "d/file")
        .hard_link("hard", "d/file")
        .file("implied/deep/x", "x")
        .add("su", tar::EntryType::Regular, "", b"su", |h| {
            h.set_mode(0o4755)
        });
    match kind {
        "tar" => tar.end(),
        "tgz" => gzip(&tar.end()),
        // Every byte but one of its checksum is right.
        "damaged" => {
            let mut packed = gzip(&tar.end());
            let checksum = packed.len() - 8;
            packed[checksum] ^= 1;
            packed
        }
        "zst" => ruzstd::encoding::compress_to_vec(
            &tar.end()[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        ),
        // The same as bzip2 and xz wrote it.
        "bz2" => include_bytes!("cases/archive.tar.bz2").to_vec(),
        "xz" => include_bytes!("cases/archive.tar.xz").to_vec(),
        "through" => Tar::new()
            .symlink("abs", "/inside")
            .dir("inside/")
            .file("abs/x", "x")
            .symlink("up", "../../../..")
            .file("up/y", "y")
            .file("../../z", "z")
            .end(),
        "twice" => Tar::new()
            .file("d", "for a moment")
            .dir("d/")
            .file("d/new", "new")
            .end(),
        "gz" => gzip(b"no tar at all"),
        "empty" => Tar::new().end(),
        other => panic!("no archive {other}"),
    }
}

/// Runs the steps of a case on its base. What the steps above it see of files is kept, step by step.
fn run(yard: &Yard, case: &Case<'_>) -> Result<Stack, String> {
    let root = tempfile::tempdir().unwrap();
    for line in &case.context {
        match line.strip_prefix("a ") {
            Some(line) => {
                let words: Vec<&str> = line.split(' ').collect();
                std::fs::write(root.path().join(words[0]), archive(words[2])).unwrap();
                make_mode(&root.path().join(words[0]), words[1]);
            }
            None => make(root.path(), line, false),
        }
    }
    let mut text = String::from(if case.base.is_empty() {
        "FROM scratch\n"
    } else {
        "FROM base\n"
    });
    text.extend(case.run.iter().flat_map(|line| [line, "\n"]));
    let base = Stack {
        entries: match case.base.is_empty() {
            true => Vec::new(),
            false => vec![yard.snapshot(|diff| {
                case.base.iter().for_each(|line| make(diff, line, true));
            })],
        },
    };
    let ignore = std::fs::read(root.path().join(".dockerignore")).unwrap_or_default();
    let ignore = agent_build::ignore::read(&ignore).unwrap();
    let ignore: Vec<&str> = ignore.iter().map(String::as_str).collect();
    let dockerfile = Dockerfile::parse(&text, "Dockerfile").map_err(|e| e.to_string())?;
    let options = BuildOptions {
        build_platform: Some("linux/amd64".parse().unwrap()),
        ..BuildOptions::default()
    };
    let mut known = Bases::default();
    for request in bases(&dockerfile, &options, &known).map_err(|e| e.to_string())? {
        let image = BaseImage {
            id: "base".to_owned(),
            digest: None,
            layers: 1,
            config: ImageConfig::from_json(CONFIG.as_bytes()).unwrap(),
        };
        known.insert(&request, image);
    }
    let plan = plan(&dockerfile, &options, &known).map_err(|e| e.to_string())?;
    let cancel = CancellationToken::new();
    let mut done: Vec<(Stack, View)> = Vec::new();
    for vertex in &plan.vertices {
        let inputs: Vec<View> = vertex
            .inputs
            .iter()
            .map(|id| done[id.0].1.clone())
            .collect();
        let below = vertex
            .op
            .root()
            .map(|root| done[vertex.inputs[root.0].0].0.clone());
        let below = below.unwrap_or_default();
        let step = |work: &agent_image::build::Work| match &vertex.op {
            Op::Copy(op) => copy(op, &inputs, work, &cancel),
            Op::MakeDir(op) => make_directory(op, &inputs, work),
            other => panic!("{}: {other:?}", case.name),
        };
        done.push(match &vertex.op {
            Op::Image(_) => (base.clone(), yard.hold(&base).view()),
            Op::Context(_) => (Stack::default(), context(root.path(), &ignore)),
            _ => {
                let work = yard.snapshots.begin().unwrap();
                step(&work).map_err(|e| e.to_string())?;
                let id = yard.snapshots.finish(work).unwrap().id;
                let stack = below.with(Entry::Loose(id));
                let view = yard.hold(&stack).view();
                (stack, view)
            }
        });
    }
    Ok(plan
        .target
        .map_or_else(Stack::default, |target| done[target.0].0.clone()))
}

fn make_mode(path: &Path, mode: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = u32::from_str_radix(mode, 8).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn check(text: &str) {
    let yard = Yard::new();
    let mut wrong = Vec::new();
    for case in cases(text) {
        match (run(&yard, &case), case.error) {
            (Ok(stack), None) => {
                let seen = yard.seen(&stack);
                if seen != case.result {
                    wrong.push(format!(
                        "== {}\nwanted:\n  {}\nfound:\n  {}",
                        case.name,
                        case.result.join("\n  "),
                        seen.join("\n  ")
                    ));
                }
            }
            (Err(error), Some(wanted)) if error == wanted => {}
            (Ok(_), Some(wanted)) => {
                wrong.push(format!("== {}\nwanted the error {wanted}", case.name));
            }
            (Err(error), wanted) => wrong.push(format!(
                "== {}\nwanted {}\nfailed: {error}",
                case.name,
                wanted.unwrap_or("no error")
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn copies_are_those_of_buildkit() {
    check(include_str!("cases/copy.txt"));
}

#[test]
fn links_are_independent_of_what_is_below() {
    check(include_str!("cases/link.txt"));
}

#[test]
fn parents_are_copied_from_the_pivot_on() {
    check(include_str!("cases/parents.txt"));
}

#[test]
fn archives_are_unpacked_by_content() {
    check(include_str!("cases/archives.txt"));
}
