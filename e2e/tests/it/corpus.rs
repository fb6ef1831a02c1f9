//! Every case of the Dockerfile corpus, built by the daemon and compared with what BuildKit made of it.
//!
//! `CORPUS=name` in the environment runs the cases whose path contains it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use e2e::corpus::{self, case::Case, outcome};
use e2e::{Host, busybox};
use serde_json::{Value, json};

/// Cases of one group that are built at the same time.
const PARALLEL: usize = 4;

/// Who asks the daemon to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Muster,
    /// The docker command line without its build plugin: the context is a tar in the body of `POST /build`.
    DockerClassic,
}

/// A case that the classic client decides by itself: it knows no ignore file but `.dockerignore`.
const CLIENT_DECIDES: &str = "own-file";

/// Flags that the classic way cannot say.
const BUILDKIT_ONLY: [&str; 4] = ["--secret", "--build-context", "--no-cache-filter", "--ssh"];

fn group(name: &str) {
    build_group(name, Client::Muster);
}

fn build_group(name: &str, client: Client) {
    let only = std::env::var("CORPUS").unwrap_or_default();
    let mut cases = corpus::cases(Some(name)).unwrap();
    assert!(!cases.is_empty(), "no cases in {name}");
    cases.retain(|path| path.to_string_lossy().contains(&only));
    let host = Host::start();
    host.muster(&["import", busybox().to_str().unwrap(), "base"])
        .ok();
    let archive = host.path("base.tar");
    host.muster(&["save", "-o", archive.to_str().unwrap(), "base:latest"])
        .ok();
    let base = outcome::read(&archive).unwrap().tree;
    let total = cases.len();
    let (queue, failures) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(path) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    if let Err(difference) = compare(&host, client, &path, &base) {
                        let name = path.with_extension("");
                        let name = name
                            .strip_prefix(corpus::directory())
                            .unwrap()
                            .display()
                            .to_string();
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("──── {name}\n{difference}"));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(
        failures.is_empty(),
        "{} of {total} cases differ from BuildKit\n\n{}\n",
        failures.len(),
        failures.join("\n")
    );
    host.finish();
}

/// Builds one case; an error is a text about what differs.
fn compare(host: &Host, client: Client, path: &Path, base: &outcome::Tree) -> Result<(), String> {
    let case = Case::read(path).map_err(|error| error.to_string())?;
    let record = fs::read_to_string(path.with_extension("json"))
        .map_err(|error| format!("no record: {error}"))?;
    let expected: Value = serde_json::from_str(&record).map_err(|error| error.to_string())?;
    let classic = client == Client::DockerClassic;
    let unsaid = |flag: &String| BUILDKIT_ONLY.contains(&flag.as_str());
    if classic && (case.flags.iter().any(unsaid) || case.name == CLIENT_DECIDES) {
        return Ok(());
    }
    let group = path.parent().and_then(Path::file_name).unwrap_or_default();
    let directory = host.path("cases").join(group).join(&case.name);
    fs::create_dir_all(&directory).unwrap();
    for (name, dockerfile) in &case.bases {
        let file = directory.join("Dockerfile");
        fs::write(&file, dockerfile).unwrap();
        build(host, client, &directory, &["-t", name])?;
        fs::remove_file(file).unwrap();
    }
    case.materialise(&directory)
        .map_err(|error| format!("{error:#}"))?;
    let tag = format!("corpus:{}", case.name);
    let mut arguments = vec!["-t", &tag];
    arguments.extend(case.flags.iter().map(String::as_str));
    let built = build(host, client, &directory, &arguments);
    let found = match (built, expected.get("error")) {
        (Err(said), error) if error.is_some() || case.says.is_some() => {
            let error = case
                .says
                .as_deref()
                .or_else(|| error?.as_str())
                .unwrap_or_default();
            return match said.contains(error) || classic && said.contains(&classic_words(error)) {
                true => Ok(()),
                false => Err(format!("expected: {error}\nmuster says: {said}")),
            };
        }
        (Err(said), _) => return Err(format!("not built: {said}")),
        (Ok(()), None) if case.says.is_some() => {
            return Err("built, but is to be refused".to_owned());
        }
        (Ok(()), Some(error)) => return Err(format!("built, but expected: {error}")),
        (Ok(()), None) => {
            let archive: PathBuf = directory.with_extension("tar");
            host.muster(&["save", "-o", archive.to_str().unwrap(), &tag])
                .ok();
            let saved = outcome::read(&archive).map_err(|error| format!("save: {error:#}"))?;
            fs::remove_file(archive).unwrap();
            outcome::outcome(saved, base)
        }
    };
    let mut differences = String::new();
    for part in ["layers", "config", "files", "removed"] {
        differ(part, &expected[part], &found[part], &mut differences);
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(differences),
    }
}

