//! Bare system calls for the child of a launch: the answer is the kernel's, as `Result<usize, errno>`.
//!
//! Everything here must be callable in a process that shares its memory with its suspended parent: no `errno`, no
//! allocation, no lock, no panic.

use core::ffi::CStr;

use syscalls::Sysno;

macro_rules! calls {
    ($($name:ident($($argument:ident),*);)*) => {$(
        #[inline]
        unsafe fn $name(number: Sysno, $($argument: usize),*) -> usize {
            // SAFETY: the caller vouches for the arguments.
            unsafe { syscalls::raw::$name(number as usize, $($argument),*) }
        }
    )*};
}

calls! {
    syscall2(a, b);
    syscall3(a, b, c);
    syscall4(a, b, c, d);
    syscall5(a, b, c, d, e);
}

/// A kernel error number.
pub(crate) type Errno = i32;
/// What a system call gives.
pub(crate) type Answer = Result<usize, Errno>;

/// `openat2`: absolute paths, `..` and links stay below the directory the lookup started from.
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

#[inline]
fn answer(value: usize) -> Answer {
    let signed = value as isize;
    if (-4095..0).contains(&signed) {
        Err(signed.wrapping_neg() as Errno)
    } else {
        Ok(value)
    }
}

#[inline]
fn ptr(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Keeps the lower half of a descriptor's register image, `-1` and `AT_FDCWD` included.
#[inline]
fn fd_arg(fd: i32) -> usize {
    fd as isize as usize
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a path below `root`, never following a link out of it nor a magic link.
pub(crate) fn open_in_root(root: i32, path: &CStr, flags: i32) -> Answer {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: both pointers live across the call and the size is the structure's.
    answer(unsafe {
        syscall4(
            Sysno::openat2,
            fd_arg(root),
            ptr(path),
            &raw const how as usize,
            size_of::<OpenHow>(),
        )
    })
}

/// `openat`.
pub(crate) fn openat(dir: i32, path: &CStr, flags: i32, mode: u32) -> Answer {
    // SAFETY: the path is a terminated string.
    answer(unsafe {
        syscall4(
            Sysno::openat,
            fd_arg(dir),
            ptr(path),
            (flags | libc::O_CLOEXEC) as usize,
            mode as usize,
        )
    })
}

/// `close`.
pub(crate) fn close(fd: i32) {
    // SAFETY: no memory is involved; the interpreter owns the descriptors it closes.
    let _ = unsafe { syscall2(Sysno::close, fd_arg(fd), 0) };
}

/// `close_range`.
pub(crate) fn close_range(first: u32, last: u32) -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe { syscall3(Sysno::close_range, first as usize, last as usize, 0) })
}

/// `mkdirat`.
pub(crate) fn mkdirat(dir: i32, path: &CStr, mode: u32) -> Answer {
    // SAFETY: the path is a terminated string.
    answer(unsafe { syscall3(Sysno::mkdirat, fd_arg(dir), ptr(path), mode as usize) })
}

/// `mknodat`.
pub(crate) fn mknodat(dir: i32, path: &CStr, mode: u32, device: u64) -> Answer {
    // SAFETY: the path is a terminated string.
    answer(unsafe {
        syscall4(
            Sysno::mknodat,
            fd_arg(dir),
            ptr(path),
            mode as usize,
            device as usize,
        )
    })
}

/// `symlinkat`.
pub(crate) fn symlinkat(text: &CStr, dir: i32, path: &CStr) -> Answer {
    // SAFETY: both paths are terminated strings.
    answer(unsafe { syscall3(Sysno::symlinkat, ptr(text), fd_arg(dir), ptr(path)) })
}

/// `readlinkat`: how many bytes the link's text has. A text that does not fit is an error.
pub(crate) fn readlinkat(dir: i32, path: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the path is a terminated string and the kernel writes at most the length given.
    let length = answer(unsafe {
        syscall4(
            Sysno::readlinkat,
            fd_arg(dir),
            ptr(path),
            buffer.as_mut_ptr() as usize,
            buffer.len(),
        )
    })?;
    if length >= buffer.len() {
        return Err(libc::ENAMETOOLONG);
    }
    Ok(length)
}

