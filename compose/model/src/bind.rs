//! Canonical tree to typed model, through serde: a `Deserializer` over [`Node`] that is lenient about scalars (a
//! number may be text) and remembers the place of what it could not read.
//!
//! Two fields of every model struct do not come from the file's keys: `$span` is the place of the mapping,
//! `$extensions` holds its `x-*` keys.

use std::collections::BTreeMap;

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::diagnostic::Diagnostic;
use crate::interpolate::parse_bool;
use crate::report::Report;
use crate::scalar;
use crate::span::{SPAN_KEY, Span};
use crate::tree::{Entry, Map, Node, Value};
use crate::types::Extensions;

const EXTENSIONS_KEY: &str = "$extensions";

/// Reads a `T` at `path`; says what is wrong and returns `None` if it cannot.
pub(crate) fn bind<'n, T: de::Deserialize<'n>>(
    report: &mut Report,
    node: &'n Node,
    path: &str,
) -> Option<T> {
    match T::deserialize(Bind(node)) {
        Ok(value) => Some(value),
        Err(error) => {
            let mut place = path.to_owned();
            for step in error.path.iter().rev() {
                if !step.starts_with('[') && !place.is_empty() {
                    place.push('.');
                }
                place.push_str(step);
            }
            let span = error.span.or(node.span);
            let message = format!("{place}: {}", error.message);
            report.error(Diagnostic::error(span, message));
            None
        }
    }
}

/// The `x-*` entries of a mapping as plain values.
pub(crate) fn extensions(map: &Map) -> Extensions {
    map.iter()
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, entry)| (key.clone(), to_json(&entry.node)))
        .collect()
}

/// A tree as plain values, mappings in the order of their keys.
pub(crate) fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Str(text) => text.as_str().into(),
        Value::Seq(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => {
            let sorted: BTreeMap<&String, &Entry> = map.iter().collect();
            let entries = sorted.into_iter();
            entries
                .map(|(key, entry)| (key.clone(), to_json(&entry.node)))
                .collect()
        }
    }
}

/// Why a value does not fit the model.
#[derive(Debug)]
struct BindError {
    message: String,
    span: Span,
    /// Innermost step first.
    path: Vec<String>,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BindError {}

impl de::Error for BindError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        BindError {
            message: message.to_string(),
            span: Span::NONE,
            path: Vec::new(),
        }
    }
}

impl BindError {
    fn below(mut self, step: impl Into<String>, span: Span) -> Self {
        self.path.push(step.into());
        self.span = self.span.or(span);
        self
    }
}

#[derive(Clone, Copy)]
struct Bind<'n>(&'n Node);

impl<'n> Bind<'n> {
    fn wrong<T>(self, wanted: &str) -> Result<T, BindError> {
        let found = match self.0.scalar_text() {
            Some(text) => format!("{text:?}"),
            None => self.0.kind().to_owned(),
        };
        Err(BindError {
            message: format!("expected {wanted}, found {found}"),
            span: self.0.span,
            path: Vec::new(),
        })
    }

    /// A whole number within bounds, from a number or text.
    fn integer(self, from: i64, to: i64) -> Result<i64, BindError> {
        let number = match &self.0.value {
            Value::Int(number) => Some(*number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Some(*number as i64)
            }
            Value::Str(text) => scalar::integer(text.trim()),
            _ => None,
        };
        match number {
            Some(number) if (from..=to).contains(&number) => Ok(number),
            Some(_) => self.wrong(&format!("a whole number from {from} to {to}")),
            None => self.wrong("a whole number"),
        }
    }
}

macro_rules! integers {
    ($($method:ident, $visit:ident, $ty:ty;)*) => {$(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
            let to = i64::try_from(<$ty>::MAX).unwrap_or(i64::MAX);
            let from = i64::try_from(<$ty>::MIN).unwrap_or(0);
            let number = self.integer(from, to)?;
            match <$ty>::try_from(number) {
                Ok(number) => visitor.$visit(number),
                Err(_) => self.wrong("a whole number"),
            }
        }
    )*};
}

