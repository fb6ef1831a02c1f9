//! Types of variables: what a default is converted to, and what the environment's text is read as.
//! Source: hashicorp/hcl `ext/typeexpr`, zclconf/go-cty `convert`, buildx `bake/hclparser`.
//!
//! Must not: read the environment; `file.rs` says what was given.

use super::eval::{number, number_value};
use agent_api::client::build::option_values;
use hcl::Expression;
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr as _;

/// Types within each other.
const MAX_DEPTH: usize = 16;

/// What a variable's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    String,
    Number,
    Bool,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Object(Vec<Member>),
    Tuple(Vec<Type>),
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    name: String,
    kind: Type,
    optional: bool,
}

/// What the environment says of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// `NAME`
    Text(String),
    /// `NAME_JSON`
    Json(String),
}

impl Type {
    /// Reads `list(string)`, as an expression or, in JSON, as a string that holds one.
    pub(super) fn parse(expression: &Expression) -> Result<Self, String> {
        Self::parse_within(expression, 0)
    }

    fn parse_within(expression: &Expression, depth: usize) -> Result<Self, String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "its type has more than {MAX_DEPTH} types in each other"
            ));
        }
        let inner = |expression: &Expression| Self::parse_within(expression, depth + 1);
        match expression {
            Expression::Variable(word) => match word.as_str() {
                "any" => Ok(Self::Any),
                "string" => Ok(Self::String),
                "number" => Ok(Self::Number),
                "bool" => Ok(Self::Bool),
                other => Err(format!("{other:?} is no type: {KNOWN}")),
            },
            Expression::String(text) => {
                let read = Expression::from_str(text);
                inner(&read.map_err(|error| format!("its type {text:?}: {error}"))?)
            }
            Expression::FuncCall(call) => {
                let name = call.name.name.as_str();
                match (name, &call.args[..]) {
                    ("list", [of]) => Ok(Self::List(Box::new(inner(of)?))),
                    ("set", [of]) => Ok(Self::Set(Box::new(inner(of)?))),
                    ("map", [of]) => Ok(Self::Map(Box::new(inner(of)?))),
                    ("tuple", [Expression::Array(items)]) => Ok(Self::Tuple(
                        items.iter().map(inner).collect::<Result<_, _>>()?,
                    )),
                    ("object", [Expression::Object(members)]) => {
                        let member = |(key, value)| Member::parse(key, value, &inner);
                        let members: Result<Vec<_>, _> = members.iter().map(member).collect();
                        Ok(Self::Object(members?))
                    }
                    ("list" | "set" | "map" | "tuple" | "object", _) => {
                        Err(format!("its type {name}() needs one type in it: {KNOWN}"))
                    }
                    _ => Err(format!("{name}() is no type: {KNOWN}")),
                }
            }
            _ => Err(format!("its type is none: {KNOWN}")),
        }
    }

    /// Whether one word of text is a value.
    fn is_primitive(&self) -> bool {
        matches!(self, Self::String | Self::Number | Self::Bool)
    }

    /// Whether `NAME_JSON` counts more than `NAME`.
    pub(super) fn prefers_json(&self) -> bool {
        !self.is_primitive()
    }

    /// A value as one of this type; null is one of each.
    pub(super) fn convert(&self, value: Value) -> Result<Value, String> {
        let required = || format!("{self} required");
        Ok(match (self, value) {
            (_, Value::Null) => Value::Null,
            (Self::Any, value)
            | (Self::String, value @ Value::String(_))
            | (Self::Number, value @ Value::Number(_))
            | (Self::Bool, value @ Value::Bool(_)) => value,
            (Self::String, Value::Number(number)) => Value::from(number.to_string()),
            (Self::String, Value::Bool(value)) => Value::from(value.to_string()),
            (Self::Number, Value::String(text)) => number(&Value::from(text))
                .map(number_value)
                .map_err(|_| required())?,
            (Self::Bool, Value::String(text)) => match text.as_str() {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return Err(required()),
            },
            (Self::List(of), Value::Array(items)) => each(of, items)?.into(),
            (Self::Set(of), Value::Array(items)) => set(each(of, items)?).into(),
            (Self::Map(of), Value::Object(members)) => {
                let pair = |(key, value)| Ok((key, of.convert(value)?));
                let members: Result<Map<_, _>, String> = members.into_iter().map(pair).collect();
                members?.into()
            }
            (Self::Tuple(types), Value::Array(items)) => {
                if types.len() != items.len() {
                    let (want, have) = (types.len(), items.len());
                    return Err(format!(
                        "a tuple of {want} elements required, there are {have}"
                    ));
                }
                let both = types.iter().zip(items);
                both.map(|(of, item)| of.convert(item))
                    .collect::<Result<_, _>>()?
            }
            (Self::Object(types), Value::Object(mut given)) => {
                let mut members = Map::new();
                for Member {
                    name,
                    kind,
                    optional,
                } in types
                {
                    let value = match given.remove(name) {
                        Some(value) => kind
                            .convert(value)
                            .map_err(|why| format!("{name}: {why}"))?,
                        None if *optional => Value::Null,
                        None => return Err(format!("attribute {name:?} is required")),
                    };
                    members.insert(name.clone(), value);
                }
                members.into()
            }
            _ => return Err(required()),
        })
    }

    /// The environment's word for a value of this type.
    pub(super) fn read(&self, given: &Given) -> Result<Value, String> {
        let text = match given {
            Given::Json(json) => {
                let value = serde_json::from_str(json).map_err(|error| error.to_string())?;
                return self.convert(value);
            }
            Given::Text(text) => text,
        };
        let listed = || option_values(text).map_err(|reason| format!("{text:?}: {reason}"));
        match self {
            Self::String => Ok(Value::from(text.as_str())),
            Self::Bool => match crate::flags::bools::parse(text) {
                Some(value) => Ok(Value::Bool(value)),
                None => Err(format!("{text:?} is neither true nor false")),
            },
            Self::Number => {
                let value = number(&Value::from(text.as_str()));
                value
                    .map(number_value)
                    .map_err(|_| format!("{text:?} is no number"))
            }
            Self::List(of) | Self::Set(of) if of.is_primitive() => {
                let read = |word| of.read(&Given::Text(word));
                let items: Result<Vec<_>, _> = listed()?.into_iter().map(read).collect();
                self.convert(Value::Array(items?))
            }
            Self::Tuple(types) if types.iter().all(Self::is_primitive) => {
                let words = listed()?;
                let (want, have) = (types.len(), words.len());
                if want != have {
                    return Err(format!(
                        "a tuple of {want} elements required, there are {have}"
                    ));
                }
                let both = types.iter().zip(words);
                both.map(|(of, word)| of.read(&Given::Text(word))).collect()
            }
            Self::Map(of) if of.is_primitive() => {
                let pair = |word: String| match word.split_once(':') {
                    Some((key, value)) => {
                        Ok((key.to_owned(), of.read(&Given::Text(value.to_owned()))?))
                    }
                    None => Err(format!("{word:?} is no key:value")),
                };
                let members: Result<Map<_, _>, _> = listed()?.into_iter().map(pair).collect();
                Ok(members?.into())
            }
            _ => Err(format!(
                "{self} cannot be read from text: set the variable's name with _JSON added"
            )),
        }
    }
}

