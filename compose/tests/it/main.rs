//! Tests of the planner as a whole: plans as golden text, plans carried out by a model of the engine, requests compared
//! with a recording of docker compose.

mod engine;
mod plans;
mod properties;
mod recorded;