impl<'n> Deserializer<'n> for Bind<'n> {
    type Error = BindError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        let result = match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Str(text) => visitor.visit_borrowed_str(text),
            Value::Seq(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
        };
        result.map_err(|error: BindError| BindError {
            span: error.span.or(self.0.span),
            ..error
        })
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        match &self.0.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Str(text) => match parse_bool(text) {
                Some(value) => visitor.visit_bool(value),
                None => self.wrong("true or false"),
            },
            _ => self.wrong("true or false"),
        }
    }

    integers! {
        deserialize_i64, visit_i64, i64;
        deserialize_i32, visit_i32, i32;
        deserialize_u64, visit_u64, u64;
        deserialize_u32, visit_u32, u32;
        deserialize_u16, visit_u16, u16;
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        let number = match &self.0.value {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Str(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if number.is_finite() => visitor.visit_f64(number),
            _ => self.wrong("a number"),
        }
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        self.deserialize_string(visitor)
    }

    /// Scalars become text; null is the empty text (`labels: {a: }`).
    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        let result = match &self.0.value {
            Value::Str(text) => visitor.visit_borrowed_str(text),
            Value::Null => visitor.visit_str(""),
            Value::Seq(_) | Value::Map(_) => return self.wrong("text"),
            _ => visitor.visit_string(self.0.scalar_text().unwrap_or_default()),
        };
        result.map_err(|error: BindError| BindError {
            span: error.span.or(self.0.span),
            ..error
        })
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        match &self.0.value {
            Value::Seq(items) => visitor.visit_seq(Items {
                items: items.iter(),
                index: 0,
            }),
            Value::Null => visitor.visit_seq(Items {
                items: [].iter(),
                index: 0,
            }),
            _ => self.wrong("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        match &self.0.value {
            Value::Map(map) => visitor.visit_map(Entries::of(map.iter())),
            Value::Null => visitor.visit_map(Entries::of(indexmap::map::Iter::default())),
            _ => self.wrong("a mapping"),
        }
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        if !fields.contains(&SPAN_KEY) {
            return self.deserialize_map(visitor);
        }
        let entries = match &self.0.value {
            Value::Map(map) => map.iter(),
            Value::Null => indexmap::map::Iter::default(),
            _ => return self.wrong("a mapping"),
        };
        let mut entries = Entries::of(entries);
        entries.besides = vec![
            Pending::Extensions(self.0.as_map()),
            Pending::Span(self.0.span),
        ];
        visitor.visit_map(entries)
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        match self.0.as_str() {
            Some(text) if variants.contains(&text) => visitor.visit_enum(Word(text)),
            _ => self.wrong(&format!("one of {}", variants.join(", "))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <W: Visitor<'n>>
        i8 i16 i128 u8 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'n> {
    items: std::slice::Iter<'n, Node>,
    index: usize,
}

impl<'n> SeqAccess<'n> for Items<'n> {
    type Error = BindError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, BindError> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Bind(node))
            .map(Some)
            .map_err(|error| error.below(format!("[{index}]"), node.span))
    }
}

/// Entries of a mapping, then what the struct has besides.
struct Entries<'n> {
    entries: indexmap::map::Iter<'n, String, Entry>,
    besides: Vec<Pending<'n>>,
    /// The value of the key that was asked for last.
    value: Option<Pending<'n>>,
}

/// A value that is read after its key.
enum Pending<'n> {
    Entry(&'n str, &'n Node),
    Span(Span),
    Extensions(Option<&'n Map>),
}

impl<'n> Entries<'n> {
    fn of(entries: indexmap::map::Iter<'n, String, Entry>) -> Self {
        Entries {
            entries,
            besides: Vec::new(),
            value: None,
        }
    }
}

impl<'n> MapAccess<'n> for Entries<'n> {
    type Error = BindError;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, BindError> {
        let entry = self.entries.next();
        let entry = entry.map(|(key, entry)| Pending::Entry(key, &entry.node));
        self.value = entry.or_else(|| self.besides.pop());
        let key = match &self.value {
            Some(Pending::Entry(key, _)) => key,
            Some(Pending::Span(_)) => SPAN_KEY,
            Some(Pending::Extensions(_)) => EXTENSIONS_KEY,
            None => return Ok(None),
        };
        let key: StrDeserializer<'_, BindError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, BindError> {
        match self.value.take() {
            Some(Pending::Entry(key, node)) => seed
                .deserialize(Bind(node))
                .map_err(|error| error.below(key, node.span)),
            Some(Pending::Span(span)) => {
                let fields = [
                    ("file", span.file),
                    ("start", span.start),
                    ("end", span.end),
                ];
                seed.deserialize(MapDeserializer::new(fields.into_iter()))
            }
            Some(Pending::Extensions(map)) => {
                let values: Extensions = map.map(extensions).unwrap_or_default();
                let value = serde_json::Value::Object(values.into_iter().collect());
                seed.deserialize(value).map_err(de::Error::custom)
            }
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

struct Word<'n>(&'n str);

impl<'n> EnumAccess<'n> for Word<'n> {
    type Error = BindError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self), BindError> {
        let name: StrDeserializer<'_, BindError> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'n> VariantAccess<'n> for Word<'n> {
    type Error = BindError;

    fn unit_variant(self) -> Result<(), BindError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, _seed: T) -> Result<T::Value, BindError> {
        Err(de::Error::custom("expected a word"))
    }

    fn tuple_variant<V: Visitor<'n>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> Result<V::Value, BindError> {
        Err(de::Error::custom("expected a word"))
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, BindError> {
        Err(de::Error::custom("expected a word"))
    }
}

/// Binds every entry of a top-level mapping.
pub(crate) fn bind_all<'n, T: de::Deserialize<'n>>(
    report: &mut Report,
    tree: &'n Node,
    key: &str,
) -> BTreeMap<String, T> {
    let mut bound = BTreeMap::new();
    for (name, entry) in tree.get(key).and_then(Node::as_map).into_iter().flatten() {
        if let Some(value) = bind(report, &entry.node, &format!("{key}.{name}")) {
            bound.insert(name.clone(), value);
        }
    }
    bound
}
