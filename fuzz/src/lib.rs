//! Everything that reads what others wrote, as functions of bytes: no input may panic, hang, or break the properties
//! asserted here.
//!
//! One file and one function for each target; `targets/` hands them to libFuzzer (`make fuzz`), `tests/mutations.rs` to
//! a plain loop that needs neither nightly nor instrumentation. `seeds/<target>/` has inputs to start from; one that
//! found a fault stays there. A new target: a function here, a file in `targets/`, a `[[bin]]`, a line in [`TARGETS`].

mod archive;
mod dockerfile;
mod extract;
mod ignore;
mod layer;
mod plan;
mod reference;
mod scratch;
mod words;

pub use archive::archive;
pub use dockerfile::dockerfile;
pub use extract::extract;
pub use ignore::ignore;
pub use layer::layer;
pub use plan::plan;
pub use reference::reference;
pub use words::words;

/// A target's function.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("dockerfile", dockerfile),
    ("plan", plan),
    ("words", words),
    ("ignore", ignore),
    ("reference", reference),
    ("archive", archive),
    ("layer", layer),
    ("extract", extract),
];
