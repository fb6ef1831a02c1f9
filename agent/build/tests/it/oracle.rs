//! Well-formed Dockerfiles read by this parser and by an independent one: both must see the same instructions.

use agent_build::dockerfile::{Dockerfile, Instruction, Kind, SourcesAndDest};
use parse_dockerfile as other;
use proptest::prelude::*;

/// What is compared of an instruction.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    line: usize,
    keyword: String,
    parts: Vec<String>,
}

fn ours(text: &str) -> Vec<Seen> {
    let dockerfile =
        Dockerfile::parse(text, "Dockerfile").unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut seen = Vec::new();
    for global in &dockerfile.global_args {
        seen.push(our_instruction(&global.instruction));
    }
    for stage in &dockerfile.stages {
        let platform = stage.platform.iter().map(|p| format!("--platform={p}"));
        let name = stage.name_as_written.clone();
        seen.push(Seen {
            line: stage.lines.first as usize,
            keyword: "FROM".into(),
            parts: platform.chain([stage.base.clone()]).chain(name).collect(),
        });
        seen.extend(stage.instructions.iter().map(our_instruction));
    }
    seen
}

fn our_instruction(instruction: &Instruction) -> Seen {
    let parts = match &instruction.kind {
        Kind::Copy(copy) => copy
            .from
            .iter()
            .map(|from| format!("--from={from}"))
            .chain(copy.link.then(|| "--link".into()))
            .chain(our_paths(&copy.paths))
            .collect(),
        Kind::Run(run) => {
            let form = if run.command.shell { "shell" } else { "exec" };
            let mounts = run.mounts.iter().map(|m| format!("--mount={m}"));
            let exec = run
                .command
                .args
                .iter()
                .filter(|_| !run.command.shell)
                .cloned();
            let files = run.command.files.iter();
            mounts
                .chain([form.to_string()])
                .chain(exec)
                .chain(files.map(|f| format!("<<{}", f.data)))
                .collect()
        }
        Kind::Volume(list) | Kind::Shell(list) => list.clone(),
        Kind::User(one) | Kind::Workdir(one) | Kind::StopSignal(one) => vec![one.clone()],
        Kind::Healthcheck(check) => check.test.iter().take(1).cloned().collect(),
        _ => Vec::new(),
    };
    Seen {
        line: instruction.lines.first as usize,
        keyword: instruction.keyword.to_uppercase(),
        parts,
    }
}

fn our_paths(paths: &SourcesAndDest) -> Vec<String> {
    let bodies = paths.contents.iter();
    bodies
        .map(|c| format!("<<{} {}", c.expand, c.data))
        .chain(paths.paths.iter().cloned())
        .chain([paths.dest.clone()])
        .collect()
}

fn theirs(text: &str) -> Vec<Seen> {
    let dockerfile = other::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let line = |start: usize| text[..start].matches('\n').count() + 1;
    dockerfile
        .instructions
        .iter()
        .map(|instruction| {
            let (span, parts) = their_parts(instruction);
            Seen {
                line: line(span.start),
                keyword: text[span].to_uppercase(),
                parts,
            }
        })
        .collect()
}

fn their_flags(flags: &[other::Flag<'_>]) -> Vec<String> {
    let shown = |flag: &other::Flag<'_>| match &flag.value {
        Some(value) => format!("--{}={}", flag.name.value, value.value),
        None => format!("--{}", flag.name.value),
    };
    flags.iter().map(shown).collect()
}

