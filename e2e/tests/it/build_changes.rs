//! Builds beside changes: of the files that they read, of what they start from, of who waits for them.

use std::process::{Child, Command};

use e2e::{Host, read_until};

/// A step that tells that it has begun and goes on when [`open_gate`] was called, at most a minute later.
const WAITS: &str = "RUN --mount=type=cache,id=gate,target=/gate \
    echo begun; i=0; while [ ! -e /gate/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";

fn open_gate(host: &Host) {
    host.write(
        "go/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=gate,target=/gate touch /gate/go\n",
    );
    let gate = ["build", "-q", "--no-cache", "-o", "type=cacheonly", "go"];
    host.muster(&gate).ok();
}

/// A build whose progress can be read while it goes on.
#[track_caller]
fn begin(host: &Host, arguments: &str) -> Child {
    host.begin(&format!("build --progress plain {arguments}"))
}

#[track_caller]
fn end(mut build: Child) -> String {
    let rest = std::io::read_to_string(build.stdout.as_mut().unwrap()).unwrap();
    assert!(build.wait().unwrap().success(), "{rest}");
    rest
}

#[track_caller]
fn content(host: &Host, image: &str, path: &str) -> String {
    host.muster(&["run", "--rm", "--network", "none", image, "cat", path])
        .ok()
}

#[track_caller]
fn layers(host: &Host, image: &str) -> Vec<String> {
    let format = "{{json .RootFS.Layers}}";
    let json = host.muster(&["inspect", "--format", format, image]).ok();
    serde_json::from_str(&json).expect("a list of digests")
}

#[test]
fn a_file_that_is_saved_while_a_build_runs_is_not_cached_as_what_it_was() {
    let host = Host::start();
    // Copied, with another step on top; and bound.
    let dockerfile = format!(
        "FROM busybox AS gate\n{WAITS}\n\
         FROM gate AS copied\nCOPY data /data\nRUN cp /data /seen\n\
         FROM gate AS bound\nRUN --mount=type=bind,source=data,target=/data cp /data /bound\n\
         FROM copied\nCOPY --from=bound /bound /bound\n"
    );
    host.write("c/Dockerfile", &dockerfile);
    host.write("c/data", "before\n");
    let mut build = begin(&host, "-t during c");
    read_until(&mut build, " begun");
    host.write("c/data", "after it\n");
    open_gate(&host);
    end(build);
    for (text, image) in [("before\n", "one"), ("after it\n", "two")] {
        host.write("c/data", text);
        host.muster(&["build", "-q", "-t", image, "c"]).ok();
        for path in ["/data", "/seen", "/bound"] {
            let found = content(&host, image, path);
            assert_eq!(found.trim(), text.trim(), "{path}");
        }
    }
    host.finish();
}

#[test]
fn a_context_that_never_rests_can_be_built() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\nCOPY . /c\nRUN wc -c /c/log\n",
    );
    let log = host.write("c/log", "x");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut log = std::fs::File::options().append(true).open(log).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                log.write_all(b"x").unwrap();
            }
        });
        let built = host.muster(&["build", "-q", "-t", "log", "c"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        built.ok();
    });
    assert!(content(&host, "log", "/c/log").starts_with("xx"));
    host.finish();
}

#[test]
fn a_directory_stands_in_for_an_image() {
    let host = Host::start();
    host.write("files/etc/version", "1\n");
    let unpack = "tar -C files -xf data.tar";
    // The programs of busybox, as files of the client's.
    host.write("tools/Dockerfile", "FROM busybox\n");
    let out = "type=tar,dest=data.tar";
    host.muster(&["build", "-o", out, "tools"]).ok();
    let mut command = Command::new("sh");
    command.args(["-c", unpack]).current_dir(host.path(""));
    host.run(command).ok();
    host.write(
        "c/Dockerfile",
        "FROM base AS first\nRUN cat /etc/version > /seen\nFROM first\nCOPY f /f\n",
    );
    host.write("c/f", "f\n");
    host.write("alone/Dockerfile", "FROM base\n");
    let context = "base=files";
    for version in ["1", "2"] {
        host.write("files/etc/version", &format!("{version}\n"));
        for directory in ["c", "alone"] {
            let arguments = ["build", "-q", "-t", directory, "--build-context", context];
            host.muster(&[&arguments[..], &[directory]].concat()).ok();
            assert_eq!(content(&host, directory, "/etc/version").trim(), version);
        }
        assert_eq!(content(&host, "c", "/seen").trim(), version);
    }
    assert_eq!(layers(&host, "alone").len(), 1);
    host.finish();
}

#[test]
fn a_build_goes_on_when_another_that_waits_for_the_same_step_is_given_up() {
    let host = Host::start();
    let dockerfile = format!(
        "FROM busybox AS files\nRUN mkdir /d && echo x > /d/x\n\
         FROM busybox\n{WAITS}\nCOPY --from=files /d /d\nCOPY --link --from=files /d /linked\n"
    );
    host.write("c/Dockerfile", &dockerfile);
    let mut builds = ["first", "second"].map(|name| {
        let mut build = begin(&host, &format!("-t {name} c"));
        read_until(&mut build, " begun");
        build
    });
    builds[0].kill().unwrap();
    builds[0].wait().unwrap();
    open_gate(&host);
    let [_, second] = builds;
    end(second);
    assert_eq!(content(&host, "second", "/linked/x").trim(), "x");
    host.finish();
}

#[test]
fn a_copy_to_a_place_of_its_own_is_the_same_layer_on_a_changed_root() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox AS files\nRUN mkdir /d && echo x > /d/x\n\
         FROM busybox\nCOPY source /app/source\nCOPY --from=files /d /app/d\nCOPY --from=files /d /app\n",
    );
    host.write("c/source", "1\n");
    host.muster(&["build", "-q", "-t", "one", "c"]).ok();
    host.write("c/source", "2\n");
    host.muster(&["build", "-q", "-t", "two", "c"]).ok();
    let (one, two) = (layers(&host, "one"), layers(&host, "two"));
    assert_eq!(one.len(), 4);
    assert_ne!(one[1], two[1], "the source");
    assert_eq!(one[2], two[2], "what is laid beside it");
    for (path, text) in [("/app/source", "2"), ("/app/d/x", "x"), ("/app/x", "x")] {
        assert_eq!(content(&host, "two", path).trim(), text);
    }
    host.finish();
}
