//! Makes relative paths absolute, in the canonical tree (compose-go `paths/resolve.go`). Lexical: nothing is looked up
//! in the file system.

use std::path::Path as FsPath;

use crate::canonical;
use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::tree::{Node, Path, Value};

/// What paths are relative to.
pub(crate) struct Base<'a> {
    /// Absolute directory.
    pub(crate) directory: &'a FsPath,
    /// The user's home for a leading `~`.
    pub(crate) home: Option<&'a str>,
}

impl Base<'_> {
    /// The absolute, cleaned form of `path`.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let expanded = match (path.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) => canonical::clean(&format!("{home}/{rest}")),
            _ => path.to_owned(),
        };
        if expanded.starts_with('/') || is_windows_path(&expanded) {
            return expanded;
        }
        canonical::clean(&format!("{}/{expanded}", self.directory.display()))
    }
}

/// Resolves all paths below `tree`.
pub(crate) fn resolve(report: &mut Report, tree: &mut Node, base: &Base<'_>) {
    tree.walk_mut(
        &Path::ROOT,
        &mut |node, path| match path.steps().as_slice() {
            ["services", _, "build", "context"]
            | ["services", _, "build", "additional_contexts", _] => context(node, base),
            ["services", _, "build", "ssh", _]
            | ["services", _, "env_file", "[]", "path"]
            | ["services", _, "label_file", "[]"]
            | ["services", _, "extends", "file"]
            | ["services", _, "develop", "watch", "[]", "path"]
            | ["configs" | "secrets", _, "file"] => text(node, base),
            ["services", _, "volumes", "[]"] if node.get_str("type") == Some("bind") => {
                match node.get_mut("source") {
                    Some(source) => text(source, base),
                    None => report.error(
                        Diagnostic::error(
                            node.span,
                            format!("{path} is a bind mount without `source`"),
                        )
                        .with_help("name the host path in `source`"),
                    ),
                }
            }
            ["volumes", _] => local_bind(node, base),
            _ => {}
        },
    );
}

fn text(node: &mut Node, base: &Base<'_>) {
    if let Value::Str(path) = &mut node.value
        && !path.is_empty()
    {
        *path = base.absolute(path);
    }
}

fn context(node: &mut Node, base: &Base<'_>) {
    let remote = node.as_str().is_some_and(|path| {
        path.contains("://")
            || ["service:", "github.com/", "git@"]
                .iter()
                .any(|prefix| path.starts_with(prefix))
    });
    if !remote {
        text(node, base);
    }
}

/// The device of a volume that the local driver binds.
fn local_bind(node: &mut Node, base: &Base<'_>) {
    if node.get_str("driver") != Some("local") {
        return;
    }
    if let Some(options) = node.get_mut("driver_opts")
        && options.get_str("o") == Some("bind")
        && let Some(device) = options.get_mut("device")
    {
        text(device, base);
    }
}

/// `C:\…`, `C:/…` and `\\server\…`: kept as they are.
fn is_windows_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    path.starts_with("\\\\")
        || (bytes.len() >= 3
            && bytes[0].is_ascii_alphabetic()
            && bytes[1] == b':'
            && matches!(bytes[2], b'\\' | b'/'))
}
