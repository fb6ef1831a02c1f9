//! Targets: what a build of a bake file consists of, and how targets are put on top of each other.
//! Source: buildx `bake/bake.go:Target`.

use agent_api::client::build::{SecretSpec, SshSpec, option_fields};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A target with all its attributes evaluated. Absent ones are left to what is below or to defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(super) struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<Text>,
    #[serde(skip_serializing)]
    pub(super) inherits: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "quoted_list")]
    pub(super) annotations: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "attributes")]
    pub(super) attest: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Text>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) contexts: Option<IndexMap<String, Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dockerfile: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "quoted")]
    pub(super) dockerfile_inline: Option<Text>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "quoted_map")]
    pub(super) args: Option<IndexMap<String, Option<Text>>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "quoted_map")]
    pub(super) labels: Option<IndexMap<String, Option<Text>>>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) tags: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "caches")]
    pub(super) cache_from: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "caches")]
    pub(super) cache_to: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<Text>,
    #[serde(
        skip_serializing_if = "is_bare",
        alias = "secrets",
        serialize_with = "secrets"
    )]
    pub(super) secret: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "agents")]
    pub(super) ssh: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) platforms: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "is_bare", serialize_with = "outputs")]
    pub(super) output: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "boolean")]
    pub(super) pull: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "boolean")]
    pub(super) no_cache: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<Text>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) no_cache_filter: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shm_size: Option<Text>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) ulimits: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call: Option<Text>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) entitlements: Option<Vec<Text>>,
    #[serde(skip_serializing_if = "is_bare")]
    pub(super) extra_hosts: Option<IndexMap<String, Option<Text>>>,
}

/// A string, or a scalar that is written as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        super::eval::text(&value)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// `type=local,dest=out`, or the same as an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry(pub(super) String);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Object(members) => {
                let mut fields = Vec::new();
                for (key, value) in members {
                    let value = match value {
                        Value::Array(items) => items
                            .iter()
                            .map(super::eval::text)
                            .collect::<Result<Vec<_>, _>>()
                            .map(|items| items.join(",")),
                        other => super::eval::text(&other),
                    };
                    fields.push(csv_field(&key, &value.map_err(serde::de::Error::custom)?));
                }
                Ok(Self(fields.join(",")))
            }
            other => Err(serde::de::Error::custom(format!(
                "{other} is neither a string nor an object"
            ))),
        }
    }
}

/// A list or a map with nothing in it.
trait Bare {
    fn is_bare(&self) -> bool;
}

impl<T> Bare for Vec<T> {
    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Bare for IndexMap<String, T> {
    fn is_bare(&self) -> bool {
        self.is_empty()
    }
}

fn is_bare(collection: &Option<impl Bare>) -> bool {
    collection.as_ref().is_none_or(Bare::is_bare)
}

/// `"true"` is as good as `true`.
fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let value = Option::<Value>::deserialize(from)?.filter(|value| !value.is_null());
    let truth = value.as_ref().map(super::eval::truth).transpose();
    truth.map_err(serde::de::Error::custom)
}

/// Text so that it is the same when what was printed is read as a bake file.
fn literal(text: &Text) -> String {
    text.0.replace("${", "$${").replace("%{", "%%{")
}

fn quoted<S: Serializer>(text: &Option<Text>, to: S) -> Result<S::Ok, S::Error> {
    text.as_ref().map(literal).serialize(to)
}

fn quoted_list<S: Serializer>(list: &Option<Vec<Text>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().flatten().map(literal))
}

fn quoted_map<S: Serializer>(
    map: &Option<IndexMap<String, Option<Text>>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let pair =
        |(name, value): (&String, &Option<Text>)| (name.clone(), value.as_ref().map(literal));
    to.collect_map(map.iter().flatten().map(pair))
}

/// Entries as buildx prints them: objects. What cannot be read stays as it is written, and is refused by what uses it.
fn print<S: Serializer>(
    entries: &Option<Vec<Entry>>,
    serializer: S,
    object: impl Fn(&str) -> Option<Value>,
) -> Result<S::Ok, S::Error> {
    let print = |entry: &Entry| object(&entry.0).unwrap_or_else(|| Value::from(entry.0.as_str()));
    serializer.collect_seq(entries.iter().flatten().map(print))
}

