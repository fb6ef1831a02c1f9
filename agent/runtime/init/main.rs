//! `/sbin/docker-init`: PID 1 of a container started with `--init`.
//!
//! Starts a program, forwards every signal to it, reaps whatever dies, and ends as the program ends (128+n for a
//! signal). Behaviour of tini. It needs nothing from the image: no loader, no C library, a few KiB. Built by
//! `build.rs` and carried inside the runtime.
#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call begin", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x0, sp", "bl begin", "brk #1");

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const PRCTL: usize = 167;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

const PR_SET_NAME: usize = 15;
const SIGCHLD: isize = 17;
const SIGTTIN: isize = 21;
const SIGTTOU: isize = 22;
const ENOENT: isize = -2;
const ENOTDIR: isize = -20;
const EACCES: isize = -13;
const EINTR: isize = -4;

/// # Safety
/// As the system call.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// # Safety
/// As the system call.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e);
    }
    result
}

type Strings = *const *const u8;

/// # Safety
/// Called by `_start` with the initial stack: argc, argv, null, envp, null.
#[unsafe(no_mangle)]
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    unsafe {
        let count = *stack;
        let argv = stack.add(1) as Strings;
        let envp = argv.add(count + 1);
        let mut first = 1;
        if first < count && equals(*argv.add(first), b"--\0") {
            first += 1;
        }
        if first >= count {
            exit(1);
        }
        // It is run from a memfd, whose name is nobody's business.
        call(number::PRCTL, PR_SET_NAME, b"docker-init\0".as_ptr() as usize, 0, 0, 0);
        let all = u64::MAX;
        let mut before = 0u64;
        call(number::SIGPROCMASK, 2, &raw const all as usize, &raw mut before as usize, 8, 0);
        let child = call(number::CLONE, SIGCHLD as usize, 0, 0, 0, 0);
        if child == 0 {
            run(argv.add(first), envp, &before);
        }
        if child < 0 {
            exit(1);
        }
        watch(child, &all)
    }
}

/// PID 1's life.
///
/// # Safety
/// All signals are blocked.
unsafe fn watch(child: isize, all: &u64) -> ! {
    unsafe {
        loop {
            let signal = call(number::SIGTIMEDWAIT, all as *const u64 as usize, 0, 0, 8, 0);
            match signal {
                SIGCHLD => reap(child),
                // Reading or writing a terminal from the background stops only who does it.
                SIGTTIN | SIGTTOU => {}
                1.. => {
                    call(number::KILL, child as usize, signal as usize, 0, 0, 0);
                }
                _ => {}
            }
        }
    }
}

/// Waits for everything that has died; ends when the program is among it.
///
/// # Safety
/// None beyond the calls'.
unsafe fn reap(child: isize) {
    unsafe {
        loop {
            let mut status = 0i32;
            let pid = call(number::WAIT4, usize::MAX, &raw mut status as usize, 1, 0, 0);
            if pid == EINTR {
                continue;
            }
            if pid <= 0 {
                return;
            }
            if pid == child {
                let signal = status & 0x7f;
                exit(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
            }
        }
    }
}

/// The child: a process group of its own, in the foreground of the terminal if there is one, then the program.
///
/// # Safety
/// `argv` and `envp` are null-terminated arrays of strings.
unsafe fn run(argv: Strings, envp: Strings, mask: &u64) -> ! {
    unsafe {
        call(number::SETPGID, 0, 0, 0, 0, 0);
        // TIOCSPGRP; in the container's first child's eyes its own group is its process id.
        let group = call_getpid();
        call(number::IOCTL, 0, 0x5410, &raw const group as usize, 0, 0);
        call(number::SIGPROCMASK, 2, mask as *const u64 as usize, 0, 8, 0);
        let program = *argv;
        let error = if contains(program, b'/') {
            call(number::EXECVE, program as usize, argv as usize, envp as usize, 0, 0)
        } else {
            search(program, argv, envp)
        };
        say(b"exec ");
        call(number::WRITE, 2, program as usize, length(program), 0, 0);
        let not_found = error == ENOENT || error == ENOTDIR;
        say(if not_found { b": not found\n" } else { b": cannot be executed\n" });
        exit(if not_found { 127 } else { 126 })
    }
}

/// # Safety
/// None beyond the call's.
unsafe fn call_getpid() -> i32 {
    #[cfg(target_arch = "x86_64")]
    const GETPID: usize = 39;
    #[cfg(target_arch = "aarch64")]
    const GETPID: usize = 172;
    unsafe { call(GETPID, 0, 0, 0, 0, 0) as i32 }
}

/// Tries every directory of `PATH`.
///
/// # Safety
/// As [`run`].
unsafe fn search(program: *const u8, argv: Strings, envp: Strings) -> isize {
    unsafe {
        let mut path = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0".as_ptr();
        let mut variable = envp;
        while !(*variable).is_null() {
            if starts(*variable, b"PATH=") {
                path = (*variable).add(5);
            }
            variable = variable.add(1);
        }
        let mut buffer = [0u8; 4096];
        let mut reason = ENOENT;
        let name = length(program);
        loop {
            let mut size = 0;
            while *path.add(size) != 0 && *path.add(size) != b':' {
                size += 1;
            }
            if *path == b'/' && size + name + 2 <= buffer.len() {
                let mut at = buffer.as_mut_ptr();
                at = append(at, path, size);
                at = append(at, c"/".as_ptr().cast(), 1);
                at = append(at, program, name);
                at.write(0);
                let error = call(number::EXECVE, buffer.as_ptr() as usize, argv as usize, envp as usize, 0, 0);
                if error == EACCES || (error != ENOENT && error != ENOTDIR) {
                    reason = error;
                }
            }
            if *path.add(size) == 0 {
                return reason;
            }
            path = path.add(size + 1);
        }
    }
}

/// # Safety
/// There is room at `to` for `count` bytes.
unsafe fn append(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe {
        for index in 0..count {
            to.add(index).write_volatile(*from.add(index));
        }
        to.add(count)
    }
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn length(text: *const u8) -> usize {
    let mut length = 0;
    unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
    }
    length
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn contains(text: *const u8, byte: u8) -> bool {
    unsafe { (0..length(text)).any(|index| *text.add(index) == byte) }
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn starts(text: *const u8, prefix: &[u8]) -> bool {
    for (index, byte) in prefix.iter().enumerate() {
        let other = unsafe { *text.add(index) };
        if other != *byte {
            return false;
        }
        if other == 0 {
            break;
        }
    }
    true
}

/// # Safety
/// `text` ends with a zero byte, as `other` does.
unsafe fn equals(text: *const u8, other: &[u8]) -> bool {
    unsafe { starts(text, other) }
}

/// # Safety
/// None beyond the call's.
unsafe fn say(text: &[u8]) {
    unsafe {
        call(number::WRITE, 2, text.as_ptr() as usize, text.len(), 0, 0);
    }
}

/// # Safety
/// None beyond the call's.
unsafe fn exit(code: i32) -> ! {
    unsafe {
        loop {
            call(number::EXIT_GROUP, code as usize, 0, 0, 0, 0);
        }
    }
}

/// The compiler asks for these where it clears or copies arrays.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    unsafe {
        for index in 0..count {
            to.add(index).write_volatile(byte as u8);
        }
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe {
        append(to, from, count);
    }
    to
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe { exit(255) }
}

