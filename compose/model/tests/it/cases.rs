//! Golden cases: every directory below `tests/cases` is a project.
//!
//! - `case.json` (optional): what the command line and the environment would say.
//! - `expected.yaml`: what `docker compose config` (2.40.3) prints for it, run in the case's directory with the
//!   environment of `case.json` and `HOME=/home/user` alone; ours must be the same text.
//! - `ours.yaml` with `why.txt`: where we differ from docker compose on purpose.
//! - `error.txt`: the project is broken, and this is what we say. `warnings.txt`: what we warn of besides.
//!
//! `UPDATE=1` rewrites `ours.yaml`, `error.txt` and `warnings.txt`, never `expected.yaml`. The case's directory is
//! written `/CASE`, the one above it `/CASES`.

use std::fs;
use std::path::{Path, PathBuf};

use compose_model::{LoadOptions, Style, load};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Case {
    files: Vec<PathBuf>,
    stdin: Option<String>,
    directory: Option<String>,
    project_directory: Option<PathBuf>,
    project_name: Option<String>,
    profiles: Vec<String>,
    env_files: Vec<PathBuf>,
    environment: std::collections::BTreeMap<String, String>,
    services: Vec<String>,
    no_dependencies: bool,
    all_resources: bool,
}

fn options(directory: &Path) -> LoadOptions {
    let case: Case = match fs::read_to_string(directory.join("case.json")) {
        Ok(text) => serde_json::from_str(&text).expect("case.json is valid"),
        Err(_) => Case::default(),
    };
    let mut environment = case.environment;
    environment.insert("HOME".into(), "/home/user".into());
    LoadOptions {
        files: case.files,
        stdin: case.stdin,
        current_dir: match case.directory {
            Some(below) => directory.join(below),
            None => directory.to_owned(),
        },
        project_directory: case.project_directory,
        project_name: case.project_name,
        profiles: case.profiles,
        env_files: case.env_files,
        environment,
        services: case.services,
        no_dependencies: case.no_dependencies,
        all_resources: case.all_resources,
        ..LoadOptions::default()
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .expect("tests/cases exists")
        .map(|entry| entry.expect("readable").path())
        .collect();
    cases.sort();
    cases
}

/// What a case printed: its output or errors, and its warnings.
fn run(directory: &Path) -> (Result<String, String>, String) {
    let place = directory.to_str().expect("the path is UTF-8");
    let above = directory
        .parent()
        .and_then(Path::to_str)
        .expect("the path is UTF-8");
    let portable = |text: String| text.replace(place, "/CASE").replace(above, "/CASES");
    match load(&options(directory)) {
        Ok(loaded) => {
            let warnings: Vec<String> = loaded
                .warnings
                .iter()
                .map(|warning| warning.render(&loaded.sources, Style::Plain) + "\n")
                .collect();
            (
                Ok(portable(loaded.project.to_yaml())),
                portable(warnings.join("\n")),
            )
        }
        Err(errors) => (Err(portable(format!("{errors}\n"))), String::new()),
    }
}

#[test]
fn every_case_is_as_expected() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut failures = Vec::new();
    for directory in cases() {
        let name = directory
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        let (result, warnings) = run(&directory);
        let mut compare = |file: &str, actual: &str| {
            let path = directory.join(file);
            if update && file != "expected.yaml" && !actual.is_empty() {
                fs::write(&path, actual).expect("writable");
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if expected != actual {
                failures.push(format!(
                    "{name}/{file}\n--- expected\n{expected}\n--- actual\n{actual}"
                ));
            }
        };
        match result {
            Ok(yaml) => {
                assert!(
                    !directory.join("error.txt").exists(),
                    "{name} must fail but loads:\n{yaml}"
                );
                let differs = directory.join("ours.yaml").exists();
                assert_eq!(
                    differs,
                    directory.join("why.txt").exists(),
                    "{name}: ours.yaml needs why.txt"
                );
                compare(
                    if differs {
                        "ours.yaml"
                    } else {
                        "expected.yaml"
                    },
                    &yaml,
                );
                compare("warnings.txt", &warnings);
            }
            Err(errors) => {
                let ours = ["expected.yaml", "ours.yaml"]
                    .iter()
                    .all(|file| !directory.join(file).exists());
                assert!(ours, "{name} must load but fails:\n{errors}");
                compare("error.txt", &errors);
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} differences:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// What `config` prints loads again, and gives the same project.
#[test]
fn output_loads_again_unchanged() {
    for directory in cases() {
        let Ok(loaded) = load(&options(&directory)) else {
            continue;
        };
        let again = LoadOptions {
            files: vec!["-".into()],
            stdin: Some(loaded.project.to_yaml()),
            current_dir: directory.clone(),
            profiles: vec!["*".into()],
            ..LoadOptions::default()
        };
        let again = match load(&again) {
            Ok(again) => again,
            Err(errors) => panic!("{}:\n{errors}", directory.display()),
        };
        assert_eq!(
            again.project.to_yaml(),
            loaded.project.to_yaml(),
            "{}",
            directory.display()
        );
        for (name, service) in &loaded.project.services {
            let other = &again.project.services[name];
            assert_eq!(
                service.config_hash(),
                other.config_hash(),
                "{} {name}",
                directory.display()
            );
        }
    }
}

/// Two loads of the same files give the same text: nothing depends on the order of a hash map.
#[test]
fn loading_is_deterministic() {
    for directory in cases() {
        assert_eq!(run(&directory), run(&directory), "{}", directory.display());
    }
}
