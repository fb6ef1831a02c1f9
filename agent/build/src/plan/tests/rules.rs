//! One test per rule: arguments, variables, stages, triggers, mounts, copies.

use super::*;

#[test]
fn arguments_before_from_are_seen_by_from_and_by_stages_that_declare_them() {
    let text = "ARG A=1\nARG B=${A}2\nFROM base:$B\nARG A\nRUN x\n";
    let plan = planned(text);
    assert!(names(&plan)[0].contains("base:12"), "{plan}");
    assert!(runs(&plan)[0].env.contains(&"A=1".to_owned()));
    assert!(!runs(&plan)[0].env.iter().any(|pair| pair.starts_with("B=")));
    assert_eq!(
        history(&plan),
        ["ARG A=1", "RUN |1 A=1 /bin/sh -c x # buildkit"]
    );

    let plan = planned_with(text, &with_args(&[("A", "9"), ("B", "8")]), &[]).unwrap();
    assert!(names(&plan)[0].contains("base:8"), "{plan}");
    assert!(runs(&plan)[0].env.contains(&"A=9".to_owned()));
}

#[test]
fn a_default_sees_what_is_set_before_it_and_a_given_value_is_not_expanded() {
    let text = "FROM base\nENV E=e\nARG A=$E\nARG B=${A}b C\nRUN x\n";
    let plan = planned_with(text, &with_args(&[("C", "$E")]), &[]).unwrap();
    assert_eq!(history(&plan)[1..3], ["ARG A=e", "ARG B=eb C=$E"]);
}

#[test]
fn env_beats_arg_wherever_it_stands() {
    for text in [
        "FROM base\nARG A=arg\nENV A=env\nRUN x\n",
        "FROM base\nENV A=env\nARG B\nRUN x\n",
    ] {
        let plan = planned(text);
        assert!(runs(&plan)[0].env.contains(&"A=env".to_owned()), "{plan}");
        assert!(env(&plan).contains(&"A=env"));
    }
}

#[test]
fn an_argument_is_not_kept_in_the_image() {
    let plan = planned("FROM base\nARG A=1\nENV B=$A\n");
    assert_eq!(env(&plan), ["PATH=/bin", "B=1"]);
}

#[test]
fn an_instruction_sees_only_what_was_set_before_it() {
    let plan = planned("FROM base\nENV a=1\nENV a=2 b=$a\nENV c=$a\n");
    assert_eq!(env(&plan), ["PATH=/bin", "a=2", "b=1", "c=2"]);
}

#[test]
fn proxies_reach_steps_and_neither_keys_nor_history() {
    let plan = planned_with(
        "FROM base\nRUN x\n",
        &with_args(&[("http_proxy", "p")]),
        &[],
    )
    .unwrap();
    let run = runs(&plan)[0];
    assert_eq!(run.proxy_env, ["HTTP_PROXY=p", "http_proxy=p"]);
    assert!(!run.env.iter().any(|pair| pair.contains("proxy")));
    assert!(
        !String::from_utf8(plan.vertices[1].op.canonical())
            .unwrap()
            .contains("proxy")
    );
    assert_eq!(history(&plan), ["RUN /bin/sh -c x # buildkit"]);
}

#[test]
fn a_declared_proxy_is_an_argument_like_any_other() {
    let text = "FROM base\nARG http_proxy\nRUN x\n";
    let plan = planned_with(text, &with_args(&[("http_proxy", "p")]), &[]).unwrap();
    assert_eq!(
        history(&plan),
        [
            "ARG http_proxy=p",
            "RUN |1 http_proxy=p /bin/sh -c x # buildkit"
        ]
    );
}

