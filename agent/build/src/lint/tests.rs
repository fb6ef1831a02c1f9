use super::*;
use crate::dockerfile::Dockerfile;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text, "Dockerfile").unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `Rule: message (line)` of each finding.
fn check(text: &str) -> Vec<String> {
    let dockerfile = parse(text);
    let mut linter = Linter::new(Config::of(&dockerfile).expect("valid"));
    linter.check(&dockerfile);
    linter.found().iter().map(Lint::short).collect()
}

#[test]
fn what_the_text_alone_shows_is_found() {
    let casing = "Command 'Run' should match the case of the command majority";
    let table: &[(&str, &[&str])] = &[
        ("FROM a AS b\nRUN x\n", &[]),
        (
            "FROM a AS B\n",
            &["StageNameCasing: Stage name 'B' should be lowercase (line 1)"],
        ),
        (
            "FROM a as b\n",
            &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
        ),
        (
            "from a AS b\nrun x\n",
            &["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"],
        ),
        // A FROM of mixed case is reported as such, whatever its AS.
        (
            "From a as b\n",
            &[
                "ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase) (line 1)",
            ],
        ),
        (
            "FROM a\nRUN x \\\n\n y\n",
            &["NoEmptyContinuation: Empty continuation line (line 4)"],
        ),
        (
            "FROM a\nRUN x\nRun y\n",
            &[&format!(
                "ConsistentInstructionCasing: {casing} (uppercase) (line 3)"
            )],
        ),
        (
            "from a\nrun x\nRun y\n",
            &[&format!(
                "ConsistentInstructionCasing: {casing} (lowercase) (line 3)"
            )],
        ),
        // As many of one as of the other: upper case.
        (
            "FROM a\nrun x\n",
            &[
                "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)",
            ],
        ),
        (
            "FROM a AS b\nFROM a AS b\n",
            &[
                "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
            ],
        ),
        (
            "FROM a AS scratch\nFROM b AS context\n",
            &[
                "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
                "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 2)",
            ],
        ),
        (
            "FROM a\nMAINTAINER me\n",
            &[
                "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
            ],
        ),
        // Experimental: off unless asked for.
        ("# foo\n\nARG bar\nFROM a\n", &[]),
        (
            "# check=experimental=all\n# foo\nARG bar\n# x\nARG one two\n# y z\nFROM a AS b\n# other\nFROM a\n",
            &[
                "InvalidDefinitionDescription: Comment for ARG should follow the format: `# bar <description>` (line 3)",
                "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 5)",
                "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 7)",
            ],
        ),
        (
            "# check=experimental=all\n# bar it is\nARG bar\n# x\n#\nFROM a AS b\n",
            &[],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(&check(text), expected, "{text}");
    }
}

#[test]
fn rules_are_skipped_for_the_file_or_for_an_instruction() {
    let body = "FROM a AS B\nMAINTAINER me\n";
    let rules = |head: &str| {
        let found = check(&format!("{head}{body}")).into_iter();
        found
            .map(|short| short.split(':').next().unwrap_or_default().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(rules(""), "StageNameCasing MaintainerDeprecated");
    assert_eq!(rules("# check=skip=all\n"), "");
    assert_eq!(
        rules("# check=skip=StageNameCasing\n"),
        "MaintainerDeprecated"
    );
    assert_eq!(
        rules("# check=skip=X, StageNameCasing\n"),
        "StageNameCasing MaintainerDeprecated"
    );
    assert_eq!(
        rules("# check=skip=StageNameCasing,MaintainerDeprecated\n"),
        ""
    );
    // Above an instruction it counts for that one only; as a directive it would be the file's.
    assert_eq!(rules("# x\n# check=skip=all\n"), "MaintainerDeprecated");
    assert_eq!(
        rules("# x\n# check=nonsense\n"),
        "StageNameCasing MaintainerDeprecated"
    );
    assert_eq!(
        rules("# x\n# CHECK = skip=StageNameCasing please\n"),
        "MaintainerDeprecated"
    );
}

#[test]
fn options_are_read_or_refused() {
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let table = [
        ("", Config::default()),
        ("  ", Config::default()),
        (
            "skip=A, B;error=true;experimental=C",
            Config {
                skip: set(&["A", "B"]),
                error: true,
                experimental: set(&["C"]),
                ..Config::default()
            },
        ),
        (
            " skip = all ; experimental=all",
            Config {
                skip_all: true,
                experimental_all: true,
                ..Config::default()
            },
        ),
        ("error=0", Config::default()),
    ];
    for (text, expected) in table {
        assert_eq!(Config::parse(text), Ok(expected), "{text}");
    }
    for (text, message) in [
        ("skip", "invalid check option \"skip\""),
        ("skip=a;foo=b", "invalid check option \"foo\""),
        (
            "error=yes",
            "failed to parse check option \"error=yes\": strconv.ParseBool: parsing \"yes\": invalid syntax",
        ),
    ] {
        assert_eq!(
            Config::parse(text),
            Err(ConfigError(message.into())),
            "{text}"
        );
    }
    let dockerfile = parse("# check=x\nFROM a");
    let error = Config::of(&dockerfile).expect_err("refused");
    assert_eq!(
        error.0,
        "failed to parse check options: invalid check option \"x\""
    );
}

#[test]
fn findings_fail_the_build_when_asked_to() {
    let error = |text| {
        let dockerfile = parse(text);
        let mut linter = Linter::new(Config::of(&dockerfile).expect("valid"));
        linter.check(&dockerfile);
        linter.error()
    };
    assert_eq!(error("FROM a AS B"), None);
    assert_eq!(error("# check=error=true\nFROM a AS b"), None);
    assert_eq!(error("# check=error=true;skip=all\nFROM a AS B"), None);
    assert_eq!(
        error("# check=error=true\nFROM a AS B\nMAINTAINER x\nMAINTAINER y").as_deref(),
        Some("lint violation found for rules: StageNameCasing, MaintainerDeprecated")
    );
}

#[test]
fn messages_of_the_rules_that_planning_raises() {
    let table = [
        (
            finding::json_args_recommended("CMD"),
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ),
        (
            finding::undefined_arg_in_from("foo", None),
            "UndefinedArgInFrom: FROM argument 'foo' is not declared",
        ),
        (
            finding::undefined_arg_in_from("fooo", Some("foo")),
            "UndefinedArgInFrom: FROM argument 'fooo' is not declared (did you mean foo?)",
        ),
        (
            finding::workdir_relative_path("app"),
            "WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes",
        ),
        (
            finding::undefined_var("PAHT", Some("PATH")),
            "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        ),
        (
            finding::multiple_instructions_disallowed("CMD"),
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ),
        (
            finding::legacy_key_value_format("ENV"),
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ),
        (
            finding::invalid_base_image_platform("a", "linux/amd64", "linux/arm64"),
            "InvalidBaseImagePlatform: Base image a was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build",
        ),
        (
            finding::redundant_target_platform("$TARGETPLATFORM"),
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        ),
        (
            finding::secrets_used_in_arg_or_env("ENV", "API_KEY"),
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\")",
        ),
        (
            finding::invalid_default_arg_in_from("a:$V"),
            "InvalidDefaultArgInFrom: Default value for ARG a:$V results in empty or invalid base image name",
        ),
        (
            finding::from_platform_flag_const_disallowed("linux/amd64"),
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
        ),
        (
            finding::copy_ignored_file("Copy", "a/b"),
            "CopyIgnoredFile: Attempting to Copy file \"a/b\" that is excluded by .dockerignore",
        ),
        (
            finding::expose_proto_casing("80/TCP"),
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ),
        (
            finding::expose_invalid_format("1.2.3.4:80:80"),
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:80:80'",
        ),
    ];
    let mut linter = Linter::default();
    for (finding, _) in &table {
        linter.raise(finding.clone(), Lines::default(), &[]);
    }
    let shorts: Vec<String> = linter.found().iter().map(Lint::short).collect();
    assert_eq!(shorts, table.map(|(_, message)| message));
    for lint in linter.found() {
        let has_page = lint.rule != "InvalidBaseImagePlatform";
        assert_eq!(lint.url.starts_with(PAGES), has_page, "{}", lint.rule);
        assert!(!lint.description.is_empty());
    }
}
