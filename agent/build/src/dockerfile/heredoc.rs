//! `<<EOF`: which words announce a heredoc. Follows BuildKit's `parser/parser.go`.

use crate::words::Lexer;

/// A heredoc as its word announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The line that ends it.
    pub(super) name: String,
    /// Whether variables in it are expanded: no part of the word was quoted.
    pub(super) expand: bool,
    /// `<<-`: tabs in front of its lines do not count.
    pub(super) chomp: bool,
    /// The lines, once they are read.
    pub(super) content: String,
}

/// Removes the tabs in front of each line, as `<<-` asks.
pub fn chomp(content: &str) -> String {
    content
        .split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

/// The heredocs that an instruction's line announces, in order.
pub(super) fn of_line(line: &str) -> Result<Vec<Heredoc>, String> {
    let lexer = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        skip_unset: true,
        ..Lexer::new('\\')
    };
    // A line that the lexer cannot split (a lone quote in a shell command) has no heredocs.
    let words = lexer.expand(line, &()).map(|e| e.words).unwrap_or_default();
    let found = words.iter().map(|word| of_word(word));
    found.filter_map(Result::transpose).collect()
}

/// The heredoc that a word announces, if it does: `[fd]<<[-]name`.
pub(super) fn of_word(word: &str) -> Result<Option<Heredoc>, String> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Lexer {
        skip_unset: true,
        ..Lexer::new('\\')
    };
    let raw = Lexer {
        raw_quotes: true,
        ..plain
    };
    let words = |lexer: Lexer| lexer.expand(rest, &()).map(|e| e.words);
    let [name] = &words(plain).map_err(|e| e.0)?[..] else {
        return Ok(None);
    };
    let [quoted] = &words(raw).map_err(|e| e.0)?[..] else {
        return Err(format!(
            "internal lexing of heredoc produced inconsistent results: {rest}"
        ));
    };
    Ok(Some(Heredoc {
        name: name.clone(),
        // The same number of quotes in both means that none was removed.
        expand: quotes(name) == quotes(quoted),
        chomp,
        content: String::new(),
    }))
}

/// Whether a text is nothing but the announcement of one heredoc: `RUN <<EOF`.
pub(crate) fn is_only_heredoc(text: &str) -> bool {
    of_word(text).is_ok_and(|heredoc| heredoc.is_some())
}

fn quotes(word: &str) -> usize {
    word.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_a_heredoc() {
        for word in [
            "<<EOF",
            "<<'EOF'",
            "<<\"EOF\"",
            "<<-EOF",
            "<<-'EOF'",
            "<<EO\"F\"",
            "<< EOF",
            "<<- EOF",
            "3<<EOF",
        ] {
            let heredoc = of_word(word).expect(word).expect(word);
            assert_eq!(heredoc.name, "EOF", "{word}");
            assert_eq!(heredoc.expand, !word.contains(['\'', '"']), "{word}");
        }
        for word in [
            "", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh", "x<<EOF", "<<''",
        ] {
            assert_eq!(of_word(word), Ok(None), "{word}");
        }
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'", "<<EOF\""] {
            assert!(of_word(word).is_err(), "{word}");
        }
    }

    #[test]
    fn several_on_a_line_keep_their_order() {
        let names = |line| {
            let found = of_line(line).expect("valid").into_iter();
            found.map(|h| h.name).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("RUN <<EOF <<EOF2", "EOF EOF2"),
            // The space parts the words here, as in BuildKit.
            ("RUN <<- EOF", ""),
            ("RUN << -EOF", "-EOF"),
            ("RUN 4<<EOF", "EOF"),
            ("RUN '<<EOF'", ""),
            ("RUN \"<<EOF\"", ""),
            ("RUN it's <<EOF", ""),
        ] {
            assert_eq!(names(line), expected, "{line}");
        }
    }

    #[test]
    fn chomping_removes_leading_tabs_only() {
        assert_eq!(
            chomp("\thello\n\t\tworld\n \tx\ny\t"),
            "hello\nworld\n \tx\ny\t"
        );
    }
}
