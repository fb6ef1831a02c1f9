//! `--init`: a small PID 1 that starts the program, forwards signals to it and reaps orphans.
//!
//! It is this executable again, run through a descriptor whose file nobody can write to, under the name
//! `/sbin/docker-init`. Behaviour of tini (`krallin/tini`): signals go to the child alone, its exit status becomes ours
//! (128+n for a signal), everything else that dies is reaped.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use crate::launch::step::attr;
use crate::sys::kernel;
use crate::sys::raw::MountAttr;

/// The name under which it runs; `main` hands over to [`main`] when it is called by it.
pub const NAME: &str = "/sbin/docker-init";

/// This executable, through a descriptor that nobody who gets hold of it can write to (CVE-2019-5736): a read-only mount
/// of the file that only the descriptor leads to, or a sealed copy in memory. Executing it protects the new process.
pub fn own_executable() -> io::Result<OwnedFd> {
    let own = rustix::fs::open(
        "/proc/self/exe",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if is_protected(&own) {
        return Ok(own);
    }
    let readonly = MountAttr {
        set: attr::RDONLY,
        ..MountAttr::default()
    };
    let mounted = kernel::clone_tree(own.as_fd(), false).and_then(|tree| {
        kernel::set_mount_attributes(tree.as_fd(), &readonly, false)?;
        // The descriptor of a tree is for paths only, which is all that executing it needs.
        Ok(tree)
    });
    match mounted {
        Ok(tree) => Ok(tree),
        // Before Linux 5.12, or on a mount that may not be copied.
        Err(_) => sealed_copy(own),
    }
}

/// Sealed against writing, or on a read-only mount.
fn is_protected(executable: &OwnedFd) -> bool {
    let sealed = rustix::fs::fcntl_get_seals(executable)
        .is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE));
    let readonly = rustix::fs::fstatvfs(executable)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    sealed || readonly
}

/// A copy in memory that can no longer be changed.
fn sealed_copy(executable: OwnedFd) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let memory =
        rustix::fs::memfd_create("muster", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(memory);
    io::copy(&mut std::fs::File::from(executable), &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}

/// Makes sure that this process runs from an executable nobody can write to, by executing itself again if need be.
/// Call it before any thread exists and before anything was done.
pub(crate) fn run_from_sealed_copy() -> io::Result<()> {
    let own = rustix::fs::open(
        "/proc/self/exe",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Nobody in a container may look into this process' memory or descriptors.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    if is_protected(&own) {
        return Ok(());
    }
    let executable = own_executable()?;
    let text =
        |word: OsString| std::ffi::CString::new(word.into_encoded_bytes()).map_err(io::Error::from);
    let arguments = std::env::args_os()
        .map(text)
        .collect::<io::Result<Vec<_>>>()?;
    let environment = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    match nix::unistd::execveat(executable, c"", &arguments, &environment, flags) {
        Ok(never) => match never {},
        Err(errno) => Err(errno.into()),
    }
}

/// Runs as PID 1: `docker-init [--] PROGRAM ARGUMENT…`. Returns the program's exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.peek().is_some_and(|first| first == "--") {
        arguments.next();
    }
    let Some(program) = arguments.next() else {
        return ExitCode::from(1);
    };
    let all = SigSet::all();
    let mut before = SigSet::empty();
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)).is_err() {
        return ExitCode::from(1);
    }
    let child = match start(&program, arguments, before) {
        Ok(child) => child,
        Err(error) => {
            // Nobody else can say it: the runtime has seen a successful exec.
            let text = format!(
                "exec: {program:?}: {}\n",
                crate::launch::parent::message(&error)
            );
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            let not_found = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            );
            return ExitCode::from(if not_found { 127 } else { 126 });
        }
    };
    loop {
        let Ok(signal) = all.wait() else { continue };
        match signal {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return ExitCode::from(code);
                }
            }
            // Reading or writing a terminal from the background stops only who does it.
            Signal::SIGTTIN | Signal::SIGTTOU => {}
            other => {
                let _ = kill(child, other);
            }
        }
    }
}

/// The program in a process group of its own, in the foreground of the terminal if there is one.
fn start(
    program: &OsString,
    arguments: impl Iterator<Item = OsString>,
    mask: SigSet,
) -> io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(arguments);
    command.process_group(0);
    give_signals_back(&mut command, mask);
    // Its handle is dropped on purpose: `reap` waits for every child.
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), pid);
    }
    Ok(Pid::from_raw(pid))
}

#[allow(unsafe_code)]
fn give_signals_back(command: &mut Command, mask: SigSet) {
    // SAFETY: the closure makes one system call on a copied value and does not allocate.
    unsafe {
        command.pre_exec(move || {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(io::Error::from)
        });
    }
}

/// Reaps everything that has died; the exit code of the program if it was among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => {
                code = u8::try_from(status & 0xff).ok()
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                let status = std::process::ExitStatus::from_raw(signal as i32);
                code = u8::try_from(128 + status.signal().unwrap_or(0)).ok();
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
