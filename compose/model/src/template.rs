//! `$VAR` and `${VAR…}` in text: the interpolation grammar of Compose, used for compose files and env files.
//!
//! Same language as compose-go `template/template.go`: a `$` before anything but `$`, a name or `{` is literal.
//! Text only: where a text came from and what happens to a problem is the caller's matter.

/// Deepest nesting of `${A:-${B:-…}}`.
const MAX_DEPTH: usize = 64;
/// Longest text that a substitution may produce.
const MAX_RESULT_BYTES: usize = 4 << 20;

/// Why a text cannot be interpolated. Offsets are bytes from the start of the outermost text, as far as known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// `${` is not followed by `NAME}` or `NAME` and an operator.
    #[error("invalid interpolation format")]
    Invalid {
        /// The broken part, from its `$`.
        part: String,
    },
    /// `${NAME:?message}` without a value.
    #[error("required variable {name} is missing a value{}{message}", if message.is_empty() { "" } else { ": " })]
    Required {
        /// Name of the variable.
        name: String,
        /// The text after `?`, interpolated.
        message: String,
    },
    /// Nested too deeply or too long.
    #[error(
        "interpolation is nested more than {MAX_DEPTH} deep or yields more than {MAX_RESULT_BYTES} bytes"
    )]
    TooLarge,
}

/// Where variables come from, and who hears of unset ones.
pub(crate) trait Variables {
    /// The value of a variable; `None` if unset.
    fn get(&self, name: &str) -> Option<String>;
    /// An unset variable was replaced by nothing.
    fn unset(&mut self, name: &str);
}

/// What stands between a name and the closing brace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    /// `:-` and `-`.
    Default,
    /// `:+` and `+`.
    Alternative,
    /// `:?` and `?`.
    Required,
}

/// Replaces all variables in `text`.
pub(crate) fn substitute(
    text: &str,
    variables: &mut dyn Variables,
) -> Result<String, TemplateError> {
    substitute_at(text, variables, 0)
}

fn substitute_at(
    text: &str,
    variables: &mut dyn Variables,
    depth: usize,
) -> Result<String, TemplateError> {
    if depth > MAX_DEPTH {
        return Err(TemplateError::TooLarge);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let from_dollar = &rest[at..];
        let after = &from_dollar[1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let (value, tail) = braced(from_dollar, inner, variables, depth)?;
            out.push_str(&value);
            rest = tail;
        } else {
            let name = name(after);
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&plain(name, variables));
            }
            rest = &after[name.len()..];
        }
        if out.len() > MAX_RESULT_BYTES {
            return Err(TemplateError::TooLarge);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The longest `[_a-zA-Z][_a-zA-Z0-9]*` at the start of `text`.
fn name(text: &str) -> &str {
    let end = text
        .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    &text[..end]
}

fn plain(name: &str, variables: &mut dyn Variables) -> String {
    variables.get(name).unwrap_or_else(|| {
        variables.unset(name);
        String::new()
    })
}

/// Handles `${…}`; `inner` is what follows the opening brace. Returns the value and the text after the
/// closing brace.
fn braced<'t>(
    from_dollar: &'t str,
    inner: &'t str,
    variables: &mut dyn Variables,
    depth: usize,
) -> Result<(String, &'t str), TemplateError> {
    let invalid = || TemplateError::Invalid {
        part: from_dollar.lines().next().unwrap_or_default().to_owned(),
    };
    let name = name(inner);
    if name.is_empty() {
        return Err(invalid());
    }
    let after = &inner[name.len()..];
    if let Some(tail) = after.strip_prefix('}') {
        return Ok((plain(name, variables), tail));
    }
    let (or_empty, after) = match after.strip_prefix(':') {
        Some(tail) => (true, tail),
        None => (false, after),
    };
    let operator = match after.bytes().next() {
        Some(b'-') => Operator::Default,
        Some(b'+') => Operator::Alternative,
        Some(b'?') => Operator::Required,
        _ => return Err(invalid()),
    };
    let argument = &after[1..];
    let end = closing_brace(argument).ok_or_else(invalid)?;
    let (argument, tail) = (&argument[..end], &argument[end + 1..]);

    let value = variables.get(name);
    let present = value
        .as_ref()
        .is_some_and(|value| !or_empty || !value.is_empty());
    let result = match (operator, present) {
        (Operator::Default | Operator::Required, true) | (Operator::Alternative, false) => {
            value.unwrap_or_default()
        }
        (Operator::Default, false) | (Operator::Alternative, true) => {
            substitute_at(argument, variables, depth + 1)?
        }
        (Operator::Required, false) => {
            return Err(TemplateError::Required {
                name: name.to_owned(),
                message: substitute_at(argument, variables, depth + 1)?,
            });
        }
    };
    Ok((result, tail))
}