#[test]
fn platforms_are_arguments_that_stages_declare() {
    let text = "FROM --platform=$BUILDPLATFORM base AS b\nARG TARGETPLATFORM TARGETARCH BUILDOS TARGETVARIANT TARGETSTAGE\nRUN x\n";
    let options = BuildOptions {
        platform: Some("linux/arm64".parse().unwrap()),
        ..options()
    };
    let plan = planned_with(text, &options, &[]).unwrap();
    assert_eq!(
        history(&plan)[0],
        "ARG TARGETPLATFORM=linux/arm64 TARGETARCH=arm64 BUILDOS=linux TARGETVARIANT= TARGETSTAGE=b"
    );
    let Op::Image(image) = &plan.vertices[0].op else {
        panic!("{plan}")
    };
    assert_eq!(image.platform.to_string(), "linux/amd64");
    assert_eq!(runs(&plan)[0].platform.to_string(), "linux/amd64");
    assert_eq!(
        (
            plan.config.architecture.as_str(),
            plan.platform.to_string().as_str()
        ),
        ("arm64", "linux/arm64")
    );
}

#[test]
fn a_stage_inherits_from_the_stage_it_starts_from() {
    let plan = planned(
        "FROM base AS one\nARG A=1\nENV E=e\nWORKDIR /w\nUSER u\nSHELL [\"/bin/ash\",\"-c\"]\nCMD a\nFROM one\nRUN x $A\n",
    );
    let run = runs(&plan)[0];
    assert_eq!((run.cwd.as_str(), run.user.as_str()), ("/w", "u"));
    assert_eq!(run.args, ["/bin/ash", "-c", "x $A"]);
    assert!(run.env.contains(&"A=1".to_owned()) && run.env.contains(&"E=e".to_owned()));
    assert_eq!(
        *history(&plan).last().unwrap(),
        "RUN |1 A=1 /bin/ash -c x $A # buildkit"
    );
    assert_eq!(plan.config.config.cmd, ["/bin/ash", "-c", "a"]);
    assert_eq!(plan.layers.len(), 2, "{plan}");
}

#[test]
fn only_what_the_target_needs_is_planned_and_resolved() {
    let text = "FROM one AS a\nRUN a\nFROM two AS b\nRUN b\nFROM three AS c\nCOPY --from=a /x /\n";
    let dockerfile = Dockerfile::parse(text, "Dockerfile").unwrap();
    let written = |target: Option<&str>| {
        let options = BuildOptions {
            target: target.map(str::to_owned),
            ..options()
        };
        let missing = bases(&dockerfile, &options, &Bases::default()).unwrap();
        missing
            .into_iter()
            .map(|request| request.written)
            .collect::<Vec<_>>()
    };
    assert_eq!(written(None), ["one", "three"]);
    assert_eq!(written(Some("b")), ["two"]);
    assert_eq!(written(Some("B")), ["two"]);
    let all = BuildOptions {
        all_stages: true,
        ..options()
    };
    assert_eq!(
        bases(&dockerfile, &all, &Bases::default()).unwrap().len(),
        3
    );
    let plan = planned(text);
    assert!(
        !names(&plan).iter().any(|name| name.contains("RUN b")),
        "{plan}"
    );
}

#[test]
fn stages_are_found_by_name_and_number_and_other_names_are_images() {
    let plan = planned(
        "FROM one AS First\nFROM two\nCOPY --from=FIRST /a /\nCOPY --from=0 /b /\nCOPY --from=img:1 /c /\n",
    );
    let sources: Vec<&str> = plan
        .vertices
        .iter()
        .filter(|v| matches!(v.op, Op::Copy(_)))
        .map(|v| plan.vertices[v.inputs[1].0].name.as_str())
        .collect();
    assert!(
        sources[0].contains("one") && sources[1].contains("one"),
        "{plan}"
    );
    assert_eq!(sources[2], "FROM docker.io/library/img:1");
}

