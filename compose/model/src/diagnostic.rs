//! Errors and warnings with a place, and how they look.
//!
//! A [`Diagnostic`] is data; nothing here decides whether a load goes on. Colour is the caller's choice.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::span::{Sources, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The project cannot be used.
    Error,
    /// The project can be used, perhaps not as intended.
    Warning,
}

/// Whether a message is rendered with terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// ASCII text.
    Plain,
    /// With ANSI colour.
    Coloured,
}

/// A further place that explains a problem, such as the first of two definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is there.
    pub text: String,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// The place; [`Span::NONE`] if it has none.
    pub span: Span,
    /// Text beside the caret, may be empty.
    pub label: String,
    /// Further places.
    pub labels: Vec<Label>,
    /// What to do next.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            span,
            label: String::new(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(span, message)
        }
    }

    /// Sets the text beside the caret.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn with_place(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// Sets the help line.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message as people read it: headline, place, source line with caret, help; no final newline.
    pub fn render(&self, sources: &Sources, style: Style) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        for snippet in self.snippets(sources) {
            group = group.element(snippet);
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }

    /// One snippet per file, the primary place's file first.
    fn snippets<'a>(
        &'a self,
        sources: &'a Sources,
    ) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let mut places: Vec<(Span, AnnotationKind, &str)> =
            vec![(self.span, AnnotationKind::Primary, self.label.as_str())];
        for label in &self.labels {
            places.push((label.span, AnnotationKind::Context, label.text.as_str()));
        }
        let mut snippets = Vec::new();
        let mut done: Vec<u32> = Vec::new();
        for (span, _, _) in &places {
            let Some(source) = sources.get(*span) else {
                continue;
            };
            if done.contains(&span.file) {
                continue;
            }
            done.push(span.file);
            let mut snippet = Snippet::source(source.text.as_str())
                .path(source.name.as_str())
                .fold(true);
            for (place, kind, text) in places.iter().filter(|place| place.0.file == span.file) {
                let mut annotation = kind.span(one_line(&source.text, *place));
                if !text.is_empty() {
                    annotation = annotation.label(*text);
                }
                snippet = snippet.annotation(annotation);
            }
            snippets.push(snippet);
        }
        snippets
    }
}

/// The part of a span that lies on its first line, on character boundaries; at least one character if the
/// line has one. A caret under a whole block would hide the message.
fn one_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let floor = |at: usize| {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start as usize);
    let line_end = text[start..]
        .find(['\n', '\r'])
        .map_or(text.len(), |at| start + at);
    let end = floor(span.end as usize).clamp(start, line_end);
    let end = start + text[start..end].trim_end().len();
    if end > start {
        return start..end;
    }
    let next = text[start..line_end]
        .chars()
        .next()
        .map_or(0, char::len_utf8);
    start..start + next
}

/// All problems of a failed load, with the files they point into. `Display` renders them plainly.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// Errors, then the warnings met before; never without an error.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read.
    pub sources: Sources,
}

impl Diagnostics {
    /// Renders every problem, separated by empty lines; no final newline.
    pub fn render(&self, style: Style) -> String {
        let rendered: Vec<String> = self
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(&self.sources, style))
            .collect();
        rendered.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Diagnostics {}
