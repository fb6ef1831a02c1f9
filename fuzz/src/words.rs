//! Expansion of variables.

use std::collections::BTreeMap;

use agent_build::words::Lexer;

/// The first byte chooses the lexer; then a word, and after a NUL the value of `a` and `A`. A lexer that keeps
/// everything gives back what it was given.
pub fn words(data: &[u8]) {
    let Some((&options, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let (word, value) = text.split_once('\0').unwrap_or((&text, "value"));
    let lexer = Lexer {
        escape: if options & 1 == 0 { '\\' } else { '`' },
        raw_quotes: options & 2 != 0,
        raw_escapes: options & 4 != 0,
        skip_quotes: options & 8 != 0,
        skip_unset: options & 16 != 0,
    };
    let env: BTreeMap<String, String> = ["a", "A"]
        .map(|name| (name.to_string(), value.to_string()))
        .into();
    if let Ok(expansion) = lexer.expand(word, &env) {
        assert!(expansion.words.iter().all(|word| !word.is_empty()));
        assert!(expansion.matched.is_disjoint(&expansion.unmatched));
    }
    // Inside of double quotes BuildKit doubles an escape that it keeps; names of heredocs do not depend on it.
    let doubles = word.contains('"') && word.contains(lexer.escape);
    if !word.contains('$') && !doubles {
        let keeps = Lexer {
            raw_quotes: true,
            raw_escapes: true,
            ..lexer
        };
        if let Ok(expansion) = keeps.expand(word, &()) {
            assert_eq!(
                expansion.text,
                word.strip_prefix('\u{feff}').unwrap_or(word)
            );
        }
    }
}
