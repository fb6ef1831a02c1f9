//! Findings that need values, stages or base images.

use super::*;

fn found(text: &str) -> Vec<(String, u32)> {
    found_with(text, &options())
}

fn found_with(text: &str, options: &BuildOptions) -> Vec<(String, u32)> {
    let plan = planned_with(text, options, &[]).unwrap();
    plan.warnings
        .into_iter()
        .map(|lint| (lint.rule, lint.lines.first))
        .collect()
}

#[test]
fn findings_are_made_where_the_rule_is_broken() {
    for (text, rule, line) in [
        ("FROM base\nENV a=$b\n", "UndefinedVar", 2),
        ("FROM base\nCOPY $b /\n", "UndefinedVar", 2),
        ("FROM base\nWORKDIR a\n", "WorkdirRelativePath", 2),
        (
            "FROM base\nCMD [\"a\"]\nCMD [\"b\"]\n",
            "MultipleInstructionsDisallowed",
            2,
        ),
        ("FROM base\nENV a b\n", "LegacyKeyValueFormat", 2),
        ("FROM base\nCMD a\n", "JSONArgsRecommended", 2),
        (
            "FROM --platform=$TARGETPLATFORM base\n",
            "RedundantTargetPlatform",
            1,
        ),
        (
            "FROM --platform=linux/amd64 base\n",
            "FromPlatformFlagConstDisallowed",
            1,
        ),
        (
            "FROM --platform=linux/arm64 base AS arm64\n",
            "InvalidBaseImagePlatform",
            1,
        ),
        ("FROM base\nARG API_TOKEN\n", "SecretsUsedInArgOrEnv", 2),
        ("FROM base\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
        ("FROM base\nEXPOSE 80:80\n", "ExposeInvalidFormat", 2),
    ] {
        let found = found(text);
        assert!(
            found.contains(&(rule.to_owned(), line)),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn a_default_that_names_no_image_is_found_although_a_value_is_given() {
    let text = "ARG base\nFROM $base\n";
    let found = found_with(text, &with_args(&[("base", "alpine")]));
    assert_eq!(found, [("InvalidDefaultArgInFrom".to_owned(), 2)]);
}

#[test]
fn an_argument_of_from_that_nobody_declares_is_found() {
    let plan = planned("ARG version=1\nFROM base:1$versoin\n");
    let messages: Vec<&str> = plan
        .warnings
        .iter()
        .map(|lint| lint.message.as_str())
        .collect();
    assert_eq!(
        messages,
        ["FROM argument 'versoin' is not declared (did you mean version?)"]
    );
}

#[test]
fn an_undefined_variable_is_answered_with_the_nearest() {
    let plan = planned("FROM base\nENV name=1\nLABEL a=$nmae\n");
    assert_eq!(
        plan.warnings[0].message,
        "Usage of undefined variable '$nmae' (did you mean $name?)"
    );
}

#[test]
fn what_is_declared_or_set_is_not_undefined() {
    assert_eq!(
        found("FROM base\nARG a\nENV b=$a c=$PATH\nRUN $anything\n"),
        []
    );
}

#[test]
fn stages_that_are_not_planned_have_no_findings_unless_all_are() {
    let text = "FROM base AS a\nWORKDIR x\nFROM base\n";
    assert_eq!(found(text), []);
    let all = BuildOptions {
        all_stages: true,
        ..options()
    };
    assert_eq!(
        found_with(text, &all),
        [("WorkdirRelativePath".to_owned(), 2)]
    );
}

#[test]
fn a_copy_of_an_ignored_file_is_found() {
    let with = |patterns: &[&str]| BuildOptions {
        ignore_patterns: patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect(),
        ..options()
    };
    let rule = [("CopyIgnoredFile".to_owned(), 2)];
    assert_eq!(found_with("FROM base\nCOPY a/b /\n", &with(&["a"])), rule);
    assert_eq!(found_with("FROM base\nADD . /\n", &with(&["*"])), rule);
    assert_eq!(found_with("FROM base\nCOPY . /\n", &with(&["a"])), []);
    assert_eq!(
        found_with("FROM base\nCOPY a /\n", &with(&["a", "!a/b"])),
        []
    );
    assert_eq!(
        found_with("FROM base AS s\nFROM s\nCOPY --from=s a /\n", &with(&["a"])),
        []
    );
}

#[test]
fn rules_can_be_skipped_and_can_fail_the_build() {
    assert_eq!(
        found("# check=skip=WorkdirRelativePath\nFROM base\nWORKDIR a\n"),
        []
    );
    let error = error("# check=error=true\nFROM base\nWORKDIR a\n");
    assert!(matches!(error.kind, PlanErrorKind::Lint(_)), "{error}");
    assert_eq!(error.warnings.len(), 1);
    let given = with_args(&[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    assert_eq!(
        found_with("# check=error=true\nFROM base\nWORKDIR a\n", &given),
        []
    );
}

#[test]
fn what_was_found_before_an_error_comes_with_it() {
    let error = super::error("FROM base\nWORKDIR a\nSTOPSIGNAL x\n");
    assert_eq!(error.to_string(), "invalid signal: x");
    assert_eq!(error.warnings[0].rule, "WorkdirRelativePath");
    let error = error_of_bases("ARG base\nFROM $base\n");
    assert_eq!(error.warnings[0].rule, "InvalidDefaultArgInFrom");
}

fn error_of_bases(text: &str) -> PlanError {
    let dockerfile = Dockerfile::parse(text, "Dockerfile").unwrap();
    bases(&dockerfile, &options(), &Bases::default()).unwrap_err()
}