/// `fchownat` of the entry itself.
pub(crate) fn fchownat(dir: i32, path: &CStr, uid: u32, gid: u32) -> Answer {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a terminated string.
    answer(unsafe {
        syscall5(
            Sysno::fchownat,
            fd_arg(dir),
            ptr(path),
            uid as usize,
            gid as usize,
            flags as usize,
        )
    })
}

/// `fchdir`.
pub(crate) fn fchdir(fd: i32) -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe { syscall2(Sysno::fchdir, fd_arg(fd), 0) })
}

/// `chdir`.
pub(crate) fn chdir(path: &CStr) -> Answer {
    // SAFETY: the path is a terminated string.
    answer(unsafe { syscall2(Sysno::chdir, ptr(path), 0) })
}

/// `getcwd`: how many bytes the path has, the final zero included.
pub(crate) fn getcwd(buffer: &mut [u8]) -> Answer {
    // SAFETY: the kernel writes at most the length given.
    answer(unsafe { syscall2(Sysno::getcwd, buffer.as_mut_ptr() as usize, buffer.len()) })
}

/// `write` of all of a short text in one call.
pub(crate) fn write(fd: i32, bytes: &[u8]) -> Answer {
    // SAFETY: the kernel reads exactly the slice.
    answer(unsafe {
        syscall3(
            Sysno::write,
            fd_arg(fd),
            bytes.as_ptr() as usize,
            bytes.len(),
        )
    })
}

/// `read`.
pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Answer {
    // SAFETY: the kernel writes at most the slice's length.
    answer(unsafe {
        syscall3(
            Sysno::read,
            fd_arg(fd),
            buffer.as_mut_ptr() as usize,
            buffer.len(),
        )
    })
}

/// Mode and device number of what a descriptor refers to, by `statx` on the descriptor itself.
pub(crate) fn stat_fd(fd: i32) -> Result<(u32, u32, u32), Errno> {
    // SAFETY: all-zero is a valid `statx` buffer.
    let mut buffer: libc::statx = unsafe { core::mem::zeroed() };
    let mask = (libc::STATX_TYPE | libc::STATX_MODE) as usize;
    let path = c"";
    // SAFETY: the buffer is the structure the kernel fills in and the path is a terminated string.
    answer(unsafe {
        syscall5(
            Sysno::statx,
            fd_arg(fd),
            ptr(path),
            libc::AT_EMPTY_PATH as usize,
            mask,
            &raw mut buffer as usize,
        )
    })?;
    Ok((
        u32::from(buffer.stx_mode),
        buffer.stx_rdev_major,
        buffer.stx_rdev_minor,
    ))
}

/// `dup3`, or clearing close-on-exec where source and target are the same.
pub(crate) fn dup_to(fd: i32, target: i32) -> Answer {
    if fd == target {
        // SAFETY: no memory is involved.
        return answer(unsafe { syscall3(Sysno::fcntl, fd_arg(fd), libc::F_SETFD as usize, 0) });
    }
    // SAFETY: no memory is involved.
    answer(unsafe { syscall3(Sysno::dup3, fd_arg(fd), fd_arg(target), 0) })
}

/// `fcntl(F_DUPFD_CLOEXEC)`: a copy at or above `least`.
pub(crate) fn dup_above(fd: i32, least: i32) -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe {
        syscall3(
            Sysno::fcntl,
            fd_arg(fd),
            libc::F_DUPFD_CLOEXEC as usize,
            fd_arg(least),
        )
    })
}

/// `ioctl` with a plain number as argument.
pub(crate) fn ioctl_number(fd: i32, request: u64, argument: usize) -> Answer {
    // SAFETY: the callers use it for requests whose argument is no pointer.
    answer(unsafe { syscall3(Sysno::ioctl, fd_arg(fd), request as usize, argument) })
}

