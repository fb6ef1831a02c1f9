//! Everything a launch needs, opened and resolved before the clone: root, binds, user, filter, terminal, cgroup.
//!
//! What can fail for reasons a user understands fails here, in ordinary Rust. Nothing is visible outside until the
//! cgroup is made, which therefore comes last.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use super::LaunchError;
use super::child::Credentials;
use super::failure::message;
use super::parent::Surroundings;
use super::plan::{LaunchPlan, ProcessPlan, ROOT, Recursion, Source};
use super::step::{Step, attr};
use super::values::c_string;
use crate::capabilities::CapabilitySet;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::sys::kernel;
use crate::sys::raw::MountAttr;
use crate::terminal::{self, Terminal};
use crate::{identity, root, seccomp, tree};

/// Superblock magic of procfs.
const PROC_MAGIC: u64 = 0x9fa0;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything opened for a launch.
pub(super) struct Opened {
    pub(super) sources: Vec<OwnedFd>,
    pub(super) fds: Vec<RawFd>,
    pub(super) host_proc: OwnedFd,
    pub(super) null: Option<OwnedFd>,
    pub(super) terminal: Option<Terminal>,
    pub(super) init: Option<OwnedFd>,
    pub(super) cgroup: Option<JoinedCgroup>,
    pub(super) view: View,
    pub(super) credentials: Credentials,
    pub(super) filter: Arc<seccomp::Program>,
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) warnings: Vec<String>,
}

/// A cgroup to be joined, removed again when the launch fails.
pub(super) struct JoinedCgroup {
    pub(super) cgroup: Cgroup,
    pub(super) files: Vec<OwnedFd>,
    pub(super) born_in: Option<OwnedFd>,
    pub(super) made: bool,
}

impl JoinedCgroup {
    pub(super) fn undo(&self) {
        if self.made
            && let Err(error) = self.cgroup.remove()
        {
            tracing::warn!(%error, "a failed launch left its cgroup behind");
        }
    }
}

/// The cgroup view with what it borrows from.
#[derive(Default)]
pub(super) struct View {
    pub(super) unified: bool,
    pub(super) hierarchies: Vec<(CString, OwnedFd)>,
    pub(super) links: Vec<(CString, CString)>,
}

pub(super) fn open_everything(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
) -> Result<Opened, LaunchError> {
    let step =
        |what: String, error: io::Error| LaunchError::Step(format!("{what}: {}", message(&error)));
    let host_proc = open_host_proc().map_err(|error| step("open /proc".into(), error))?;
    let mut warnings = Vec::new();
    let mut sources = Vec::with_capacity(plan.sources.len());
    for source in &plan.sources {
        let fd = open_source(source, &sources, &mut warnings)?;
        sources.push(fd);
    }
    let root = match &around.target {
        Some(target) => target.root.as_fd(),
        None => sources
            .get(ROOT)
            .map(AsFd::as_fd)
            .ok_or(LaunchError::Invalid("the plan has no root".into()))?,
    };
    let process = &plan.process;
    let who = identity::resolve(root, &process.user, &process.additional_groups)
        .map_err(|error| LaunchError::Invalid(error.to_string()))?;
    let credentials = credentials(process, &who)?;
    let filter = seccomp::program(&process.seccomp, process.capabilities.bounding)
        .map_err(|error| LaunchError::Invalid(error.to_string()))?;
    let Arguments {
        argv,
        programs,
        envp,
    } = arguments(process, &who.home)?;
    let init = process.init.then(crate::init::docker_init).transpose();
    let init = init.map_err(|error| step("open the init program".into(), error))?;
    let needs_null = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Mask { .. }));
    let null = needs_null
        .then(null_device)
        .transpose()
        .map_err(|error| step("open /dev/null".into(), error))?;
    let terminal = match (&process.terminal, &around.target) {
        (None, _) => None,
        (Some(size), None) => Some(terminal::create(&plan.devpts, *size)),
        (Some(size), Some(target)) => Some(terminal::open_in(target.root.as_fd(), *size)),
    };
    let terminal = terminal
        .transpose()
        .map_err(|error| step("open a terminal".into(), error))?;
    if terminal.is_none() && around.stdio.is_none() {
        return Err(LaunchError::Invalid(
            "standard streams are missing and no terminal is asked for".into(),
        ));
    }
    let fds = match &around.target {
        Some(target) => vec![target.pidfd.as_raw_fd()],
        None => sources.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    let mut opened = Opened {
        fds,
        sources,
        host_proc,
        null,
        terminal,
        init,
        cgroup: None,
        view: View::default(),
        credentials,
        filter,
        programs,
        argv,
        envp,
        warnings,
    };
    join_cgroup(plan, around, &mut opened)?;
    Ok(opened)
}

