//! A bundle's `config.json` as a [`LaunchSpec`]. What is not supported is refused by name, never ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::hooks::Hooks;
use super::log::Log;
use super::{OciError, failed, mounts, resources};
use crate::capabilities::{Capabilities, CapabilitySet};
use crate::cgroup::{CgroupPath, DeviceKind};
use crate::seccomp::Profile;
use crate::spec::{
    CgroupSpec, Device, LaunchSpec, Namespace, Namespaces, Process, Rlimit, Rootfs, SeccompPolicy,
    TerminalSize, default_device_rules,
};

/// Largest `config.json` that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A translated bundle.
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: LaunchSpec,
    pub(crate) hooks: Hooks,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Reads and translates.
pub(crate) fn load(directory: &Path, id: &str, log: &Log) -> Result<Bundle, OciError> {
    let directory = directory
        .canonicalize()
        .map_err(failed(format!("open bundle {}", directory.display())))?;
    let path = directory.join("config.json");
    let mut value: serde_json::Value = read_json(&path)?;
    let seccomp = take(&mut value, "/linux", "seccomp");
    let hooks = take(&mut value, "", "hooks")
        .map(parse::<Hooks>("hooks", &path))
        .transpose()?
        .unwrap_or_default();
    let spec: oci::Spec = parse("config", &path)(value)?;
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| OciError::Invalid("config.json has no root".into()))?;
    let rootfs = directory.join(root.path());
    let rootfs = rootfs
        .canonicalize()
        .map_err(failed(format!("open root {}", rootfs.display())))?;
    let from = spec
        .process()
        .as_ref()
        .ok_or_else(|| OciError::Invalid("config.json has no process".into()))?;
    let mut process = translate_process(from, log)?;
    process.seccomp = match seccomp {
        Some(value) => {
            SeccompPolicy::Profile(Box::new(parse::<Profile>("linux.seccomp", &path)(value)?))
        }
        None => SeccompPolicy::Unconfined,
    };
    let linux = spec.linux().clone().unwrap_or_default();
    refuse_unsupported(&linux)?;
    let mut limits = match linux.resources() {
        Some(from) => resources::translate(from)?,
        None => Default::default(),
    };
    // Every container may use the harmless devices, whatever the list says (as in runc).
    limits
        .devices
        .extend(default_device_rules().into_iter().filter(|rule| rule.allow));
    let spec = LaunchSpec {
        rootfs: Rootfs::Directory(rootfs.clone()),
        readonly_rootfs: root.readonly().unwrap_or(false),
        rootfs_propagation: linux
            .rootfs_propagation()
            .as_deref()
            .filter(|w| !w.is_empty())
            .map(mounts::propagation)
            .transpose()?,
        namespaces: namespaces(&linux)?,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        mounts: spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mounts::translate(mount, &directory))
            .collect::<Result<_, _>>()?,
        masked_paths: linux
            .masked_paths()
            .iter()
            .flatten()
            .map(PathBuf::from)
            .collect(),
        readonly_paths: linux
            .readonly_paths()
            .iter()
            .flatten()
            .map(PathBuf::from)
            .collect(),
        devices: linux
            .devices()
            .iter()
            .flatten()
            .map(device)
            .collect::<Result<_, _>>()?,
        sysctls: linux
            .sysctl()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        process,
        cgroup: Some(CgroupSpec {
            path: cgroup_path(&linux, id)?,
            resources: limits,
        }),
        init: false,
    };
    let annotations = annotations(&path)?;
    Ok(Bundle {
        directory,
        rootfs,
        spec,
        hooks,
        annotations,
    })
}

fn annotations(path: &Path) -> Result<BTreeMap<String, String>, OciError> {
    let mut value: serde_json::Value = read_json(path)?;
    Ok(take(&mut value, "", "annotations")
        .map(parse("annotations", path))
        .transpose()?
        .unwrap_or_default())
}