/// Position of the brace that closes an argument, counting nested ones; an unbalanced `{` that starts no variable is
/// forgiven, then the last brace of the line closes. The argument cannot span lines.
fn closing_brace(argument: &str) -> Option<usize> {
    let line = argument.split('\n').next().unwrap_or_default();
    let mut open = 1;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    line.rfind('}').filter(|end| !line[..*end].contains("${"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Env {
        values: BTreeMap<String, String>,
        unset: Vec<String>,
    }

    impl Variables for Env {
        fn get(&self, name: &str) -> Option<String> {
            self.values.get(name).cloned()
        }
        fn unset(&mut self, name: &str) {
            self.unset.push(name.to_owned());
        }
    }

    fn env() -> Env {
        let values = [("SET", "value"), ("EMPTY", ""), ("OTHER", "other")];
        Env {
            values: values.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            unset: Vec::new(),
        }
    }

    #[test]
    fn the_whole_grammar() {
        for (text, result) in [
            ("plain", "plain"),
            ("$SET", "value"),
            ("${SET}", "value"),
            ("a${SET}b$OTHER.", "avaluebother."),
            ("$SET_X", ""),
            ("$$SET", "$SET"),
            ("$$$SET", "$value"),
            ("a $ b", "a $ b"),
            ("^R$", "^R$"),
            ("$}", "$}"),
            ("$1", "$1"),
            ("${UNSET:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${UNSET-d}", "d"),
            ("${SET:-d}", "value"),
            ("${SET:+a}", "a"),
            ("${EMPTY:+a}", ""),
            ("${EMPTY+a}", "a"),
            ("${UNSET+a}", ""),
            ("${SET:?e}", "value"),
            ("${EMPTY?e}", ""),
            ("${UNSET:-${EMPTY:-${SET}}}", "value"),
            ("${UNSET:-${X-y}z}t", "yzt"),
            ("${UNSET:-{\"a\": 1}}!", "{\"a\": 1}!"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a:-b}", "a:-b"),
            ("${UNSET-a:?b}", "a:?b"),
            ("${UNSET:-$$x}", "$x"),
            ("${UNSET:-{}", "{"),
            ("a\n$SET\n", "a\nvalue\n"),
            ("é$SET", "évalue"),
        ] {
            assert_eq!(
                substitute(text, &mut env()).as_deref(),
                Ok(result),
                "{text}"
            );
        }
    }

    #[test]
    fn broken_forms_name_the_broken_part() {
        for (text, part) in [
            ("${", "${"),
            ("x${}", "${}"),
            ("${ SET }", "${ SET }"),
            ("${SET!}", "${SET!}"),
            ("${1}", "${1}"),
            ("${SET", "${SET"),
            ("${SET:-x", "${SET:-x"),
            ("${SET:-a\nb}", "${SET:-a"),
            ("${SET-a${UNSET}", "${SET-a${UNSET}"),
        ] {
            let part = part.to_owned();
            let expected = Err(TemplateError::Invalid { part });
            assert_eq!(substitute(text, &mut env()), expected, "{text}");
        }
    }

    #[test]
    fn required_variables_say_why() {
        let error = |text| substitute(text, &mut env()).map_err(|error| error.to_string());
        assert_eq!(
            error("${UNSET:?set $OTHER first}"),
            Err("required variable UNSET is missing a value: set other first".into())
        );
        assert_eq!(
            error("${EMPTY:?}"),
            Err("required variable EMPTY is missing a value".into())
        );
    }

    #[test]
    fn unset_variables_are_reported_once_each_time() {
        let mut env = env();
        assert_eq!(
            substitute("$A ${B} ${C:-x} ${D+y}", &mut env),
            Ok("  x ".into())
        );
        assert_eq!(env.unset, ["A", "B"]);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = "${A:-".repeat(100_000) + &"}".repeat(100_000);
        assert_eq!(substitute(&deep, &mut env()), Err(TemplateError::TooLarge));
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back_unchanged(text in "\\PC*") {
            let escaped = text.replace('$', "$$");
            prop_assert_eq!(substitute(&escaped, &mut env()), Ok(text));
        }

        #[test]
        fn nothing_panics(text in "[${}:?+\\-a-zA-Z_ \\n]*") {
            let _ = substitute(&text, &mut env());
        }

        #[test]
        fn values_are_not_interpolated_again(value in "\\PC*") {
            let mut env = Env::default();
            env.values.insert("V".into(), value.clone());
            prop_assert_eq!(substitute("${V}|${V:-x}", &mut env).map(|s| s.starts_with(&value)), Ok(true));
        }
    }
}
