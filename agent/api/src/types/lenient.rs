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

#[cfg(test)]
mod tests {
    use crate::{
        ContainerCreateRequest, ExecCreateRequest, ExecStartRequest, NetworkConnectRequest,
    };
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::{Value, json};

    /// Every member of every object of a request, one after the other, as `null`.
    fn every_member_may_be_null<T: Serialize + DeserializeOwned>(request: &Value) {
        let pointers = members(request, "");
        assert!(!pointers.is_empty());
        for pointer in pointers {
            let mut request = request.clone();
            *request.pointer_mut(&pointer).expect("it was found") = Value::Null;
            if let Err(error) = serde_json::from_value::<T>(request) {
                panic!("{pointer} as null: {error}");
            }
        }
    }

    fn members(value: &Value, pointer: &str) -> Vec<String> {
        let Value::Object(fields) = value else {
            return Vec::new();
        };
        let inner = fields.iter().flat_map(|(name, value)| {
            let pointer = format!("{pointer}/{name}");
            let mut all = members(value, &pointer);
            all.push(pointer);
            all
        });
        inner.collect()
    }

    fn with(mut request: Value, further: Value) -> Value {
        let (Value::Object(fields), Value::Object(further)) = (&mut request, further) else {
            panic!("objects");
        };
        fields.extend(further);
        request
    }

    #[test]
    fn go_reads_null_as_nothing_given() {
        let health = json!({"Test": ["CMD", "true"], "Interval": 1, "Timeout": 1, "Retries": 1, "StartPeriod": 1,
            "StartInterval": 1});
        let written = serde_json::to_value(ContainerCreateRequest::default()).unwrap();
        every_member_may_be_null::<ContainerCreateRequest>(&with(
            written,
            json!({"Healthcheck": health}),
        ));
        let written = serde_json::to_value(ExecCreateRequest::default()).unwrap();
        every_member_may_be_null::<ExecCreateRequest>(&written);
        let written = serde_json::to_value(ExecStartRequest::default()).unwrap();
        every_member_may_be_null::<ExecStartRequest>(&written);
        let endpoint =
            json!({"GwPriority": 1, "IPPrefixLen": 1, "IPAMConfig": {"IPv4Address": "10.0.0.1"}});
        every_member_may_be_null::<NetworkConnectRequest>(
            &json!({"Container": "x", "EndpointConfig": endpoint}),
        );
    }
}
