//! `# syntax=`, `# escape=` and `# check=` at the top of a file. Follows BuildKit's `parser/directives.go`.

use super::{Lines, Syntax};

/// A directive of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directive<'a> {
    pub(super) name: Name,
    pub(super) value: &'a str,
}

/// Names that are known; anything else ends the directives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Syntax,
    Escape,
    Check,
}

impl Name {
    fn parse(name: &str) -> Option<Name> {
        match name.to_ascii_lowercase().as_str() {
            "syntax" => Some(Name::Syntax),
            "escape" => Some(Name::Escape),
            "check" => Some(Name::Check),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Name::Syntax => "syntax",
            Name::Escape => "escape",
            Name::Check => "check",
        }
    }
}

/// Reads directives line by line, until the first line that is none.
pub(super) struct Reader {
    marker: &'static str,
    seen: Vec<Name>,
    done: bool,
}

impl Reader {
    /// `marker` begins a directive's line: `#`, or `//` in files of other languages.
    pub(super) fn new(marker: &'static str) -> Reader {
        Reader {
            marker,
            seen: Vec::new(),
            done: false,
        }
    }

    /// The directive of this line, if it is one and all lines before were.
    pub(super) fn read<'a>(&mut self, line: &'a str) -> Result<Option<Directive<'a>>, String> {
        if self.done {
            return Ok(None);
        }
        let directive = line
            .strip_prefix(self.marker)
            .and_then(|rest| split(rest.trim_start()));
        let Some(directive) = directive else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&directive.name) {
            return Err(format!(
                "only one {} parser directive can be used",
                directive.name.as_str()
            ));
        }
        self.seen.push(directive.name);
        Ok(Some(directive))
    }
}

/// `name = value`
fn split(text: &str) -> Option<Directive<'_>> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end();
    let value = value.trim();
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    if !well_formed || value.is_empty() {
        return None;
    }
    Some(Directive {
        name: Name::parse(name)?,
        value,
    })
}

/// The `syntax` directive in any of its forms: `# syntax=x`, `// syntax=x`, or a JSON object with a member `syntax`.
pub(super) fn syntax(text: &str) -> Option<Syntax> {
    let (value, lines) = find(Name::Syntax, "#", text)
        .or_else(|| find(Name::Syntax, "//", text))
        .or_else(|| json(text))?;
    Some(Syntax {
        reference: value.split(' ').next().unwrap_or_default().to_string(),
        lines,
    })
}

/// The first word of the `check` directive, and its line.
pub(super) fn check(text: &str) -> Option<(String, Lines)> {
    let (value, lines) = find(Name::Check, "#", text)?;
    let first = value.split(' ').next().unwrap_or_default();
    Some((first.to_string(), lines))
}

/// Looks below a byte order mark and a `#!` line.
fn find(name: Name, marker: &'static str, text: &str) -> Option<(String, Lines)> {
    let mut reader = Reader::new(marker);
    let (skipped, text) = below_shebang(text);
    for (number, line) in text.lines().enumerate() {
        // A repeated directive is reported when the file is parsed.
        let directive = reader.read(line).ok().flatten()?;
        if directive.name == name {
            let line = u32::try_from(number).unwrap_or(u32::MAX - 2) + skipped + 1;
            return Some((directive.value.to_string(), Lines::one(line)));
        }
    }
    None
}

fn json(text: &str) -> Option<(String, Lines)> {
    let (skipped, text) = below_shebang(text);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some((value.to_string(), Lines::one(skipped + 1)))
}

fn below_shebang(text: &str) -> (u32, &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.starts_with("#!") {
        return (0, text);
    }
    (1, text.split_once('\n').map_or("", |(_, rest)| rest))
}

/// Whether a frontend image means the language that this package speaks: any version of `docker/dockerfile`.
pub fn is_builtin_syntax(reference: &str) -> bool {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"]
        .iter()
        .find_map(|host| name.strip_prefix(host))
        .unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, u32)> {
        syntax(text).map(|s| (s.reference, s.lines.first))
    }

    #[test]
    fn the_syntax_is_found_in_each_of_its_forms() {
        let some = |reference: &str, line| Some((reference.to_string(), line));
        let table = [
            (
                "# syntax = dockerfile:experimental // opts\nFROM busybox\n",
                some("dockerfile:experimental", 1),
            ),
            (
                "#!/bin/sh\n# syntax = dockerfile:experimental\nFROM busybox\n",
                some("dockerfile:experimental", 2),
            ),
            ("#!/bin/sh\n\n# syntax = dockerfile:experimental\n", None),
            ("FROM busybox\nRUN ls\n", None),
            ("//syntax=foo\n//key=value", some("foo", 1)),
            ("#!/bin/sh\n//syntax=x", some("x", 2)),
            ("{\"syntax\": \"foo\", \"bar\": [\"abc\"]}", some("foo", 1)),
            ("{\"syntax\": \"foo\"", None),
            ("{\"syntax\": \"foo\"}\n# syntax=bar", None),
            (
                "\u{feff}# syntax = myfrontend\nFROM busybox\n",
                some("myfrontend", 1),
            ),
            ("# escape=`\n# SynTax=a\r\n", some("a", 2)),
            ("# other=1\n# syntax=a\n", None),
            ("# syntax=\n", None),
        ];
        for (text, expected) in table {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn check_is_read_only_behind_a_hash() {
        let found = |text| check(text).map(|(value, lines)| (value, lines.first));
        assert_eq!(
            found("#check = skip=all // opts\nFROM x"),
            Some(("skip=all".into(), 1))
        );
        assert_eq!(
            found("#!/bin/sh\n# check = skip=all\n"),
            Some(("skip=all".into(), 2))
        );
        assert_eq!(found("//check=skip=all\n"), None);
        assert_eq!(found("\n# check=skip=all\n"), None);
    }

    #[test]
    fn versions_of_docker_dockerfile_are_built_in() {
        for reference in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1@sha256:00",
            "docker/dockerfile-upstream:master",
        ] {
            assert!(is_builtin_syntax(reference), "{reference}");
        }
        for reference in [
            "dockerfile",
            "docker/dockerfile2",
            "example.com:5000/docker/dockerfile",
            "",
        ] {
            assert!(!is_builtin_syntax(reference), "{reference}");
        }
    }
}
