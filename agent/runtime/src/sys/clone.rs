//! `clone3` onto a prepared stack, with the parent's memory shared.
//!
//! The child never returns into the caller's frames: it runs one function on its own stack and exits or executes.

use std::arch::asm;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Size of the child's stack: the interpreter needs a few KiB, a path buffer is 4 and there are up to four of them.
/// Memory is only used where it is touched.
const STACK_BYTES: usize = 128 << 10;

/// `struct clone_args` (version 2, with the cgroup).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How the child is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloneRequest {
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
    /// Suspend the calling thread until the child executes or exits.
    pub(crate) suspend: bool,
    /// Directory of a cgroup v2 to be born in.
    pub(crate) into_cgroup: Option<RawFd>,
}

/// A child and its stack. The stack may be given back only when the child no longer shares the caller's memory.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    _stack: Stack,
}

/// A mapping with a guard page at its lower end.
struct Stack {
    base: *mut libc::c_void,
    bytes: usize,
}

impl Stack {
    fn new() -> std::io::Result<Stack> {
        let guard = 16 << 10; // covers one page of every supported size
        let bytes = STACK_BYTES + guard;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing existing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let stack = Stack { base, bytes };
        // SAFETY: the range is the lower end of the mapping just made.
        if unsafe { libc::mprotect(base, guard, libc::PROT_NONE) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody runs on it any more (see `Child`).
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

/// Clones. The child calls `entry(argument)` with every signal blocked; the parent gets it back with its signal mask as
/// before.
///
/// # Safety
///
/// `entry` must not return, unwind, allocate, take a lock or use thread-local storage, and `argument` must stay valid
/// until the child has executed or exited. The returned [`Child`] must live as long as the child shares memory.
pub(crate) unsafe fn clone_onto_stack<T>(
    request: CloneRequest,
    entry: unsafe extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> std::io::Result<Child> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let stack = Stack::new()?;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: request.namespaces
            | CLONE_CLEAR_SIGHAND
            | libc::CLONE_VM as u64
            | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.base as u64,
        stack_size: stack.bytes as u64,
        ..CloneArgs::default()
    };
    if request.suspend {
        args.flags |= libc::CLONE_VFORK as u64;
    }
    if let Some(cgroup) = request.into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    let mask = SignalMask::block_all();
    // SAFETY: the stack is ours alone; the caller vouches for `entry` and `argument`.
    let result = unsafe { clone3(&args, entry as *const () as usize, argument as usize) };
    drop(mask);
    if result < 0 {
        return Err(std::io::Error::from_raw_os_error((-result) as i32));
    }
    // SAFETY: CLONE_PIDFD stored a descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: result as i32,
        pidfd,
        _stack: stack,
    })
}

/// Blocks every signal until dropped.
struct SignalMask {
    before: libc::sigset_t,
}

impl SignalMask {
    fn block_all() -> SignalMask {
        // SAFETY: both sets are initialised before use; the call affects the calling thread alone.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            SignalMask { before }
        }
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: the set came from the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// # Safety
///
/// See [`clone_onto_stack`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: usize, argument: usize) -> isize {
    let result: isize;
    // SAFETY: in the parent only rax, rcx and r11 change. The child starts on an empty, 16-byte aligned stack and calls a
    // function that does not return.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args as *const CloneArgs,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// # Safety
///
/// See [`clone_onto_stack`].
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: usize, argument: usize) -> isize {
    let result: isize;
    // SAFETY: in the parent only x0 changes. The child starts on an empty, 16-byte aligned stack and calls a function
    // that does not return.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") args as *const CloneArgs as isize => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") argument,
            in("x21") entry,
        );
    }
    result
}
