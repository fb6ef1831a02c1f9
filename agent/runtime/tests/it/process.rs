//! Who a process is and what it may do: users, capabilities, seccomp, limits, terminal.

use std::fs;
use std::io::{Read, Write};

use agent_runtime::spec::{Capabilities, CapabilitySet, Rlimit, SeccompPolicy, TerminalSize};

use crate::box_::{Container, wait};
use crate::need_root;

fn status(container: &Container, field: &str) -> String {
    let output = container.output();
    let line = output
        .lines()
        .find(|line| line.starts_with(field))
        .unwrap_or_else(|| panic!("{field} in {output}"));
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn capabilities_are_dockers_fourteen() {
    need_root!();
    let container = Container::new(&["cat", "/proc/self/status"]);
    for (field, value) in [
        ("CapInh", 0),
        ("CapPrm", 0xa80425fb),
        ("CapEff", 0xa80425fb),
        ("CapBnd", 0xa80425fb),
        ("CapAmb", 0u64),
    ] {
        assert_eq!(
            status(&container, field),
            format!("{value:016x}"),
            "{field}"
        );
    }
    assert_eq!(status(&container, "NoNewPrivs"), "0");
    assert_eq!(status(&container, "Seccomp:"), "2");
    assert_eq!(status(&container, "SigIgn"), "0000000000000000");
    assert_eq!(status(&container, "SigBlk"), "0000000000000000");
}

#[test]
fn a_user_other_than_root_keeps_the_bounding_set_alone() {
    need_root!();
    let mut container = Container::new(&["cat", "/proc/self/status"]);
    container.spec.process.user = "app".into();
    container.spec.process.no_new_privileges = true;
    for (field, value) in [
        ("CapPrm", 0u64),
        ("CapEff", 0),
        ("CapBnd", 0xa80425fb),
        ("CapInh", 0),
    ] {
        assert_eq!(
            status(&container, field),
            format!("{value:016x}"),
            "{field}"
        );
    }
    assert_eq!(status(&container, "NoNewPrivs"), "1");
    assert_eq!(status(&container, "Uid"), "1000");
}

#[test]
fn users_and_groups_come_from_the_image() {
    need_root!();
    let mut container = Container::sh("id; echo $HOME; pwd; echo hello > /dev/stdout");
    container.spec.process.user = "app".into();
    container.spec.process.additional_groups = vec!["7".into()];
    container.spec.process.cwd = "/made/for/you".into();
    assert_eq!(
        container.output(),
        "uid=1000(app) gid=1001(app) groups=7,1001(app),2000(extra)\n/home/app\n/made/for/you\nhello"
    );
    container.spec.process.user = "nobody".into();
    let error = container.try_run().unwrap_err().to_string();
    assert_eq!(
        error,
        "unable to find user nobody: no matching entries in passwd file"
    );
}

#[test]
fn ambient_capabilities_reach_a_user() {
    need_root!();
    let mut container = Container::new(&["cat", "/proc/self/status"]);
    let set = CapabilitySet::from_names(&["NET_BIND_SERVICE"]).unwrap();
    container.spec.process.user = "1000".into();
    container.spec.process.capabilities = Capabilities {
        bounding: set,
        effective: set,
        permitted: set,
        inheritable: set,
        ambient: set,
    };
    assert_eq!(status(&container, "CapEff"), "0000000000000400");
}

#[test]
fn the_default_filter_forbids_what_docker_forbids() {
    need_root!();
    // Namespaces, mounts and key rings need privileges or are denied; the process lives on with EPERM.
    let container = Container::sh(
        "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; echo still here",
    );
    let output = container.output();
    assert_eq!(
        output.matches("Operation not permitted").count()
            + output.matches("permission denied").count(),
        3,
        "{output}"
    );
    assert!(output.ends_with("still here"), "{output}");
    let mut free = Container::sh("unshare -U true && echo user namespace");
    free.spec.process.seccomp = SeccompPolicy::Unconfined;
    assert_eq!(free.output(), "user namespace");
}

#[test]
fn a_profile_of_the_users_decides() {
    need_root!();
    let mut container = Container::sh("mkdir /x 2>&1; echo code $?");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    container.spec.process.seccomp = SeccompPolicy::Profile(Box::new(
        agent_runtime::seccomp::Profile::parse(profile).unwrap(),
    ));
    assert_eq!(
        container.output(),
        "mkdir: can't create directory '/x': Function not implemented\ncode 1"
    );
}

#[test]
fn privileged_has_everything_the_engine_has() {
    need_root!();
    let mut container =
        Container::sh("cat /proc/self/status; mount -t tmpfs x /tmp && echo mounted");
    container.spec.process.capabilities =
        Capabilities::resolve::<&str>(&[], &[], true, CapabilitySet::available()).unwrap();
    container.spec.process.seccomp = SeccompPolicy::Unconfined;
    container.spec.masked_paths.clear();
    container.spec.readonly_paths.clear();
    container.resources().devices.clear();
    assert!(container.output().ends_with("mounted"));
    assert_eq!(
        status(&container, "CapEff"),
        format!("{:016x}", CapabilitySet::available().bits())
    );
}

#[test]
fn limits_and_scores_are_set() {
    need_root!();
    let mut container = Container::sh("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask");
    container.spec.process.rlimits = vec![Rlimit {
        name: "nofile".into(),
        soft: 77,
        hard: 99,
    }];
    container.spec.process.oom_score_adj = Some(123);
    assert_eq!(container.output(), "77\n99\n123\n0022");
    container.spec.process.rlimits[0].name = "files".into();
    assert_eq!(
        container.try_run().unwrap_err().to_string(),
        "unknown resource limit \"files\""
    );
}

#[test]
fn a_terminal_is_the_containers_own() {
    need_root!();
    let mut container = Container::sh(
        "tty; stty size; readlink /proc/self/fd/0; ls -1 /dev/pts; [ -c /dev/console ] && echo console; \
         echo to-tty > /dev/tty; read line; echo got $line; exit 7",
    );
    container.spec.process.terminal = Some(TerminalSize {
        rows: 33,
        columns: 111,
    });
    let plan = agent_runtime::launch::prepare(&container.spec).unwrap();
    let launched = agent_runtime::launch::spawn(&plan, None).unwrap();
    let mut master = fs::File::from(launched.terminal.as_ref().unwrap().try_clone().unwrap());
    master.write_all(b"typed\n").unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 1024];
    // The end of a terminal is EIO.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(wait(&launched), 7);
    let output = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    // The echo of what was typed comes whenever it comes.
    let output = output.replacen("typed\n", "", 1);
    for expected in [
        "/dev/pts/0\n33 111\n/dev/pts/0\n0\nptmx\nconsole\nto-tty\n",
        "got typed\n",
    ] {
        assert!(output.contains(expected), "{expected:?} in {output:?}");
    }
}

#[test]
fn descriptors_of_the_engine_do_not_reach_the_container() {
    need_root!();
    let leak = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    // A pipe of the shell's own would be among them.
    let output = Container::sh("ls /proc/$$/fd; true").output();
    assert_eq!(
        output.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2"],
        "{output}"
    );
}
