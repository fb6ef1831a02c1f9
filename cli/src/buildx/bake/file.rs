//! Bake files (HCL, JSON, or targets that were read elsewhere) as what they define: attributes stay expressions until their target is asked for.
//! Source: buildx `bake/bake.go`, `bake/hclparser`.

use super::eval::{Function, Locals, Scope};
use super::types::{Declared, Given, Type};
use hcl::expr::{Expression, ObjectKey};
use hcl::template::Template;
use hcl::{Block, Body};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::str::FromStr as _;

/// Longest file that is read, bytes.
pub(super) const MAX_FILE: u64 = 8 << 20;

/// Attributes of a block by their names.
pub(super) type Attributes = IndexMap<String, Expression>;

/// What all files define together; a later file's attribute replaces an earlier one's.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) variables: IndexMap<String, Variable>,
    pub(super) functions: IndexMap<String, Function>,
    pub(super) groups: IndexMap<String, Attributes>,
    /// What each file says of a target, the last one's on top.
    pub(super) targets: IndexMap<String, Vec<Attributes>>,
    /// Attributes outside of blocks: names for expressions.
    names: Attributes,
}

/// A variable that the environment may set.
#[derive(Debug, Default, Clone)]
pub(super) struct Variable {
    default: Option<Expression>,
    /// `None` when none is written: then it is what its default is.
    pub(super) kind: Option<Type>,
    pub(super) description: Option<Expression>,
    /// Conditions its value has to meet, with what is said when it does not.
    validations: Vec<(Expression, Option<Expression>)>,
}

impl Definitions {
    /// Adds an HCL file.
    pub(super) fn add_hcl(&mut self, text: &str) -> Result<(), String> {
        let body = hcl::parse(text).map_err(|error| error.to_string())?;
        for block in body.blocks() {
            let labels: Vec<&str> = block.labels().iter().map(|label| label.as_str()).collect();
            let name = match (block.identifier(), &labels[..]) {
                ("target" | "group" | "variable" | "function", [name]) => (*name).to_owned(),
                ("target" | "group" | "variable" | "function", _) => {
                    return Err(format!("a {} needs one name", block.identifier()));
                }
                (other, _) => return Err(format!("there are no blocks of kind {other:?}")),
            };
            self.add_block(block, name)?;
        }
        for attribute in body.attributes() {
            self.names
                .insert(attribute.key().to_owned(), attribute.expr().clone());
        }
        Ok(())
    }

    fn add_block(&mut self, block: &Block, name: String) -> Result<(), String> {
        let body = block.body();
        let attributes = attributes_of(body);
        match block.identifier() {
            "group" => self.groups.entry(name).or_default().extend(attributes),
            "target" => self.targets.entry(name).or_default().push(attributes),
            "function" => {
                self.functions
                    .insert(name.clone(), function(&name, attributes)?);
            }
            _ => {
                let validations = body
                    .blocks()
                    .filter(|block| block.identifier() == "validation")
                    .map(|block| attributes_of(block.body()))
                    .filter_map(|mut checks| {
                        Some((
                            checks.shift_remove("condition")?,
                            checks.shift_remove("error_message"),
                        ))
                    })
                    .collect();
                self.add_variable(&name, attributes, validations)?;
            }
        }
        Ok(())
    }

    fn add_variable(
        &mut self,
        name: &str,
        mut attributes: Attributes,
        validations: Vec<(Expression, Option<Expression>)>,
    ) -> Result<(), String> {
        let kind = attributes.shift_remove("type");
        let kind = kind.as_ref().map(Type::parse).transpose();
        let variable = Variable {
            default: attributes.shift_remove("default"),
            kind: kind.map_err(|reason| format!("variable {name}: {reason}"))?,
            description: attributes.shift_remove("description"),
            validations,
        };
        if let Some((other, _)) = attributes.first() {
            return Err(format!("variable {name} has no attribute {other:?}"));
        }
        self.variables.insert(name.to_owned(), variable);
        Ok(())
    }

    /// Adds targets whose texts are what they are, without expressions in them, and the group of all of them.
    pub(super) fn add_plain(
        &mut self,
        targets: BTreeMap<String, Map<String, Value>>,
    ) -> Result<(), String> {
        let all = targets.keys().cloned().map(Expression::String).collect();
        let group = self.groups.entry("default".to_owned()).or_default();
        group.insert("targets".to_owned(), Expression::Array(all));
        for (name, members) in targets {
            let pair = |(key, value): (String, Value)| Ok((key, plain_expression(&value)?));
            let attributes = members.into_iter().map(pair);
            let attributes = attributes.collect::<Result<_, String>>()?;
            self.targets.entry(name).or_default().push(attributes);
        }
        Ok(())
    }

    /// Adds a JSON file, whose strings are templates as HCL's are.
    pub(super) fn add_json(&mut self, text: &str) -> Result<(), String> {
        let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(root) = root else {
            return Err("it is no JSON object".to_owned());
        };
        for (kind, blocks) in root {
            let Value::Object(blocks) = blocks else {
                self.names.insert(kind, json_expression(&blocks)?);
                continue;
            };
            for (name, block) in blocks {
                let attributes =
                    json_block(&block).map_err(|reason| format!("{kind} {name}: {reason}"))?;
                match kind.as_str() {
                    "group" => self.groups.entry(name).or_default().extend(attributes),
                    "target" => self.targets.entry(name).or_default().push(attributes),
                    "variable" => self.add_variable(&name, attributes, Vec::new())?,
                    "function" => {
                        self.functions
                            .insert(name.clone(), function(&name, attributes)?);
                    }
                    other => return Err(format!("there are no blocks of kind {other:?}")),
                }
            }
        }
        Ok(())
    }

