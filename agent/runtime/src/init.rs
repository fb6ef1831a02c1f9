//! The programs the runtime runs itself from: the init of `--init`, and its own executable, both protected against
//! whoever meets them in a container.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::launch::step::attr;
use crate::sys::kernel;
use crate::sys::raw::MountAttr;

/// The name under which the init runs.
pub(crate) const INIT_PATH: &std::ffi::CStr = c"/sbin/docker-init";

/// `init/main.rs`, built for this machine: static, a few KiB.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docker-init"));

/// The init as a sealed file in memory, made once per process.
pub(crate) fn docker_init() -> io::Result<OwnedFd> {
    static MADE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return made.try_clone();
    }
    let made = sealed("docker-init", &mut &*INIT)?;
    MADE.get_or_init(|| made).try_clone()
}

/// This executable, through a descriptor that nobody who gets hold of it can write to (CVE-2019-5736): a read-only mount
/// of the file that only the descriptor leads to, or a sealed copy in memory. Executing it protects the new process.
pub fn own_executable() -> io::Result<OwnedFd> {
    protected_executable(Path::new("/proc/self/exe"))
}

/// Any executable, protected in the same way.
pub(crate) fn protected_executable(path: &Path) -> io::Result<OwnedFd> {
    let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
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
        Err(_) => sealed("muster", &mut std::fs::File::from(own)),
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

/// A file in memory that can be executed and no longer changed.
fn sealed(name: &str, content: &mut dyn io::Read) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before 6.3 every such file is executable and the flag unknown.
    let memory = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut copy = std::fs::File::from(memory);
    io::copy(content, &mut copy)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
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
