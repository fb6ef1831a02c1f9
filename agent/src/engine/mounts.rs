//! From what a user wrote (`-v`, `--mount`, `--tmpfs`, `--volumes-from`, the image's `VOLUME`s) to the list of mounts
//! of a container.
//!
//! Pure apart from [`check_sources`]. Rules and texts: moby `volume/mounts/linux_parser.go`, `daemon/volumes.go`
//! (`registerMountPoints`): volumes-from first, then binds, then mounts, then anonymous volumes for what the image
//! declares and nobody mounted.

use std::path::{Component, Path, PathBuf};

use agent_api::{ContainerConfig, HostConfig, Labels, Mount, MountPoint, MountType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    /// Absolute, clean path in the container.
    pub(crate) target: String,
    pub(crate) source: MountSource,
    pub(crate) read_only: bool,
    /// Read-only covers the mounts below as well.
    pub(crate) recursive_readonly: RecursiveReadonly,
    /// `rprivate`, `rslave`, …; empty is the kind's default.
    pub(crate) propagation: String,
    /// The options as the user wrote them, for `inspect`.
    pub(crate) mode: String,
    /// Written with `--tmpfs`: not listed among the mounts.
    pub(crate) unlisted: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountSource {
    /// A path of the host.
    Bind {
        path: String,
        /// Make the directory if it is missing.
        create: bool,
        /// With the mounts below it.
        recursive: bool,
    },
    Volume(VolumeUse),
    Tmpfs {
        /// Options of the file system: `size=…`, `mode=…`.
        data: Vec<String>,
        /// Flags of the mount: `exec`, `nosuid`, …
        flags: Vec<String>,
    },
}

/// A volume and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeUse {
    pub(crate) name: String,
    /// Nobody named it: it goes with `rm -v` and `--rm`.
    pub(crate) anonymous: bool,
    /// Do not copy the image's content into it while it is empty.
    pub(crate) no_copy: bool,
    /// Only this directory of it.
    pub(crate) subpath: String,
    /// Labels if it has to be made.
    pub(crate) labels: Labels,
    /// Driver options if it has to be made.
    pub(crate) options: Labels,
    /// The directory on the host; empty until the volume exists.
    pub(crate) mountpoint: String,
    /// Taken over from another container: never filled from this container's image.
    pub(crate) inherited: bool,
}

/// How far read-only reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RecursiveReadonly {
    No,
    #[default]
    IfPossible,
    Force,
}

/// The container another one takes its mounts from.
pub(crate) struct Donor {
    pub(crate) mounts: Vec<MountPlan>,
}

impl MountPlan {
    /// As `inspect` shows it; `None` for what it does not show.
    pub(crate) fn mount_point(&self) -> Option<MountPoint> {
        if self.unlisted {
            return None;
        }
        let mut point = MountPoint {
            destination: self.target.clone(),
            mode: self.mode.clone(),
            rw: !self.read_only,
            propagation: self.propagation.clone(),
            ..MountPoint::default()
        };
        match &self.source {
            MountSource::Bind { path, .. } => {
                point.kind = MountType::Bind;
                point.source.clone_from(path);
                if point.propagation.is_empty() {
                    "rprivate".clone_into(&mut point.propagation);
                }
            }
            MountSource::Volume(volume) => {
                point.kind = MountType::Volume;
                point.name.clone_from(&volume.name);
                point.source.clone_from(&volume.mountpoint);
                "local".clone_into(&mut point.driver);
            }
            MountSource::Tmpfs { .. } => point.kind = MountType::Tmpfs,
        }
        Some(point)
    }

    /// The volume, if it is one.
    pub(crate) fn volume(&self) -> Option<&VolumeUse> {
        match &self.source {
            MountSource::Volume(volume) => Some(volume),
            _ => None,
        }
    }
}

