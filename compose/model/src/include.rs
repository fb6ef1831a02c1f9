//! `include`: projects whose services and resources become part of this one (compose-go `loader/include.go`).
//!
//! An included project has its own directory and `.env` (variables of the including project win). Where both define
//! the same service or resource, the including file is merged over the included one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::environment;
use crate::extends;
use crate::files;
use crate::merge;
use crate::pipeline::{Loader, Scope};
use crate::report::Failed;
use crate::span::Span;
use crate::tree::{Map, Node, Path as TreePath, Value};

/// Deepest nesting of includes.
const MAX_DEPTH: usize = 32;
/// What is taken over from an included project.
const KINDS: [&str; 6] = [
    "services", "volumes", "networks", "secrets", "configs", "models",
];

/// One entry of `include`, in long form.
struct Include {
    paths: Vec<(String, Span)>,
    project_directory: Option<String>,
    env_files: Option<Vec<(String, Span)>>,
}

/// Loads what a document includes and merges the document over it.
pub(crate) fn apply(
    loader: &mut Loader<'_>,
    document: &mut Node,
    file: &Path,
    scope: &Scope,
) -> Result<(), Failed> {
    let Some(entry) = document
        .as_map_mut()
        .and_then(|map| map.shift_remove("include"))
    else {
        return Ok(());
    };
    if entry.node.is_null() {
        return Ok(());
    }
    let Value::Seq(items) = &entry.node.value else {
        let message = format!("include must be a list, not {}", entry.node.kind());
        return Err(loader
            .report
            .fail(Diagnostic::error(entry.node.span, message)));
    };
    let mut including = scope.including.clone();
    including.push(file.to_owned());
    if including.len() > MAX_DEPTH {
        let message = format!("includes are nested more than {MAX_DEPTH} deep");
        return Err(loader
            .report
            .fail(Diagnostic::error(entry.node.span, message)));
    }
    for item in items {
        let include = long_form(loader, item)?;
        let imported = load(loader, &include, item.span, &including, scope)?;
        take_over(loader, document, imported);
    }
    loader.report.check()
}

fn long_form(loader: &mut Loader<'_>, item: &Node) -> Result<Include, Failed> {
    let texts = |node: &Node| -> Option<Vec<(String, Span)>> {
        let items = match &node.value {
            Value::Seq(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        items
            .iter()
            .map(|item| Some((item.as_str()?.to_owned(), item.span)))
            .collect()
    };
    let include = match &item.value {
        Value::Str(_) => texts(item).map(|paths| Include {
            paths,
            project_directory: None,
            env_files: None,
        }),
        Value::Map(map) => {
            let known = ["path", "project_directory", "env_file"];
            if let Some((key, entry)) = map.iter().find(|(key, _)| !known.contains(&key.as_str())) {
                let message = format!("unknown attribute `{key}` in include");
                return Err(loader.report.fail(
                    Diagnostic::error(entry.key, message)
                        .with_help("include knows path, project_directory and env_file"),
                ));
            }
            item.get("path").and_then(texts).map(|paths| Include {
                paths,
                project_directory: item.get_str("project_directory").map(str::to_owned),
                env_files: item.get("env_file").and_then(texts),
            })
        }
        _ => None,
    };
    match include {
        Some(include) if !include.paths.is_empty() => Ok(include),
        _ => {
            let message = "an include must be a path, or a mapping with `path`";
            Err(loader.report.fail(Diagnostic::error(item.span, message)))
        }
    }
}

fn load(
    loader: &mut Loader<'_>,
    include: &Include,
    span: Span,
    including: &[PathBuf],
    scope: &Scope,
) -> Result<Node, Failed> {
    let mut files = Vec::new();
    for (path, span) in &include.paths {
        if files::is_remote(path) {
            return Err(loader.report.fail(extends::remote(*span, path)));
        }
        files.push((loader.absolute(&scope.working_dir, path), *span));
    }
    let main = &files[0].0;
    if including.contains(main) {
        let mut steps: Vec<String> = including.iter().map(|file| loader.shown(file)).collect();
        steps.push(loader.shown(main));
        let message = format!("files include each other: {}", steps.join(" -> "));
        return Err(loader.report.fail(Diagnostic::error(span, message)));
    }
    let working_dir = match &include.project_directory {
        Some(directory) => loader.absolute(&scope.working_dir, directory),
        None => main.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let environment = environment_of(loader, include, &working_dir, scope)?;
    let inner = Scope {
        working_dir,
        environment,
        including: including.to_vec(),
    };
    loader.model(&files, &inner)
}

fn environment_of(
    loader: &mut Loader<'_>,
    include: &Include,
    working_dir: &Path,
    scope: &Scope,
) -> Result<BTreeMap<String, String>, Failed> {
    let mut files: Vec<(PathBuf, Span)> = Vec::new();
    match &include.env_files {
        Some(named) => {
            for (path, span) in named.iter().filter(|(path, _)| path != "/dev/null") {
                files.push((loader.absolute(&scope.working_dir, path), *span));
            }
        }
        None => {
            let path = working_dir.join(".env");
            if path.is_file() {
                files.push((path, Span::NONE));
            }
        }
    }
    environment::extend(loader, &scope.environment, &files)
}

/// Merges the document over what it imports.
fn take_over(loader: &mut Loader<'_>, document: &mut Node, mut imported: Node) {
    let span = document.span;
    for kind in KINDS {
        let entry = imported.as_map_mut().and_then(|map| map.shift_remove(kind));
        let Some(Value::Map(resources)) = entry.map(|entry| entry.node.value) else {
            continue;
        };
        let Some(map) = document.as_map_mut() else {
            continue;
        };
        let local = map
            .entry(kind.to_owned())
            .or_insert_with(|| crate::tree::Entry::at(Node::map(Map::new(), span)));
        if local.node.is_null() {
            local.node.value = Value::Map(Map::new());
        }
        let Some(local) = local.node.as_map_mut() else {
            continue;
        };
        let root = TreePath::ROOT;
        let kind = root.key(kind);
        for (name, resource) in resources {
            match local.get_mut(&name) {
                None => {
                    local.insert(name, resource);
                }
                Some(own) => {
                    let span = own.node.span;
                    let over = std::mem::replace(&mut own.node, Node::null(span));
                    own.node =
                        merge::merge(&mut loader.report, resource.node, over, &kind.key(&name));
                }
            }
        }
    }
}
