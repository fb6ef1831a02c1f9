//! The child between clone and exec: interprets the steps with raw system calls.
//!
//! It shares its memory with a parent that is suspended or waiting. Therefore, everywhere in this file: no allocation,
//! no lock, no panic, no thread-local storage, nothing from `std`; nothing shared is written but the [`Report`]. A
//! failure ends the child with the step's number and the kernel's error number in the report.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use syscalls::Sysno;

use super::missing::{self, Last};
use super::step::{Absent, DeviceNode, Keep, Meeting, Part, Step};
use crate::sys::raw::{self, Errno, MountAttr};

/// Longest path handled, its final zero included.
const PATH_MAX: usize = 4096;

/// What the child tells the parent, in memory both see.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Number of the step being done.
    pub(crate) step: AtomicU32,
    /// The kernel's error number; 0 is none.
    pub(crate) errno: AtomicI32,
    /// Which part of the step failed: a [`Part`].
    pub(crate) part: AtomicU32,
    /// The program was handed to the kernel, or is about to be.
    pub(crate) executing: AtomicU32,
}

/// Everything the steps need that was found out at run time. Only read by the child.
pub(crate) struct Context<'a> {
    pub(crate) steps: &'a [Step],
    pub(crate) report: &'a Report,
    /// Descriptors by slot.
    pub(crate) fds: &'a [i32],
    /// Slot of the root in `fds`; none for an exec.
    pub(crate) root: i32,
    /// The host's procfs.
    pub(crate) host_proc: i32,
    /// A detached copy of the host's `/dev/null`, checked by the parent.
    pub(crate) null: i32,
    /// `tasks` files of v1 hierarchies, or `cgroup.procs` where the clone could not join.
    pub(crate) cgroup_files: &'a [i32],
    pub(crate) cgroup_view: CgroupView<'a>,
    /// Standard streams.
    pub(crate) stdio: [i32; 3],
    /// The slave side of the terminal, -1 without one.
    pub(crate) terminal: i32,
    /// The devpts of that terminal, -1 if it comes from a running container.
    pub(crate) devpts: i32,
    pub(crate) credentials: &'a Credentials,
    pub(crate) filter: &'a [libc::sock_filter],
    pub(crate) filter_flags: usize,
    /// Where the program may be, in order of preference.
    pub(crate) programs: &'a [&'a CStr],
    /// A descriptor to execute instead of a path, -1 for none.
    pub(crate) program_fd: i32,
    pub(crate) argv: *const *const c_char,
    pub(crate) envp: *const *const c_char,
    /// Signals ignored by the parent, which exec would keep ignored.
    pub(crate) ignored_signals: u64,
    /// Where the child tells of a meeting and waits for the answer; -1 without meetings.
    pub(crate) meeting: i32,
    /// A FIFO opened for reading and writing from which the start is read, -1 where the launch starts at once.
    pub(crate) start_fifo: i32,
    /// Descriptors that stay open until the program runs, sorted and above the preserved ones. None of them may lead to
    /// a directory: `/proc/self/fd/N/..` would be a way out.
    pub(crate) kept: &'a [i32],
}

/// How the host's cgroups look in a container.
#[derive(Debug, Default)]
pub(crate) struct CgroupView<'a> {
    /// The host has only the unified hierarchy.
    pub(crate) unified: bool,
    /// v1: name of each hierarchy's directory with a detached, already restricted copy of the container's part.
    pub(crate) hierarchies: &'a [(&'a CStr, i32)],
    /// v1: names of single controllers that share a hierarchy, with that hierarchy's name.
    pub(crate) links: &'a [(&'a CStr, &'a CStr)],
}

/// Who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Capabilities to be dropped from the bounding set: bit n is number n.
    pub(crate) dropped: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// A failure: error number and part.
type Failure = (Errno, Part);
type Outcome = Result<(), Failure>;

fn whole(errno: Errno) -> Failure {
    (errno, Part::Whole)
}

