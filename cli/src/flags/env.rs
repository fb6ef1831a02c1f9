//! Environment and labels: `KEY=value`, `KEY` alone, and files of them. Source: docker/cli `opts/env.go`, `opts/file.go`.

use agent_api::Labels;
use std::path::Path;

/// `-e` and `--env-file`: files first, flags after; a name alone takes the caller's value and is dropped without one.
pub(crate) fn environment(files: &[String], flags: &[String]) -> Result<Vec<String>, String> {
    let mut result = Vec::new();
    for file in files {
        for (number, line) in lines(file)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(format!(
                    "{file}:{number}: variable {name:?} has no name or white space in it"
                ));
            }
            result.extend(entry(line));
        }
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(format!(
                "invalid environment variable: {flag}: write NAME=value or NAME"
            ));
        }
        result.extend(entry(flag.clone()));
    }
    Ok(result)
}

fn entry(text: String) -> Option<String> {
    if text.contains('=') {
        return Some(text);
    }
    std::env::var(&text)
        .ok()
        .map(|value| format!("{text}={value}"))
}

/// `-l` and `--label-file`.
pub(crate) fn labels(files: &[String], flags: &[String]) -> Result<Labels, String> {
    let mut result = Labels::new();
    let mut add = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(format!("invalid label {text:?}: write name=value"));
        }
        result.insert(key.to_owned(), value.to_owned());
        Ok(())
    };
    for file in files {
        for (number, line) in lines(file)? {
            add(&line).map_err(|reason| format!("{file}:{number}: {reason}"))?;
        }
    }
    flags.iter().try_for_each(|flag| add(flag))?;
    Ok(result)
}

/// `key=value` options of a driver; `key` alone is empty.
pub(crate) fn options(flags: &[String]) -> Labels {
    let pair = |flag: &String| {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        (key.to_owned(), value.to_owned())
    };
    flags.iter().map(pair).collect()
}

/// Lines that are neither empty nor comments, with their numbers; white space in front is dropped.
fn lines(file: &str) -> Result<Vec<(usize, String)>, String> {
    let text = std::fs::read_to_string(Path::new(file))
        .map_err(|error| format!("cannot read {file}: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let numbered = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start().to_owned()));
    Ok(numbered
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_bare_names_take_the_callers_value() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env").display().to_string();
        std::fs::write(
            &file,
            "\u{feff}# comment\n\n  A=1 \nPATH\nMUSTER_TEST_NOT_SET\nB=x=y\n",
        )
        .unwrap();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        let found = environment(
            std::slice::from_ref(&file),
            &["C=".into(), "MUSTER_TEST_NOT_SET".into()],
        )
        .unwrap();
        assert_eq!(found, ["A=1 ", &path, "B=x=y", "C="]);

        std::fs::write(&file, "A=1\nbad name=2\n").unwrap();
        let message = environment(std::slice::from_ref(&file), &[]).unwrap_err();
        assert!(message.starts_with(&format!("{file}:2: ")), "{message}");
        assert!(environment(&[], &["=x".into()]).is_err());
    }

    #[test]
    fn labels_may_lack_a_value() {
        let found = labels(&[], &["a=b=c".into(), "d".into()]).unwrap();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("a".into(), "b=c".into()), ("d".into(), String::new())]
        );
    }
}
