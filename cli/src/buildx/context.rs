//! Which daemon Docker's own settings name: a plugin has to speak to the one that the command line speaks to.
//! Source: docker/cli `cli/command/cli.go:resolveContextName`, `cli/context/store`.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where Docker's command line looks when nothing is said.
const DOCKERS_DEFAULT: &str = "unix:///var/run/docker.sock";

/// `config.json`, as far as it is about contexts.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

/// A context's `meta.json`.
#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// The address, and what it comes from: `-H` beats `-c` beats `DOCKER_HOST` beats `DOCKER_CONTEXT` beats the
/// configuration's context beats the default.
pub(crate) fn daemon(
    host: Option<String>,
    context: Option<String>,
    config: Option<PathBuf>,
) -> Result<(String, &'static str), String> {
    let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(host) = host {
        return Ok((host, "--host"));
    }
    let directory = config
        .or_else(|| env("DOCKER_CONFIG").map(PathBuf::from))
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".docker")));
    if context.is_none()
        && let Some(host) = env("DOCKER_HOST")
    {
        return Ok((host, "DOCKER_HOST"));
    }
    let name = match context.or_else(|| env("DOCKER_CONTEXT")) {
        Some(name) => name,
        None => directory
            .as_deref()
            .map(current)
            .transpose()?
            .unwrap_or_default(),
    };
    match (name.as_str(), directory) {
        ("" | "default", _) => Ok((DOCKERS_DEFAULT.to_owned(), "docker's default")),
        (name, Some(directory)) => Ok((find(&directory, name)?, "docker's context")),
        (name, None) => Err(format!("context {name:?} not found: there is no HOME")),
    }
}

fn current(directory: &Path) -> Result<String, String> {
    let path = directory.join("config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let config: ConfigFile = serde_json::from_str(&text)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(config.current_context)
}

/// The directory of a context is called by the digest of its name; the name itself is in its file.
fn find(directory: &Path, name: &str) -> Result<String, String> {
    let all = directory.join("contexts/meta");
    let entries = std::fs::read_dir(&all).into_iter().flatten().flatten();
    for entry in entries {
        let meta = std::fs::read(entry.path().join("meta.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<Meta>(&text).ok());
        if let Some(meta) = meta.filter(|meta| meta.name == name) {
            let endpoint = meta
                .endpoints
                .docker
                .filter(|endpoint| !endpoint.host.is_empty());
            return endpoint
                .map(|endpoint| endpoint.host)
                .ok_or_else(|| format!("context {name:?} names no docker endpoint"));
        }
    }
    Err(format!("context {name:?} not found in {}", all.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_found_by_their_name() {
        let directory = tempfile::tempdir().unwrap();
        let meta = directory.path().join("contexts/meta/abc");
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///far.sock"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let config = || Some(directory.path().to_owned());
        let named = daemon(None, Some("far".to_owned()), config()).unwrap();
        assert_eq!(named.0, "unix:///far.sock");
        assert!(daemon(None, Some("near".to_owned()), config()).is_err());
        let given = daemon(
            Some("unix:///x".to_owned()),
            Some("far".to_owned()),
            config(),
        );
        assert_eq!(given.unwrap().0, "unix:///x");
        std::fs::write(
            directory.path().join("config.json"),
            r#"{"currentContext": "far"}"#,
        )
        .unwrap();
        assert_eq!(current(directory.path()).unwrap(), "far");
        let default = daemon(None, Some("default".to_owned()), config()).unwrap();
        assert_eq!(default.0, DOCKERS_DEFAULT);
    }
}