/// State of the interpreter on the child's own stack.
struct Child<'a> {
    context: &'a Context<'a>,
    /// The `/dev` tmpfs.
    dev: i32,
    /// An attached `/dev/null` mount of which copies can be made.
    null: i32,
    /// An empty read-only tmpfs of which copies can be made.
    empty: i32,
}

/// The child's whole life. Never returns.
///
/// # Safety
///
/// Called by the clone with a pointer to a [`Context`] that outlives the child's use of it.
pub(crate) unsafe extern "C" fn run(context: *mut Context<'_>) -> ! {
    // SAFETY: see above; the parent does not touch it meanwhile.
    let context = unsafe { &*context };
    let mut child = Child {
        context,
        dev: -1,
        null: -1,
        empty: -1,
    };
    let mut number = 0u32;
    for step in context.steps {
        context.report.step.store(number, Ordering::Release);
        if let Err((errno, part)) = child.take(step) {
            context.report.part.store(part as u32, Ordering::Release);
            context.report.errno.store(errno, Ordering::Release);
            raw::exit(125);
        }
        number = number.wrapping_add(1);
    }
    // The last step executes; getting here means the plan had none.
    context.report.errno.store(libc::ENOEXEC, Ordering::Release);
    raw::exit(125)
}

impl Child<'_> {
    fn slot(&self, slot: usize) -> i32 {
        self.context.fds.get(slot).copied().unwrap_or(-1)
    }

    fn take(&mut self, step: &Step) -> Outcome {
        match step {
            Step::JoinCgroups => self.join_cgroups(),
            Step::OwnCgroupNamespace => done(raw::unshare(libc::CLONE_NEWCGROUP)),
            Step::JoinNamespaces { slot, flags, .. } => done(raw::setns(self.slot(*slot), *flags)),
            Step::NewSession => self.new_session(),
            Step::NewKeyring => match raw::new_session_keyring() {
                // Built without keyrings, or the quota of keys is used up: neither weakens the container.
                Ok(_) | Err(libc::ENOSYS | libc::EDQUOT) => Ok(()),
                Err(errno) => Err(whole(errno)),
            },
            Step::IsolateMounts { propagation } => done(raw::mount_flags(c"/", *propagation)),
            Step::LoopbackUp => done(raw::loopback_up()),
            Step::AttachRoot { slot, at } => self.attach_root(self.slot(*slot), at),
            Step::MountFilesystem {
                fstype,
                parameters,
                attr,
                target,
                keep,
            } => {
                let fs = raw::fsopen(fstype).map_err(whole)? as i32;
                for parameter in parameters {
                    raw::fsconfig_set(fs, &parameter.key, parameter.value.as_deref())
                        .map_err(whole)?;
                }
                raw::fsconfig_create(fs).map_err(whole)?;
                let mount = raw::fsmount(fs, attr.set).map_err(whole)? as i32;
                raw::close(fs);
                self.place(mount, target, libc::S_IFDIR)?;
                set_propagation(mount, attr)?;
                if *keep == Keep::Dev {
                    self.dev = mount;
                }
                Ok(())
            }
            Step::MountDetached { slot, target, .. } => {
                let mount = self.slot(*slot);
                let kind = raw::stat_fd(mount).map_err(whole)?.0 & libc::S_IFMT;
                self.place(mount, target, kind)
            }
            Step::MountTerminals { target } => {
                self.place(self.context.devpts, target, libc::S_IFDIR)
            }
            Step::MountCgroups { target, attr } => self.mount_cgroups(target, attr),
            Step::MakeDevice(node) => self.make_device(node),
            Step::MakeLink { path, to } => match raw::symlinkat(to, self.dev, path) {
                Ok(_) | Err(libc::EEXIST) => Ok(()),
                Err(errno) => Err(whole(errno)),
            },
            Step::MountConsole => self.mount_console(),
            Step::Mask { path } => self.mask(path),
            Step::MakeReadonly { path } => self.make_readonly(path),
            Step::SetAttributes {
                target,
                attr,
                recursive,
            } => {
                let fd = raw::open_in_root(self.context.root, target, libc::O_PATH)
                    .map_err(whole)? as i32;
                set_attributes(fd, attr, *recursive)?;
                raw::close(fd);
                Ok(())
            }
            Step::SetSysctl { path, value } => self.write_proc(path, value),
            Step::SetHostname { name } => done(raw::set_uts_name(Sysno::sethostname, name)),
            Step::SetDomainname { name } => done(raw::set_uts_name(Sysno::setdomainname, name)),
            Step::Meet(meeting) => self.meet(*meeting),
            Step::PivotRoot => self.pivot_root(),
            Step::SetRootPropagation { propagation } => done(raw::mount_flags(c"/", *propagation)),
            Step::SetOomScore { value } => self.write_proc(c"self/oom_score_adj", value),
            Step::SetRlimit {
                resource,
                soft,
                hard,
                ..
            } => done(raw::set_rlimit(*resource, *soft, *hard)),
            Step::ArrangeDescriptors { preserve } => self.arrange_descriptors(*preserve),
            Step::ChangeDirectory { path, absent } => self.change_directory(path, *absent),
            Step::LimitCapabilities => self.limit_capabilities(),
            Step::SetUser => self.set_user(),
            Step::SetCapabilities => self.set_capabilities(),
            Step::NoNewPrivileges => done(raw::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)),
            Step::LoadFilter => done(raw::set_seccomp_filter(
                self.context.filter,
                self.context.filter_flags,
            )),
            Step::FindProgram => self.find_program(),
            Step::ResetProcess { umask } => {
                for signal in 1..=64i32 {
                    if self.context.ignored_signals & (1u64 << (signal - 1)) != 0 {
                        raw::reset_signal(signal).map_err(whole)?;
                    }
                }
                raw::umask(*umask);
                done(raw::unblock_signals())
            }
            Step::Execute => self.execute(),
        }
    }

    /// Writing `0` to a `tasks` file moves the calling thread, which spares the kernel its global lock.
    fn join_cgroups(&self) -> Outcome {
        for file in self.context.cgroup_files {
            raw::write(*file, b"0").map_err(whole)?;
        }
        Ok(())
    }

    fn new_session(&self) -> Outcome {
        raw::setsid().map_err(whole)?;
        if self.context.terminal >= 0 {
            raw::ioctl_number(self.context.terminal, libc::TIOCSCTTY, 0).map_err(whole)?;
        }
        Ok(())
    }

    fn attach_root(&self, root: i32, at: &CStr) -> Outcome {
        raw::move_mount(root, libc::AT_FDCWD, at).map_err(whole)?;
        Ok(())
    }

    /// Attaches a detached mount at a path of the root, making the mount point if it is missing.
    fn place(&self, mount: i32, target: &CStr, kind: u32) -> Outcome {
        let point = self
            .mount_point(target, kind)
            .map_err(|errno| (errno, Part::MountPoint))?;
        raw::move_mount(mount, point, c"").map_err(whole)?;
        raw::close(point);
        Ok(())
    }

    /// Opens a path of the root as a place to mount on.
    fn mount_point(&self, target: &CStr, kind: u32) -> Result<i32, Errno> {
        let root = self.context.root;
        match raw::open_in_root(root, target, libc::O_PATH) {
            Ok(fd) => return Ok(fd as i32),
            Err(libc::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let last = match kind {
            libc::S_IFDIR => Last::Directory,
            _ => Last::File,
        };
        missing::make(root, target, last)?;
        raw::open_in_root(root, target, libc::O_PATH).map(|fd| fd as i32)
    }

    fn mount_cgroups(&self, target: &CStr, attr: &MountAttr) -> Outcome {
        let view = &self.context.cgroup_view;
        let fs =
            raw::fsopen(if view.unified { c"cgroup2" } else { c"tmpfs" }).map_err(whole)? as i32;
        if !view.unified {
            raw::fsconfig_set(fs, c"mode", Some(c"755")).map_err(whole)?;
            raw::fsconfig_set(fs, c"source", Some(c"tmpfs")).map_err(whole)?;
        }
        raw::fsconfig_create(fs).map_err(whole)?;
        let attributes = if view.unified {
            attr.set
        } else {
            attr.set & !super::step::attr::RDONLY
        };
        let mount = raw::fsmount(fs, attributes).map_err(whole)? as i32;
        raw::close(fs);
        for (name, _) in view.hierarchies {
            raw::mkdirat(mount, name, 0o755).map_err(whole)?;
        }
        for (link, to) in view.links {
            raw::symlinkat(to, mount, link).map_err(whole)?;
        }
        self.place(mount, target, libc::S_IFDIR)?;
        for (name, hierarchy) in view.hierarchies {
            raw::move_mount(*hierarchy, mount, name).map_err(whole)?;
        }
        if !view.unified {
            set_attributes(mount, attr, false)?;
        }
        raw::close(mount);
        Ok(())
    }

    fn make_device(&self, node: &DeviceNode) -> Outcome {
        let absolute = node.path.to_bytes().first() == Some(&b'/');
        if !absolute {
            if node.path.to_bytes().contains(&b'/') {
                missing::make(self.dev, &node.path, Last::Nothing).map_err(whole)?;
            }
            return self.make_node(self.dev, &node.path, node);
        }
        let mut buffer = [0u8; PATH_MAX];
        let (parent, name) =
            split(&node.path, &mut buffer).ok_or((libc::ENAMETOOLONG, Part::Whole))?;
        let directory = self
            .mount_point(parent, libc::S_IFDIR)
            .map_err(|errno| (errno, Part::MountPoint))?;
        let outcome = self.make_node(directory, name, node);
        raw::close(directory);
        outcome
    }

    fn make_node(&self, directory: i32, name: &CStr, node: &DeviceNode) -> Outcome {
        raw::umask(0);
        match raw::mknodat(directory, name, node.mode, node.device) {
            Ok(_) => {}
            // An image may bring the node; it is ours only if it is the same device.
            Err(libc::EEXIST) => return self.same_device(directory, name, node),
            Err(errno) => return Err(whole(errno)),
        }
        if node.uid != 0 || node.gid != 0 {
            raw::fchownat(directory, name, node.uid, node.gid).map_err(whole)?;
        }
        Ok(())
    }

    fn same_device(&self, directory: i32, name: &CStr, node: &DeviceNode) -> Outcome {
        let fd =
            raw::openat(directory, name, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(whole)? as i32;
        let (mode, major, minor) = raw::stat_fd(fd).map_err(whole)?;
        raw::close(fd);
        let same = mode & libc::S_IFMT == node.mode & libc::S_IFMT
            && libc::makedev(major, minor) == node.device;
        if same {
            Ok(())
        } else {
            Err(whole(libc::EEXIST))
        }
    }

    fn mount_console(&self) -> Outcome {
        let tree = raw::open_tree_clone(self.context.terminal, false).map_err(whole)? as i32;
        self.place(tree, c"/dev/console", libc::S_IFREG)
    }

    /// Hides a path. The copies of `/dev/null` and of the empty directory come from mounts of our own making.
    fn mask(&mut self, path: &CStr) -> Outcome {
        let point = match raw::open_in_root(self.context.root, path, libc::O_PATH) {
            Ok(fd) => fd as i32,
            Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(whole(errno)),
        };
        let directory = raw::stat_fd(point).map_err(whole)?.0 & libc::S_IFMT == libc::S_IFDIR;
        let cover = if directory {
            self.empty_directory()?
        } else {
            self.null_device()?
        };
        raw::move_mount(cover, point, c"").map_err(whole)?;
        // The first mount made becomes the original of the copies; it has to be attached for that.
        if directory && self.empty < 0 {
            self.empty = cover;
        } else if !directory && self.null < 0 {
            self.null = cover;
        } else {
            raw::close(cover);
        }
        raw::close(point);
        Ok(())
    }

    fn null_device(&self) -> Result<i32, Failure> {
        if self.null >= 0 {
            return raw::open_tree_clone(self.null, false)
                .map(|fd| fd as i32)
                .map_err(whole);
        }
        if self.context.null < 0 {
            return Err((libc::ENODEV, Part::NoNullDevice));
        }
        Ok(self.context.null)
    }

    fn empty_directory(&self) -> Result<i32, Failure> {
        if self.empty >= 0 {
            return raw::open_tree_clone(self.empty, false)
                .map(|fd| fd as i32)
                .map_err(whole);
        }
        let fs = raw::fsopen(c"tmpfs").map_err(whole)? as i32;
        raw::fsconfig_set(fs, c"size", Some(c"0")).map_err(whole)?;
        raw::fsconfig_set(fs, c"nr_inodes", Some(c"1")).map_err(whole)?;
        raw::fsconfig_set(fs, c"mode", Some(c"755")).map_err(whole)?;
        raw::fsconfig_create(fs).map_err(whole)?;
        let mount = raw::fsmount(fs, super::step::attr::RDONLY).map_err(whole)? as i32;
        raw::close(fs);
        Ok(mount)
    }

    fn make_readonly(&self, path: &CStr) -> Outcome {
        let point = match raw::open_in_root(self.context.root, path, libc::O_PATH) {
            Ok(fd) => fd as i32,
            Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(whole(errno)),
        };
        let tree = raw::open_tree_clone(point, true).map_err(whole)? as i32;
        raw::move_mount(tree, point, c"").map_err(whole)?;
        let readonly = MountAttr {
            set: super::step::attr::RDONLY,
            ..MountAttr::default()
        };
        set_attributes(tree, &readonly, false)?;
        raw::close(tree);
        raw::close(point);
        Ok(())
    }

    /// Writes a file of the host's procfs, which shows the namespaces of whoever looks.
    fn write_proc(&self, path: &CStr, value: &CStr) -> Outcome {
        let file =
            raw::openat(self.context.host_proc, path, libc::O_WRONLY, 0).map_err(whole)? as i32;
        let result = raw::write(file, value.to_bytes());
        raw::close(file);
        done(result)
    }

    /// One byte to the parent, one byte back (from the FIFO for the start). The end of the stream means that the parent
    /// has given up.
    fn meet(&self, meeting: Meeting) -> Outcome {
        raw::write(self.context.meeting, &[meeting as u8]).map_err(whole)?;
        let from = if meeting == Meeting::Created {
            self.context.start_fifo
        } else {
            self.context.meeting
        };
        let mut byte = [0u8; 1];
        loop {
            match raw::read(from, &mut byte) {
                Ok(1) => return Ok(()),
                Ok(_) => return Err(whole(libc::ECANCELED)),
                Err(libc::EINTR) => {}
                Err(errno) => return Err(whole(errno)),
            }
        }
    }

    /// `pivot_root(".", ".")`: the old root ends up on top of the new one and is dropped.
    fn pivot_root(&self) -> Outcome {
        raw::fchdir(self.context.root).map_err(whole)?;
        raw::pivot_root(c".", c".").map_err(whole)?;
        // Nothing unmounted below may travel to the host.
        raw::mount_flags(c".", libc::MS_SLAVE | libc::MS_REC).map_err(whole)?;
        raw::umount(c".", libc::MNT_DETACH).map_err(whole)?;
        done(raw::chdir(c"/"))
    }

    fn arrange_descriptors(&self, preserve: u32) -> Outcome {
        let streams = self.context.stdio;
        // A stream may sit on the number of another one: lift those out of the way first.
        let mut lifted = streams;
        for stream in &mut lifted {
            if (0..3).contains(stream) {
                *stream = raw::dup_above(*stream, 3).map_err(whole)? as i32;
            }
        }
        let [stdin, stdout, stderr] = lifted;
        raw::dup_to(stdin, 0).map_err(whole)?;
        raw::dup_to(stdout, 1).map_err(whole)?;
        raw::dup_to(stderr, 2).map_err(whole)?;
        let mut first = preserve.saturating_add(3);
        for kept in self.context.kept {
            let kept = *kept as u32;
            if kept > first {
                raw::close_range(first, kept.wrapping_sub(1)).map_err(whole)?;
            }
            first = kept.saturating_add(1);
        }
        done(raw::close_range(first, u32::MAX))
    }

    fn change_directory(&self, path: &CStr, absent: Absent) -> Outcome {
        match raw::chdir(path) {
            Ok(_) => {}
            Err(libc::ENOENT) if absent == Absent::Make => {
                missing::make(libc::AT_FDCWD, path, Last::Directory).map_err(whole)?;
                raw::chdir(path).map_err(whole)?;
            }
            Err(errno) => return Err(whole(errno)),
        }
        // A directory that is not below the root has a path that does not start with a slash (CVE-2024-21626).
        let mut buffer = [0u8; PATH_MAX];
        raw::getcwd(&mut buffer).map_err(whole)?;
        if buffer.first() == Some(&b'/') {
            Ok(())
        } else {
            Err((libc::EPERM, Part::OutsideRoot))
        }
    }

    fn limit_capabilities(&self) -> Outcome {
        for number in 0..64usize {
            if self.context.credentials.dropped & (1u64 << number) != 0 {
                raw::prctl(libc::PR_CAPBSET_DROP, number, 0).map_err(whole)?;
            }
        }
        Ok(())
    }

    fn set_user(&self) -> Outcome {
        let credentials = self.context.credentials;
        if credentials.uid != 0 {
            self.give_streams_away(credentials.uid);
            raw::prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(whole)?;
        }
        raw::setgroups(&credentials.groups).map_err(whole)?;
        raw::setgid(credentials.gid).map_err(whole)?;
        raw::setuid(credentials.uid).map_err(whole)?;
        if credentials.uid != 0 {
            raw::prctl(libc::PR_SET_KEEPCAPS, 0, 0).map_err(whole)?;
            // Changing the user cleared the effective set; loading a filter needs it once more.
            let all = credentials.permitted | 1 << 21;
            raw::capset(all, all, credentials.inheritable).map_err(whole)?;
        }
        Ok(())
    }

    /// The user must be able to reopen `/dev/stdout`. Devices and closed ends refuse, which is no failure.
    fn give_streams_away(&self, uid: u32) {
        for stream in 0..3 {
            let Ok((mode, _, _)) = raw::stat_fd(stream) else {
                continue;
            };
            let own = stream_is_ours(mode) || self.context.terminal >= 0;
            if own {
                let _ = raw::fchownat(stream, c"", uid, u32::MAX);
            }
        }
    }

    fn set_capabilities(&self) -> Outcome {
        let credentials = self.context.credentials;
        raw::capset(
            credentials.effective,
            credentials.permitted,
            credentials.inheritable,
        )
        .map_err(whole)?;
        for number in 0..64usize {
            if credentials.ambient & (1u64 << number) != 0 {
                // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
                raw::prctl(47, 2, number).map_err(whole)?;
            }
        }
        Ok(())
    }

    /// Looks for the program before the container counts as created. The user's own rights are judged by `execute`.
    fn find_program(&self) -> Outcome {
        if self.context.program_fd >= 0 {
            return Ok(());
        }
        let mut reason = libc::ENOENT;
        for candidate in self.context.programs {
            match is_program(candidate) {
                Ok(()) => return Ok(()),
                Err(libc::ENOENT | libc::ENOTDIR) => {}
                Err(errno) => reason = errno,
            }
        }
        Err((reason, Part::Program))
    }

    /// Tries the candidates as `execvp` does: one that may not be executed is remembered as the reason.
    fn execute(&self) -> Outcome {
        let context = self.context;
        context.report.executing.store(1, Ordering::Release);
        let mut reason = libc::ENOENT;
        let mut part = Part::Program;
        if context.program_fd >= 0 {
            // SAFETY: the parent built both arrays and keeps them.
            reason = unsafe { raw::execve_fd(context.program_fd, context.argv, context.envp) };
        }
        for program in context.programs {
            // SAFETY: the parent built both arrays and keeps them.
            match unsafe { raw::execve(program, context.argv, context.envp) } {
                libc::ENOENT | libc::ENOTDIR if is_program(program).is_err() => {}
                // The file is there: what is missing is its interpreter or loader.
                errno @ (libc::ENOENT | libc::ENOTDIR) => {
                    reason = errno;
                    part = Part::Interpreter;
                    break;
                }
                libc::EACCES => reason = is_program(program).err().unwrap_or(libc::EACCES),
                errno => {
                    reason = errno;
                    break;
                }
            }
        }
        context.report.executing.store(0, Ordering::Release);
        Err((reason, part))
    }
}

fn done(answer: raw::Answer) -> Outcome {
    answer.map(|_| ()).map_err(whole)
}

/// Pipes and sockets belong to the container; files and devices of the host do not.
fn stream_is_ours(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK)
}

fn is_program(path: &CStr) -> Result<(), Errno> {
    let fd = raw::openat(libc::AT_FDCWD, path, libc::O_PATH, 0)? as i32;
    let mode = raw::stat_fd(fd).map(|(mode, _, _)| mode);
    raw::close(fd);
    if mode? & libc::S_IFMT == libc::S_IFDIR {
        return Err(libc::EISDIR);
    }
    raw::may_execute(path).map(|_| ())
}

/// Sets a mount's propagation where the attributes ask for one.
fn set_propagation(mount: i32, attr: &MountAttr) -> Outcome {
    if attr.propagation == 0 {
        return Ok(());
    }
    let only = MountAttr {
        propagation: attr.propagation,
        ..MountAttr::default()
    };
    set_attributes(mount, &only, true)
}

/// `mount_setattr`, or its predecessor on kernels before 5.12. A recursive propagation reaches the mounts below only
/// where nothing else is set; there is nothing below a mount just made.
fn set_attributes(mount: i32, attr: &MountAttr, recursive: bool) -> Outcome {
    let deep = recursive || (attr.set == 0 && attr.propagation & libc::MS_REC != 0);
    let flat = MountAttr {
        propagation: attr.propagation & !libc::MS_REC,
        ..*attr
    };
    match raw::mount_setattr(mount, &flat, deep) {
        Ok(_) => Ok(()),
        Err(libc::ENOSYS) => {
            let reach = if deep { libc::MS_REC } else { 0 };
            super::remount::by_path(mount, &flat, reach).map_err(whole)
        }
        Err(errno) => Err(whole(errno)),
    }
}

/// Splits an absolute path into directory and name; the directory is copied into `buffer`.
fn split<'b, 'p: 'b>(
    path: &'p CStr,
    buffer: &'b mut [u8; PATH_MAX],
) -> Option<(&'b CStr, &'p CStr)> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
    let name = CStr::from_bytes_with_nul(bytes.get(slash.wrapping_add(1)..)?).ok()?;
    let directory = bytes.get(..slash.max(1))?;
    // One byte has to stay for the terminator.
    if directory.len() >= PATH_MAX {
        return None;
    }
    buffer
        .get_mut(..directory.len())?
        .copy_from_slice(directory);
    Some((CStr::from_bytes_until_nul(buffer).ok()?, name))
}

/// `self/fd/N`, relative to a procfs.
pub(super) fn descriptor_path(fd: i32, buffer: &mut [u8; 32]) -> Option<&CStr> {
    let prefix = b"self/fd/";
    buffer.get_mut(..prefix.len())?.copy_from_slice(prefix);
    let mut digits = [0u8; 10];
    let mut count = 0usize;
    let mut rest = u32::try_from(fd).ok()?;
    loop {
        *digits.get_mut(count)? = b'0'.wrapping_add((rest % 10) as u8);
        count = count.wrapping_add(1);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for index in 0..count {
        *buffer.get_mut(prefix.len().wrapping_add(index))? =
            *digits.get(count.wrapping_sub(index).wrapping_sub(1))?;
    }
    *buffer.get_mut(prefix.len().wrapping_add(count))? = 0;
    CStr::from_bytes_until_nul(buffer).ok()
}