fn build(host: &Host, client: Client, directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = match client {
        Client::Muster => host.muster_command(&["build", "--progress=plain"]),
        Client::DockerClassic => {
            let mut command = Command::new("docker");
            command
                .arg("build")
                .env("DOCKER_BUILDKIT", "0")
                .env("DOCKER_HOST", host.socket());
            command.env("DOCKER_CONFIG", host.path("docker"));
            command
        }
    };
    command.args(arguments).arg(".").current_dir(directory);
    let output = host.run(command);
    match output.code {
        0 => Ok(()),
        _ => Err(output.stderr),
    }
}

/// A failed command as the classic way has always told it.
fn classic_words(error: &str) -> String {
    let words = error
        .strip_prefix("process \"")
        .and_then(|rest| rest.rsplit_once("\" did not complete successfully: exit code: "));
    words.map_or_else(
        || error.to_owned(),
        |(command, code)| format!("The command '{command}' returned a non-zero code: {code}"),
    )
}

/// Writes down where two values differ, member by member.
fn differ(place: &str, expected: &Value, found: &Value, out: &mut String) {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left
                .keys()
                .chain(right.keys().filter(|name| !left.contains_key(*name)));
            for name in names {
                let member = |map: &serde_json::Map<String, Value>| {
                    map.get(name).cloned().unwrap_or(json!(null))
                };
                differ(
                    &format!("{place} · {name}"),
                    &member(left),
                    &member(right),
                    out,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differ(&format!("{place}[{index}]"), left, right, out);
            }
        }
        _ if expected != found => {
            let _ = writeln!(
                out,
                "{place}\n    BuildKit {expected}\n    muster   {found}"
            );
        }
        _ => {}
    }
}

#[test]
fn parsing() {
    group("parse");
}

#[test]
fn heredocs() {
    group("heredoc");
}

#[test]
fn expansion() {
    group("expand");
}

#[test]
fn arguments() {
    group("arg");
}

#[test]
fn stages() {
    group("stage");
}

#[test]
fn copying() {
    group("copy");
}

#[test]
fn adding() {
    group("add");
}

#[test]
fn running() {
    group("run");
}

#[test]
fn mounting() {
    group("mount");
}

#[test]
fn configuration() {
    group("config");
}

#[test]
fn triggers() {
    group("onbuild");
}

#[test]
fn ignoring() {
    group("ignore");
}

#[test]
fn output() {
    group("output");
}

#[test]
fn the_classic_way_gives_the_same() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: no docker command here");
        return;
    }
    for name in [
        "parse", "heredoc", "arg", "stage", "copy", "add", "run", "mount", "ignore",
    ] {
        build_group(name, Client::DockerClassic);
    }
}

#[test]
fn every_case_is_in_a_tested_group_and_has_its_record() {
    let source = include_str!("corpus.rs");
    let cases = corpus::cases(None).unwrap();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    for path in cases {
        let group = path
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default()
            .to_string_lossy();
        assert!(
            source.contains(&format!("group(\"{group}\")")),
            "nobody builds {}",
            path.display()
        );
        let record: Value =
            serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        assert!(
            record["made by"]
                .as_str()
                .is_some_and(|maker| maker.starts_with("Docker Engine 28"))
        );
    }
}
