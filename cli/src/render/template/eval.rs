//! Runs a tree over a value. Source: Go `text/template/exec.go`.

use super::functions;
use super::parse::{Node, Operand, Pipeline, Root, Tree};
use super::value::Value;
use super::{Functions, TemplateError};
use std::rc::Rc;

/// Depth of `{{template}}` calls that is accepted.
const MAX_CALLS: usize = 100;
/// Longest result, bytes: a template cannot fill the memory.
const MAX_OUTPUT: usize = 256 << 20;

pub(super) fn render(
    tree: &Tree,
    data: &Value,
    functions: Functions,
) -> Result<String, TemplateError> {
    let mut run = Run {
        tree,
        functions,
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        calls: 0,
    };
    run.nodes(&tree.nodes, data)?;
    Ok(run.out)
}

struct Run<'a> {
    tree: &'a Tree,
    functions: Functions,
    out: String,
    /// Innermost last; the empty name is `$`.
    variables: Vec<(String, Value)>,
    calls: usize,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    /// Nodes with variables of their own.
    fn scope(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(mark);
        flow
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&value.to_string());
                }
                if self.out.len() > MAX_OUTPUT {
                    return Err(TemplateError::new(pipeline.at, "the output is too long"));
                }
            }
            Node::If {
                condition,
                then,
                otherwise,
            } => {
                let mark = self.variables.len();
                let branch = if self.pipeline(condition, dot)?.is_true() {
                    then
                } else {
                    otherwise
                };
                let flow = self.scope(branch, dot);
                self.variables.truncate(mark);
                return flow;
            }
            Node::With {
                value,
                then,
                otherwise,
            } => {
                let mark = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow = if value.is_true() {
                    self.scope(then, &value)
                } else {
                    self.scope(otherwise, dot)
                };
                self.variables.truncate(mark);
                return flow;
            }
            Node::Range {
                over,
                body,
                otherwise,
            } => return self.range(over, body, otherwise, dot),
            Node::Template { at, name, argument } => {
                let argument = argument
                    .as_ref()
                    .map(|pipeline| self.pipeline(pipeline, dot))
                    .transpose()?;
                self.call(*at, name, argument.unwrap_or_default())?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        let value = self.commands(over, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Nil(_) => Vec::new(),
            Value::List(items) => (0_i64..)
                .map(Value::from)
                .zip(items.iter().cloned())
                .collect(),
            Value::Int(count) => (0..*count)
                .map(|index| (index.into(), index.into()))
                .collect(),
            Value::Map(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_by_key(|(key, _)| *key);
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.as_str().into(), value.clone()))
                    .collect()
            }
            other => {
                return Err(TemplateError::new(
                    over.at,
                    format!("range can't iterate over {}", other.kind()),
                ));
            }
        };
        if items.is_empty() {
            return self.scope(otherwise, dot);
        }
        for (key, item) in items {
            match over.variables.as_slice() {
                [] => {}
                [name] => self.set(over, name, item.clone())?,
                [index, name, ..] => {
                    self.set(over, index, key)?;
                    self.set(over, name, item.clone())?;
                }
            }
            let flow = self.scope(body, &item)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn call(&mut self, at: usize, name: &str, argument: Value) -> Result<(), TemplateError> {
        let nodes = self.tree.defined.get(name);
        let nodes = nodes
            .ok_or_else(|| TemplateError::new(at, format!("template {name:?} not defined")))?;
        if self.calls == MAX_CALLS {
            return Err(TemplateError::new(
                at,
                "templates call each other too deeply",
            ));
        }
        self.calls += 1;
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), argument.clone())]);
        self.nodes(nodes, &argument)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    /// Value of a pipeline, which is also given to its variable.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        match pipeline.variables.as_slice() {
            [] => {}
            [name] => self.set(pipeline, name, value.clone())?,
            _ => {
                return Err(TemplateError::new(
                    pipeline.at,
                    "two variables are for range only",
                ));
            }
        }
        Ok(value)
    }

    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<(), TemplateError> {
        if pipeline.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
        {
            Some((_, slot)) => *slot = value,
            None => {
                return Err(TemplateError::new(
                    pipeline.at,
                    format!("undefined variable ${name}"),
                ));
            }
        }
        Ok(())
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(pipeline.at, command, value, dot)?);
        }
        Ok(value.expect("a pipeline has a command"))
    }

    fn command(
        &mut self,
        at: usize,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let (first, rest) = operands.split_first().expect("a command has an operand");
        match first {
            Operand::Function(name) if name == "and" || name == "or" => {
                // Evaluated one after the other: what follows the deciding argument is not looked at.
                let mut last = None;
                for operand in rest {
                    let value = self.operand(at, operand, dot)?;
                    if value.is_true() == (name == "or") {
                        return Ok(value);
                    }
                    last = Some(value);
                }
                piped
                    .or(last)
                    .ok_or_else(|| TemplateError::new(at, format!("{name} needs an argument")))
            }
            Operand::Function(name) => {
                let mut arguments = self.operands(at, rest, dot)?;
                arguments.extend(piped);
                functions::call(name, &arguments, self.functions).map_err(|reason| {
                    TemplateError::new(at, format!("error calling {name}: {reason}"))
                })
            }
            Operand::Chain(root, fields) if !(rest.is_empty() && piped.is_none()) => {
                let mut arguments = self.operands(at, rest, dot)?;
                arguments.extend(piped);
                self.method(at, root, fields, &arguments, dot)
            }
            operand if rest.is_empty() && piped.is_none() => self.operand(at, operand, dot),
            _ => Err(TemplateError::new(
                at,
                "can't give an argument to a constant",
            )),
        }
    }

    fn operands(
        &mut self,
        at: usize,
        operands: &[Operand],
        dot: &Value,
    ) -> Result<Vec<Value>, TemplateError> {
        operands
            .iter()
            .map(|operand| self.operand(at, operand, dot))
            .collect()
    }

    fn operand(
        &mut self,
        at: usize,
        operand: &Operand,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        match operand {
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Function(name) => {
                functions::call(name, &[], self.functions).map_err(|reason| {
                    TemplateError::new(at, format!("error calling {name}: {reason}"))
                })
            }
            Operand::Chain(root, fields) => {
                let mut value = self.root(at, root, dot)?;
                for name in fields {
                    value = self.field(at, &value, name)?;
                }
                Ok(value)
            }
        }
    }

    fn root(&mut self, at: usize, root: &Root, dot: &Value) -> Result<Value, TemplateError> {
        match root {
            Root::Dot => Ok(dot.clone()),
            Root::Pipeline(pipeline) => self.pipeline(pipeline, dot),
            Root::Variable(name) => {
                match self.variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => Ok(value.clone()),
                    None => Err(TemplateError::new(
                        at,
                        format!("undefined variable ${name}"),
                    )),
                }
            }
        }
    }

    /// `.Label "name"` is the one method there is.
    fn method(
        &mut self,
        at: usize,
        root: &Root,
        fields: &[String],
        arguments: &[Value],
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        if let (Some((last, path)), [Value::Str(name)]) = (fields.split_last(), arguments)
            && last == "Label"
        {
            let mut value = self.root(at, root, dot)?;
            for field in path {
                value = self.field(at, &value, field)?;
            }
            if let Value::Row(row) = &value {
                return Ok(row.label(name).into());
            }
        }
        let name = fields.last().map_or("a value", String::as_str);
        Err(TemplateError::new(
            at,
            format!("{name} is not a method but has arguments"),
        ))
    }

    fn field(&self, at: usize, value: &Value, name: &str) -> Result<Value, TemplateError> {
        match value {
            Value::Map(map) => {
                if let Some(value) = map.get(name) {
                    return Ok(value.clone());
                }
                // Go's field is `ID` where its JSON is `Id`: either spelling is understood.
                let other = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                let missing =
                    || TemplateError::new(at, format!("map has no entry for key {name:?}"));
                let value = other.map(|(_, value)| value.clone());
                value.or_else(|| Value::left_out(name)).ok_or_else(missing)
            }
            Value::Row(row) => row.field(name).cloned().ok_or_else(|| {
                let mut known: Vec<_> = row.names().collect();
                known.sort_unstable();
                TemplateError::new(
                    at,
                    format!(
                        "can't evaluate field {name}: there are {}",
                        known.join(", ")
                    ),
                )
            }),
            Value::Nil(_) => Err(TemplateError::new(
                at,
                format!("nil data; no entry for key {name:?}"),
            )),
            other => Err(TemplateError::new(
                at,
                format!("can't evaluate field {name} in type {}", other.kind()),
            )),
        }
    }
}

impl Value {
    /// Entry of a list or a map; a missing key of a map of strings is the empty string, as in Go.
    pub(super) fn index(&self, key: &Value) -> Result<Value, String> {
        match (self, key) {
            (Self::List(items), Self::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(|| format!("index out of range: {at}")),
            (Self::Map(map), Self::Str(key)) => Ok(match map.get(&**key) {
                Some(value) => value.clone(),
                None if map.values().all(|value| matches!(value, Self::Str(_))) => {
                    Self::Str(Rc::from(""))
                }
                None => Self::default(),
            }),
            (Self::Nil(_), _) => Ok(Self::Str(Rc::from(""))),
            (Self::Str(text), Self::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| text.as_bytes().get(at))
                .map(|byte| Self::Int(i64::from(*byte)))
                .ok_or_else(|| format!("index out of range: {at}")),
            (value, key) => Err(format!("can't index {} with {}", value.kind(), key.kind())),
        }
    }
}
