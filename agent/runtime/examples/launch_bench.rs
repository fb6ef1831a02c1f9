//! How long a container takes from plan to removed cgroup, without daemon, keeper or network: `launch_bench ROOTFS N`.
//!
//! ROOTFS is a directory with `/bin/true`; it becomes the only lower layer of a new overlay per container. Prints the
//! least and the median time, and the processor time per container, children included.
#![allow(clippy::print_stdout)]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent_runtime::cgroup::{CgroupPath, Hierarchy, Resources};
use agent_runtime::launch::{self, Stdio};
use agent_runtime::spec::{
    Capabilities, CapabilitySet, CgroupSpec, DefaultMounts, LaunchSpec, Mount, MountKind,
    MountOptions, Namespaces, Process, Rootfs, SeccompPolicy, default_device_rules,
    default_masked_paths, default_mounts, default_readonly_paths,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rootfs = PathBuf::from(arguments.next().expect("usage: launch_bench ROOTFS N"));
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(100);
    let dir = rootfs
        .join("..")
        .join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("make a directory beside the root");
    let dir = dir.canonicalize().expect("it was just made");
    let hierarchy = Hierarchy::detect().expect("a cgroup layout");
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("a null device");
    for name in ["hosts", "hostname", "resolv.conf"] {
        std::fs::write(dir.join(name), "").expect("write");
    }
    let before = processor_time();
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let (upper, work) = (dir.join(format!("u{round}")), dir.join(format!("w{round}")));
        std::fs::create_dir(&upper).expect("make");
        std::fs::create_dir(&work).expect("make");
        let path = CgroupPath::try_from(PathBuf::from(format!("muster-bench/{round}")))
            .expect("a plain path");
        let spec = spec(&rootfs, &dir, upper, work, path.clone());
        let start = Instant::now();
        let plan = launch::prepare(&spec).expect("a plan");
        let stdio = Stdio {
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let launched =
            launch::spawn(&plan, Some(stdio)).unwrap_or_else(|error| panic!("{error}\n{plan}"));
        let id = rustix::process::WaitId::PidFd(launched.pidfd.as_fd());
        rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).expect("wait");
        hierarchy.open(&path).remove().expect("an empty cgroup");
        times.push(start.elapsed());
    }
    let used = processor_time() - before;
    let _ = hierarchy
        .open(&CgroupPath::try_from(PathBuf::from("muster-bench")).expect("plain"))
        .remove();
    std::fs::remove_dir_all(&dir).expect("remove");
    times.sort();
    let total: Duration = times.iter().sum();
    println!(
        "min {:?}  median {:?}  {:.0}/s  CPU {:?} each",
        times[0],
        times[rounds / 2],
        rounds as f64 / total.as_secs_f64(),
        used / u32::try_from(rounds).expect("a small number")
    );
}

fn spec(
    rootfs: &std::path::Path,
    dir: &std::path::Path,
    upper: PathBuf,
    work: PathBuf,
    path: CgroupPath,
) -> LaunchSpec {
    let mut mounts = default_mounts(DefaultMounts::default());
    for name in ["hosts", "hostname", "resolv.conf"] {
        mounts.push(Mount {
            target: format!("/etc/{name}").into(),
            kind: MountKind::Bind {
                source: dir.join(name),
                recursive: false,
            },
            options: MountOptions::default(),
        });
    }
    LaunchSpec {
        rootfs: Rootfs::Overlay {
            lower: vec![rootfs.to_owned()],
            upper,
            work,
        },
        readonly_rootfs: false,
        rootfs_propagation: None,
        namespaces: Namespaces::default(),
        hostname: Some("bench".into()),
        domainname: None,
        mounts,
        masked_paths: default_masked_paths(),
        readonly_paths: default_readonly_paths(),
        devices: Vec::new(),
        sysctls: Default::default(),
        process: Process {
            args: vec!["/bin/true".into()],
            env: vec!["PATH=/bin".into()],
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
        },
        cgroup: Some(CgroupSpec {
            path,
            resources: Resources {
                devices: default_device_rules(),
                memory_bytes: Some(256 << 20),
                pids: Some(100),
                cpu_shares: Some(512),
                ..Resources::default()
            },
        }),
        init: false,
    }
}

/// User and system time of this process and the children it has waited for.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let of = |who| {
        let usage = getrusage(who).expect("usage");
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}
