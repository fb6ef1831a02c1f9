//! Devices of the host that a container is given: `--device`, and all of them with `--privileged`. Looks, changes nothing.
//!
//! Source: moby `daemon/oci_linux.go:withDevices`, opencontainers/cgroups `devices.HostDevices`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use agent_api::{DeviceMapping, HostConfig, Resources};
use agent_runtime::cgroup::{BlkioRate, BlkioThrottle};
use agent_runtime::spec::{Device, DeviceAccess, DeviceKind, DeviceRule};

use crate::error::{Error, Result};

/// Places below `/dev` that a container has of its own.
const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// Nodes every container has of its own.
const OWN_NODES: [&str; 8] = [
    "console", "null", "zero", "full", "random", "urandom", "tty", "ptmx",
];
/// Directories below a mapped one.
const DEPTH_MAX: usize = 8;

/// The device nodes to be made and the rules that let them be used.
pub(crate) fn resolve(host: &HostConfig) -> Result<(Vec<Device>, Vec<DeviceRule>)> {
    if host.privileged {
        let mut devices = Vec::new();
        collect(Path::new("/dev"), Path::new("/dev"), &mut devices, 0);
        // It has them all under their own names; everything is allowed already.
        for mapping in &host.resources.devices {
            let inside = mapping.path_in_container.as_str();
            if !inside.is_empty() && inside != mapping.path_on_host {
                map(mapping, &mut devices, &mut Vec::new())?;
            }
        }
        keep_first(&mut devices);
        return Ok((devices, Vec::new()));
    }
    let (mut devices, mut rules) = (Vec::new(), Vec::new());
    for mapping in &host.resources.devices {
        map(mapping, &mut devices, &mut rules)?;
    }
    keep_first(&mut devices);
    Ok((devices, rules))
}

/// One device for each path.
fn keep_first(devices: &mut Vec<Device>) {
    let mut seen = HashSet::new();
    devices.retain(|device| seen.insert(device.path.clone()));
}

/// Rate limits per block device (`--device-read-bps` and its kin), with the devices' numbers.
pub(crate) fn throttles(resources: &Resources) -> Result<Vec<BlkioThrottle>> {
    let kinds = [
        (&resources.blkio_device_read_bps, BlkioRate::ReadBytes),
        (&resources.blkio_device_write_bps, BlkioRate::WriteBytes),
        (&resources.blkio_device_read_iops, BlkioRate::ReadOperations),
        (
            &resources.blkio_device_write_iops,
            BlkioRate::WriteOperations,
        ),
    ];
    let mut throttles = Vec::new();
    for (devices, kind) in kinds {
        for limit in devices {
            let metadata = fs::metadata(&limit.path).map_err(|error| {
                Error::invalid(format!("rate limit of device {:?}: {error}", limit.path))
            })?;
            if !metadata.file_type().is_block_device() {
                return Err(Error::invalid(format!(
                    "rate limit of device {:?}: not a block device",
                    limit.path
                )));
            }
            throttles.push(BlkioThrottle {
                major: rustix::fs::major(metadata.rdev()),
                minor: rustix::fs::minor(metadata.rdev()),
                kind,
                rate: limit.rate,
            });
        }
    }
    Ok(throttles)
}

