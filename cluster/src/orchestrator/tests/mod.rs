//! Golden scripts (`tests/scripts/orchestrator`) and properties, on a cluster of one process: a store, the loops of
//! this module, and simple stand-ins for scheduler and agents.

mod cluster;
mod properties;
mod script;
