//! From specification to plan. Pure: no file is opened, no system call made, so every rule here is testable without
//! root.
//!
//! The order of the steps follows runc's `libcontainer/rootfs_linux.go` and `standard_init_linux.go`, with two
//! differences: bind sources and the root are opened as detached mounts by the parent before the container's tree can
//! be reached by anybody, and the root is pivoted into last.

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::LaunchError;
use super::step::{Absent, DeviceNode, Keep, Meeting, Parameter, Slot, Step, attr};
use super::values::{
    attributes, c_path, c_string, clean_absolute, parameters, propagation_flags, rlimit,
};
use crate::cgroup::DeviceKind;
use crate::spec::{
    Capabilities, CgroupPath, CgroupSpec, LaunchSpec, Mount, MountKind, MountOptions, Namespace,
    Process, RecursiveReadonly, Rootfs, SeccompPolicy, TerminalSize,
};
use crate::sys::raw::MountAttr;

/// What will be done, in order: what the parent opens, then what the child does. `Display` prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
    /// The pid namespace the child is born in, if not the caller's or a new one.
    pub(crate) join_pid: Option<PathBuf>,
    /// What the parent opens; the index is the slot.
    pub(crate) sources: Vec<Source>,
    pub(crate) steps: Vec<Step>,
    pub(crate) process: ProcessPlan,
    pub(crate) cgroup: Option<CgroupSpec>,
    /// The devpts the terminal belongs to; an exec uses the one of the running container.
    pub(crate) devpts: Vec<Parameter>,
}

/// Something the parent opens before the clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// The root file system, as a detached mount.
    Root(Rootfs),
    /// A file or directory of the host, as a detached mount.
    Bind {
        path: PathBuf,
        recursive: bool,
        attr: MountAttr,
        attr_recursive: Recursion,
    },
    /// A tmpfs filled with what the image has at a path.
    FilledTmpfs {
        image_path: PathBuf,
        parameters: Vec<Parameter>,
        attr: MountAttr,
    },
    /// A namespace file.
    Namespace(PathBuf),
}

/// How far the attributes of a bind reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recursion {
    Top,
    IfPossible,
    Force,
}

/// What the program needs that is resolved at run time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) additional_groups: Vec<String>,
    pub(crate) capabilities: Capabilities,
    pub(crate) seccomp: SeccompPolicy,
    pub(crate) terminal: Option<TerminalSize>,
    pub(crate) preserve_fds: u32,
    pub(crate) init: bool,
}

/// The root's slot.
pub(crate) const ROOT: Slot = 0;

/// When the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once.
    Immediate,
    /// After meetings with the parent, as the OCI life cycle has it.
    Staged,
}

/// Decides every step of a launch.
pub(crate) fn container(spec: &LaunchSpec, start: Start) -> Result<LaunchPlan, LaunchError> {
    let mut plan = Builder::new(&spec.process, spec.init)?;
    plan.sources
        .push(Source::Root(checked_rootfs(&spec.rootfs)?));
    let has_cgroup = spec.cgroup.is_some();
    if has_cgroup {
        plan.steps.push(Step::JoinCgroups);
    }
    plan.namespaces(spec)?;
    if !spec.process.keep_keyring {
        plan.steps.push(Step::NewKeyring);
    }
    plan.steps.push(Step::IsolateMounts {
        propagation: libc::MS_REC | libc::MS_PRIVATE,
    });
    if spec.namespaces.net == Namespace::New {
        plan.steps.push(Step::LoopbackUp);
    }
    if start == Start::Staged {
        plan.steps.push(Step::Meet(Meeting::Namespaces));
    }
    let at = match &spec.rootfs {
        Rootfs::Overlay { upper, .. } => upper,
        Rootfs::Directory(path) => path,
    };
    plan.steps.push(Step::AttachRoot {
        slot: ROOT,
        at: c_string(at.as_os_str().as_encoded_bytes(), "root path")?,
    });
    plan.mounts(spec)?;
    plan.late_restrictions(spec)?;
    plan.identity_of_host(spec)?;
    if start == Start::Staged {
        plan.steps.push(Step::Meet(Meeting::Mounted));
    }
    plan.steps.push(Step::PivotRoot);
    if let Some(propagation) = spec.rootfs_propagation {
        plan.steps.push(Step::SetRootPropagation {
            propagation: propagation_flags(propagation),
        });
    }
    plan.process_steps(&spec.process, start, Absent::Make)?;
    Ok(LaunchPlan {
        namespaces: plan.clone_flags,
        join_pid: match &spec.namespaces.pid {
            Namespace::Join(path) => Some(path.clone()),
            Namespace::New | Namespace::Host => None,
        },
        sources: plan.sources,
        steps: plan.steps,
        process: plan.process,
        cgroup: spec.cgroup.clone(),
        devpts: plan.devpts,
    })
}

