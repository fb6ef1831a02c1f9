//! Names and labels (SwarmKit `controlapi/common.go`).

use agent_api::swarm::Annotations;

use super::Refusal;

/// Longest name of a service or network: a DNS label.
const MAX_NAME: usize = 63;
/// Longest name of a secret or config.
const MAX_PAYLOAD_NAME: usize = 64;

/// Of services and networks: `[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*`.
pub(super) fn check(annotations: &Annotations) -> Result<(), Refusal> {
    let name = &annotations.name;
    if name.is_empty() {
        return Err(Refusal::invalid("meta: name must be provided"));
    }
    if !is_made_of(name, |byte| matches!(byte, b'-' | b'_')) {
        return Err(Refusal::invalid(
            "name must be valid as a DNS name component",
        ));
    }
    if name.len() > MAX_NAME {
        return Err(Refusal::invalid("name must be 63 characters or fewer"));
    }
    Ok(())
}

/// Of secrets and configs: dots, too.
pub(super) fn check_payload(annotations: &Annotations) -> Result<(), Refusal> {
    let name = &annotations.name;
    if name.is_empty() {
        return Err(Refusal::invalid("name must be provided"));
    }
    if name.len() > MAX_PAYLOAD_NAME || !is_made_of(name, |byte| matches!(byte, b'-' | b'_' | b'.'))
    {
        return Err(Refusal::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ));
    }
    Ok(())
}

/// Letters and digits at both ends; `inner` characters too between them.
fn is_made_of(name: &str, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || inner(*byte))
}
