//! The tree every stage before binding works on: YAML values, each with its place.
//!
//! Maps keep the order of the file. Tags are gone but for `!reset` and `!override`, which stay as a mark until
//! the merge has obeyed them.

use indexmap::IndexMap;

use crate::span::Span;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
    pub(crate) mark: Mark,
}

/// What YAML can say, as yaml.v3 resolves it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Map),
}

/// A mapping in the order of the file.
pub(crate) type Map = IndexMap<String, Entry>;

/// A value in a mapping, with the place of its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

/// Compose's merge tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Merge by the ordinary rules.
    Merge,
    /// `!reset`: remove what lower files say, and this too.
    Reset,
    /// `!override`: replace what lower files say.
    Override,
}

impl Node {
    pub(crate) fn new(value: Value, span: Span) -> Node {
        Node {
            value,
            span,
            mark: Mark::Merge,
        }
    }

    pub(crate) fn null(span: Span) -> Node {
        Node::new(Value::Null, span)
    }

    pub(crate) fn string(text: impl Into<String>, span: Span) -> Node {
        Node::new(Value::Str(text.into()), span)
    }

    pub(crate) fn bool(value: bool, span: Span) -> Node {
        Node::new(Value::Bool(value), span)
    }

    pub(crate) fn map(map: Map, span: Span) -> Node {
        Node::new(Value::Map(map), span)
    }

    pub(crate) fn seq(items: Vec<Node>, span: Span) -> Node {
        Node::new(Value::Seq(items), span)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The value under a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key).map(|entry| &mut entry.node)
    }

    /// The text under a key, if there is text.
    pub(crate) fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Sets a key that no file wrote, unless it is there.
    pub(crate) fn set_default(&mut self, key: &str, value: Value) {
        let span = self.span;
        if let Some(map) = self.as_map_mut()
            && !map.contains_key(key)
        {
            map.insert(key.to_owned(), Entry::at(Node::new(value, span)));
        }
    }

    /// What the value is, for messages: "a mapping", "text", …
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "empty",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar the way Go's `%v` prints it; `None` for null, lists and mappings.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(go_float(*value)),
            Value::Str(text) => Some(text.clone()),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// How many values there are, this one included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Map(map) => map.values().map(|entry| entry.node.count()).sum(),
            Value::Seq(items) => items.iter().map(Node::count).sum(),
            _ => 0,
        }
    }

    /// Calls `visit` with every mapping entry's value and every list item below, and this node, outermost first.
    pub(crate) fn walk_mut(
        &mut self,
        path: &Path<'_>,
        visit: &mut dyn FnMut(&mut Node, &Path<'_>),
    ) {
        visit(self, path);
        match &mut self.value {
            Value::Map(map) => {
                for (key, entry) in map.iter_mut() {
                    entry.node.walk_mut(&path.key(key), visit);
                }
            }
            Value::Seq(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.walk_mut(&path.index(index), visit);
                }
            }
            _ => {}
        }
    }
}

impl Entry {
    /// An entry whose key was not written by itself.
    pub(crate) fn at(node: Node) -> Entry {
        Entry {
            key: node.span,
            node,
        }
    }
}

/// Go's `%v` of a float64: shortest text, exponent form below 1e-4 and from 1e21.
fn go_float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

/// Where in the tree a node is: keys and list positions from the top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// The steps from the top; a list position is `[]`. For slice patterns.
    pub(crate) fn steps(&self) -> Vec<&'a str> {
        let mut steps = Vec::with_capacity(8);
        let mut at = *self;
        loop {
            match at.step {
                Step::Root => break,
                Step::Key(key) => steps.push(key),
                Step::Index(_) => steps.push("[]"),
            }
            match at.parent {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        steps.reverse();
        steps
    }
}

impl std::fmt::Display for Path<'_> {
    /// `services.web.ports[0]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, Step::Root) && matches!(self.step, Step::Key(_)) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, text) in [
            (1.5, "1.5"),
            (3.0, "3"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (0.5, "0.5"),
            (1234567.0, "1234567"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn paths_print_with_dots_and_brackets() {
        let services = Path::ROOT.key("services");
        let web = services.key("web");
        let ports = web.key("ports");
        let first = ports.index(0);
        let target = first.key("target");
        assert_eq!(target.to_string(), "services.web.ports[0].target");
        assert_eq!(target.steps(), ["services", "web", "ports", "[]", "target"]);
    }
}
