//! `--flag[=value]` in front of an instruction's arguments. Follows BuildKit's `instructions/bflag.go`.

use crate::suggest::{Case, with_suggestion};

/// How often a flag may be given, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--x`, `--x=true`, `--x=false`; once.
    Bool,
    /// `--x=value`; once.
    Text,
    /// `--x=value`; any number of times.
    Texts,
}

/// The flags that were given, checked against those that the instruction knows.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks flags as written against the known ones.
    pub(super) fn parse(
        written: &[String],
        known: &[(&'static str, Takes)],
    ) -> Result<Flags, String> {
        let mut flags = Flags::default();
        for flag in written {
            let (dashed, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let Some(name) = dashed.strip_prefix("--") else {
                return Err(format!("arg should start with -- : {flag}"));
            };
            let Some(&(name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(with_suggestion(
                    format!("unknown flag: {dashed}"),
                    name,
                    known.iter().map(|(known, _)| *known),
                    Case::Matters,
                ));
            };
            if takes != Takes::Texts && flags.text(name).is_some() {
                return Err(format!("duplicate flag specified: {dashed}"));
            }
            let missing = || format!("missing a value on flag: {dashed}");
            let value = match takes {
                Takes::Bool => match value {
                    Some("") => return Err(missing()),
                    None => "true".into(),
                    Some(value) => match value.to_lowercase() {
                        lower if lower == "true" || lower == "false" => lower,
                        _ => {
                            return Err(format!(
                                "expecting boolean value for flag {dashed}, not: {value}"
                            ));
                        }
                    },
                },
                Takes::Text | Takes::Texts => value.ok_or_else(missing)?.to_string(),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    /// The value, if the flag was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.given.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value, empty without.
    pub(super) fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_string()
    }

    /// All values in order.
    pub(super) fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.given
            .iter()
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a boolean flag, if it was given.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Takes)] = &[
        ("from", Takes::Text),
        ("link", Takes::Bool),
        ("exclude", Takes::Texts),
    ];

    fn parse(flags: &[&str]) -> Result<Flags, String> {
        let flags: Vec<String> = flags.iter().map(|f| f.to_string()).collect();
        Flags::parse(&flags, KNOWN)
    }

    #[test]
    fn known_flags_are_read() {
        let flags = parse(&["--link", "--from=a=b", "--exclude=x", "--exclude="]).expect("valid");
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.text("from"), Some("a=b"));
        assert_eq!(flags.texts("exclude").collect::<Vec<_>>(), ["x", ""]);
        assert_eq!(
            parse(&["--link=FALSE"]).expect("valid").bool("link"),
            Some(false)
        );
        assert_eq!(parse(&[]).expect("valid").bool("link"), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for (flags, message) in [
            (
                &["--form=x"][..],
                "unknown flag: --form (did you mean from?)",
            ),
            (&["--elsewhere"], "unknown flag: --elsewhere"),
            (&["--Link"], "unknown flag: --Link (did you mean link?)"),
            (
                &["--from=a", "--from=b"],
                "duplicate flag specified: --from",
            ),
            (&["--from"], "missing a value on flag: --from"),
            (&["--link="], "missing a value on flag: --link"),
            (
                &["--link=yes"],
                "expecting boolean value for flag --link, not: yes",
            ),
        ] {
            assert_eq!(parse(flags).expect_err("refused"), message);
        }
    }
}