#[test]
fn scratch_is_an_empty_file_system() {
    let plan = planned("FROM scratch\nCOPY a /\n");
    assert_eq!((plan.base, plan.layers.len()), (None, 1));
    assert_eq!(copies(&plan)[0].root, None);
    assert_eq!(plan.config.config.working_dir, "/");
    assert_eq!(
        env(&plan),
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    let plan = planned("FROM scratch\nLABEL a=b\n");
    assert_eq!((plan.target, plan.vertices.len()), (None, 0));
}

#[test]
fn an_image_without_layers_is_an_empty_file_system_with_a_configuration() {
    let dockerfile = Dockerfile::parse("FROM empty\nRUN x\n", "Dockerfile").unwrap();
    let request = bases(&dockerfile, &options(), &Bases::default())
        .unwrap()
        .remove(0);
    let mut known = Bases::default();
    known.insert(
        &request,
        BaseImage {
            layers: 0,
            ..image(r#"{"os":"linux","architecture":"amd64","config":{"User":"u"}}"#)
        },
    );
    let plan = plan(&dockerfile, &options(), &known).unwrap();
    assert_eq!((plan.base, runs(&plan)[0].user.as_str()), (None, "u"));
    assert_eq!(names(&plan), ["[1/2] RUN x"]);
}

#[test]
fn a_digest_is_part_of_the_name_that_is_shown() {
    let dockerfile = Dockerfile::parse("FROM base:1\nRUN x\n", "Dockerfile").unwrap();
    let request = bases(&dockerfile, &options(), &Bases::default())
        .unwrap()
        .remove(0);
    assert_eq!(
        request.log_name,
        "[internal] load metadata for docker.io/library/base:1"
    );
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut known = Bases::default();
    known.insert(
        &request,
        BaseImage {
            digest: Some(digest.clone()),
            ..image(BASE)
        },
    );
    let plan = plan(&dockerfile, &options(), &known).unwrap();
    assert_eq!(
        names(&plan)[0],
        format!("[1/2] FROM docker.io/library/base:1@{digest}")
    );
}

const TRIGGERS: &str = r#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"],
    "OnBuild":["COPY --from=tools /t /t","RUN trigger","ENV T=1"]}}"#;

#[test]
fn triggers_run_first_and_are_not_passed_on() {
    let plan = planned_with("FROM trig\nRUN own $T\n", &options(), &[("trig", TRIGGERS)]).unwrap();
    assert!(plan.config.config.on_build.is_empty());
    // What is started from was named before its triggers were known; then all of them are counted, ENV too.
    let steps: Vec<&str> = names(&plan)
        .into_iter()
        .filter(|name| name.starts_with('['))
        .collect();
    assert_eq!(
        steps,
        [
            "[1/2] FROM docker.io/library/trig:latest",
            "[2/5] ONBUILD COPY --from=tools /t /t",
            "[3/5] ONBUILD RUN trigger",
            "[4/5] RUN own 1",
        ]
    );
    let trigger = plan
        .vertices
        .iter()
        .find(|v| v.name.contains("ONBUILD RUN"))
        .unwrap();
    assert_eq!(trigger.lines, Lines::one(1));
}

#[test]
fn images_named_by_triggers_are_asked_for_in_a_second_round() {
    let dockerfile = Dockerfile::parse("FROM trig\n", "Dockerfile").unwrap();
    let mut known = Bases::default();
    let first = bases(&dockerfile, &options(), &known).unwrap();
    known.insert(&first[0], image(TRIGGERS));
    let second = bases(&dockerfile, &options(), &known).unwrap();
    assert_eq!(
        second
            .iter()
            .map(|request| request.written.as_str())
            .collect::<Vec<_>>(),
        ["tools"]
    );
}

#[test]
fn triggers_of_a_stage_run_in_stages_that_start_from_it() {
    let plan = planned("FROM base AS a\nONBUILD RUN t\nRUN a\nFROM a AS b\nRUN b\nFROM b\nRUN c\n");
    let commands: Vec<&str> = runs(&plan).iter().map(|run| run.args[2].as_str()).collect();
    assert_eq!(commands, ["a", "t", "b", "c"]);
    assert_eq!(
        planned("FROM base\nONBUILD RUN t\n").config.config.on_build,
        ["RUN t"]
    );
}