/// The attributes of an entry in the order of their names; `short` is what a text without any stands for.
fn object(text: &str, short: impl Fn(&str) -> Vec<(&'static str, String)>) -> Option<Value> {
    let fields = option_fields(text).ok()?;
    let mut sorted = BTreeMap::new();
    match &fields[..] {
        [(word, None)] => {
            let pairs = short(word).into_iter();
            sorted.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
        }
        fields => {
            for (key, value) in fields {
                sorted.insert(key.clone(), value.clone()?);
            }
        }
    }
    serde_json::to_value(sorted).ok()
}

fn attributes<S: Serializer>(entries: &Option<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
    print(entries, to, |text| {
        object(text, |kind| vec![("type", kind.to_owned())])
    })
}

fn caches<S: Serializer>(entries: &Option<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
    print(entries, to, |text| {
        object(text, |name| {
            vec![("ref", name.to_owned()), ("type", "registry".to_owned())]
        })
    })
}

fn outputs<S: Serializer>(entries: &Option<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
    print(entries, to, |text| {
        object(text, |place| {
            let kind = if place == "-" { "tar" } else { "local" };
            vec![("type", kind.to_owned()), ("dest", place.to_owned())]
        })
    })
}

fn secrets<S: Serializer>(entries: &Option<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
    print(entries, to, |text| {
        let secret = SecretSpec::parse(text).ok()?;
        let mut printed = serde_json::json!({"id": secret.id});
        if let Some(path) = secret.src {
            printed["src"] = path.to_string_lossy().into();
        }
        if let Some(name) = secret.env {
            printed["env"] = name.into();
        }
        Some(printed)
    })
}

fn agents<S: Serializer>(entries: &Option<Vec<Entry>>, to: S) -> Result<S::Ok, S::Error> {
    print(entries, to, |text| {
        let agent = SshSpec::parse(text).ok()?;
        let mut printed = serde_json::json!({"id": agent.id});
        if !agent.paths.is_empty() {
            let paths = agent.paths.iter().map(|path| path.to_string_lossy());
            printed["paths"] = paths.collect();
        }
        Some(printed)
    })
}

/// `key=value` as a field of comma-separated values.
pub(super) fn csv_field(key: &str, value: &str) -> String {
    let field = format!("{key}={value}");
    if field.contains([',', '"']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field
}

impl Target {
    /// Takes empty texts out of lists, where they stand for what a condition left out, and what is there twice.
    pub(super) fn tidy(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
            &mut self.entitlements,
        ] {
            tidy(list, |text| text.0.is_empty());
        }
        for list in [
            &mut self.attest,
            &mut self.cache_from,
            &mut self.cache_to,
            &mut self.secret,
            &mut self.ssh,
            &mut self.output,
        ] {
            tidy(list, |entry| entry.0.is_empty());
        }
    }

    /// Puts `upper` on top: scalars, tags, platforms and what is written replace; maps and what is read are joined.
    pub(super) fn merge(&mut self, upper: Self) {
        replace(&mut self.description, upper.description);
        replace(&mut self.context, upper.context);
        replace(&mut self.dockerfile, upper.dockerfile);
        replace(&mut self.dockerfile_inline, upper.dockerfile_inline);
        replace(&mut self.target, upper.target);
        replace(&mut self.tags, upper.tags);
        replace(&mut self.platforms, upper.platforms);
        replace(&mut self.pull, upper.pull);
        replace(&mut self.no_cache, upper.no_cache);
        replace(&mut self.network, upper.network);
        replace(&mut self.shm_size, upper.shm_size);
        replace(&mut self.cache_to, upper.cache_to);
        replace(&mut self.output, upper.output);
        replace(&mut self.call, upper.call);
        join(&mut self.contexts, upper.contexts);
        join(&mut self.args, without_nulls(upper.args));
        join(&mut self.labels, without_nulls(upper.labels));
        join(&mut self.extra_hosts, without_nulls(upper.extra_hosts));
        append(&mut self.annotations, upper.annotations);
        append(&mut self.attest, upper.attest);
        append(&mut self.cache_from, upper.cache_from);
        append(&mut self.secret, upper.secret);
        append(&mut self.ssh, upper.ssh);
        append(&mut self.no_cache_filter, upper.no_cache_filter);
        append(&mut self.ulimits, upper.ulimits);
        append(&mut self.entitlements, upper.entitlements);
    }
}

fn tidy<T: PartialEq>(list: &mut Option<Vec<T>>, is_empty: fn(&T) -> bool) {
    let Some(all) = list else { return };
    let mut kept: Vec<T> = Vec::new();
    for item in all.drain(..) {
        if !is_empty(&item) && !kept.contains(&item) {
            kept.push(item);
        }
    }
    *all = kept;
}

fn replace<T>(lower: &mut Option<T>, upper: Option<T>) {
    if upper.is_some() {
        *lower = upper;
    }
}

fn join<T>(lower: &mut Option<IndexMap<String, T>>, upper: Option<IndexMap<String, T>>) {
    if let Some(upper) = upper {
        lower.get_or_insert_default().extend(upper);
    }
}

/// What has no value leaves the one below as it is.
fn without_nulls<T>(
    map: Option<IndexMap<String, Option<T>>>,
) -> Option<IndexMap<String, Option<T>>> {
    let mut map = map?;
    map.retain(|_, value| value.is_some());
    Some(map)
}

fn append<T: PartialEq>(lower: &mut Option<Vec<T>>, upper: Option<Vec<T>>) {
    for item in upper.into_iter().flatten() {
        let list = lower.get_or_insert_default();
        if !list.contains(&item) {
            list.push(item);
        }
    }
}
