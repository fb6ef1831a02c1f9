//! JSON text as Docker's commands print it.

use serde::Serialize;
use serde_json::Value;

/// On one line, without spaces.
pub(crate) fn compact(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is printed has a JSON form")
}

/// On one line, safe inside HTML as Go's `json.Marshal` writes it.
pub(crate) fn escaped(value: &impl Serialize) -> String {
    compact(value)
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Indented by four spaces, as `inspect` prints.
pub(crate) fn indented(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a JSON value serialises");
    String::from_utf8(text).expect("JSON is UTF-8")
}
