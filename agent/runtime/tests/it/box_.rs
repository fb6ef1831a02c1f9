//! A container for a test: busybox on an overlay, run to its end, everything removed on drop.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use agent_runtime::cgroup::{Cgroup, CgroupPath, Hierarchy, Resources};
use agent_runtime::launch::{self, LaunchError, Launched, Stdio};
use agent_runtime::spec::{
    Capabilities, CapabilitySet, CgroupSpec, DefaultMounts, LaunchSpec, Namespaces, Process,
    Rootfs, SeccompPolicy, default_device_rules, default_masked_paths, default_mounts,
    default_readonly_paths,
};
use tempfile::TempDir;

/// Says why and returns early when real containers cannot be run here.
#[macro_export]
macro_rules! need_root {
    () => {
        if let Some(reason) = $crate::box_::missing() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}

/// What this machine lacks.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("starting containers needs root");
    }
    if busybox().is_none() {
        return Some("no static busybox at /bin/busybox");
    }
    None
}

fn busybox() -> Option<PathBuf> {
    [
        "/bin/busybox",
        "/usr/bin/busybox",
        "/usr/lib/busybox/busybox-static",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|p| p.exists())
}

/// A container under construction.
pub(crate) struct Container {
    pub(crate) dir: TempDir,
    pub(crate) spec: LaunchSpec,
    cgroup: Option<Cgroup>,
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code, 128+n for a signal.
    pub(crate) code: i32,
    pub(crate) output: String,
}

impl Container {
    /// Runs `sh -c script`.
    pub(crate) fn sh(script: &str) -> Container {
        Container::new(&["sh", "-c", script])
    }

    pub(crate) fn new(args: &[&str]) -> Container {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let lower = dir.path().join("lower");
        for name in [
            "upper",
            "work",
            "lower/bin",
            "lower/etc",
            "lower/tmp",
            "lower/proc",
            "lower/sbin",
            "lower/home",
        ] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::copy(busybox().unwrap(), lower.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "ls", "id", "true", "false", "sleep", "mount", "mkdir", "touch", "echo",
            "stat", "tty", "readlink", "hostname", "grep", "wc", "head", "tail", "kill", "ps",
            "env", "pwd", "test", "mknod", "dd", "chmod", "umount", "unshare", "stty", "ln", "rm",
            "printf", "tr", "sort", "sysctl", "ulimit", "chroot", "find", "setsid", "nproc", "yes",
            "date",
        ] {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(
            lower.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            lower.join("etc/group"),
            "root:x:0:\napp:x:1001:\nextra:x:2000:app\n",
        )
        .unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = format!("muster-test-{}-{number}/box", std::process::id());
        let path = CgroupPath::try_from(PathBuf::from(path)).unwrap();
        let spec = LaunchSpec {
            rootfs: Rootfs::Overlay {
                lower: vec![lower],
                upper: dir.path().join("upper"),
                work: dir.path().join("work"),
            },
            readonly_rootfs: false,
            rootfs_propagation: None,
            namespaces: Namespaces::default(),
            hostname: Some("box".into()),
            domainname: None,
            mounts: default_mounts(DefaultMounts::default()),
            masked_paths: default_masked_paths(),
            readonly_paths: default_readonly_paths(),
            devices: Vec::new(),
            sysctls: Default::default(),
            process: process(args),
            cgroup: Some(CgroupSpec {
                path: path.clone(),
                resources: Resources {
                    devices: default_device_rules(),
                    ..Resources::default()
                },
            }),
            init: false,
        };
        let cgroup = Hierarchy::detect().unwrap().open(&path);
        Container {
            dir,
            spec,
            cgroup: Some(cgroup),
        }
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    pub(crate) fn resources(&mut self) -> &mut Resources {
        &mut self.spec.cgroup.as_mut().unwrap().resources
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    /// Starts it with its output in a pipe.
    pub(crate) fn start(&self) -> Result<(Launched, OwnedFd), LaunchError> {
        let plan = launch::prepare(&self.spec)?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let stdio = Stdio {
            stdin: null.as_fd(),
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
        };
        Ok((launch::spawn(&plan, Some(stdio))?, reader))
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ended {
        self.try_run()
            .unwrap_or_else(|error| panic!("{error}\n{}", launch::prepare(&self.spec).unwrap()))
    }

    pub(crate) fn try_run(&self) -> Result<Ended, LaunchError> {
        let (launched, reader) = self.start()?;
        let mut output = String::new();
        fs::File::from(reader).read_to_string(&mut output).unwrap();
        Ok(Ended {
            code: wait(&launched),
            output: output.trim_end().to_owned(),
        })
    }

    /// Output of a container that must end well.
    pub(crate) fn output(&self) -> String {
        let ended = self.run();
        assert_eq!(ended.code, 0, "{}", ended.output);
        ended.output
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            let parent = self
                .spec
                .cgroup
                .as_ref()
                .and_then(|spec| spec.path.as_path().parent().map(Path::to_owned));
            let removed = cgroup.remove();
            if let Some(parent) = parent {
                let parent = CgroupPath::try_from(parent).unwrap();
                let _ = Hierarchy::detect().unwrap().open(&parent).remove();
            }
            if !std::thread::panicking() {
                removed.unwrap();
            }
        }
    }
}

/// Docker's defaults for a process.
pub(crate) fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cwd: "/".into(),
        user: String::new(),
        additional_groups: Vec::new(),
        umask: None,
        rlimits: Vec::new(),
        capabilities: Capabilities::bounded_by(CapabilitySet::docker_default()),
        no_new_privileges: false,
        seccomp: SeccompPolicy::Default,
        oom_score_adj: None,
        terminal: None,
        preserve_fds: 0,
        keep_keyring: false,
    }
}

/// Waits for a launched process.
pub(crate) fn wait(launched: &Launched) -> i32 {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| signal + 128))
                    .expect("it has ended");
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("waitid: {errno}"),
        }
    }
}