#[test]
fn named_contexts_stand_in_for_images_and_stages() {
    let with = |name: &str, source: ContextSource| BuildOptions {
        contexts: [(name.to_owned(), source)].into(),
        ..options()
    };
    let text = "FROM alpine AS first\nRUN a\nFROM first\nCOPY --from=other /x /\n";
    let plan = planned_with(
        text,
        &with("alpine", ContextSource::Image("busybox:1".into())),
        &[],
    )
    .unwrap();
    assert_eq!(names(&plan)[0], "[context alpine] busybox:1");

    let plan = planned_with(
        text,
        &with("docker.io/library/alpine:latest", ContextSource::Local),
        &[],
    )
    .unwrap();
    assert_eq!(
        plan.vertices[0].op,
        Op::Context(ContextOp {
            name: "docker.io/library/alpine:latest".into()
        })
    );

    let plan = planned_with(
        text,
        &with("first", ContextSource::Image("busybox".into())),
        &[],
    )
    .unwrap();
    assert!(runs(&plan).is_empty(), "{plan}");

    let git = with(
        "other",
        ContextSource::Git("https://h/r.git#main:sub".into()),
    );
    let plan = planned_with(text, &git, &[]).unwrap();
    let Op::Git(op) = &plan
        .vertices
        .iter()
        .find(|v| matches!(v.op, Op::Git(_)))
        .unwrap()
        .op
    else {
        panic!()
    };
    assert_eq!(
        (
            op.remote.as_str(),
            op.reference.as_str(),
            op.subdirectory.as_str()
        ),
        ("https://h/r.git", "main", "sub")
    );

    let plan = planned_with(
        text,
        &with("other", ContextSource::Http("https://h/x.tgz".into())),
        &[],
    )
    .unwrap();
    assert!(
        plan.vertices
            .iter()
            .any(|v| matches!(&v.op, Op::Http(op) if op.file_name == "context"))
    );

    let plan = planned_with(text, &with("other", ContextSource::Local), &[]).unwrap();
    let local = Op::Context(ContextOp {
        name: "other".to_owned(),
    });
    assert!(plan.vertices.iter().any(|vertex| vertex.op == local));

    let only = with(
        "alpine::linux/arm64",
        ContextSource::Image("busybox".into()),
    );
    assert!(names(&planned_with(text, &only, &[]).unwrap())[0].contains("alpine"));
}

