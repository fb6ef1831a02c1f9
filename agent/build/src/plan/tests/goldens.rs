//! Whole plans, printed.

use super::*;

#[test]
fn a_program_built_in_one_stage_and_shipped_in_another() {
    insta::assert_snapshot!(planned(
        "# syntax=docker/dockerfile:1\nARG VERSION=3\nFROM golang:$VERSION AS build\nWORKDIR /src\nCOPY go.* ./\n\
         RUN --mount=type=cache,target=/go go mod download\nCOPY . .\nARG TARGETOS TARGETARCH\n\
         RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app .\n\nFROM scratch\n\
         COPY --link --from=build --chown=1000 /out/app /usr/bin/\nUSER 1000\nEXPOSE 8080 9000-9002/udp\n\
         HEALTHCHECK --interval=30s --retries=3 CMD [\"/usr/bin/app\", \"check\"]\nENTRYPOINT [\"/usr/bin/app\"]\n"
    ));
}

#[test]
fn every_instruction_once() {
    insta::assert_snapshot!(planned(
        "FROM base\nMAINTAINER me\nARG a=1 b\nENV c=\"x y\" d=$a\nLABEL l=\"1 2\" m='$a'\nSHELL [\"/bin/ash\", \"-c\"]\n\
         WORKDIR /w\nUSER nobody\nRUN echo \"$c\"\nCOPY a* b/\nADD x.tar /\nVOLUME /v [\"/w\"]\nVOLUME [\"/x y\"]\n\
         EXPOSE 80 80/tcp\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\nONBUILD RUN later\nCMD run \"$a\"\nENTRYPOINT [\"/e\"]\n"
    ));
}

#[test]
fn the_configuration_is_written_as_buildkit_writes_it() {
    let mut plan = planned(
        "FROM base\nLABEL z=<&> a=1\nENV x=\u{2028}\nEXPOSE 80\nVOLUME /v\nCMD [\"c\"]\nHEALTHCHECK --timeout=1s CMD x\n",
    );
    for line in &mut plan.config.history {
        line.created = Some("2024-01-01T00:00:00Z".to_owned());
    }
    let json = plan
        .config
        .to_json("2024-01-01T00:00:00Z", &["sha256:1".to_owned()]);
    insta::assert_snapshot!(String::from_utf8(json).unwrap());
}

#[test]
fn a_configuration_is_read_whatever_wrote_it() {
    let docker = r#"{"architecture":"amd64","os":"linux","docker_version":"1","container_config":{"Hostname":"x"},
        "config":{"Hostname":"","User":"u","ExposedPorts":{"80/tcp":{}},"Env":null,"Cmd":null,"Entrypoint":["e"],
        "Volumes":null,"WorkingDir":"/w","OnBuild":null,"Labels":null,"ArgsEscaped":true,
        "Healthcheck":{"Test":["NONE"]}},"history":[{"created":"2020-01-01T00:00:00Z","empty_layer":true}],
        "rootfs":{"type":"layers","diff_ids":null}}"#;
    let image = ImageConfig::from_json(docker.as_bytes()).unwrap();
    let json = String::from_utf8(image.to_json("2020-01-01T00:00:00Z", &[])).unwrap();
    assert_eq!(
        json,
        r#"{"architecture":"amd64","config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Entrypoint":["e"],"WorkingDir":"/w","ArgsEscaped":true,"Healthcheck":{"Test":["NONE"]}},"created":"2020-01-01T00:00:00Z","history":[{"created":"2020-01-01T00:00:00Z","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
    );
}