/// Cgroups come last: nothing that fails before leaves a directory behind.
fn join_cgroup(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
    opened: &mut Opened,
) -> Result<(), LaunchError> {
    let failed = |error: crate::cgroup::CgroupError| LaunchError::Step(error.to_string());
    let hierarchy = match plan
        .steps
        .iter()
        .any(|s| matches!(s, Step::JoinCgroups | Step::MountCgroups { .. }))
    {
        true => host_hierarchy()?,
        false => return Ok(()),
    };
    let made = match (
        &plan.cgroup,
        around
            .target
            .as_ref()
            .and_then(|target| target.cgroup.clone()),
    ) {
        (Some(spec), _) => {
            let cgroup = hierarchy.open(&spec.path);
            let made = !cgroup.exists();
            let joined = JoinedCgroup {
                cgroup,
                files: Vec::new(),
                born_in: None,
                made,
            };
            let limited = joined
                .cgroup
                .create()
                .and_then(|()| joined.cgroup.apply(&spec.resources));
            match limited {
                Ok(more) => opened.warnings.extend(more),
                Err(error) => {
                    joined.undo();
                    return Err(failed(error));
                }
            }
            Some(joined)
        }
        (None, Some(cgroup)) => Some(JoinedCgroup {
            cgroup,
            files: Vec::new(),
            born_in: None,
            made: false,
        }),
        (None, None) => None,
    };
    let finish = |joined: &mut Option<JoinedCgroup>, view: &mut View| -> Result<(), LaunchError> {
        if let Some(joined) = joined.as_mut() {
            joined.files = joined.cgroup.join_files().map_err(failed)?;
            joined.born_in = joined.cgroup.clone_target().map_err(failed)?;
        }
        if let Some(Step::MountCgroups { attr, .. }) = plan
            .steps
            .iter()
            .find(|step| matches!(step, Step::MountCgroups { .. }))
        {
            *view = cgroup_view(hierarchy, plan, attr)?;
        }
        Ok(())
    };
    let mut joined = made;
    if let Err(error) = finish(&mut joined, &mut opened.view) {
        if let Some(joined) = &joined {
            joined.undo();
        }
        return Err(error);
    }
    opened.cgroup = joined;
    Ok(())
}

/// The layout of the host's cgroups, read once.
fn host_hierarchy() -> Result<&'static Hierarchy, LaunchError> {
    static HIERARCHY: OnceLock<Hierarchy> = OnceLock::new();
    if let Some(hierarchy) = HIERARCHY.get() {
        return Ok(hierarchy);
    }
    let detected = Hierarchy::detect().map_err(|error| LaunchError::Step(error.to_string()))?;
    Ok(HIERARCHY.get_or_init(|| detected))
}

