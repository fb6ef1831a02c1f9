//! Where a project is and what it is called: files, directory, environment, name, from the options alone
//! (compose-go `cli/options.go`, docker compose `cmd/compose/compose.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::environment;
use crate::extends::remote;
use crate::files;
use crate::pipeline::Loader;
use crate::report::Failed;
use crate::span::Span;

/// What is known before the first file is interpreted.
pub(crate) struct Place {
    /// Absolute paths in order; `-` is standard input.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) working_dir: PathBuf,
    pub(crate) env_files: Vec<PathBuf>,
    /// Process environment and env files.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Finds the files and reads the env files. `.env` is read twice: beside the current or given directory, where it may
/// set COMPOSE_FILE, and beside the first file.
pub(crate) fn locate(loader: &mut Loader<'_>) -> Result<Place, Failed> {
    let options = loader.options;
    let mut files: Vec<PathBuf> = Vec::new();
    for file in &options.files {
        files.push(given_file(loader, file)?);
    }
    let before = directory(loader, &files);
    let mut env_files = env_files(loader, &before, Vec::new())?;
    let mut environment = read_environment(loader, &env_files, &options.environment)?;
    if files.is_empty() {
        files = match environment
            .get("COMPOSE_FILE")
            .filter(|list| !list.is_empty())
        {
            Some(list) => {
                let separator = environment.get("COMPOSE_PATH_SEPARATOR");
                let separator = separator.filter(|text| !text.is_empty());
                let separator = separator.map_or(":", String::as_str);
                let mut listed = Vec::new();
                for name in list.split(separator).filter(|name| !name.is_empty()) {
                    listed.push(given_file(loader, Path::new(name))?);
                }
                listed
            }
            None => discovered(loader, &before)?,
        };
    }
    let working_dir = directory(loader, &files);
    if working_dir != before {
        env_files = self::env_files(loader, &working_dir, env_files)?;
        environment = read_environment(loader, &env_files, &environment)?;
    }
    Ok(Place {
        files,
        working_dir,
        env_files,
        environment,
    })
}

/// `--project-directory`, else where the first file is, else the current directory.
fn directory(loader: &Loader<'_>, files: &[PathBuf]) -> PathBuf {
    let current = &loader.options.current_dir;
    if let Some(directory) = &loader.options.project_directory {
        return loader.absolute(current, &directory.to_string_lossy());
    }
    let first = files.iter().find(|file| file.as_os_str() != "-");
    let parent = first.and_then(|file| file.parent());
    parent.unwrap_or(current).to_owned()
}

fn given_file(loader: &mut Loader<'_>, file: &Path) -> Result<PathBuf, Failed> {
    if file.as_os_str() == "-" {
        return Ok(file.to_owned());
    }
    let name = file.to_string_lossy();
    if files::is_remote(&name) {
        return Err(loader.report.fail(remote(Span::NONE, &name)));
    }
    Ok(loader.absolute(&loader.options.current_dir, &name))
}

fn discovered(loader: &mut Loader<'_>, directory: &Path) -> Result<Vec<PathBuf>, Failed> {
    let Some(found) = files::discover(directory) else {
        let message = format!(
            "no compose file in {} or a directory above it",
            directory.display()
        );
        return Err(loader.report.fail(
            Diagnostic::error(Span::NONE, message)
                .with_help("create compose.yaml, or name a file with -f"),
        ));
    };
    if !found.passed_over.is_empty() {
        let names: Vec<String> = found
            .passed_over
            .iter()
            .map(|file| loader.shown(file))
            .collect();
        let used = loader.shown(&found.files[0]);
        let message = format!(
            "several compose files found: {used} is used, not {}",
            names.join(", ")
        );
        loader.report.warn(Diagnostic::warning(Span::NONE, message));
    }
    Ok(found.files)
}

/// `--env-file`, else COMPOSE_ENV_FILES, else `.env` in the directory, else what was used before.
fn env_files(
    loader: &mut Loader<'_>,
    directory: &Path,
    before: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, Failed> {
    let options = loader.options;
    let current = &options.current_dir;
    if !options.env_files.is_empty() {
        let files = options.env_files.iter();
        return Ok(files
            .map(|file| loader.absolute(current, &file.to_string_lossy()))
            .collect());
    }
    if let Some(list) = options
        .environment
        .get("COMPOSE_ENV_FILES")
        .filter(|list| !list.is_empty())
    {
        return Ok(list
            .split(',')
            .map(|file| loader.absolute(current, file.trim()))
            .collect());
    }
    match options
        .environment
        .get("COMPOSE_DISABLE_ENV_FILE")
        .map(String::as_str)
    {
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => {}
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => return Ok(before),
        Some(other) => {
            let message =
                format!("COMPOSE_DISABLE_ENV_FILE is {other:?}: it must be true or false");
            return Err(loader.report.fail(Diagnostic::error(Span::NONE, message)));
        }
    }
    let default = directory.join(".env");
    Ok(if default.is_file() {
        vec![default]
    } else {
        before
    })
}

fn read_environment(
    loader: &mut Loader<'_>,
    files: &[PathBuf],
    over: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Failed> {
    let files: Vec<(PathBuf, Span)> = files
        .iter()
        .map(|file| (file.clone(), Span::NONE))
        .collect();
    environment::extend(loader, over, &files)
}

/// The project's name: `-p`, COMPOSE_PROJECT_NAME, the last `name:` of the files, the directory's name. The first two
/// must be valid, the others are made so.
pub(crate) fn project_name(loader: &mut Loader<'_>, place: &Place) -> Result<String, Failed> {
    let from_environment = place.environment.get("COMPOSE_PROJECT_NAME");
    let exact = [
        ("-p", loader.options.project_name.as_ref()),
        ("COMPOSE_PROJECT_NAME", from_environment),
    ];
    for (origin, name) in exact {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            continue;
        };
        if normalized(name) == *name {
            return Ok(name.clone());
        }
        let message = format!("invalid project name {name:?} from {origin}");
        return Err(loader
            .report
            .fail(Diagnostic::error(Span::NONE, message).with_help(
                "use lower-case letters, digits, `-` and `_`, starting with a letter or digit",
            )));
    }
    let files: Vec<(PathBuf, Span)> = place
        .files
        .iter()
        .map(|file| (file.clone(), Span::NONE))
        .collect();
    let mut environment = place.environment.clone();
    let directory = place
        .working_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let directory = normalized(&directory);
    environment.insert("COMPOSE_PROJECT_NAME".into(), directory.clone());
    if let Some((declared, span)) = loader.declared_name(&files, &environment)?
        && !declared.is_empty()
    {
        let name = normalized(&declared);
        if name.is_empty() {
            let message = format!("invalid project name {declared:?}");
            return Err(loader
                .report
                .fail(Diagnostic::error(span, message).with_help("use letters and digits")));
        }
        return Ok(name);
    }
    if directory.is_empty() {
        let message = format!("{} gives no project name", place.working_dir.display());
        return Err(loader.report.fail(
            Diagnostic::error(Span::NONE, message).with_help("give one with -p or `name:`"),
        ));
    }
    Ok(directory)
}

/// Lower case; only `[a-z0-9_-]`; no `_` or `-` in front.
fn normalized(name: &str) -> String {
    let name: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    name.trim_start_matches(['_', '-']).to_owned()
}