/// Decides every step of an exec. The namespaces are joined by the pidfd in slot 0.
pub(crate) fn exec(
    process: &Process,
    cgroup: Option<&CgroupPath>,
    shared: i32,
) -> Result<LaunchPlan, LaunchError> {
    let mut plan = Builder::new(process, false)?;
    if cgroup.is_some() {
        plan.steps.push(Step::JoinCgroups);
    }
    if !process.keep_keyring {
        plan.steps.push(Step::NewKeyring);
    }
    plan.oom_score(process)?;
    if shared != 0 {
        plan.steps.push(Step::JoinNamespaces {
            slot: 0,
            flags: shared,
            what: "the container's namespaces".into(),
        });
    }
    plan.process_steps(
        &Process {
            oom_score_adj: None,
            ..process.clone()
        },
        Start::Immediate,
        Absent::Fail,
    )?;
    Ok(LaunchPlan {
        namespaces: 0,
        join_pid: None,
        sources: plan.sources,
        steps: plan.steps,
        process: plan.process,
        cgroup: None,
        devpts: Vec::new(),
    })
}

/// A plan being made.
struct Builder {
    sources: Vec<Source>,
    steps: Vec<Step>,
    clone_flags: u64,
    process: ProcessPlan,
    devpts: Vec<Parameter>,
}

impl Builder {
    fn new(process: &Process, init: bool) -> Result<Builder, LaunchError> {
        let Some(program) = process.args.first() else {
            return Err(LaunchError::Invalid("no command specified".into()));
        };
        if program.is_empty() {
            return Err(LaunchError::NotFound(
                "exec: \"\": executable file not found in $PATH".into(),
            ));
        }
        if !process.cwd.is_absolute() {
            return Err(LaunchError::Invalid(format!(
                "working directory {:?} is not absolute",
                process.cwd
            )));
        }
        Ok(Builder {
            sources: Vec::new(),
            steps: Vec::new(),
            clone_flags: 0,
            process: ProcessPlan {
                args: process.args.clone(),
                env: process.env.clone(),
                user: process.user.clone(),
                additional_groups: process.additional_groups.clone(),
                capabilities: process.capabilities,
                seccomp: process.seccomp.clone(),
                terminal: process.terminal,
                preserve_fds: process.preserve_fds,
                init,
            },
            devpts: Vec::new(),
        })
    }

    fn source(&mut self, source: Source) -> Slot {
        self.sources.push(source);
        self.sources.len() - 1
    }

    fn namespaces(&mut self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        let namespaces = &spec.namespaces;
        self.clone_flags = libc::CLONE_NEWNS as u64;
        for (namespace, flag, name) in [
            (&namespaces.uts, libc::CLONE_NEWUTS, "uts"),
            (&namespaces.ipc, libc::CLONE_NEWIPC, "ipc"),
            (&namespaces.net, libc::CLONE_NEWNET, "net"),
        ] {
            match namespace {
                Namespace::New => self.clone_flags |= flag as u64,
                Namespace::Host => {}
                Namespace::Join(path) => self.join(path, flag, name),
            }
        }
        if namespaces.pid == Namespace::New {
            self.clone_flags |= libc::CLONE_NEWPID as u64;
        }
        match &namespaces.cgroup {
            Namespace::New => self.steps.push(Step::OwnCgroupNamespace),
            Namespace::Host => {}
            Namespace::Join(path) => self.join(path, libc::CLONE_NEWCGROUP, "cgroup"),
        }
        Ok(())
    }

    fn join(&mut self, path: &Path, flags: i32, name: &str) {
        let slot = self.source(Source::Namespace(path.to_owned()));
        let what = format!("{name} namespace {}", path.display());
        self.steps.push(Step::JoinNamespaces { slot, flags, what });
    }

