//! Attempts to get out of the root, or to make the runtime touch something outside it.

use std::fs;
use std::os::unix::fs::symlink;

use agent_runtime::spec::{Mount, MountKind, MountOptions};

use crate::box_::Container;
use crate::launch::bind;
use crate::need_root;

#[test]
fn mount_targets_that_are_links_stay_inside_the_root() {
    need_root!();
    let outside = tempfile::tempdir().unwrap();
    let mut container = Container::sh("cat /etc/target 2>&1; ls -la /link/ /inner 2>&1; true");
    let lower = container.lower();
    // The link names a directory of the host; inside the root that path does not exist and is made there.
    symlink(outside.path(), lower.join("link")).unwrap();
    symlink("../../../../../../etc/target", lower.join("up")).unwrap();
    let secret = container.dir.path().join("payload");
    fs::write(&secret, "payload\n").unwrap();
    container.spec.mounts.push(bind(&secret, "/up"));
    let output = container.output();
    assert!(output.starts_with("payload"), "{output}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!std::path::Path::new("/etc/target").exists());

    let mut container = Container::sh("cat /link/file");
    symlink(outside.path(), container.lower().join("link")).unwrap();
    container.spec.mounts.push(bind(&secret, "/link/file"));
    assert_eq!(container.output(), "payload");
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        0,
        "something was made outside the root"
    );
}

#[test]
fn links_to_what_only_a_running_system_has_are_mounted_on() {
    need_root!();
    let mut container = Container::sh("cat /etc/resolv.conf; cat /run/systemd/stub.conf; pwd");
    let lower = container.lower();
    symlink("../run/systemd/stub.conf", lower.join("etc/resolv.conf")).unwrap();
    symlink("/srv/work", lower.join("wd")).unwrap();
    let payload = container.dir.path().join("payload");
    fs::write(&payload, "nameserver\n").unwrap();
    container
        .spec
        .mounts
        .push(bind(&payload, "/etc/resolv.conf"));
    container.spec.process.cwd = "/wd".into();
    assert_eq!(container.output(), "nameserver\nnameserver\n/srv/work");
}

#[test]
fn links_to_existing_places_resolve_inside() {
    need_root!();
    let mut container = Container::sh("cat /etc/real/file");
    fs::create_dir(container.lower().join("etc/real")).unwrap();
    symlink("/etc/real", container.lower().join("link")).unwrap();
    let payload = container.dir.path().join("payload");
    fs::write(&payload, "inside\n").unwrap();
    container.spec.mounts.push(bind(&payload, "/link/file"));
    assert_eq!(container.output(), "inside");
}

#[test]
fn dots_in_targets_do_not_climb() {
    need_root!();
    let mut container = Container::sh("cat /climbed");
    let payload = container.dir.path().join("payload");
    fs::write(&payload, "still inside\n").unwrap();
    container
        .spec
        .mounts
        .push(bind(&payload, "/../../../../../../../climbed"));
    assert_eq!(container.output(), "still inside");
    assert!(!std::path::Path::new("/climbed").exists());
}

#[test]
fn magic_links_are_refused_as_targets() {
    need_root!();
    let mut container = Container::new(&["true"]);
    let payload = container.dir.path().join("payload");
    fs::write(&payload, "x").unwrap();
    container
        .spec
        .mounts
        .push(bind(&payload, "/proc/self/root/tmp/through"));
    let error = container.try_run().unwrap_err().to_string();
    assert!(
        error.contains("too many levels of symbolic links"),
        "{error}"
    );
    symlink("/proc/self/cwd", container.lower().join("cwd")).unwrap();
    container.spec.mounts.pop();
    container.spec.mounts.push(bind(&payload, "/cwd/through"));
    assert!(container.try_run().is_err());
}

#[test]
fn a_leaked_descriptor_is_no_working_directory() {
    need_root!();
    // CVE-2024-21626: a directory of the host that happens to be open must not become the working directory.
    let _leak = fs::File::open("/").unwrap();
    for number in 3..40 {
        let mut container = Container::new(&["pwd"]);
        container.spec.process.cwd = format!("/proc/self/fd/{number}").into();
        if let Ok(ended) = container.try_run() {
            assert!(
                ended.output.starts_with("/proc/self/fd/") || ended.code != 0,
                "fd {number}: {ended:?}"
            );
        }
    }
    let mut container = Container::new(&["/proc/self/fd/9/../../bin/busybox", "true"]);
    container.spec.process.cwd = "/".into();
    assert!(container.try_run().is_err());
}

#[test]
fn masks_cannot_be_lifted_or_bypassed() {
    need_root!();
    let container = Container::sh(
        "umount /proc/kcore 2>&1; umount /proc/sys 2>&1; mount -o remount,rw /proc/sys 2>&1; \
         cat /proc/self/root/proc/kcore | wc -c; cat /proc/1/root/proc/keys | wc -c; \
         ls /proc/1/cwd/../../../../ | head -20 | grep -c vda",
    );
    let ended = container.run();
    assert_eq!(
        ended.output.matches("ermitted").count() + ended.output.matches("denied").count(),
        3,
        "{ended:?}"
    );
    assert!(ended.output.ends_with("0\n0\n0"), "{ended:?}");
}

#[test]
fn an_images_fifo_named_passwd_does_not_hang_the_launch() {
    need_root!();
    let container = Container::new(&["true"]);
    let passwd = container.lower().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_eq!(container.run().code, 0);
}

#[test]
fn an_images_passwd_cannot_point_out_of_the_root() {
    need_root!();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "evil:x:4711:4711::/:/bin/sh\n").unwrap();
    let mut container = Container::new(&["id", "-u"]);
    let passwd = container.lower().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    symlink(outside.path(), &passwd).unwrap();
    container.spec.process.user = "evil".into();
    assert!(
        container
            .try_run()
            .unwrap_err()
            .to_string()
            .contains("unable to find user evil")
    );
}

#[test]
fn a_device_in_the_image_is_not_taken_for_another() {
    need_root!();
    // /dev comes from the image here: a "null" that is something else is an error, not used.
    let mut container = Container::new(&["true"]);
    container
        .spec
        .mounts
        .retain(|mount| !mount.target.starts_with("/dev"));
    let dev = container.lower().join("dev");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("null"), "fake").unwrap();
    // Masks are made of a null device of the host's, whatever the image has.
    container.spec.process.args = ["sh", "-c", "stat -c %t:%T /proc/timer_list"]
        .map(String::from)
        .to_vec();
    assert_eq!(container.output(), "1:3");
    container.spec.mounts.push(Mount {
        target: "/".into(),
        kind: MountKind::Cgroup,
        options: MountOptions::default(),
    });
    assert!(
        container
            .try_run()
            .unwrap_err()
            .to_string()
            .contains("would hide the root")
    );
}