#[test]
fn a_command_is_run_by_the_shell_or_as_it_is_written() {
    for (line, args) in [
        ("RUN a  b", vec!["/bin/sh", "-c", "a  b"]),
        (r#"RUN ["a", "b c"]"#, vec!["a", "b c"]),
        ("RUN <<EOF\na\nb\nEOF", vec!["/bin/sh", "-c", "a\nb\n"]),
        ("RUN <<-EOF\n\ta\nEOF", vec!["/bin/sh", "-c", "a\n"]),
        (
            "RUN <<EOF\n#!/bin/x\na\nEOF",
            vec!["/bin/sh", "-c", "/dev/pipes/EOF"],
        ),
        (
            "RUN cat <<A <<B\na\nA\nb\nB",
            vec!["/bin/sh", "-c", "cat <<A <<B\na\nA\nb\nB"],
        ),
        ("SHELL [\"/x\"]\nRUN a", vec!["/x", "a"]),
    ] {
        let plan = planned(&format!("FROM base\n{line}\n"));
        assert_eq!(runs(&plan)[0].args, args, "{line}");
    }
    let plan = planned("FROM base\nRUN <<EOF\n#!/bin/x\na\nEOF\n");
    assert_eq!(
        runs(&plan)[0].mounts,
        [RunMount {
            target: Some("/dev/pipes/".into()),
            kind: MountKind::Script {
                name: "EOF".into(),
                content: "#!/bin/x\na\n".into()
            },
        }]
    );
}

fn mounts(lines: &str) -> Vec<RunMount> {
    runs(&planned(&format!(
        "FROM base AS other\nFROM base\nWORKDIR /w\nARG v=/val\n{lines}\n"
    )))[0]
        .mounts
        .clone()
}

#[test]
fn mounts_are_read_with_variables_and_defaults() {
    let bind = |from: usize, source: &str, writable| MountKind::Bind {
        from: Some(InputIndex(from)),
        source: source.into(),
        writable,
    };
    for (flags, target, kind) in [
        ("--mount=target=/t", "/t", bind(1, "/", false)),
        (
            "--mount=type=bind,target=t,source=a/../b",
            "/w/t",
            bind(1, "/b", false),
        ),
        ("--mount=target=$v,rw", "/val", bind(1, "/", true)),
        (
            "--mount=from=other,source=/x,target=/t/",
            "/t",
            bind(1, "/x", false),
        ),
        (
            "--mount=type=tmpfs,target=/t,size=1m",
            "/t",
            MountKind::Tmpfs {
                size_bytes: Some(1 << 20),
            },
        ),
        (
            "--mount=type=tmpfs,target=/t",
            "/t",
            MountKind::Tmpfs { size_bytes: None },
        ),
        (
            "--mount=type=cache,target=/t/,sharing=locked",
            "/t",
            MountKind::Cache {
                id: "/".to_owned() + "/t",
                sharing: CacheSharing::Locked,
                from: None,
                source: "/".into(),
                ownership: None,
                read_only: false,
            },
        ),
        (
            "--mount=type=cache,target=/t,id=i,uid=1,mode=0700,ro",
            "/t",
            MountKind::Cache {
                id: "/i".into(),
                sharing: CacheSharing::Shared,
                from: None,
                source: "/".into(),
                ownership: Some(Ownership {
                    uid: 1,
                    gid: 0,
                    mode: 0o700,
                }),
                read_only: true,
            },
        ),
        (
            "--mount=type=cache,target=/t,from=other,source=/seed",
            "/t",
            MountKind::Cache {
                id: "//t".into(),
                sharing: CacheSharing::Shared,
                from: Some(InputIndex(1)),
                source: "/seed".into(),
                ownership: None,
                read_only: false,
            },
        ),
        (
            "--mount=type=secret,id=s",
            "/run/secrets/s",
            MountKind::Secret {
                id: "s".into(),
                env: None,
                required: false,
                ownership: None,
            },
        ),
        (
            "--mount=type=secret,target=/a/b,required,uid=5",
            "/a/b",
            MountKind::Secret {
                id: "b".into(),
                env: None,
                required: true,
                ownership: Some(Ownership {
                    uid: 5,
                    gid: 0,
                    mode: 0o400,
                }),
            },
        ),
        (
            "--mount=type=ssh",
            "/run/buildkit/ssh_agent.0",
            MountKind::Ssh {
                id: "default".into(),
                required: false,
                ownership: None,
            },
        ),
    ] {
        let found = mounts(&format!("RUN {flags} x"));
        assert_eq!(
            found,
            [RunMount {
                target: Some(target.into()),
                kind
            }],
            "{flags}"
        );
    }
}

#[test]
fn a_secret_may_be_a_variable_only() {
    assert_eq!(
        mounts("RUN --mount=type=secret,id=s,env=S x"),
        [RunMount {
            target: None,
            kind: MountKind::Secret {
                id: "s".into(),
                env: Some("S".into()),
                required: false,
                ownership: None
            },
        }]
    );
}

#[test]
fn programs_are_told_of_the_first_agent_unless_they_know_one() {
    let plan = planned("FROM base\nRUN --mount=type=ssh x\n");
    assert!(
        runs(&plan)[0]
            .env
            .contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned())
    );
    let plan = planned("FROM base\nENV SSH_AUTH_SOCK=/x\nRUN --mount=type=ssh,target=/s x\n");
    assert!(runs(&plan)[0].env.contains(&"SSH_AUTH_SOCK=/x".to_owned()));
    assert_eq!(runs(&plan)[0].mounts[0].target.as_deref(), Some("/s"));
}

#[test]
fn mounts_are_made_parents_first() {
    let targets: Vec<_> = mounts("RUN --mount=type=tmpfs,target=/a/b --mount=type=secret,id=s,env=E --mount=type=tmpfs,target=/a x")
        .into_iter().map(|mount| mount.target).collect();
    assert_eq!(
        targets,
        [Some("/a".to_owned()), Some("/a/b".to_owned()), None]
    );
}

