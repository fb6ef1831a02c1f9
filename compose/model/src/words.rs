//! Splits a command line into words, as Compose does with `command: text`. No shell runs it: quotes and
//! backslashes group, nothing is expanded (same language as mattn/go-shellwords without its options).

/// The words, and the first of `;` `&` `|` `<` `>` outside quotes: Compose drops everything from there on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<String>,
    pub(crate) dropped_from: Option<char>,
}

/// Splits `line`; `None` if a quote, backtick, bracket or backslash is left open.
pub(crate) fn split(line: &str) -> Option<Words> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == '\\' && quote != Some('\'') {
            let next = chars.next()?;
            let word = word.get_or_insert_default();
            if matches!(quote, Some('`' | ')')) {
                word.push('\\');
            }
            word.push(next);
            continue;
        }
        match (quote, char) {
            (Some(open), close) if open == close => {
                quote = None;
                let word = word.get_or_insert_default();
                if matches!(close, '`' | ')') {
                    word.push(close);
                }
            }
            (Some(_), other) => word.get_or_insert_default().push(other),
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (None, '"' | '\'') => quote = Some(char),
            (None, '`') => {
                quote = Some('`');
                word.get_or_insert_default().push('`');
            }
            (None, '(') => {
                let word = word.as_mut().filter(|word| word.ends_with('$'))?;
                word.push('(');
                quote = Some(')');
            }
            (None, ')') => return None,
            (None, ';' | '&' | '|' | '<' | '>') => {
                // `2>` is a redirection: the digits are no word.
                let descriptor = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
                if char != '>' || !word.as_ref().is_some_and(descriptor) {
                    words.extend(word.take());
                }
                return Some(Words {
                    words,
                    dropped_from: Some(char),
                });
            }
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(Words {
        words,
        dropped_from: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_like_docker_compose_splits_them() {
        for (line, words) in [
            ("", vec![]),
            ("echo hello", vec!["echo", "hello"]),
            (
                r#"echo "a b" 'c d' e\ f g\tx "q\"r\n" #no"#,
                vec!["echo", "a b", "c d", "e f", "gtx", "q\"rn", "#no"],
            ),
            (r#"sh -c "a; b | c > d""#, vec!["sh", "-c", "a; b | c > d"]),
            ("a '' b", vec!["a", "", "b"]),
            (r"a 'b\c'", vec!["a", r"b\c"]),
            ("a$(b c)d", vec!["a$(b c)d"]),
            ("a `b c`", vec!["a", "`b c`"]),
            (" a\tb\n c ", vec!["a", "b", "c"]),
        ] {
            let split = split(line).expect(line);
            assert_eq!(split.words, words, "{line}");
            assert_eq!(split.dropped_from, None, "{line}");
        }
        for line in ["'a", "\"a", "a\\", "a`", "(a)", "a)", "$(a"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn what_a_shell_would_interpret_ends_the_command() {
        let split = split("echo a 2>&1 && b").expect("no open quote");
        assert_eq!(split.words, ["echo", "a"]);
        assert_eq!(split.dropped_from, Some('>'));
    }
}
