//! Text to pieces: literal text and the tokens between `{{` and `}}`. Source: Go `text/template/parse/lex.go`.

use super::TemplateError;

/// A token inside an action, with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword, a function, `true`, `false` or `nil`.
    Word(String),
    /// `.name`; `.` alone is an empty name.
    Field(String),
    /// `$name`; `$` alone is an empty name.
    Variable(String),
    Str(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Open,
    Close,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// Tokens of one action, each with whether white space comes before it (which separates arguments from chains).
    Action {
        at: usize,
        tokens: Vec<(Token, bool)>,
    },
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while let Some(found) = text[at..].find("{{") {
        let open = at + found;
        let inside = open + 2;
        let trim_before =
            text[inside..].starts_with('-') && text[inside + 1..].starts_with(char::is_whitespace);
        push_text(&mut pieces, &text[at..open], trim_next, trim_before);
        let start = if trim_before { inside + 1 } else { inside };
        let end =
            action_end(text, start).ok_or_else(|| TemplateError::new(open, "unclosed action"))?;
        let body = &text[start..end];
        let trimmed = body
            .strip_suffix('-')
            .filter(|rest| rest.ends_with(char::is_whitespace));
        trim_next = trimmed.is_some();
        let body = trimmed.unwrap_or(body);
        if !(body.trim().starts_with("/*") && body.trim().ends_with("*/")) {
            pieces.push(Piece::Action {
                at: open,
                tokens: tokens(body, start)?,
            });
        }
        at = end + 2;
    }
    push_text(&mut pieces, &text[at..], trim_next, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Where the `}}` of an action is, outside of strings and comments.
fn action_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if let Some(offset) = text[start..]
        .find("/*")
        .filter(|&at| text[start..start + at].trim().is_empty())
    {
        let close = text[start + offset..].find("*/")? + start + offset + 2;
        return text[close..].find("}}").map(|at| at + close);
    }
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            quote @ (b'"' | b'`' | b'\'') => {
                at += 1;
                while *bytes.get(at)? != quote {
                    at += if bytes[at] == b'\\' && quote != b'`' {
                        2
                    } else {
                        1
                    };
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

fn tokens(body: &str, offset: usize) -> Result<Vec<(Token, bool)>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = body;
    while !rest.trim_start().is_empty() {
        let spaced = rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        let at = offset + body.len() - rest.len();
        let (token, length) = token(rest).map_err(|reason| TemplateError::new(at, reason))?;
        tokens.push((token, spaced));
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// The first token and its length in bytes.
fn token(text: &str) -> Result<(Token, usize), String> {
    let first = text.chars().next().expect("there is text");
    let name = |from: usize| {
        let length = text[from..]
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len() - from);
        (text[from..from + length].to_owned(), from + length)
    };
    Ok(match first {
        '|' => (Token::Pipe, 1),
        ',' => (Token::Comma, 1),
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        ':' if text.starts_with(":=") => (Token::Declare, 2),
        '=' => (Token::Assign, 1),
        '$' => {
            let (name, length) = name(1);
            (Token::Variable(name), length)
        }
        '.' if !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let (name, length) = name(1);
            (Token::Field(name), length)
        }
        '"' => quoted(text)?,
        '`' => {
            let end = text[1..].find('`').ok_or("unterminated raw string")?;
            (Token::Str(text[1..=end].to_owned()), end + 2)
        }
        '\'' => {
            let (token, length) = quoted(text)?;
            let Token::Str(text) = token else {
                unreachable!("quoted gives a string")
            };
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (Some(character), None) => (Token::Int(i64::from(u32::from(character))), length),
                _ => {
                    return Err(
                        "a character constant has one character; strings have double quotes"
                            .to_owned(),
                    );
                }
            }
        }
        c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => number(text)?,
        c if c.is_alphabetic() || c == '_' => {
            let (name, length) = name(0);
            (Token::Word(name), length)
        }
        c => return Err(format!("unexpected {c:?} in an action")),
    })
}

fn quoted(text: &str) -> Result<(Token, usize), String> {
    let quote = text.chars().next().expect("starts with its quote");
    let mut result = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            c if c == quote => return Ok((Token::Str(result), at + 1)),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => result.push('\n'),
                Some('t') => result.push('\t'),
                Some('r') => result.push('\r'),
                Some(escaped @ ('\\' | '"' | '\'')) => result.push(escaped),
                Some('x') => result.push(code(&mut characters, 2)?),
                Some('u') => result.push(code(&mut characters, 4)?),
                Some(other) => return Err(format!("unknown escape \\{other} in a string")),
                None => break,
            },
            other => result.push(other),
        }
    }
    Err("unterminated string".to_owned())
}

fn code(
    characters: &mut impl Iterator<Item = (usize, char)>,
    digits: usize,
) -> Result<char, String> {
    let text: String = characters.take(digits).map(|(_, digit)| digit).collect();
    u32::from_str_radix(&text, 16)
        .ok()
        .and_then(char::from_u32)
        .ok_or_else(|| format!("\"{text}\" is no character code"))
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let length = text
        .char_indices()
        .find(|(at, c)| {
            !(c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (*at == 0 && matches!(c, '+' | '-')))
        })
        .map_or(text.len(), |(at, _)| at);
    let digits = text[..length].replace('_', "");
    let token = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Token::Int),
        None => digits
            .parse()
            .ok()
            .map(Token::Int)
            .or_else(|| digits.parse().ok().map(Token::Float)),
    };
    token
        .map(|token| (token, length))
        .ok_or_else(|| format!("bad number {:?}", &text[..length]))
}
