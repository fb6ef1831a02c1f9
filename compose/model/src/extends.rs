//! `extends`: a service that starts from another one, of the same file or another (compose-go `loader/extends.go`).
//!
//! Bases are resolved recursively, from the raw services of their file; relative paths of another file are made
//! absolute first. What a base refers to (networks, volumes, dependencies) is not imported.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::files;
use crate::merge;
use crate::pipeline::{Loader, Scope};
use crate::report::Failed;
use crate::schema;
use crate::span::Span;
use crate::tree::{Entry, Map, Mark, Node, Path as TreePath, Value};

/// Longest chain of `extends`.
const MAX_CHAIN: usize = 64;

/// Values that all `extends` of a document may copy.
const MAX_COPIED_NODES: usize = 1_000_000;

/// What one document's `extends` share.
#[derive(Default)]
struct Shared {
    /// Raw services of other files.
    files: HashMap<PathBuf, Map>,
    copied_nodes: usize,
}

/// A step of a chain, for cycles.
struct Link {
    file: PathBuf,
    service: String,
    span: Span,
}

/// Resolves the `extends` of all services of a document.
pub(crate) fn apply(
    loader: &mut Loader<'_>,
    document: &mut Node,
    file: &Path,
    scope: &Scope,
) -> Result<(), Failed> {
    let Some(services) = document.get_mut("services").and_then(Node::as_map_mut) else {
        return Ok(());
    };
    let names: Vec<String> = services.keys().cloned().collect();
    let mut shared = Shared::default();
    for name in names {
        let mut chain = Vec::new();
        resolve(
            loader,
            services,
            &name,
            file,
            scope,
            &mut chain,
            &mut shared,
        )?;
    }
    loader.report.check()
}

/// Replaces `services[name]` by its merged form.
fn resolve(
    loader: &mut Loader<'_>,
    services: &mut Map,
    name: &str,
    file: &Path,
    scope: &Scope,
    chain: &mut Vec<Link>,
    shared: &mut Shared,
) -> Result<(), Failed> {
    let Some(entry) = services.get(name) else {
        return Ok(());
    };
    let Some(extends) = entry.node.get("extends") else {
        return Ok(());
    };
    let span = extends.span;
    if chain
        .iter()
        .any(|link| link.file == file && link.service == name)
    {
        return Err(cycle(loader, chain, file, name, span));
    }
    if chain.len() >= MAX_CHAIN {
        let message = format!("extends chain longer than {MAX_CHAIN} services");
        return Err(loader.report.fail(Diagnostic::error(span, message)));
    }
    let (base_name, base_file) = match &extends.value {
        Value::Str(service) => (service.clone(), None),
        Value::Map(_) => match extends.get_str("service") {
            Some(service) => (service.to_owned(), extends.get("file").cloned()),
            None => {
                let message = format!("services.{name}.extends needs `service`");
                return Err(loader.report.fail(Diagnostic::error(span, message)));
            }
        },
        // The schema check says what it must be.
        _ => return Ok(()),
    };
    chain.push(Link {
        file: file.to_owned(),
        service: name.to_owned(),
        span,
    });
    let base = match base_file {
        None => {
            check_exists(loader, services, name, &base_name, file, span)?;
            resolve(loader, services, &base_name, file, scope, chain, shared)?;
            services.get(&base_name).map(|entry| entry.node.clone())
        }
        Some(base_file) => {
            let path = base_path(loader, &base_file, scope)?;
            let mut others = match shared.files.remove(&path) {
                Some(services) => services,
                None => services_of(loader, &path, base_file.span, name, scope)?,
            };
            check_exists(loader, &others, name, &base_name, &path, span)?;
            resolve(loader, &mut others, &base_name, &path, scope, chain, shared)?;
            let base = others.get(&base_name).map(|entry| entry.node.clone());
            shared.files.insert(path, others);
            base
        }
    };
    chain.pop();
    if let (Some(base), Some(entry)) = (base, services.get_mut(name)) {
        shared.copied_nodes += base.count();
        if shared.copied_nodes > MAX_COPIED_NODES {
            let message = format!("extends copies more than {MAX_COPIED_NODES} values");
            return Err(loader.report.fail(Diagnostic::error(span, message)));
        }
        merge_over(loader, base, entry, name);
    }
    Ok(())
}

