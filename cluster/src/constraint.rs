//! Placement constraints: `node.labels.zone == east`, `node.ip != 10.0.3.0/24`. Parsed when a spec is accepted, asked
//! by the scheduler, the global orchestrator and the constraint enforcer. Looks at nodes only, never at tasks.
//!
//! Syntax and comparison are SwarmKit's (`manager/constraint/constraint.go`): values are compared without regard to
//! case, label keys with it, an absent label is the empty string. Two things SwarmKit accepts and then never matches
//! are refused here, because a task that waits for ever helps nobody: keys it does not know, and addresses that are
//! none.

use std::net::IpAddr;

use agent_api::swarm::NodeRole;
use cluster_api::Node;
use ipnet::IpNet;

const KEYS: &str = "node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, \
                    node.labels.<key>, engine.labels.<key>";

/// One expression a node satisfies or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    subject: Subject,
    operator: Operator,
    expression: String,
}

/// Why an expression is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint {0:?} has no operator: write <key> == <value> or <key> != <value>")]
    Operator(String),
    #[error("constraint {expression:?}: key {key:?} is not known; known are {KEYS}")]
    Key { expression: String, key: String },
    #[error(
        "constraint {expression:?}: value {value:?} is empty or has characters that are not allowed"
    )]
    Value { expression: String, value: String },
    #[error(
        "constraint {expression:?}: {value:?} is neither an IP address nor a subnet such as 10.0.0.0/24"
    )]
    Address { expression: String, value: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Id(String),
    Hostname(String),
    Address(IpNet),
    Role(String),
    Os(String),
    Architecture(String),
    NodeLabel { key: String, value: String },
    EngineLabel { key: String, value: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
}

impl Constraint {
    /// Reads one expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(expression: &str) -> Result<Self, ConstraintError> {
        let (key, operator, value) = expression
            .split_once("==")
            .map(|(key, value)| (key, Operator::Is, value))
            .or_else(|| {
                expression
                    .split_once("!=")
                    .map(|(key, value)| (key, Operator::IsNot, value))
            })
            .ok_or_else(|| ConstraintError::Operator(expression.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        if !is_value(value) {
            return Err(ConstraintError::Value {
                expression: expression.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(Self {
            subject: Subject::parse(expression, key, value)?,
            operator,
            expression: expression.trim().to_owned(),
        })
    }

    /// Reads all expressions of a placement.
    ///
    /// # Errors
    ///
    /// What is wrong with the first bad one.
    pub fn parse_all(expressions: &[String]) -> Result<Vec<Self>, ConstraintError> {
        expressions
            .iter()
            .map(|expression| Self::parse(expression))
            .collect()
    }

    /// Whether the node may run what asks for this.
    #[must_use]
    pub fn is_met_by(&self, node: &Node) -> bool {
        self.subject.is(node) == (self.operator == Operator::Is)
    }

    /// The expression as it was written, for explanations.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }
}

/// Whether the node satisfies all expressions. One that cannot be read is satisfied by no node; specs with such are
/// refused before they are stored.
#[must_use]
pub fn all_met(expressions: &[String], node: &Node) -> bool {
    expressions.iter().all(|expression| {
        Constraint::parse(expression).is_ok_and(|constraint| constraint.is_met_by(node))
    })
}

impl Subject {
    fn parse(expression: &str, key: &str, value: &str) -> Result<Self, ConstraintError> {
        let lower = key.to_ascii_lowercase();
        let value = value.to_owned();
        match lower.as_str() {
            "node.id" => return Ok(Self::Id(value)),
            "node.hostname" => return Ok(Self::Hostname(value)),
            "node.role" => return Ok(Self::Role(value)),
            "node.platform.os" => return Ok(Self::Os(value)),
            "node.platform.arch" => return Ok(Self::Architecture(value)),
            "node.ip" => {
                return value
                    .parse::<IpAddr>()
                    .map(IpNet::from)
                    .or_else(|_| value.parse::<IpNet>())
                    .map(Self::Address)
                    .map_err(|_| ConstraintError::Address {
                        expression: expression.to_owned(),
                        value,
                    });
            }
            _ => {}
        }
        let label = |prefix: &str| {
            lower
                .strip_prefix(prefix)
                .filter(|key| !key.is_empty() && key.bytes().all(is_key_byte))
                .map(|_| key[prefix.len()..].to_owned())
        };
        if let Some(key) = label("node.labels.") {
            Ok(Self::NodeLabel { key, value })
        } else if let Some(key) = label("engine.labels.") {
            Ok(Self::EngineLabel { key, value })
        } else {
            Err(ConstraintError::Key {
                expression: expression.to_owned(),
                key: key.to_owned(),
            })
        }
    }

    fn is(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let (wanted, actual) = match self {
            Self::Address(wanted) => {
                return node
                    .status
                    .addr
                    .parse::<IpAddr>()
                    .is_ok_and(|addr| wanted.contains(&addr));
            }
            Self::Id(wanted) => (wanted, Some(node.id.as_str())),
            Self::Hostname(wanted) => (wanted, description.map(|d| d.hostname.as_str())),
            Self::Role(wanted) => (
                wanted,
                Some(match node.role {
                    NodeRole::Worker => "worker",
                    NodeRole::Manager => "manager",
                }),
            ),
            Self::Os(wanted) => (wanted, description.map(|d| d.platform.os.as_str())),
            Self::Architecture(wanted) => (
                wanted,
                description.map(|d| d.platform.architecture.as_str()),
            ),
            Self::NodeLabel { key, value } => (
                value,
                node.spec.annotations.labels.get(key).map(AsRef::as_ref),
            ),
            Self::EngineLabel { key, value } => (
                value,
                description.and_then(|d| d.engine.labels.get(key).map(AsRef::as_ref)),
            ),
        };
        actual.unwrap_or_default().eq_ignore_ascii_case(wanted)
    }
}

const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || byte.is_ascii_whitespace()
                || b":-_.*()?+[]\\^$|/".contains(&byte)
        })
}

#[cfg(test)]
mod tests {
    use agent_api::swarm::{NodeDescription, NodeRole};
    use cluster_api::Node;

    use super::{Constraint, ConstraintError, all_met};

    fn node() -> Node {
        let mut node = Node {
            id: "n1".to_owned(),
            role: NodeRole::Manager,
            description: Some(NodeDescription {
                hostname: "Alpha".to_owned(),
                ..NodeDescription::default()
            }),
            ..Node::default()
        };
        node.status.addr = "10.0.3.7".to_owned();
        node.spec
            .annotations
            .labels
            .insert("Zone".to_owned(), "east".to_owned());
        let description = node.description.as_mut().unwrap();
        description.platform.os = "linux".to_owned();
        description.platform.architecture = "x86_64".to_owned();
        description
            .engine
            .labels
            .insert("disk".to_owned(), "ssd".to_owned());
        node
    }

    #[test]
    fn each_key_matches_as_in_swarmkit() {
        for (expression, met) in [
            ("node.id == n1", true),
            ("node.id==N1", true),
            ("node.id != n1", false),
            ("node.hostname == alpha", true),
            ("NODE.HOSTNAME != beta", true),
            ("node.role == manager", true),
            ("node.role == WORKER", false),
            ("node.ip == 10.0.3.7", true),
            ("node.ip == 10.0.3.8", false),
            ("node.ip == 10.0.3.0/24", true),
            ("node.ip != 10.0.3.0/24", false),
            ("node.ip != 2001:db8::/32", true),
            ("node.platform.os == linux", true),
            ("node.platform.arch == x86_64", true),
            ("node.platform.arch == aarch64", false),
            ("node.labels.Zone == EAST", true),
            ("node.labels.zone == east", false),
            ("node.labels.zone != east", true),
            ("node.labels.absent != x", true),
            ("engine.labels.disk == ssd", true),
            ("engine.labels.disk != ssd", false),
        ] {
            let constraint = Constraint::parse(expression).expect(expression);
            assert_eq!(constraint.is_met_by(&node()), met, "{expression}");
        }
    }

    #[test]
    fn a_node_that_has_said_nothing_matches_only_by_difference() {
        let silent = Node::default();
        for expression in ["node.hostname", "node.platform.os", "engine.labels.disk"] {
            assert!(!all_met(&[format!("{expression} == x")], &silent));
            assert!(all_met(&[format!("{expression} != x")], &silent));
        }
        assert!(!all_met(&["node.ip == 10.0.0.0/8".to_owned()], &silent));
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for expression in [
            "node.foo == x",
            "labels.zone == x",
            "node.labels. == x",
            "a!=b==c",
        ] {
            assert!(
                matches!(
                    Constraint::parse(expression),
                    Err(ConstraintError::Key { .. })
                ),
                "{expression}"
            );
        }
        for expression in ["node.role", "node.role = manager", ""] {
            assert!(
                matches!(
                    Constraint::parse(expression),
                    Err(ConstraintError::Operator(_))
                ),
                "{expression}"
            );
        }
        for expression in ["node.role ==", "node.id == a,b", "node.id == {x}"] {
            assert!(
                matches!(
                    Constraint::parse(expression),
                    Err(ConstraintError::Value { .. })
                ),
                "{expression}"
            );
        }
        assert!(matches!(
            Constraint::parse("node.ip == 10.0.0"),
            Err(ConstraintError::Address { .. })
        ));
    }
}
