//! JSON as Go's `encoding/json` reads it. What an image is made of was written by other people's tools and is read by
//! Docker in this way: an image must not be refused, or mean something else, where a stricter reader would do so.
//!
//! - `null` is the zero value, also as a member of a list or map and for texts and numbers;
//! - the members of a struct are found in any letter case, the exact one first;
//! - a key may come several times: the last value counts, objects that are structs are laid over each other, and `null`
//!   empties lists, maps and pointers only;
//! - bytes that are no UTF-8 become U+FFFD.
//!
//! Source: Go `encoding/json/decode.go`. Deliberately not here: halves of surrogate pairs, which are refused, and more than
//! 128 levels of nesting. The types must be structs with `#[serde(default)]` members for all this to work; a flattened
//! struct is a map to serde.

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Error, Number};

/// Reads a whole document.
///
/// # Errors
/// It is no JSON, or something in it is of another type; the text says where.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let text = String::from_utf8_lossy(json);
    T::deserialize(Given(vec![serde_json::from_str(&text)?]))
}

/// A value with all members of its objects, in the order of the text.
enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Number(_) => Unexpected::Other("number"),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Number(value.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("no number"))?;
                Ok(Json::Number(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Json::Object(object))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// The values that a key was given, in the order of the text; at least one.
struct Given(Vec<Json>);

impl Given {
    fn last(mut self) -> Json {
        self.0.pop().unwrap_or(Json::Null)
    }

    /// What a text, number or truth value becomes: `null` leaves it as it was.
    fn scalar(mut self) -> Json {
        self.0.retain(|value| !value.is_null());
        self.last()
    }

    /// The members of all objects, one after the other.
    fn members(self, expected: &dyn serde::de::Expected) -> Result<Vec<(String, Json)>, Error> {
        let mut all = Vec::new();
        for value in self.0 {
            match value {
                Json::Null => {}
                Json::Object(members) => all.extend(members),
                other => return Err(Error::invalid_type(other.unexpected(), expected)),
            }
        }
        Ok(all)
    }

    /// What came after the last `null`.
    fn since_null(mut self) -> Self {
        if let Some(at) = self.0.iter().rposition(Json::is_null) {
            self.0.drain(..=at);
        }
        self
    }
}

/// The zero value of the type, where nothing was given.
macro_rules! scalar {
    ($($method:ident $zero:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.scalar() {
                Json::Null => visitor.$zero($value),
                value => Given(vec![value]).deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Given {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.last() {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(value),
            Json::Number(number) => number.deserialize_any(visitor),
            Json::Text(text) => visitor.visit_string(text),
            Json::List(items) => visitor.visit_seq(Items {
                items: items.into_iter(),
            }),
            Json::Object(members) => visitor.visit_map(Members::of_map(members)),
        }
    }

    scalar! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i64 0;
        deserialize_i16 visit_i64 0;
        deserialize_i32 visit_i64 0;
        deserialize_i64 visit_i64 0;
        deserialize_u8 visit_u64 0;
        deserialize_u16 visit_u64 0;
        deserialize_u32 visit_u64 0;
        deserialize_u64 visit_u64 0;
        deserialize_f32 visit_f64 0.0;
        deserialize_f64 visit_f64 0.0;
        deserialize_str visit_str "";
        deserialize_string visit_str "";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.since_null();
        match left.0.is_empty() {
            true => visitor.visit_none(),
            false => visitor.visit_some(left),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.last() {
            Json::Null => Given(vec![Json::List(Vec::new())]).deserialize_any(visitor),
            value => Given(vec![value]).deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let members = self.since_null().members(&visitor)?;
        visitor.visit_map(Members::of_map(members))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let members = self.members(&visitor)?;
        visitor.visit_map(Members::of_struct(members, fields))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.scalar() {
            Json::Text(text) => visitor.visit_enum(text.into_deserializer()),
            Json::Object(members) => {
                visitor.visit_enum(MapAccessDeserializer::new(Members::of_map(members)))
            }
            other => Err(Error::invalid_type(other.unexpected(), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// The members of a list.
struct Items {
    items: std::vec::IntoIter<Json>,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let item = self.items.next();
        item.map(|item| seed.deserialize(Given(vec![item])))
            .transpose()
    }
}

/// The members of an object: of a map as they came, of a struct by its own names, each once.
struct Members {
    members: std::vec::IntoIter<(String, Given)>,
    value: Option<(String, Given)>,
}

impl Members {
    fn of_map(members: Vec<(String, Json)>) -> Self {
        let one = |(key, value)| (key, Given(vec![value]));
        Self::new(members.into_iter().map(one).collect())
    }

    fn of_struct(members: Vec<(String, Json)>, fields: &'static [&'static str]) -> Self {
        let mut known: Vec<(String, Given)> = Vec::new();
        for (key, value) in members {
            let exact = fields.iter().find(|field| **field == key);
            let Some(field) = exact.or_else(|| fields.iter().find(|field| folds(field, &key)))
            else {
                continue;
            };
            match known.iter_mut().find(|(name, _)| name == field) {
                Some((_, given)) => given.0.push(value),
                None => known.push(((*field).to_owned(), Given(vec![value]))),
            }
        }
        Self::new(known)
    }

    fn new(members: Vec<(String, Given)>) -> Self {
        Self {
            members: members.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.value = self.members.next();
        let key = self.value.as_ref().map(|(key, _)| key);
        key.map(|key| seed.deserialize(StrDeserializer::new(key)))
            .transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (key, given) = self.value.take().expect("a key was asked for before");
        seed.deserialize(given)
            .map_err(|error| Error::custom(format!("{key}: {error}")))
    }
}

/// Whether Go takes `key` for the member `field`: letters are equal in any case, among them the long s and the sign of
/// the kelvin.
fn folds(field: &str, key: &str) -> bool {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    field.chars().map(fold).eq(key.chars().map(fold))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        user: String,
        env: Option<Vec<String>>,
        labels: BTreeMap<String, String>,
        volumes: BTreeMap<String, Nothing>,
        check: Option<Check>,
        flag: bool,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Nothing {}

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Check {
        test: Vec<String>,
        interval: i64,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Outer {
        os: String,
        size: u64,
        config: Inner,
        steps: Vec<Check>,
    }

    fn read(json: &str) -> Outer {
        from_slice(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        assert_eq!(
            read(r#"{"os":null,"size":null,"config":null,"steps":null}"#),
            Outer::default()
        );
        let read = read(
            r#"{"config":{"Env":["A=b",null],"Labels":{"a":null,"b":"c"},"Volumes":{"/d":null},"Flag":null,
                "Check":{"test":null,"interval":null}},"steps":[null]}"#,
        );
        assert_eq!(read.config.env, Some(texts(&["A=b", ""])));
        assert_eq!(read.config.labels["a"], "");
        assert!(read.config.volumes.contains_key("/d"));
        assert_eq!(read.config.check, Some(Check::default()));
        assert_eq!(read.steps, [Check::default()]);
    }

    #[test]
    fn members_of_structs_are_found_in_any_case_and_keys_of_maps_are_not() {
        let read = read(
            r#"{"OS":"linux","Config":{"env":["a"],"LABELS":{"A":"1","a":"2"},"uſer":"me","chec\u212a":{"TEST":["x"]}}}"#,
        );
        assert_eq!(read.os, "linux");
        assert_eq!(read.config.env, Some(texts(&["a"])));
        assert_eq!(read.config.user, "me");
        assert_eq!(read.config.check.unwrap().test, ["x"]);
        assert_eq!(
            read.config.labels.into_iter().collect::<Vec<_>>(),
            [
                ("A".to_owned(), "1".to_owned()),
                ("a".to_owned(), "2".to_owned())
            ]
        );
    }

    #[test]
    fn of_keys_that_come_twice_the_last_counts() {
        let twice = read(r#"{"os":"a","Os":"b","size":1,"size":null,"unknown":1,"unknown":2}"#);
        assert_eq!((&*twice.os, twice.size), ("b", 1));
        // Structs are laid over each other, lists replace each other, maps grow.
        let twice = read(
            r#"{"config":{"Env":["a"],"User":"x","Labels":{"a":"1","b":"1"},"Check":{"interval":3}},
                "config":{"env":["b"],"Labels":{"b":"2"},"Check":{"test":["y"]}}}"#,
        );
        assert_eq!(twice.config.env, Some(texts(&["b"])));
        assert_eq!(twice.config.user, "x");
        assert_eq!(twice.config.labels["a"], "1");
        assert_eq!(twice.config.labels["b"], "2");
        let check = twice.config.check.unwrap();
        assert_eq!((&check.test[..], check.interval), (&texts(&["y"])[..], 3));
        // Null empties lists, maps and pointers, and what comes after it begins anew.
        let twice = read(
            r#"{"config":{"Env":["a"],"Env":null,"Labels":{"a":"1"},"Labels":null,"Labels":{"b":"2"},
                "Check":{"interval":3},"Check":null}}"#,
        );
        assert_eq!(twice.config.env, None);
        assert_eq!(twice.config.labels.len(), 1);
        assert_eq!(twice.config.check, None);
    }

    #[test]
    fn what_go_refuses_is_refused_with_the_way_there() {
        for (json, way) in [
            (r#"{"os":1}"#, "os: invalid type"),
            (r#"{"config":{"Env":"a"}}"#, "config: Env: invalid type"),
            (r#"{"config":[]}"#, "config: invalid type"),
            (r#"{"steps":[{"interval":"1"}]}"#, "steps: interval: "),
            (r#"{"steps":[1]}"#, "steps: invalid type"),
            (r#"{"size":-1}"#, "size: "),
            (r#"{"size":1.5}"#, "size: "),
            (r#"{"os":"a"} x"#, "trailing"),
            (r#"{"os":"a""#, "EOF"),
            ("", "EOF"),
        ] {
            let error = from_slice::<Outer>(json.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(way), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_replaced() {
        let read: Outer = from_slice(b"{\"os\":\"a\xffb\"}").unwrap();
        assert_eq!(read.os, "a\u{fffd}b");
    }

    #[test]
    fn any_document_is_read_or_refused() {
        let deep = "[".repeat(100_000);
        assert!(from_slice::<Outer>(deep.as_bytes()).is_err());
        let list: Vec<String> = from_slice(b"[\"a\",null]").unwrap();
        assert_eq!(list, ["a", ""]);
        assert_eq!(from_slice::<Option<Vec<u8>>>(b"null").unwrap(), None);
        let value: serde_json::Value = from_slice(b"{\"a\":[1,null,{}]}").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, null, {}]}));
    }
}