#[test]
fn options_reach_every_step() {
    let options = BuildOptions {
        network: NetworkMode::None,
        shm_size_bytes: 7,
        extra_hosts: vec![ExtraHost {
            host: "h".into(),
            address: "1.2.3.4".into(),
        }],
        ulimits: vec![Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: 2,
        }],
        cgroup_parent: Some("/p".into()),
        entitlements: vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure],
        build_args: [
            ("BUILDKIT_CACHE_MOUNT_NS".to_owned(), "ns".to_owned()),
            ("BUILDKIT_SANDBOX_HOSTNAME".to_owned(), "box".to_owned()),
        ]
        .into(),
        ..options()
    };
    let text =
        "FROM base\nRUN x\nRUN --network=host --security=insecure --mount=type=cache,target=/c x\n";
    let plan = planned_with(text, &options, &[]).unwrap();
    let [first, second] = runs(&plan)[..] else {
        panic!("{plan}")
    };
    assert_eq!(
        (first.network, second.network),
        (NetworkMode::None, NetworkMode::Host)
    );
    assert_eq!(
        (first.security, second.security),
        (SecurityMode::Sandbox, SecurityMode::Insecure)
    );
    assert_eq!(
        first.mounts[0].kind,
        MountKind::Tmpfs {
            size_bytes: Some(7)
        }
    );
    assert_eq!(first.hostname.as_deref(), Some("box"));
    assert_eq!(
        (&first.ulimits, &first.extra_hosts),
        (&options.ulimits, &options.extra_hosts)
    );
    assert!(
        second
            .mounts
            .iter()
            .any(|mount| matches!(&mount.kind, MountKind::Cache { id, .. } if id == "ns//c"))
    );
}

#[test]
fn keys_leave_out_what_does_not_change_the_result() {
    let key = |address: &str, id: &str| {
        let options = BuildOptions {
            extra_hosts: vec![ExtraHost {
                host: "h".into(),
                address: address.into(),
            }],
            ..options()
        };
        let text = format!("FROM base\nRUN --mount=type=cache,target=/c,id={id} x\n");
        planned_with(&text, &options, &[]).unwrap().vertices[1]
            .op
            .canonical()
    };
    assert_eq!(key("1.1.1.1", "a"), key("2.2.2.2", "a"));
    assert_ne!(
        key("1.1.1.1", "a"),
        key("1.1.1.1", "b"),
        "another cache mount"
    );
    assert_ne!(key("1.1.1.1", "a"), key("1.1.1.1", "a,sharing=locked"));
    let dockerfile = |text: &str| planned(text).vertices[1].op.canonical();
    assert_ne!(
        dockerfile("FROM base\nRUN x\n"),
        dockerfile("FROM base\nENV A=1\nRUN x\n")
    );
}

