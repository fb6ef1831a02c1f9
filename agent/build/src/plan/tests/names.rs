//! Names of steps, as progress prints them.

use super::*;

#[test]
fn steps_are_counted_in_their_stage() {
    let plan = planned(
        "FROM base AS builder\nENV v=1\nRUN make $v\nFROM base\nWORKDIR /w\nCOPY --from=builder [\"/a b\", \"/\"]\nrun x\n",
    );
    assert_eq!(
        names(&plan),
        [
            "[builder 1/2] FROM docker.io/library/base:latest",
            "[builder 2/2] RUN make 1",
            "[stage-1 2/4] WORKDIR /w",
            "[stage-1 3/4] COPY --from=builder [/a b, /]",
            "[stage-1 4/4] RUN x",
        ]
    );
}

#[test]
fn numbers_are_as_wide_as_the_last() {
    let steps = "RUN x\n".repeat(10);
    let plan = planned(&format!("FROM base\n{steps}"));
    assert_eq!(
        names(&plan)[0],
        "[ 1/11] FROM docker.io/library/base:latest"
    );
    assert_eq!(names(&plan)[10], "[11/11] RUN x");
}

#[test]
fn the_only_stage_has_no_name() {
    let plan = planned("FROM base AS named\nRUN x\n");
    assert_eq!(names(&plan)[1], "[2/2] RUN x");
    // A mount is a second state, even if it names nobody.
    let plan = planned("FROM base\nRUN --mount=type=cache,target=/c x\n");
    assert_eq!(
        names(&plan)[1],
        "[stage-0 2/2] RUN --mount=type=cache,target=/c x"
    );
}

#[test]
fn variables_are_replaced_in_names_and_secrets_are_not() {
    let plan =
        planned("FROM base\nENV a=1\nRUN --mount=type=secret,id=s,env=S echo \"$a\" $S $unset\n");
    assert_eq!(
        names(&plan)[1],
        "[stage-0 2/2] RUN --mount=type=secret,id=s,env=S echo \"1\" **** $unset"
    );
}

#[test]
fn a_heredoc_is_named_by_its_first_line() {
    let plan = planned("FROM base\nRUN <<EOF\nset -e\nmake\nEOF\nRUN <<EOF\nmake\nEOF\n");
    assert_eq!(
        names(&plan)[1..],
        ["[2/3] RUN <<EOF (set -e...)", "[3/3] RUN <<EOF (make)"]
    );
}

#[test]
fn several_platforms_are_told_apart() {
    let options = BuildOptions {
        platform: Some("linux/arm64".parse().unwrap()),
        multi_platform: true,
        ..options()
    };
    let text = "FROM --platform=$BUILDPLATFORM base AS b\nARG TARGETARCH\nRUN x\nFROM base\nCOPY --from=b /x /\n";
    let plan = planned_with(text, &options, &[]).unwrap();
    assert_eq!(
        names(&plan),
        [
            "[linux/amd64 b 1/2] FROM docker.io/library/base:latest",
            "[linux/arm64 stage-1 1/2] FROM docker.io/library/base:latest",
            "[linux/amd64->arm64 b 2/2] RUN x",
            "[linux/arm64 stage-1 2/2] COPY --from=b /x /",
        ]
    );
}

#[test]
fn contexts_and_images_beside_stages_have_names_of_their_own() {
    let plan = planned("FROM base\nCOPY a /\nCOPY --from=img /x /\n");
    assert_eq!(
        names(&plan),
        [
            "[stage-0 1/3] FROM docker.io/library/base:latest",
            "FROM docker.io/library/img:latest",
            "[internal] load build context",
            "[stage-0 2/3] COPY a /",
            "[stage-0 3/3] COPY --from=img /x /",
        ]
    );
}
