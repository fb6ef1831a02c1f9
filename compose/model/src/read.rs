//! YAML text to trees, one per document: anchors, aliases, merge keys, duplicate keys, limits.
//!
//! The parser gives events; scalars are resolved by `scalar.rs`. Aliases are expanded by copying, under a budget,
//! so that a small file cannot become a large tree. Nothing here knows what Compose means by a key.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::diagnostic::Diagnostic;
use crate::report::{Failed, Report};
use crate::scalar;
use crate::span::Span;
use crate::tree::{Entry, Map, Mark, Node, Value};

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;
/// Values in one document; compose-go visits at most 100 000.
const MAX_NODES: usize = 250_000;
/// Values that anchors and aliases may copy in a document.
const MAX_COPIED_NODES: usize = 250_000;
/// Bytes of text that anchors and aliases may copy in a document.
const MAX_COPIED_BYTES: usize = 16 << 20;
/// Documents in one file.
const MAX_DOCUMENTS: usize = 1000;

/// Reads all documents of a file that was added to `report.sources` as number `file`. Empty documents are
/// left out.
pub(crate) fn documents(report: &mut Report, file: u32) -> Result<Vec<Node>, Failed> {
    let whole = Span {
        file,
        start: 0,
        end: 0,
    };
    let text = match report.sources.get(whole) {
        Some(source) => source.text.clone(),
        None => return Ok(Vec::new()),
    };
    let mut composer = Composer::new(report);
    let options = granit_parser::options! { emit_comments: false, block_nesting_limit: 100, flow_nesting_limit: 100 };
    for event in Parser::new_from_str_with_options(&text, options) {
        match event {
            Ok((event, span)) => composer.event(event, to_span(file, &text, &span))?,
            Err(error) => {
                let at = offset(&text, error.marker());
                let span = Span {
                    file,
                    start: at,
                    end: at,
                };
                return Err(report.fail(syntax_error(&text, span, &error.info())));
            }
        }
    }
    let documents = composer.documents;
    report.check()?;
    Ok(documents)
}

/// Words of the parser's messages, and what to do about such an error.
const HELP: [(&str, &str); 8] = [
    (
        "mapping values are not allowed",
        "quote a value that contains `: `, or add a missing `:` to the line above",
    ),
    ("multiline quoted scalar", "close the quote"),
    (
        "placement of ':'",
        "close the bracket or brace that is open",
    ),
    (
        "unexpected character",
        "quote a value that starts with this character",
    ),
    ("unknown anchor", "define the anchor above its use: `&name`"),
    (
        "expected '-' indicator",
        "a list and a mapping cannot be mixed: check the indentation",
    ),
    (
        "simple key expected",
        "a list and a mapping cannot be mixed, and a key needs a `:`",
    ),
    (
        "did not find expected key",
        "check the indentation of this line and the ones above",
    ),
];

