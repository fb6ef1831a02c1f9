//! Tests of whole managers.

mod managers;
mod sim;
