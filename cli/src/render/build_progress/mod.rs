//! Progress of builds as BuildKit shows it: redrawn in place, plain lines, raw JSON, or nothing.
//!
//! ```text
//! trace.rs   what is known of every step        screen.rs  the last lines a step wrote
//! plain.rs   trace → lines                      tty.rs     trace → a picture of the terminal's size
//! failure.rs why a build failed                 warnings.rs  what lints found, at the end
//! ```
//! Everything below this file is pure: time and the terminal's size come in as arguments.
//! Source: BuildKit `util/progress/progressui`, buildx `commands/build.go`.

pub(crate) mod failure;
mod plain;
mod screen;
mod trace;
mod tty;
mod warnings;

use crate::failure::Failure;
use crate::out;
use agent_api::build::{ProgressVertex, SolveStatus, SourceRange, VertexWarning};
use indexmap::IndexMap;
use jiff::Timestamp;
use plain::Plain;
use std::collections::BTreeSet;
use std::io::Write as _;
use trace::Trace;
use tty::Tty;

/// How progress is shown (`--progress`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Tty,
    Plain,
    RawJson,
    Quiet,
}

impl Mode {
    /// Reads the flag, else `BUILDKIT_PROGRESS`; `auto` is as it fits stderr.
    pub(crate) fn choose(flag: Option<&str>, quiet: bool) -> Result<Self, Failure> {
        let from_env = std::env::var("BUILDKIT_PROGRESS").unwrap_or_default();
        let word = match flag {
            Some(word) if word != "auto" => word,
            _ if quiet => "quiet",
            _ => from_env.as_str(),
        };
        match word {
            "" | "auto" if out::stderr_is_terminal() => Ok(Self::Tty),
            "" | "auto" | "plain" => Ok(Self::Plain),
            "tty" if out::stderr_is_terminal() => Ok(Self::Tty),
            "tty" => Err(Failure::new(
                1,
                "failed to get console: stderr is no terminal: use --progress plain",
            )),
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            other => Err(Failure::new(
                1,
                format!("invalid progress mode {other:?}: use auto, plain, tty, quiet or rawjson"),
            )),
        }
    }
}

/// Progress of one or several builds on stderr.
pub(crate) struct BuildProgress {
    trace: Trace,
    shown: Shown,
    warnings: Vec<VertexWarning>,
    /// Build and digest of the steps that are not shared with other builds.
    own: BTreeSet<(String, String)>,
    /// Steps that have started and not ended, by digest.
    running: IndexMap<String, ProgressVertex>,
}

enum Shown {
    Tty(Tty),
    Plain(Plain),
    RawJson,
    Quiet,
}

impl BuildProgress {
    /// `driver` is what buildx calls the kind of the builder: the first line says it.
    pub(crate) fn new(mode: Mode, driver: &str) -> Self {
        let shown = match mode {
            Mode::Tty => {
                let colour = std::env::var_os("NO_COLOR").is_none();
                Shown::Tty(Tty::new(&format!("{driver}:default"), colour))
            }
            Mode::Plain => {
                let headline = format!("building with \"default\" instance using {driver} driver");
                Shown::Plain(Plain::new(&headline))
            }
            Mode::RawJson => Shown::RawJson,
            Mode::Quiet => Shown::Quiet,
        };
        Self {
            trace: Trace::default(),
            shown,
            warnings: Vec::new(),
            own: BTreeSet::new(),
            running: IndexMap::new(),
        }
    }

