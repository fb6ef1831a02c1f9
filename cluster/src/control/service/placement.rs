//! The form of placement constraints and preferences. Which nodes satisfy them is the scheduler's.

use agent_api::swarm::Placement;

use super::super::Refusal;
use crate::constraint::Constraint;

const SPREAD_OVER: [&str; 2] = ["node.labels.", "engine.labels."];

pub(super) fn check(placement: &Placement) -> Result<(), Refusal> {
    for constraint in &placement.constraints {
        Constraint::parse(constraint).map_err(|error| Refusal::invalid(error.to_string()))?;
    }
    for preference in &placement.preferences {
        let Some(spread) = &preference.spread else {
            return Err(Refusal::invalid(
                "a placement preference without a strategy: only spread is supported",
            ));
        };
        let descriptor = spread.spread_descriptor.to_ascii_lowercase();
        if !SPREAD_OVER
            .iter()
            .any(|prefix| descriptor.len() > prefix.len() && descriptor.starts_with(prefix))
        {
            return Err(Refusal::invalid(format!(
                "placement preference spread={}: tasks can be spread over node.labels.<key> and engine.labels.<key>",
                spread.spread_descriptor
            )));
        }
    }
    Ok(())
}
