//! From a profile to plain facts for one machine: per ABI, which number gets which verdict under which conditions.
//!
//! Conditions on capabilities, architecture and kernel are decided as moby's `profiles/seccomp/seccomp_linux.go`
//! does; several comparisons of one argument in one rule are alternatives, as runc treats them; a rule without
//! comparisons beats those with. Calls that are newer than everything the profile names answer ENOSYS instead of the
//! default error, so that libraries fall back to older ones (runc `libcontainer/seccomp/patchbpf`).

use std::collections::BTreeMap;

use super::SeccompError;
use super::profile::{Action, Architecture, Arg, Conditions, Profile, Rule};
use crate::capabilities::CapabilitySet;

/// The machine and process a filter is made for.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    /// The kernel's own ABI.
    pub(super) native: Abi,
    /// Kernel version, major and minor.
    pub(super) kernel: (u32, u32),
    /// The process's bounding set.
    pub(super) bounding: &'a CapabilitySet,
}

/// A system call interface of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Abi {
    X86_64,
    /// 64-bit calls with 32-bit pointers; shares the architecture number of [`Abi::X86_64`].
    X32,
    X86,
    Aarch64,
    Arm,
}

/// Bit in the number of an x32 call.
const X32_BIT: u32 = 0x4000_0000;

/// Calls with an x32 number of their own, from 512 on (kernel `arch/x86/entry/syscalls/syscall_64.tbl`).
const X32_OWN: &[&str] = &[
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

impl Abi {
    /// The ABI this executable was built for.
    pub(super) fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Abi::X86_64),
            "aarch64" => Some(Abi::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_…`, what the filter sees.
    pub(super) fn audit(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xC000_003E,
            Abi::X86 => 0x4000_0003,
            Abi::Aarch64 => 0xC000_00B7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// The number of a call, if this ABI has it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        use std::str::FromStr as _;
        match self {
            Abi::X86_64 => syscalls::x86_64::Sysno::from_str(name)
                .ok()
                .map(|number| number as u32),
            Abi::X32 => {
                let own = X32_OWN
                    .iter()
                    .position(|own| *own == name)
                    .and_then(|at| u32::try_from(at).ok());
                own.map(|at| 512 + at)
                    .or_else(|| Abi::X86_64.number(name))
                    .map(|number| number | X32_BIT)
            }
            Abi::X86 => syscalls::x86::Sysno::from_str(name)
                .ok()
                .map(|number| number as u32),
            Abi::Aarch64 => syscalls::aarch64::Sysno::from_str(name)
                .ok()
                .map(|number| number as u32),
            Abi::Arm => syscalls::arm::Sysno::from_str(name)
                .ok()
                .map(|number| number as u32),
        }
    }

    fn from_libseccomp(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Abi::X86_64,
            "SCMP_ARCH_X32" => Abi::X32,
            "SCMP_ARCH_X86" => Abi::X86,
            "SCMP_ARCH_AARCH64" => Abi::Aarch64,
            "SCMP_ARCH_ARM" => Abi::Arm,
            _ => return None,
        })
    }

    fn libseccomp(self) -> &'static str {
        match self {
            Abi::X86_64 => "SCMP_ARCH_X86_64",
            Abi::X32 => "SCMP_ARCH_X32",
            Abi::X86 => "SCMP_ARCH_X86",
            Abi::Aarch64 => "SCMP_ARCH_AARCH64",
            Abi::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// Docker's name, as profiles use it in conditions.
    fn docker(self) -> &'static str {
        match self {
            Abi::X86_64 => "amd64",
            Abi::X32 => "x32",
            Abi::X86 => "x86",
            Abi::Aarch64 => "arm64",
            Abi::Arm => "arm",
        }
    }
}

/// Docker's table of architectures and the others they run.
pub(super) fn docker_arch_map() -> Vec<Architecture> {
    let entry = |abi: Abi, others: &[Abi]| Architecture {
        architecture: abi.libseccomp().to_owned(),
        sub_architectures: others
            .iter()
            .map(|other| other.libseccomp().to_owned())
            .collect(),
    };
    vec![
        entry(Abi::X86_64, &[Abi::X86, Abi::X32]),
        entry(Abi::Aarch64, &[Abi::Arm]),
    ]
}

/// What the kernel is to do with a call: the return value of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict(pub(super) u32);

impl Verdict {
    pub(super) const KILL_PROCESS: Verdict = Verdict(libc::SECCOMP_RET_KILL_PROCESS);
    const NO_SUCH_CALL: Verdict = Verdict(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    fn of(action: Action, errno: Option<u32>) -> Result<Self, SeccompError> {
        let number = errno.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
        Ok(Verdict(match action {
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Errno => libc::SECCOMP_RET_ERRNO | number,
            Action::Trace => libc::SECCOMP_RET_TRACE | number,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Notify => return Err(SeccompError::Notify),
        }))
    }
}

/// What happens to one call number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Tried in order; all comparisons of one must hold.
    pub(super) cases: Vec<(Vec<Arg>, Verdict)>,
    /// When none does.
    pub(super) otherwise: Verdict,
}

/// The rules of all ABIs with one architecture number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) audit: u32,
    /// Numbers that differ from `default`.
    pub(super) decisions: BTreeMap<u32, Decision>,
    pub(super) default: Verdict,
    /// From this number on (up to the given end), calls are newer than the profile.
    pub(super) unknown: Vec<(u32, u32, Verdict)>,
}

/// Fits a profile to a machine.
pub(super) fn resolve(profile: &Profile, target: &Target<'_>) -> Result<Vec<Table>, SeccompError> {
    if profile
        .listener_path
        .as_ref()
        .is_some_and(|path| !path.is_empty())
    {
        return Err(SeccompError::Notify);
    }
    let default = Verdict::of(profile.default_action, profile.default_errno_ret)?;
    let mut tables: BTreeMap<u32, Table> = BTreeMap::new();
    for abi in abis(profile, target.native)? {
        let decisions = decisions(profile, abi, default, target)?;
        let table = tables.entry(abi.audit()).or_insert_with(|| Table {
            audit: abi.audit(),
            decisions: BTreeMap::new(),
            default,
            unknown: Vec::new(),
        });
        if profile.default_action == Action::Errno
            && let Some(newest) = newest(profile, abi)
        {
            let end = if abi == Abi::X86_64 {
                X32_BIT - 1
            } else {
                u32::MAX
            };
            table.unknown.push((newest + 1, end, Verdict::NO_SUCH_CALL));
        }
        table.decisions.extend(decisions);
    }
    Ok(tables.into_values().collect())
}

fn abis(profile: &Profile, native: Abi) -> Result<Vec<Abi>, SeccompError> {
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(SeccompError::BothArchitectures);
    }
    let mut abis = vec![native];
    let mapped = profile
        .arch_map
        .iter()
        .find(|entry| entry.architecture == native.libseccomp());
    let names = mapped.map_or(&profile.architectures, |entry| &entry.sub_architectures);
    // Names of machines this kernel cannot be are no error: profiles list them all.
    abis.extend(
        names
            .iter()
            .filter_map(|name| Abi::from_libseccomp(name))
            .filter(|abi| runs_on(*abi, native)),
    );
    abis.sort();
    abis.dedup();
    Ok(abis)
}

fn runs_on(abi: Abi, native: Abi) -> bool {
    match native {
        Abi::X86_64 => matches!(abi, Abi::X86_64 | Abi::X32 | Abi::X86),
        Abi::Aarch64 => matches!(abi, Abi::Aarch64 | Abi::Arm),
        other => abi == other,
    }
}

fn names(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.names.iter().chain(&rule.name).map(String::as_str)
}

/// The highest number that any rule names, whether or not the rule counts here.
fn newest(profile: &Profile, abi: Abi) -> Option<u32> {
    profile
        .syscalls
        .iter()
        .flat_map(names)
        .filter_map(|name| abi.number(name))
        .max()
}

fn decisions(
    profile: &Profile,
    abi: Abi,
    default: Verdict,
    target: &Target<'_>,
) -> Result<BTreeMap<u32, Decision>, SeccompError> {
    let mut decisions: BTreeMap<u32, Decision> = BTreeMap::new();
    let mut settled: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in &profile.syscalls {
        let verdict = Verdict::of(rule.action, rule.errno_ret)?;
        if !counts(rule, target)? || verdict == default {
            continue;
        }
        let cases = alternatives(&rule.args)?;
        for number in names(rule).filter_map(|name| abi.number(name)) {
            if cases.is_empty() {
                settled.entry(number).or_insert(verdict);
            } else {
                let decision = decisions.entry(number).or_insert_with(|| Decision {
                    cases: Vec::new(),
                    otherwise: default,
                });
                decision
                    .cases
                    .extend(cases.iter().map(|args| (args.clone(), verdict)));
            }
        }
    }
    for (number, verdict) in settled {
        decisions.insert(
            number,
            Decision {
                cases: Vec::new(),
                otherwise: verdict,
            },
        );
    }
    Ok(decisions)
}

/// One list of comparisons per alternative; none for a rule without comparisons.
fn alternatives(args: &[Arg]) -> Result<Vec<Vec<Arg>>, SeccompError> {
    if let Some(arg) = args.iter().find(|arg| arg.index > 5) {
        return Err(SeccompError::Argument(arg.index));
    }
    let repeated = args
        .iter()
        .enumerate()
        .any(|(at, arg)| args[..at].iter().any(|before| before.index == arg.index));
    Ok(match args {
        [] => Vec::new(),
        _ if repeated => args.iter().map(|arg| vec![arg.clone()]).collect(),
        _ => vec![args.to_vec()],
    })
}

fn counts(rule: &Rule, target: &Target<'_>) -> Result<bool, SeccompError> {
    let has = |name: &String| target.bounding.contains(name);
    let here = |arches: &[String]| arches.iter().any(|arch| arch == target.native.docker());
    let Conditions {
        arches,
        caps,
        min_kernel,
    } = &rule.includes;
    let included = (arches.is_empty() || here(arches))
        && caps.iter().all(has)
        && at_least(min_kernel.as_deref(), target.kernel)?.unwrap_or(true);
    let excluded = here(&rule.excludes.arches)
        || rule.excludes.caps.iter().any(has)
        || at_least(rule.excludes.min_kernel.as_deref(), target.kernel)?.unwrap_or(false);
    Ok(included && !excluded)
}

fn at_least(wanted: Option<&str>, kernel: (u32, u32)) -> Result<Option<bool>, SeccompError> {
    let Some(wanted) = wanted.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = wanted
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let version: (u32, u32) = parsed.ok_or_else(|| SeccompError::Kernel(wanted.to_owned()))?;
    Ok(Some(kernel >= version))
}