pub(super) fn read_json(path: &Path) -> Result<serde_json::Value, OciError> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(failed(format!("open {}", path.display())))?;
    let mut text = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(failed(format!("read {}", path.display())))?;
    parse("JSON", path)(
        serde_json::from_slice(&text)
            .map_err(|error| OciError::Invalid(format!("{}: {error}", path.display())))?,
    )
}

fn parse<T: serde::de::DeserializeOwned>(
    what: &str,
    path: &Path,
) -> impl FnOnce(serde_json::Value) -> Result<T, OciError> {
    let what = format!("{} in {}", what, path.display());
    move |value| {
        serde_json::from_value(value).map_err(|error| OciError::Invalid(format!("{what}: {error}")))
    }
}

/// Takes a member out, `null` counting as absent.
fn take(value: &mut serde_json::Value, pointer: &str, name: &str) -> Option<serde_json::Value> {
    let taken = value.pointer_mut(pointer)?.as_object_mut()?.remove(name)?;
    (!taken.is_null()).then_some(taken)
}

/// `process` of a bundle, or of `exec --process`. The filter is the caller's to add.
pub(crate) fn translate_process(from: &oci::Process, log: &Log) -> Result<Process, OciError> {
    for (set, what) in [
        (
            from.apparmor_profile()
                .as_ref()
                .is_some_and(|p| !p.is_empty()),
            "apparmorProfile",
        ),
        (
            from.selinux_label().as_ref().is_some_and(|l| !l.is_empty()),
            "selinuxLabel",
        ),
        (from.io_priority().is_some(), "ioPriority"),
        (from.scheduler().is_some(), "scheduler"),
        (from.exec_cpu_affinity().is_some(), "execCPUAffinity"),
    ] {
        if set {
            return Err(OciError::Invalid(format!(
                "process.{what} is not supported"
            )));
        }
    }
    let user = from.user();
    let size = from
        .console_size()
        .map_or_else(TerminalSize::default, |size| TerminalSize {
            rows: u16::try_from(size.height()).unwrap_or(u16::MAX),
            columns: u16::try_from(size.width()).unwrap_or(u16::MAX),
        });
    Ok(Process {
        args: from.args().clone().unwrap_or_default(),
        env: from.env().clone().unwrap_or_default(),
        cwd: from.cwd().clone(),
        user: format!("{}:{}", user.uid(), user.gid()),
        additional_groups: user
            .additional_gids()
            .iter()
            .flatten()
            .map(u32::to_string)
            .collect(),
        umask: user.umask(),
        rlimits: from
            .rlimits()
            .iter()
            .flatten()
            .map(|limit| Rlimit {
                name: limit
                    .typ()
                    .to_string()
                    .trim_start_matches("RLIMIT_")
                    .to_ascii_lowercase(),
                soft: limit.soft(),
                hard: limit.hard(),
            })
            .collect(),
        capabilities: from
            .capabilities()
            .as_ref()
            .map_or_else(Capabilities::default, |sets| capabilities(sets, log)),
        no_new_privileges: from.no_new_privileges().unwrap_or(false),
        seccomp: SeccompPolicy::Unconfined,
        oom_score_adj: from.oom_score_adj(),
        terminal: from.terminal().unwrap_or(false).then_some(size),
        preserve_fds: 0,
        keep_keyring: false,
    })
}

/// Capabilities this process does not have itself cannot be given: they are left out with a warning, as runc does with
/// those the kernel does not know.
fn capabilities(sets: &oci::LinuxCapabilities, log: &Log) -> Capabilities {
    let available = CapabilitySet::available();
    let translate = |set: &Option<oci::Capabilities>| {
        let bits = set
            .iter()
            .flatten()
            .fold(CapabilitySet::EMPTY, |all, capability| {
                let one = CapabilitySet::from_names(&[capability.to_string()])
                    .unwrap_or(CapabilitySet::EMPTY);
                all.union(one)
            });
        let missing = bits.difference(available);
        if !missing.is_empty() {
            log.warning(&format!(
                "capabilities {missing} are not available here and left out"
            ));
        }
        bits.intersection(available)
    };
    Capabilities {
        bounding: translate(sets.bounding()),
        effective: translate(sets.effective()),
        permitted: translate(sets.permitted()),
        inheritable: translate(sets.inheritable()),
        ambient: translate(sets.ambient()),
    }
}

