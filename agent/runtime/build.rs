//! Builds `init/main.rs`, the PID 1 of `--init`, as a static executable without any library; the runtime carries it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init/main.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("docker-init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "docker_init",
            "--crate-type",
            "bin",
            "init/main.rs",
        ])
        .args([
            "--target",
            &variable("TARGET"),
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ])
        .args([
            "-C",
            "link-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none",
        ])
        .arg("-o")
        .arg(&out);
    let status = rustc
        .status()
        .expect("rustc can be run, it is building this");
    assert!(status.success(), "building init/main.rs failed");
}
