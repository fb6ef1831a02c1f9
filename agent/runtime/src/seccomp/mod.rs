//! System call filters: Docker's profile format, its default profile, and a compiler to classic BPF.

mod profile;

use serde::{Deserialize, Serialize};

pub use profile::{Action, Arg, Conditions, Operator, Profile, Rule};

/// Which system calls a process may make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompPolicy {
    /// Docker's default profile, fitted to the process' capabilities, the machine and the kernel.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile of the user's; parse Docker's JSON with [`Profile::parse`].
    Profile(Box<Profile>),
}