/// A syntax error; tabs in the indentation get the explanation they need.
fn syntax_error(text: &str, span: Span, info: &str) -> Diagnostic {
    let start = (span.start as usize).min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let mut indentation = text[line_start..]
        .chars()
        .take_while(|c| matches!(c, ' ' | '\t'));
    let help = match indentation.any(|c| c == '\t') {
        true => Some("indent with spaces; YAML does not allow tabs there"),
        false => {
            let mut known = HELP.iter();
            known
                .find(|(words, _)| info.contains(words))
                .map(|(_, help)| *help)
        }
    };
    let diagnostic = Diagnostic::error(
        span,
        format!("invalid YAML: {}", info.trim_end_matches('.')),
    );
    match help {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

fn offset(text: &str, marker: &granit_parser::Marker) -> u32 {
    let at = marker.byte_offset().unwrap_or_else(|| {
        text.char_indices()
            .nth(marker.index())
            .map_or(text.len(), |(at, _)| at)
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn to_span(file: u32, text: &str, span: &granit_parser::Span) -> Span {
    let start = offset(text, &span.start);
    Span {
        file,
        start,
        end: offset(text, &span.end).max(start),
    }
}

/// A collection that is being read.
struct Frame {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, in a mapping.
    key: Option<(Key, Span)>,
    /// Values of `<<`, applied when the mapping ends.
    merges: Vec<Node>,
}

enum Key {
    Name(String),
    Merge,
    /// A key that was refused; its value is dropped.
    Bad,
}

struct Composer<'r> {
    report: &'r mut Report,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    copied_nodes: usize,
    copied_bytes: usize,
    documents: Vec<Node>,
}

impl<'r> Composer<'r> {
    fn new(report: &'r mut Report) -> Self {
        Composer {
            report,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            copied_nodes: 0,
            copied_bytes: 0,
            documents: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Failed> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one document");
            return Err(self.report.fail(Diagnostic::error(span, message)));
        }
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.nodes = 0;
                self.copied_nodes = 0;
                self.copied_bytes = 0;
                if self.documents.len() >= MAX_DOCUMENTS {
                    let message = format!("more than {MAX_DOCUMENTS} documents in one file");
                    return Err(self.report.fail(Diagnostic::error(span, message)));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), span);
                self.define(anchor, &node, span)?;
                self.place(node, style == ScalarStyle::Plain && tag.is_none());
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Value::Seq(Vec::new()), anchor, tag.as_deref(), span);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Value::Map(Map::new()), anchor, tag.as_deref(), span);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let node = self.close(frame, span)?;
                    self.place(node, false);
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    let message = "an alias must not refer to a value that contains it";
                    return Err(self.report.fail(Diagnostic::error(span, message)));
                };
                self.count_copy(&node, span)?;
                self.place(node, false);
            }
            _ => {}
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let value = match tag.map(tag_name).as_deref() {
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None | Some("!!str" | "!") => Value::Str(text.to_owned()),
            Some("!!int" | "!!float" | "!!bool" | "!!null") => scalar::resolve(text),
            // yaml.v3 takes a scalar with a tag of its own as text; only nothing stays nothing.
            Some("!reset" | "!override")
                if style == ScalarStyle::Plain && scalar::resolve(text) == Value::Null =>
            {
                Value::Null
            }
            Some(_) => Value::Str(text.to_owned()),
        };
        let mut node = Node::new(value, span);
        node.mark = self.mark(tag, span);
        node
    }

    fn mark(&mut self, tag: Option<&Tag>, span: Span) -> Mark {
        match tag.map(tag_name).as_deref() {
            Some("!reset") => Mark::Reset,
            Some("!override") => Mark::Override,
            Some(other) if !other.starts_with("!!") && other != "!" => {
                self.report.warn(
                    Diagnostic::warning(span, format!("unknown YAML tag {other} is ignored"))
                        .with_help("Compose knows the tags !reset and !override"),
                );
                Mark::Merge
            }
            _ => Mark::Merge,
        }
    }

    fn open(&mut self, value: Value, anchor: usize, tag: Option<&Tag>, span: Span) {
        let mut node = Node::new(value, span);
        node.mark = self.mark(tag, span);
        self.stack.push(Frame {
            node,
            anchor,
            key: None,
            merges: Vec::new(),
        });
    }

    fn close(&mut self, frame: Frame, end: Span) -> Result<Node, Failed> {
        let mut node = frame.node;
        node.span.end = end.end.max(node.span.start);
        for merge in frame.merges {
            self.merge_key(&mut node, merge);
        }
        self.define(frame.anchor, &node, end)?;
        Ok(node)
    }

    /// `<<: *a` or `<<: [*a, *b]`: adds keys that are not there; the first mapping of a list wins.
    fn merge_key(&mut self, target: &mut Node, merged: Node) {
        let span = merged.span;
        let maps = match merged.value {
            Value::Seq(items) => items,
            value => vec![Node::new(value, span)],
        };
        for map in maps {
            let Value::Map(entries) = map.value else {
                let message = "`<<` needs a mapping, or a list of mappings";
                self.report.error(
                    Diagnostic::error(map.span, message)
                        .with_help("write `<<: *anchor` or `<<: [*first, *second]`"),
                );
                continue;
            };
            if let Some(into) = target.as_map_mut() {
                for (key, entry) in entries {
                    into.entry(key).or_insert(entry);
                }
            }
        }
    }

    fn define(&mut self, anchor: usize, node: &Node, at: Span) -> Result<(), Failed> {
        if anchor != 0 {
            self.count_copy(node, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Charges a copy of `node` to the document's budget.
    fn count_copy(&mut self, node: &Node, at: Span) -> Result<(), Failed> {
        weigh(node, &mut self.copied_nodes, &mut self.copied_bytes);
        if self.copied_nodes <= MAX_COPIED_NODES && self.copied_bytes <= MAX_COPIED_BYTES {
            return Ok(());
        }
        let message = format!(
            "anchors and aliases expand to more than {MAX_COPIED_NODES} values or {MAX_COPIED_BYTES} bytes"
        );
        Err(self
            .report
            .fail(Diagnostic::error(at, message).with_label("the limit is reached here")))
    }

    /// Puts a finished node where it belongs: a document, a list, a key or a value.
    fn place(&mut self, mut node: Node, plain: bool) {
        if node.mark == Mark::Reset {
            node.value = Value::Null;
        }
        let Some(frame) = self.stack.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return;
        };
        match &mut frame.node.value {
            Value::Seq(items) if node.mark != Mark::Reset => items.push(node),
            Value::Map(map) => match frame.key.take() {
                None => {
                    let span = node.span;
                    let key = match node.value {
                        Value::Str(text) if text == "<<" && plain => Key::Merge,
                        Value::Str(text) => {
                            if let Some(first) = map.get(&text) {
                                self.report.error(
                                    Diagnostic::error(
                                        span,
                                        format!("key `{text}` is already defined"),
                                    )
                                    .with_label("defined again here")
                                    .with_place(first.key, "first defined here")
                                    .with_help("remove or rename one of the two"),
                                );
                                Key::Bad
                            } else {
                                Key::Name(text)
                            }
                        }
                        _ => {
                            let shown =
                                node.scalar_text().unwrap_or_else(|| node.kind().to_owned());
                            self.report.error(
                                Diagnostic::error(span, format!("a key must be text, not {shown}"))
                                    .with_help(format!("quote it: \"{shown}\"")),
                            );
                            Key::Bad
                        }
                    };
                    frame.key = Some((key, span));
                }
                Some((Key::Name(name), key)) => {
                    map.insert(name, Entry { key, node });
                }
                Some((Key::Merge, _)) => frame.merges.push(node),
                Some((Key::Bad, _)) => {}
            },
            _ => {}
        }
    }
}

fn tag_name(tag: &Tag) -> String {
    match tag.handle() {
        "tag:yaml.org,2002:" => format!("!!{}", tag.suffix()),
        handle => format!("{handle}{}", tag.suffix()),
    }
}

/// Adds the size of a tree to the two counters.
fn weigh(node: &Node, nodes: &mut usize, bytes: &mut usize) {
    *nodes += 1;
    match &node.value {
        Value::Str(text) => *bytes += text.len(),
        Value::Seq(items) => items.iter().for_each(|item| weigh(item, nodes, bytes)),
        Value::Map(map) => {
            for (key, entry) in map {
                *bytes += key.len();
                weigh(&entry.node, nodes, bytes);
            }
        }
        _ => {}
    }
}
