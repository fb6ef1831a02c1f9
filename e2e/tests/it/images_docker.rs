//! Images under the stock docker command, and skopeo as the other end of an archive. Texts and outcomes are those of
//! dockerd 28.5.2 for the same calls. Skipped, aloud, where the commands are not installed.

use std::io::Write as _;
use std::process::Command;

use e2e::{Host, Output};

/// Whether a command is there; says so if not.
pub(super) fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {program} in PATH");
    }
    there
}

/// The docker command, as a user of the host.
#[track_caller]
pub(super) fn docker(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new("docker");
    command
        .args(arguments)
        .env("DOCKER_HOST", host.socket())
        .env("HOME", host.path(""));
    host.run(command)
}

fn id(host: &Host, name: &str) -> String {
    docker(host, &["inspect", "-f", "{{.Id}}", name]).ok()
}

fn tags(host: &Host, filters: &[&str]) -> Vec<String> {
    let mut arguments = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
    for filter in filters {
        arguments.extend(["--filter", filter]);
    }
    let mut tags: Vec<String> = docker(host, &arguments)
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    tags.sort();
    tags
}

/// `base` with three names in two repositories and a child, `two` alone.
fn family(host: &Host) {
    let busybox = e2e::busybox();
    let busybox = busybox.to_str().unwrap();
    docker(
        host,
        &[
            "import",
            "-c",
            "LABEL a=1",
            "-c",
            "LABEL b=x",
            busybox,
            "au/base:1",
        ],
    )
    .ok();
    docker(host, &["import", "-c", "LABEL a=2", busybox, "au/two:1"]).ok();
    docker(host, &["create", "--name", "one", "au/base:1", "true"]).ok();
    docker(host, &["commit", "-c", "ENV X=1", "one", "au/child:1"]).ok();
    docker(host, &["tag", "au/base:1", "au/base:2"]).ok();
    docker(host, &["tag", "au/base:1", "other:1"]).ok();
}

#[test]
fn refusals_are_dockers() {
    if !installed("docker") {
        return;
    }
    let host = Host::start();
    family(&host);
    let (base, two) = (id(&host, "au/base:1"), id(&host, "au/two:1"));
    let (base, two) = (&base[7..19], &two[7..19]);
    assert_eq!(
        docker(&host, &["rmi", "au/base:1"]).ok(),
        "Untagged: au/base:1"
    );
    let children = "(cannot be forced) - image has dependent child images";
    docker(&host, &["rmi", base]).fails(1, children);
    docker(&host, &["rmi", "-f", base]).fails(1, children);
    docker(&host, &["rmi", "nope"]).fails(1, "No such image: nope:latest");
    docker(&host, &["rmi", "UPPER"]).fails(1, "repository name (library/UPPER) must be lowercase");

    docker(
        &host,
        &["create", "--name", "two", "au/two:1", "sleep", "1000"],
    )
    .ok();
    docker(&host, &["rmi", "au/two:1"]).fails(
        1,
        "conflict: unable to remove repository reference \"au/two:1\" (must force) - container",
    );
    docker(&host, &["rmi", two]).fails(
        1,
        "(must be forced) - image is being used by stopped container",
    );
    docker(&host, &["start", "two"]).ok();
    docker(&host, &["rmi", "-f", two]).fails(
        1,
        "(cannot be forced) - image is being used by running container",
    );
    // The name of a running container's image can go, the image stays.
    assert_eq!(
        docker(&host, &["rmi", "-f", "au/two:1"]).ok(),
        "Untagged: au/two:1"
    );
    assert_eq!(id(&host, two)[7..19], *two);
    docker(&host, &["rm", "-f", "one", "two"]).ok();
    let gone = docker(&host, &["rmi", "au/child:1"]).ok();
    assert!(
        gone.starts_with("Untagged: au/child:1\nDeleted: sha256:"),
        "{gone}"
    );
    docker(&host, &["rmi", base]).fails(
        1,
        "(must be forced) - image is referenced in multiple repositories",
    );
    docker(&host, &["rmi", "-f", base]).ok();
    assert_eq!(tags(&host, &["label=a=1"]), [""; 0]);
    host.finish();
}

