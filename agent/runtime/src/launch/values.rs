//! Values of a specification as the kernel takes them: flags, limits, terminated strings, clean paths. Pure.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use super::LaunchError;
use super::step::{Parameter, Step, attr};
use crate::spec::{Atime, MountOptions, Propagation, Rlimit};
use crate::sys::raw::MountAttr;

/// `MOUNT_ATTR_*` and propagation of a mount's options.
pub(super) fn attributes(options: &MountOptions) -> MountAttr {
    let mut set = 0;
    for (chosen, bit) in [
        (options.readonly, attr::RDONLY),
        (options.nosuid, attr::NOSUID),
        (options.nodev, attr::NODEV),
        (options.noexec, attr::NOEXEC),
        (options.nodiratime, attr::NODIRATIME),
        (options.nosymfollow, attr::NOSYMFOLLOW),
    ] {
        if chosen {
            set |= bit;
        }
    }
    let mut clear = 0;
    if let Some(atime) = options.atime {
        clear = attr::ATIME_MASK;
        set |= match atime {
            Atime::Noatime => attr::NOATIME,
            Atime::Strictatime => attr::STRICTATIME,
            Atime::Relatime => 0,
        };
    }
    let propagation = options.propagation.map_or(0, propagation_flags);
    MountAttr {
        set,
        clear,
        propagation,
        userns_fd: 0,
    }
}

pub(super) fn propagation_flags(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Rprivate => libc::MS_PRIVATE | libc::MS_REC,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Rslave => libc::MS_SLAVE | libc::MS_REC,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Rshared => libc::MS_SHARED | libc::MS_REC,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
        Propagation::Runbindable => libc::MS_UNBINDABLE | libc::MS_REC,
    }
}

pub(super) fn parameters(
    fstype: &str,
    source: &str,
    data: &[String],
) -> Result<Vec<Parameter>, LaunchError> {
    let mut parameters = Vec::with_capacity(data.len() + 1);
    if !source.is_empty() {
        parameters.push(Parameter {
            key: c"source".to_owned(),
            value: Some(c_string(source.as_bytes(), "mount source")?),
        });
    }
    for option in data {
        // Every devpts is an instance of its own since Linux 4.7.
        if fstype == "devpts" && option == "newinstance" {
            continue;
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(c_string(value.as_bytes(), "mount option")?)),
            None => (option.as_str(), None),
        };
        parameters.push(Parameter {
            key: c_string(key.as_bytes(), "mount option")?,
            value,
        });
    }
    Ok(parameters)
}

pub(super) fn rlimit(limit: &Rlimit) -> Result<Step, LaunchError> {
    const NAMES: [(&str, u32); 16] = [
        ("as", libc::RLIMIT_AS),
        ("core", libc::RLIMIT_CORE),
        ("cpu", libc::RLIMIT_CPU),
        ("data", libc::RLIMIT_DATA),
        ("fsize", libc::RLIMIT_FSIZE),
        ("locks", libc::RLIMIT_LOCKS),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nice", libc::RLIMIT_NICE),
        ("nofile", libc::RLIMIT_NOFILE),
        ("nproc", libc::RLIMIT_NPROC),
        ("rss", libc::RLIMIT_RSS),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("rttime", libc::RLIMIT_RTTIME),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("stack", libc::RLIMIT_STACK),
    ];
    let Some((_, resource)) = NAMES.iter().find(|(name, _)| *name == limit.name) else {
        return Err(LaunchError::Invalid(format!(
            "unknown resource limit {:?}",
            limit.name
        )));
    };
    if limit.soft > limit.hard {
        return Err(LaunchError::Invalid(format!(
            "resource limit {}: soft limit {} is above the hard limit {}",
            limit.name, limit.soft, limit.hard
        )));
    }
    Ok(Step::SetRlimit {
        resource: *resource,
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    })
}

/// An absolute path without `.`, `..` and doubled slashes, as `filepath.Clean` makes it.
pub(super) fn clean_absolute(path: &Path) -> Result<PathBuf, LaunchError> {
    if !path.is_absolute() {
        return Err(LaunchError::Invalid(format!(
            "path {path:?} in the container is not absolute"
        )));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().len() >= 4096 {
        return Err(LaunchError::Invalid(format!(
            "path {path:?} is longer than 4095 bytes"
        )));
    }
    Ok(clean)
}

pub(super) fn c_path(path: &Path) -> Result<CString, LaunchError> {
    c_string(path.as_os_str().as_encoded_bytes(), "path")
}

/// A terminated copy; a zero byte inside is the caller's mistake.
pub(super) fn c_string(bytes: &[u8], what: &str) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| {
        LaunchError::Invalid(format!(
            "{what} {:?} contains a zero byte",
            String::from_utf8_lossy(bytes)
        ))
    })
}