fn map(
    mapping: &DeviceMapping,
    devices: &mut Vec<Device>,
    rules: &mut Vec<DeviceRule>,
) -> Result<()> {
    let path = Path::new(&mapping.path_on_host);
    let failed = |reason: String| {
        Error::invalid(format!(
            "error gathering device information while adding custom device {:?}: {reason}",
            mapping.path_on_host
        ))
    };
    let access = match mapping.cgroup_permissions.as_str() {
        "" => "rwm",
        letters => letters,
    };
    let access = DeviceAccess::parse(access).ok_or_else(|| {
        failed(format!(
            "invalid device mode {access:?}: use letters of rwm"
        ))
    })?;
    let inside = match mapping.path_in_container.as_str() {
        "" => path,
        inside => Path::new(inside),
    };
    let metadata = fs::metadata(path).map_err(|error| {
        failed(match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let first = devices.len();
    if metadata.is_dir() {
        collect(path, inside, devices, 0);
    } else {
        devices.push(
            device(inside.to_owned(), &metadata)
                .ok_or_else(|| failed("not a device node".to_owned()))?,
        );
    }
    for device in &devices[first..] {
        rules.push(DeviceRule {
            allow: true,
            kind: Some(device.kind),
            major: Some(device.major),
            minor: Some(device.minor),
            access,
        });
    }
    Ok(())
}

/// All device nodes below a directory; what cannot be read is left out.
fn collect(directory: &Path, inside: &Path, devices: &mut Vec<Device>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let target = inside.join(&name);
        if metadata.is_dir() {
            if depth > 0 || !OWN.contains(&&*text) {
                collect(&entry.path(), &target, devices, depth + 1);
            }
        } else if (depth > 0 || !OWN_NODES.contains(&&*text))
            && let Some(device) = device(target, &metadata)
        {
            devices.push(device);
        }
    }
}

fn device(path: PathBuf, metadata: &fs::Metadata) -> Option<Device> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    Some(Device {
        path,
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, inside: &str, access: &str) -> HostConfig {
        let mut config = HostConfig::default();
        config.resources.devices = vec![DeviceMapping {
            path_on_host: host.into(),
            path_in_container: inside.into(),
            cgroup_permissions: access.into(),
        }];
        config
    }

    #[test]
    fn rate_limits_need_a_block_device() {
        let limit = |path: &str| Resources {
            blkio_device_read_bps: vec![agent_api::ThrottleDevice {
                path: path.to_owned(),
                rate: 1,
            }],
            ..Resources::default()
        };
        for (path, reason) in [
            ("/dev/null", "not a block device"),
            ("/no/such", "No such file"),
        ] {
            let error = throttles(&limit(path)).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains(reason), "{error}");
        }
        assert_eq!(throttles(&Resources::default()).unwrap(), []);
    }

    #[test]
    fn a_privileged_container_has_a_device_under_the_name_it_is_given() {
        let mut host = mapping("/dev/null", "/dev/nothing", "rwm");
        host.privileged = true;
        let (devices, rules) = resolve(&host).unwrap();
        let nothing = Path::new("/dev/nothing");
        let found = devices.iter().find(|device| device.path == nothing);
        assert_eq!((found.unwrap().major, found.unwrap().minor), (1, 3));
        assert!(rules.is_empty());
    }

    #[test]
    fn a_device_is_mapped_with_its_rule() {
        let (devices, rules) = resolve(&mapping("/dev/null", "/dev/nothing", "rw")).unwrap();
        assert_eq!(devices[0].path, Path::new("/dev/nothing"));
        assert_eq!(
            (devices[0].kind, devices[0].major, devices[0].minor),
            (DeviceKind::Char, 1, 3)
        );
        assert_eq!(rules[0].access.to_string(), "rw");
        assert_eq!((rules[0].major, rules[0].minor), (Some(1), Some(3)));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (mapping, expected) in [
            (
                mapping("/dev/nonexistent", "", ""),
                "error gathering device information while adding custom device \"/dev/nonexistent\": no such file or directory",
            ),
            (
                mapping("/etc/passwd", "", ""),
                "error gathering device information while adding custom device \"/etc/passwd\": not a device node",
            ),
        ] {
            assert_eq!(resolve(&mapping).unwrap_err().to_string(), expected);
        }
        assert!(resolve(&mapping("/dev/null", "", "x")).is_err());
    }

    #[test]
    fn privileged_gets_the_hosts_devices_and_keeps_its_own() {
        let (devices, _) = resolve(&HostConfig {
            privileged: true,
            ..HostConfig::default()
        })
        .unwrap();
        assert!(
            devices
                .iter()
                .all(|device| !device.path.starts_with("/dev/pts"))
        );
        assert!(
            devices
                .iter()
                .all(|device| device.path != Path::new("/dev/null"))
        );
    }
}
