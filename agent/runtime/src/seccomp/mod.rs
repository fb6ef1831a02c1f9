//! System call filters: Docker's profile format, its default profile, and a compiler to classic BPF.

mod compile;
mod default;
mod profile;
mod resolve;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::capabilities::CapabilitySet;

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

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// No tables for this processor.
    #[error("seccomp profiles are not supported on {0}: use seccomp=unconfined")]
    Architecture(&'static str),
    /// Both forms of naming architectures.
    #[error("a seccomp profile may have 'architectures' or 'archMap', not both")]
    BothArchitectures,
    /// `SCMP_ACT_NOTIFY` needs an agent that listens.
    #[error("SCMP_ACT_NOTIFY in a seccomp profile is not supported")]
    Notify,
    /// A comparison of an argument that calls do not have.
    #[error("a seccomp profile compares argument {0}: calls have arguments 0 to 5")]
    Argument(u32),
    /// `minKernel` is no version.
    #[error("minKernel {0:?} in a seccomp profile is not MAJOR.MINOR")]
    Kernel(String),
    /// A flag this runtime does not know.
    #[error("flag {0:?} of a seccomp profile is not supported")]
    Flag(String),
    /// The kernel's limit.
    #[error("the seccomp profile needs {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// A program for the kernel and the flags to load it with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    /// Empty when nothing is to be loaded.
    pub(crate) instructions: Vec<libc::sock_filter>,
    /// For `seccomp(2)`.
    pub(crate) flags: usize,
}

/// How many compiled filters are kept; a node has a handful of profiles.
const CACHED: usize = 16;

/// What a filter was compiled from.
type Key = (SeccompPolicy, CapabilitySet);

/// Gives the filter of a policy, compiled once per policy and bounding set: compiling takes longer than the rest of a
/// launch.
pub(crate) fn program(
    policy: &SeccompPolicy,
    bounding: CapabilitySet,
) -> Result<Arc<Program>, SeccompError> {
    static CACHE: Mutex<Vec<(Key, Arc<Program>)>> = Mutex::new(Vec::new());
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = cache
        .iter()
        .position(|((p, b), _)| p == policy && *b == bounding)
    {
        // The most recently used one is the last.
        let entry = cache.remove(at);
        let program = Arc::clone(&entry.1);
        cache.push(entry);
        return Ok(program);
    }
    let program = Arc::new(compiled(policy, bounding)?);
    if cache.len() == CACHED {
        cache.remove(0);
    }
    cache.push(((policy.clone(), bounding), Arc::clone(&program)));
    Ok(program)
}

/// Compiles a policy for this machine and a process with that bounding set.
///
/// # Errors
/// When the profile asks for what cannot be done.
fn compiled(policy: &SeccompPolicy, bounding: CapabilitySet) -> Result<Program, SeccompError> {
    let default;
    let profile = match policy {
        SeccompPolicy::Unconfined => return Ok(Program::default()),
        SeccompPolicy::Default => {
            default = default::default_profile();
            &default
        }
        SeccompPolicy::Profile(profile) => profile.as_ref(),
    };
    let native =
        resolve::Abi::native().ok_or(SeccompError::Architecture(std::env::consts::ARCH))?;
    let target = resolve::Target {
        native,
        kernel: kernel_version(),
        bounding: &bounding,
    };
    let tables = resolve::resolve(profile, &target)?;
    Ok(Program {
        instructions: compile::program(&tables)?,
        flags: load_flags(&profile.flags)?,
    })
}

/// `SECCOMP_FILTER_FLAG_…` bits. Without any, speculation is left as it is, as runc does.
fn load_flags(names: &[String]) -> Result<usize, SeccompError> {
    let mut flags = 0;
    for name in names {
        flags |= match name.as_str() {
            // The process has one thread when the filter is loaded.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG as usize,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as usize,
            other => return Err(SeccompError::Flag(other.to_owned())),
        };
    }
    Ok(if names.is_empty() {
        libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as usize
    } else {
        flags
    })
}

fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
