//! What a container sees of itself and of the host.

use std::fs;

use agent_runtime::launch;
use agent_runtime::spec::{Mount, MountKind, MountOptions, Namespace};

use crate::box_::Container;
use crate::need_root;

#[test]
fn a_program_runs_in_a_root_and_namespaces_of_its_own() {
    need_root!();
    let container =
        Container::sh("echo $$; hostname; ls /; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l");
    let output = container.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["1", "box"]);
    assert!(
        output.contains("busybox") || output.contains("sh"),
        "{output}"
    );
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let inside = Container::new(&["readlink", &format!("/proc/self/ns/{kind}")]).output();
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(inside, outside.to_string_lossy(), "{kind}");
    }
}

#[test]
fn exit_codes_are_the_programs_own() {
    need_root!();
    assert_eq!(Container::new(&["true"]).run().code, 0);
    assert_eq!(Container::sh("exit 42").run().code, 42);
    assert_eq!(
        Container::sh("kill -9 $$; sleep 9")
            .start()
            .map(|(launched, _)| {
                // PID 1 is deaf to its own signals; only the host's count.
                rustix::process::kill_process(
                    rustix::process::Pid::from_raw(launched.pid).unwrap(),
                    rustix::process::Signal::KILL,
                )
                .unwrap();
                crate::box_::wait(&launched)
            })
            .unwrap(),
        137
    );
}

#[test]
fn writes_go_to_the_upper_layer_alone() {
    need_root!();
    let container =
        Container::sh("echo new > /etc/new; echo changed > /etc/passwd; rm /etc/group; ls /etc");
    assert_eq!(container.output(), "new\npasswd");
    assert!(container.lower().join("etc/group").exists());
    assert!(
        fs::read_to_string(container.lower().join("etc/passwd"))
            .unwrap()
            .contains("root")
    );
    assert_eq!(
        fs::read_to_string(container.dir.path().join("upper/etc/new")).unwrap(),
        "new\n"
    );
}

#[test]
fn the_host_is_out_of_sight() {
    need_root!();
    let mounts = Container::new(&["cat", "/proc/self/mountinfo"]).output();
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    for expected in [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
    ] {
        assert!(
            points.contains(&expected),
            "{expected} is missing in\n{mounts}"
        );
    }
    // Nothing but what was asked for, and nothing that travels to or from the host.
    for line in mounts.lines() {
        assert!(
            !line.contains("shared:") && !line.contains("master:"),
            "{line}"
        );
        let point = line.split(' ').nth(4).unwrap();
        let known = ["/proc", "/dev", "/sys"]
            .iter()
            .any(|prefix| point.starts_with(prefix));
        assert!(point == "/" || known, "{line}");
    }
}

#[test]
fn dev_has_dockers_nodes_and_links() {
    need_root!();
    let output = Container::sh("cd /dev; stat -c '%n %a %t:%T' null zero full random urandom tty; \
         for l in fd stdin stdout stderr ptmx; do readlink $l; done; stat -c %a pts/ptmx; echo x > null; head -c 2 zero | wc -c; \
         mount | grep devpts | grep -o 'gid=5,mode=620'; stat -c %a shm").output();
    assert_eq!(
        output,
        "null 666 1:3\nzero 666 1:5\nfull 666 1:7\nrandom 666 1:8\nurandom 666 1:9\ntty 666 5:0\n/proc/self/fd\n\
         /proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n666\n2\ngid=5,mode=620\n1777"
    );
}

#[test]
fn masked_and_readonly_paths_hold() {
    need_root!();
    let output = Container::sh(
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
         ls /proc/acpi 2>/dev/null | wc -l; (echo 1 > /proc/irq/default_smp_affinity) 2>&1; (echo 1 > /proc/sys/vm/swappiness) 2>&1; \
         (echo 1 > /sys/kernel/mm/ksm/run) 2>&1; (mkdir /sys/fs/cgroup/x) 2>&1; true",
    )
    .output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["0", "0", "0"], "{output}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("Read-only file system"))
            .count(),
        4,
        "{output}"
    );
}

#[test]
fn a_readonly_root_stays_writable_where_it_is_mounted_so() {
    need_root!();
    let mut container =
        Container::sh("touch /x 2>&1; touch /dev/shm/y && echo shm; touch /data/z && echo data");
    container.spec.readonly_rootfs = true;
    let data = container.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    container.spec.mounts.push(bind(&data, "/data"));
    assert_eq!(
        container.output(),
        "touch: /x: Read-only file system\nshm\ndata"
    );
    assert!(data.join("z").exists());
}

pub(crate) fn bind(source: &std::path::Path, target: &str) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind {
            source: source.to_owned(),
            recursive: true,
        },
        options: MountOptions::default(),
    }
}

