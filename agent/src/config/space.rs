//! What images and build cache may take: `image-gc-*`, and `builder.gc` in Docker's spelling.
//!
//! Source: moby `daemon/config/builder.go`. Everything of `builder` that is not understood is refused by its name.

use std::time::Duration;

use serde_json::{Map as Object, Value};

use super::{ConfigError, Reader, bytes};
use crate::space::{CacheFilter, CacheRule, Limit, Policy};

/// Reads the policy; without anything given it is BuildKit's for the build cache, and nothing for images.
pub(super) fn validate(read: &Reader<'_>) -> Result<Policy, ConfigError> {
    let mut policy = Policy::default();
    if let Some(text) = read.text("image-gc-budget").filter(|text| !text.is_empty()) {
        let limit =
            limit(text).filter(|limit| !matches!(limit, Limit::Bytes(0) | Limit::Percent(0)));
        policy.budget = Some(limit.ok_or_else(|| {
            read.invalid(
                "image-gc-budget",
                format!(
                    "{text:?} is neither a size such as 20GB nor a share of the disk such as 40%"
                ),
            )
        })?);
    }
    if let Some(text) = read.text("image-gc-grace") {
        policy.grace = duration(text).ok_or_else(|| {
            read.invalid(
                "image-gc-grace",
                format!("{text:?} is not a duration such as 90m or 24h"),
            )
        })?;
    }
    for text in read.list("image-gc-keep") {
        match text.split_once('=') {
            Some(("reference", pattern)) if !pattern.is_empty() => {
                policy.keep_names.push(pattern.to_owned());
            }
            Some(("label", label)) if !label.is_empty() => {
                policy.keep_labels.push(label.to_owned());
            }
            _ => {
                return Err(read.invalid(
                    "image-gc-keep",
                    format!("{text:?} is neither reference=PATTERN nor label=NAME[=VALUE]"),
                ));
            }
        }
    }
    if let Some(builder) = read.given.get("builder") {
        policy.cache = cache_rules(builder).map_err(|what| read.invalid("builder", what))?;
    }
    Ok(policy)
}

/// The rules of `builder.gc`; none if it is switched off.
fn cache_rules(builder: &Value) -> Result<Vec<CacheRule>, String> {
    for (key, value) in object(builder, "builder")? {
        match key.to_ascii_lowercase().as_str() {
            "gc" => {}
            // What Docker allows by default.
            "entitlements" => entitlements(value)?,
            _ => return Err(format!("builder.{key} is not supported (gc is)")),
        }
    }
    let Some(gc) = find(object(builder, "builder")?, "gc") else {
        return Ok(CacheRule::defaults(None, None, None));
    };
    let gc = object(gc, "builder.gc")?;
    known(
        gc,
        "builder.gc",
        &[
            "enabled",
            "policy",
            "defaultkeepstorage",
            "defaultreservedspace",
            "defaultmaxusedspace",
            "defaultminfreespace",
        ],
    )?;
    match find(gc, "enabled") {
        None | Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(Vec::new()),
        Some(other) => return Err(format!("builder.gc.enabled is {other}, not true or false")),
    }
    match find(gc, "policy") {
        None => {}
        Some(Value::Array(rules)) if rules.is_empty() => {}
        Some(Value::Array(rules)) => return rules.iter().map(rule).collect(),
        Some(other) => return Err(format!("builder.gc.policy is {other}, not an array")),
    }
    let reserved = space(gc, "builder.gc", "defaultReservedSpace")?;
    Ok(CacheRule::defaults(
        match reserved {
            None => space(gc, "builder.gc", "defaultKeepStorage")?,
            reserved => reserved,
        },
        space(gc, "builder.gc", "defaultMaxUsedSpace")?,
        space(gc, "builder.gc", "defaultMinFreeSpace")?,
    ))
}

fn rule(value: &Value) -> Result<CacheRule, String> {
    let place = "builder.gc.policy";
    let rule = object(value, place)?;
    known(
        rule,
        place,
        &[
            "all",
            "filter",
            "keepstorage",
            "reservedspace",
            "maxusedspace",
            "minfreespace",
        ],
    )?;
    let mut read = CacheRule {
        all: match find(rule, "all") {
            None => false,
            Some(Value::Bool(all)) => *all,
            Some(other) => return Err(format!("{place}: all is {other}, not true or false")),
        },
        filters: Vec::new(),
        unused_for: Duration::ZERO,
        reserved: match space(rule, place, "reservedSpace")? {
            None => space(rule, place, "keepStorage")?,
            reserved => reserved,
        },
        max_used: space(rule, place, "maxUsedSpace")?,
        min_free: space(rule, place, "minFreeSpace")?,
    };
    for (name, value) in filters(find(rule, "filter"))? {
        let unread = || format!("{place}: filter {name}={value} cannot be read");
        match name.as_str() {
            "unused-for" | "until" => read.unused_for = duration(&value).ok_or_else(unread)?,
            "type" => read.filters.push(CacheFilter::Kind(vec![value])),
            "id" => read.filters.push(CacheFilter::Id(value)),
            "description" => read.filters.push(CacheFilter::Description(value)),
            "shared" | "private" => {
                let on = matches!(value.as_str(), "" | "1" | "true");
                if !on && !matches!(value.as_str(), "0" | "false") {
                    return Err(unread());
                }
                read.filters
                    .push(CacheFilter::Shared(on == (name == "shared")));
            }
            _ => return Err(format!("{place}: there is no filter {name:?}")),
        }
    }
    Ok(read)
}

