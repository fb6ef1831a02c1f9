//! Mount entries of a bundle: fstab-like words to flags.
//!
//! Source: runc `libcontainer/specconv/spec_linux.go:parseMountOptions`, mount(8).

use std::path::Path;

use super::OciError;
use crate::spec::{Atime, Mount, MountKind, MountOptions, Propagation, RecursiveReadonly};

/// One entry of `mounts`.
pub(super) fn translate(
    mount: &oci_spec::runtime::Mount,
    bundle: &Path,
) -> Result<Mount, OciError> {
    let words = mount.options().clone().unwrap_or_default();
    let mut options = MountOptions::default();
    let mut bind = None;
    let mut data = Vec::new();
    for word in &words {
        match word.as_str() {
            "bind" => bind = Some(false),
            "rbind" => bind = Some(true),
            other => {
                if !flag(&mut options, other)? {
                    data.push(word.clone());
                }
            }
        }
    }
    let fstype = mount.typ().clone().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    let target = match mount.destination().is_absolute() {
        true => mount.destination().clone(),
        // Allowed by older specifications.
        false => Path::new("/").join(mount.destination()),
    };
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(OciError::Invalid(format!(
            "mount {}: id-mapped mounts are not supported",
            target.display()
        )));
    }
    let kind = match (bind, fstype.as_str()) {
        (Some(recursive), _) => bind_kind(&source, recursive, bundle, &data)?,
        (None, "bind") => bind_kind(&source, true, bundle, &data)?,
        (None, "cgroup" | "cgroup2") => MountKind::Cgroup,
        (None, "") => {
            return Err(OciError::Invalid(format!(
                "mount {}: neither a type nor bind is given",
                target.display()
            )));
        }
        (None, _) => MountKind::Filesystem {
            fstype,
            source: source.to_string_lossy().into_owned(),
            data,
        },
    };
    Ok(Mount {
        target,
        kind,
        options,
    })
}

fn bind_kind(
    source: &Path,
    recursive: bool,
    bundle: &Path,
    data: &[String],
) -> Result<MountKind, OciError> {
    if let Some(word) = data.first() {
        return Err(OciError::Invalid(format!(
            "bind {}: unknown mount option {word:?}",
            source.display()
        )));
    }
    Ok(MountKind::Bind {
        source: bundle.join(source),
        recursive,
    })
}

/// Applies a word that is no option of the file system. Whether it was one.
fn flag(options: &mut MountOptions, word: &str) -> Result<bool, OciError> {
    match word {
        "defaults" | "async" | "norelatime" | "nostrictatime" | "silent" | "loud" | "nomand"
        | "noiversion" => {}
        "ro" => options.readonly = true,
        "rw" => options.readonly = false,
        "rro" => {
            options.readonly = true;
            options.recursive_readonly = RecursiveReadonly::Force;
        }
        "nosuid" => options.nosuid = true,
        "suid" => options.nosuid = false,
        "nodev" => options.nodev = true,
        "dev" => options.nodev = false,
        "noexec" => options.noexec = true,
        "exec" => options.noexec = false,
        "noatime" => options.atime = Some(Atime::Noatime),
        "relatime" => options.atime = Some(Atime::Relatime),
        "strictatime" => options.atime = Some(Atime::Strictatime),
        "atime" => options.atime = None,
        "nodiratime" => options.nodiratime = true,
        "diratime" => options.nodiratime = false,
        "nosymfollow" => options.nosymfollow = true,
        "symfollow" => options.nosymfollow = false,
        "tmpcopyup" => options.copy_up = true,
        "private" => options.propagation = Some(Propagation::Private),
        "rprivate" => options.propagation = Some(Propagation::Rprivate),
        "slave" => options.propagation = Some(Propagation::Slave),
        "rslave" => options.propagation = Some(Propagation::Rslave),
        "shared" => options.propagation = Some(Propagation::Shared),
        "rshared" => options.propagation = Some(Propagation::Rshared),
        "unbindable" => options.propagation = Some(Propagation::Unbindable),
        "runbindable" => options.propagation = Some(Propagation::Runbindable),
        "remount" | "idmap" | "ridmap" | "sync" | "dirsync" | "mand" | "lazytime" | "iversion" => {
            return Err(OciError::Invalid(format!(
                "mount option {word:?} is not supported"
            )));
        }
        recursive if is_recursive_attribute(recursive) => {
            return Err(OciError::Invalid(format!(
                "mount option {word:?} is not supported, only rro is"
            )));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// mount_setattr(2)'s attributes for a whole tree.
fn is_recursive_attribute(word: &str) -> bool {
    [
        "rrw",
        "rnosuid",
        "rsuid",
        "rnodev",
        "rdev",
        "rnoexec",
        "rexec",
        "rnoatime",
        "rrelatime",
        "rstrictatime",
        "ratime",
        "rnodiratime",
        "rdiratime",
        "rnosymfollow",
        "rsymfollow",
        "rnorelatime",
        "rnostrictatime",
    ]
    .contains(&word)
}

/// A root's propagation.
pub(super) fn propagation(word: &str) -> Result<Propagation, OciError> {
    let mut options = MountOptions::default();
    flag(&mut options, word)?;
    options
        .propagation
        .ok_or_else(|| OciError::Invalid(format!("rootfsPropagation {word:?} is unknown")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value) -> Result<Mount, OciError> {
        translate(&serde_json::from_value(json).unwrap(), Path::new("/bundle"))
    }

    #[test]
    fn words_become_flags_and_the_rest_goes_to_the_file_system() {
        let mount = parse(
            serde_json::json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k", "rprivate"]}),
        )
        .unwrap();
        assert!(mount.options.nosuid && !mount.options.readonly);
        assert_eq!(mount.options.propagation, Some(Propagation::Rprivate));
        let MountKind::Filesystem { data, .. } = mount.kind else {
            panic!("{mount:?}")
        };
        assert_eq!(data, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn binds_are_found_by_option_or_type_and_resolved_in_the_bundle() {
        let mount = parse(
            serde_json::json!({"destination": "/t", "source": "data", "options": ["bind", "ro"]}),
        )
        .unwrap();
        assert_eq!(
            mount.kind,
            MountKind::Bind {
                source: "/bundle/data".into(),
                recursive: false
            }
        );
        let mount = parse(serde_json::json!({"destination": "/t", "type": "bind", "source": "/x"}))
            .unwrap();
        assert_eq!(
            mount.kind,
            MountKind::Bind {
                source: "/x".into(),
                recursive: true
            }
        );
        assert!(parse(serde_json::json!({"destination": "/t", "type": "bind", "source": "/x", "options": ["idmap"]})).is_err());
        assert!(parse(serde_json::json!({"destination": "/t", "type": "bind", "source": "/x", "options": ["nonsense"]})).is_err());
    }
}
