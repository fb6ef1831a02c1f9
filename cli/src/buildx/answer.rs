//! What `--check`, `--call outline` and `--call targets` print.
//! Source: BuildKit `frontend/subrequests/{lint,outline,targets}`.

use super::job::AnswerFormat;
use crate::render::build_progress::source_lines;
use crate::render::table::align_padded;
use agent_api::build::{CallAnswer, LintResults, Location, Outline, OutlineNeed, TargetList};
use serde::Serialize;
use std::fmt::Write as _;

/// The text, and whether the command fails for it. `file` is what the Dockerfile is called.
pub(crate) fn render(answer: &CallAnswer, format: AnswerFormat, file: &str) -> (String, bool) {
    let failed = match answer {
        CallAnswer::Check(results) => !results.warnings.is_empty() || results.error.is_some(),
        _ => false,
    };
    let text = match (format, answer) {
        (AnswerFormat::Json, CallAnswer::Check(results)) => json(results),
        (AnswerFormat::Json, CallAnswer::Outline(outline)) => json(outline),
        (AnswerFormat::Json, CallAnswer::Targets(targets)) => json(targets),
        (AnswerFormat::Text, CallAnswer::Check(results)) => check(results, file),
        (AnswerFormat::Text, CallAnswer::Outline(outline)) => outline_text(outline),
        (AnswerFormat::Text, CallAnswer::Targets(list)) => targets(list),
    };
    (text, failed)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("answers have a JSON form") + "\n"
}

fn check(results: &LintResults, file: &str) -> String {
    let mut text = match results.warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    if results.error.is_some() && results.warnings.is_empty() {
        text.clear();
    }
    for warning in &results.warnings {
        let _ = write!(text, "\nWARNING: {}", warning.rule_name);
        if !warning.url.is_empty() {
            let _ = write!(text, " - {}", warning.url);
        }
        let _ = writeln!(text, "\n{}", warning.detail);
        text.push_str(&place(results, &warning.location, file));
    }
    if let Some(error) = &results.error {
        let _ = writeln!(text, "\nERROR: {}", error.message);
        text.push_str(&place(results, &error.location, file));
    }
    text
}

fn place(results: &LintResults, location: &Location, file: &str) -> String {
    let Some(source) = results.sources.get(location.source_index as usize) else {
        return String::new();
    };
    source_lines(file, &source.data, &location.ranges)
}

fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() {
            "(default)"
        } else {
            &outline.name
        };
        let mut lines = vec![format!("TARGET:\t{name}")];
        if !outline.description.is_empty() {
            lines.push(format!("DESCRIPTION:\t{}", outline.description));
        }
        text += &(align_padded(&lines, 3) + "\n");
    }
    if !outline.args.is_empty() {
        let mut lines = vec!["BUILD ARG\tVALUE\tDESCRIPTION".to_owned()];
        let args = outline.args.iter();
        lines.extend(args.map(|arg| format!("{}\t{}\t{}", arg.name, arg.value, arg.description)));
        text += &(align_padded(&lines, 3) + "\n");
    }
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !needs.is_empty() {
            let mut lines = vec![format!("{title}\tREQUIRED")];
            let required = |need: &OutlineNeed| if need.required { "true" } else { "" };
            lines.extend(
                needs
                    .iter()
                    .map(|need| format!("{}\t{}", need.name, required(need))),
            );
            text += &(align_padded(&lines, 3) + "\n");
        }
    }
    if !outline.cache.is_empty() {
        text.push_str("CACHE MOUNT\n");
        for cache in &outline.cache {
            let _ = writeln!(text, "{}", cache.id);
        }
        text.push('\n');
    }
    text
}

fn targets(list: &TargetList) -> String {
    let mut lines = vec!["TARGET\tDESCRIPTION".to_owned()];
    for target in &list.targets {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        lines.push(format!("{name}\t{}", target.description));
    }
    align_padded(&lines, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(answer: serde_json::Value) -> (String, bool) {
        let answer: CallAnswer = serde_json::from_value(answer).unwrap();
        render(&answer, AnswerFormat::Text, "/ctx/Dockerfile")
    }

    // The texts are those of buildx 0.29 with BuildKit of Docker 28.5.

    #[test]
    fn lints_are_shown_with_their_lines() {
        // FROM clbase as base\nARG X=1\nRUN true\n
        let data = "RlJPTSBjbGJhc2UgYXMgYmFzZQpBUkcgWD0xClJVTiB0cnVlCg==";
        let (shown, failed) = text(json!({"call": "check", "answer": {
            "warnings": [{"ruleName": "FromAsCasing", "url": "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
                "detail": "'as' and 'FROM' keywords' casing do not match",
                "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}}],
            "sources": [{"filename": "Dockerfile", "data": data}]}}));
        assert!(failed);
        assert_eq!(
            shown,
            "Check complete, 1 warning has been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
/ctx/Dockerfile:1
--------------------
   1 | >>> FROM clbase as base
   2 |     ARG X=1
   3 |     RUN true
--------------------
"
        );
        let (shown, failed) =
            text(json!({"call": "check", "answer": {"warnings": null, "sources": null}}));
        assert_eq!(
            (shown.as_str(), failed),
            ("Check complete, no warnings found.\n", false)
        );
    }

    #[test]
    fn outlines_and_targets_are_tables() {
        let (shown, _) = text(
            json!({"call": "outline", "answer": {"args": [{"name": "X", "value": "1"}],
            "secrets": [{"name": "token", "required": true}], "cache": [{"ID": "/c"}]}}),
        );
        assert_eq!(
            shown,
            "BUILD ARG   VALUE   DESCRIPTION
X           1       

SECRET   REQUIRED
token    true

CACHE MOUNT
/c

"
        );
        let (shown, _) = text(json!({"call": "targets", "answer": {"targets":
            [{"name": "base"}, {"default": true, "base": "base"}], "sources": []}}));
        assert_eq!(shown, "TARGET    DESCRIPTION\nbase      \n(default) \n");
    }
}
