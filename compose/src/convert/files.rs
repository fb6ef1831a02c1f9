//! Configs and secrets that are no files of the host: written into a container between its creation and its start.
//!
//! Like docker compose (`pkg/compose/secrets.go`): `content:` and `environment:` become files with the owner and mode
//! that the service asks for, root's and 0444 unless it says otherwise.

use std::fmt;
use std::io;

use agent_api::Client;
use agent_api::client::{ClientError, UploadOptions};
use compose_model::{FileReference, Project, ServiceConfig};

use super::mounts::{config_target, secret_target};

/// Permission bits unless the service says otherwise.
const MODE: u32 = 0o444;

/// A file to be written into a new container.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// `config KEY` or `secret KEY`.
    pub origin: String,
    /// Absolute path in the container.
    pub path: String,
    /// What is in it; never printed.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFile")
            .field("origin", &self.origin)
            .field("path", &self.path)
            .field("mode", &self.mode)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

/// The files of a service's containers.
///
/// # Errors
/// What cannot be made and why, for the user.
pub fn files(project: &Project, service: &ServiceConfig) -> Result<Vec<NewFile>, String> {
    let mut files = Vec::new();
    for reference in &service.secrets {
        let Some(secret) = project.secrets.get(&reference.source) else {
            continue;
        };
        let origin = format!("secret {}", reference.source);
        if let Some(variable) = &secret.environment {
            let content = from_environment(project, variable, &origin)?;
            files.push(file(origin, secret_target(reference), content, reference)?);
        }
    }
    for reference in &service.configs {
        let Some(config) = project.configs.get(&reference.source) else {
            continue;
        };
        let origin = format!("config {}", reference.source);
        let content = match (&config.content, &config.environment) {
            (Some(content), _) => content.clone(),
            (None, Some(variable)) => from_environment(project, variable, &origin)?,
            (None, None) => continue,
        };
        files.push(file(origin, config_target(reference), content, reference)?);
    }
    Ok(files)
}

fn from_environment(project: &Project, variable: &str, origin: &str) -> Result<String, String> {
    project
        .environment
        .get(variable)
        .cloned()
        .ok_or_else(|| format!("environment variable {variable:?} required by {origin} is not set"))
}

fn file(
    origin: String,
    path: String,
    content: String,
    reference: &FileReference,
) -> Result<NewFile, String> {
    let id = |what: &str, text: &Option<String>| match text.as_deref() {
        None | Some("") => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{what} {text:?} of {origin} must be a number")),
    };
    Ok(NewFile {
        uid: id("uid", &reference.uid)?,
        gid: id("gid", &reference.gid)?,
        mode: reference.mode.map_or(MODE, |mode| mode.0),
        origin,
        path,
        content,
    })
}

/// Writes the files into a container that does not run yet.
///
/// # Errors
/// Those of the engine.
pub async fn write(client: &Client, container: &str, files: &[NewFile]) -> Result<(), ClientError> {
    if files.is_empty() {
        return Ok(());
    }
    let options = UploadOptions {
        path: "/".to_owned(),
        ..UploadOptions::default()
    };
    let archive = archive(files).map(bytes::Bytes::from);
    let archive = futures_util::stream::once(async move { archive });
    client
        .write_container_archive(container, &options, archive)
        .await
}

/// The files as a tar.
fn archive(files: &[NewFile]) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        header.set_size(file.content.len() as u64);
        let path = file.path.trim_start_matches('/');
        builder.append_data(&mut header, path, file.content.as_bytes())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project() -> Project {
        let mut project: Project = serde_json::from_value(json!({
            "services": {"web": {
                "secrets": [{"source": "token", "uid": "70", "gid": "71", "mode": "0400"}],
                "configs": [{"source": "inline"}, {"source": "inline", "target": "/etc/app/deep.conf"}],
            }},
            "secrets": {"token": {"name": "token", "environment": "TOKEN"}},
            "configs": {"inline": {"name": "inline", "content": "x=1"}},
        }))
        .unwrap();
        project.environment.insert("TOKEN".into(), "hush".into());
        project
    }

    #[test]
    fn owner_mode_and_place_are_what_the_service_says() {
        let project = project();
        let files = files(&project, &project.services["web"]).unwrap();
        let bytes = archive(&files).unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
                (path, header.mode().unwrap(), uid, gid)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("run/secrets/token".to_owned(), 0o400, 70, 71),
                ("inline".to_owned(), 0o444, 0, 0),
                ("etc/app/deep.conf".to_owned(), 0o444, 0, 0),
            ]
        );
        assert!(!format!("{files:?}").contains("hush"));
    }

    #[test]
    fn what_is_not_set_or_no_number_is_said() {
        let mut project = project();
        project.environment.clear();
        let service = project.services["web"].clone();
        assert_eq!(
            files(&project, &service).unwrap_err(),
            r#"environment variable "TOKEN" required by secret token is not set"#
        );
        project.environment.insert("TOKEN".into(), String::new());
        project.services.get_mut("web").unwrap().secrets[0].uid = Some("app".into());
        assert_eq!(
            files(&project, &project.services["web"]).unwrap_err(),
            r#"uid "app" of secret token must be a number"#
        );
    }
}