    /// Variables with the values the environment gives them, and everything else names mean; `builtin` are values that
    /// no file defines.
    pub(super) fn scope(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
        builtin: &[(&str, Value)],
    ) -> Result<Scope, String> {
        let mut scope = Scope::default();
        scope.functions.clone_from(&self.functions);
        scope.lazy.clone_from(&self.names);
        for (name, value) in builtin {
            scope.set(name, value.clone());
        }
        for (name, variable) in &self.variables {
            let default = variable.default.clone().unwrap_or(match variable.kind {
                Some(_) => Expression::Null,
                None => Expression::String(String::new()),
            });
            scope.lazy.insert(name.clone(), default);
            let declared = Declared {
                kind: variable.kind.clone(),
                given: self.given(name, variable, env),
            };
            scope.declared.insert(name.clone(), declared);
        }
        for name in self.variables.keys() {
            scope.variable(name, 0)?;
        }
        self.validate(&scope)?;
        Ok(scope)
    }

    /// What the environment says of a variable: `NAME`, and `NAME_JSON` of one that has a type.
    fn given(
        &self,
        name: &str,
        variable: &Variable,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Given> {
        let text = || env(name).map(Given::Text);
        let Some(kind) = &variable.kind else {
            return text();
        };
        let json_name = format!("{name}_JSON");
        let json = || match self.variables.contains_key(&json_name) {
            true => None,
            false => env(&json_name).map(Given::Json),
        };
        match kind.prefers_json() {
            true => json().or_else(text),
            false => text().or_else(json),
        }
    }

    fn validate(&self, scope: &Scope) -> Result<(), String> {
        let none = Locals::new();
        for (name, variable) in &self.variables {
            for (condition, message) in &variable.validations {
                let met = scope
                    .evaluate(condition, &none)
                    .and_then(|met| super::eval::truth(&met));
                if met.map_err(|reason| format!("variable {name}: {reason}"))? {
                    continue;
                }
                let message = message
                    .as_ref()
                    .map(|message| scope.evaluate(message, &none))
                    .transpose()?;
                let message = message
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or("its value is not valid");
                return Err(format!("variable {name}: {message}"));
            }
        }
        Ok(())
    }
}

fn attributes_of(body: &Body) -> Attributes {
    let pair = |attribute: &hcl::Attribute| (attribute.key().to_owned(), attribute.expr().clone());
    body.attributes().map(pair).collect()
}

fn function(name: &str, mut attributes: Attributes) -> Result<Function, String> {
    let identifiers = |expression: Option<Expression>| match expression {
        None => Ok(Vec::new()),
        Some(Expression::Array(items)) => items
            .iter()
            .map(|item| match item {
                Expression::Variable(name) => Ok(name.as_str().to_owned()),
                Expression::String(name) => Ok(name.clone()),
                _ => Err(format!("function {name}: params is a list of names")),
            })
            .collect(),
        Some(Expression::Variable(name)) => Ok(vec![name.as_str().to_owned()]),
        Some(Expression::String(name)) => Ok(vec![name]),
        Some(_) => Err(format!("function {name}: params is a list of names")),
    };
    let params = identifiers(attributes.shift_remove("params"))?;
    let variadic = identifiers(attributes.shift_remove("variadic_params"))?.pop();
    let result = attributes
        .shift_remove("result")
        .ok_or_else(|| format!("function {name} has no result"))?;
    Ok(Function {
        params,
        variadic,
        result,
    })
}

/// A block of a JSON file; a list of blocks is one with all their attributes.
fn json_block(block: &Value) -> Result<Attributes, String> {
    match block {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| Ok((key.clone(), json_expression(value)?)))
            .collect(),
        Value::Array(blocks) => {
            let mut all = Attributes::new();
            for block in blocks {
                all.extend(json_block(block)?);
            }
            Ok(all)
        }
        _ => Err("it is no object".to_owned()),
    }
}

/// A value whose strings are templates.
fn json_expression(value: &Value) -> Result<Expression, String> {
    expression(value, &string_expression)
}

/// A value as it is.
fn plain_expression(value: &Value) -> Result<Expression, String> {
    expression(value, &|text| Ok(Expression::String(text.to_owned())))
}

fn expression(
    value: &Value,
    string: &dyn Fn(&str) -> Result<Expression, String>,
) -> Result<Expression, String> {
    Ok(match value {
        Value::Null => Expression::Null,
        Value::Bool(value) => Expression::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Expression::Number(number.into()),
            (None, Some(number)) => hcl::Number::from_f64(number)
                .map(Expression::Number)
                .ok_or("a number that is out of range")?,
            (None, None) => return Err(format!("number {number} is out of range")),
        },
        Value::String(text) => string(text)?,
        Value::Array(items) => Expression::Array(
            items
                .iter()
                .map(|item| expression(item, string))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| {
                let key = ObjectKey::Expression(string(key)?);
                Ok::<_, String>((key, expression(value, string)?))
            };
            Expression::Object(members.iter().map(pair).collect::<Result<_, _>>()?)
        }
    })
}

/// A string of a JSON file is a template.
fn string_expression(text: &str) -> Result<Expression, String> {
    if !text.contains("${") && !text.contains("%{") {
        return Ok(Expression::String(text.to_owned()));
    }
    Template::from_str(text).map_err(|error| format!("{text:?}: {error}"))?;
    // Kept as a heredoc's text: unlike a quoted one it has no escapes of its own.
    let heredoc = hcl::expr::Heredoc {
        delimiter: hcl::Identifier::unchecked("TEXT"),
        template: text.to_owned(),
        strip: hcl::expr::HeredocStripMode::None,
    };
    Ok(Expression::TemplateExpr(Box::new(
        hcl::expr::TemplateExpr::Heredoc(heredoc),
    )))
}