/// Decides all mounts. `donor` finds the containers of `volumes_from`; `new_name` makes names of anonymous volumes.
/// The result is in the order of mounting: parents before what is inside them.
pub(crate) fn plan(
    config: &ContainerConfig,
    host: &HostConfig,
    donor: impl Fn(&str) -> Result<Donor>,
    mut new_name: impl FnMut() -> String,
) -> Result<Vec<MountPlan>> {
    if !host.volume_driver.is_empty() && host.volume_driver != "local" {
        return Err(Error::unsupported(format!(
            "volume driver {:?}",
            host.volume_driver
        )));
    }
    let mut plans: Vec<MountPlan> = Vec::new();
    for reference in host.volumes_from.iter().flatten() {
        for plan in inherited(reference, &donor)? {
            replace(&mut plans, plan);
        }
    }
    let mut own: Vec<MountPlan> = Vec::new();
    for text in host.binds.iter().flatten() {
        add(&mut own, parse_bind(text, &mut new_name)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(&mut own, from_mount(mount, &mut new_name)?)?;
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        add(&mut own, from_tmpfs(target, options)?)?;
    }
    own.into_iter().for_each(|plan| replace(&mut plans, plan));
    for target in config.volumes.iter().flatten().map(|(target, _)| target) {
        let target = clean_target(target)
            .map_err(|error| error.context(format!("invalid volume specification: '{target}'")))?;
        if !plans.iter().any(|plan| plan.target == target) {
            plans.push(volume_plan(target, anonymous(new_name())));
        }
    }
    plans.sort_by_cached_key(|plan| (plan.target.matches('/').count(), plan.target.clone()));
    Ok(plans)
}

fn replace(plans: &mut Vec<MountPlan>, plan: MountPlan) {
    plans.retain(|other| other.target != plan.target);
    plans.push(plan);
}

fn add(plans: &mut Vec<MountPlan>, plan: MountPlan) -> Result<()> {
    if plans.iter().any(|other| other.target == plan.target) {
        return Err(Error::invalid(format!(
            "Duplicate mount point: {}",
            plan.target
        )));
    }
    plans.push(plan);
    Ok(())
}

fn anonymous(name: String) -> VolumeUse {
    VolumeUse {
        anonymous: true,
        ..named(name)
    }
}

fn named(name: String) -> VolumeUse {
    VolumeUse {
        name,
        anonymous: false,
        no_copy: false,
        subpath: String::new(),
        labels: Labels::new(),
        options: Labels::new(),
        mountpoint: String::new(),
        inherited: false,
    }
}

fn volume_plan(target: String, volume: VolumeUse) -> MountPlan {
    MountPlan {
        target,
        source: MountSource::Volume(volume),
        read_only: false,
        recursive_readonly: RecursiveReadonly::default(),
        propagation: String::new(),
        mode: String::new(),
        unlisted: false,
    }
}

/// `container[:ro|rw]`.
fn inherited(reference: &str, donor: impl Fn(&str) -> Result<Donor>) -> Result<Vec<MountPlan>> {
    let (name, mode) = match reference.rsplit_once(':') {
        Some((name, mode)) if matches!(mode, "ro" | "rw" | "z" | "Z") => (name, mode),
        Some((_, mode)) => return Err(Error::invalid(format!("invalid mode: {mode}"))),
        None => (reference, ""),
    };
    let mut plans = donor(name)
        .map_err(|error| Error::invalid(error.to_string()))?
        .mounts;
    plans.retain(|plan| !plan.unlisted);
    for plan in &mut plans {
        plan.read_only |= mode == "ro";
        if let MountSource::Volume(volume) = &mut plan.source {
            volume.inherited = true;
            volume.anonymous = false;
        }
    }
    Ok(plans)
}

/// `[source:]target[:options]`.
fn parse_bind(text: &str, new_name: &mut impl FnMut() -> String) -> Result<MountPlan> {
    let within = |error: Error| error.context(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, mode] => (Some(*source), *target, *mode),
        _ => {
            return Err(Error::invalid(format!(
                "invalid volume specification: '{text}'"
            )));
        }
    };
    let kind = match source {
        Some(source) if source.starts_with('/') => "bind",
        _ => "volume",
    };
    let clean = clean_target(target).map_err(|error| {
        within(error.context(format!("invalid mount config for type \"{kind}\"")))
    })?;
    let options = BindMode::parse(mode, kind == "volume")?;
    let source = match source {
        None => MountSource::Volume(anonymous(new_name())),
        Some("") => return Err(within(Error::invalid("the source must not be empty"))),
        Some(path) if kind == "bind" => MountSource::Bind {
            path: clean_path(path),
            create: true,
            recursive: true,
        },
        Some(name) => {
            validate_volume_name(name).map_err(|error| error.context(format!("create {name}")))?;
            MountSource::Volume(VolumeUse {
                no_copy: options.no_copy,
                ..named(name.to_owned())
            })
        }
    };
    let mode = match (&source, mode) {
        (MountSource::Volume(volume), "") if !volume.anonymous => "z",
        (_, mode) => mode,
    };
    Ok(MountPlan {
        target: clean,
        read_only: options.read_only,
        recursive_readonly: RecursiveReadonly::default(),
        propagation: match &source {
            MountSource::Bind { .. } => options.propagation,
            _ => String::new(),
        },
        mode: mode.to_owned(),
        source,
        unlisted: false,
    })
}