/// `mount` in its oldest form.
pub(crate) fn mount_flags(target: &CStr, flags: u64) -> Answer {
    // SAFETY: the strings are terminated; source, type and data are not used with these flags.
    answer(unsafe { syscall5(Sysno::mount, 0, ptr(target), 0, flags as usize, 0) })
}

/// The `MS_*` flags a mount has now, by `fstatfs`.
pub(crate) fn mount_flags_of(fd: i32) -> Result<u64, Errno> {
    // struct statfs of 64-bit machines: eleven words up to f_flags, then spare ones
    let mut buffer = [0u64; 15];
    // SAFETY: the buffer is as long as the structure the kernel fills in.
    answer(unsafe { syscall2(Sysno::fstatfs, fd_arg(fd), buffer.as_mut_ptr() as usize) })?;
    // ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOATIME and ST_NODIRATIME have the numbers of their MS_ twins.
    let same = libc::MS_RDONLY
        | libc::MS_NOSUID
        | libc::MS_NODEV
        | libc::MS_NOEXEC
        | libc::MS_NOATIME
        | libc::MS_NODIRATIME;
    Ok(buffer[10] & same)
}

/// `umount2`.
pub(crate) fn umount(target: &CStr, flags: i32) -> Answer {
    // SAFETY: the path is a terminated string.
    answer(unsafe { syscall2(Sysno::umount2, ptr(target), flags as usize) })
}

/// `pivot_root`.
pub(crate) fn pivot_root(new: &CStr, old: &CStr) -> Answer {
    // SAFETY: both paths are terminated strings.
    answer(unsafe { syscall2(Sysno::pivot_root, ptr(new), ptr(old)) })
}

/// `fsopen`.
pub(crate) fn fsopen(fstype: &CStr) -> Answer {
    // SAFETY: the name is a terminated string; 1 is FSOPEN_CLOEXEC.
    answer(unsafe { syscall2(Sysno::fsopen, ptr(fstype), 1) })
}

/// `fsconfig(FSCONFIG_SET_FLAG | FSCONFIG_SET_STRING)`.
pub(crate) fn fsconfig_set(fs: i32, key: &CStr, value: Option<&CStr>) -> Answer {
    let (command, value) = match value {
        None => (0, 0),
        Some(text) => (1, ptr(text)),
    };
    // SAFETY: both strings are terminated.
    answer(unsafe { syscall5(Sysno::fsconfig, fd_arg(fs), command, ptr(key), value, 0) })
}

/// `fsconfig(FSCONFIG_CMD_CREATE)`.
pub(crate) fn fsconfig_create(fs: i32) -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe { syscall5(Sysno::fsconfig, fd_arg(fs), 6, 0, 0, 0) })
}

/// `fsmount` with `MOUNT_ATTR_*` flags.
pub(crate) fn fsmount(fs: i32, attributes: u64) -> Answer {
    // SAFETY: no memory is involved; 1 is FSMOUNT_CLOEXEC.
    answer(unsafe { syscall3(Sysno::fsmount, fd_arg(fs), 1, attributes as usize) })
}

/// `open_tree` of what a descriptor refers to, as a detached copy.
pub(crate) fn open_tree_clone(fd: i32, recursive: bool) -> Answer {
    // OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    let mut flags = 1 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is an empty terminated string.
    answer(unsafe { syscall3(Sysno::open_tree, fd_arg(fd), ptr(c""), flags as usize) })
}

