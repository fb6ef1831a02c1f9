//! What cannot be planned, in the words of BuildKit, with the lines to blame.

use super::*;

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (text, message, line) in [
        (
            "FROM a AS x\nCOPY --from=x a b\n",
            "circular dependency detected on stage: x",
            2,
        ),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nCOPY --from=x a b\n",
            "circular dependency detected on stage: x",
            2,
        ),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nFROM x\n",
            "cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
            2,
        ),
        (
            "FROM a AS x\nRUN --mount=from=y,target=/t z\nFROM b AS y\nFROM x\n",
            "cannot mount from stage \"y\" to \"/t\", stage needs to be defined before current command",
            2,
        ),
        ("FROM a\nCOPY --from=5 a b\n", "invalid stage index 5", 2),
        (
            "FROM a\nARG x=1\nCOPY --from=$x a b\n",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as \
             a workaround",
            3,
        ),
        ("ARG x\nFROM $x\n", "base name ($x) should not be blank", 2),
        (
            "FROM UPPER\n",
            "failed to parse stage name \"UPPER\": invalid reference format: repository name (library/UPPER) must be lowercase",
            1,
        ),
        (
            "FROM --platform=$x a\n",
            "empty platform value from expression $x",
            1,
        ),
        (
            "FROM --platform=a/b/c/d a\n",
            "failed to parse platform a/b/c/d: \"a/b/c/d\": cannot parse platform specifier",
            1,
        ),
        (
            "FROM a\nRUN --network=host x\n",
            "network.host is not allowed: build with --allow network.host to permit it",
            2,
        ),
        (
            "FROM a\nRUN --security=insecure x\n",
            "security.insecure is not allowed: build with --allow security.insecure to permit it",
            2,
        ),
        (
            "FROM a\nRUN --mount=type=tmpfs,target=/ x\n",
            "invalid mount target \"/\"",
            2,
        ),
        (
            "FROM a\nRUN --mount=type=ssh,source=/x x\n",
            "ssh does not support source",
            2,
        ),
        ("FROM a\nSTOPSIGNAL SIGNOPE\n", "invalid signal: SIGNOPE", 2),
        ("FROM a\nSTOPSIGNAL 0\n", "invalid signal: 0", 2),
        (
            "FROM a\nVOLUME $x\n",
            "VOLUME specified can not be an empty string",
            2,
        ),
        ("FROM a\nEXPOSE x\n", "invalid containerPort: x", 2),
        (
            "FROM a\nCOPY https://h/x /\n",
            "source can't be a URL for COPY",
            2,
        ),
        (
            "FROM a\nCOPY https://h/x.git /\n",
            "source can't be a git ref for COPY",
            2,
        ),
        (
            "FROM a\nADD --checksum=x a /\n",
            "checksum requires HTTP(S) or Git sources",
            2,
        ),
        (
            "FROM a\nADD --checksum=x https://h/a https://h/b /\n",
            "checksum can't be specified for multiple sources",
            2,
        ),
        (
            "FROM a\nADD --checksum=x https://h/a /\n",
            "invalid checksum digest format",
            2,
        ),
        (
            "FROM a\nADD --keep-git-dir=true https://h/r.git?keep-git-dir=false /\n",
            "inconsistent keep-git-dir configuration",
            2,
        ),
        (
            "FROM a\nCOPY --chmod=99 a b\n",
            "invalid chmod parameter: '99'. it should be octal string and between 0 and 07777",
            2,
        ),
        (
            "ARG SOURCE_DATE_EPOCH=now\nFROM a\n",
            "invalid SOURCE_DATE_EPOCH: now: only a number of seconds since 1970 is understood",
            0,
        ),
    ] {
        let error = error(text);
        assert_eq!(error.to_string(), message, "{text}");
        let first = error.lines.first().map_or(0, |lines| lines.first);
        assert_eq!(first, line, "{text}: {:?}", error.lines);
    }
}

#[test]
fn a_word_that_cannot_be_expanded_names_its_line() {
    let error = error("FROM a\nENV a=${b?missing}\n");
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(error.lines, [Lines::one(2)]);
}

#[test]
fn an_unknown_target_is_answered_with_the_nearest() {
    let options = BuildOptions {
        target: Some("biuld".into()),
        ..options()
    };
    let error = planned_with("FROM a AS build\nFROM a AS test\n", &options, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "target stage \"biuld\" could not be found (did you mean build?)"
    );
    assert!(matches!(error.kind, PlanErrorKind::UnknownTarget(_)) && error.lines.is_empty());
}

#[test]
fn an_image_that_nobody_resolved_is_named() {
    let dockerfile = Dockerfile::parse("FROM some\n", "Dockerfile").unwrap();
    let error = plan(&dockerfile, &options(), &Bases::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image some was not resolved before planning"
    );
}

#[test]
fn a_trigger_that_cannot_be_read_blames_the_from() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"OnBuild":["NOPE x"]}}"#;
    let error = planned_with("# x\nFROM trig\n", &options(), &[("trig", config)]).unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("unknown instruction"),
        "{error}"
    );
    assert_eq!(error.lines.first(), Some(&Lines::one(2)));
}

#[test]
fn the_number_of_steps_is_bounded() {
    let text = |steps: usize| {
        let mut text = String::from("FROM scratch\n");
        (0..steps).for_each(|number| text.push_str(&format!("WORKDIR /{number}\n")));
        text
    };
    assert!(planned_with(&text(2000), &options(), &[]).is_ok());
    let error = planned_with(&text(10_001), &options(), &[]).unwrap_err();
    assert!(error.to_string().contains("at most 10000 steps"), "{error}");
    assert_eq!(error.lines.first().map(|lines| lines.first), Some(10_002));
}