/// What is said of a variable beside its default.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    pub(super) kind: Option<Type>,
    pub(super) given: Option<Given>,
}

impl Declared {
    /// The variable's value.
    pub(super) fn settle(&self, default: Value) -> Result<Value, String> {
        let Some(kind) = &self.kind else {
            return match &self.given {
                None => Ok(default),
                Some(Given::Text(text) | Given::Json(text)) => read_as(text, &default),
            };
        };
        match &self.given {
            None => kind
                .convert(default)
                .map_err(|reason| format!("its default: {reason}")),
            Some(given) => kind.read(given),
        }
    }
}

/// The environment's text as what the default is.
fn read_as(text: &str, default: &Value) -> Result<Value, String> {
    Ok(match default {
        Value::Bool(_) => match crate::flags::bools::parse(text) {
            Some(value) => Value::Bool(value),
            None => return Err(format!("{text:?} is neither true nor false")),
        },
        Value::Number(_) => number(&Value::from(text)).map(number_value)?,
        Value::Array(_) | Value::Object(_) => serde_json::from_str(text)
            .or_else(|error| match default {
                Value::Array(_) => Ok(text.split(',').map(Value::from).collect()),
                _ => Err(error),
            })
            .map_err(|error| format!("{text:?}: {error}"))?,
        Value::Null | Value::String(_) => Value::from(text),
    })
}

/// What types there are, for messages.
const KNOWN: &str = "use string, number, bool, any, list(TYPE), set(TYPE), map(TYPE), tuple([TYPE]) or object({NAME = TYPE})";

impl Member {
    fn parse(
        key: &hcl::expr::ObjectKey,
        value: &Expression,
        inner: &dyn Fn(&Expression) -> Result<Type, String>,
    ) -> Result<Self, String> {
        let name = match key {
            hcl::expr::ObjectKey::Identifier(name) => name.as_str().to_owned(),
            hcl::expr::ObjectKey::Expression(Expression::String(name)) => name.clone(),
            _ => return Err("a member of an object has a plain name".to_owned()),
        };
        let (kind, optional) = match value {
            Expression::FuncCall(call) if call.name.name.as_str() == "optional" => {
                match &call.args[..] {
                    [of] => (inner(of)?, true),
                    _ => return Err(format!("{name}: optional() needs one type in it")),
                }
            }
            other => (inner(other)?, false),
        };
        Ok(Self {
            name,
            kind,
            optional,
        })
    }
}

