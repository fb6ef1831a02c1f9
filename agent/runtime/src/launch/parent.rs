//! The parent's half of a launch: opens everything, clones, and turns the child's report into an answer.
//!
//! Everything that can fail for reasons a user understands happens here, in ordinary Rust, before the clone. A failure
//! afterwards undoes what was made: the child is reaped, the cgroup removed.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use super::child::{CgroupView, Context, Credentials, Report};
use super::plan::{LaunchPlan, ProcessPlan, ROOT, Recursion, Source, c_string};
use super::step::{Part, Step, attr};
use super::{LaunchError, Launched, Stdio};
use crate::capabilities::CapabilitySet;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::identity;
use crate::root;
use crate::seccomp;
use crate::sys::clone::{Child, CloneRequest};
use crate::sys::kernel;
use crate::sys::raw::MountAttr;
use crate::terminal::{self, Terminal};

/// Superblock magic of procfs.
const PROC_MAGIC: u64 = 0x9fa0;
/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a launch gets from its caller besides the plan.
pub(crate) struct Surroundings<'fd> {
    pub(crate) stdio: Option<Stdio<'fd>>,
    /// The running container an exec goes into.
    pub(crate) target: Option<Target<'fd>>,
    /// Descriptors of the staged start: the child's end of the meeting socket, and the FIFO.
    pub(crate) meeting: Option<(BorrowedFd<'fd>, BorrowedFd<'fd>)>,
}

/// A running container.
pub(crate) struct Target<'fd> {
    pub(crate) pidfd: BorrowedFd<'fd>,
    pub(crate) pid: i32,
    /// Its root directory.
    pub(crate) root: OwnedFd,
    /// Its pid namespace.
    pub(crate) pid_namespace: OwnedFd,
    pub(crate) cgroup: Option<Cgroup>,
}

/// Everything opened for a launch.
pub(crate) struct Opened {
    sources: Vec<OwnedFd>,
    fds: Vec<RawFd>,
    host_proc: OwnedFd,
    null: Option<OwnedFd>,
    terminal: Option<Terminal>,
    init: Option<OwnedFd>,
    cgroup: Option<JoinedCgroup>,
    view: View,
    credentials: Credentials,
    filter: Arc<seccomp::Program>,
    programs: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
    warnings: Vec<String>,
}

/// A cgroup to be joined, removed again when the launch fails.
struct JoinedCgroup {
    cgroup: Cgroup,
    files: Vec<OwnedFd>,
    born_in: Option<OwnedFd>,
    made: bool,
}

impl JoinedCgroup {
    fn undo(&self) {
        if self.made
            && let Err(error) = self.cgroup.remove()
        {
            tracing::warn!(%error, "a failed launch left its cgroup behind");
        }
    }
}

/// The cgroup view with what it borrows from.
#[derive(Default)]
struct View {
    unified: bool,
    hierarchies: Vec<(CString, OwnedFd)>,
    links: Vec<(CString, CString)>,
}

/// Carries a plan out until the program runs, or until the child waits at its first meeting.
pub(crate) fn launch(plan: &LaunchPlan, around: Surroundings<'_>) -> Result<Running, LaunchError> {
    let opened = Box::new(open_everything(plan, &around)?);
    let outcome = clone_child(plan, &around, &opened);
    if outcome.is_err()
        && let Some(cgroup) = &opened.cgroup
    {
        cgroup.undo();
    }
    let (child, report) = outcome?;
    let terminal = match &opened.terminal {
        Some(terminal) => Some(
            terminal
                .master
                .try_clone()
                .map_err(|e| LaunchError::Step(message(&e)))?,
        ),
        None => None,
    };
    let warnings = opened.warnings.clone();
    if around.meeting.is_some() {
        // The child goes on reading all of this until it executes.
        Box::leak(opened);
    }
    Ok(Running {
        child,
        report,
        terminal,
        warnings,
    })
}

/// A cloned child.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) report: Box<Report>,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

impl From<Running> for Launched {
    fn from(running: Running) -> Launched {
        Launched {
            pid: running.child.pid,
            pidfd: running.child.pidfd,
            terminal: running.terminal,
            warnings: running.warnings,
        }
    }
}

