//! Comparisons with other implementations.

mod oracle;