#[derive(Default)]
struct BindMode {
    read_only: bool,
    no_copy: bool,
    propagation: String,
}

impl BindMode {
    /// Comma separated; each kind of option at most once.
    fn parse(text: &str, volume: bool) -> Result<Self> {
        let invalid = || Error::invalid(format!("invalid mode: {text}"));
        let mut mode = Self::default();
        let (mut access, mut label, mut copy, mut spread, mut consistency) = (0, 0, 0, 0, 0);
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "ro" => (mode.read_only, access) = (true, access + 1),
                "rw" => access += 1,
                "z" | "Z" => label += 1,
                "nocopy" if volume => (mode.no_copy, copy) = (true, copy + 1),
                "consistent" | "cached" | "delegated" | "default" => consistency += 1,
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if !volume => {
                    word.clone_into(&mut mode.propagation);
                    spread += 1;
                }
                _ => return Err(invalid()),
            }
        }
        match [access, label, copy, spread, consistency]
            .iter()
            .all(|count| *count <= 1)
        {
            true => Ok(mode),
            false => Err(invalid()),
        }
    }
}

/// The long form.
fn from_mount(mount: &Mount, new_name: &mut impl FnMut() -> String) -> Result<MountPlan> {
    let kind = match mount.kind {
        MountType::Bind => "bind",
        MountType::Volume => "volume",
        MountType::Tmpfs => "tmpfs",
        MountType::Npipe => return Err(Error::unsupported("mount type npipe")),
        MountType::Cluster => return Err(Error::unsupported("mount type cluster")),
        MountType::Image => return Err(Error::unsupported("mount type image")),
    };
    let within = |error: Error| error.context(format!("invalid mount config for type \"{kind}\""));
    let invalid = |text: &str| within(Error::invalid(text));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let foreign = [
        (
            mount.bind_options.is_some() && kind != "bind",
            "BindOptions",
        ),
        (
            mount.volume_options.is_some() && kind != "volume",
            "VolumeOptions",
        ),
        (
            mount.tmpfs_options.is_some() && kind != "tmpfs",
            "TmpfsOptions",
        ),
        (mount.image_options.is_some(), "ImageOptions"),
    ];
    if let Some((_, field)) = foreign.iter().find(|(there, _)| *there) {
        return Err(invalid(&format!("field {field} must not be specified")));
    }
    let target = clean_target(&mount.target).map_err(within)?;
    let mut plan = volume_plan(target, named(String::new()));
    plan.read_only = mount.read_only;
    match mount.kind {
        MountType::Bind => {
            let options = mount.bind_options.clone().unwrap_or_default();
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(invalid(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            if !matches!(
                options.propagation.as_str(),
                "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
            ) {
                return Err(invalid(&format!(
                    "invalid propagation mode: {}",
                    options.propagation
                )));
            }
            if options.read_only_non_recursive && options.read_only_force_recursive {
                return Err(invalid(
                    "ReadOnlyNonRecursive and ReadOnlyForceRecursive are conflicting options",
                ));
            }
            plan.recursive_readonly = match () {
                () if options.read_only_force_recursive => RecursiveReadonly::Force,
                () if options.read_only_non_recursive || options.non_recursive => {
                    RecursiveReadonly::No
                }
                () => RecursiveReadonly::IfPossible,
            };
            plan.propagation = options.propagation;
            plan.source = MountSource::Bind {
                path: clean_path(&mount.source),
                create: options.create_mountpoint,
                recursive: !options.non_recursive,
            };
        }
        MountType::Volume => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") {
                return Err(Error::unsupported(format!(
                    "volume driver {:?}",
                    driver.name
                )));
            }
            let mut volume = match mount.source.as_str() {
                "" => anonymous(new_name()),
                name => {
                    validate_volume_name(name)
                        .map_err(|error| error.context(format!("create {name}")))?;
                    named(name.to_owned())
                }
            };
            volume.no_copy = options.no_copy;
            volume.labels = options.labels.unwrap_or_default();
            volume.options = driver.options.unwrap_or_default();
            let subpath = Path::new(&options.subpath);
            if subpath.is_absolute()
                || subpath
                    .components()
                    .any(|part| part == Component::ParentDir)
            {
                return Err(invalid("subpath must be a relative path within the volume"));
            }
            volume.subpath = options.subpath;
            "z".clone_into(&mut plan.mode);
            plan.source = MountSource::Volume(volume);
        }
        MountType::Tmpfs => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut data = vec![format!(
                "mode={:o}",
                options.mode.filter(|mode| *mode != 0).unwrap_or(0o1777)
            )];
            data.extend(
                options
                    .size_bytes
                    .filter(|size| *size != 0)
                    .map(|size| format!("size={size}")),
            );
            let mut flags = Vec::new();
            for option in options.options.into_iter().flatten() {
                tmpfs_option(&option.join("="), &mut data, &mut flags).map_err(within)?;
            }
            plan.source = MountSource::Tmpfs { data, flags };
        }
        _ => unreachable!("other kinds were refused above"),
    }
    Ok(plan)
}

