//! Digests of what configs and secrets contain, so that a changed file is a changed service.
//!
//! Reads files of the project, bounded in size; keeps nothing but digests. A file that cannot be read is recorded as
//! such: only a plan that needs it fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use compose_model::Project;
use ring::digest::{Context, SHA256};

use crate::state::{Content, Contents};

/// Largest file that is digested, bytes.
const MAX_FILE: u64 = 64 << 20;

/// Digests of all configs and secrets of a project that come from files. Blocking.
#[must_use]
pub fn contents(project: &Project) -> Contents {
    let configs = project
        .configs
        .iter()
        .map(|(key, config)| (key, config.file.as_deref()));
    let secrets = project
        .secrets
        .iter()
        .map(|(key, secret)| (key, secret.file.as_deref()));
    Contents {
        configs: digests(configs),
        secrets: digests(secrets),
    }
}

fn digests<'a>(
    files: impl Iterator<Item = (&'a String, Option<&'a str>)>,
) -> BTreeMap<String, Content> {
    files
        .filter_map(|(key, path)| {
            let content = match digest(path?) {
                Ok(digest) => Content::Digest(digest),
                Err(error) => Content::Unreadable(error.to_string()),
            };
            Some((key.clone(), content))
        })
        .collect()
}

/// SHA-256 of a file; a directory, which may be mounted too, has the same digest whatever it holds.
fn digest(path: &str) -> io::Result<String> {
    let file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    if !file.metadata()?.is_dir() {
        let mut file = file.take(MAX_FILE + 1);
        let mut total = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            total += read as u64;
            context.update(&buffer[..read]);
        }
        if total > MAX_FILE {
            return Err(io::Error::other(format!(
                "it has more than {} MiB",
                MAX_FILE >> 20
            )));
        }
    }
    Ok(hex::encode(context.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_a_missing_file_is_recorded() {
        let directory =
            std::env::temp_dir().join(format!("muster-contents-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("token");
        let project = |path: &str| -> Project {
            serde_json::from_value(
                serde_json::json!({"secrets": {"token": {"name": "token", "file": path}}}),
            )
            .unwrap()
        };
        let read = |path: &std::path::Path| {
            contents(&project(path.to_str().unwrap())).secrets["token"].clone()
        };
        std::fs::write(&path, "one").unwrap();
        let one = read(&path);
        std::fs::write(&path, "two").unwrap();
        let two = read(&path);
        assert_ne!(one, two);
        assert!(matches!(one, Content::Digest(_)));
        assert!(matches!(read(&directory), Content::Digest(_)));
        assert!(matches!(
            read(&directory.join("none")),
            Content::Unreadable(_)
        ));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
