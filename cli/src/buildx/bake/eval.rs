//! Expressions of bake files: evaluated over JSON values, with variables that are evaluated when they are first needed.
//!
//! Source: hashicorp/hcl `hclsyntax`, buildx `bake/hclparser`. Must not: read files or the environment; `file.rs` says
//! what variables are.

use super::functions;
use super::types::Declared;
use hcl::Identifier;
use hcl::expr::{
    BinaryOperator, Expression, ObjectKey, Operation, TraversalOperator, UnaryOperator,
};
use hcl::template::{Directive, Element, Template};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::cell::RefCell;

/// Calls and references within each other; a variable that needs itself ends here.
const MAX_DEPTH: usize = 64;

/// A function that a file defines.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) params: Vec<String>,
    pub(super) variadic: Option<String>,
    pub(super) result: Expression,
}

/// What names mean.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Variables and attributes that are not evaluated yet.
    pub(super) lazy: IndexMap<String, Expression>,
    /// What is said of those that are variables beside their defaults.
    pub(super) declared: IndexMap<String, Declared>,
    pub(super) functions: IndexMap<String, Function>,
    values: RefCell<IndexMap<String, Value>>,
}

/// Names that mean something only here: parameters, `for` variables, values of a matrix.
pub(super) type Locals = IndexMap<String, Value>;

impl Scope {
    /// Sets a variable to a value.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.values.get_mut().insert(name.to_owned(), value);
    }

    /// The value of a variable; `None` when there is none of this name.
    pub(super) fn variable(&self, name: &str, depth: usize) -> Result<Option<Value>, String> {
        if let Some(value) = self.values.borrow().get(name) {
            return Ok(Some(value.clone()));
        }
        let Some(expression) = self.lazy.get(name) else {
            return Ok(None);
        };
        let value = Evaluation {
            scope: self,
            locals: &Locals::new(),
            depth: depth + 1,
        }
        .expression(expression)
        .and_then(|default| match self.declared.get(name) {
            Some(declared) => declared.settle(default),
            None => Ok(default),
        })
        .map_err(|reason| format!("variable {name}: {reason}"))?;
        self.values
            .borrow_mut()
            .insert(name.to_owned(), value.clone());
        Ok(Some(value))
    }

    /// Evaluates with some names that mean something only there.
    pub(super) fn evaluate(
        &self,
        expression: &Expression,
        locals: &Locals,
    ) -> Result<Value, String> {
        Evaluation {
            scope: self,
            locals,
            depth: 0,
        }
        .expression(expression)
    }
}

struct Evaluation<'a> {
    scope: &'a Scope,
    locals: &'a Locals,
    depth: usize,
}

