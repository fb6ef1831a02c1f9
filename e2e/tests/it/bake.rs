//! Bake files that are trusted no further than their directory, and what is left of a bake that fails.

use e2e::Host;

/// The first target makes a link, the second goes through it: what was judged is what is used.
#[test]
fn an_output_does_not_lead_the_next_target_out_of_the_directory() {
    let host = Host::start();
    host.write("outside/key", "hush\n");
    host.write(
        "here/one/Dockerfile",
        "FROM busybox\nRUN mkdir /o && ln -s ../../outside /o/link\nFROM scratch\nCOPY --from=0 /o /\n",
    );
    host.write(
        "here/two/Dockerfile",
        "FROM busybox\nCOPY --from=one / /seen\nRUN --mount=type=secret,id=s cat /run/secrets/s; true\nFROM scratch\nCOPY two/Dockerfile /written\n",
    );
    let bake = |two: &str| {
        let file = format!(
            r#"{{"group": {{"default": {{"targets": ["one", "two"]}}}}, "target": {{
            "one": {{"context": "one", "output": ["type=local,dest=out"]}},
            "two": {{"contexts": {{"one": "target:one"}}, "dockerfile": "two/Dockerfile", {two}}}}}}}"#
        );
        host.write("here/docker-bake.json", &file);
        let _ = std::fs::remove_dir_all(host.path("here/out"));
        host.muster_in("here", &["buildx", "bake", "--progress", "plain"])
    };
    bake(r#""output": ["type=local,dest=out/link/made"]"#).fails(1, "cannot store the output");
    assert!(!host.path("outside/made").exists());
    bake(r#""output": ["type=local,dest=elsewhere"], "secret": ["id=s,src=out/link/key"]"#)
        .fails(1, "failed to stat");
    // Nothing was built for it.
    assert!(!host.path("here/out").exists());
    bake(r#""output": ["type=local,dest=elsewhere"]"#).ok();
    assert!(host.path("here/elsewhere/written").exists());
    assert!(host.path("here/out/link").is_symlink());
    host.finish();
}

#[test]
fn a_bake_that_fails_leaves_no_image_that_was_made_for_another_target() {
    let host = Host::start();
    host.write("base/Dockerfile", "FROM busybox\nRUN echo base > /base\n");
    host.write("app/Dockerfile", "FROM base\nRUN exit 3\n");
    host.write(
        "docker-bake.json",
        r#"{"target": {"base": {"context": "base"},
            "app": {"context": "app", "contexts": {"base": "target:base"}, "tags": ["app"]}}}"#,
    );
    host.muster_in("", &["buildx", "bake", "app"])
        .fails(1, "exit code: 3");
    let images = host.muster(&["images", "--all", "--quiet", "--filter", "dangling=true"]);
    assert_eq!(images.ok(), "");
    host.finish();
}