    fn mounts(&mut self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        let mut dev_is_ours = false;
        for mount in &spec.mounts {
            let target = clean_absolute(&mount.target)?;
            let at_dev = target == Path::new("/dev");
            // A later mount on /dev hides what was made in an earlier one.
            let makes_dev = at_dev && matches!(mount.kind, MountKind::Filesystem { .. });
            self.mount(mount, &target, makes_dev, spec)?;
            if makes_dev {
                dev_is_ours = true;
                self.device_nodes(spec)?;
            } else if at_dev {
                dev_is_ours = false;
            }
        }
        if dev_is_ours && self.process.terminal.is_some() {
            self.steps.push(Step::MountConsole);
        }
        if self.process.terminal.is_some()
            && !self
                .steps
                .iter()
                .any(|s| matches!(s, Step::MountTerminals { .. }))
        {
            return Err(LaunchError::Invalid(
                "a terminal needs a devpts mount on /dev/pts".into(),
            ));
        }
        Ok(())
    }

    fn mount(
        &mut self,
        mount: &Mount,
        target: &Path,
        is_dev: bool,
        spec: &LaunchSpec,
    ) -> Result<(), LaunchError> {
        let attr = attributes(&mount.options);
        let c_target = c_string(target.as_os_str().as_encoded_bytes(), "mount target")?;
        if target == Path::new("/") {
            return Err(LaunchError::Invalid(
                "mount target / would hide the root".into(),
            ));
        }
        match &mount.kind {
            MountKind::Bind { source, recursive } => {
                let slot = self.source(bind(source, *recursive, attr, &mount.options)?);
                let what = format!("bind {}", source.display());
                self.steps.push(Step::MountDetached {
                    slot,
                    target: c_target,
                    what,
                });
            }
            MountKind::Cgroup => self.steps.push(Step::MountCgroups {
                target: c_target,
                attr,
            }),
            MountKind::Filesystem {
                fstype,
                source,
                data,
            } => {
                self.filesystem(fstype, source, data, mount, attr, c_target, is_dev, spec)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one call site; splitting the mount up again would only move the list
    fn filesystem(
        &mut self,
        fstype: &str,
        source: &str,
        data: &[String],
        mount: &Mount,
        attr: MountAttr,
        target: CString,
        is_dev: bool,
        spec: &LaunchSpec,
    ) -> Result<(), LaunchError> {
        let mut parameters = parameters(fstype, source, data)?;
        if fstype == "devpts" && self.process.terminal.is_some() {
            self.devpts = parameters;
            self.steps.push(Step::MountTerminals { target });
            return Ok(());
        }
        if fstype == "mqueue" && spec.namespaces.ipc == Namespace::Host {
            // The kernel shows the caller's queues, as Docker does for --ipc=host.
            parameters.clear();
        }
        if mount.options.copy_up {
            if fstype != "tmpfs" {
                return Err(LaunchError::Invalid(format!(
                    "tmpcopyup is for tmpfs, not {fstype}"
                )));
            }
            let image_path = mount.target.clone();
            let slot = self.source(Source::FilledTmpfs {
                image_path,
                parameters,
                attr,
            });
            self.steps.push(Step::MountDetached {
                slot,
                target,
                what: "mount a filled tmpfs".into(),
            });
            return Ok(());
        }
        // What is mounted below it needs mount points first; they are read-only afterwards.
        let late_readonly = fstype == "tmpfs" && mount.options.readonly;
        let first = if late_readonly {
            MountAttr {
                set: attr.set & !attr::RDONLY,
                ..attr
            }
        } else {
            attr
        };
        self.steps.push(Step::MountFilesystem {
            fstype: c_string(fstype.as_bytes(), "file system type")?,
            parameters,
            attr: first,
            target: target.clone(),
            keep: if is_dev { Keep::Dev } else { Keep::Nothing },
        });
        Ok(())
    }

    fn device_nodes(&mut self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        const ALWAYS: [(&str, u32, u32); 6] = [
            ("null", 1, 3),
            ("zero", 1, 5),
            ("full", 1, 7),
            ("random", 1, 8),
            ("urandom", 1, 9),
            ("tty", 5, 0),
        ];
        let listed = |name: &str| {
            spec.devices
                .iter()
                .any(|d| d.path == Path::new("/dev").join(name))
        };
        for (name, major, minor) in ALWAYS.iter().filter(|(name, ..)| !listed(name)) {
            self.steps.push(Step::MakeDevice(DeviceNode {
                path: c_string(name.as_bytes(), "device")?,
                mode: libc::S_IFCHR | 0o666,
                device: libc::makedev(*major, *minor),
                uid: 0,
                gid: 0,
            }));
        }
        for device in &spec.devices {
            let path = clean_absolute(&device.path)?;
            let short = path.strip_prefix("/dev").unwrap_or(&path);
            // The pty multiplexer and the console are the runtime's business.
            if path == Path::new("/dev/ptmx")
                || path == Path::new("/dev/console")
                || path.starts_with("/dev/pts")
            {
                continue;
            }
            let kind = match device.kind {
                DeviceKind::Char => libc::S_IFCHR,
                DeviceKind::Block => libc::S_IFBLK,
                DeviceKind::Fifo => libc::S_IFIFO,
            };
            self.steps.push(Step::MakeDevice(DeviceNode {
                path: c_string(short.as_os_str().as_encoded_bytes(), "device path")?,
                mode: kind | (device.mode & 0o7777),
                device: libc::makedev(device.major, device.minor),
                uid: device.uid,
                gid: device.gid,
            }));
        }
        for (path, to) in [
            (c"fd", c"/proc/self/fd"),
            (c"stdin", c"/proc/self/fd/0"),
            (c"stdout", c"/proc/self/fd/1"),
            (c"stderr", c"/proc/self/fd/2"),
            (c"core", c"/proc/kcore"),
            (c"ptmx", c"pts/ptmx"),
        ] {
            self.steps.push(Step::MakeLink {
                path: path.to_owned(),
                to: to.to_owned(),
            });
        }
        Ok(())
    }

    /// Read-only mounts, hidden paths, the read-only root: once everything is in place.
    fn late_restrictions(&mut self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        for mount in &spec.mounts {
            let MountKind::Filesystem { fstype, .. } = &mount.kind else {
                continue;
            };
            if fstype == "tmpfs" && mount.options.readonly {
                self.steps.push(Step::SetAttributes {
                    target: c_path(&clean_absolute(&mount.target)?)?,
                    attr: MountAttr {
                        set: attr::RDONLY,
                        ..MountAttr::default()
                    },
                    recursive: false,
                });
            }
        }
        for path in &spec.readonly_paths {
            self.steps.push(Step::MakeReadonly {
                path: c_path(&clean_absolute(path)?)?,
            });
        }
        for path in &spec.masked_paths {
            self.steps.push(Step::Mask {
                path: c_path(&clean_absolute(path)?)?,
            });
        }
        if spec.readonly_rootfs {
            self.steps.push(Step::SetAttributes {
                target: c"/".to_owned(),
                attr: MountAttr {
                    set: attr::RDONLY,
                    ..MountAttr::default()
                },
                recursive: false,
            });
        }
        Ok(())
    }

    /// Names and sysctls of the container's own namespaces.
    fn identity_of_host(&mut self, spec: &LaunchSpec) -> Result<(), LaunchError> {
        let own_uts = spec.namespaces.uts != Namespace::Host;
        for (name, what) in [
            (&spec.hostname, "host name"),
            (&spec.domainname, "domain name"),
        ] {
            let Some(name) = name else { continue };
            if !own_uts {
                return Err(LaunchError::Invalid(format!(
                    "cannot set {what} {name:?} in the host's UTS namespace"
                )));
            }
            if name.len() > 64 {
                return Err(LaunchError::Invalid(format!(
                    "{what} {name:?} is longer than 64 characters"
                )));
            }
            let name = c_string(name.as_bytes(), what)?;
            self.steps.push(match what {
                "host name" => Step::SetHostname { name },
                _ => Step::SetDomainname { name },
            });
        }
        for (name, value) in &spec.sysctls {
            let path = super::sysctl::path(name, &spec.namespaces).map_err(LaunchError::Invalid)?;
            self.steps.push(Step::SetSysctl {
                path: c_string(path.as_bytes(), "sysctl")?,
                value: c_string(value.as_bytes(), "sysctl value")?,
            });
        }
        Ok(())
    }

    fn oom_score(&mut self, process: &Process) -> Result<(), LaunchError> {
        if let Some(score) = process.oom_score_adj {
            if !(-1000..=1000).contains(&score) {
                return Err(LaunchError::Invalid(format!(
                    "oom_score_adj {score} is not between -1000 and 1000"
                )));
            }
            self.steps.push(Step::SetOomScore {
                value: c_string(score.to_string().as_bytes(), "oom_score_adj")?,
            });
        }
        Ok(())
    }

    /// From inside the root to the program.
    fn process_steps(
        &mut self,
        process: &Process,
        start: Start,
        absent: Absent,
    ) -> Result<(), LaunchError> {
        self.oom_score(process)?;
        for limit in &process.rlimits {
            self.steps.push(rlimit(limit)?);
        }
        self.steps.push(Step::NewSession);
        self.steps.push(Step::ArrangeDescriptors {
            preserve: process.preserve_fds,
        });
        self.steps.push(Step::ChangeDirectory {
            path: c_path(&clean_absolute(&process.cwd)?)?,
            absent,
        });
        self.steps.push(Step::LimitCapabilities);
        self.steps.push(Step::SetUser);
        if start == Start::Staged {
            self.steps.push(Step::FindProgram);
            self.steps.push(Step::Meet(Meeting::Created));
        }
        let filtered = process.seccomp != SeccompPolicy::Unconfined;
        // Without the flag, loading a filter needs a capability the process is about to lose; with it, the filter comes
        // last so that it may forbid what the other steps need.
        if process.no_new_privileges {
            self.steps.push(Step::SetCapabilities);
            self.steps.push(Step::NoNewPrivileges);
        }
        let reset = Step::ResetProcess {
            umask: process.umask.unwrap_or(0o022) & 0o777,
        };
        if process.no_new_privileges {
            self.steps.push(reset);
            if filtered {
                self.steps.push(Step::LoadFilter);
            }
        } else {
            if filtered {
                self.steps.push(Step::LoadFilter);
            }
            self.steps.push(Step::SetCapabilities);
            self.steps.push(reset);
        }
        self.steps.push(Step::Execute);
        Ok(())
    }
}

impl fmt::Display for LaunchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (slot, source) in self.sources.iter().enumerate() {
            writeln!(f, "open {slot}: {source}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{number:3} {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Root(Rootfs::Overlay { lower, upper, .. }) => {
                write!(
                    f,
                    "overlay of {} layers with upper {}",
                    lower.len(),
                    upper.display()
                )
            }
            Source::Root(Rootfs::Directory(path)) => write!(f, "root {}", path.display()),
            Source::Bind {
                path, recursive, ..
            } => {
                write!(
                    f,
                    "{} {}",
                    if *recursive { "rbind" } else { "bind" },
                    path.display()
                )
            }
            Source::FilledTmpfs { image_path, .. } => {
                write!(f, "tmpfs filled from {}", image_path.display())
            }
            Source::Namespace(path) => write!(f, "namespace {}", path.display()),
        }
    }
}

fn checked_rootfs(rootfs: &Rootfs) -> Result<Rootfs, LaunchError> {
    let absolute = |path: &Path, what: &str| match path.is_absolute() {
        true => Ok(()),
        false => Err(LaunchError::Invalid(format!(
            "{what} {path:?} is not absolute"
        ))),
    };
    match rootfs {
        Rootfs::Directory(path) => absolute(path, "root directory")?,
        Rootfs::Overlay { lower, upper, work } => {
            if lower.is_empty() {
                return Err(LaunchError::Invalid(
                    "an overlay root needs at least one layer".into(),
                ));
            }
            absolute(upper, "upper directory")?;
            absolute(work, "work directory")?;
            for layer in lower {
                absolute(layer, "layer")?;
            }
        }
    }
    Ok(rootfs.clone())
}

fn bind(
    path: &Path,
    recursive: bool,
    attr: MountAttr,
    options: &MountOptions,
) -> Result<Source, LaunchError> {
    if !path.is_absolute() {
        return Err(LaunchError::Invalid(format!(
            "bind source {path:?} is not absolute"
        )));
    }
    let attr_recursive = match options.recursive_readonly {
        RecursiveReadonly::No => Recursion::Top,
        RecursiveReadonly::IfPossible => Recursion::IfPossible,
        RecursiveReadonly::Force => Recursion::Force,
    };
    Ok(Source::Bind {
        path: path.to_owned(),
        recursive,
        attr,
        attr_recursive,
    })
}