#[test]
fn a_directory_is_made_for_workdir_with_the_user_as_owner() {
    let plan = planned("FROM base\nUSER u\nWORKDIR /a/../b\nWORKDIR c\nWORKDIR /\nRUN x\n");
    let made: Vec<(&str, Option<&str>)> = plan
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::MakeDir(op) => Some((op.path.as_str(), op.owner.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(made, [("/b", Some("u")), ("/b/c", Some("u"))]);
    assert_eq!(
        history(&plan)[1..4],
        ["WORKDIR /a/../b", "WORKDIR /b/c", "WORKDIR /"]
    );
    assert_eq!(plan.layers.len(), 3);
    assert_eq!(
        plan.config
            .history
            .iter()
            .filter(|line| !line.comment.is_empty() && !line.empty_layer)
            .count(),
        3
    );
}

#[test]
fn copies_say_what_is_copied_and_how() {
    let plan = planned(
        "FROM base\nWORKDIR /w\nARG who=7:8\nCOPY --chown=$who --chmod=u+x --exclude=*.o a b/ /c d/\nADD --link x ./\nCOPY --parents a/./b/c d/* e\n",
    );
    let [first, second, third] = copies(&plan)[..] else {
        panic!("{plan}")
    };
    assert_eq!(first.destination, "/w/d/");
    assert_eq!(
        (first.chown.as_deref(), &first.chmod),
        (Some("7:8"), &Some(Chmod::Symbolic("u+x".into())))
    );
    assert_eq!(first.excludes, ["*.o"]);
    let paths = |copy: &CopyOp| -> Vec<(String, Option<String>, Vec<String>, bool)> {
        let path = |source: &CopySource| match source {
            CopySource::Paths {
                path,
                parents,
                required,
                unpack,
                ..
            } => (path.clone(), parents.clone(), required.clone(), *unpack),
            other => panic!("{other:?}"),
        };
        copy.sources.iter().map(path).collect()
    };
    let plain = |path: &str, unpack| (path.to_owned(), None, vec![], unpack);
    assert_eq!(
        paths(first),
        [plain("/a", false), plain("/b", false), plain("/c", false)]
    );
    assert_eq!(
        (paths(second), second.link, second.destination.as_str()),
        (vec![plain("/x", true)], true, "/w/")
    );
    assert_eq!(
        paths(third),
        [
            (
                "/a".to_owned(),
                Some("b/c".to_owned()),
                vec!["/a/b/c".to_owned()],
                false
            ),
            ("/".to_owned(), Some("d/*".to_owned()), vec![], false),
        ]
    );
    assert_eq!(
        history(&plan)[2],
        "COPY --chown=7:8 --chmod=u+x a b/ /c d/ # buildkit"
    );
}

#[test]
fn files_of_heredocs_are_sources_with_variables_unless_quoted() {
    let plan = planned("FROM base\nENV v=x\nCOPY <<a <<\"b\" /d/\n\"$v\"\na\n$v\nb\n");
    assert_eq!(
        copies(&plan)[0].sources,
        [
            CopySource::Inline {
                name: "a".into(),
                content: "\"x\"\n".into()
            },
            CopySource::Inline {
                name: "b".into(),
                content: "$v\n".into()
            },
        ]
    );
    assert_eq!(history(&plan)[1], "COPY <<a <<b /d/ # buildkit");
}

#[test]
fn add_fetches_files_and_repositories() {
    let sum = format!("sha256:{}", "a".repeat(64));
    let plan = planned(&format!(
        "FROM base\nADD --checksum={sum} https://h/a.tgz /\nADD --unpack=true https://h/b.tgz /\nADD --keep-git-dir=true https://h/r.git#v1 /r\n"
    ));
    let remote: Vec<&Op> = plan
        .vertices
        .iter()
        .map(|v| &v.op)
        .filter(|op| matches!(op, Op::Http(_) | Op::Git(_)))
        .collect();
    let http = |url: &str, name: &str, sum: Option<String>| {
        Op::Http(HttpOp {
            url: url.into(),
            file_name: name.into(),
            checksum: sum,
        })
    };
    assert_eq!(
        remote,
        [
            &http("https://h/a.tgz", "a.tgz", Some(sum)),
            &http("https://h/b.tgz", "b.tgz", None),
            &Op::Git(GitOp {
                remote: "https://h/r.git".into(),
                reference: "v1".into(),
                subdirectory: String::new(),
                keep_git_dir: true,
                submodules: true,
                checksum: None
            }),
        ]
    );
    let unpack: Vec<bool> = copies(&plan)
        .iter()
        .filter_map(|copy| match &copy.sources[0] {
            CopySource::Http { unpack, .. } => Some(*unpack),
            _ => None,
        })
        .collect();
    assert_eq!(unpack, [false, true]);
}

#[test]
fn link_with_chmod_is_a_plain_copy() {
    assert!(!copies(&planned("FROM base\nCOPY --link --chmod=700 a /\n"))[0].link);
}

#[test]
fn an_entrypoint_drops_inherited_arguments_only() {
    for (lines, cmd) in [
        ("ENTRYPOINT [\"e\"]", vec![]),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", vec!["c"]),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]", vec!["c"]),
        ("LABEL a=b", vec!["sh"]),
    ] {
        assert_eq!(
            planned(&format!("FROM base\n{lines}\n")).config.config.cmd,
            cmd,
            "{lines}"
        );
    }
}

#[test]
fn labels_of_the_request_come_over_those_of_the_file() {
    let options = BuildOptions {
        labels: [("a".to_owned(), "option".to_owned())].into(),
        ..options()
    };
    let plan = planned_with("FROM base\nLABEL a=file b=\"x y\"\n", &options, &[]).unwrap();
    let labels: Vec<(&str, &str)> = plan
        .config
        .config
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, [("a", "option"), ("b", "x y")]);
    assert_eq!(history(&plan), ["LABEL a=file b=x y"]);
}

