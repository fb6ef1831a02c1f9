//! Tests of the planner as a whole: plans as golden text, plans carried out by a model of the engine, requests compared
//! with a recording of docker compose.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod builds;
mod engine;
mod plans;
mod properties;
mod recorded;
mod stack_recorded;
mod stacks;
mod verbs;
mod wire;
