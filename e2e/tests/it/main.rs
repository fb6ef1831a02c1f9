//! End-to-end scenarios: real daemons, real containers, one private host each.

mod harness;