/// `["unused-for=48h"]`, or Docker's older `{"unused-for": {"48h": true}}`.
fn filters(value: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let malformed = || "builder.gc.policy: filter must be an array of NAME=VALUE".to_owned();
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| {
                let (name, value) = item
                    .as_str()
                    .and_then(|text| text.split_once('='))
                    .ok_or_else(malformed)?;
                Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect(),
        Some(Value::Object(map)) => {
            let mut all = Vec::new();
            for (name, values) in map {
                let values = values.as_object().ok_or_else(malformed)?;
                all.extend(values.keys().map(|value| (name.clone(), value.clone())));
            }
            Ok(all)
        }
        Some(_) => Err(malformed()),
    }
}

/// Entitlements decide what builds may ask for; only Docker's defaults are there.
fn entitlements(value: &Value) -> Result<(), String> {
    for (name, on) in object(value, "builder.entitlements")? {
        let default = name == "network-host" || name == "device";
        if !matches!(
            name.as_str(),
            "network-host" | "security-insecure" | "device"
        ) || on.as_bool() != Some(default)
        {
            return Err(format!(
                "builder.entitlements.{name}: {on} is not supported"
            ));
        }
    }
    Ok(())
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Object<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{what} must be an object, not {value}"))
}

/// Go's decoder does not mind the case of keys.
fn find<'a>(object: &'a Object<String, Value>, key: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(own, _)| own.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
        .filter(|value| !value.is_null())
}

fn known(object: &Object<String, Value>, what: &str, keys: &[&str]) -> Result<(), String> {
    match object
        .keys()
        .find(|key| !keys.contains(&key.to_ascii_lowercase().as_str()))
    {
        Some(key) => Err(format!("there is no {what}.{key}")),
        None => Ok(()),
    }
}

fn space(object: &Object<String, Value>, what: &str, key: &str) -> Result<Option<Limit>, String> {
    let Some(value) = find(object, key) else {
        return Ok(None);
    };
    let read = match value {
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => limit(text),
        other => bytes(other).map(Limit::Bytes),
    };
    read.map(Some).ok_or_else(|| {
        format!(
            "{what}.{key} is {value}, neither a size such as \"20GB\" nor a share such as \"10%\""
        )
    })
}

fn limit(text: &str) -> Option<Limit> {
    match text.trim().strip_suffix('%') {
        Some(percent) => {
            let percent: u8 = percent.trim().parse().ok()?;
            (percent <= 100).then_some(Limit::Percent(percent))
        }
        None => bytes(&Value::String(text.to_owned())).map(Limit::Bytes),
    }
}

/// Go's spelling of durations, or seconds.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let split = rest.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.')?;
        let number: f64 = rest[..split].parse().ok()?;
        let unit_end = rest[split..]
            .find(|symbol: char| symbol.is_ascii_digit())
            .map_or(rest.len(), |at| split + at);
        total += number
            * match &rest[split..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.trim().is_empty()).then(|| Duration::try_from_secs_f64(total).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_of_the_build_cache_are_read_in_dockers_spellings() {
        assert_eq!(cache_rules(&json!({})).unwrap().len(), 4);
        assert_eq!(
            cache_rules(&json!({"gc": {"enabled": false}})),
            Ok(Vec::new())
        );
        let kept =
            cache_rules(&json!({"gc": {"enabled": true, "defaultKeepStorage": "20GB"}})).unwrap();
        assert_eq!(kept[3].reserved, Some(Limit::Bytes(20 << 30)));
        assert_eq!(kept[3].max_used, None);
        let rules = cache_rules(&json!({"gc": {"policy": [
            {"keepStorage": "10GB", "filter": ["unused-for=2200h"]},
            {"keepStorage": "50GB", "filter": {"unused-for": {"3300h": true}}},
            {"maxUsedSpace": "30%", "all": true, "filter": ["type=exec.cachemount", "private="]},
        ]}}))
        .unwrap();
        assert_eq!(rules[0].unused_for, Duration::from_secs(2200 * 3600));
        assert_eq!(rules[1].reserved, Some(Limit::Bytes(50 << 30)));
        assert_eq!(rules[1].unused_for, Duration::from_secs(3300 * 3600));
        assert_eq!(rules[2].max_used, Some(Limit::Percent(30)));
        assert_eq!(
            rules[2].filters,
            [
                CacheFilter::Kind(vec!["exec.cachemount".to_owned()]),
                CacheFilter::Shared(false)
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (builder, named) in [
            (json!({"history": {}}), "builder.history"),
            (json!({"gc": {"keep": 1}}), "builder.gc.keep"),
            (json!({"gc": {"enabled": "yes"}}), "builder.gc.enabled"),
            (
                json!({"gc": {"defaultKeepStorage": "much"}}),
                "defaultKeepStorage",
            ),
            (
                json!({"gc": {"policy": [{"filter": ["color=red"]}]}}),
                "color",
            ),
            (
                json!({"gc": {"policy": [{"filter": ["unused-for=soon"]}]}}),
                "unused-for=soon",
            ),
            (
                json!({"entitlements": {"security-insecure": true}}),
                "security-insecure",
            ),
        ] {
            let error = cache_rules(&builder).unwrap_err();
            assert!(error.contains(named), "{builder}: {error}");
        }
        assert_eq!(limit("101%"), None);
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        for bad in ["", "h", "5x", "-5m"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
