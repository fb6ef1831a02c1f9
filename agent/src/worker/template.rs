//! Placeholders in a service's environment, hostname and mounts: `{{.Task.Slot}}`, filled in on the node that runs the
//! task. What SwarmKit offers there (`template/context.go`), not Go's whole template language: fields, and `index` into
//! the labels of the service.

use agent_api::types::Labels;

/// What placeholders may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) service_id: String,
    pub(crate) service_name: String,
    pub(crate) service_labels: Labels,
    pub(crate) node_id: String,
    pub(crate) node_hostname: String,
    pub(crate) architecture: String,
    pub(crate) os: String,
    pub(crate) task_id: String,
    pub(crate) task_name: String,
    /// The slot, or the node's id in a global service.
    pub(crate) task_slot: String,
}

/// A placeholder cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("{0:?}: a placeholder is not closed with }}}}")]
    Open(String),
    #[error(
        "{{{{{0}}}}}: only .Service.ID, .Service.Name, .Service.Labels.KEY, .Node.ID, .Node.Hostname, \
         .Node.Platform.Architecture, .Node.Platform.OS, .Task.ID, .Task.Name, .Task.Slot and \
         index .Service.Labels \"KEY\" can be used here"
    )]
    Unknown(String),
}

/// The text with every placeholder filled in.
pub(crate) fn expand(text: &str, values: &Values) -> Result<String, TemplateError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((placeholder, after)) = after.split_once("}}") else {
            return Err(TemplateError::Open(text.to_owned()));
        };
        expanded.push_str(before);
        expanded.push_str(value(placeholder, values)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value<'a>(placeholder: &str, values: &'a Values) -> Result<&'a str, TemplateError> {
    // `{{-` and `-}}` trim white space around in Go; what they stand beside here has none to lose.
    let name = placeholder
        .trim_start_matches('-')
        .trim_end_matches('-')
        .trim();
    let unknown = || TemplateError::Unknown(placeholder.to_owned());
    Ok(match name {
        ".Service.ID" => &values.service_id,
        ".Service.Name" => &values.service_name,
        ".Node.ID" => &values.node_id,
        ".Node.Hostname" => &values.node_hostname,
        ".Node.Platform.Architecture" => &values.architecture,
        ".Node.Platform.OS" => &values.os,
        ".Task.ID" => &values.task_id,
        ".Task.Name" => &values.task_name,
        ".Task.Slot" => &values.task_slot,
        other => {
            let key = match other.strip_prefix(".Service.Labels.") {
                Some(key) => key,
                None => other
                    .strip_prefix("index")
                    .map(str::trim_start)
                    .and_then(|rest| rest.strip_prefix(".Service.Labels"))
                    .map(str::trim)
                    .and_then(|quoted| quoted.strip_prefix('"')?.strip_suffix('"'))
                    .ok_or_else(unknown)?,
            };
            // As in Go: a label that is not there is the empty text.
            values.service_labels.get(key).map_or("", String::as_str)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{TemplateError, Values, expand};

    fn values() -> Values {
        Values {
            service_name: "web".into(),
            service_labels: [
                ("com.example/tier".into(), "front".into()),
                ("zone".into(), "a".into()),
            ]
            .into(),
            task_slot: "3".into(),
            node_hostname: "host-1".into(),
            ..Values::default()
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{{.Service.Name}}-{{ .Task.Slot }}", "web-3"),
            ("A={{.Node.Hostname}}", "A=host-1"),
            ("{{.Service.Labels.zone}}|{{.Service.Labels.none}}", "a|"),
            ("{{index .Service.Labels \"com.example/tier\"}}", "front"),
            ("} {", "} {"),
        ] {
            assert_eq!(expand(text, &values()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert_eq!(
            expand("{{.Task", &values()),
            Err(TemplateError::Open("{{.Task".into()))
        );
        for text in [
            ".Service",
            "env \"HOME\"",
            ".Task.Name | upper",
            "index .Service.Labels zone",
        ] {
            let error = expand(&format!("{{{{{text}}}}}"), &values());
            assert_eq!(error, Err(TemplateError::Unknown(text.to_owned())));
        }
    }
}
