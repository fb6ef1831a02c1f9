//! Docker's seccomp profile format (a superset of the OCI specification's `linux.seccomp`).
//!
//! Types and validation only. Source: moby `profiles/seccomp/seccomp.go`, OCI runtime-spec `config-linux.md`.

use serde::{Deserialize, Serialize};

/// A seccomp profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// What happens to a call no rule matches.
    pub default_action: Action,
    /// The error number for it, with [`Action::Errno`] or [`Action::Trace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures by name (`SCMP_ARCH_X86_64`); the native one is always there. Exclusive with `arch_map`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Architectures with the others they can run; Docker's form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch_map: Vec<Architecture>,
    /// `SECCOMP_FILTER_FLAG_…` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Socket of a notification agent; not supported, refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// The rules.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub syscalls: Vec<Rule>,
}

/// One entry of a profile's `archMap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Architecture {
    /// `SCMP_ARCH_…`
    pub architecture: String,
    /// Architectures the same kernel runs.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub sub_architectures: Vec<String>,
}

/// One rule: these calls, if the arguments match, get this action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// System calls by name; unknown names are skipped as libseccomp skips them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// One call, the older form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happens.
    pub action: Action,
    /// The error number, with [`Action::Errno`] or [`Action::Trace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on the arguments, all of which must hold.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub args: Vec<Arg>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The rule counts only if all of these hold.
    #[serde(default)]
    pub includes: Conditions,
    /// The rule does not count if one of these holds.
    #[serde(default)]
    pub excludes: Conditions,
}

/// When a rule counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    /// Docker's architecture names (`amd64`, `arm64`).
    pub arches: Vec<String>,
    /// Capabilities in the bounding set.
    pub caps: Vec<String>,
    /// Kernel release at least `major.minor`.
    pub min_kernel: Option<String>,
}

/// A condition on an argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// The number compared with; the mask for [`Operator::MaskedEqual`].
    pub value: u64,
    /// The number compared with for [`Operator::MaskedEqual`].
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// Comparison of a 64-bit unsigned argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are seccomp(2)'s
pub enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile file's text as Docker does.
    pub fn parse(json: &str) -> Result<Profile, serde_json::Error> {
        serde_json::from_str(json)
    }
}