fn cgroup_view(
    hierarchy: &Hierarchy,
    plan: &LaunchPlan,
    attr: &MountAttr,
) -> Result<View, LaunchError> {
    let unified = hierarchy.version() == crate::cgroup::Version::V2;
    let mut view = View {
        unified,
        ..View::default()
    };
    if unified {
        return Ok(view);
    }
    for (controllers, mount) in hierarchy.v1_mounts() {
        let Some(name) = mount.file_name() else {
            continue;
        };
        let path = match &plan.cgroup {
            Some(spec) => mount.join(spec.path.as_path()),
            None => mount.to_owned(),
        };
        let restrict = MountAttr {
            propagation: libc::MS_PRIVATE,
            ..*attr
        };
        let tree = detached_copy(&path, false, &restrict, false).map_err(|error| {
            LaunchError::Step(format!(
                "show cgroup {}: {}",
                path.display(),
                message(&error)
            ))
        })?;
        let name = c_string(name.as_bytes(), "cgroup mount")?;
        for controller in controllers
            .iter()
            .filter(|c| c.as_bytes() != name.as_bytes() && !c.contains('='))
        {
            view.links
                .push((c_string(controller.as_bytes(), "controller")?, name.clone()));
        }
        view.hierarchies.push((name, tree));
    }
    Ok(view)
}

/// Opens one source. The root comes first and is among `opened` for the later ones.
fn open_source(
    source: &Source,
    opened: &[OwnedFd],
    warnings: &mut Vec<String>,
) -> Result<OwnedFd, LaunchError> {
    match source {
        Source::Root(rootfs) => {
            root::detached(rootfs).map_err(|error| LaunchError::Step(error.to_string()))
        }
        Source::Namespace(path) => {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(
                |errno| {
                    LaunchError::Step(format!(
                        "open namespace {}: {}",
                        path.display(),
                        message(&errno.into())
                    ))
                },
            )
        }
        Source::Bind {
            path,
            recursive,
            attr,
            attr_recursive,
        } => bind_source(path, *recursive, attr, *attr_recursive, warnings).map_err(|error| {
            LaunchError::Step(format!("bind {}: {}", path.display(), message(&error)))
        }),
        Source::FilledTmpfs {
            image_path,
            parameters,
            attr,
        } => {
            let root = opened
                .get(ROOT)
                .ok_or(LaunchError::Invalid("the plan has no root".into()))?;
            crate::copyup::filled_tmpfs(root.as_fd(), image_path, parameters, attr.set).map_err(
                |error| {
                    LaunchError::Step(format!(
                        "fill tmpfs for {}: {}",
                        image_path.display(),
                        message(&error)
                    ))
                },
            )
        }
    }
}

fn bind_source(
    path: &Path,
    recursive: bool,
    wanted: &MountAttr,
    reach: Recursion,
    warnings: &mut Vec<String>,
) -> io::Result<OwnedFd> {
    let mut wanted = *wanted;
    if wanted.propagation == 0 {
        wanted.propagation = libc::MS_PRIVATE | libc::MS_REC;
    }
    let deep_propagation = wanted.propagation & libc::MS_REC != 0;
    wanted.propagation &= !libc::MS_REC;
    let deep_readonly = recursive && reach != Recursion::Top && wanted.set & attr::RDONLY != 0;
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut tree = kernel::clone_tree(fd.as_fd(), recursive)?;
    let plain = wanted.set == 0;
    if recursive && deep_propagation != (plain || deep_readonly) {
        // The two reach differently far.
        let only = MountAttr {
            propagation: wanted.propagation,
            ..MountAttr::default()
        };
        tree::set_attributes(&mut tree, &only, deep_propagation)?;
        wanted.propagation = 0;
    }
    let deep = recursive
        && if plain {
            deep_propagation
        } else {
            deep_readonly
        };
    match tree::set_attributes(&mut tree, &wanted, deep) {
        // A file system below may refuse, and so does a kernel before 5.12.
        Err(error)
            if deep_readonly
                && reach == Recursion::IfPossible
                && (error.raw_os_error() == Some(libc::EINVAL)
                    || error.kind() == io::ErrorKind::Unsupported) =>
        {
            warnings.push(format!("{}: mounts below it stay writable", path.display()));
            tree::set_attributes(&mut tree, &wanted, false)?;
        }
        other => other?,
    }
    Ok(tree)
}

