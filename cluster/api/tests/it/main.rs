//! Integration tests of the package.

mod generated;
