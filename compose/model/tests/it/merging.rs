//! Properties of merging several files, over generated services.

use compose_model::{LoadOptions, load};
use proptest::prelude::*;

/// One attribute of a service, as YAML lines at service level.
fn attribute() -> impl Strategy<Value = (&'static str, String)> {
    let word = "[a-c]";
    prop_oneof![
        word.prop_map(|w| ("image", format!("image: {w}"))),
        word.prop_map(|w| ("user", format!("user: u{w}"))),
        prop::collection::btree_map(word, "[x-z]", 1..3).prop_map(|m| {
            let lines: Vec<String> = m.iter().map(|(k, v)| format!("{k}: {v}")).collect();
            (
                "environment",
                format!("environment: {{{}}}", lines.join(", ")),
            )
        }),
        prop::collection::btree_map(word, "[x-z]", 1..3).prop_map(|m| {
            let lines: Vec<String> = m.iter().map(|(k, v)| format!("{k}={v}")).collect();
            ("labels", format!("labels: [{}]", lines.join(", ")))
        }),
        prop::collection::btree_set("[1-4]", 1..3).prop_map(|s| {
            let ports: Vec<String> = s.iter().map(|p| format!("\"808{p}:8{p}\"")).collect();
            ("ports", format!("ports: [{}]", ports.join(", ")))
        }),
        prop::collection::btree_set(word, 1..3).prop_map(|s| {
            let mounts: Vec<String> = s.iter().map(|t| format!("./{t}:/{t}x")).collect();
            ("volumes", format!("volumes: [{}]", mounts.join(", ")))
        }),
        prop::collection::vec(word, 1..3)
            .prop_map(|v| ("command", format!("command: [{}]", v.join(", ")))),
        word.prop_map(|w| (
            "logging",
            format!("logging: {{driver: {w}, options: {{{w}: v}}}}")
        )),
    ]
}

/// A file with one service; each attribute at most once.
fn file() -> impl Strategy<Value = String> {
    prop::collection::vec(attribute(), 0..6).prop_map(|attributes| {
        let unique: std::collections::BTreeMap<_, _> = attributes.into_iter().collect();
        let mut text = String::from("services:\n  web:\n    hostname: h\n");
        for line in unique.values() {
            text.push_str(&format!("    {line}\n"));
        }
        text
    })
}

/// Loads files over each other, with an image so that the project is whole.
fn merged(files: &[&str]) -> compose_model::Project {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut options = LoadOptions {
        current_dir: directory.path().to_owned(),
        project_directory: Some("/project".into()),
        ..LoadOptions::default()
    };
    let whole = ["services: {web: {image: base}}"];
    for (index, text) in whole.iter().chain(files).enumerate() {
        let path = directory.path().join(format!("{index}.yaml"));
        std::fs::write(&path, text).expect("written");
        options.files.push(path);
    }
    match load(&options) {
        Ok(loaded) => loaded.project,
        Err(errors) => panic!("{errors}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same override twice is the same as once.
    #[test]
    fn an_override_is_idempotent(base in file(), over in file()) {
        let once = merged(&[&base, &over]);
        let twice = merged(&[&base, &over, &over]);
        prop_assert_eq!(once.to_yaml(), twice.to_yaml());
    }

    /// What the last file says holds, and nothing that only the first says is lost.
    #[test]
    fn the_last_file_wins_and_nothing_is_lost(base in file(), over in file()) {
        let alone = merged(&[&over]);
        let below = merged(&[&base]);
        let both = merged(&[&base, &over]);
        let (alone, below, both) = (&alone.services["web"], &below.services["web"], &both.services["web"]);
        for (key, value) in &alone.environment {
            prop_assert_eq!(&both.environment[key], value);
        }
        for key in below.environment.keys() {
            prop_assert!(both.environment.contains_key(key));
        }
        for (key, value) in &alone.labels {
            prop_assert_eq!(&both.labels[key], value);
        }
        for mount in &alone.volumes {
            prop_assert!(both.volumes.iter().any(|other| other.target == mount.target && other.source == mount.source));
        }
        for mount in &below.volumes {
            prop_assert_eq!(both.volumes.iter().filter(|other| other.target == mount.target).count(), 1);
        }
        for port in below.ports.iter().chain(&alone.ports) {
            let same = both.ports.iter().filter(|other| other.target == port.target && other.published == port.published);
            prop_assert_eq!(same.count(), 1);
        }
        if alone.command.is_some() {
            prop_assert_eq!(&both.command, &alone.command);
        }
        if alone.user.is_some() {
            prop_assert_eq!(&both.user, &alone.user);
        }
    }

    /// Three files at once are the same as the third over the output of the first two.
    #[test]
    fn merging_is_associative(a in file(), b in file(), c in file()) {
        let all = merged(&[&a, &b, &c]);
        let first = merged(&[&a, &b]).to_yaml();
        let directory = tempfile::tempdir().expect("temporary directory");
        let (low, high) = (directory.path().join("low.yaml"), directory.path().join("high.yaml"));
        std::fs::write(&low, first).expect("written");
        std::fs::write(&high, &c).expect("written");
        let options = LoadOptions {
            files: vec![low, high],
            current_dir: directory.path().to_owned(),
            project_directory: Some("/project".into()),
            ..LoadOptions::default()
        };
        let stepwise = match load(&options) {
            Ok(loaded) => loaded.project,
            Err(errors) => panic!("{errors}"),
        };
        prop_assert_eq!(all.to_yaml(), stepwise.to_yaml());
    }
}
