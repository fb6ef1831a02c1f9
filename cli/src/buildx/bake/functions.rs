//! Functions of bake files: those of zclconf/go-cty's standard library that bake files use, with its names.
//! One that is not here is an error that names it.

use super::eval::{integer, number, number_value, text, truth};
use crate::render::json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use regex::Regex;
use serde_json::{Map, Value};

type Answer = Result<Value, String>;

/// Calls a function by its name.
pub(super) fn call(name: &str, args: Vec<Value>) -> Answer {
    if let Some(answer) = strings(name, &args).or_else(|| numbers(name, &args)) {
        return answer;
    }
    collections(name, args).unwrap_or_else(|| Err("there is no function of this name".to_owned()))
}

/// Values of different types are never equal.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => number(a) == number(b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, value)| b.get(name).is_some_and(|other| equal(value, other));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

fn arg(args: &[Value], index: usize) -> Result<&Value, String> {
    args.get(index)
        .ok_or_else(|| format!("argument {} is missing", index + 1))
}

fn string(args: &[Value], index: usize) -> Result<String, String> {
    text(arg(args, index)?)
}

fn list(args: &[Value], index: usize) -> Result<&Vec<Value>, String> {
    match arg(args, index)? {
        Value::Array(items) => Ok(items),
        other => Err(format!("{other} is no list")),
    }
}

fn object(args: &[Value], index: usize) -> Result<&Map<String, Value>, String> {
    match arg(args, index)? {
        Value::Object(members) => Ok(members),
        other => Err(format!("{other} is no object")),
    }
}

