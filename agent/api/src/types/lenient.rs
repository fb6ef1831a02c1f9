//! Reading what real clients send, and writing what they expect: Go programs write `null` for empty lists and maps.

use serde::{Deserialize, Deserializer, Serialize as _};

/// Reads `null` as the type's default. Use together with `#[serde(default)]`.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a string or a list of strings; Go's `strslice.StrSlice` accepts both for `Cmd` and `Entrypoint`.
pub(crate) fn string_or_list<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        None => None,
        Some(Either::One(word)) => Some(vec![word]),
        Some(Either::Many(words)) => Some(words),
    })
}

/// Writes an empty list as `null`, as Go does with one that was never made.
pub(crate) fn empty_null<S, T>(list: &[T], serializer: S) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
    T: serde::Serialize,
{
    match list {
        [] => serializer.serialize_none(),
        list => list.serialize(serializer),
    }
}