    /// Whether [`BuildProgress::tick`] has something to do while nothing happens.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.shown, Shown::Tty(_) | Shown::Plain(_))
    }

    /// News of a build; `prefix` tells builds apart when there are several.
    pub(crate) fn update(&mut self, mut status: SolveStatus, prefix: &str) {
        if !prefix.is_empty() {
            if !matches!(self.shown, Shown::RawJson) {
                self.tell_apart(&mut status, prefix);
            }
            for vertex in &mut status.vertexes {
                vertex.name = prefixed(prefix, &vertex.name);
            }
        }
        self.take(status, Timestamp::now());
    }

    /// Shows news whose steps are told apart.
    fn take(&mut self, status: SolveStatus, now: Timestamp) {
        for vertex in &status.vertexes {
            if vertex.started.is_some() && vertex.completed.is_none() {
                let digest = vertex.digest.clone();
                self.running.insert(digest, vertex.clone());
            } else if vertex.completed.is_some() {
                self.running.shift_remove(&vertex.digest);
            }
        }
        if let Shown::RawJson = self.shown {
            if let Ok(line) = serde_json::to_string(&status) {
                out::note(line);
            }
            return;
        }
        for warning in &status.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
        self.trace.update(status, now);
        self.print_due(now);
    }

    /// The builds were given up: what still ran was cancelled, which nobody else tells any more.
    pub(crate) fn cancel(&mut self) {
        let now = Timestamp::now();
        if let Shown::Plain(plain) = &mut self.shown {
            // Ends come after what was said before them.
            show(&plain.print(&mut self.trace, now));
        }
        let status = cancelled(&self.running, self.trace.daemon_time(now));
        if !status.is_empty() {
            self.take(status, now);
        }
    }

    /// Steps of a build's own (loading its Dockerfile, exporting) may have the digest of another build's.
    fn tell_apart(&mut self, status: &mut SolveStatus, prefix: &str) {
        for vertex in &status.vertexes {
            if !vertex.name.starts_with('[') || vertex.name.starts_with("[internal]") {
                self.own.insert((prefix.to_owned(), vertex.digest.clone()));
            }
        }
        let own = &self.own;
        let rename = |digest: &mut String| {
            if own.contains(&(prefix.to_owned(), digest.clone())) {
                digest.push_str(prefix);
            }
        };
        status
            .vertexes
            .iter_mut()
            .for_each(|vertex| rename(&mut vertex.digest));
        status
            .statuses
            .iter_mut()
            .for_each(|part| rename(&mut part.vertex));
        status
            .logs
            .iter_mut()
            .for_each(|log| rename(&mut log.vertex));
        status
            .warnings
            .iter_mut()
            .for_each(|warning| rename(&mut warning.vertex));
    }

    /// Prints lines that are due.
    fn print_due(&mut self, now: Timestamp) {
        if let Shown::Plain(plain) = &mut self.shown
            && plain.is_due(&self.trace, now)
        {
            let text = plain.print(&mut self.trace, now);
            show(&text);
        }
    }

    /// Draws the picture again, or prints lines that have waited.
    pub(crate) fn tick(&mut self) {
        self.print_due(Timestamp::now());
        if let Shown::Tty(tty) = &mut self.shown {
            let text = tty.draw(&self.trace, Timestamp::now(), terminal_size(), false);
            show(&text);
        }
    }

    /// After the last update: everything is shown to its end, then the output of steps that failed.
    pub(crate) fn end(&mut self) {
        let now = Timestamp::now();
        let text = match &mut self.shown {
            Shown::Tty(tty) => tty.draw(&self.trace, now, terminal_size(), true),
            Shown::Plain(plain) => plain.print(&mut self.trace, now),
            Shown::RawJson | Shown::Quiet => return,
        };
        show(&text);
        show(&self.trace.error_logs());
    }

    /// What lints found; `expand` also says why and where, `hint` is how to ask for that.
    pub(crate) fn show_warnings(&self, expand: bool, hint: &str) {
        if matches!(self.shown, Shown::Tty(_) | Shown::Plain(_)) {
            let colour = out::stderr_is_terminal() && std::env::var_os("NO_COLOR").is_none();
            show(&warnings::render(&self.warnings, expand, hint, colour));
        }
    }
}

/// The lines of a file that ranges cover, marked, with some around them.
pub(crate) fn source_lines(file: &str, data: &[u8], ranges: &[SourceRange]) -> String {
    let ranges = ranges
        .iter()
        .map(|range| (range.start.line, range.end.line));
    warnings::lines_of(file, data, ranges)
}

/// The ends of steps that were cancelled.
fn cancelled(running: &IndexMap<String, ProgressVertex>, now: Timestamp) -> SolveStatus {
    let end = |vertex: &ProgressVertex| ProgressVertex {
        completed: Some(vertex.started.map_or(now, |start| start.max(now))),
        error: "context canceled".to_owned(),
        ..vertex.clone()
    };
    SolveStatus {
        vertexes: running.values().map(end).collect(),
        ..SolveStatus::default()
    }
}

/// `[web internal] load …` for `[internal] load …`.
fn prefixed(prefix: &str, name: &str) -> String {
    match name.strip_prefix('[') {
        Some(rest) => format!("[{prefix} {rest}"),
        None => format!("[{prefix}] {name}"),
    }
}

fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    match size.map(|size| (size.ws_col, size.ws_row)) {
        Some((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
        _ => (80, 10),
    }
}

/// Failing to show progress must not fail the build.
fn show(text: &str) {
    if !text.is_empty() {
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes());
        let _ = err.flush();
    }
}

#[cfg(test)]
mod tests;
