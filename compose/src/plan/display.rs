//! The two stable forms of a plan: text for people and diffs, JSON for scripts. No colour, no secrets: requests,
//! which hold environments, are in neither.

use std::fmt;

use serde_json::{Value, json};

use super::{Condition, HookKind, Operation, Plan, Step};

impl fmt::Display for Plan {
    /// One line per step: number, operation, object, what it comes after, cause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{} {}", index + 1, step.operation)?;
            if !step.after.is_empty() {
                let after: Vec<String> = step
                    .after
                    .iter()
                    .map(|edge| (edge.step + 1).to_string())
                    .collect();
                write!(f, " (after {})", after.join(" "))?;
            }
            writeln!(f, ": {}", step.cause)?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    /// Verb and object, without a reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::CreateNetwork { request, .. } => {
                write!(f, "create network {}", request.name)
            }
            Operation::RemoveNetwork { name, .. } => write!(f, "remove network {name}"),
            Operation::CreateVolume { request, .. } => write!(f, "create volume {}", request.name),
            Operation::RemoveVolume { name } => write!(f, "remove volume {name} and its data"),
            Operation::CreateContainer { container, new } if new.name == container.name => {
                write!(f, "create container {}", container.name)
            }
            Operation::CreateContainer { container, new } => {
                write!(f, "create container {} as {}", container.name, new.name)
            }
            Operation::StartContainer { container } => {
                write!(f, "start container {}", container.name)
            }
            Operation::StopContainer { container, .. } => {
                write!(f, "stop container {}", container.name)
            }
            Operation::KillContainer { container, signal } => {
                write!(f, "send {signal} to container {}", container.name)
            }
            Operation::RemoveContainer {
                container,
                anonymous_volumes: true,
                ..
            } => {
                write!(
                    f,
                    "remove container {} and its anonymous volumes",
                    container.name
                )
            }
            Operation::RemoveContainer { container, .. } => {
                write!(f, "remove container {}", container.name)
            }
            Operation::RenameContainer { container, from } => {
                write!(f, "rename container {from} to {}", container.name)
            }
            Operation::Wait {
                service,
                condition,
                required,
                ..
            } => {
                let condition = match condition {
                    Condition::Healthy => "is healthy",
                    Condition::Completed => "has completed",
                    Condition::RunningOrHealthy => "runs",
                };
                let optional = if *required { "" } else { " (optional)" };
                write!(f, "wait until {service} {condition}{optional}")
            }
            Operation::RunHook {
                container,
                kind,
                index,
                ..
            } => {
                let kind = match kind {
                    HookKind::PostStart => "post_start",
                    HookKind::PreStop => "pre_stop",
                };
                write!(
                    f,
                    "run {kind} hook {} in container {}",
                    index + 1,
                    container.name
                )
            }
            Operation::BuildImage { build } => {
                write!(f, "build image {} for {}", build.image, build.service)
            }
            Operation::RemoveImage { reference } => write!(f, "remove image {reference}"),
        }
    }
}

impl Plan {
    /// The plan as JSON: `{"project", "changes", "steps": [{"id", "operation", "object", "service"?, "container_number"?,
    /// "after", "cause": {"kind", …}, "reason", "text", "place"?}], "warnings": [text]}`. Ids start at 1.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "project": self.project,
            "changes": !self.is_empty(),
            "steps": self.steps.iter().enumerate().map(|(index, step)| step.to_json(index)).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl Step {
    fn to_json(&self, index: usize) -> Value {
        let mut value = json!({
            "id": index + 1,
            "operation": self.operation.kind(),
            "object": self.operation.object(),
            "after": self.after.iter().map(|edge| edge.step + 1).collect::<Vec<_>>(),
            "cause": self.cause,
            "reason": self.cause.to_string(),
            "text": self.operation.to_string(),
        });
        let object = value.as_object_mut().expect("written as an object above");
        if let Some(service) = self.operation.service() {
            object.insert("service".into(), service.into());
        }
        if let Some(container) = self.operation.container() {
            object.insert("container_number".into(), container.number.into());
        }
        if let Some(place) = &self.place {
            object.insert("place".into(), place.as_str().into());
        }
        value
    }
}
