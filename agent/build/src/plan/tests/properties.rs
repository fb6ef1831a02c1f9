//! Whatever parses can be planned or is refused: nothing panics, and every plan is well formed.

use proptest::prelude::*;

use super::*;

/// Pieces that instructions are put together from; some make no sense.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z/.$*]{1,6}",
        Just("${a:-b}".to_owned()),
        Just("$a".to_owned()),
        Just("\"x y\"".to_owned()),
        Just("https://h/x.git#a:b".to_owned()),
        Just("../..".to_owned()),
        Just("80-82/udp".to_owned()),
        Just("é\u{301}".to_owned()),
    ]
}

fn instruction() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "RUN",
        "COPY",
        "ADD",
        "COPY --from=a",
        "COPY --from=0",
        "COPY --link --parents",
        "ADD --checksum=x",
        "ENV x=1",
        "ENV",
        "ARG",
        "LABEL",
        "WORKDIR",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "CMD",
        "ENTRYPOINT",
        "SHELL [\"s\"]",
        "ONBUILD RUN",
        "ONBUILD COPY",
        "HEALTHCHECK CMD",
        "HEALTHCHECK NONE",
        "MAINTAINER",
        "FROM",
        "FROM scratch AS a",
        "FROM a",
        "FROM --platform=$TARGETPLATFORM b AS c",
        "RUN --mount=type=cache,target=",
        "RUN --mount=from=a,target=",
        "RUN --mount=type=secret,id=",
        "COPY --chmod=u+x",
        "COPY --chown=$a",
    ]);
    (keyword, prop::collection::vec(word(), 0..4)).prop_map(|(keyword, words)| {
        let glue = if keyword.ends_with('=') { "" } else { " " };
        format!("{keyword}{glue}{}", words.join(" "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 400 }))]

    #[test]
    fn planning_never_panics_and_plans_are_well_formed(
        lines in prop::collection::vec(instruction(), 0..12),
        all_stages in any::<bool>(),
    ) {
        let text = format!("ARG a=1\nFROM base AS a\n{}\n", lines.join("\n"));
        let Ok(dockerfile) = Dockerfile::parse(&text, "Dockerfile") else { return Ok(()) };
        let options = BuildOptions { all_stages, ..options() };
        let mut known = Bases::default();
        for _ in 0..4 {
            match bases(&dockerfile, &options, &known) {
                Ok(missing) => for request in missing { known.insert(&request, image(BASE)); },
                Err(_) => return Ok(()),
            }
        }
        let Ok(plan) = plan(&dockerfile, &options, &known) else { return Ok(()) };
        for (number, vertex) in plan.vertices.iter().enumerate() {
            prop_assert_eq!(vertex.id.0, number);
            prop_assert!(vertex.inputs.iter().all(|input| input.0 < number));
            if let Some(root) = vertex.op.root() {
                prop_assert_eq!(root, InputIndex(0));
            }
        }
        let layers = plan.config.history.iter().filter(|line| !line.comment.is_empty() && !line.empty_layer).count();
        prop_assert_eq!(plan.layers.len(), layers);
        let mut below = plan.base;
        for layer in &plan.layers {
            let vertex = &plan.vertices[layer.0];
            prop_assert_eq!(vertex.op.root().map(|root| vertex.inputs[root.0]), below);
            below = Some(*layer);
        }
        prop_assert_eq!(below, plan.target);
        // The same text is the same plan.
        let again = super::plan(&dockerfile, &options, &known).unwrap();
        prop_assert_eq!(plan.to_string(), again.to_string());
    }
}

/// Few lines that would come to gigabytes.
#[test]
fn plans_are_bounded() {
    let doubling: String = (0..60).map(|_| "ENV a=$a$a\n").collect();
    let kept: String = (0..20_000 / 2).map(|n| format!("ARG v{n}=$a\n")).collect();
    let exposed = "EXPOSE 0-65535\n".repeat(2_000);
    let runs = "RUN x\n".repeat(15_000);
    let stages: String = (0..9_000)
        .map(|n| format!("FROM s{n} AS s{}\nRUN x\n", n + 1))
        .collect();
    let mounts = format!("RUN {}x\n", "--mount=target=/ ".repeat(30_000));
    for text in [
        format!("FROM base\nENV a=x\n{doubling}"),
        format!("FROM base\nENV a={}\n{kept}{runs}", "x".repeat(60_000)),
        format!("FROM base\n{exposed}"),
        format!("FROM base AS s0\nARG a={}\n{stages}", "x".repeat(10_000)),
        format!("FROM base\n{}", mounts.replace(" --mount", " \\\n--mount")),
    ] {
        let Ok(dockerfile) = Dockerfile::parse(&text, "Dockerfile") else {
            continue;
        };
        let mut known = Bases::default();
        let missing = bases(&dockerfile, &options(), &known);
        for request in missing.into_iter().flatten() {
            known.insert(&request, image(BASE));
        }
        let error = plan(&dockerfile, &options(), &known).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("more than") || message.contains("larger than"),
            "{}",
            &message[..200.min(message.len())]
        );
    }
}