fn detached_copy(
    path: &Path,
    recursive: bool,
    attr: &MountAttr,
    deep: bool,
) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut tree = kernel::clone_tree(fd.as_fd(), recursive)?;
    tree::set_attributes(&mut tree, attr, deep)?;
    Ok(tree)
}

/// The host's `/proc`, verified to be a procfs.
fn open_host_proc() -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if rustix::fs::fstatfs(&fd)?.f_type as u64 != PROC_MAGIC {
        return Err(io::Error::other("it is not a procfs"));
    }
    Ok(fd)
}

/// A detached copy of `/dev/null`, verified to be the null device (CVE-2025-31133).
fn null_device() -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(
        "/dev/null",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
        return Err(io::Error::other("it is not the null device"));
    }
    let mut tree = kernel::clone_tree(fd.as_fd(), false)?;
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    tree::set_attributes(&mut tree, &private, false)?;
    Ok(tree)
}

fn credentials(
    process: &ProcessPlan,
    who: &identity::Identity,
) -> Result<Credentials, LaunchError> {
    let wanted = &process.capabilities;
    let available = CapabilitySet::available();
    let missing = wanted
        .permitted
        .union(wanted.bounding)
        .difference(available);
    if !missing.is_empty() {
        return Err(LaunchError::Invalid(format!(
            "capabilities {missing} are not available to this engine itself"
        )));
    }
    Ok(Credentials {
        uid: who.uid,
        gid: who.gid,
        groups: who.groups.clone(),
        dropped: available.difference(wanted.bounding).bits(),
        effective: wanted.effective.bits(),
        permitted: wanted.permitted.bits(),
        inheritable: wanted.inheritable.bits(),
        ambient: wanted.ambient.bits(),
    })
}

/// What the program is executed with.
struct Arguments {
    argv: Vec<CString>,
    /// Where the program may be.
    programs: Vec<CString>,
    envp: Vec<CString>,
}

/// Arguments, places to look for the program, environment.
fn arguments(process: &ProcessPlan, home: &str) -> Result<Arguments, LaunchError> {
    let mut argv = Vec::with_capacity(process.args.len() + 2);
    if process.init {
        argv.extend([crate::init::INIT_PATH.to_owned(), c"--".to_owned()]);
    }
    for argument in &process.args {
        argv.push(c_string(argument.as_bytes(), "argument")?);
    }
    let mut envp = Vec::with_capacity(process.env.len() + 1);
    for variable in &process.env {
        // The variable's value may be a secret: name it only.
        let name = variable.split('=').next().unwrap_or_default();
        envp.push(CString::new(variable.as_bytes()).map_err(|_| {
            LaunchError::Invalid(format!(
                "environment variable {name:?} contains a zero byte"
            ))
        })?);
    }
    let value = |name: &str| {
        process
            .env
            .iter()
            .rev()
            .find_map(|v| v.strip_prefix(name)?.strip_prefix('='))
    };
    if value("HOME").is_none_or(str::is_empty) {
        envp.retain(|variable| !variable.as_bytes().starts_with(b"HOME="));
        envp.push(c_string(
            format!("HOME={home}").as_bytes(),
            "home directory",
        )?);
    }
    let mut programs = Vec::new();
    if !process.init
        && let Some(program) = process.args.first()
    {
        if program.contains('/') {
            programs.push(c_string(program.as_bytes(), "program")?);
        } else {
            let path = value("PATH").unwrap_or(DEFAULT_PATH);
            for directory in path
                .split(':')
                .filter(|directory| directory.starts_with('/'))
            {
                programs.push(c_string(
                    format!("{directory}/{program}").as_bytes(),
                    "program",
                )?);
            }
        }
    }
    Ok(Arguments {
        argv,
        programs,
        envp,
    })
}
