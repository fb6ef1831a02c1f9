//! COPY and ADD: what is copied from where, in which way.

use super::At;
use crate::dockerfile::{Add, Copy, Lines, SourcesAndDest};
use crate::plan::graph::Step;
use crate::plan::planner::Planner;
use crate::plan::stage::StateId;
use crate::plan::{
    Chmod, CopyOp, CopySource, GitAddress, HttpOp, InputIndex, Op, PlanError, VertexId, git, lints,
    name, path,
};
use crate::quote::quote;
use crate::redact::redacted;

/// An instruction that copies, variables replaced.
struct Copying<'c> {
    /// `COPY` or `ADD`.
    keyword: &'static str,
    paths: SourcesAndDest,
    chown: String,
    chmod: String,
    link: bool,
    parents: bool,
    excludes: &'c [String],
    /// COPY --from.
    from: Option<StateId>,
    /// ADD only.
    remote: Option<Remote>,
}

/// What ADD says about sources that are no paths.
struct Remote {
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    unpack: Option<bool>,
}

/// Sources under construction, and the inputs they read beside the root.
struct Sources {
    first_input: usize,
    inputs: Vec<VertexId>,
    list: Vec<CopySource>,
}

impl Sources {
    fn input(&mut self, vertex: VertexId) -> InputIndex {
        let known = self.inputs.iter().position(|input| *input == vertex);
        let at = known.unwrap_or_else(|| {
            self.inputs.push(vertex);
            self.inputs.len() - 1
        });
        InputIndex(self.first_input + at)
    }
}

