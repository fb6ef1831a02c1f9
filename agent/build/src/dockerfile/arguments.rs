//! How the rest of an instruction's line splits into arguments. Follows BuildKit's `parser/{line_parsers,split_command}.go`.

use serde_json::Value;

/// Arguments of an instruction, before their meaning is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) values: Vec<String>,
    /// They were given as a JSON array.
    pub(super) json: bool,
}

impl Arguments {
    fn plain(values: Vec<String>) -> Arguments {
        Arguments {
            values,
            json: false,
        }
    }
}

const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// Splits by the instruction's own rule; `name` is its name in lower case. An unknown instruction has no arguments.
pub(super) fn split(name: &str, rest: &str, escape: char) -> Result<Arguments, String> {
    match name {
        "add" | "copy" | "volume" => match json_array(rest)? {
            Some(values) => Ok(Arguments { values, json: true }),
            None => Ok(Arguments::plain(at_whitespace(rest))),
        },
        "cmd" | "entrypoint" | "run" | "shell" => json_or_text(rest),
        "expose" | "from" => Ok(Arguments::plain(at_whitespace(rest))),
        "maintainer" | "stopsignal" | "user" | "workdir" => {
            Ok(Arguments::plain(non_empty(rest).into_iter().collect()))
        }
        "arg" => Ok(Arguments::plain(words(rest, escape))),
        "env" => name_values(rest, "ENV", escape),
        "label" => name_values(rest, "LABEL", escape),
        "healthcheck" => healthcheck(rest),
        _ => Ok(Arguments::default()),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

/// What separates arguments; not every kind of space.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The text up to the first separators, and what follows them.
pub(super) fn first_word(text: &str) -> (&str, Option<&str>) {
    match text.find(is_separator) {
        Some(end) => (
            &text[..end],
            Some(text[end..].trim_start_matches(is_separator)),
        ),
        None => (text, None),
    }
}

fn at_whitespace(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = Some(text).filter(|text| !text.is_empty());
    while let Some(text) = rest {
        let (word, following) = first_word(text);
        values.push(word.to_string());
        rest = following;
    }
    values
}

/// A JSON array of strings; `None` when the text is none, an error when it is an array of something else.
fn json_array(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err(NOT_STRINGS.to_string()),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

fn json_or_text(rest: &str) -> Result<Arguments, String> {
    match json_array(rest)? {
        Some(values) => Ok(Arguments { values, json: true }),
        None => Ok(Arguments::plain(non_empty(rest).into_iter().collect())),
    }
}

/// `NONE`, or `CMD` and a command.
fn healthcheck(rest: &str) -> Result<Arguments, String> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if kind.is_empty() {
        return Ok(Arguments::default());
    }
    let mut arguments = json_or_text(command.trim_start())?;
    arguments.values.insert(0, kind.to_string());
    Ok(arguments)
}

/// Triples of name, value and `=`; an empty third for the old form `ENV name value`.
fn name_values(rest: &str, name: &str, escape: char) -> Result<Arguments, String> {
    let words = words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Arguments::default());
    };
    if !first.contains('=') {
        let (key, Some(value)) = first_word(rest) else {
            return Err(format!("{name} must have two arguments"));
        };
        let triple = [key, value, ""].map(String::from);
        return Ok(Arguments::plain(triple.to_vec()));
    }
    let mut values = Vec::new();
    for word in &words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                crate::quote::quote(word)
            ));
        };
        values.extend([key, value, "="].map(String::from));
    }
    Ok(Arguments::plain(values))
}

/// Words as a shell splits them; quotes and escapes stay in them.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            if c == escape && quote != Some('\'') {
                // An escape at the very end disappears.
                if let Some(escaped) = chars.next() {
                    word.extend([c, escaped]);
                }
                continue;
            }
            match quote {
                Some(open) if open == c => quote = None,
                None if matches!(c, '\'' | '"') => quote = Some(c),
                _ => {}
            }
            word.push(c);
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
}

/// The `--flags` in front of the arguments, and what follows them. Quotes and escapes in flags are resolved.
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, following) = flag(rest, escape);
        rest = following;
        if flag == "--" {
            return (flags, rest);
        }
        flags.push(flag);
    }
}

fn flag(text: &str, escape: char) -> (String, &str) {
    let mut flag = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (flag, &text[at..]),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape => flag.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => flag.push(c),
        }
    }
    (flag, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_quotes_and_escapes() {
        let table: &[(&str, &[&str])] = &[
            ("foo", &["foo"]),
            (" foo  bar ", &["foo", "bar"]),
            ("foo\\ bar", &["foo\\ bar"]),
            ("foo=bar", &["foo=bar"]),
            ("foo bar 'abc xyz'", &["foo", "bar", "'abc xyz'"]),
            ("föo \"âbc xÿz\"", &["föo", "\"âbc xÿz\""]),
            ("a='x\\' b", &["a='x\\'", "b"]),
            ("a=\"x\\\" y\" b", &["a=\"x\\\" y\"", "b"]),
            ("a='' \"\"", &["a=''", "\"\""]),
            ("end\\", &["end"]),
            ("'open to the end", &["'open to the end"]),
        ];
        for (text, expected) in table {
            assert_eq!(&words(text, '\\'), expected, "{text}");
        }
        assert_eq!(words("a` b\\ c", '`'), ["a` b\\", "c"]);
    }

    #[test]
    fn flags_end_at_the_first_word_that_is_none() {
        let table: &[(&str, &[&str], &str)] = &[
            ("--a=1 --b x --c", &["--a=1", "--b"], "x --c"),
            ("--a='x y' z", &["--a=x y"], "z"),
            ("--a=x\\ y z", &["--a=x y"], "z"),
            ("--a -- --b", &["--a"], " --b"),
            ("--", &[], ""),
            ("- --a", &[], "- --a"),
            ("--é=ü x", &["--é=ü"], "x"),
        ];
        for (text, expected, rest) in table {
            let (found, following) = flags(text, '\\');
            assert_eq!(
                (&found[..], following),
                (&expected.map_strings()[..], *rest),
                "{text}"
            );
        }
    }

    trait Strings {
        fn map_strings(&self) -> Vec<String>;
    }

    impl Strings for &[&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(|s| s.to_string()).collect()
        }
    }

    #[test]
    fn what_is_not_quite_json_is_text() {
        let json = |text| json_array(text).map(|found| found.map(|v| v.join("|")));
        for (text, expected) in [
            ("[]", Some("")),
            ("[\"\"]", Some("")),
            (" [\t\"a\" ,\"b\" ] ", Some("a|b")),
            ("[\"♥\", \"\\\" \\\\ \\/ \\u0041\"]", Some("♥|\" \\ / A")),
            ("['a']", None),
            ("[\"a\"", None),
            ("[\"a\"] b", None),
            ("[\"a\",]", None),
            ("echo", None),
        ] {
            assert_eq!(json(text), Ok(expected.map(String::from)), "{text}");
        }
        for text in [
            "[42]",
            "[\"a\",{}]",
            "[[\"c\"]]",
            "[true]",
            "[null]",
            "[1.5]",
        ] {
            assert_eq!(json(text), Err(NOT_STRINGS.into()), "{text}");
        }
    }
}
