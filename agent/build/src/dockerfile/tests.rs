use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text, "Dockerfile").unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The kind of the only instruction after FROM.
fn kind(text: &str) -> Kind {
    let mut dockerfile = parse(&format!("FROM a\n{text}"));
    dockerfile.stages[0].instructions.pop().expect("one").kind
}

fn error(text: &str) -> (String, Option<(u32, u32)>) {
    let error = Dockerfile::parse(text, "Dockerfile").expect_err(text);
    (error.message, error.lines.map(|l| (l.first, l.last)))
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

#[test]
fn stages_have_names_bases_and_platforms() {
    let text = "# check=skip=all;error=true\nARG V=1 \\\n  W\n# build makes it\nFROM --platform=$BUILDPLATFORM golang:$V AS Build\nRUN x\nfrom build\n";
    let dockerfile = parse(text);
    assert_eq!(
        dockerfile.check,
        Some(("skip=all;error=true".into(), Lines::one(1)))
    );
    let [args] = &dockerfile.global_args[..] else {
        panic!("one ARG");
    };
    assert_eq!(args.instruction.lines, Lines::new(2, 3));
    assert_eq!(args.args.len(), 2);
    let [first, second] = &dockerfile.stages[..] else {
        panic!("two stages");
    };
    assert_eq!(first.name.as_deref(), Some("build"));
    assert_eq!(first.name_as_written.as_deref(), Some("Build"));
    assert_eq!(first.description, "makes it");
    assert_eq!(first.base, "golang:$V");
    assert_eq!(first.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(
        first.code,
        "FROM --platform=$BUILDPLATFORM golang:$V AS Build"
    );
    assert_eq!((first.lines, first.instructions.len()), (Lines::one(5), 1));
    assert_eq!(
        (second.keyword.as_str(), second.name.clone()),
        ("from", None)
    );
}

#[test]
fn commands_are_json_or_text() {
    let command = |text| match kind(text) {
        Kind::Cmd(line) | Kind::Entrypoint(line) | Kind::Run(Run { command: line, .. }) => line,
        other => panic!("{other:?}"),
    };
    for (text, args, shell) in [
        ("CMD echo  \"hi\" ", &["echo  \"hi\""][..], true),
        ("CMD [\"echo\", \"hi\"]", &["echo", "hi"], false),
        ("CMD ['echo']", &["['echo']"], true),
        ("CMD", &[], true),
        ("ENTRYPOINT []", &[], false),
        ("RUN --network=none a --b", &["a --b"], true),
    ] {
        let line = command(text);
        assert_eq!((line.args, line.shell), (strings(args), shell), "{text}");
    }
    let line = command("RUN <<A cat <<-B\n1\nA\n\t2\nB");
    assert_eq!(line.args, ["<<A cat <<-B"]);
    assert_eq!(line.files[1].data, "\t2\n");
    assert!(line.files[1].chomp && !line.files[0].chomp);
}

#[test]
fn run_flags_are_typed() {
    let Kind::Run(run) = kind(
        "RUN --mount=target=/a --mount=type=cache,target=$x --network=host --security=insecure x",
    ) else {
        panic!("a RUN");
    };
    assert_eq!(run.mounts, ["target=/a", "type=cache,target=$x"]);
    assert_eq!(
        (run.network, run.security),
        (NetworkMode::Host, SecurityMode::Insecure)
    );
}

#[test]
fn copy_and_add_flags_are_typed() {
    let Kind::Copy(copy) = kind(
        "COPY --from=b --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=x a \"b\" /d/",
    ) else {
        panic!("a COPY");
    };
    assert_eq!(copy.paths.paths, ["a", "\"b\""]);
    assert_eq!(copy.paths.dest, "/d/");
    assert_eq!(copy.exclude, ["*.o", "x"]);
    assert_eq!(
        (copy.from.as_deref(), copy.link, copy.parents),
        (Some("b"), true, true)
    );
    assert_eq!((copy.chown.as_str(), copy.chmod.as_str()), ("1:2", "u+x"));
    let Kind::Add(add) =
        kind("ADD --checksum=sha256:0 --keep-git-dir=false --unpack --link=false [\"a b\", \"c\"]")
    else {
        panic!("an ADD");
    };
    assert_eq!(
        (add.paths.paths, add.paths.dest),
        (strings(&["a b"]), "c".into())
    );
    assert_eq!(
        (add.keep_git_dir, add.unpack, add.link),
        (Some(false), Some(true), false)
    );
    assert_eq!(add.checksum, "sha256:0");
}

#[test]
fn heredoc_sources_become_contents() {
    let Kind::Copy(copy) = kind("COPY <<-one file <<\"two\" /d\n\t1 $x\none\n2 $x\ntwo") else {
        panic!("a COPY");
    };
    let contents: Vec<(&str, &str, bool)> = copy
        .paths
        .contents
        .iter()
        .map(|c| (c.name.as_str(), c.data.as_str(), c.expand))
        .collect();
    assert_eq!(
        contents,
        [("one", "1 $x\n", true), ("two", "2 $x\n", false)]
    );
    assert_eq!(copy.paths.paths, ["file"]);
}

#[test]
fn the_other_instructions_keep_their_words() {
    let pairs = |kind| match kind {
        Kind::Env(pairs) | Kind::Label(pairs) => pairs
            .into_iter()
            .map(|p| {
                format!(
                    "{}={}{}",
                    p.key,
                    p.value,
                    if p.legacy { " old" } else { "" }
                )
            })
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pairs(kind("ENV a=1 b='x y' c=\"$d\"")),
        ["a=1", "b='x y'", "c=\"$d\""]
    );
    assert_eq!(pairs(kind("ENV a  b c=d ")), ["a=b c=d old"]);
    assert_eq!(pairs(kind("LABEL a.b=c\\ d")), ["a.b=c\\ d"]);
    assert_eq!(
        kind("EXPOSE 81 80/udp"),
        Kind::Expose(strings(&["80/udp", "81"]))
    );
    assert_eq!(
        kind("VOLUME [\"/a\", \" /b \"]"),
        Kind::Volume(strings(&["/a", "/b"]))
    );
    assert_eq!(kind("VOLUME /a  /b"), Kind::Volume(strings(&["/a", "/b"])));
    assert_eq!(kind("WORKDIR /a b"), Kind::Workdir("/a b".into()));
    assert_eq!(kind("USER  a:b "), Kind::User("a:b".into()));
    assert_eq!(kind("STOPSIGNAL TERM"), Kind::StopSignal("TERM".into()));
    assert_eq!(kind("MAINTAINER a b"), Kind::Maintainer("a b".into()));
    assert_eq!(
        kind("SHELL [\"a\",\"-c\"]"),
        Kind::Shell(strings(&["a", "-c"]))
    );
    let Kind::Arg(args) = kind("# a is it\n# b too\nARG a b=2 c=\"x y\"") else {
        panic!("an ARG");
    };
    let shown: Vec<String> = args
        .iter()
        .map(|a| format!("{} {:?} {}", a.name, a.value.as_deref(), a.description))
        .collect();
    assert_eq!(
        shown,
        [
            "a None is it",
            "b Some(\"2\") too",
            "c Some(\"\\\"x y\\\"\") "
        ]
    );
}

#[test]
fn health_checks_have_times() {
    let Kind::Healthcheck(check) = kind(
        "HEALTHCHECK --interval=1m --timeout=1.5s --start-period=0s --start-interval=2s --retries=3 CMD curl  -f x",
    ) else {
        panic!("a HEALTHCHECK");
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl  -f x"]);
    assert_eq!(check.interval.as_secs(), 60);
    assert_eq!(check.timeout.as_millis(), 1500);
    assert_eq!(
        (check.start_period.as_secs(), check.start_interval.as_secs()),
        (0, 2)
    );
    assert_eq!(check.retries, 3);
    let test = |text| match kind(text) {
        Kind::Healthcheck(check) => check.test,
        other => panic!("{other:?}"),
    };
    assert_eq!(test("HEALTHCHECK cmd [\"a\", \"b\"]"), ["CMD", "a", "b"]);
    assert_eq!(test("HEALTHCHECK none"), ["NONE"]);
}

#[test]
fn triggers_are_text_until_they_run() {
    let Kind::Onbuild(text) = kind("onbuild   RUN <<A cat\nx\nA") else {
        panic!("an ONBUILD");
    };
    assert_eq!(text, "RUN <<A cat\nx\nA");
    let instruction = parse_trigger(&text, Lines::one(7)).expect("valid");
    let Kind::Run(run) = instruction.kind else {
        panic!("a RUN");
    };
    assert_eq!(
        (run.command.files[0].data.as_str(), instruction.lines),
        ("x\n", Lines::one(7))
    );
    for (text, message) in [
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
        ("RUM a", "unknown instruction: RUM (did you mean RUN?)"),
        ("", "file with no instructions"),
    ] {
        let error = parse_trigger(text, Lines::one(7)).expect_err(text);
        assert_eq!(
            (error.message.as_str(), error.lines),
            (message, Some(Lines::one(7)))
        );
    }
}

#[test]
fn instructions_that_are_wrong_are_refused_in_the_words_of_the_field() {
    let table = [
        ("RUM x", "unknown instruction: RUM (did you mean RUN?)"),
        ("frobnicate", "unknown instruction: frobnicate"),
        ("from a as", "FROM requires either one or three arguments"),
        ("FROM a b c", "FROM requires either one or three arguments"),
        ("FROM", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1x",
            "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --platfrom=x a",
            "unknown flag: --platfrom (did you mean platform?)",
        ),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV --a b=c", "unknown flag: --a"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("ARG --a x", "unknown flag: --a"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY --form=x a b",
            "unknown flag: --form (did you mean from?)",
        ),
        (
            "COPY a <<EOF\nEOF",
            "COPY cannot accept a heredoc as a destination",
        ),
        (
            "ADD a",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("ADD --from=x a b", "unknown flag: --from"),
        (
            "RUN --mount=type=nfs,from=$x y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --network=bridge y", "invalid network mode \"bridge\""),
        ("RUN --security=none y", "security \"none\" is not valid"),
        (
            "RUN --device=gpu y",
            "RUN --device is not supported: devices cannot be given to build steps",
        ),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        (
            "VOLUME [\"\"]",
            "VOLUME specified can not be an empty string",
        ),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        (
            "SHELL sh -c",
            "SHELL requires the arguments to be in JSON form",
        ),
        ("CMD --a b", "unknown flag: --a"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        (
            "ONBUILD ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK foo",
            "Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=-1s CMD x",
            "Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=5 CMD x",
            "time: missing unit in duration \"5\"",
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        (
            "HEALTHCHECK --retries=x CMD x",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ];
    for (text, message) in table {
        let message = format!("dockerfile parse error on line 2: {message}");
        let last = 1 + text.lines().count() as u32;
        assert_eq!(
            error(&format!("FROM a\n{text}")),
            (message, Some((2, last))),
            "{text}"
        );
    }
}

#[test]
fn files_that_are_wrong_are_refused() {
    let table = [
        ("", "the Dockerfile cannot be empty", None),
        ("\n", "file with no instructions", None),
        ("ARG a", "dockerfile contains no stages to build", None),
        (
            "RUN a\nFROM b",
            "no build stage in current context",
            Some((1, 1)),
        ),
        (
            "# syntax=example.com/other:1\nFROM a",
            "syntax example.com/other:1 is not supported: only docker/dockerfile, which is built in",
            Some((1, 1)),
        ),
    ];
    for (text, message, lines) in table {
        assert_eq!(error(text), (message.to_string(), lines), "{text}");
    }
    let overridden = Dockerfile::parse_as(
        "# syntax=example.com/other:1\nFROM a",
        "Dockerfile",
        Some("docker/dockerfile:1"),
    );
    assert!(overridden.is_ok());
    let long = vec![b'#'; MAX_BYTES + 1];
    let error = Dockerfile::parse(&long, "Dockerfile").expect_err("too long");
    assert_eq!(
        error.message,
        "the Dockerfile is longer than 16777216 bytes"
    );
}

/// Lines that look like a Dockerfile's, so that the generator gets somewhere.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "ONBUILD",
        "HEALTHCHECK",
        "SHELL",
        "CMD",
        "EXPOSE",
        "VOLUME",
        "USER",
        "#",
        "# escape=`",
        "",
    ]);
    let rest = "( |--mount=|--from=|<<EOF|<<-|'|\"|\\\\|`|=|\\[|\\]|,|a|\\$|\\PC){0,12}";
    (keyword, rest).prop_map(|(keyword, rest)| format!("{keyword} {rest}\n"))
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Dockerfile::parse(&bytes, "Dockerfile");
    }

    #[test]
    fn any_lines_parse_or_are_refused_inside_of_the_text(lines in prop::collection::vec(line(), 0..8)) {
        let text = format!("FROM a\n{}", lines.concat());
        let count = text.lines().count() as u32;
        let inside = |lines: Lines| lines.first >= 1 && lines.last <= count && lines.first <= lines.last;
        match Dockerfile::parse(&text, "Dockerfile") {
            Ok(dockerfile) => {
                for stage in &dockerfile.stages {
                    prop_assert!(inside(stage.lines));
                    for instruction in &stage.instructions {
                        prop_assert!(inside(instruction.lines));
                        if let Kind::Run(run) = &instruction.kind {
                            for mount in &run.mounts {
                                let _ = Mount::parse(mount, &mut |word| Ok(word.to_string()));
                            }
                        }
                    }
                }
            }
            Err(error) => prop_assert!(error.lines.is_none_or(inside)),
        }
    }
}
