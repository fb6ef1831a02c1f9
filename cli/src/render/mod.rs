//! How results look: templates, tables, units, colours, progress. Nothing here talks to a daemon.

pub(crate) mod build_progress;
pub(crate) mod convergence;
pub(crate) mod json;
pub(crate) mod prefix;
pub(crate) mod progress;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod transfer;
pub(crate) mod transfers;
pub(crate) mod units;
