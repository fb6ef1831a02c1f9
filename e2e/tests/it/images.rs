//! Images that come from outside, good and bad.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use e2e::Host;

/// Everything below a directory, as names.
fn tree(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            found.insert(path.strip_prefix(root).unwrap().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

type Entries<'a> = &'a [(&'a str, tar::EntryType, &'a str)];

/// A tar with exactly these names and link targets, however wrong they are.
fn tar_of(entries: Entries<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        header.set_size(if link { 0 } else { content.len() as u64 });
        // The checked setters refuse what an attacker writes.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder
            .append(&header, if link { &b""[..] } else { content.as_bytes() })
            .unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn hostile_root_file_systems_are_refused_and_leave_nothing() {
    use tar::EntryType::{Link, Regular, Symlink};
    let host = Host::start();
    let outside = host.path("victim");
    std::fs::write(&outside, "untouched").unwrap();
    let target = outside.to_str().unwrap().to_owned();
    let up = format!("../../../../../../../../../..{target}");
    let before = tree(&host.path("data"));
    let good = tar_of(&[("etc/file", Regular, &"x".repeat(5000))]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dot-dot", tar_of(&[(&up, Regular, "owned")])),
        (
            "through-a-link",
            tar_of(&[
                ("l", Symlink, host.path("").to_str().unwrap()),
                ("l/victim", Regular, "owned"),
            ]),
        ),
        (
            "hard-link-out",
            tar_of(&[("h", Link, &up), ("h", Regular, "owned")]),
        ),
        ("truncated", good[..good.len() - 3000].to_vec()),
        (
            "no-tar",
            b"this is not a tar archive, but it is long enough to be read as one".repeat(20),
        ),
    ];
    for (name, bytes) in cases {
        let file = host.path(&format!("{name}.tar"));
        std::fs::write(&file, bytes).unwrap();
        let output = host.muster(&["import", file.to_str().unwrap(), &format!("bad/{name}")]);
        // A link that is confined to the layer is harmless; everything else is refused. Either way nothing outside changes.
        assert_eq!(
            std::fs::read_to_string(&outside).unwrap(),
            "untouched",
            "{name}: {output}"
        );
        if output.code == 0 {
            host.muster(&["rmi", &format!("bad/{name}")]).ok();
        } else {
            assert!(
                output.stderr.lines().count() <= 3 && output.stderr.len() > 20,
                "{name}: a clear error: {output}"
            );
        }
        assert_eq!(tree(&host.path("data")), before, "{name} leaves nothing");
    }
    for refused in ["truncated", "no-tar", "dot-dot"] {
        let file = host.path(&format!("{refused}.tar"));
        assert_ne!(
            host.muster(&["import", file.to_str().unwrap(), "bad"]).code,
            0,
            "{refused}"
        );
    }
    host.finish();
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    use tar::EntryType::Regular;
    let host = Host::start();
    let saved = host.path("good.tar");
    host.muster(&["save", "-o", saved.to_str().unwrap(), "busybox"])
        .ok();
    // A layer that is there already would not be read again.
    host.muster(&["rmi", "busybox"]).ok();
    let before = tree(&host.path("data"));
    let good = std::fs::read(&saved).unwrap();
    // One byte of a layer's content, well inside the archive.
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        ("flipped", flipped),
        ("no-manifest", tar_of(&[("hello", Regular, "x")])),
        (
            "manifest-lies",
            tar_of(&[(
                "manifest.json",
                Regular,
                r#"[{"Config":"../../etc/passwd","RepoTags":["a:b"],"Layers":["x"]}]"#,
            )]),
        ),
        (
            "manifest-no-json",
            tar_of(&[("manifest.json", Regular, "{{{{")]),
        ),
    ];
    for (name, bytes) in cases {
        let file = host.path(&format!("{name}.tar"));
        std::fs::write(&file, bytes).unwrap();
        let output = host.muster(&["load", "-i", file.to_str().unwrap()]);
        assert_ne!(output.code, 0, "{name}: {output}");
        assert!(output.stderr.len() > 10, "{name}: {output}");
        assert_eq!(tree(&host.path("data")), before, "{name} leaves nothing");
    }
    host.finish();
}

#[test]
fn an_image_survives_save_and_load() {
    let host = Host::start();
    let id = host
        .muster(&["images", "--no-trunc", "--quiet", "busybox"])
        .ok();
    host.muster(&["tag", "busybox", "example.org/tools/busybox:v1"])
        .ok();
    let file = host.path("saved.tar");
    let file = file.to_str().unwrap();
    host.muster(&[
        "save",
        "-o",
        file,
        "busybox",
        "example.org/tools/busybox:v1",
    ])
    .ok();
    host.muster(&["rmi", "busybox", "example.org/tools/busybox:v1"])
        .ok();
    assert_eq!(host.muster(&["images", "--quiet"]).ok(), "");
    assert!(
        host.muster(&["load", "-i", file])
            .ok()
            .contains("example.org/tools/busybox:v1")
    );
    assert_eq!(
        host.muster(&["images", "--no-trunc", "--quiet", "busybox"])
            .ok(),
        id
    );
    assert_eq!(
        host.muster(&[
            "run",
            "--rm",
            "example.org/tools/busybox:v1",
            "echo",
            "works"
        ])
        .ok(),
        "works"
    );
    host.muster(&["run", "-d", "--name", "user", "busybox", "sleep", "1000"])
        .ok();
    host.muster(&["rmi", &id]).fails(1, "");
    host.finish();
}

#[test]
fn import_takes_standard_input_and_changes() {
    let host = Host::start();
    let mut command = host.muster_command(&[
        "import",
        "--change",
        "CMD [\"echo\", \"from the image\"]",
        "-",
        "mine:1",
    ]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let mut child = host.spawn(command);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&std::fs::read(e2e::busybox()).unwrap())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        host.muster(&["run", "--rm", "mine:1"]).ok(),
        "from the image"
    );
    host.finish();
}

/// A layer of one file of four gigabytes of zeros, in four megabytes of gzip.
fn bomb() -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(4 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bomb = gzip(header.as_bytes());
    // Members of a gzip file follow one another; so do their contents.
    let zeros = gzip(&vec![0; 16 << 20]);
    (0..256).for_each(|_| bomb.extend_from_slice(&zeros));
    bomb
}

#[test]
fn a_bomb_is_called_one_and_leaves_nothing() {
    let host = Host::start();
    let before = tree(&host.path("data"));
    let file = host.path("bomb.tar.gz");
    std::fs::write(&file, bomb()).unwrap();
    host.muster(&["import", file.to_str().unwrap(), "bomb"])
        .fails(1, "decompression bomb");
    assert_eq!(tree(&host.path("data")), before);
    host.finish();
}

#[test]
fn what_is_saved_into_a_pipe_leaves_it_a_pipe() {
    use std::os::unix::fs::FileTypeExt as _;
    let host = Host::start();
    let pipe = host.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::read(pipe).unwrap())
    };
    host.muster(&["save", "-o", pipe.to_str().unwrap(), "busybox"])
        .ok();
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    assert!(
        reader.join().unwrap().len() > 1_000_000,
        "the archive went through it"
    );
    host.finish();
}