impl Evaluation<'_> {
    fn expression(&self, expression: &Expression) -> Result<Value, String> {
        if self.depth > MAX_DEPTH {
            return Err("it needs itself, or is nested too deep".to_owned());
        }
        Ok(match expression {
            Expression::Null => Value::Null,
            Expression::Bool(value) => Value::Bool(*value),
            Expression::Number(number) => number
                .as_i64()
                .map(Value::from)
                .or_else(|| number.as_u64().map(Value::from))
                .or_else(|| number.as_f64().map(Value::from))
                .ok_or_else(|| format!("number {number} is out of range"))?,
            Expression::String(text) => Value::String(text.clone()),
            Expression::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.deeper(item))
                    .collect::<Result<_, _>>()?,
            ),
            Expression::Object(members) => {
                let mut object = Map::new();
                for (key, value) in members {
                    let key = match key {
                        ObjectKey::Identifier(name) => name.as_str().to_owned(),
                        ObjectKey::Expression(key) => text(&self.deeper(key)?)?,
                        _ => return Err("a key that cannot be read".to_owned()),
                    };
                    object.insert(key, self.deeper(value)?);
                }
                // As everywhere an object is made: its members have the order of their names.
                object.sort_keys();
                Value::Object(object)
            }
            Expression::TemplateExpr(template) => {
                let literals = Literals::of(template);
                let template = Template::from_expr(template).map_err(|error| error.to_string())?;
                self.whole_template(&template, literals)?
            }
            Expression::Variable(name) => self.variable(name.as_str())?,
            Expression::Parenthesis(inner) => self.deeper(inner)?,
            Expression::Conditional(conditional) => {
                let branch = if truth(&self.deeper(&conditional.cond_expr)?)? {
                    &conditional.true_expr
                } else {
                    &conditional.false_expr
                };
                self.deeper(branch)?
            }
            Expression::Operation(operation) => self.operation(operation)?,
            Expression::FuncCall(call) => {
                let mut args = Vec::new();
                for arg in &call.args {
                    args.push(self.deeper(arg)?);
                }
                if call.expand_final
                    && let Some(last) = args.pop()
                {
                    match last {
                        Value::Array(items) => args.extend(items),
                        _ => {
                            return Err(format!("{}: what ... expands is no list", call.name.name));
                        }
                    }
                }
                self.call(call.name.name.as_str(), args)?
            }
            Expression::Traversal(traversal) => {
                let value = self.deeper(&traversal.expr)?;
                self.traverse(value, &traversal.operators)?
            }
            Expression::ForExpr(each) => self.for_each(each)?,
            _ => return Err("an expression that is not supported".to_owned()),
        })
    }

    fn deeper(&self, expression: &Expression) -> Result<Value, String> {
        Evaluation {
            depth: self.depth + 1,
            ..*self
        }
        .expression(expression)
    }

    fn variable(&self, name: &str) -> Result<Value, String> {
        if let Some(value) = self.locals.get(name) {
            return Ok(value.clone());
        }
        self.scope
            .variable(name, self.depth)?
            .ok_or_else(|| format!("there is no variable {name:?}"))
    }

    fn call(&self, name: &str, args: Vec<Value>) -> Result<Value, String> {
        let Some(function) = self.scope.functions.get(name) else {
            return functions::call(name, args).map_err(|reason| format!("{name}(): {reason}"));
        };
        let enough = args.len() >= function.params.len();
        if !enough || (function.variadic.is_none() && args.len() > function.params.len()) {
            return Err(format!(
                "{name}() takes {} arguments, not {}",
                function.params.len(),
                args.len()
            ));
        }
        let mut args = args.into_iter();
        let mut locals: Locals = function.params.iter().cloned().zip(args.by_ref()).collect();
        if let Some(variadic) = &function.variadic {
            locals.insert(variadic.clone(), args.collect());
        }
        Evaluation {
            locals: &locals,
            depth: self.depth + 1,
            ..*self
        }
        .expression(&function.result)
        .map_err(|reason| format!("{name}(): {reason}"))
    }

    fn traverse(&self, mut value: Value, operators: &[TraversalOperator]) -> Result<Value, String> {
        for (position, operator) in operators.iter().enumerate() {
            value = match operator {
                TraversalOperator::GetAttr(name) => member(value, name.as_str())?,
                TraversalOperator::LegacyIndex(index) => {
                    element(value, i64::try_from(*index).unwrap_or(i64::MAX))?
                }
                TraversalOperator::Index(key) => match self.deeper(key)? {
                    Value::String(key) => member(value, &key)?,
                    index => element(value, integer(&index)?)?,
                },
                TraversalOperator::AttrSplat | TraversalOperator::FullSplat => {
                    let items = match value {
                        Value::Array(items) => items,
                        Value::Null => Vec::new(),
                        one => vec![one],
                    };
                    let rest = &operators[position + 1..];
                    let each = items.into_iter().map(|item| self.traverse(item, rest));
                    return each.collect::<Result<_, _>>().map(Value::Array);
                }
            };
        }
        Ok(value)
    }

    fn operation(&self, operation: &Operation) -> Result<Value, String> {
        let binary = match operation {
            Operation::Unary(unary) => {
                let value = self.deeper(&unary.expr)?;
                return match unary.operator {
                    UnaryOperator::Not => Ok(Value::Bool(!truth(&value)?)),
                    UnaryOperator::Neg => Ok(number_value(-number(&value)?)),
                };
            }
            Operation::Binary(binary) => binary,
        };
        let left = self.deeper(&binary.lhs_expr)?;
        // Both sides are evaluated, as in HCL: there is nothing to save.
        let right = self.deeper(&binary.rhs_expr)?;
        let numbers = || Ok::<_, String>((number(&left)?, number(&right)?));
        Ok(match binary.operator {
            BinaryOperator::Eq => Value::Bool(functions::equal(&left, &right)),
            BinaryOperator::NotEq => Value::Bool(!functions::equal(&left, &right)),
            BinaryOperator::And => Value::Bool(truth(&left)? && truth(&right)?),
            BinaryOperator::Or => Value::Bool(truth(&left)? || truth(&right)?),
            BinaryOperator::Less => numbers().map(|(a, b)| Value::Bool(a < b))?,
            BinaryOperator::LessEq => numbers().map(|(a, b)| Value::Bool(a <= b))?,
            BinaryOperator::Greater => numbers().map(|(a, b)| Value::Bool(a > b))?,
            BinaryOperator::GreaterEq => numbers().map(|(a, b)| Value::Bool(a >= b))?,
            BinaryOperator::Plus => numbers().map(|(a, b)| number_value(a + b))?,
            BinaryOperator::Minus => numbers().map(|(a, b)| number_value(a - b))?,
            BinaryOperator::Mul => numbers().map(|(a, b)| number_value(a * b))?,
            BinaryOperator::Div | BinaryOperator::Mod => {
                let (a, b) = numbers()?;
                if b == 0.0 {
                    return Err("division by zero".to_owned());
                }
                let divides = binary.operator == BinaryOperator::Div;
                number_value(if divides { a / b } else { a % b })
            }
        })
    }

    fn for_each(&self, each: &hcl::expr::ForExpr) -> Result<Value, String> {
        let collection = self.deeper(&each.collection_expr)?;
        let mut list = Vec::new();
        let mut object: Map<String, Value> = Map::new();
        for (key, value) in entries(collection)? {
            let locals = self.with(each.key_var.as_ref(), &each.value_var, key, value);
            let inner = Evaluation {
                locals: &locals,
                depth: self.depth + 1,
                ..*self
            };
            if let Some(condition) = &each.cond_expr
                && !truth(&inner.expression(condition)?)?
            {
                continue;
            }
            let value = inner.expression(&each.value_expr)?;
            match &each.key_expr {
                None => list.push(value),
                Some(key) => {
                    let key = text(&inner.expression(key)?)?;
                    if !each.grouping {
                        object.insert(key, value);
                    } else if let Value::Array(group) = object
                        .entry(key)
                        .or_insert_with(|| Value::Array(Vec::new()))
                    {
                        group.push(value);
                    }
                }
            }
        }
        object.sort_keys();
        Ok(match each.key_expr {
            Some(_) => Value::Object(object),
            None => Value::Array(list),
        })
    }

    fn with(
        &self,
        key_var: Option<&Identifier>,
        value_var: &Identifier,
        key: Value,
        value: Value,
    ) -> Locals {
        let mut locals = self.locals.clone();
        if let Some(name) = key_var {
            locals.insert(name.as_str().to_owned(), key);
        }
        locals.insert(value_var.as_str().to_owned(), value);
        locals
    }

    /// A template that is nothing but one interpolation has that value, whatever it is.
    fn whole_template(&self, template: &Template, literals: Literals) -> Result<Value, String> {
        if let [Element::Interpolation(only)] = template.elements() {
            return self.deeper(&only.expr);
        }
        let whole = self.template(template, literals, (false, false));
        whole.map(Value::String)
    }

    /// `strip`: whether the marks around the template strip its beginning and its end.
    fn template(
        &self,
        template: &Template,
        literals: Literals,
        strip: (bool, bool),
    ) -> Result<String, String> {
        let mut out = String::new();
        let elements = template.elements();
        for (index, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(literal) => {
                    let before = index
                        .checked_sub(1)
                        .map(|before| marks(&elements[before]).1);
                    let after = elements.get(index + 1).map(|after| marks(after).0);
                    let strip = (before.unwrap_or(strip.0), after.unwrap_or(strip.1));
                    out.push_str(literals.strip(literal, strip));
                }
                Element::Interpolation(inner) => out.push_str(&text(&self.deeper(&inner.expr)?)?),
                Element::Directive(directive) => match &**directive {
                    Directive::If(branch) => {
                        let begin = branch.if_strip.strip_end();
                        let end = branch.endif_strip.strip_start();
                        let met = truth(&self.deeper(&branch.cond_expr)?)?;
                        let inner = match &branch.false_template {
                            None if met => (&branch.true_template, (begin, end)),
                            None => continue,
                            Some(_) if met => {
                                let middle = branch.else_strip.strip_start();
                                (&branch.true_template, (begin, middle))
                            }
                            Some(other) => (other, (branch.else_strip.strip_end(), end)),
                        };
                        out.push_str(&self.template(inner.0, literals, inner.1)?);
                    }
                    Directive::For(each) => {
                        for (key, value) in entries(self.deeper(&each.collection_expr)?)? {
                            let locals =
                                self.with(each.key_var.as_ref(), &each.value_var, key, value);
                            let inner = Evaluation {
                                locals: &locals,
                                depth: self.depth + 1,
                                ..*self
                            };
                            let strip =
                                (each.for_strip.strip_end(), each.endfor_strip.strip_start());
                            out.push_str(&inner.template(&each.template, literals, strip)?);
                        }
                    }
                },
            }
        }
        Ok(out)
    }
}