#[test]
fn binds_make_their_mount_points_and_keep_their_options() {
    need_root!();
    let mut container = Container::sh(
        "cat /deep/er/file; (echo x > /deep/er/file) 2>&1; ls /d/nested; grep -c ' /d ' /proc/mounts; grep ' /d ' /proc/mounts | grep -o noexec",
    );
    let file = container.dir.path().join("file");
    fs::write(&file, "content\n").unwrap();
    let mut first = bind(&file, "/deep/er/file");
    first.options.readonly = true;
    let dir = container.dir.path().join("d");
    fs::create_dir_all(dir.join("nested/a")).unwrap();
    let mut second = bind(&dir, "/d");
    second.options.noexec = true;
    container.spec.mounts.extend([first, second]);
    let output = container.output();
    assert_eq!(
        output,
        "content\nsh: can't create /deep/er/file: Read-only file system\na\n1\nnoexec"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "content\n");
}

#[test]
fn recursive_readonly_reaches_the_mounts_below() {
    need_root!();
    let mut container = Container::sh("(touch /tree/x) 2>&1; (touch /tree/sub/x) 2>&1; true");
    let tree = container.dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    // The mount below lives in a namespace of this thread's own, so that no other test sees it.
    let output = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                nix::sched::unshare(
                    nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS,
                )
                .unwrap();
                rustix::mount::mount_change(
                    "/",
                    rustix::mount::MountPropagationFlags::PRIVATE
                        | rustix::mount::MountPropagationFlags::REC,
                )
                .unwrap();
                rustix::mount::mount(
                    "tmpfs",
                    tree.join("sub"),
                    "tmpfs",
                    rustix::mount::MountFlags::empty(),
                    None,
                )
                .unwrap();
                let mut mount = bind(&tree, "/tree");
                mount.options.readonly = true;
                mount.options.recursive_readonly = agent_runtime::spec::RecursiveReadonly::Force;
                container.spec.mounts.push(mount);
                container.output()
            })
            .join()
            .unwrap()
    });
    assert_eq!(
        output.matches("Read-only file system").count(),
        2,
        "{output}"
    );
}

#[test]
fn tmpfs_takes_its_options_and_can_start_with_the_images_files() {
    need_root!();
    let mut container = Container::sh(
        "df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2; stat -c %a /scratch; cat /etc/passwd | head -1; ls -l /etc/link | wc -l; stat -c %u:%g:%a /etc/owned",
    );
    let lower = container.lower();
    for applet in ["df", "cut"] {
        std::os::unix::fs::symlink("busybox", lower.join("bin").join(applet)).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", lower.join("etc/link")).unwrap();
    fs::write(lower.join("etc/owned"), "x").unwrap();
    std::os::unix::fs::chown(lower.join("etc/owned"), Some(7), Some(8)).unwrap();
    let tmpfs = |target: &str, data: &[&str], copy_up| Mount {
        target: target.into(),
        kind: MountKind::Filesystem {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
            data: data.iter().map(|option| (*option).to_owned()).collect(),
        },
        options: MountOptions {
            copy_up,
            ..MountOptions::default()
        },
    };
    container
        .spec
        .mounts
        .push(tmpfs("/scratch", &["size=1m", "mode=700"], false));
    container.spec.mounts.push(tmpfs("/etc", &[], true));
    assert_eq!(
        container.output(),
        "1024\n700\nroot:x:0:0::/root:/bin/sh\n1\n7:8:644"
    );
}

#[test]
fn sysctls_and_names_belong_to_the_container() {
    need_root!();
    let mut container = Container::sh(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/kernel/domainname",
    );
    container
        .spec
        .sysctls
        .insert("net.ipv4.ip_forward".into(), "1".into());
    container
        .spec
        .sysctls
        .insert("kernel.shmmni".into(), "77".into());
    container.spec.domainname = Some("example.org".into());
    let before = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_eq!(container.output(), "1\n77\nexample.org");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(),
        before
    );
    container
        .spec
        .sysctls
        .insert("kernel.core_pattern".into(), "|/bin/sh".into());
    let refused = launch::prepare(&container.spec).unwrap_err().to_string();
    assert_eq!(
        refused,
        "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace"
    );
}