/// `move_mount` of a detached mount onto `path` at `dir`; an empty path is `dir` itself.
pub(crate) fn move_mount(mount: i32, dir: i32, path: &CStr) -> Answer {
    // MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
    let flags = if path.is_empty() { 0x04 | 0x40 } else { 0x04 };
    // SAFETY: both paths are terminated strings.
    answer(unsafe {
        syscall5(
            Sysno::move_mount,
            fd_arg(mount),
            ptr(c""),
            fd_arg(dir),
            ptr(path),
            flags,
        )
    })
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// `mount_setattr` on what a descriptor refers to.
pub(crate) fn mount_setattr(fd: i32, attr: &MountAttr, recursive: bool) -> Answer {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure lives across the call and its size is passed.
    answer(unsafe {
        syscall5(
            Sysno::mount_setattr,
            fd_arg(fd),
            ptr(c""),
            flags as usize,
            core::ptr::from_ref(attr) as usize,
            size_of::<MountAttr>(),
        )
    })
}

/// `setns`.
pub(crate) fn setns(fd: i32, flags: i32) -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe { syscall2(Sysno::setns, fd_arg(fd), flags as usize) })
}

/// `unshare`.
pub(crate) fn unshare(flags: i32) -> Answer {
    // SAFETY: the callers pass namespace flags only, which do not touch memory.
    answer(unsafe { syscall2(Sysno::unshare, flags as usize, 0) })
}

/// `sethostname` or `setdomainname`.
pub(crate) fn set_uts_name(number: Sysno, name: &CStr) -> Answer {
    // SAFETY: the kernel reads as many bytes as the name has.
    answer(unsafe { syscall2(number, ptr(name), name.count_bytes()) })
}

/// `prctl` with plain numbers.
pub(crate) fn prctl(option: i32, a: usize, b: usize) -> Answer {
    // SAFETY: the callers use options whose arguments are no pointers.
    answer(unsafe { syscall5(Sysno::prctl, option as usize, a, b, 0, 0) })
}

/// `prlimit64` on the caller.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Answer {
    let limit = [soft, hard];
    // SAFETY: the kernel reads two 64-bit numbers.
    answer(unsafe {
        syscall4(
            Sysno::prlimit64,
            0,
            resource as usize,
            limit.as_ptr() as usize,
            0,
        )
    })
}

/// `setgroups` of this thread alone.
pub(crate) fn setgroups(groups: &[u32]) -> Answer {
    // SAFETY: the kernel reads exactly the slice.
    answer(unsafe { syscall2(Sysno::setgroups, groups.len(), groups.as_ptr() as usize) })
}

/// `setresgid` of this thread alone.
pub(crate) fn setgid(gid: u32) -> Answer {
    let gid = gid as usize;
    // SAFETY: no memory is involved.
    answer(unsafe { syscall3(Sysno::setresgid, gid, gid, gid) })
}

/// `setresuid` of this thread alone.
pub(crate) fn setuid(uid: u32) -> Answer {
    let uid = uid as usize;
    // SAFETY: no memory is involved.
    answer(unsafe { syscall3(Sysno::setresuid, uid, uid, uid) })
}

