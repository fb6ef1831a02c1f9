//! The stable text of a plan. No colour; no environment, no secret.

use std::fmt;

use super::plan::{StackPlan, StackStep};

impl fmt::Display for StackPlan {
    /// A line per step (`+` made, `~` changed, `-` removed), fields below it, then what stays.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
            if let StackStep::UpdateService { changes, .. } = step {
                for change in changes {
                    writeln!(f, "    {change}")?;
                }
            }
        }
        for object in &self.unchanged {
            writeln!(f, "= {object}")?;
        }
        if self.steps.is_empty() {
            writeln!(f, "stack {}: nothing to do", self.stack)
        } else {
            let count = |mark: char| {
                let steps = self.steps.iter();
                steps.filter(|step| step.mark() == mark).count()
            };
            writeln!(
                f,
                "stack {}: {} to make, {} to change, {} to remove",
                self.stack,
                count('+'),
                count('~'),
                count('-')
            )
        }
    }
}

impl fmt::Display for StackStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.mark(), self.kind(), self.object())?;
        match self {
            StackStep::CreateNetwork { request } => write!(f, " ({})", request.driver),
            StackStep::UpdateSecret { .. } | StackStep::UpdateConfig { .. } => {
                write!(f, " (labels; what it holds cannot change)")
            }
            StackStep::RemoveSecret { .. } | StackStep::RemoveConfig { .. } => {
                write!(f, " (nothing refers to it)")
            }
            StackStep::RemoveService { .. } | StackStep::RemoveNetwork { .. } => {
                write!(f, " (not in the file)")
            }
            _ => Ok(()),
        }
    }
}

impl StackStep {
    fn mark(&self) -> char {
        match self {
            StackStep::CreateNetwork { .. }
            | StackStep::CreateSecret { .. }
            | StackStep::CreateConfig { .. }
            | StackStep::CreateService { .. } => '+',
            StackStep::UpdateSecret { .. }
            | StackStep::UpdateConfig { .. }
            | StackStep::UpdateService { .. } => '~',
            StackStep::RemoveService { .. }
            | StackStep::RemoveNetwork { .. }
            | StackStep::RemoveSecret { .. }
            | StackStep::RemoveConfig { .. } => '-',
        }
    }

    /// `network`, `secret`, `config` or `service`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            StackStep::CreateNetwork { .. } | StackStep::RemoveNetwork { .. } => "network",
            StackStep::CreateSecret { .. }
            | StackStep::UpdateSecret { .. }
            | StackStep::RemoveSecret { .. } => "secret",
            StackStep::CreateConfig { .. }
            | StackStep::UpdateConfig { .. }
            | StackStep::RemoveConfig { .. } => "config",
            StackStep::CreateService { .. }
            | StackStep::UpdateService { .. }
            | StackStep::RemoveService { .. } => "service",
        }
    }

    /// Name of what it is about.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            StackStep::CreateNetwork { request } => &request.name,
            StackStep::CreateSecret { spec } | StackStep::UpdateSecret { spec, .. } => {
                &spec.annotations.name
            }
            StackStep::CreateConfig { spec } | StackStep::UpdateConfig { spec, .. } => {
                &spec.annotations.name
            }
            StackStep::CreateService { spec } | StackStep::UpdateService { spec, .. } => {
                &spec.annotations.name
            }
            StackStep::RemoveService { name, .. }
            | StackStep::RemoveNetwork { name, .. }
            | StackStep::RemoveSecret { name, .. }
            | StackStep::RemoveConfig { name, .. } => name,
        }
    }

    /// What is being done, as Docker says it: `Creating service app_web`, `Updating service app_web (id: …)`.
    #[must_use]
    pub fn doing(&self) -> String {
        let (kind, object) = (self.kind(), self.object());
        match self {
            StackStep::UpdateService { id, .. } => format!("Updating {kind} {object} (id: {id})"),
            _ => match self.mark() {
                '+' => format!("Creating {kind} {object}"),
                '~' => format!("Updating {kind} {object}"),
                _ => format!("Removing {kind} {object}"),
            },
        }
    }
}
