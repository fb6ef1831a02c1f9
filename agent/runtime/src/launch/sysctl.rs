//! Which kernel settings a container may have, and where they are.
//!
//! Only those the kernel keeps per namespace, and only in a namespace the container does not share with the host. Source:
//! runc `libcontainer/configs/validate/validator.go:sysctl`.

use crate::spec::{Namespace, Namespaces};

/// System V IPC settings kept per IPC namespace.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The path of a setting below `/proc`, or why it is refused.
pub(super) fn path(name: &str, namespaces: &Namespaces) -> Result<String, String> {
    // sysctl(8) takes dots or slashes as separators, whichever comes first; the other one is then part of a name.
    let slashed = name
        .find(['/', '.'])
        .is_some_and(|first| name[first..].starts_with('/'));
    let components: Vec<String> = match slashed {
        true => name.split('/').map(str::to_owned).collect(),
        false => name.split('.').map(|part| part.replace('/', ".")).collect(),
    };
    let dotted = components.join(".");
    if components
        .iter()
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(format!(
            "sysctl {name:?} is not a name like net.ipv4.ip_forward"
        ));
    }
    let needed = if components.first().is_some_and(|first| first == "net") {
        ("network", &namespaces.net)
    } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        ("IPC", &namespaces.ipc)
    } else if dotted == "kernel.domainname" {
        ("UTS", &namespaces.uts)
    } else {
        return Err(format!(
            "sysctl {name:?} is not in a separate kernel namespace"
        ));
    };
    match needed {
        (kind, Namespace::Host) => Err(format!(
            "sysctl {name:?} is not allowed in the host's {kind} namespace"
        )),
        _ => Ok(format!("sys/{}", components.join("/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaced_settings_are_accepted() {
        let own = Namespaces::default();
        assert_eq!(
            path("net.ipv4.ip_forward", &own).unwrap(),
            "sys/net/ipv4/ip_forward"
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding", &own).unwrap(),
            "sys/net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.forwarding", &own).unwrap(),
            "sys/net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(path("kernel.shmmax", &own).unwrap(), "sys/kernel/shmmax");
        assert_eq!(
            path("fs.mqueue.msg_max", &own).unwrap(),
            "sys/fs/mqueue/msg_max"
        );
        for refused in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "net....x",
            "net/../kernel/core_pattern",
            "",
        ] {
            assert!(path(refused, &own).is_err(), "{refused:?} must be refused");
        }
    }

    #[test]
    fn settings_of_a_shared_namespace_are_refused() {
        let shared = Namespaces {
            net: Namespace::Host,
            ipc: Namespace::Host,
            ..Namespaces::default()
        };
        assert!(
            path("net.ipv4.ip_forward", &shared)
                .unwrap_err()
                .contains("network namespace")
        );
        assert!(path("kernel.sem", &shared).is_err());
    }
}