fn open_everything(plan: &LaunchPlan, around: &Surroundings<'_>) -> Result<Opened, LaunchError> {
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

/// Signals this process ignores, asked for once: it decides that at its start.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(kernel::ignored_signals)
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
    let tree = kernel::clone_tree(fd.as_fd(), recursive)?;
    let plain = wanted.set == 0;
    if recursive && deep_propagation != (plain || deep_readonly) {
        // The two reach differently far.
        let only = MountAttr {
            propagation: wanted.propagation,
            ..MountAttr::default()
        };
        kernel::set_mount_attributes(tree.as_fd(), &only, deep_propagation)?;
        wanted.propagation = 0;
    }
    let deep = recursive
        && if plain {
            deep_propagation
        } else {
            deep_readonly
        };
    match kernel::set_mount_attributes(tree.as_fd(), &wanted, deep) {
        Err(error)
            if deep_readonly
                && reach == Recursion::IfPossible
                && error.raw_os_error() == Some(libc::EINVAL) =>
        {
            warnings.push(format!("{}: mounts below it stay writable", path.display()));
            kernel::set_mount_attributes(tree.as_fd(), &wanted, false)?;
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
    let tree = kernel::clone_tree(fd.as_fd(), recursive)?;
    kernel::set_mount_attributes(tree.as_fd(), attr, deep)?;
    Ok(tree)
}

/// The host's `/proc`, verified to be a procfs.
pub(crate) fn open_host_proc() -> io::Result<OwnedFd> {
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
    let tree = kernel::clone_tree(fd.as_fd(), false)?;
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    match kernel::set_mount_attributes(tree.as_fd(), &private, false) {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(tree),
    }
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

/// Clones and waits for the program to run, or for the first meeting.
fn clone_child(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
    opened: &Opened,
) -> Result<(Child, Box<Report>), LaunchError> {
    let joined = opened.cgroup.as_ref();
    let born_in = joined
        .and_then(|joined| joined.born_in.as_ref())
        .map(AsRawFd::as_raw_fd);
    match clone_once(plan, around, opened, born_in) {
        // Before 5.7, or a cgroup whose controllers are handed on (an exec joins where the container's process is).
        Err(Attempt::Clone(error))
            if born_in.is_some()
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES)
                ) =>
        {
            clone_once(plan, around, opened, None).map_err(Attempt::into_error)
        }
        other => other.map_err(Attempt::into_error),
    }
}

enum Attempt {
    Clone(io::Error),
    Launch(LaunchError),
}

impl Attempt {
    fn into_error(self) -> LaunchError {
        match self {
            Attempt::Clone(error) => LaunchError::Step(format!(
                "clone the container's process: {}",
                message(&error)
            )),
            Attempt::Launch(error) => error,
        }
    }
}

fn clone_once(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
    opened: &Opened,
    born_in: Option<RawFd>,
) -> Result<(Child, Box<Report>), Attempt> {
    let mut joining: Vec<OwnedFd> = Vec::new();
    let mut cgroup_files: Vec<RawFd> = Vec::new();
    if let Some(joined) = &opened.cgroup {
        cgroup_files.extend(joined.files.iter().map(AsRawFd::as_raw_fd));
        if joined.born_in.is_some() && born_in.is_none() {
            let file = match &around.target {
                Some(target) => joined.cgroup.unified_procs_of(target.pid),
                None => joined.cgroup.unified_procs(),
            };
            joining.extend(file.map_err(|e| Attempt::Launch(LaunchError::Step(e.to_string())))?);
            cgroup_files.extend(joining.iter().map(AsRawFd::as_raw_fd));
        }
    }
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect()
    };
    let argv = pointers(&opened.argv);
    let envp = pointers(&opened.envp);
    let programs: Vec<&CStr> = opened.programs.iter().map(CString::as_c_str).collect();
    let hierarchies: Vec<(&CStr, RawFd)> = opened
        .view
        .hierarchies
        .iter()
        .map(|(name, fd)| (name.as_c_str(), fd.as_raw_fd()))
        .collect();
    let links: Vec<(&CStr, &CStr)> = opened
        .view
        .links
        .iter()
        .map(|(a, b)| (a.as_c_str(), b.as_c_str()))
        .collect();
    let view = CgroupView {
        unified: opened.view.unified,
        hierarchies: &hierarchies,
        links: &links,
    };
    let number = |fd: Option<&OwnedFd>| fd.map_or(-1, AsRawFd::as_raw_fd);
    let (stdio, terminal, devpts) = streams(around, opened);
    let (meeting, start_fifo) = around
        .meeting
        .map_or((-1, -1), |(a, b)| (a.as_raw_fd(), b.as_raw_fd()));
    let program_fd = number(opened.init.as_ref());
    let lowest = plan.process.preserve_fds.saturating_add(3) as RawFd;
    let mut kept: Vec<RawFd> = [meeting, start_fifo, program_fd]
        .into_iter()
        .filter(|fd| *fd >= lowest)
        .collect();
    kept.sort_unstable();
    let report = Box::new(Report::default());
    let root = match &around.target {
        Some(_) => -1,
        None => number(opened.sources.get(ROOT)),
    };
    let context = Box::new(Context {
        steps: &plan.steps,
        report: &report,
        fds: &opened.fds,
        root,
        host_proc: opened.host_proc.as_raw_fd(),
        null: number(opened.null.as_ref()),
        cgroup_files: &cgroup_files,
        cgroup_view: view,
        stdio,
        terminal,
        devpts,
        credentials: &opened.credentials,
        filter: &opened.filter.instructions,
        filter_flags: opened.filter.flags,
        programs: &programs,
        program_fd,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        ignored_signals: ignored_signals(),
        meeting,
        start_fifo,
        kept: &kept,
    });
    let staged = around.meeting.is_some();
    let request = CloneRequest {
        namespaces: plan.namespaces,
        suspend: !staged,
        into_cgroup: born_in,
    };
    let born = match birth_namespace(plan, around) {
        Ok(namespace) => InPidNamespace::enter(namespace).map_err(Attempt::Launch)?,
        Err(error) => return Err(Attempt::Launch(error)),
    };
    let child = super::clone(request, &context);
    drop(born);
    let child = child.map_err(Attempt::Clone)?;
    if staged {
        // The child goes on reading all of this until it executes; the caller keeps the plan and ends without freeing.
        Box::leak(context);
        std::mem::forget((
            argv,
            envp,
            programs,
            hierarchies,
            links,
            kept,
            cgroup_files,
            joining,
        ));
    } else {
        verdict(plan, &report, &child).map_err(Attempt::Launch)?;
    }
    Ok((child, report))
}

