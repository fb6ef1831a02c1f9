//! Values a template works on, and how Go would print them.

use indexmap::IndexMap;
use serde_json::Value as Json;
use std::fmt;
use std::rc::Rc;

/// A value. Clones share their content.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Absent, and how Go prints what is absent.
    Nil(Nil),
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<Vec<Value>>),
    Map(Rc<IndexMap<String, Value>>),
    Row(Rc<Row>),
}

/// What is absent. Go's JSON has lost the type by then, Go's programs have not: it decides what they print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nil {
    /// A missing key.
    NoValue,
    List,
    Map,
    Pointer,
}

impl Nil {
    /// What `null` means below a key of the Engine API. Source: moby `api/types`.
    fn below(key: &str) -> Self {
        match key {
            "Binds"
            | "BlkioDeviceReadBps"
            | "BlkioDeviceReadIOps"
            | "BlkioDeviceWriteBps"
            | "BlkioDeviceWriteIOps"
            | "BlkioWeightDevice"
            | "CapAdd"
            | "CapDrop"
            | "Cmd"
            | "DNSNames"
            | "DeviceCgroupRules"
            | "DeviceRequests"
            | "Devices"
            | "Dns"
            | "DnsOptions"
            | "DnsSearch"
            | "Entrypoint"
            | "Env"
            | "ExecIDs"
            | "ExtraHosts"
            | "GroupAdd"
            | "Links"
            | "MaskedPaths"
            | "Mounts"
            | "OnBuild"
            | "ReadonlyPaths"
            | "RepoDigests"
            | "RepoTags"
            | "SecondaryIPAddresses"
            | "SecondaryIPv6Addresses"
            | "SecurityOpt"
            | "Shell"
            | "Test"
            | "Ulimits"
            | "VolumesFrom"
            | "Warnings"
            | "Aliases" => Self::List,
            "Annotations" | "Containers" | "DriverOpts" | "ExposedPorts" | "Labels" | "Options"
            | "PortBindings" | "Ports" | "StorageOpt" | "Sysctls" | "Tmpfs" | "Volumes" => {
                Self::Map
            }
            _ => Self::Pointer,
        }
    }
}

impl Default for Value {
    fn default() -> Self {
        Self::Nil(Nil::NoValue)
    }
}

/// One line of a list: named fields, and labels for the method `.Label "name"`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    fields: IndexMap<&'static str, Value>,
    labels: IndexMap<String, String>,
    /// A row of titles: a label is titled by its own name.
    is_header: bool,
}

impl Row {
    pub(crate) fn header() -> Self {
        Self {
            is_header: true,
            ..Self::default()
        }
    }

    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.insert(name, value.into());
        self
    }

    /// Labels for `.Label`; `.Labels` is a field like the others.
    pub(crate) fn labels(mut self, labels: IndexMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    pub(super) fn label<'a>(&'a self, name: &'a str) -> &'a str {
        if self.is_header {
            name
        } else {
            self.labels.get(name).map_or("", String::as_str)
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.fields.keys().copied()
    }
}

impl Value {
    pub(crate) fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Self::List(Rc::new(items.into_iter().collect()))
    }

    /// A field that the Engine API leaves out of its JSON while it is empty. `{{if .State.Health}}` works on Docker's
    /// types, which have the field all the same.
    pub(super) fn left_out(name: &str) -> Option<Self> {
        match name {
            "Annotations" | "ExposedPorts" | "Health" | "Healthcheck" | "Init" | "Mounts"
            | "Shell" | "SizeRootFs" | "SizeRw" | "StopTimeout" | "StorageOpt" | "Sysctls"
            | "Tmpfs" | "UsageData" => Some(Self::Nil(Nil::below(name))),
            "MacAddress" | "Runtime" | "StopSignal" => Some("".into()),
            "ArgsEscaped" | "NetworkDisabled" => Some(false.into()),
            _ => None,
        }
    }

    /// What `if` and `with` ask.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil(_) => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Row(_) => true,
        }
    }

    /// Go's word for the type, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil(_) => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Row(_) => "object",
        }
    }

    /// The value as JSON; maps keep their order, rows are sorted as Go sorts the keys of a map.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Nil(_) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::Str(text) => Json::from(&**text),
            Self::List(items) => items.iter().map(Value::to_json).collect(),
            Self::Map(map) => Json::Object(
                map.iter()
                    .map(|(key, value)| (key.clone(), value.to_json()))
                    .collect(),
            ),
            Self::Row(row) => {
                let mut names: Vec<_> = row.names().collect();
                names.sort_unstable();
                let pair = |name: &'static str| (name.to_owned(), row.fields[name].to_json());
                Json::Object(names.into_iter().map(pair).collect())
            }
        }
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil(Nil::Pointer),
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::Str(text.as_str().into()),
            Json::Array(items) => Self::list(items.iter().map(Value::from)),
            Json::Object(map) => Self::Map(Rc::new(
                map.iter()
                    .map(|(key, value)| match value {
                        Json::Null => (key.clone(), Self::Nil(Nil::below(key))),
                        value => (key.clone(), value.into()),
                    })
                    .collect(),
            )),
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Row> for Value {
    fn from(row: Row) -> Self {
        Self::Row(Rc::new(row))
    }
}

/// Go's `%v`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil(Nil::NoValue) => f.write_str("<no value>"),
            Self::Nil(Nil::List) => f.write_str("[]"),
            Self::Nil(Nil::Map) => f.write_str("map[]"),
            Self::Nil(Nil::Pointer) => f.write_str("<nil>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&go_float(*value)),
            Self::Str(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_str(" ")?;
                    }
                    inner(item, f)?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                let mut keys: Vec<_> = map.keys().collect();
                keys.sort_unstable();
                f.write_str("map[")?;
                for (index, key) in keys.into_iter().enumerate() {
                    write!(f, "{}{key}:", if index > 0 { " " } else { "" })?;
                    inner(&map[key], f)?;
                }
                f.write_str("]")
            }
            Self::Row(_) => write!(f, "{}", self.to_json()),
        }
    }
}

/// Inside a list or a map an absent value is `<nil>`.
fn inner(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if matches!(value, Value::Nil(Nil::NoValue)) {
        f.write_str("<nil>")
    } else {
        write!(f, "{value}")
    }
}

/// Go's shortest `%v` of a float64: an exponent below 1e-4 and from 1e21 on.
fn go_float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) && value.is_finite() {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').expect("`{:e}` writes an exponent");
        let exponent: i32 = exponent.parse().expect("an exponent is a number");
        return format!(
            "{digits}e{}{:02}",
            if exponent < 0 { '-' } else { '+' },
            exponent.abs()
        );
    }
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => format!("{v}"),
    }
}
