//! Gathers what was given, by flags and by daemon.json, into one map of JSON values in the file's shapes.
//!
//! Refuses unknown keys, wrong shapes, options given in both places and options that are not supported. It does not know
//! what any option means. Source of the rules: moby `daemon/config/config.go:findConfigurationConflicts`.

use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, PathBufValueParser, StringValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use indexmap::IndexMap;
use serde_json::{Map as Object, Value, json};

use super::ConfigError;
use super::options::{OPTIONS, Opt, Shape, Support, by_key};

/// Where daemon.json is looked for unless `--config-file` says otherwise.
pub(super) const DEFAULT_FILE: &str = "/etc/muster/daemon.json";
/// Longest daemon.json that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Values by key; an option that was not given has no entry.
pub(super) type Given = IndexMap<&'static str, Value>;

/// The daemon's command line: dockerd's flags. Embed it with `#[command(flatten)]`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    given: IndexMap<&'static str, Vec<String>>,
    config_file: Option<PathBuf>,
    validate: bool,
}

impl Flags {
    /// Whether only the configuration is to be checked (`--validate`).
    #[must_use]
    pub fn validate_only(&self) -> bool {
        self.validate
    }

    /// The file that is read, and whether it must exist.
    pub(super) fn file(&self) -> (&Path, bool) {
        match &self.config_file {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_FILE), false),
        }
    }

    /// What the flags say, in the file's shapes.
    pub(super) fn values(&self) -> Result<Given, ConfigError> {
        let mut values = Given::new();
        for (key, texts) in &self.given {
            let option = by_key(key).expect("flags are made from the table");
            values.insert(option.key, value_of_flag(option, texts)?);
        }
        Ok(values)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for option in OPTIONS.iter().filter(|option| !option.flag.is_empty()) {
            let texts: Vec<String> = match option.shape {
                Shape::Switch => matches
                    .get_many::<bool>(option.flag)
                    .into_iter()
                    .flatten()
                    .map(bool::to_string)
                    .collect(),
                _ => matches
                    .get_many::<String>(option.flag)
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            };
            if !texts.is_empty() {
                self.given.insert(option.key, texts);
            }
        }
        if let Some(path) = matches.get_one::<PathBuf>("config-file") {
            self.config_file = Some(path.clone());
        }
        self.validate |= matches.get_flag("validate");
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let flags = OPTIONS
            .iter()
            .filter(|option| !option.flag.is_empty())
            .map(argument);
        command
            .args(flags)
            .arg(
                Arg::new("config-file")
                    .long("config-file")
                    .value_name("FILE")
                    .value_parser(PathBufValueParser::new())
                    .help("Configuration file, daemon.json [default: /etc/muster/daemon.json, if it exists]"),
            )
            .arg(
                Arg::new("validate")
                    .long("validate")
                    .action(ArgAction::SetTrue)
                    .help("Check the configuration and exit"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// One option as clap knows it. Options that are always refused are accepted here, so that the refusal can say why, and
/// hidden from the help.
fn argument(option: &'static Opt) -> Arg {
    let mut arg = Arg::new(option.flag).long(option.flag).help(option.help);
    if let Some(letter) = option.short {
        arg = arg.short(letter);
    }
    if !matches!(option.support, Support::Done) {
        arg = arg.hide(true);
    }
    let repeatable = matches!(
        option.shape,
        Shape::List | Shape::Map | Shape::Ulimits | Shape::Pools | Shape::Object
    );
    match option.shape {
        Shape::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
            .hide_possible_values(true)
            .value_parser(BoolishValueParser::new()),
        _ => arg
            .value_name(match option.shape {
                Shape::Number => "NUMBER",
                Shape::Bytes => "SIZE",
                Shape::Map => "KEY=VALUE",
                Shape::Ulimits => "NAME=SOFT[:HARD]",
                Shape::Pools => "base=SUBNET,size=BITS",
                _ => "VALUE",
            })
            .action(if repeatable {
                ArgAction::Append
            } else {
                ArgAction::Set
            })
            .allow_hyphen_values(option.shape == Shape::Number)
            .value_parser(StringValueParser::new()),
    }
}

/// A flag's text as the file would write it.
fn value_of_flag(option: &Opt, texts: &[String]) -> Result<Value, ConfigError> {
    let last = || texts.last().map_or("", String::as_str);
    let invalid = |text: &str, expected: &str| ConfigError::Value {
        option: format!("--{}", option.flag),
        message: format!("invalid value {text:?}: {expected}"),
    };
    Ok(match option.shape {
        Shape::Switch => Value::Bool(last() == "true"),
        Shape::Text | Shape::Bytes => Value::String(last().to_owned()),
        Shape::Number => json!(
            last()
                .parse::<i64>()
                .map_err(|_| invalid(last(), "must be a whole number"))?
        ),
        Shape::List | Shape::Object => json!(texts),
        Shape::Map => {
            let mut map = Object::new();
            for text in texts {
                let (key, value) = text
                    .split_once('=')
                    .ok_or_else(|| invalid(text, "must be key=value"))?;
                map.insert(key.to_owned(), json!(value));
            }
            Value::Object(map)
        }
        Shape::Ulimits => {
            let mut map = Object::new();
            for text in texts {
                let limit = ulimit(text).ok_or_else(|| {
                    invalid(
                        text,
                        "must be name=soft[:hard], for example nofile=1024:2048",
                    )
                })?;
                map.insert(limit.0, limit.1);
            }
            Value::Object(map)
        }
        Shape::Pools => {
            let pool = |text: &String| {
                pool(text).ok_or_else(|| invalid(text, "must be base=<subnet>,size=<bits>"))
            };
            Value::Array(texts.iter().map(pool).collect::<Result<_, _>>()?)
        }
    })
}

/// `nofile=1024:2048`; without a hard limit it is the soft one. Source: go-units `ParseUlimit`.
fn ulimit(text: &str) -> Option<(String, Value)> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (soft.parse().ok()?, hard.parse().ok()?);
    Some((
        name.to_owned(),
        json!({ "Name": name, "Hard": hard, "Soft": soft }),
    ))
}

/// `base=10.10.0.0/16,size=24`
fn pool(text: &str) -> Option<Value> {
    let mut pool = Object::new();
    for part in text.split(',') {
        match part.split_once('=')? {
            ("base", base) => pool.insert("base".to_owned(), json!(base)),
            ("size", size) => pool.insert("size".to_owned(), json!(size.parse::<i64>().ok()?)),
            _ => return None,
        };
    }
    Some(Value::Object(pool))
}

/// Reads daemon.json. A file that does not exist is an empty one unless it was named.
pub(super) fn read_file(
    path: &Path,
    must_exist: bool,
) -> Result<Object<String, Value>, ConfigError> {
    let failed = |message: String| ConfigError::File {
        path: path.to_owned(),
        message,
    };
    let length = match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(failed("is not a regular file".to_owned())),
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(Object::new());
        }
        Err(error) => return Err(failed(format!("cannot be read: {error}"))),
    };
    if length > MAX_FILE_BYTES {
        return Err(failed(format!(
            "is {length} bytes long, more than {MAX_FILE_BYTES}"
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Object::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(failed("must hold a JSON object".to_owned())),
        Err(error) => Err(failed(format!("is not valid JSON: {error}"))),
    }
}

/// Checks the file against the table and joins it with the flags. All unknown keys, then all conflicts are named at once.
pub(super) fn merge(
    flags: Given,
    file: Object<String, Value>,
    path: &Path,
) -> Result<Given, ConfigError> {
    let unknown: Vec<String> = file
        .keys()
        .filter(|key| by_key(key).is_none())
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Err(ConfigError::UnknownKeys {
            path: path.to_owned(),
            keys: unknown.join(", "),
        });
    }
    let conflicts: Vec<String> = flags
        .iter()
        .filter_map(|(key, flag)| {
            file.get(*key).map(|value| {
                format!(
                    "{key}: (from flag: {}, from file: {})",
                    plain(flag),
                    plain(value)
                )
            })
        })
        .collect();
    if !conflicts.is_empty() {
        return Err(ConfigError::Conflicts {
            path: path.to_owned(),
            options: conflicts.join(", "),
        });
    }
    let mut given = Given::new();
    for (key, value) in flags {
        let option = by_key(key).expect("flags are made from the table");
        supported(option, &format!("--{}", option.flag), &value)?;
        given.insert(option.key, value);
    }
    for (key, value) in file {
        let option = by_key(&key).expect("unknown keys were refused above");
        let name = format!("{key} in {}", path.display());
        // Go reads null as "not there".
        if value.is_null() {
            continue;
        }
        shaped(option, &name, &value)?;
        supported(option, &name, &value)?;
        given.insert(option.key, value);
    }
    Ok(given)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Refuses what the table refuses.
fn supported(option: &Opt, name: &str, value: &Value) -> Result<(), ConfigError> {
    let refused = |reason: &'static str| ConfigError::Unsupported {
        option: name.to_owned(),
        reason,
    };
    match option.support {
        Support::Done => Ok(()),
        Support::No(reason) => Err(refused(reason)),
        Support::Only(accepted, reason) => {
            let fits = |value: &Value| accepted.contains(&plain(value).as_str());
            let all = match value {
                Value::Array(items) => items.iter().all(fits),
                one => fits(one),
            };
            if all { Ok(()) } else { Err(refused(reason)) }
        }
    }
}

/// Refuses a value of another JSON type than the option has.
fn shaped(option: &Opt, name: &str, value: &Value) -> Result<(), ConfigError> {
    let (fits, expected) = match option.shape {
        Shape::Switch => (value.is_boolean(), "true or false"),
        Shape::Text => (value.is_string(), "a string"),
        Shape::Number => (value.is_i64(), "a whole number"),
        Shape::Bytes => (
            value.is_string() || value.is_u64(),
            "a size such as \"64m\" or a number of bytes",
        ),
        Shape::List => (
            value
                .as_array()
                .is_some_and(|list| list.iter().all(Value::is_string)),
            "an array of strings",
        ),
        Shape::Map => (
            value
                .as_object()
                .is_some_and(|map| map.values().all(Value::is_string)),
            "an object with string values",
        ),
        Shape::Ulimits => (
            value
                .as_object()
                .is_some_and(|map| map.values().all(is_ulimit)),
            "an object of {\"Name\": name, \"Hard\": number, \"Soft\": number}",
        ),
        Shape::Pools => (
            value
                .as_array()
                .is_some_and(|list| list.iter().all(is_pool)),
            "an array of {\"base\": subnet, \"size\": number}",
        ),
        Shape::Object => (true, ""),
    };
    if fits {
        return Ok(());
    }
    Err(ConfigError::Value {
        option: name.to_owned(),
        message: format!("must be {expected}, not {value}"),
    })
}

fn is_ulimit(value: &Value) -> bool {
    value.as_object().is_some_and(|limit| {
        limit.iter().all(|(key, value)| match key.as_str() {
            "Name" => value.is_string(),
            "Hard" | "Soft" => value.is_i64(),
            _ => false,
        })
    })
}

fn is_pool(value: &Value) -> bool {
    value.as_object().is_some_and(|pool| {
        pool.iter().all(|(key, value)| match key.as_str() {
            "base" => value.is_string(),
            "size" => value.is_u64(),
            _ => false,
        })
    })
}
