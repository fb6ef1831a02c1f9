//! Digests of what configs and secrets contain, so that a changed file is a changed service.
//!
//! Reads files of the project, bounded in size; keeps nothing but digests. A file that cannot be read is recorded as
//! such: only a plan that needs it fails.

use std::fs::File;
use std::io::{self, Read};

use compose_model::Project;
use ring::digest::{Context, SHA256};

use crate::state::{Content, Contents};

/// Largest file that is digested, bytes.
const MAX_FILE: u64 = 64 << 20;

/// Digests of all configs and secrets of a project that can be given to a container. Blocking.
#[must_use]
pub fn contents(project: &Project) -> Contents {
    let variable = |name: &Option<String>| project.environment.get(name.as_ref()?);
    let configs = project.configs.iter().filter_map(|(key, config)| {
        let text = config
            .content
            .as_ref()
            .or_else(|| variable(&config.environment));
        Some((key.clone(), content(config.file.as_ref(), text)?))
    });
    let secrets = project.secrets.iter().filter_map(|(key, secret)| {
        let text = variable(&secret.environment);
        Some((key.clone(), content(secret.file.as_ref(), text)?))
    });
    Contents {
        configs: configs.collect(),
        secrets: secrets.collect(),
    }
}

fn content(path: Option<&String>, text: Option<&String>) -> Option<Content> {
    let Some(path) = path else {
        let digest = ring::digest::digest(&SHA256, text?.as_bytes());
        return Some(Content::Digest(hex::encode(digest)));
    };
    Some(match digest(path) {
        Ok(digest) => Content::Digest(digest),
        Err(error) => Content::Unreadable(error.to_string()),
    })
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

    #[test]
    fn text_and_variables_count_like_files() {
        let mut project: Project = serde_json::from_value(serde_json::json!({
            "configs": {"inline": {"name": "inline", "content": "x=1"}},
            "secrets": {"token": {"name": "token", "environment": "TOKEN"}},
        }))
        .unwrap();
        assert!(contents(&project).secrets.is_empty());
        project.environment.insert("TOKEN".into(), "one".into());
        let one = contents(&project);
        project.environment.insert("TOKEN".into(), "two".into());
        let two = contents(&project);
        assert_ne!(one.secrets["token"], two.secrets["token"]);
        assert_eq!(one.configs["inline"], two.configs["inline"]);
    }
}