/// `--tmpfs target[:options]`.
fn from_tmpfs(target: &str, options: &str) -> Result<MountPlan> {
    let mut plan = volume_plan(clean_target(target)?, named(String::new()));
    let (mut data, mut flags) = (Vec::new(), Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => plan.read_only = true,
            "rw" => plan.read_only = false,
            other => tmpfs_option(other, &mut data, &mut flags)?,
        }
    }
    plan.source = MountSource::Tmpfs { data, flags };
    plan.unlisted = true;
    Ok(plan)
}

fn tmpfs_option(option: &str, data: &mut Vec<String>, flags: &mut Vec<String>) -> Result<()> {
    let name = option.split('=').next().unwrap_or_default();
    match name {
        "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "huge" => {
            data.push(option.to_owned());
        }
        "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "noatime" | "relatime"
        | "strictatime" | "nodiratime" | "sync" | "async" | "atime" | "diratime" => {
            flags.push(option.to_owned())
        }
        _ => return Err(Error::invalid(format!("invalid tmpfs option [{option:?}]"))),
    }
    Ok(())
}

/// Refuses a volume name Docker refuses.
pub(crate) fn validate_volume_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let legal = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    match legal {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
             If you intended to pass a host directory, use absolute path"
        ))),
    }
}

/// An absolute path without `.`, `..` and doubled slashes that is not the root.
fn clean_target(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    match clean_path(target) {
        root if root == "/" => Err(Error::invalid(
            "invalid specification: destination can't be '/'",
        )),
        path => Ok(path),
    }
}

fn clean_path(path: &str) -> String {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Checks the host paths that must exist, as Docker does when a container is created. Blocks on the file system.
pub(crate) fn check_sources(plans: &[MountPlan]) -> Result<()> {
    for plan in plans {
        if let MountSource::Bind {
            path,
            create: false,
            ..
        } = &plan.source
            && !Path::new(path).exists()
        {
            return Err(Error::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
