//! Words, quotes and variables of Dockerfile instructions (BuildKit `frontend/dockerfile/shell/lex.go`), and Go's
//! durations.

/// Splits `text` into words, quotes removed, variables expanded from `env` (`NAME=value`).
pub(super) fn split(text: &str, env: &[String]) -> Result<Vec<String>, String> {
    raw_words(text)?
        .iter()
        .map(|word| expand(word, env))
        .collect()
}

/// `name=value …`, or the old `name value`, where the value is all the rest.
pub(super) fn name_values(text: &str, env: &[String]) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(text)?;
    if !words[0].contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or("ENV must have two arguments")?;
        return Ok(vec![(expand(name, env)?, expand(value.trim(), env)?)]);
    }
    words
        .iter()
        .map(|word| {
            let (name, value) = word.split_once('=').ok_or(format!(
                "can't find = in {word:?}. Must be of the form: name=value"
            ))?;
            let name = expand(name, env)?;
            if name.is_empty() {
                return Err("names can not be blank".to_owned());
            }
            Ok((name, expand(value, env)?))
        })
        .collect()
}

/// Words as they stand, quotes and escapes kept.
fn raw_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                word.push(c);
                if let Some(next) = chars.next() {
                    word.push(next);
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if quote.is_some() {
        return Err(format!("unterminated quote in {text:?}"));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// Removes quotes and escapes, replaces `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`.
pub(super) fn expand(word: &str, env: &[String]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = word;
    let mut double = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\'' if !double => {
                let end = rest
                    .find('\'')
                    .ok_or(format!("unterminated quote in {word:?}"))?;
                out.push_str(&rest[..end]);
                rest = &rest[end + 1..];
            }
            '"' => double = !double,
            '\\' => match rest.chars().next() {
                // Within double quotes a backslash is special in front of these only.
                Some(next) if double && !matches!(next, '"' | '$' | '\\') => out.push('\\'),
                Some(next) => {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
                None => out.push('\\'),
            },
            '$' => {
                let (value, after) = variable(rest, env, word)?;
                out.push_str(&value);
                rest = after;
            }
            c => out.push(c),
        }
    }
    if double {
        return Err(format!("unterminated quote in {word:?}"));
    }
    Ok(out)
}

/// The value of the variable whose name `rest` begins with, and what follows it.
fn variable<'a>(rest: &'a str, env: &[String], word: &str) -> Result<(String, &'a str), String> {
    let lookup = |name: &str| {
        env.iter()
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    let name_len = |text: &str| {
        text.bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
            .count()
    };
    let Some(braced) = rest.strip_prefix('{') else {
        let len = name_len(rest);
        if len == 0 {
            return Ok(("$".to_owned(), rest));
        }
        return Ok((lookup(&rest[..len]).unwrap_or_default(), &rest[len..]));
    };
    let malformed = || format!("syntax error: missing '}}' or unsupported modifier in {word:?}");
    let end = braced.find('}').ok_or_else(malformed)?;
    let (inner, after) = (&braced[..end], &braced[end + 1..]);
    let len = name_len(inner);
    let (name, modifier) = inner.split_at(len);
    let value = lookup(name);
    let set = value.as_ref().is_some_and(|value| !value.is_empty());
    let value = match modifier {
        "" if len > 0 => value.unwrap_or_default(),
        modifier => match (modifier.strip_prefix(":-"), modifier.strip_prefix(":+")) {
            (Some(default), _) if set => value.unwrap_or(default.to_owned()),
            (Some(default), _) => expand(default, env)?,
            (_, Some(other)) if set => expand(other, env)?,
            (_, Some(_)) => String::new(),
            _ => return Err(malformed()),
        },
    };
    Ok((value, after))
}

/// A Go duration (`1h30m`, `1.5s`, `100ms`) in nanoseconds. Negative ones are refused.
pub(super) fn duration_ns(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_quotes() {
        let env = ["A=1".to_owned(), "E=".to_owned()];
        for (word, expected) in [
            ("$A", "1"),
            ("${A}b", "1b"),
            ("'$A'", "$A"),
            ("\"$A x\"", "1 x"),
            ("\\$A", "$A"),
            ("$B", ""),
            ("${B:-d}", "d"),
            ("${E:-d}", "d"),
            ("${A:-d}", "1"),
            ("${A:+d}", "d"),
            ("${B:+d}", ""),
            ("\"a\\b\"", "a\\b"),
            ("cost: 5$", "cost: 5$"),
        ] {
            assert_eq!(expand(word, &env).as_deref(), Ok(expected), "{word}");
        }
        assert!(expand("${A", &env).is_err());
        assert!(expand("${A?x}", &env).is_err());
        assert!(expand("\"a", &env).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration_ns("1h2m3s"), Some(3_723_000_000_000));
        assert_eq!(duration_ns("1.5s"), Some(1_500_000_000));
        assert_eq!(duration_ns("250ms"), Some(250_000_000));
        for bad in ["", "5", "s", "-1s", "1 s", "1d"] {
            assert_eq!(duration_ns(bad), None, "{bad}");
        }
    }
}