fn merge_over(loader: &mut Loader<'_>, mut base: Node, entry: &mut Entry, name: &str) {
    merge::strip_marks(&mut base);
    let span = entry.node.span;
    let mut service = std::mem::replace(&mut entry.node, Node::null(span));
    let mark = std::mem::replace(&mut service.mark, Mark::Merge);
    if let Some(map) = service.as_map_mut() {
        map.shift_remove("extends");
    }
    if let Some(map) = base.as_map_mut() {
        map.shift_remove("extends");
    }
    let root = TreePath::ROOT;
    let services = root.key("services");
    let path = services.key(name);
    let mut merged = merge::merge(&mut loader.report, base, service, &path);
    merged.mark = mark;
    entry.node = merged;
}

fn check_exists(
    loader: &mut Loader<'_>,
    services: &Map,
    name: &str,
    base: &str,
    file: &Path,
    span: Span,
) -> Result<(), Failed> {
    if services.contains_key(base) {
        return Ok(());
    }
    let file = loader.shown(file);
    let message = format!("cannot extend service {name}: there is no service {base} in {file}");
    let mut diagnostic = Diagnostic::error(span, message);
    if let Some(near) = schema::nearest(base, services.keys().map(String::as_str)) {
        diagnostic = diagnostic.with_help(format!("did you mean `{near}`?"));
    }
    Err(loader.report.fail(diagnostic))
}

fn base_path(loader: &mut Loader<'_>, file: &Node, scope: &Scope) -> Result<PathBuf, Failed> {
    let Some(name) = file.as_str() else {
        let message = format!("extends.file must be text, not {}", file.kind());
        return Err(loader.report.fail(Diagnostic::error(file.span, message)));
    };
    if files::is_remote(name) {
        return Err(loader.report.fail(remote(file.span, name)));
    }
    Ok(loader.absolute(&scope.working_dir, name))
}

/// The refusal of a file that is not on this machine.
pub(crate) fn remote(span: Span, name: &str) -> Diagnostic {
    Diagnostic::error(span, format!("compose files from {name} are not supported"))
        .with_help("fetch it to this machine and name the local file")
}

/// The raw services of another file, with absolute paths.
fn services_of(
    loader: &mut Loader<'_>,
    file: &Path,
    cause: Span,
    name: &str,
    scope: &Scope,
) -> Result<Map, Failed> {
    let mut tree = Node::map(Map::new(), Span::NONE);
    for document in loader.documents(file, cause)?.iter() {
        let mut document = document.clone();
        loader.interpolate(&mut document, scope)?;
        loader.merge_document(&mut tree, document)?;
        loader.canonical(&mut tree)?;
    }
    let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
    loader.resolve_paths(&mut tree, &directory);
    loader.report.check()?;
    let services = tree
        .as_map_mut()
        .and_then(|map| map.shift_remove("services"));
    match services.map(|entry| entry.node.value) {
        Some(Value::Map(services)) => Ok(services),
        _ => {
            let file = loader.shown(file);
            let message = format!("cannot extend service {name}: {file} has no services");
            Err(loader.report.fail(Diagnostic::error(cause, message)))
        }
    }
}

fn cycle(loader: &mut Loader<'_>, chain: &[Link], file: &Path, name: &str, span: Span) -> Failed {
    let first = chain
        .iter()
        .position(|link| link.file == file && link.service == name)
        .unwrap_or(0);
    let mut path: Vec<&str> = chain[first..]
        .iter()
        .map(|link| link.service.as_str())
        .collect();
    path.push(name);
    let message = format!("services extend each other: {}", path.join(" -> "));
    let mut diagnostic = Diagnostic::error(span, message);
    for link in chain[first..].iter().filter(|link| link.span != span) {
        diagnostic = diagnostic.with_place(link.span, "extends the next one");
    }
    loader.report.fail(diagnostic)
}