/// How `~` takes spaces away from the text beside it. The language's scanner makes a piece of each line of a heredoc, and
/// one piece of a quoted text; a mark is about the piece next to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Literals {
    Whole,
    Lines,
}

impl Literals {
    fn of(template: &hcl::expr::TemplateExpr) -> Self {
        match template {
            hcl::expr::TemplateExpr::QuotedString(_) => Self::Whole,
            hcl::expr::TemplateExpr::Heredoc(_) => Self::Lines,
        }
    }

    fn strip(self, mut text: &str, (start, end): (bool, bool)) -> &str {
        if start {
            let line = match self {
                Self::Whole => text.len(),
                Self::Lines => text.find('\n').map_or(text.len(), |end| end + 1),
            };
            let kept = text[..line].trim_start();
            text = &text[line - kept.len()..];
        }
        if end {
            let line = match self {
                Self::Whole => 0,
                Self::Lines => text.rfind('\n').map_or(0, |end| end + 1),
            };
            let kept = text[line..].trim_end().len();
            text = &text[..line + kept];
        }
        text
    }
}

/// Whether an element strips the text before it, and the text after it.
fn marks(element: &Element) -> (bool, bool) {
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(inner) => (inner.strip.strip_start(), inner.strip.strip_end()),
        Element::Directive(directive) => {
            let (first, last) = match &**directive {
                Directive::If(branch) => (branch.if_strip, branch.endif_strip),
                Directive::For(each) => (each.for_strip, each.endfor_strip),
            };
            (first.strip_start(), last.strip_end())
        }
    }
}

