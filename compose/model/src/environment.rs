//! Environments: the variables a project is interpolated with, and what `env_file`, `label_file`, secrets and configs
//! take from files and from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::dotenv::{self, DotenvError};
use crate::files::ReadError;
use crate::pipeline::Loader;
use crate::report::Failed;
use crate::span::Span;
use crate::types::ServiceConfig;

/// `environment` and what the files add to it; what is in `environment` wins, later files win over earlier ones.
pub(crate) fn extend(
    loader: &mut Loader<'_>,
    environment: &BTreeMap<String, String>,
    files: &[(PathBuf, Span)],
) -> Result<BTreeMap<String, String>, Failed> {
    let mut added = BTreeMap::new();
    for (path, cause) in files {
        let lookup = |name: &str| environment.get(name).cloned();
        read_into(loader, path, *cause, dotenv::parse, &lookup, &mut added)?;
    }
    added.extend(
        environment
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    Ok(added)
}

type Parse = fn(&str, dotenv::Lookup<'_>, &mut BTreeMap<String, String>) -> Result<(), DotenvError>;

/// Reads one env file; `cause` is where it was named.
fn read_into(
    loader: &mut Loader<'_>,
    path: &Path,
    cause: Span,
    parse: Parse,
    lookup: dotenv::Lookup<'_>,
    values: &mut BTreeMap<String, String>,
) -> Result<(), Failed> {
    let text = match loader.read_text(path) {
        Ok(text) => text,
        Err(error) => {
            let mut diagnostic = Diagnostic::error(cause, error.message(path));
            if let ReadError::Missing = error {
                diagnostic = diagnostic.with_help("create it, or correct the path");
            }
            return Err(loader.report.fail(diagnostic));
        }
    };
    parse(&text, lookup, values).map_err(|error| {
        let name = loader.shown(path);
        let file = loader.report.sources.add(name, text.clone());
        let span = Span {
            file,
            start: u32::try_from(error.at.start).unwrap_or(0),
            end: u32::try_from(error.at.end).unwrap_or(0),
        };
        loader.report.fail(Diagnostic::error(span, error.message))
    })
}

/// Reads the env files of a service into its environment: `environment` wins over later files over earlier ones. In
/// the files, variables are looked up in the project's environment, then in the service's, then further up.
pub(crate) fn read_env_files(
    loader: &mut Loader<'_>,
    service: &mut ServiceConfig,
    project: &BTreeMap<String, String>,
) {
    if service.env_file.is_empty() {
        return;
    }
    let own = service.environment.clone();
    let lookup = |name: &str| match project.get(name) {
        Some(value) => Some(value.clone()),
        None => own.get(name).cloned().flatten(),
    };
    let mut values: BTreeMap<String, String> = own
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
        .collect();
    for file in std::mem::take(&mut service.env_file) {
        let path = PathBuf::from(&file.path);
        if !file.required.0 && !path.exists() {
            continue;
        }
        let parse: Parse = match file.format.as_deref() {
            None | Some("") => dotenv::parse,
            Some("raw") => dotenv::parse_raw,
            Some(other) => {
                let message = format!("unknown env_file format {other:?}");
                let diagnostic = Diagnostic::error(file.span, message);
                loader
                    .report
                    .error(diagnostic.with_help("the only other format is raw"));
                continue;
            }
        };
        if read_into(loader, &path, file.span, parse, &lookup, &mut values).is_err() {
            continue;
        }
    }
    let mut environment: BTreeMap<String, Option<String>> = values
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    environment.extend(own);
    service.environment = environment;
}

/// Reads the label files of a service into its labels; `labels` wins.
pub(crate) fn read_label_files(loader: &mut Loader<'_>, service: &mut ServiceConfig) {
    if service.label_file.is_empty() {
        return;
    }
    let mut labels = BTreeMap::new();
    for file in std::mem::take(&mut service.label_file) {
        let path = PathBuf::from(&file);
        let lookup = |_: &str| None;
        if read_into(
            loader,
            &path,
            service.span,
            dotenv::parse,
            &lookup,
            &mut labels,
        )
        .is_err()
        {
            continue;
        }
    }
    labels.extend(std::mem::take(&mut service.labels));
    service.labels = labels;
}