#[test]
fn filters_choose_as_dockers_do() {
    if !installed("docker") {
        return;
    }
    let host = Host::start();
    family(&host);
    let all = [
        "au/base:1",
        "au/base:2",
        "au/child:1",
        "au/two:1",
        "other:1",
    ];
    let cases: &[(&[&str], &[&str])] = &[
        (&["label=a"], &all),
        (&["label=a=2"], &["au/two:1"]),
        (
            &["label=a", "label=b=x"],
            &["au/base:1", "au/base:2", "au/child:1", "other:1"],
        ),
        (
            &["label=a", "before=au/child:1"],
            &["au/base:1", "au/base:2", "au/two:1", "other:1"],
        ),
        (&["label=a", "since=au/base:1"], &["au/child:1", "au/two:1"]),
        (&["reference=au/*:2"], &["au/base:2"]),
        (
            &["reference=au/base", "reference=other:1"],
            &["au/base:1", "au/base:2", "other:1"],
        ),
        (&["label=a", "dangling=true"], &[]),
        (&["label=a", "until=24h"], &[]),
    ];
    for (filters, expected) in cases {
        assert_eq!(tags(&host, filters), *expected, "{filters:?}");
    }
    docker(&host, &["images", "--filter", "dangling=x"]).fails(1, "invalid filter 'dangling=[x]'");
    docker(&host, &["images", "--filter", "before=nope"]).fails(1, "No such image: nope:latest");
    docker(&host, &["images", "--filter", "color=red"]).fails(1, "invalid filter 'color'");
    let shared = docker(
        &host,
        &[
            "system",
            "df",
            "-v",
            "--format",
            "{{range .Images}}{{.Repository}}:{{.Tag}} {{.SharedSize}} {{.Containers}}\n{{end}}",
        ],
    );
    let shared = shared.ok();
    let two = shared
        .lines()
        .find(|line| line.starts_with("au/two:1 "))
        .unwrap();
    assert!(!two.contains(" 0B ") && two.ends_with(" 0"), "{shared}");
    docker(&host, &["rm", "one"]).ok();
    // Nothing but what the labels choose goes.
    let pruned = docker(
        &host,
        &["image", "prune", "-a", "-f", "--filter", "label=a=2"],
    )
    .ok();
    assert!(pruned.contains("untagged: au/two:1"), "{pruned}");
    docker(
        &host,
        &["image", "prune", "-a", "-f", "--filter", "label!=a"],
    )
    .ok();
    assert_eq!(
        tags(&host, &[]),
        ["au/base:1", "au/base:2", "au/child:1", "other:1"],
        "the tool box has no label a"
    );
    host.finish();
}

#[test]
fn platforms_are_honoured_or_refused() {
    if !installed("docker") {
        return;
    }
    let host = Host::start();
    family(&host);
    let own = docker(
        &host,
        &["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"],
    )
    .ok();
    let mismatch = format!(
        "image with reference au/two:1 was found but its platform ({own}) does not match the specified platform (linux/s390x)"
    );
    let inspect = |platform: &str| {
        docker(
            &host,
            &[
                "image",
                "inspect",
                "--platform",
                platform,
                "-f",
                "{{.Os}}",
                "au/two:1",
            ],
        )
    };
    assert_eq!(inspect(&own).ok(), "linux");
    inspect("linux/s390x").fails(1, &mismatch);
    let history = |platform: &str| {
        docker(
            &host,
            &["history", "-q", "--platform", platform, "au/two:1"],
        )
    };
    history(&own).ok();
    history("linux/s390x").fails(1, &mismatch);
    let file = host.path("two.tar");
    let file = file.to_str().unwrap();
    docker(
        &host,
        &["save", "--platform", "linux/s390x", "-o", file, "au/two:1"],
    )
    .fails(
        1,
        "no suitable export target found for platform linux/s390x",
    );
    docker(&host, &["save", "--platform", &own, "-o", file, "au/two:1"]).ok();
    docker(&host, &["load", "--platform", "linux/s390x", "-i", file])
        .fails(1, &format!("only for {own}"));
    assert_eq!(
        docker(&host, &["load", "--platform", &own, "-i", file]).ok(),
        "Loaded image: au/two:1"
    );
    docker(
        &host,
        &["image", "rm", "--platform", "linux/s390x", "au/two:1"],
    )
    .fails(1, &mismatch);
    docker(&host, &["image", "rm", "--platform", &own, "au/two:1"]).ok();
    host.finish();
}