fn streams(around: &Surroundings<'_>, opened: &Opened) -> ([RawFd; 3], RawFd, RawFd) {
    match (&opened.terminal, around.stdio) {
        (Some(terminal), _) => {
            let slave = terminal.slave.as_raw_fd();
            (
                [slave; 3],
                slave,
                terminal.devpts.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            )
        }
        (None, Some(stdio)) => (
            [
                stdio.stdin.as_raw_fd(),
                stdio.stdout.as_raw_fd(),
                stdio.stderr.as_raw_fd(),
            ],
            -1,
            -1,
        ),
        (None, None) => ([-1; 3], -1, -1),
    }
}

/// The pid namespace to be born in, when it is an existing one.
fn birth_namespace(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
) -> Result<Option<OwnedFd>, LaunchError> {
    let failed = |error: io::Error| {
        LaunchError::Step(format!("open the pid namespace: {}", message(&error)))
    };
    match (&plan.join_pid, &around.target) {
        (Some(path), _) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(Some)
            .map_err(|errno| failed(errno.into())),
        (None, Some(target)) => target.pid_namespace.try_clone().map(Some).map_err(failed),
        (None, None) => Ok(None),
    }
}

/// While this lives, children of the calling thread are born in another pid namespace.
struct InPidNamespace(Option<OwnedFd>);

