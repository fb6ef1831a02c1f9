//! A command line in one flag, split as google/shlex does: quotes, backslashes and comments of a shell, nothing else.

pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    let unfinished = |what: &str| format!("invalid command {text:?}: {what} is not closed");
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => {
                let _ = letters.by_ref().find(|&letter| letter == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(|| unfinished("a quote"))? {
                        '\'' => break,
                        inner => word.push(inner),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(|| unfinished("a quote"))? {
                        '"' => break,
                        '\\' => word.push(letters.next().ok_or_else(|| unfinished("a quote"))?),
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => {
                let escaped = letters.next().ok_or_else(|| unfinished("a backslash"))?;
                word.get_or_insert_default().push(escaped);
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_a_shells() {
        for (text, words) in [
            ("", vec![]),
            ("a  b", vec!["a", "b"]),
            (
                r#"sh -c "echo \"x y\"" '' 'a'b"#,
                vec!["sh", "-c", "echo \"x y\"", "", "ab"],
            ),
            (r"a\ b # rest", vec!["a b"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for bad in ["'a", "\"a", "a\\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
