//! Digests of what steps read.