fn their_parts(instruction: &other::Instruction<'_>) -> (other::Span, Vec<String>) {
    use other::Instruction as I;
    match instruction {
        I::From(from) => {
            let mut parts = their_flags(&from.options);
            parts.push(from.image.value.to_string());
            parts.extend(from.as_.iter().map(|(_, name)| name.value.to_string()));
            (from.from.span.clone(), parts)
        }
        I::Copy(copy) => {
            let mut parts = their_flags(&copy.options);
            // Bodies first, as ours keeps them apart.
            parts.extend(copy.src.iter().filter_map(|source| match source {
                other::Source::HereDoc(doc) => Some(format!("<<{} {}", doc.expand, doc.value)),
                _ => None,
            }));
            parts.extend(copy.src.iter().filter_map(|source| match source {
                other::Source::Path(path) => Some(path.value.to_string()),
                _ => None,
            }));
            parts.push(copy.dest.value.to_string());
            (copy.copy.span.clone(), parts)
        }
        I::Run(run) => {
            let mut parts = their_flags(&run.options);
            match &run.arguments {
                other::Command::Exec(list) => {
                    parts.push("exec".into());
                    parts.extend(list.value.iter().map(|arg| arg.value.to_string()));
                }
                _ => parts.push("shell".into()),
            }
            parts.extend(run.here_docs.iter().map(|doc| format!("<<{}", doc.value)));
            (run.run.span.clone(), parts)
        }
        I::Volume(volume) => {
            let list = match &volume.arguments {
                other::JsonOrStringArray::Json(list) => &list.value,
                other::JsonOrStringArray::String(list) => list,
            };
            let parts = list.iter().map(|v| v.value.to_string()).collect();
            (volume.volume.span.clone(), parts)
        }
        I::Shell(shell) => {
            let parts = shell.arguments.iter().map(|a| a.value.to_string());
            (shell.shell.span.clone(), parts.collect())
        }
        I::User(user) => (
            user.user.span.clone(),
            vec![user.arguments.value.to_string()],
        ),
        I::Workdir(dir) => (
            dir.workdir.span.clone(),
            vec![dir.arguments.value.to_string()],
        ),
        I::Stopsignal(signal) => (
            signal.stopsignal.span.clone(),
            vec![signal.arguments.value.to_string()],
        ),
        I::Healthcheck(check) => {
            let kind = match &check.arguments {
                other::HealthcheckArguments::None { .. } => "NONE",
                other::HealthcheckArguments::Cmd { arguments, .. } => match arguments {
                    other::Command::Exec(_) => "CMD",
                    _ => "CMD-SHELL",
                },
                other => panic!("a new kind: {other:?}"),
            };
            (check.healthcheck.span.clone(), vec![kind.into()])
        }
        I::Add(i) => (i.add.span.clone(), Vec::new()),
        I::Arg(i) => (i.arg.span.clone(), Vec::new()),
        I::Cmd(i) => (i.cmd.span.clone(), Vec::new()),
        I::Entrypoint(i) => (i.entrypoint.span.clone(), Vec::new()),
        I::Env(i) => (i.env.span.clone(), Vec::new()),
        I::Expose(i) => (i.expose.span.clone(), Vec::new()),
        I::Label(i) => (i.label.span.clone(), Vec::new()),
        I::Maintainer(i) => (i.maintainer.span.clone(), Vec::new()),
        I::Onbuild(i) => (i.onbuild.span.clone(), Vec::new()),
        other => panic!("a new instruction: {other:?}"),
    }
}

/// What stands between two words: a space, or a continuation with a comment in it.
fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(" "),
        2 => Just(" \\\n  "),
        1 => Just(" \\  \n# comment \\\n\t"),
        1 => Just(" \\\n  # one\n# two\n "),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9/._-]{0,6}"
}

/// An instruction's line(s): keyword in any case, then words with gaps.
fn spaced(
    keyword: &'static str,
    words: impl Strategy<Value = Vec<String>>,
) -> impl Strategy<Value = String> {
    let gaps = prop::collection::vec(gap(), 12);
    (any::<bool>(), words, gaps).prop_map(move |(lower, words, gaps)| {
        let keyword = if lower {
            keyword.to_lowercase()
        } else {
            keyword.to_string()
        };
        let rest = words
            .iter()
            .zip(gaps)
            .map(|(word, gap)| format!("{gap}{word}"));
        format!("{keyword}{}\n", rest.collect::<String>())
    })
}

fn words(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), count)
}

fn json(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
    words(count).prop_map(|words| vec![format!("[\"{}\"]", words.join("\", \""))])
}

/// Words behind flags.
fn flagged(
    flags: &'static [&'static str],
    words: impl Strategy<Value = Vec<String>>,
) -> impl Strategy<Value = Vec<String>> {
    let chosen = prop::sample::subsequence(flags, 0..=flags.len());
    (chosen, words).prop_map(|(flags, words)| {
        let flags = flags.into_iter().map(String::from);
        flags.chain(words).collect()
    })
}

