//! Secrets and configs of a stack: what they hold, and names that say it.
//!
//! A secret or config of a cluster never changes. So that editing a file and deploying again just works, the name of
//! what comes from a file, a variable or the text itself carries a digest of it: another content is another object, the
//! services that use it are rolled over to it, and the old one goes when nothing refers to it any more. A name that the
//! file gives with `name:` is kept as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU32;

use compose_model::{Config, Project, Secret};
use ring::pbkdf2;

/// Largest secret, bytes.
pub const MAX_SECRET: u64 = 500 << 10;
/// Largest config, bytes.
pub const MAX_CONFIG: u64 = 1000 << 10;
/// Bytes of the digest that a name carries.
const SUFFIX: usize = 5;
/// A secret may be a short word: guessing it from its name must cost something.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("it is not zero");

/// What the secrets and configs of a project hold, by key; what is not the project's own is not there.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Secrets.
    pub secrets: BTreeMap<String, Content>,
    /// Configs.
    pub configs: BTreeMap<String, Content>,
}

/// What one of them holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// This.
    Data(Vec<u8>),
    /// It cannot be read: why.
    Unreadable(String),
}

impl fmt::Debug for Content {
    /// Without the data, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Data(data) => write!(f, "Data({} bytes)", data.len()),
            Content::Unreadable(why) => write!(f, "Unreadable({why})"),
        }
    }
}

/// Reads what the secrets and configs of a project hold. Blocking; every file is bounded.
#[must_use]
pub fn read(project: &Project) -> Contents {
    let secrets = project.secrets.iter().filter_map(|(key, secret)| {
        let text = variable(project, secret.environment.as_ref());
        let content = content(secret.file.as_ref(), text, MAX_SECRET)?;
        Some((key.clone(), content))
    });
    let configs = project.configs.iter().filter_map(|(key, config)| {
        let text = config
            .content
            .as_ref()
            .map(Ok)
            .or_else(|| variable(project, config.environment.as_ref()));
        let content = content(config.file.as_ref(), text, MAX_CONFIG)?;
        Some((key.clone(), content))
    });
    Contents {
        secrets: secrets.collect(),
        configs: configs.collect(),
    }
}

/// The value of the variable that is asked for.
fn variable<'a>(project: &'a Project, name: Option<&String>) -> Option<Result<&'a String, String>> {
    let name = name?;
    let value = project.environment.get(name);
    Some(value.ok_or_else(|| format!("the environment variable {name} is not set")))
}

fn content(
    path: Option<&String>,
    text: Option<Result<&String, String>>,
    most: u64,
) -> Option<Content> {
    let data = match (path, text) {
        (Some(path), _) => file(path, most),
        (None, Some(text)) => text.map(|text| text.clone().into_bytes()),
        (None, None) => return None,
    };
    Some(
        match data.and_then(|data| match data.len() as u64 {
            0 => Err("it is empty".to_owned()),
            length if length > most => Err(too_large(most)),
            _ => Ok(data),
        }) {
            Ok(data) => Content::Data(data),
            Err(why) => Content::Unreadable(why),
        },
    )
}

fn too_large(most: u64) -> String {
    format!(
        "it has more than {} KiB, the most a cluster keeps",
        most >> 10
    )
}

fn file(path: &str, most: u64) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    file.take(most + 1)
        .read_to_end(&mut data)
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(data)
}

/// Name of a secret in the cluster.
pub(super) fn secret_name(project: &Project, key: &str, secret: &Secret, data: &[u8]) -> String {
    if !is_derived(project, key, &secret.name) {
        return secret.name.clone();
    }
    let mut digest = [0; SUFFIX];
    let salt = format!(
        "{}\0{}",
        secret.name,
        driver(secret.template_driver.as_ref())
    );
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        salt.as_bytes(),
        data,
        &mut digest,
    );
    format!("{}-{}", secret.name, hex::encode(digest))
}

/// Name of a config in the cluster.
pub(super) fn config_name(project: &Project, key: &str, config: &Config, data: &[u8]) -> String {
    if !is_derived(project, key, &config.name) {
        return config.name.clone();
    }
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(driver(config.template_driver.as_ref()).as_bytes());
    context.update(&[0]);
    context.update(data);
    let digest = context.finish();
    format!(
        "{}-{}",
        config.name,
        hex::encode(&digest.as_ref()[..SUFFIX])
    )
}

fn driver(driver: Option<&String>) -> &str {
    driver.map_or("", String::as_str)
}

/// Whether the name is the one the loader made, so that a digest may be added.
pub(super) fn is_derived(project: &Project, key: &str, name: &str) -> bool {
    name.strip_prefix(project.name.as_str())
        .and_then(|rest| rest.strip_prefix('_'))
        == Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project(config: serde_json::Value) -> Project {
        let mut project: Project = serde_json::from_value(json!({
            "name": "app",
            "services": {},
            "configs": {"inline": config},
            "secrets": {"token": {"name": "app_token", "environment": "TOKEN"}},
        }))
        .unwrap();
        project.environment.insert("TOKEN".into(), "hush".into());
        project
    }

    #[test]
    fn other_content_is_another_name() {
        let project = project(json!({"name": "app_inline", "content": "x=1"}));
        let config = &project.configs["inline"];
        let name = |data: &str| config_name(&project, "inline", config, data.as_bytes());
        assert_eq!(name("x=1"), name("x=1"));
        assert_ne!(name("x=1"), name("x=2"));
        assert!(name("x=1").starts_with("app_inline-"));
        let secret = &project.secrets["token"];
        let name = |data: &str| secret_name(&project, "token", secret, data.as_bytes());
        assert_eq!(name("hush"), name("hush"));
        assert_ne!(name("hush"), name("hush!"));
        assert_eq!(name("hush").len(), "app_token-".len() + 2 * SUFFIX);
    }

    #[test]
    fn a_name_of_the_file_is_kept() {
        let project = project(json!({"name": "mine", "content": "x=1"}));
        assert_eq!(
            config_name(&project, "inline", &project.configs["inline"], b"x=1"),
            "mine"
        );
    }

    #[test]
    fn contents_are_bounded_and_never_shown() {
        let mut large = project(json!({"name": "app_inline", "content": ""}));
        let contents = read(&large);
        assert_eq!(contents.secrets["token"], Content::Data(b"hush".to_vec()));
        assert!(!format!("{contents:?}").contains("hush"));
        assert!(
            matches!(&contents.configs["inline"], Content::Unreadable(why) if why == "it is empty")
        );
        large
            .environment
            .insert("TOKEN".into(), "x".repeat(512_001));
        assert!(
            matches!(&read(&large).secrets["token"], Content::Unreadable(why) if why.contains("500 KiB"))
        );
        large.environment.clear();
        assert!(
            matches!(&read(&large).secrets["token"], Content::Unreadable(why) if why.contains("TOKEN"))
        );
    }
}
