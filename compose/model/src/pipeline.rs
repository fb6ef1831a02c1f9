//! The pipeline: files to one canonical tree, in compose-go's order (`loader/loader.go`), which differs from its
//! documentation: include comes before extends, and a file is merged before the result is validated.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::canonical::{self, Texts};
use crate::diagnostic::Diagnostic;
use crate::files::{self, ReadError};
use crate::merge;
use crate::normalize::BareArguments;
use crate::options::LoadOptions;
use crate::paths::{self, Base};
use crate::read;
use crate::report::{Failed, Report};
use crate::span::Span;
use crate::tree::{Map, Node, Path as TreePath, Value};
use crate::{check, extends, include, interpolate, normalize, schema, unicity};

/// Files that one project may read, counting repetitions.
const MAX_FILES: usize = 10_000;
/// Bytes that one project may read.
const MAX_BYTES: usize = 256 << 20;

/// What is common to all files of a load.
pub(crate) struct Loader<'o> {
    pub(crate) options: &'o LoadOptions,
    pub(crate) report: Report,
    documents: HashMap<PathBuf, Rc<Vec<Node>>>,
    files_read: usize,
    bytes_read: usize,
}

/// What differs between the project and the projects it includes.
pub(crate) struct Scope {
    /// Absolute directory that relative paths start from.
    pub(crate) working_dir: PathBuf,
    /// Variables for interpolation.
    pub(crate) environment: BTreeMap<String, String>,
    /// Files on the way here, outermost first, for cycles of include.
    pub(crate) including: Vec<PathBuf>,
}

impl<'o> Loader<'o> {
    pub(crate) fn new(options: &'o LoadOptions) -> Self {
        Loader {
            options,
            report: Report::default(),
            documents: HashMap::new(),
            files_read: 0,
            bytes_read: 0,
        }
    }