/// `capset` of the caller.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Answer {
    // _LINUX_CAPABILITY_VERSION_3, pid 0
    let header: [u32; 2] = [0x2008_0522, 0];
    let data: [u32; 6] = [
        effective as u32,
        permitted as u32,
        inheritable as u32,
        (effective >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    // SAFETY: header and data have the layout of capability version 3.
    answer(unsafe {
        syscall2(
            Sysno::capset,
            header.as_ptr() as usize,
            data.as_ptr() as usize,
        )
    })
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`; `program` is the array of instructions.
pub(crate) fn set_seccomp_filter(program: &[libc::sock_filter], flags: usize) -> Answer {
    let fprog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the instructions and writes nothing.
    answer(unsafe { syscall3(Sysno::seccomp, 1, flags, &raw const fprog as usize) })
}

/// `setsid`.
pub(crate) fn setsid() -> Answer {
    // SAFETY: no memory is involved.
    answer(unsafe { syscall2(Sysno::setsid, 0, 0) })
}

/// `umask`.
pub(crate) fn umask(mask: u32) {
    // SAFETY: no memory is involved.
    let _ = unsafe { syscall2(Sysno::umask, mask as usize, 0) };
}

/// A new anonymous session keyring.
pub(crate) fn new_session_keyring() -> Answer {
    // SAFETY: 1 is KEYCTL_JOIN_SESSION_KEYRING; no name is passed.
    answer(unsafe { syscall2(Sysno::keyctl, 1, 0) })
}

/// Sets one signal back to its default action.
pub(crate) fn reset_signal(signal: i32) -> Answer {
    // handler, flags, restorer, mask: all zero is SIG_DFL
    let action = [0usize; 4];
    // SAFETY: the kernel reads the structure, which is at most this long on every supported machine.
    answer(unsafe {
        syscall4(
            Sysno::rt_sigaction,
            signal as usize,
            action.as_ptr() as usize,
            0,
            8,
        )
    })
}

/// Unblocks every signal.
pub(crate) fn unblock_signals() -> Answer {
    let none = 0u64;
    // SAFETY: the kernel reads 8 bytes; 2 is SIG_SETMASK.
    answer(unsafe { syscall4(Sysno::rt_sigprocmask, 2, &raw const none as usize, 0, 8) })
}

/// Whether the caller may execute a path: `faccessat2(X_OK, AT_EACCESS)`.
pub(crate) fn may_execute(path: &CStr) -> Answer {
    // SAFETY: the path is a terminated string.
    let result = answer(unsafe {
        syscall4(
            Sysno::faccessat2,
            fd_arg(libc::AT_FDCWD),
            ptr(path),
            1,
            libc::AT_EACCESS as usize,
        )
    });
    // Older than 5.8: the effective ids are the real ones here, so the plain call answers the same question.
    match result {
        Err(libc::ENOSYS) => {
            // SAFETY: the path is a terminated string.
            answer(unsafe { syscall3(Sysno::faccessat, fd_arg(libc::AT_FDCWD), ptr(path), 1) })
        }
        other => other,
    }
}

/// `execve`; returns only an error.
///
/// # Safety
///
/// `argv` and `envp` must be null-terminated arrays of terminated strings.
pub(crate) unsafe fn execve(
    path: &CStr,
    argv: *const *const core::ffi::c_char,
    envp: *const *const core::ffi::c_char,
) -> Errno {
    // SAFETY: the caller vouches for the arrays.
    match answer(unsafe { syscall3(Sysno::execve, ptr(path), argv as usize, envp as usize) }) {
        Ok(_) => 0,
        Err(errno) => errno,
    }
}

/// `execveat` of a descriptor; returns only an error.
///
/// # Safety
///
/// As [`execve`].
pub(crate) unsafe fn execve_fd(
    fd: i32,
    argv: *const *const core::ffi::c_char,
    envp: *const *const core::ffi::c_char,
) -> Errno {
    let flags = libc::AT_EMPTY_PATH as usize;
    // SAFETY: the caller vouches for the arrays.
    match answer(unsafe {
        syscall5(
            Sysno::execveat,
            fd_arg(fd),
            ptr(c""),
            argv as usize,
            envp as usize,
            flags,
        )
    }) {
        Ok(_) => 0,
        Err(errno) => errno,
    }
}

/// Brings the loopback interface of the caller's network namespace up.
pub(crate) fn loopback_up() -> Answer {
    // SAFETY: no memory is involved.
    let socket = answer(unsafe {
        syscall3(
            Sysno::socket,
            libc::AF_INET as usize,
            (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize,
            0,
        )
    })? as i32;
    // struct ifreq: a name of 16 bytes, then a union whose first two bytes are the flags
    let mut request = [0u8; 40];
    request[0] = b'l';
    request[1] = b'o';
    let flags = (libc::IFF_UP as u16).to_ne_bytes();
    request[16] = flags[0];
    request[17] = flags[1];
    // SAFETY: the kernel reads an `ifreq`, which is 40 bytes on 64-bit machines.
    let result = answer(unsafe {
        syscall3(
            Sysno::ioctl,
            fd_arg(socket),
            libc::SIOCSIFFLAGS as usize,
            request.as_ptr() as usize,
        )
    });
    close(socket);
    result
}

/// Ends the child.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: the call does not return.
        let _ = unsafe { syscall2(Sysno::exit_group, code as usize, 0) };
    }
}