fn from() -> impl Strategy<Value = String> {
    let names = (word(), prop::option::of("[a-z][a-z0-9_.-]{0,5}"));
    let words = names.prop_map(|(image, name)| match name {
        Some(name) => vec![image, "AS".into(), name],
        None => vec![image],
    });
    spaced("FROM", flagged(&["--platform=$BUILDPLATFORM"], words))
}

/// In front of the line only: the other parser does not know `RUN cat <<EOF`.
fn heredoc() -> impl Strategy<Value = String> {
    let body = prop::collection::vec("[a-z# \\\\$\"'<]{0,10}", 0..3);
    let intro = prop::sample::select(vec!["RUN <<", "COPY <<"]);
    let name = prop::sample::select(vec!["EOF", "-EOF", "'EOF'", "-\"EOF\""]);
    (intro, name, body).prop_map(|(intro, name, body)| {
        let dest = if intro.starts_with("COPY") {
            " /dest"
        } else {
            ""
        };
        let body: String = body.iter().map(|line| format!("{line}\n")).collect();
        format!("{intro}{name}{dest}\n{body}EOF\n")
    })
}

fn instruction() -> impl Strategy<Value = String> {
    let pairs = || words(1..4).prop_map(|w| w.iter().map(|w| format!("{w}=x")).collect::<Vec<_>>());
    let mounts = &["--mount=type=cache,target=/c", "--mount=target=/s"];
    prop_oneof![
        spaced("RUN", flagged(mounts, words(1..5))),
        spaced("RUN", flagged(mounts, json(1..4))),
        spaced("COPY", flagged(&["--from=base", "--link"], words(2..5))),
        spaced("COPY", flagged(&["--from=base", "--link"], json(2..5))),
        spaced("ADD", words(2..4)),
        spaced("ENV", pairs()),
        spaced("LABEL", pairs()),
        spaced("ARG", words(1..2)),
        spaced("CMD", words(1..4)),
        spaced("ENTRYPOINT", json(1..4)),
        spaced("VOLUME", words(1..3)),
        spaced("VOLUME", json(1..3)),
        spaced("SHELL", json(1..3)),
        spaced("USER", words(1..2)),
        spaced("WORKDIR", words(1..2)),
        spaced("STOPSIGNAL", words(1..2)),
        spaced("EXPOSE", prop::collection::vec("[1-9][0-9]{1,3}", 1..3)),
        spaced(
            "HEALTHCHECK",
            words(1..3).prop_map(|w| [vec!["CMD".into()], w].concat())
        ),
        Just("HEALTHCHECK NONE\n".to_string()),
        spaced(
            "ONBUILD",
            words(1..3).prop_map(|w| [vec!["RUN".into()], w].concat())
        ),
        heredoc(),
        Just("# a comment\n".to_string()),
        Just("\n".to_string()),
        from(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn both_parsers_see_the_same(
        first in from(),
        rest in prop::collection::vec(instruction(), 0..8),
    ) {
        let text = format!("ARG version=1\n{first}{}", rest.concat());
        prop_assert_eq!(ours(&text), theirs(&text), "{}", text);
    }
}

#[test]
fn a_real_file_is_seen_the_same() {
    let text = "# syntax=docker/dockerfile:1\n\
        ARG GO=1.24\n\n\
        FROM --platform=$BUILDPLATFORM golang:${GO} AS build\n\
        WORKDIR /src\n\
        RUN --mount=target=. --mount=type=cache,target=/root/.cache \\\n    # quick\n    go build -o /out ./...\n\
        FROM scratch\n\
        COPY --from=build --link /out /\n\
        COPY <<-\"EOF\" /etc/motd\n\thello $USER\n\tEOF\n\
        HEALTHCHECK --interval=5s CMD [\"/probe\"]\n\
        ENTRYPOINT [\"/app\"]\n";
    let seen = ours(text);
    assert_eq!(seen, theirs(text));
    assert_eq!(seen.len(), 9);
}
