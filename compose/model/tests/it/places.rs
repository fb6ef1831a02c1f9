//! Places survive the whole pipeline: a part of the project tells where it was written, also when it came from a
//! short form, another file or an anchor.

use std::path::Path;

use compose_model::{LoadOptions, Loaded, Severity, Span, Style, load};

fn loaded(files: &[(&str, &str)]) -> Loaded {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    load_in(directory.path())
}

fn load_in(directory: &Path) -> Loaded {
    let options = LoadOptions {
        current_dir: directory.to_owned(),
        ..LoadOptions::default()
    };
    match load(&options) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn place(loaded: &Loaded, span: Span) -> String {
    loaded
        .sources
        .locate(span)
        .expect("written in a file")
        .to_string()
}

#[test]
fn every_part_knows_its_file_line_and_column() {
    let loaded = loaded(&[
        (
            "compose.yaml",
            "services:\n  web:\n    image: a\n    ports:\n      - \"80:80\"\n    volumes:\n      - ./a:/a\nnetworks:\n  default:\n    name: x\n",
        ),
        (
            "compose.override.yaml",
            "x-h: &h\n  healthcheck: {test: x}\nservices:\n  web:\n    <<: *h\n    ports: [\"81:81\"]\n    depends_on: [db]\n  db:\n    image: d\n",
        ),
    ]);
    let web = &loaded.project.services["web"];
    assert_eq!(place(&loaded, web.ports[0].span), "compose.yaml:5:9");
    assert_eq!(
        place(&loaded, web.ports[1].span),
        "compose.override.yaml:6:13"
    );
    assert_eq!(place(&loaded, web.volumes[0].span), "compose.yaml:7:9");
    assert_eq!(
        place(&loaded, web.depends_on["db"].span),
        "compose.override.yaml:7:18"
    );
    let healthcheck = web.healthcheck.as_ref().expect("given");
    assert_eq!(
        place(&loaded, healthcheck.span),
        "compose.override.yaml:2:16"
    );
    let network = &loaded.project.networks["default"];
    assert_eq!(place(&loaded, network.span), "compose.yaml:10:5");
}

#[test]
fn what_nobody_wrote_has_no_place() {
    let loaded = loaded(&[("compose.yaml", "services: {web: {image: a}}\n")]);
    assert_eq!(loaded.sources.locate(Span::NONE), None);
}

#[test]
fn colour_is_the_callers_choice() {
    let loaded = loaded(&[("compose.yaml", "services: {web: {image: \"a$UNSET\"}}\n")]);
    let warning = &loaded.warnings[0];
    assert_eq!(warning.severity, Severity::Warning);
    let plain = warning.render(&loaded.sources, Style::Plain);
    assert!(
        plain.starts_with("warning: the variable UNSET is not set"),
        "{plain}"
    );
    assert!(!plain.contains('\u{1b}'));
    assert!(
        warning
            .render(&loaded.sources, Style::Coloured)
            .contains('\u{1b}')
    );
}

/// Nothing in a file reaches the terminal as a control sequence.
#[test]
fn messages_carry_no_control_characters() {
    let text = "services:\n  web:\n    \"\\e[31mred\": 1\n    image: \"\\e]0;x\\a${A?\\e[0m}\"\n";
    let options = LoadOptions {
        files: vec!["-".into()],
        stdin: Some(text.into()),
        current_dir: "/nonexistent".into(),
        ..LoadOptions::default()
    };
    let error = load(&options).expect_err("broken").to_string();
    assert!(
        error.chars().all(|c| c == '\n' || !c.is_control()),
        "{error:?}"
    );
}

#[test]
fn no_dependencies_keeps_only_what_was_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let text = "services: {web: {image: w, depends_on: [db]}, db: {image: d}}\n";
    std::fs::write(directory.path().join("compose.yaml"), text).expect("written");
    let options = LoadOptions {
        current_dir: directory.path().to_owned(),
        services: vec!["web".into()],
        no_dependencies: true,
        ..LoadOptions::default()
    };
    let project = load(&options).expect("valid").project;
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["web"]);
    assert!(project.services["web"].depends_on.is_empty());
    assert!(project.disabled_services.contains_key("db"));
}

#[test]
fn the_hash_tells_what_makes_a_container() {
    let hash = |attributes: &str| {
        let text = format!("services: {{web: {{image: a, {attributes}}}, db: {{image: d}}}}\n");
        loaded(&[("compose.yaml", &text)]).project.services["web"].config_hash()
    };
    let base = hash("user: u");
    for same in [
        "user: u, scale: 3",
        "user: u, depends_on: [db]",
        "user: u, pull_policy: always",
        "user: u, x-note: text",
        "user: u, profiles: []",
    ] {
        assert_eq!(hash(same), base, "{same}");
    }
    assert_eq!(hash("deploy: {replicas: 1}"), hash("deploy: {replicas: 2}"));
    for other in [
        "user: v",
        "user: u, environment: {A: }",
        "user: u, ports: [\"80\"]",
    ] {
        assert_ne!(hash(other), base, "{other}");
    }
}
