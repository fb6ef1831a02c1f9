//! Replaces `$VAR` in every text of a file's tree and casts what the model wants as number or boolean.
//!
//! Runs per file, before include, extends and merge (compose-go `loader/interpolate.go`): a `:?` in a service that
//! is not active, or in an `x-` key, still fails. Keys are not interpolated.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::span::Span;
use crate::template::{self, TemplateError, Variables};
use crate::tree::{Node, Path, Value};

/// Text that the variables of a document may add up to.
const MAX_BYTES: usize = 64 << 20;

/// Variables of one file, with what has to be said about unset ones.
struct Scope<'a> {
    environment: &'a BTreeMap<String, String>,
    unset: Vec<String>,
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn unset(&mut self, name: &str) {
        self.unset.push(name.to_owned());
    }
}

/// Interpolates a whole document.
pub(crate) fn document(
    report: &mut Report,
    document: &mut Node,
    environment: &BTreeMap<String, String>,
) {
    let mut bytes = 0;
    document.walk_mut(&Path::ROOT, &mut |node, path| {
        let span = node.span;
        let Value::Str(text) = &node.value else {
            return;
        };
        if bytes > MAX_BYTES {
            let message = format!("variables add up to more than {} MiB", MAX_BYTES >> 20);
            return report.error(Diagnostic::error(Span::NONE, message));
        }
        let text = match text.contains('$') {
            false => text.clone(),
            true => match value(report, text, span, path, environment) {
                Some(text) => text,
                None => return,
            },
        };
        bytes += text.len();
        match cast(&text, &path.steps()) {
            Ok(value) => node.value = value.unwrap_or(Value::Str(text)),
            Err(wanted) => {
                let shown: String = text.chars().take(60).collect();
                report.error(
                    Diagnostic::error(span, format!("{path} must be {wanted}, not {shown:?}"))
                        .with_label(format!("expected {wanted}")),
                );
            }
        }
        if let Value::Bool(_) = node.value
            && let Some(spelling) = yaml_1_1_boolean(&text_of(report, span))
        {
            report.warn(Diagnostic::warning(
                span,
                format!("{spelling:?} for a boolean is not YAML 1.2: write true or false"),
            ));
        }
    });
}

/// Interpolates one text; says what is wrong and returns `None` if it cannot.
pub(crate) fn value(
    report: &mut Report,
    text: &str,
    span: Span,
    path: &Path<'_>,
    environment: &BTreeMap<String, String>,
) -> Option<String> {
    let mut scope = Scope {
        environment,
        unset: Vec::new(),
    };
    let result = template::substitute(text, &mut scope);
    for name in scope.unset {
        let place = narrow(report, span, &[&format!("${name}"), &format!("${{{name}")]);
        report.warn(
            Diagnostic::warning(
                place,
                format!("the variable {name} is not set: it becomes an empty text"),
            )
            .with_help(format!(
                "set it in the environment or in .env, or write ${{{name}:-default}}"
            )),
        );
    }
    match result {
        Ok(text) => Some(text),
        Err(error) => {
            let diagnostic = match &error {
                TemplateError::Invalid { part } => {
                    let place = narrow(report, span, &[part]);
                    Diagnostic::error(place, format!("invalid interpolation format for {path}"))
                        .with_label("not a variable")
                        .with_help("write ${NAME} for a variable, or $$ for a literal $")
                }
                TemplateError::Required { name, .. } => {
                    let place = narrow(report, span, &[&format!("${{{name}")]);
                    Diagnostic::error(place, format!("cannot interpolate {path}: {error}"))
                        .with_label("has no value")
                        .with_help(format!("set {name} in the environment or in .env"))
                }
                TemplateError::TooLarge => {
                    Diagnostic::error(span, format!("cannot interpolate {path}: {error}"))
                }
            };
            report.error(diagnostic);
            None
        }
    }
}

/// The place of the first of `parts` within `span`, if the file has it literally there.
fn narrow(report: &Report, span: Span, parts: &[&str]) -> Span {
    let text = text_of(report, span);
    for part in parts {
        if let Some(at) = text.find(part) {
            let at = u32::try_from(at).unwrap_or(0);
            let length = u32::try_from(part.len()).unwrap_or(0);
            return Span {
                file: span.file,
                start: span.start + at,
                end: span.start + at + length,
            };
        }
    }
    span
}

fn text_of(report: &Report, span: Span) -> String {
    report
        .sources
        .get(span)
        .and_then(|source| source.text.get(span.start as usize..span.end as usize))
        .unwrap_or_default()
        .to_owned()
}

fn yaml_1_1_boolean(written: &str) -> Option<&str> {
    let word = written.trim_matches(['"', '\'']);
    let lower = word.to_ascii_lowercase();
    matches!(lower.as_str(), "y" | "yes" | "on" | "n" | "no" | "off").then_some(word)
}

/// The boolean a text stands for, in all spellings Compose accepts.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// What the text becomes at this place: `Ok(None)` = it stays text; `Err` names what was wanted.
fn cast(text: &str, path: &[&str]) -> Result<Option<Value>, &'static str> {
    match path {
        [
            "services",
            _,
            "cpu_count" | "cpu_period" | "cpu_quota" | "cpu_rt_period" | "cpu_rt_runtime"
            | "cpu_shares" | "oom_score_adj" | "pids_limit" | "scale",
        ]
        | ["services", _, "deploy", "replicas"]
        | [
            "services",
            _,
            "deploy",
            "update_config" | "rollback_config",
            "parallelism",
        ]
        | ["services", _, "deploy", "restart_policy", "max_attempts"]
        | [
            "services",
            _,
            "deploy",
            "placement",
            "max_replicas_per_node",
        ]
        | ["services", _, "healthcheck", "retries"]
        | ["services", _, "ports", "[]", "target"]
        | ["services", _, "ulimits", _]
        | ["services", _, "ulimits", _, "hard" | "soft"] => match text.parse() {
            Ok(number) => Ok(Some(Value::Int(number))),
            Err(_) => Err("a whole number"),
        },
        ["services", _, "cpu_percent" | "cpus"]
        | [
            "services",
            _,
            "deploy",
            "update_config" | "rollback_config",
            "max_failure_ratio",
        ] => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(Value::Float(number))),
            _ => Err("a number"),
        },
        [
            "services",
            _,
            "init" | "oom_kill_disable" | "privileged" | "read_only" | "stdin_open" | "tty",
        ]
        | ["services", _, "depends_on", _, "required" | "restart"]
        | ["services", _, "healthcheck", "disable"]
        | ["services", _, "volumes", "[]", "read_only"]
        | ["services", _, "volumes", "[]", "volume", "nocopy"]
        | [
            "networks",
            _,
            "external" | "internal" | "attachable" | "enable_ipv4" | "enable_ipv6",
        ]
        | ["volumes" | "secrets" | "configs", _, "external"] => match parse_bool(text) {
            Some(value) => Ok(Some(Value::Bool(value))),
            None => Err("true or false"),
        },
        _ => Ok(None),
    }
}
