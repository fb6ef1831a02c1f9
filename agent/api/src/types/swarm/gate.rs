//! Gates: what a service waits for before its first task starts, written on the service as a label so that any manager
//! knows it and clients that never heard of it keep it.
//!
//! ```text
//!   dev.muster.stack.depends_on = app_db:service_healthy:true,app_migrate:service_completed_successfully:false
//!                                 service:condition:required, …
//! ```

use std::fmt;

/// Label of a service that carries its gates.
pub const LABEL: &str = "dev.muster.stack.depends_on";

/// Most gates of one service.
const MAX_GATES: usize = 256;

/// One service that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gate {
    /// Full name of the service waited for.
    pub service: String,
    /// What must have become of it.
    pub condition: Condition,
    /// `false`: go on when it does not exist or has failed.
    pub required: bool,
}

/// When a gate opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// A task of it runs or has run.
    Started,
    /// A task of it runs; one with a health check counts as running only when it is healthy.
    Healthy,
    /// Its tasks have ended with exit code 0.
    Completed,
}

impl Condition {
    /// The Compose specification's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "service_started",
            Self::Healthy => "service_healthy",
            Self::Completed => "service_completed_successfully",
        }
    }
}

/// The label does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid label {LABEL}: {entry:?} is not SERVICE:CONDITION:REQUIRED")]
pub struct GateError {
    /// The part that cannot be read.
    pub entry: String,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            condition,
            required,
        } = self;
        write!(f, "{service}:{}:{required}", condition.word())
    }
}

/// The label's value.
#[must_use]
pub fn format(gates: &[Gate]) -> String {
    let words: Vec<_> = gates.iter().map(ToString::to_string).collect();
    words.join(",")
}

/// Reads the label's value; empty is no gate.
///
/// # Errors
/// [`GateError`] with the first entry that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Gate>, GateError> {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    let gates: Vec<Gate> = entries
        .take(MAX_GATES + 1)
        .map(|entry| {
            one(entry).ok_or_else(|| GateError {
                entry: entry.to_owned(),
            })
        })
        .collect::<Result<_, _>>()?;
    match gates.get(MAX_GATES) {
        Some(gate) => Err(GateError {
            entry: gate.to_string(),
        }),
        None => Ok(gates),
    }
}

fn one(entry: &str) -> Option<Gate> {
    let mut words = entry.split(':');
    let (service, condition, required) = (words.next()?, words.next()?, words.next()?);
    let condition = [Condition::Started, Condition::Healthy, Condition::Completed]
        .into_iter()
        .find(|known| known.word() == condition)?;
    if service.is_empty() || words.next().is_some() {
        return None;
    }
    Some(Gate {
        service: service.to_owned(),
        condition,
        required: required.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let gates = vec![
            Gate {
                service: "app_db".into(),
                condition: Condition::Healthy,
                required: true,
            },
            Gate {
                service: "app_migrate".into(),
                condition: Condition::Completed,
                required: false,
            },
        ];
        let text = format(&gates);
        assert_eq!(
            text,
            "app_db:service_healthy:true,app_migrate:service_completed_successfully:false"
        );
        assert_eq!(parse(&text), Ok(gates));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_gate_is_refused() {
        let long = "a:service_started:true,".repeat(MAX_GATES + 1);
        for text in [
            "db",
            "db:healthy:true",
            "db:service_started:yes",
            ":service_started:true",
            "a:service_started:true:x",
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
