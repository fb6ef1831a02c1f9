//! The Dockerfile corpus of the end-to-end tests, as far as plans go: configuration and history of every case are
//! those that BuildKit made, and what BuildKit refused before running anything is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

/// What a case says, in the format of `e2e/src/corpus/case.rs`.
#[derive(Default)]
struct Case {
    flags: Vec<String>,
    /// What muster says instead of the recorded error.
    says: Option<String>,
    files: BTreeMap<String, String>,
    bases: BTreeMap<String, String>,
}

fn read(text: &str) -> Case {
    let mut case = Case::default();
    let mut sections = text.split("\n===");
    for line in sections.next().unwrap_or_default().lines() {
        if let Some(flags) = line.strip_prefix("flags:") {
            case.flags
                .extend(flags.split_whitespace().map(str::to_owned));
        }
        if let Some(says) = line.strip_prefix("muster says:") {
            case.says = Some(says.trim().to_owned());
        }
    }
    for section in sections {
        let (head, body) = section.split_once('\n').unwrap_or((section, ""));
        let body = if body.is_empty() || body.ends_with('\n') {
            body.to_owned()
        } else {
            format!("{body}\n")
        };
        match head.trim().split_once(' ').unwrap_or((head.trim(), "")) {
            ("base", name) => case.bases.insert(name.trim().to_owned(), body),
            ("file", rest) => {
                let name = rest.split_whitespace().next().unwrap_or_default();
                case.files.insert(name.to_owned(), body)
            }
            ("Dockerfile", _) => case.files.insert("Dockerfile".to_owned(), body),
            _ => None,
        };
    }
    case
}

/// The name of the Dockerfile and the options; `None` for flags that plans have nothing to do with.
fn options_of(case: &Case) -> Option<(String, BuildOptions)> {
    let mut options = options();
    let mut name = "Dockerfile".to_owned();
    let mut flags = case.flags.iter().map(String::as_str);
    while let Some(flag) = flags.next() {
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (flag, flags.next()?),
        };
        let pair = || {
            value
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        match flag {
            "-f" => name = value.to_owned(),
            "--target" => options.target = Some(value.to_owned()),
            "--platform" => options.platform = Some(value.parse().ok()?),
            "--build-arg" => options.build_args.extend(pair()),
            "--label" => options.labels.extend(pair()),
            "--build-context" => {
                let (name, source) = pair()?;
                let source = match source.strip_prefix("docker-image://") {
                    Some(image) => ContextSource::Image(image.to_owned()),
                    None => ContextSource::Local,
                };
                options.contexts.insert(name, source);
            }
            "--secret" | "--ssh" | "--no-cache-filter" | "--add-host" | "--ulimit"
            | "--shm-size" => {}
            _ => return None,
        }
    }
    Some((name, options))
}

/// What the recorder imports as the image `base`.
const IMPORTED: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},"history":[{"comment":"Imported from -"}]}"#;

fn plan_case(case: &Case, text: &str, options: &BuildOptions) -> Result<Plan, String> {
    let dockerfile = Dockerfile::parse(text, "Dockerfile").map_err(|error| error.to_string())?;
    let mut known = Bases::default();
    loop {
        let missing = bases(&dockerfile, options, &known).map_err(|error| error.to_string())?;
        if missing.is_empty() {
            return plan(&dockerfile, options, &known).map_err(|error| error.to_string());
        }
        for request in missing {
            let name = request.written.trim_end_matches(":latest");
            let resolved = match case.bases.get(name) {
                Some(text) => BaseImage {
                    config: plan_case(case, text, &super::options())?.config,
                    ..image(IMPORTED)
                },
                None if name == "base" => image(IMPORTED),
                None => return Err(format!("{name} does not exist")),
            };
            known.insert(&request, resolved);
        }
    }
}

/// Configuration as the records have it: without times and digests.
fn as_recorded(plan: &Plan) -> Value {
    let mut value = serde_json::to_value(&plan.config).unwrap();
    for line in value["history"].as_array_mut().into_iter().flatten() {
        line.as_object_mut().unwrap().remove("created");
    }
    value
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/corpus/cases");
    let mut found: Vec<PathBuf> = Vec::new();
    for group in
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()))
    {
        for file in fs::read_dir(group.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "case")
    });
    found.sort();
    found
}

#[test]
fn configurations_and_refusals_are_those_of_buildkit() {
    let (mut wrong, mut compared, mut refused) = (Vec::new(), 0, 0);
    for path in cases() {
        let name = path.display().to_string();
        let case = read(&fs::read_to_string(&path).unwrap());
        let Ok(record) = fs::read(path.with_extension("json")) else {
            continue;
        };
        let record: Value = serde_json::from_slice(&record).unwrap();
        let Some((file, options)) = options_of(&case) else {
            continue;
        };
        let Some(text) = case.files.get(&file) else {
            continue;
        };
        match (plan_case(&case, text, &options), record.get("error")) {
            (Ok(plan), None) => {
                compared += 1;
                let (made, expected) = (as_recorded(&plan), &record["config"]);
                if made != *expected {
                    wrong.push(format!("{name}\n  made     {made}\n  expected {expected}"));
                }
                let layers = plan.layers.len() + usize::from(plan.base.is_some());
                if json!(layers) != record["layers"] && case.bases.is_empty() {
                    wrong.push(format!("{name}: {layers} layers, not {}", record["layers"]));
                }
            }
            (Err(error), None) => wrong.push(format!("{name}: refused: {error}")),
            // Refused while it runs, by what plans do not know.
            (Ok(_), Some(_)) => {}
            (Err(error), Some(expected)) => {
                refused += 1;
                let recorded = expected.as_str().unwrap();
                let expected = case.says.as_deref().unwrap_or(recorded);
                if !error.contains(expected) && !expected.contains(&error) {
                    wrong.push(format!("{name}\n  refused  {error}\n  expected {expected}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        compared > 150 && refused > 20,
        "only {compared} compared, {refused} refused"
    );
}