/// Keys and values of a list or an object.
fn entries(collection: Value) -> Result<Vec<(Value, Value)>, String> {
    match collection {
        Value::Array(items) => Ok(items
            .into_iter()
            .enumerate()
            .map(|(index, item)| (Value::from(index), item))
            .collect()),
        Value::Object(members) => Ok(members
            .into_iter()
            .map(|(key, value)| (Value::String(key), value))
            .collect()),
        other => Err(format!("{other} is neither a list nor an object")),
    }
}

fn member(value: Value, name: &str) -> Result<Value, String> {
    match value {
        Value::Object(mut members) => members
            .shift_remove(name)
            .ok_or_else(|| format!("there is no member {name:?}")),
        Value::Array(_) => name
            .parse()
            .map_err(|_| format!("a list has no member {name:?}"))
            .and_then(|index| element(value, index)),
        _ => Err(format!("member {name:?} of something that has none")),
    }
}

fn element(value: Value, index: i64) -> Result<Value, String> {
    let Value::Array(mut items) = value else {
        return Err(format!("element {index} of something that is no list"));
    };
    match usize::try_from(index) {
        Ok(at) if at < items.len() => Ok(items.swap_remove(at)),
        _ => Err(format!("there is no element {index}")),
    }
}

/// A value as text, as templates put it.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        // Never with an exponent.
        Value::Number(number) => Ok(match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => number.to_string(),
            None => number.to_string(),
        }),
        Value::Null => Err("null has no text".to_owned()),
        other => Err(format!("{other} is no text")),
    }
}

/// Text counts as the boolean it spells.
pub(super) fn truth(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(format!("{other} is neither true nor false")),
    }
}

/// Text counts as the number it spells.
pub(super) fn number(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("{value} is no number"))
}

pub(super) fn integer(value: &Value) -> Result<i64, String> {
    let whole = number(value)?;
    if whole.fract() != 0.0 || whole.abs() > 9e15 {
        return Err(format!("{value} is no whole number"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and in range"
    )]
    Ok(whole as i64)
}

/// Whole numbers are shown without a fraction, others with as many digits as are certain: `0.1 + 0.2` is `0.3`.
pub(super) fn number_value(number: f64) -> Value {
    let number: f64 = format!("{number:.14e}").parse().unwrap_or(number);
    if number.fract() == 0.0 && number.abs() < 9e15 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and in range"
        )]
        return Value::from(number as i64);
    }
    Value::from(number)
}