fn refuse_unsupported(linux: &oci::Linux) -> Result<(), OciError> {
    for (set, what) in [
        (
            linux.uid_mappings().as_ref().is_some_and(|m| !m.is_empty()),
            "uidMappings",
        ),
        (
            linux.gid_mappings().as_ref().is_some_and(|m| !m.is_empty()),
            "gidMappings",
        ),
        (
            linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()),
            "netDevices",
        ),
        (
            linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()),
            "mountLabel",
        ),
        (linux.intel_rdt().is_some(), "intelRdt"),
        (linux.memory_policy().is_some(), "memoryPolicy"),
        (linux.personality().is_some(), "personality"),
        (
            linux.time_offsets().as_ref().is_some_and(|o| !o.is_empty()),
            "timeOffsets",
        ),
    ] {
        if set {
            return Err(OciError::Invalid(format!("linux.{what} is not supported")));
        }
    }
    Ok(())
}

fn namespaces(linux: &oci::Linux) -> Result<Namespaces, OciError> {
    let mut to = Namespaces {
        pid: Namespace::Host,
        net: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        cgroup: Namespace::Host,
    };
    let mut own_mounts = false;
    for namespace in linux.namespaces().iter().flatten() {
        let chosen = match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => Namespace::Join(path.clone()),
            _ => Namespace::New,
        };
        match namespace.typ() {
            oci::LinuxNamespaceType::Pid => to.pid = chosen,
            oci::LinuxNamespaceType::Network => to.net = chosen,
            oci::LinuxNamespaceType::Ipc => to.ipc = chosen,
            oci::LinuxNamespaceType::Uts => to.uts = chosen,
            oci::LinuxNamespaceType::Cgroup => to.cgroup = chosen,
            oci::LinuxNamespaceType::Mount if chosen == Namespace::New => own_mounts = true,
            other => {
                return Err(OciError::Invalid(format!(
                    "a {other} namespace (or joining one) is not supported"
                )));
            }
        }
    }
    match own_mounts {
        true => Ok(to),
        false => Err(OciError::Invalid(
            "a container needs a mount namespace of its own in linux.namespaces".into(),
        )),
    }
}

fn cgroup_path(linux: &oci::Linux, id: &str) -> Result<CgroupPath, OciError> {
    let path = match linux.cgroups_path() {
        Some(path) if !path.as_os_str().is_empty() => path.clone(),
        _ => PathBuf::from("muster-oci").join(id),
    };
    if path.to_string_lossy().split(':').count() == 3 {
        return Err(OciError::Invalid(format!(
            "cgroupsPath {path:?} is one of systemd's: use the cgroupfs manager of your engine"
        )));
    }
    Ok(CgroupPath::try_from(path)?)
}

fn device(from: &oci::LinuxDevice) -> Result<Device, OciError> {
    let number = |number: i64| u32::try_from(number).unwrap_or(0);
    Ok(Device {
        path: from.path().clone(),
        kind: match from.typ() {
            oci::LinuxDeviceType::B => DeviceKind::Block,
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Char,
            oci::LinuxDeviceType::P => DeviceKind::Fifo,
            oci::LinuxDeviceType::A => {
                return Err(OciError::Invalid(format!(
                    "device {} has no type",
                    from.path().display()
                )));
            }
        },
        major: number(from.major()),
        minor: number(from.minor()),
        mode: from.file_mode().unwrap_or(0o666),
        uid: from.uid().unwrap_or(0),
        gid: from.gid().unwrap_or(0),
    })
}
