//! Objects of a cluster.