impl InPidNamespace {
    fn enter(namespace: Option<OwnedFd>) -> Result<InPidNamespace, LaunchError> {
        let Some(namespace) = namespace else {
            return Ok(InPidNamespace(None));
        };
        let failed = |error: io::Error| {
            LaunchError::Step(format!("join the pid namespace: {}", message(&error)))
        };
        let own = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| failed(errno.into()))?;
        kernel::enter(namespace.as_fd(), libc::CLONE_NEWPID).map_err(failed)?;
        Ok(InPidNamespace(Some(own)))
    }
}

impl Drop for InPidNamespace {
    fn drop(&mut self) {
        if let Some(own) = &self.0
            && let Err(error) = kernel::enter(own.as_fd(), libc::CLONE_NEWPID)
        {
            // Only possible if the kernel refuses a process its own namespace.
            tracing::error!(%error, "cannot return to the own pid namespace");
        }
    }
}

/// Reads the report of a child that has executed or ended; reaps one that failed.
pub(crate) fn verdict(
    plan: &LaunchPlan,
    report: &Report,
    child: &Child,
) -> Result<(), LaunchError> {
    let errno = report.errno.load(Ordering::Acquire);
    if errno == 0 && report.executing.load(Ordering::Acquire) == 1 {
        return Ok(());
    }
    let status = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    let step = plan.steps.get(report.step.load(Ordering::Acquire) as usize);
    if errno == 0 {
        let how = match status
            .ok()
            .flatten()
            .and_then(|status| status.terminating_signal())
        {
            Some(signal) => format!("was killed by signal {signal}"),
            None => "ended".to_owned(),
        };
        let where_ = step.map_or_else(|| "at its start".to_owned(), |step| format!("at: {step}"));
        return Err(LaunchError::Step(format!(
            "the container's process {how} {where_}"
        )));
    }
    let part = Part::from_number(report.part.load(Ordering::Acquire));
    Err(explain(plan, step, part, errno))
}

/// The error of a step, in Docker's words where Docker has some.
fn explain(plan: &LaunchPlan, step: Option<&Step>, part: Part, errno: i32) -> LaunchError {
    let reason = message(&io::Error::from_raw_os_error(errno));
    let program = plan.process.args.first().map_or("", String::as_str);
    match (part, errno) {
        (Part::Program, libc::ENOENT | libc::ENOTDIR) if !program.contains('/') => {
            return LaunchError::NotFound(format!(
                "exec: {program:?}: executable file not found in $PATH"
            ));
        }
        (Part::Program, libc::ENOENT) => {
            return LaunchError::NotFound(format!("exec: {program:?}: stat {program}: {reason}"));
        }
        (Part::Program, _) => {
            return LaunchError::NotExecutable(format!("exec: {program:?}: {reason}"));
        }
        (Part::Interpreter, _) => {
            return LaunchError::NotFound(format!("exec {program}: {reason}"));
        }
        _ => {}
    }
    let what = step.map_or_else(|| "launch".to_owned(), Step::to_string);
    match part {
        Part::MountPoint => LaunchError::Step(format!("{what}: make the mount point: {reason}")),
        Part::OutsideRoot => {
            LaunchError::Step(format!("{what}: it is outside the container's root"))
        }
        Part::NoNullDevice => {
            LaunchError::Step(format!("{what}: there is no null device to cover it with"))
        }
        Part::Whole | Part::Program | Part::Interpreter => match (step, errno) {
            (Some(Step::MountDetached { .. }), libc::ENOTDIR | libc::EINVAL) => {
                LaunchError::Step(format!(
                    "{what}: are you trying to mount a directory onto a file (or vice-versa)? check that \
                 the host path exists and is the expected type"
                ))
            }
            (Some(Step::ChangeDirectory { .. }), libc::ENOTDIR | libc::EACCES) => {
                LaunchError::NotExecutable(format!("{what}: {reason}"))
            }
            _ => LaunchError::Step(format!("{what}: {reason}")),
        },
    }
}

/// A kernel error in lower case without Rust's error number.
pub(crate) fn message(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