fn each(of: &Type, items: Vec<Value>) -> Result<Vec<Value>, String> {
    items.into_iter().map(|item| of.convert(item)).collect()
}

/// Each value once, in their order.
fn set(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by(|a, b| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => a.to_string().cmp(&b.to_string()),
        },
    });
    items.dedup();
    items
}

/// As lists of variables name it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any type"),
            Self::String => f.write_str("string"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("bool"),
            Self::List(of) => write!(f, "list of {of}"),
            Self::Set(of) => write!(f, "set of {of}"),
            Self::Map(of) => write!(f, "map of {of}"),
            Self::Object(_) => f.write_str("object"),
            Self::Tuple(_) => f.write_str("tuple"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(text: &str) -> Type {
        Type::parse(&Expression::from_str(text).unwrap()).unwrap()
    }

    fn text(kind: &str, text: &str) -> Result<Value, String> {
        of(kind).read(&Given::Text(text.to_owned()))
    }

    // Names and values are those of buildx 0.29.1.

    #[test]
    fn types_are_named_as_in_lists() {
        for (written, named) in [
            ("string", "string"),
            ("any", "any type"),
            ("list(string)", "list of string"),
            ("map(list(number))", "map of list of number"),
            ("set(any)", "set of any type"),
            ("object({a=string,b=optional(number)})", "object"),
            ("tuple([string,number])", "tuple"),
            // As JSON has it.
            ("\"list(number)\"", "list of number"),
        ] {
            assert_eq!(of(written).to_string(), named, "{written}");
        }
        for wrong in [
            "frob",
            "list",
            "list()",
            "frob(string)",
            "object([string])",
            "5",
        ] {
            let error = Type::parse(&Expression::from_str(wrong).unwrap()).unwrap_err();
            assert!(error.contains("use string, number"), "{wrong}: {error}");
        }
        let deep = "list(".repeat(40) + "string" + &")".repeat(40);
        assert!(Type::parse(&Expression::String(deep)).is_err());
    }

    #[test]
    fn values_are_converted() {
        for (kind, value, converted) in [
            ("string", json!(true), json!("true")),
            ("string", json!(5), json!("5")),
            ("number", json!("12"), json!(12)),
            ("bool", json!("true"), json!(true)),
            ("bool", Value::Null, Value::Null),
            ("list(number)", json!(["1", 2]), json!([1, 2])),
            ("set(string)", json!(["b", "a", "b"]), json!(["a", "b"])),
            ("map(string)", json!({"a": 1}), json!({"a": "1"})),
            (
                "object({a=string,b=optional(number)})",
                json!({"a": "x", "c": 1}),
                json!({"a": "x", "b": null}),
            ),
            ("tuple([string,number])", json!(["a", "5"]), json!(["a", 5])),
        ] {
            assert_eq!(of(kind).convert(value), Ok(converted), "{kind}");
        }
        for (kind, value, told) in [
            ("list(string)", json!(5), "list of string required"),
            ("number", json!("x"), "number required"),
            (
                "object({a=string})",
                json!({"b": 5}),
                "attribute \"a\" is required",
            ),
            (
                "tuple([string])",
                json!([]),
                "a tuple of 1 elements required",
            ),
        ] {
            let error = of(kind).convert(value).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn text_is_read_as_the_type() {
        for (kind, given, value) in [
            ("number", "1e3", json!(1000)),
            ("bool", "1", json!(true)),
            ("list(string)", "\"a,b\",c", json!(["a,b", "c"])),
            ("list(string)", " a, b", json!([" a", " b"])),
            ("set(string)", "b,a,b", json!(["a", "b"])),
            ("map(string)", "a:b,c:d", json!({"a": "b", "c": "d"})),
            ("tuple([string,number])", "a,5", json!(["a", 5])),
        ] {
            assert_eq!(text(kind, given), Ok(value), "{kind} {given}");
        }
        for (kind, given, told) in [
            ("number", "abc", "\"abc\" is no number"),
            ("bool", "", "neither true nor false"),
            ("map(string)", "a=b", "\"a=b\" is no key:value"),
            (
                "tuple([string,number])",
                "a",
                "2 elements required, there are 1",
            ),
            ("object({a=string})", "x", "_JSON"),
            ("list(list(string))", "x", "_JSON"),
        ] {
            let error = text(kind, given).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let json = |kind: &str, json: &str| of(kind).read(&Given::Json(json.to_owned()));
        assert_eq!(json("string", "5"), Ok(json!("5")));
        assert_eq!(
            json("object({a=string})", r#"{"a":"b"}"#),
            Ok(json!({"a": "b"}))
        );
        assert!(
            json("string", "[5]")
                .unwrap_err()
                .contains("string required")
        );
    }
}