fn strings(name: &str, args: &[Value]) -> Option<Answer> {
    let one = |change: fn(&str) -> String| string(args, 0).map(|text| Value::String(change(&text)));
    let two = |change: fn(&str, &str) -> String| {
        Ok(Value::String(change(&string(args, 0)?, &string(args, 1)?)))
    };
    let trim = |text: &str, set: &str, start: bool, end: bool| {
        let mut text = text;
        if start {
            text = text.trim_start_matches(|letter| set.contains(letter));
        }
        if end {
            text = text.trim_end_matches(|letter| set.contains(letter));
        }
        text.to_owned()
    };
    Some(match name {
        "upper" => one(|text| text.to_uppercase()),
        "lower" => one(|text| text.to_lowercase()),
        "title" => one(title),
        "trimspace" => one(|text| text.trim().to_owned()),
        "chomp" => one(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        "strrev" => one(|text| text.chars().rev().collect()),
        "basename" => one(basename),
        "dirname" => one(dirname),
        "sanitize" => one(|text| {
            let keep =
                |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
            text.chars()
                .map(|letter| if keep(letter) { letter } else { '_' })
                .collect()
        }),
        "trim" => string(args, 0)
            .and_then(|text| Ok(Value::String(trim(&text, &string(args, 1)?, true, true)))),
        "trimprefix" => two(|text, prefix| text.strip_prefix(prefix).unwrap_or(text).to_owned()),
        "trimsuffix" => two(|text, suffix| text.strip_suffix(suffix).unwrap_or(text).to_owned()),
        "startswith" => (|| Ok(Value::Bool(string(args, 0)?.starts_with(&string(args, 1)?))))(),
        "endswith" => (|| Ok(Value::Bool(string(args, 0)?.ends_with(&string(args, 1)?))))(),
        "replace" => (|| {
            let (text, search, by) = (string(args, 0)?, string(args, 1)?, string(args, 2)?);
            Ok(Value::String(text.replace(&search, &by)))
        })(),
        "regex_replace" | "regexreplace" => (|| {
            let text = string(args, 0)?;
            let replaced = pattern(&string(args, 1)?)?.replace_all(&text, string(args, 2)?);
            Ok(Value::String(replaced.into_owned()))
        })(),
        "regex" => (|| {
            let text = string(args, 1)?;
            let captures =
                pattern(&string(args, 0)?)?
                    .captures(&text)
                    .map(|captures| match captures.len() {
                        1 => Value::from(&captures[0]),
                        count => (1..count)
                            .map(|group| {
                                captures
                                    .get(group)
                                    .map_or(Value::Null, |found| found.as_str().into())
                            })
                            .collect(),
                    });
            captures.ok_or_else(|| "the pattern does not match".to_owned())
        })(),
        "split" => (|| {
            let (separator, text) = (string(args, 0)?, string(args, 1)?);
            Ok(match separator.as_str() {
                "" => text
                    .chars()
                    .map(|letter| Value::String(letter.into()))
                    .collect(),
                separator => text.split(separator).map(Value::from).collect(),
            })
        })(),
        "join" => (|| {
            let separator = string(args, 0)?;
            let mut parts = Vec::new();
            for index in 1..args.len() {
                for part in list(args, index)? {
                    parts.push(text(part)?);
                }
            }
            Ok(Value::String(parts.join(&separator)))
        })(),
        "substr" => substr(args),
        "strlen" => string(args, 0).map(|text| Value::from(text.chars().count())),
        "indent" => (|| {
            let pad = " ".repeat(
                usize::try_from(integer(arg(args, 0)?)?)
                    .unwrap_or(0)
                    .min(256),
            );
            Ok(Value::String(
                string(args, 1)?.replace('\n', &format!("\n{pad}")),
            ))
        })(),
        "format" => string(args, 0)
            .and_then(|pattern| format(&pattern, &args[1..]))
            .map(Value::String),
        "base64encode" => one(|text| STANDARD.encode(text)),
        "base64decode" => string(args, 0).and_then(|text| {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            String::from_utf8(bytes)
                .map(Value::String)
                .map_err(|error| error.to_string())
        }),
        "jsonencode" => arg(args, 0).map(|value| Value::String(json::escaped(value))),
        "jsondecode" => string(args, 0).and_then(|text| {
            let mut value: Value =
                serde_json::from_str(&text).map_err(|error| error.to_string())?;
            value.sort_all_objects();
            Ok(value)
        }),
        "timestamp" => Ok(Value::String(
            Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        )),
        "formatdate" => (|| formatdate(&string(args, 0)?, &string(args, 1)?).map(Value::String))(),
        _ => return None,
    })
}

fn numbers(name: &str, args: &[Value]) -> Option<Answer> {
    let two = |operation: fn(f64, f64) -> Value| {
        Ok(operation(number(arg(args, 0)?)?, number(arg(args, 1)?)?))
    };
    let one = |operation: fn(f64) -> f64| {
        arg(args, 0)
            .and_then(number)
            .map(|value| number_value(operation(value)))
    };
    let fold = |better: fn(f64, f64) -> bool| {
        let mut best: Option<f64> = None;
        for value in args {
            let value = number(value)?;
            if best.is_none_or(|best| better(value, best)) {
                best = Some(value);
            }
        }
        best.map(number_value)
            .ok_or_else(|| "there are no numbers".to_owned())
    };
    let boolean = |operation: fn(bool, bool) -> bool| {
        Ok(Value::Bool(operation(
            truth(arg(args, 0)?)?,
            truth(arg(args, 1)?)?,
        )))
    };
    Some(match name {
        "add" => two(|a, b| number_value(a + b)),
        "subtract" => two(|a, b| number_value(a - b)),
        "multiply" => two(|a, b| number_value(a * b)),
        "divide" | "modulo" => (|| {
            let (a, b) = (number(arg(args, 0)?)?, number(arg(args, 1)?)?);
            match b {
                0.0 => Err("division by zero".to_owned()),
                b if name == "divide" => Ok(number_value(a / b)),
                b => Ok(number_value(a % b)),
            }
        })(),
        "negate" => one(|value| -value),
        "absolute" => one(f64::abs),
        "ceil" => one(f64::ceil),
        "floor" => one(f64::floor),
        "int" => one(f64::trunc),
        "min" => fold(|a, b| a < b),
        "max" => fold(|a, b| a > b),
        "greaterthan" => two(|a, b| Value::Bool(a > b)),
        "greaterthanorequalto" => two(|a, b| Value::Bool(a >= b)),
        "lessthan" => two(|a, b| Value::Bool(a < b)),
        "lessthanorequalto" => two(|a, b| Value::Bool(a <= b)),
        "parseint" => (|| {
            let base = u32::try_from(integer(arg(args, 1)?)?).unwrap_or(0);
            if !(2..=36).contains(&base) {
                return Err("the base is from 2 to 36".to_owned());
            }
            let text = string(args, 0)?;
            i64::from_str_radix(&text, base)
                .map(Value::from)
                .map_err(|error| format!("{text:?}: {error}"))
        })(),
        "and" => boolean(|a, b| a && b),
        "or" => boolean(|a, b| a || b),
        "not" => arg(args, 0)
            .and_then(truth)
            .map(|value| Value::Bool(!value)),
        "equal" => (|| Ok(Value::Bool(equal(arg(args, 0)?, arg(args, 1)?))))(),
        "notequal" => (|| Ok(Value::Bool(!equal(arg(args, 0)?, arg(args, 1)?))))(),
        _ => return None,
    })
}

fn collections(name: &str, args: Vec<Value>) -> Option<Answer> {
    let args = &args[..];
    let keep = |mut wanted: Box<dyn FnMut(&Value) -> bool>| {
        list(args, 0).map(|items| items.iter().filter(|item| wanted(item)).cloned().collect())
    };
    let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    Some(match name {
        "length" => match args.first() {
            Some(Value::Object(members)) => Ok(Value::from(members.len())),
            Some(Value::String(text)) => Ok(Value::from(text.chars().count())),
            _ => list(args, 0).map(|items| Value::from(items.len())),
        },
        "concat" => (0..args.len())
            .map(|index| list(args, index).cloned())
            .collect::<Result<Vec<_>, _>>()
            .map(|lists| lists.into_iter().flatten().collect()),
        "compact" => keep(Box::new(move |item| !is_empty(item))),
        "distinct" => {
            let mut seen: Vec<Value> = Vec::new();
            keep(Box::new(move |item| {
                let new = !seen.contains(item);
                seen.push(item.clone());
                new
            }))
        }
        "reverselist" | "reverse" => {
            list(args, 0).map(|items| items.iter().rev().cloned().collect())
        }
        "sort" => list(args, 0).and_then(|items| {
            let mut texts = items.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            texts.sort_unstable();
            Ok(texts.into())
        }),
        "flatten" => list(args, 0).map(|items| Value::Array(flatten(items))),
        "slice" => (|| {
            let items = list(args, 0)?;
            let bound = |index| {
                usize::try_from(integer(arg(args, index)?)?).map_err(|error| error.to_string())
            };
            let part = items.get(bound(1)?..bound(2)?);
            part.map(|part| part.to_vec().into())
                .ok_or_else(|| "the list is shorter".to_owned())
        })(),
        "element" => (|| {
            let items = list(args, 0)?;
            let index = integer(arg(args, 1)?)?;
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if count == 0 {
                return Err("the list is empty".to_owned());
            }
            let at = usize::try_from(index.rem_euclid(count)).unwrap_or(0);
            Ok(items[at].clone())
        })(),
        "index" => (|| match (arg(args, 0)?, arg(args, 1)?) {
            (Value::Object(members), key) => members
                .get(&text(key)?)
                .cloned()
                .ok_or_else(|| format!("there is no member {key}")),
            (Value::Array(items), index) => usize::try_from(integer(index)?)
                .ok()
                .and_then(|at| items.get(at).cloned())
                .ok_or_else(|| format!("there is no element {index}")),
            (other, _) => Err(format!("{other} has no members")),
        })(),
        "contains" => (|| {
            let wanted = arg(args, 1)?;
            Ok(Value::Bool(
                list(args, 0)?.iter().any(|item| equal(item, wanted)),
            ))
        })(),
        "hasindex" => (|| {
            Ok(Value::Bool(match (arg(args, 0)?, arg(args, 1)?) {
                (Value::Object(members), key) => members.contains_key(&text(key)?),
                (Value::Array(items), index) => {
                    usize::try_from(integer(index)?).is_ok_and(|at| at < items.len())
                }
                _ => false,
            }))
        })(),
        "keys" => object(args, 0).map(|members| members.keys().cloned().collect()),
        "values" => object(args, 0).map(|members| members.values().cloned().collect()),
        "lookup" => (|| {
            let key = string(args, 1)?;
            let found = object(args, 0)?.get(&key).or(args.get(2));
            found
                .cloned()
                .ok_or_else(|| format!("there is no member {key:?}"))
        })(),
        "merge" => (|| {
            let mut all = Map::new();
            for index in 0..args.len() {
                all.extend(object(args, index)?.clone());
            }
            all.sort_keys();
            Ok(Value::Object(all))
        })(),
        "zipmap" => (|| {
            let keys = list(args, 0)?
                .iter()
                .map(text)
                .collect::<Result<Vec<_>, _>>()?;
            let values = list(args, 1)?;
            if keys.len() != values.len() {
                return Err("there are not as many keys as values".to_owned());
            }
            let mut all: Map<_, _> = keys.into_iter().zip(values.iter().cloned()).collect();
            all.sort_keys();
            Ok(Value::Object(all))
        })(),
        "coalesce" => args
            .iter()
            .find(|value| !value.is_null())
            .cloned()
            .ok_or_else(|| "all are null".to_owned()),
        "coalescelist" => args
            .iter()
            .find(|value| value.as_array().is_some_and(|items| !items.is_empty()))
            .cloned()
            .ok_or_else(|| "all are empty".to_owned()),
        "range" => range(args),
        "formatlist" => (|| {
            let pattern = string(args, 0)?;
            let count = args[1..]
                .iter()
                .filter_map(|arg| arg.as_array().map(Vec::len))
                .max()
                .unwrap_or(1);
            let mut all = Vec::new();
            for row in 0..count {
                let cell = |arg: &Value| match arg {
                    Value::Array(items) => items
                        .get(row)
                        .cloned()
                        .ok_or("the lists are not of one length"),
                    other => Ok(other.clone()),
                };
                let row = args[1..].iter().map(cell).collect::<Result<Vec<_>, _>>()?;
                all.push(Value::String(format(&pattern, &row)?));
            }
            Ok(Value::Array(all))
        })(),
        _ => return None,
    })
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

/// Go's `strings.Title`.
fn title(text: &str) -> String {
    let mut begins = true;
    let letter = |letter: char| {
        let changed: String = if begins {
            letter.to_uppercase().collect()
        } else {
            letter.into()
        };
        begins = !letter.is_alphanumeric() && letter != '_';
        changed
    };
    text.chars().map(letter).collect()
}

fn substr(args: &[Value]) -> Answer {
    let letters: Vec<char> = string(args, 0)?.chars().collect();
    let (offset, length) = (integer(arg(args, 1)?)?, integer(arg(args, 2)?)?);
    let count = i64::try_from(letters.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { count + offset } else { offset }.clamp(0, count);
    let end = if length < 0 {
        count
    } else {
        (start + length).min(count)
    };
    let bound = |at: i64| usize::try_from(at).unwrap_or(0);
    Ok(Value::String(
        letters[bound(start)..bound(end)].iter().collect(),
    ))
}

fn flatten(items: &[Value]) -> Vec<Value> {
    let flat = items.iter().flat_map(|item| match item {
        Value::Array(inner) => flatten(inner),
        other => vec![other.clone()],
    });
    flat.collect()
}

/// `range(max)`, `range(start, end)`, `range(start, end, step)`.
fn range(args: &[Value]) -> Answer {
    const MAX: usize = 1024;
    let numbers = args.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let (mut at, end, step) = match numbers[..] {
        [end] => (0.0, end, if end < 0.0 { -1.0 } else { 1.0 }),
        [start, end] => (start, end, if end < start { -1.0 } else { 1.0 }),
        [start, end, step] if step != 0.0 && (step > 0.0) == (end > start) => (start, end, step),
        _ => {
            return Err(
                "write range(end), range(start, end) or range(start, end, step)".to_owned(),
            );
        }
    };
    let mut all = Vec::new();
    while (step > 0.0 && at < end) || (step < 0.0 && at > end) {
        if all.len() == MAX {
            return Err(format!("more than {MAX} elements"));
        }
        all.push(number_value(at));
        at += step;
    }
    Ok(Value::Array(all))
}

/// `%s`, `%d`, `%v`, `%q`, `%%`, with `%05d` and `%.2f`.
fn format(pattern: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = letters.next_if(|letter| "0123456789.-+".contains(*letter)) {
            flags.push(flag);
        }
        let verb = letters.next().ok_or("a % at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = args.next().ok_or_else(|| format!("%{verb} has no value"))?;
        let (width, precision) = flags
            .split_once('.')
            .map_or((flags.as_str(), None), |(width, precision)| {
                (width, Some(precision.parse::<usize>().unwrap_or(0)))
            });
        let shown = match verb {
            's' | 'v' => match value {
                Value::Array(_) | Value::Object(_) | Value::Null => value.to_string(),
                scalar => text(scalar)?,
            },
            'd' => integer(value)?.to_string(),
            'f' => format!("{:.*}", precision.unwrap_or(6).min(64), number(value)?),
            'x' => format!("{:x}", integer(value)?),
            't' => truth(value)?.to_string(),
            'q' => Value::String(text(value)?).to_string(),
            other => return Err(format!("%{other} is not supported")),
        };
        let left = width.starts_with('-');
        let zero = width.starts_with('0');
        let width: usize = width
            .trim_start_matches(['-', '+'])
            .parse()
            .unwrap_or(0)
            .min(1024);
        let pad = width.saturating_sub(shown.chars().count());
        match (left, zero) {
            (true, _) => out.extend([shown.as_str(), &" ".repeat(pad)]),
            (false, true) => out.extend([&"0".repeat(pad), shown.as_str()]),
            (false, false) => out.extend([&" ".repeat(pad), shown.as_str()]),
        }
    }
    Ok(out)
}

/// Go's `path.Base`.
fn basename(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".".to_owned(),
        "" => "/".to_owned(),
        path => path.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

/// Go's `path.Dir`: what is above, without what means nothing.
fn dirname(path: &str) -> String {
    let above = path.rfind('/').map_or("", |end| &path[..=end]);
    let rooted = above.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in above.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, below) => format!("/{below}"),
        (false, empty) if empty.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// `YYYY-MM-DD'T'hh:mm:ssZ` over an RFC 3339 time, by the clock it was written with.
fn formatdate(pattern: &str, at: &str) -> Result<String, String> {
    let bad = |error: jiff::Error| format!("{at:?}: {error}");
    let time: Timestamp = at.parse().map_err(bad)?;
    let written = Pieces::parse(at).map_err(bad)?;
    let offset = written.to_numeric_offset().unwrap_or(Offset::UTC);
    let zone = offset.is_zero();
    let time = time.to_zoned(TimeZone::fixed(offset));
    let mut out = String::new();
    let mut rest = pattern;
    const WORDS: [(&str, &str); 24] = [
        ("YYYY", "%Y"),
        ("YY", "%y"),
        ("MMMM", "%B"),
        ("MMM", "%b"),
        ("MM", "%m"),
        ("M", "%-m"),
        ("DD", "%d"),
        ("D", "%-d"),
        ("EEEE", "%A"),
        ("EEE", "%a"),
        ("hh", "%H"),
        ("h", "%-H"),
        ("HH", "%I"),
        ("H", "%-I"),
        ("AA", "%p"),
        ("aa", "%P"),
        ("mm", "%M"),
        ("m", "%-M"),
        ("ss", "%S"),
        ("s", "%-S"),
        ("ZZZZZ", "%:z"),
        ("ZZZZ", "%z"),
        ("ZZZ", "%z"),
        ("Z", "%:z"),
    ];
    while let Some(letter) = rest.chars().next() {
        if letter == '\'' {
            let end = rest[1..].find('\'').ok_or("a quote is not closed")?;
            out.push_str(&rest[1..=end]);
            rest = &rest[end + 2..];
            continue;
        }
        // As long as one letter is repeated, it is one word.
        let run = rest.len() - rest.trim_start_matches(letter).len();
        let word = &rest[..run];
        match WORDS.iter().find(|(known, _)| *known == word) {
            Some((word, _)) if zone && *word == "Z" => out.push('Z'),
            Some((word, _)) if zone && *word == "ZZZ" => out.push_str("UTC"),
            Some((_, by)) => out.push_str(&time.strftime(by).to_string()),
            None if letter.is_ascii_alphabetic() => {
                return Err(format!(
                    "{word:?} means nothing in a pattern of dates: quote it"
                ));
            }
            None => out.push_str(word),
        }
        rest = &rest[run..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(name: &str, args: Value) -> Answer {
        call(name, args.as_array().unwrap().clone())
    }

    #[test]
    fn functions_are_those_of_cty() {
        for (name, args, expected) in [
            ("upper", json!(["a"]), json!("A")),
            ("title", json!(["a bc"]), json!("A Bc")),
            ("trimprefix", json!(["v1", "v"]), json!("1")),
            ("replace", json!(["a.b", ".", "-"]), json!("a-b")),
            ("replace", json!(["/a/", "/a/", "c"]), json!("c")),
            ("split", json!([",", "a,b"]), json!(["a", "b"])),
            ("join", json!(["-", ["a", 1]]), json!("a-1")),
            ("substr", json!(["hello", -3, 2]), json!("ll")),
            (
                "format",
                json!(["%s-%03d-%.1f%%", "x", 7, 2.25]),
                json!("x-007-2.2%"),
            ),
            (
                "formatlist",
                json!(["%s:%s", ["a", "b"], "1"]),
                json!(["a:1", "b:1"]),
            ),
            (
                "formatdate",
                json!(["YYYY-MM-DD'T'hh", "2026-11-02T03:04:05Z"]),
                json!("2026-11-02T03"),
            ),
            ("length", json!([{"a": 1}]), json!(1)),
            ("concat", json!([[1], [2, 3]]), json!([1, 2, 3])),
            ("distinct", json!([["a", "b", "a"]]), json!(["a", "b"])),
            ("flatten", json!([[1, [2, [3]]]]), json!([1, 2, 3])),
            ("element", json!([["a", "b"], 3]), json!("b")),
            ("lookup", json!([{"a": 1}, "b", 2]), json!(2)),
            ("merge", json!([{"a": 1}, {"a": 2}]), json!({"a": 2})),
            ("range", json!([1, 4]), json!([1, 2, 3])),
            ("max", json!([1, 3, 2]), json!(3)),
            ("parseint", json!(["ff", 16]), json!(255)),
            ("regex_replace", json!(["a1b", "[0-9]", ""]), json!("ab")),
            ("coalesce", json!([null, "x"]), json!("x")),
            ("sanitize", json!(["a/b.c"]), json!("a_b_c")),
            ("equal", json!([1, "1"]), json!(false)),
            ("base64decode", json!(["aGk="]), json!("hi")),
            ("slice", json!([[1, 2, 3], 1, 2]), json!([2])),
        ] {
            assert_eq!(answer(name, args.clone()), Ok(expected), "{name}{args}");
        }
    }

    #[test]
    fn mistakes_are_errors() {
        for (name, args) in [
            ("frob", json!([])),
            ("upper", json!([])),
            ("join", json!([",", "a"])),
            ("range", json!([100_000])),
            ("slice", json!([[1], 0, 5])),
            ("divide", json!([1, 0])),
            ("format", json!(["%s"])),
            ("formatdate", json!(["x", "2026-11-02T03:04:05Z"])),
        ] {
            assert!(answer(name, args.clone()).is_err(), "{name}{args}");
        }
    }
}
