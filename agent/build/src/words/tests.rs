use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

fn expand(word: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
    Lexer::new('\\')
        .expand(word, &env(pairs))
        .map(|e| e.text)
        .map_err(|e| e.0)
}

/// A table of BuildKit's, when this machine has it.
fn shared_table(name: &str) -> Option<String> {
    let path = Path::new(crate::SHARED_TABLES).join("shell").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            eprintln!("skipped: {}: {error}", path.display());
            None
        }
    }
}

#[test]
fn variables_expand_as_in_the_shared_table() {
    let Some(table) = shared_table("envVarTest") else {
        return;
    };
    let env = env(&[
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
    ]);
    let mut seen = 0;
    for line in table.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let parts: Vec<&str> = line.split('|').collect();
        let [platform, word, expected] = parts[..] else {
            continue;
        };
        if platform.trim() == "W" {
            continue;
        }
        let (word, expected) = (word.trim(), expected.trim());
        let found = Lexer::new('\\').expand(word, &env);
        match (expected, found) {
            ("error", found) => assert!(found.is_err(), "{line}: {found:?}"),
            (expected, found) => assert_eq!(found.expect(line).text, expected, "{line}"),
        }
        seen += 1;
    }
    assert!(seen > 100, "only {seen} lines");
}

#[test]
fn words_split_as_in_the_shared_table() {
    let Some(table) = shared_table("wordsTest") else {
        return;
    };
    let mut env = BTreeMap::new();
    let mut seen = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.strip_prefix("ENV ").and_then(|e| e.split_once('=')) {
            env.insert(name.to_string(), value.to_string());
            continue;
        }
        let Some((word, expected)) = line.split_once('|') else {
            continue;
        };
        let found = Lexer::new('\\').expand(word.trim(), &env);
        match (expected.trim_start(), found) {
            ("error", found) => assert!(found.is_err(), "{line}: {found:?}"),
            (expected, found) => {
                assert_eq!(found.expect(line).words.join(","), expected, "{line}");
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} lines");
}

#[test]
fn modifiers_choose_between_value_and_word() {
    let table = [
        ("${unset-d}", "d"),
        ("${empty-d}", ""),
        ("${empty:-d}", "d"),
        ("${full:-d}", "x/y/z.tar.gz"),
        ("${unset+a}", ""),
        ("${empty+a}", "a"),
        ("${empty:+a}", ""),
        ("${full:+a}", "a"),
        ("${unset:-${empty:-$full}}", "x/y/z.tar.gz"),
        ("\"${unset:-a b}\"", "a b"),
        ("${full#*/}", "y/z.tar.gz"),
        ("${full##*/}", "z.tar.gz"),
        ("${full%.*}", "x/y/z.tar"),
        ("${full%%.*}", "x/y/z"),
        ("${full%q*}", "x/y/z.tar.gz"),
        ("${full#x?}", "y/z.tar.gz"),
        ("${full/\\//-}", "x-y/z.tar.gz"),
        ("${full//\\//-}", "x-y-z.tar.gz"),
        ("${full//[/-}", "x/y/z.tar.gz"),
        ("${full/y*./-}", "x/-gz"),
        ("${full//z/$1}", "x/y/.tar.g"),
        ("${star#\\*}", "b*"),
        ("${star%\\*}", "*b"),
        ("$full.$unset!", "x/y/z.tar.gz.!"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("\\$full", "$full"),
        ("$한", "wide"),
    ];
    let pairs = [
        ("empty", ""),
        ("full", "x/y/z.tar.gz"),
        ("star", "*b*"),
        ("한", "wide"),
    ];
    for (word, expected) in table {
        assert_eq!(expand(word, &pairs).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let table = [
        ("${x", "syntax error: missing '}'"),
        ("${x:-y", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${x*}", "unsupported modifier (*) in substitution"),
        ("${x:=y}", "unsupported modifier (:=) in substitution"),
        ("${x:#y}", "unsupported modifier (:#) in substitution"),
        ("${x?}", "x: is not allowed to be unset"),
        ("${e:?}", "e: is not allowed to be empty"),
        ("${x?set it}", "x: set it"),
        ("${e/a}", "syntax error: missing '/' in ${}"),
        ("${e/a/b", "syntax error: missing '}'"),
        (
            "${e#\\a}",
            "invalid pattern (\\a) in substitution: invalid escape '\\a'",
        ),
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"a",
            "unexpected end of statement while looking for matching double-quote",
        ),
    ];
    for (word, reason) in table {
        let expected = format!("failed to process {}: {reason}", quote(word));
        assert_eq!(expand(word, &[("e", "")]), Err(expected), "{word}");
    }
}

#[test]
fn used_and_unset_variables_are_reported() {
    let expansion = Lexer::new('\\')
        .expand(
            "$a ${b} ${c:-$d} '$e' \"$f\"",
            &env(&[("a", "1"), ("f", "2")]),
        )
        .expect("valid");
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&expansion.matched), "a f");
    assert_eq!(names(&expansion.unmatched), "b c d");
}

#[test]
fn the_backtick_escapes_when_chosen() {
    let lexer = Lexer::new('`');
    let env = env(&[("x", "1")]);
    let text = |word| lexer.expand(word, &env).expect("valid").text;
    assert_eq!(text("C:\\`$x\\$x"), "C:\\$x\\1");
    assert_eq!(text("\"`\"`$x``\""), "\"$x`");
}

#[test]
fn a_raw_lexer_keeps_what_it_reads() {
    let mut lexer = Lexer::new('\\');
    lexer.skip_unset = true;
    lexer.raw_quotes = true;
    lexer.raw_escapes = true;
    for word in ["$a ${b} ${c:-d}", "'x' \"y\\\"z\"", "a\\ b", "${n/a/b}"] {
        assert_eq!(lexer.expand(word, &()).expect("valid").text, word);
    }
    let mut body = Lexer::new('\\');
    body.skip_quotes = true;
    let text = body.expand("it's $x \"$x\"", &env(&[("x", "1")]));
    assert_eq!(text.expect("valid").text, "it's 1 \"1\"");
}

#[test]
fn growth_and_depth_are_bounded() {
    let big = "x".repeat(1 << 20);
    let error = expand(&"$big".repeat(8), &[("big", &big)]).expect_err("too long");
    assert!(error.ends_with("expands to more than 4194304 bytes"));
    let error = expand(&format!("${{big//x/{big}}}"), &[("big", &big)]).expect_err("too long");
    assert!(error.ends_with("expands to more than 4194304 bytes"));
    let deep = format!("{}{}", "${a:-".repeat(5000), "}".repeat(5000));
    assert!(expand(&deep, &[]).is_err());
}

proptest! {
    #[test]
    fn expansion_never_panics(word in "(\\PC|[$\\{\\}:+?#%/'\"`<\\\\ -])*", value in "\\PC*") {
        for escape in ['\\', '`'] {
            for bits in 0..16 {
                let mut lexer = Lexer::new(escape);
                lexer.raw_quotes = bits & 1 != 0;
                lexer.raw_escapes = bits & 2 != 0;
                lexer.skip_quotes = bits & 4 != 0;
                lexer.skip_unset = bits & 8 != 0;
                let _ = lexer.expand(&word, &env(&[("a", &value), ("A", &value)]));
            }
        }
    }

    #[test]
    fn a_quoted_value_comes_back_unchanged(value in "[^']*") {
        let quoted = format!("'{value}'");
        prop_assert_eq!(expand(&quoted, &[]), Ok(value));
    }
}
