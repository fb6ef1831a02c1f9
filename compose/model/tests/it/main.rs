//! Integration tests of the loader: golden cases under `tests/cases`, and properties over generated and damaged
//! files. Nothing here needs an engine.

mod cases;
mod damaged;
mod merging;
mod places;