impl Planner<'_> {
    pub(super) fn copy(
        &mut self,
        at: At<'_>,
        copy: &Copy,
        from: Option<StateId>,
    ) -> Result<(), PlanError> {
        let copying = Copying {
            keyword: "COPY",
            chown: self.word(at, &copy.chown)?,
            chmod: self.word(at, &copy.chmod)?,
            paths: self.paths(at, &copy.paths)?,
            link: copy.link,
            parents: copy.parents,
            excludes: &copy.exclude,
            from,
            remote: None,
        };
        if let Some(source) = from
            && !self.stages[source].dispatched
        {
            return Err(PlanError::invalid(format!(
                "cannot copy from stage {}, it needs to be defined before current stage {}",
                quote(copy.from.as_deref().unwrap_or_default()),
                quote(&self.stages[at.state].shown)
            )));
        }
        self.copy_files(at, &copying)
    }

    pub(super) fn add(&mut self, at: At<'_>, add: &Add) -> Result<(), PlanError> {
        let chown = self.word(at, &add.chown)?;
        let chmod = self.word(at, &add.chmod)?;
        let checksum = self.word(at, &add.checksum)?;
        let copying = Copying {
            keyword: "ADD",
            chown,
            chmod,
            paths: self.paths(at, &add.paths)?,
            link: add.link,
            parents: false,
            excludes: &add.exclude,
            from: None,
            remote: Some(Remote {
                checksum: Some(checksum).filter(|checksum| !checksum.is_empty()),
                keep_git_dir: add.keep_git_dir,
                unpack: add.unpack,
            }),
        };
        self.copy_files(at, &copying)
    }

    fn copy_files(&mut self, at: At<'_>, copying: &Copying<'_>) -> Result<(), PlanError> {
        let chmod = chmod(&copying.chmod)?;
        check_checksum(copying)?;
        let directory = self.stages[at.state].directory.clone();
        let destination = match copying.paths.dest.as_str() {
            "." | "" => "./",
            written => written,
        };
        let destination = path::from(&directory, destination, path::LastSlash::Keep);
        let (lexer, env) = (self.lexer, self.stages[at.state].env.clone());
        let name = self.instruction_name(at, &at.instruction.code, &lexer, &env);
        let name = redacted(&name).into_owned();

        let mut sources = Sources {
            first_input: self.first_input(at.state),
            inputs: Vec::new(),
            list: Vec::new(),
        };
        for written in &copying.paths.paths {
            let source = self.source(at, copying, written, &name, &mut sources)?;
            sources.list.push(source);
        }
        for content in &copying.paths.contents {
            sources.list.push(CopySource::Inline {
                name: content.name.clone(),
                content: content.data.clone(),
            });
        }
        let op = CopyOp {
            root: None,
            // With --chmod BuildKit copies onto the stage itself, whatever --link says.
            link: copying.link && chmod.is_none(),
            sources: sources.list,
            destination: path::clean_keeping_slash(&destination),
            chown: Some(copying.chown.clone()).filter(|chown| !chown.is_empty()),
            chmod,
            excludes: copying.excludes.to_vec(),
        };
        self.layer(at, name, sources.inputs, |root| {
            Op::Copy(CopyOp { root, ..op })
        });
        self.record(at.state, history_of(copying), true)
    }

    fn source(
        &mut self,
        at: At<'_>,
        copying: &Copying<'_>,
        written: &str,
        name: &str,
        sources: &mut Sources,
    ) -> Result<CopySource, PlanError> {
        let git =
            GitAddress::parse(written).map_err(|error| PlanError::invalid(error.to_string()))?;
        match (git, &copying.remote) {
            (Some(_), None) => Err(PlanError::invalid("source can't be a git ref for COPY")),
            (Some(address), Some(remote)) => {
                let op = git_op(address, remote)?;
                let vertex = self.remote(at, name, op);
                Ok(CopySource::Git {
                    input: sources.input(vertex),
                })
            }
            (None, None) if is_http(written) => {
                Err(PlanError::invalid("source can't be a URL for COPY"))
            }
            (None, Some(remote)) if is_http(written) => {
                if let Some(checksum) = &remote.checksum {
                    name::check_digest(checksum).map_err(PlanError::invalid)?;
                }
                let file_name = file_name(written);
                let op = Op::Http(HttpOp {
                    url: written.to_owned(),
                    file_name: file_name.clone(),
                    checksum: remote.checksum.clone(),
                });
                let vertex = self.remote(at, name, op);
                Ok(CopySource::Http {
                    input: sources.input(vertex),
                    file_name,
                    unpack: remote.unpack.unwrap_or(false),
                })
            }
            (None, remote) => {
                let unpack = remote
                    .as_ref()
                    .is_some_and(|remote| remote.unpack.unwrap_or(true));
                self.files(at, copying, written, unpack, sources)
            }
        }
    }

    /// A vertex that yields an empty file system: what is copied from an image of no layers.
    fn nothing(&mut self) -> VertexId {
        self.graph.add(Step {
            name: "[internal] empty file system".to_owned(),
            op: Op::Copy(CopyOp {
                root: None,
                link: false,
                sources: Vec::new(),
                destination: "/".to_owned(),
                chown: None,
                chmod: None,
                excludes: Vec::new(),
            }),
            inputs: Vec::new(),
            lines: Lines::default(),
            stage: None,
            no_cache: false,
        })
    }

    fn remote(&mut self, at: At<'_>, name: &str, op: Op) -> VertexId {
        let state = &self.stages[at.state];
        self.graph.add(Step {
            name: name.to_owned(),
            op,
            inputs: Vec::new(),
            lines: at.lines(),
            stage: state.label(),
            no_cache: state.no_cache,
        })
    }

    fn files(
        &mut self,
        at: At<'_>,
        copying: &Copying<'_>,
        written: &str,
        unpack: bool,
        sources: &mut Sources,
    ) -> Result<CopySource, PlanError> {
        let vertex = match copying.from {
            None => {
                lints::ignored_copy(self, at.instruction, copying.keyword, written);
                Some(self.main_context())
            }
            Some(source) => self.stages[source].root,
        };
        let vertex = vertex.unwrap_or_else(|| self.nothing());
        let input = sources.input(vertex);
        if !copying.parents {
            return Ok(CopySource::Paths {
                input,
                path: path::clean_keeping_slash(&path::from("/", written, path::LastSlash::Drop)),
                parents: None,
                required: Vec::new(),
                unpack,
            });
        }
        // `a/./b/c`: what is before the pivot is not part of the destination.
        let (pivot, pattern) = written.split_once("/./").unwrap_or(("/", written));
        let wildcards = path::has_wildcards(pivot) || path::has_wildcards(pattern);
        let required = path::join("/", &format!("{pivot}/{pattern}"));
        Ok(CopySource::Paths {
            input,
            path: path::clean_keeping_slash(&path::from("/", pivot, path::LastSlash::Drop)),
            parents: Some(path::join("/", pattern)[1..].to_owned()),
            required: if wildcards {
                Vec::new()
            } else {
                vec![required]
            },
            unpack,
        })
    }
}

fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// The name under which a download is stored: the last part of its address' path.
fn file_name(url: &str) -> String {
    let without_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = without_scheme.split(['?', '#']).next().unwrap_or_default();
    let place = place.split_once('/').map_or("", |(_, place)| place);
    let decoded = git::percent_decoded(place);
    let cleaned = path::join("/", &decoded);
    match path::base(&cleaned) {
        "/" | "." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn git_op(mut address: GitAddress, remote: &Remote) -> Result<Op, PlanError> {
    let keep = match (remote.keep_git_dir, address.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            return Err(PlanError::invalid(
                "inconsistent keep-git-dir configuration",
            ));
        }
        (flag, query) => query.or(flag).unwrap_or(false),
    };
    if let Some(checksum) = &remote.checksum {
        match &address.checksum {
            Some(query) if query != checksum => {
                let (flag, query) = (quote(checksum), quote(query));
                return Err(PlanError::invalid(format!(
                    "checksum mismatch {flag} != {query}"
                )));
            }
            _ => address.checksum = Some(checksum.clone()),
        }
    }
    Ok(Op::Git(address.op(keep)))
}

/// `--checksum` is for one remote source.
fn check_checksum(copying: &Copying<'_>) -> Result<(), PlanError> {
    let checksum = copying
        .remote
        .as_ref()
        .and_then(|remote| remote.checksum.as_ref());
    if checksum.is_none() {
        return Ok(());
    }
    let [source] = copying.paths.paths.as_slice() else {
        return Err(PlanError::invalid(
            "checksum can't be specified for multiple sources",
        ));
    };
    let git = matches!(GitAddress::parse(source), Ok(Some(_)));
    if !git && !is_http(source) {
        return Err(PlanError::invalid(
            "checksum requires HTTP(S) or Git sources",
        ));
    }
    Ok(())
}

/// `--chmod`: octal, or the words of chmod(1).
fn chmod(written: &str) -> Result<Option<Chmod>, PlanError> {
    if written.is_empty() {
        return Ok(None);
    }
    let octal = u32::from_str_radix(written, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    if let Some(mode) = octal.filter(|_| !written.starts_with('+')) {
        return Ok(Some(Chmod::Octal(mode)));
    }
    if written.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(PlanError::invalid(format!(
            "invalid chmod parameter: '{written}'. it should be octal string and between 0 and 07777"
        )));
    }
    if !is_symbolic_mode(written) {
        return Err(PlanError::invalid(format!(
            "invalid chmod parameter: '{written}': invalid syntax"
        )));
    }
    Ok(Some(Chmod::Symbolic(written.to_owned())))
}

/// Clauses of whom (`ugoa`), and one or more changes (`+`, `-` or `=` and any of `rwxXstugo`), between commas.
fn is_symbolic_mode(text: &str) -> bool {
    text.split(',').all(|clause| {
        let changes = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let valid = |c: char| "+-=rwxXstugo".contains(c);
        changes.starts_with(['+', '-', '=']) && changes.chars().all(valid)
    })
}

fn history_of(copying: &Copying<'_>) -> String {
    let mut line = copying.keyword.to_owned();
    if copying.parents {
        line += " --parents";
    }
    if !copying.chown.is_empty() {
        line += &format!(" --chown={}", copying.chown);
    }
    if !copying.chmod.is_empty() {
        line += &format!(" --chmod={}", copying.chmod);
    }
    for path in &copying.paths.paths {
        line += &format!(" {}", redacted(path));
    }
    for content in &copying.paths.contents {
        line += &format!(" <<{}", content.name);
    }
    format!("{line} {} # buildkit", copying.paths.dest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_or_symbolic() {
        for (written, read) in [
            ("755", Some(Chmod::Octal(0o755))),
            ("07777", Some(Chmod::Octal(0o7777))),
            ("u=rwX,go-w", Some(Chmod::Symbolic("u=rwX,go-w".to_owned()))),
            ("+x", Some(Chmod::Symbolic("+x".to_owned()))),
            ("go=u-w", Some(Chmod::Symbolic("go=u-w".to_owned()))),
            ("", None),
        ] {
            assert_eq!(chmod(written).unwrap(), read, "{written}");
        }
        for written in ["10000", "8", "75a", "u", "rw", "u+q", "u+x,", "abc"] {
            let error = chmod(written).unwrap_err().to_string();
            assert!(
                error.starts_with("invalid chmod parameter"),
                "{written}: {error}"
            );
        }
    }

    #[test]
    fn a_download_is_named_by_its_address() {
        for (url, name) in [
            ("https://h/a/b.tgz?x=1#y", "b.tgz"),
            ("https://h/a%20b", "a b"),
            ("https://h/a/", "a"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