#[test]
fn archives_go_to_skopeo_and_back_with_their_ids() {
    if !installed("docker") || !installed("skopeo") {
        return;
    }
    let host = Host::start();
    family(&host);
    let ids = |host: &Host| ["au/base:2", "au/child:1", "au/two:1"].map(|name| id(host, name));
    let before = ids(&host);
    let path = |name: &str| host.path(name).to_str().unwrap().to_owned();
    // Several images in one archive.
    docker(
        &host,
        &[
            "save",
            "-o",
            &path("all.tar"),
            "au/base",
            "au/child:1",
            "au/two:1",
        ],
    )
    .ok();
    // Each through skopeo's formats. From Docker's to OCI's it writes configurations anew, without what OCI does not know,
    // so each begins as what it becomes.
    for (number, name) in ["au/base:2", "au/child:1", "au/two:1"]
        .into_iter()
        .enumerate()
    {
        let one = path(&format!("one-{number}.tar"));
        docker(&host, &["save", "-o", &one, name]).ok();
        for format in ["oci", "docker"] {
            let file = path(&format!("{format}-{number}.tar"));
            let source = match format {
                "oci" => format!("oci-archive:{one}"),
                _ => format!("docker-archive:{one}:{name}"),
            };
            let target = format!("{format}-archive:{file}:{name}");
            let copy = ["--insecure-policy", "copy", "-q", &source, &target];
            host.tool("skopeo", &copy).ok();
        }
    }
    docker(&host, &["rm", "one"]).ok();
    let clear = || {
        // Children before their parent.
        for id in before.iter().rev() {
            docker(&host, &["rmi", "-f", id]);
        }
    };
    clear();
    assert_eq!(tags(&host, &["label=a"]), [""; 0]);
    for format in ["oci", "docker"] {
        for number in 0..3 {
            let file = path(&format!("{format}-{number}.tar"));
            docker(&host, &["load", "-q", "-i", &file]).ok();
        }
        assert_eq!(ids(&host), before, "{format}");
        clear();
    }
    // Compressed archives are told by their content.
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped
        .write_all(&std::fs::read(path("all.tar")).unwrap())
        .unwrap();
    std::fs::write(path("all.tar.gz"), zipped.finish().unwrap()).unwrap();
    docker(&host, &["load", "-q", "-i", &path("all.tar.gz")]).ok();
    assert_eq!(ids(&host), before, "gzip");
    host.finish();
}

#[test]
fn a_dry_run_tells_what_a_prune_then_does() {
    let host = Host::start();
    host.muster(&["create", "--name", "stopped", "-v", "/v", "busybox", "true"])
        .ok();
    host.muster(&["network", "create", "lonely"]).ok();
    host.muster(&["tag", "busybox", "again:1"]).ok();
    let prune = |more: &[&str]| {
        let arguments = [&["system", "prune", "-a", "--volumes"], more].concat();
        host.muster(&arguments).ok()
    };
    let told = prune(&["--dry-run"]);
    for part in [
        "Containers:\n  stopped (",
        "Networks:\n  lonely",
        "Volumes:\n  ",
        "untag busybox:latest",
        "untag again:1",
        "Would reclaim: ",
    ] {
        assert!(told.contains(part), "{part:?} of:\n{told}");
    }
    host.muster(&["inspect", "stopped"]).ok();
    let reclaimed = told
        .split("Would reclaim: ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let done = prune(&["-f"]);
    assert!(done.contains("Untagged: again:1"), "{done}");
    assert!(
        done.contains(&format!("Total reclaimed space: {reclaimed}")),
        "{told}\n{done}"
    );
    assert!(prune(&["--dry-run"]).starts_with("Would reclaim: 0B"));
    // Each kind was pruned once, and told what it gave back.
    let until = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let told = host
        .muster(&[
            "events",
            "--since",
            "1h",
            "--until",
            &until.to_string(),
            "--filter",
            "event=prune",
            "--format",
            "{{.Type}} {{len .Actor.Attributes.reclaimed}}",
        ])
        .ok();
    for kind in ["container", "network", "volume", "image"] {
        let told = told.lines().filter(|line| line.starts_with(kind));
        assert_eq!(told.count(), 1, "{kind}");
    }
    host.muster(&["system", "prune", "-f", "--volumes", "--filter", "until=1h"])
        .fails(1, "until");
    host.finish();
}