#[test]
fn a_fixed_time_is_told_to_history_and_directories() {
    let text = "FROM base\nWORKDIR /w\n";
    let plan = planned_with(
        text,
        &with_args(&[("SOURCE_DATE_EPOCH", "1700000000")]),
        &[],
    )
    .unwrap();
    assert_eq!(plan.source_date_epoch, Some(1_700_000_000));
    assert_eq!(
        plan.config.history.last().unwrap().created.as_deref(),
        Some("2023-11-14T22:13:20Z")
    );
    let plan = planned("ARG SOURCE_DATE_EPOCH=5\nFROM base\n");
    assert_eq!(plan.source_date_epoch, Some(5));
}

#[test]
fn equal_steps_are_one() {
    let plan = planned(
        "FROM base AS a\nRUN x\nFROM base AS b\nRUN x\nFROM scratch\nCOPY --from=a /1 /\nCOPY --from=b /2 /\n",
    );
    assert_eq!(runs(&plan).len(), 1, "{plan}");
}

#[test]
fn inputs_come_before_those_who_read_them() {
    let plan = planned(
        "FROM a AS one\nRUN 1\nFROM b AS two\nCOPY --from=one / /\nFROM c\nRUN --mount=from=two,target=/m 3\n",
    );
    for vertex in &plan.vertices {
        assert!(
            vertex.inputs.iter().all(|input| input.0 < vertex.id.0),
            "{plan}"
        );
    }
    assert_eq!(
        plan.vertices.iter().map(|v| v.id.0).collect::<Vec<_>>(),
        (0..plan.vertices.len()).collect::<Vec<_>>()
    );
}

#[test]
fn cached_results_of_chosen_stages_are_not_used() {
    let text = "FROM base AS a\nRUN a\nFROM a\nWORKDIR /w\nRUN b\nCOPY c /\n";
    let no_cache = |no_cache: NoCache| {
        let plan = planned_with(
            text,
            &BuildOptions {
                no_cache,
                ..options()
            },
            &[],
        )
        .unwrap();
        plan.vertices
            .into_iter()
            .filter(|v| v.no_cache)
            .map(|v| v.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(no_cache(NoCache::Nothing), Vec::<String>::new());
    assert_eq!(
        no_cache(NoCache::Stages(vec!["A".into()])),
        ["[a 2/2] RUN a"]
    );
    assert_eq!(no_cache(NoCache::Everything).len(), 3);
}

#[test]
fn what_is_secret_in_an_address_is_in_no_name_and_not_in_the_history() {
    let contexts = [
        ("repo", ContextSource::Git("https://u:hush@h/r.git".into())),
        (
            "file",
            ContextSource::Http("https://u:hush@h/f?sig=hush".into()),
        ),
    ];
    let options = BuildOptions {
        contexts: contexts
            .map(|(name, source)| (name.to_owned(), source))
            .into(),
        ..options()
    };
    let text = "FROM base\nARG T=hush\nENV N=1\n\
                ADD https://u:$T@h/a https://h/b?token=hush /to/\n\
                ADD [\"https://u:hush@h/c.git#v1\", \"/to\"]\n\
                COPY --from=repo / /r\nCOPY --from=file / /f\n";
    let plan = planned_with(text, &options, &[]).unwrap();
    for shown in names(&plan).iter().chain(&history(&plan)) {
        assert!(
            !shown.contains("hush") || shown.starts_with("ARG T="),
            "{shown}"
        );
    }
    let fetched = plan.vertices.iter().filter(|vertex| match &vertex.op {
        Op::Http(op) => op.url.contains("hush"),
        Op::Git(op) => op.remote.contains("hush"),
        _ => false,
    });
    assert_eq!(fetched.count(), 5, "{plan}");
}

#[test]
fn another_language_is_refused_also_when_an_argument_asks_for_it() {
    let with = |syntax| {
        planned_with(
            "FROM base\n",
            &with_args(&[("BUILDKIT_SYNTAX", syntax)]),
            &[],
        )
    };
    assert!(with("docker/dockerfile:1").is_ok());
    let error = with("example.com/foo:1").unwrap_err().to_string();
    assert!(
        error.contains("syntax example.com/foo:1 of the build argument BUILDKIT_SYNTAX"),
        "{error}"
    );
}
