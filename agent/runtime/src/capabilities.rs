//! Linux capabilities by name and as bit sets, and Docker's rules for adding and dropping them.
//!
//! Pure apart from [`CapabilitySet::available`]. The rules are moby `daemon/pkg/oci/caps/utils.go:TweakCapabilities`,
//! the default set is moby `daemon/pkg/oci/caps/defaults.go`, the numbers are `include/uapi/linux/capability.h`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names in the order of their numbers, without the `CAP_` prefix.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What an unprivileged Docker container gets.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A capability name nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}: use a name of capabilities(7), e.g. NET_ADMIN, or ALL")]
pub struct UnknownCapability(pub String);

/// A set of capabilities: bit n is capability number n. Serialised as a list of `CAP_…` names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: CapabilitySet = CapabilitySet(0);
    /// Every capability this program knows.
    pub const ALL: CapabilitySet = CapabilitySet((1 << NAMES.len()) - 1);

    /// The set with these bits; bits nobody knows are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        CapabilitySet(bits & Self::ALL.0)
    }

    /// One bit per capability number.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Docker's 14 defaults.
    pub fn docker_default() -> Self {
        DEFAULT
            .iter()
            .fold(Self::EMPTY, |set, name| match number(name) {
                Some(n) => CapabilitySet(set.0 | 1 << n),
                None => set,
            })
    }

    /// What this process could hand on: its own effective capabilities.
    pub fn available() -> Self {
        match rustix::thread::capabilities(None) {
            Ok(sets) => CapabilitySet::from_bits(sets.effective.bits()),
            Err(_) => CapabilitySet::EMPTY,
        }
    }

    /// Reads names, with or without `CAP_`, in any case. `ALL` is not a name here.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, UnknownCapability> {
        let mut set = Self::EMPTY;
        for name in names {
            let n =
                number(name.as_ref()).ok_or_else(|| UnknownCapability(name.as_ref().to_owned()))?;
            set.0 |= 1 << n;
        }
        Ok(set)
    }

    /// Whether the capability of this name (with or without `CAP_`) is in the set.
    pub fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|n| self.0 & 1 << n != 0)
    }

    /// What is in both.
    pub const fn intersection(self, other: Self) -> Self {
        CapabilitySet(self.0 & other.0)
    }

    /// What is here and not in `other`.
    pub const fn difference(self, other: Self) -> Self {
        CapabilitySet(self.0 & !other.0)
    }

    /// What is in either.
    pub const fn union(self, other: Self) -> Self {
        CapabilitySet(self.0 | other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `CAP_…` names in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(n, _)| self.0 & 1 << n != 0)
            .map(|(_, name)| format!("CAP_{name}"))
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("all");
        }
        let names: Vec<String> = self.names().collect();
        f.write_str(&names.join(","))
    }
}

impl Serialize for CapabilitySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for CapabilitySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        CapabilitySet::from_names(&names).map_err(serde::de::Error::custom)
    }
}

/// The five sets of a process, as they are before it executes its program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Upper bound of everything the process and its children can gain by executing files.
    pub bounding: CapabilitySet,
    /// In force.
    pub effective: CapabilitySet,
    /// May be put into force.
    pub permitted: CapabilitySet,
    /// Kept over execve for files that ask for them. Docker leaves it empty (CVE-2022-24769).
    pub inheritable: CapabilitySet,
    /// Kept over execve for a user who is not root.
    pub ambient: CapabilitySet,
}

impl Capabilities {
    /// The sets Docker gives a process that may use `set`: bounding, effective and permitted. A process of a user
    /// other than root keeps the bounding set alone, because the kernel clears the rest when it executes.
    pub const fn bounded_by(set: CapabilitySet) -> Self {
        Capabilities {
            bounding: set,
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::EMPTY,
            ambient: CapabilitySet::EMPTY,
        }
    }

    /// Applies `--cap-add`, `--cap-drop` and `--privileged` to Docker's defaults. `available` is what the engine itself
    /// has ([`CapabilitySet::available`]); it is what `ALL` and privileged mean.
    pub fn resolve<S: AsRef<str>>(
        add: &[S],
        drop: &[S],
        privileged: bool,
        available: CapabilitySet,
    ) -> Result<Self, UnknownCapability> {
        let (add_all, add) = split_all(add)?;
        let (drop_all, drop) = split_all(drop)?;
        let set = if privileged {
            available
        } else if add_all {
            available.difference(drop)
        } else if drop_all {
            add
        } else {
            CapabilitySet::docker_default().difference(drop).union(add)
        };
        Ok(Self::bounded_by(set))
    }
}

/// Separates the word ALL from names.
fn split_all<S: AsRef<str>>(names: &[S]) -> Result<(bool, CapabilitySet), UnknownCapability> {
    let mut all = false;
    let mut rest = Vec::new();
    for name in names {
        match name.as_ref() {
            word if word.eq_ignore_ascii_case("all") || word.eq_ignore_ascii_case("cap_all") => {
                all = true
            }
            word => rest.push(word),
        }
    }
    Ok((all, CapabilitySet::from_names(&rest)?))
}

/// The number of a capability, its name with or without prefix, in any case.
fn number(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(add: &[&str], drop: &[&str]) -> CapabilitySet {
        Capabilities::resolve(add, drop, false, CapabilitySet::ALL)
            .unwrap()
            .bounding
    }

    #[test]
    fn defaults_are_dockers_fourteen() {
        // 0xa80425fb is what /proc/self/status shows in a Docker container.
        assert_eq!(CapabilitySet::docker_default().bits(), 0xa80425fb);
    }

    #[test]
    fn names_are_accepted_with_and_without_prefix_in_any_case() {
        assert_eq!(
            resolve(&["net_admin"], &[]),
            resolve(&["CAP_NET_ADMIN"], &[])
        );
        assert!(resolve(&["net_admin"], &[]).contains("NET_ADMIN"));
        assert_eq!(
            CapabilitySet::from_names(&["NET_ADMN"]),
            Err(UnknownCapability("NET_ADMN".into()))
        );
    }

    #[test]
    fn all_is_understood_on_both_sides() {
        assert_eq!(
            resolve(&["ALL"], &["SYS_ADMIN"]),
            CapabilitySet::ALL.difference(CapabilitySet::from_bits(1 << 21))
        );
        assert_eq!(
            resolve(&["KILL"], &["ALL"]),
            CapabilitySet::from_names(&["KILL"]).unwrap()
        );
        assert_eq!(resolve(&[], &["all"]), CapabilitySet::EMPTY);
    }

    #[test]
    fn privileged_is_what_the_engine_has() {
        let own =
            CapabilitySet::ALL.difference(CapabilitySet::from_names(&["SYS_RESOURCE"]).unwrap());
        assert_eq!(
            Capabilities::resolve::<&str>(&[], &[], true, own)
                .unwrap()
                .permitted,
            own
        );
    }

    #[test]
    fn sets_survive_serialisation() {
        let set = CapabilitySet::docker_default();
        let text = serde_json::to_string(&set).unwrap();
        assert!(text.contains("CAP_CHOWN"));
        assert_eq!(serde_json::from_str::<CapabilitySet>(&text).unwrap(), set);
    }
}
