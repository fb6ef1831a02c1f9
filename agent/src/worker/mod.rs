//! The node's part in a swarm: runs the tasks the managers assign, with the engine.

mod container;
mod files;
mod images;
mod networks;
mod records;
mod task;
mod template;
