//! The package against the real kernel, as root, in network and mount namespaces made by each test.

mod lifecycle;
mod names;
mod paths;
mod world;
