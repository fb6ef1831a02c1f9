//! What is written about finished builds: the image's id and the metadata file. Source: buildx `commands/build.go`.

use super::run::Results;
use crate::failure::Failure;
use agent_api::build::BuildResult;
use agent_api::client::WholeFile;
use serde_json::{Map, Value};
use std::io::Write as _;
use std::path::Path;

/// `--iidfile`: the image's id without a line end.
pub(crate) fn write_id(path: &Path, result: &BuildResult) -> Result<(), Failure> {
    write(path, result.image_id.as_bytes())
}

/// `--metadata-file` of one build.
pub(crate) fn write_metadata(path: &Path, result: &BuildResult) -> Result<(), Failure> {
    write_json(path, &metadata(result))
}

/// `--metadata-file` of several: an object by their names.
pub(crate) fn write_all_metadata(path: &Path, results: &Results) -> Result<(), Failure> {
    let all: Map<String, Value> = results
        .iter()
        .map(|(name, result)| (name.clone(), metadata(result)))
        .collect();
    write_json(path, &Value::Object(all))
}

/// Go writes maps in the order of their keys.
fn metadata(result: &BuildResult) -> Value {
    let mut members: Vec<_> = result.metadata.iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    let members = members
        .into_iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    Value::Object(members.collect())
}

fn write_json(path: &Path, value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(value).expect("JSON has a text");
    write(path, &text)
}

/// Whole or not at all, so that nobody reads half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = WholeFile::create(path, 0o666).and_then(|mut whole| {
        whole.write_all(bytes)?;
        whole.finish()
    });
    written.map_err(|error| Failure::new(1, format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_sorted_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta");
        let mut result = BuildResult {
            image_id: "sha256:1".to_owned(),
            ..BuildResult::default()
        };
        result.metadata.insert("image.name".to_owned(), json!("x"));
        result
            .metadata
            .insert("containerimage.digest".to_owned(), json!("sha256:2"));
        write_metadata(&path, &result).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\n  \"containerimage.digest\": \"sha256:2\",\n  \"image.name\": \"x\"\n}"
        );
        let all = Results::from([("web".to_owned(), result.clone())]);
        write_all_metadata(&path, &all).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["web"]["image.name"], "x");
        write_id(&path, &result).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"sha256:1");
        let error = write_id(&directory.path().join("no/where"), &result).unwrap_err();
        assert!(error.message.contains("no/where"), "{}", error.message);
    }
}