#[test]
fn namespaces_can_be_the_hosts_or_anothers() {
    need_root!();
    let link = |kind: &str| {
        fs::read_link(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let mut container = Container::sh("for n in net ipc uts; do readlink /proc/self/ns/$n; done");
    container.spec.namespaces.net = Namespace::Host;
    container.spec.namespaces.ipc = Namespace::Host;
    container.spec.namespaces.uts = Namespace::Join("/proc/self/ns/uts".into());
    container.spec.hostname = None;
    assert_eq!(
        container.output(),
        format!("{}\n{}\n{}", link("net"), link("ipc"), link("uts"))
    );

    let first = Container::sh("echo up; sleep 60");
    let (running, _output) = first.start().unwrap();
    let mut second = Container::sh(
        "readlink /proc/1/ns/pid; readlink /proc/self/ns/net; cat /proc/1/cmdline | tr '\\0' ' '",
    );
    second.spec.namespaces.pid = Namespace::Join(format!("/proc/{}/ns/pid", running.pid).into());
    second.spec.namespaces.net = Namespace::Join(format!("/proc/{}/ns/net", running.pid).into());
    let output = second.output();
    let theirs = |kind: &str| {
        fs::read_link(format!("/proc/{}/ns/{kind}", running.pid))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    assert!(
        output.starts_with(&format!("{}\n{}\n", theirs("pid"), theirs("net"))),
        "{output}"
    );
    assert!(output.ends_with("sleep 60"), "{output}");
    first.cgroup().kill().unwrap();
    assert_eq!(crate::box_::wait(&running), 137);
    // A new child of this process is in this process' own pid namespace again.
    let own = std::process::Command::new("readlink")
        .arg("/proc/self/ns/pid")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&own.stdout).trim(), link("pid"));
}

#[test]
fn failures_name_the_step_and_the_reason() {
    need_root!();
    let message = |edit: &dyn Fn(&mut Container)| {
        let mut container = Container::new(&["true"]);
        edit(&mut container);
        let error = container.try_run().unwrap_err();
        assert!(
            !container.cgroup().exists(),
            "a failed launch left its cgroup behind"
        );
        (error.exit_code(), error.to_string())
    };
    let program = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        message(&move |c| c.spec.process.args = args.clone())
    };
    assert_eq!(
        program(&["foo"]),
        (
            127,
            "exec: \"foo\": executable file not found in $PATH".into()
        )
    );
    assert_eq!(
        program(&["/no/foo"]),
        (
            127,
            "exec: \"/no/foo\": stat /no/foo: no such file or directory".into()
        )
    );
    assert_eq!(
        program(&["/etc/passwd"]),
        (126, "exec: \"/etc/passwd\": permission denied".into())
    );
    assert_eq!(
        program(&["/etc"]),
        (126, "exec: \"/etc\": is a directory".into())
    );
    assert_eq!(
        message(&|c| {
            fs::write(c.lower().join("bin/script"), "#!/bin/none\n").unwrap();
            fs::set_permissions(
                c.lower().join("bin/script"),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
            c.spec.process.args = vec!["script".into()];
        }),
        (127, "exec script: no such file or directory".into())
    );
    assert_eq!(
        message(&|c| c.spec.mounts.push(bind("/does/not/exist".as_ref(), "/x"))),
        (
            125,
            "bind /does/not/exist: no such file or directory".into()
        )
    );
    let (code, text) = message(&|c| c.spec.mounts.push(bind("/".as_ref(), "/etc/passwd")));
    assert_eq!(code, 125);
    assert!(
        text.starts_with("bind / on /etc/passwd: are you trying to mount a directory onto a file"),
        "{text}"
    );
    assert_eq!(
        message(&|c| c.spec.mounts.push(bind("/".as_ref(), "/etc/passwd/below"))),
        (
            125,
            "bind / on /etc/passwd/below: make the mount point: not a directory".into()
        )
    );
    assert_eq!(
        message(&|c| c.spec.namespaces.net = Namespace::Join("/run/no-such-netns".into())),
        (
            125,
            "open namespace /run/no-such-netns: no such file or directory".into()
        )
    );
}

#[test]
fn init_reaps_orphans_forwards_signals_and_passes_the_exit_code_on() {
    need_root!();
    let with_init = |script: &str| {
        let mut container = Container::sh(script);
        container.spec.init = true;
        container
    };
    let ended = with_init("cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $PPID; exit 42").run();
    assert_eq!(ended.code, 42);
    assert!(
        ended.output.starts_with("/sbin/docker-init -- sh -c ") && ended.output.ends_with("\n1"),
        "{ended:?}"
    );
    // An orphan falls to PID 1 and is gone when it ends, not a zombie.
    let orphan = with_init("(sh -c 'sleep 0.1' &) ; sleep 0.5; ps -o stat,comm | grep -c ^Z");
    assert_eq!(orphan.run().output, "0");
    let trap =
        with_init("trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let (launched, reader) = trap.start().unwrap();
    let mut reader = fs::File::from(reader);
    let mut line = [0u8; 6];
    std::io::Read::read_exact(&mut reader, &mut line).unwrap();
    let pid = rustix::process::Pid::from_raw(launched.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(crate::box_::wait(&launched), 5);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "caught\n");
    let mut missing = with_init("");
    missing.spec.process.args = vec!["nothing".into()];
    let ended = missing.run();
    assert_eq!(
        (ended.code, ended.output.as_str()),
        (127, "exec nothing: not found")
    );
    let mut killed = with_init("kill -9 $$");
    killed.spec.process.user = "app".into();
    assert_eq!(killed.run().code, 137);
}