    /// The user's home directory, from the environment of the options.
    pub(crate) fn home(&self) -> Option<&'o str> {
        self.options.environment.get("HOME").map(String::as_str)
    }

    /// A path made absolute against `directory`, `~` expanded.
    pub(crate) fn absolute(&self, directory: &Path, path: &str) -> PathBuf {
        let base = Base {
            directory,
            home: self.home(),
        };
        PathBuf::from(base.absolute(path))
    }

    /// A path for messages: relative to the current directory where that is shorter.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.options.current_dir)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Loads files over each other and completes the result: the tree of a project or an included project.
    pub(crate) fn model(
        &mut self,
        files: &[(PathBuf, Span)],
        scope: &Scope,
    ) -> Result<Node, Failed> {
        let mut tree = Node::map(Map::new(), Span::NONE);
        for (file, cause) in files {
            self.file(&mut tree, file, *cause, scope)?;
        }
        normalize::set_defaults(&mut tree);
        check::validate(&mut self.report, &tree);
        if self.options.stages.resolve_paths {
            self.resolve_paths(&mut tree, &scope.working_dir);
        }
        self.report.check()?;
        let arguments = match self.options.stages.normalize {
            true => BareArguments::Resolve,
            false => BareArguments::Leave,
        };
        normalize::resolve_bare_variables(&mut tree, &scope.environment, arguments);
        Ok(tree)
    }

    /// Merges one file over `tree`.
    fn file(
        &mut self,
        tree: &mut Node,
        file: &Path,
        cause: Span,
        scope: &Scope,
    ) -> Result<(), Failed> {
        let documents = self.documents(file, cause)?;
        for document in documents.iter() {
            let mut document = document.clone();
            self.interpolate(&mut document, scope)?;
            include::apply(self, &mut document, file, scope)?;
            extends::apply(self, &mut document, file, scope)?;
            self.merge_document(tree, document)?;
            schema::validate(&mut self.report, tree);
            self.report.check()?;
            self.drop_version(tree);
            self.canonical(tree)?;
        }
        Ok(())
    }

    /// The documents of a file, parsed once per load.
    pub(crate) fn documents(&mut self, file: &Path, cause: Span) -> Result<Rc<Vec<Node>>, Failed> {
        if let Err(error) = self.count_file(0) {
            let message = error.message(file);
            return Err(self.report.fail(Diagnostic::error(cause, message)));
        }
        if let Some(documents) = self.documents.get(file) {
            return Ok(documents.clone());
        }
        let text = match (file.as_os_str() == "-", &self.options.stdin) {
            (true, Some(text)) => text.clone(),
            (true, None) => {
                let message = "the file - is standard input, but there is none";
                return Err(self.report.fail(Diagnostic::error(cause, message)));
            }
            (false, _) => match self.read_text(file) {
                Ok(text) => text,
                Err(error) => {
                    let message = error.message(file);
                    return Err(self.report.fail(Diagnostic::error(cause, message)));
                }
            },
        };
        let name = self.shown(file);
        let id = self.report.sources.add(name, text);
        let documents = Rc::new(read::documents(&mut self.report, id)?);
        self.documents.insert(file.to_owned(), documents.clone());
        Ok(documents)
    }

    /// The text of a file, within the limits of the project.
    pub(crate) fn read_text(&mut self, file: &Path) -> Result<String, ReadError> {
        let text = files::read_text(file)?;
        self.count_file(text.len())?;
        Ok(text)
    }

    fn count_file(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.files_read += 1;
        self.bytes_read += bytes;
        if self.files_read <= MAX_FILES && self.bytes_read <= MAX_BYTES {
            return Ok(());
        }
        Err(ReadError::Other(format!(
            "the project reads more than {MAX_FILES} files or {} MiB",
            MAX_BYTES >> 20
        )))
    }

    /// Checks that a document is a mapping and replaces its variables.
    pub(crate) fn interpolate(&mut self, document: &mut Node, scope: &Scope) -> Result<(), Failed> {
        if document.as_map().is_none() {
            let message = format!("a Compose file must be a mapping, not {}", document.kind());
            return Err(self.report.fail(
                Diagnostic::error(document.span, message)
                    .with_help("start with `services:` and the services below it"),
            ));
        }
        if self.options.stages.interpolate {
            interpolate::document(&mut self.report, document, &scope.environment);
        }
        self.report.check()
    }

    /// Merges a document over a tree and makes sequences unique.
    pub(crate) fn merge_document(&mut self, tree: &mut Node, document: Node) -> Result<(), Failed> {
        let below = std::mem::replace(tree, Node::null(Span::NONE));
        *tree = merge::merge(&mut self.report, below, document, &TreePath::ROOT);
        merge::strip_marks(tree);
        unicity::enforce(tree);
        self.report.check()
    }

    /// Long forms, unique again.
    pub(crate) fn canonical(&mut self, tree: &mut Node) -> Result<(), Failed> {
        let texts = match self.options.stages.interpolate {
            true => Texts::Interpolated,
            false => Texts::Raw,
        };
        canonical::document(&mut self.report, tree, texts);
        unicity::enforce(tree);
        self.report.check()
    }

    pub(crate) fn resolve_paths(&mut self, tree: &mut Node, directory: &Path) {
        let base = Base {
            directory,
            home: self.home(),
        };
        paths::resolve(&mut self.report, tree, &base);
    }

    fn drop_version(&mut self, tree: &mut Node) {
        if let Some(version) = tree
            .as_map_mut()
            .and_then(|map| map.shift_remove("version"))
        {
            self.report.warn(
                Diagnostic::warning(
                    version.key,
                    "the attribute `version` is obsolete and ignored",
                )
                .with_help("remove it"),
            );
        }
    }

    /// The last non-empty `name:` of the files, interpolated; text only.
    pub(crate) fn declared_name(
        &mut self,
        files: &[(PathBuf, Span)],
        environment: &BTreeMap<String, String>,
    ) -> Result<Option<(String, Span)>, Failed> {
        let mut declared = None;
        for (file, cause) in files {
            for document in self.documents(file, *cause)?.iter() {
                if let Some(name) = document.get("name")
                    && let Value::Str(text) = &name.value
                    && !text.is_empty()
                {
                    declared = Some((text.clone(), name.span));
                }
            }
        }
        let Some((text, span)) = declared else {
            return Ok(None);
        };
        if !self.options.stages.interpolate {
            return Ok(Some((text, span)));
        }
        let root = TreePath::ROOT;
        let path = root.key("name");
        let text = interpolate::value(&mut self.report, &text, span, &path, environment);
        self.report.check()?;
        Ok(text.map(|text| (text, span)))
    }
}
