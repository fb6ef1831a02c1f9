//! The executable linked as `docker-buildx`: stock docker and Docker Compose build with it as they are. Skipped, aloud,
//! where they are not installed. Then the same projects by muster's own verbs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Host, Output, muster_executable};

/// Names Docker Compose's plugin where it is not in one of docker's own folders.
const COMPOSE_PLUGIN: &str = "DOCKER_COMPOSE_PLUGIN";

/// A host, and docker's command line with the plugin.
struct Docker(Host);

impl Docker {
    fn start() -> Option<Self> {
        if Command::new("docker").arg("--version").output().is_err() {
            eprintln!("skipped: there is no docker command in PATH");
            return None;
        }
        let host = Host::start();
        let plugins = host.path("docker/cli-plugins");
        std::fs::create_dir_all(&plugins).unwrap();
        symlink(muster_executable(), plugins.join("docker-buildx")).unwrap();
        Some(Self(host))
    }

    /// Also with Docker Compose; `None` where there is none.
    fn with_compose() -> Option<Self> {
        let Some(plugin) = compose_plugin() else {
            eprintln!("skipped: docker has no compose plugin ({COMPOSE_PLUGIN} may name one)");
            return None;
        };
        let docker = Self::start()?;
        symlink(plugin, docker.0.path("docker/cli-plugins/docker-compose")).unwrap();
        Some(docker)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", self.0.socket())
            .env("DOCKER_CONFIG", self.0.path("docker"))
            .env("HOME", self.0.path(""))
            .env_remove("BUILDKIT_PROGRESS")
            .current_dir(self.0.path(""));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        self.0.run(self.command(arguments))
    }
}

fn compose_plugin() -> Option<PathBuf> {
    let folders = [
        "/usr/libexec",
        "/usr/lib",
        "/usr/local/lib",
        "/usr/local/libexec",
    ];
    let standard = folders
        .iter()
        .map(|folder| Path::new(folder).join("docker/cli-plugins/docker-compose"));
    let named = std::env::var_os(COMPOSE_PLUGIN).map(PathBuf::from);
    named.into_iter().chain(standard).find(|path| path.exists())
}

#[test]
fn docker_builds_with_the_plugin() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let host = &docker.0;
    host.write("c/Dockerfile", "FROM busybox AS base\nARG WHO=nobody\nRUN --mount=type=secret,id=s cat /run/secrets/s > /said && echo $WHO >> /said\n\
        FROM base AS test\nRUN exit 3\nFROM base\nCMD [\"cat\", \"/said\"]\n");
    host.write("secret", "hush\n");
    let arguments = [
        "build",
        "--progress",
        "plain",
        "-t",
        "app",
        "--build-arg",
        "WHO=me",
        "--secret",
        "id=s,src=secret",
        "--iidfile",
        "id",
        "--metadata-file",
        "meta",
        "c",
    ];
    let built = docker.run(&arguments);
    assert!(
        built
            .stderr
            .contains("#0 building with \"default\" instance using docker driver\n"),
        "{}",
        built.stderr
    );
    assert!(
        built
            .stderr
            .contains(" [base 2/2] RUN --mount=type=secret,id=s"),
        "{}",
        built.stderr
    );
    built.ok();
    assert_eq!(docker.run(&["run", "--rm", "app"]).ok(), "hush\nme");
    let id = docker.run(&["inspect", "--format", "{{.Id}}", "app"]).ok();
    assert_eq!(std::fs::read_to_string(host.path("id")).unwrap(), id);
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(host.path("meta")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert!(
        metadata["image.name"]
            .as_str()
            .unwrap()
            .starts_with("docker.io/library/app")
    );
    assert_eq!(
        docker
            .run(&[
                "build",
                "-q",
                "--build-arg",
                "WHO=me",
                "--secret",
                "id=s,src=secret",
                "c"
            ])
            .ok(),
        id
    );

    let failed = docker.run(&[
        "build",
        "--progress",
        "plain",
        "--secret",
        "id=s,src=secret",
        "--target",
        "test",
        "c",
    ]);
    assert!(
        failed
            .stderr
            .contains("Dockerfile:5\n--------------------\n"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("   5 | >>> RUN exit 3\n"),
        "{}",
        failed.stderr
    );
    failed.fails(1, "ERROR: failed to build: failed to solve: process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3");
    docker
        .run(&["build", "no/where"])
        .fails(1, "unable to prepare context: path \"no/where\" not found");
    docker
        .run(&["buildx", "create"])
        .fails(1, "buildx create is not supported");
    docker
        .run(&["buildx", "build", "--builder", "other", "c"])
        .fails(1, "no builder \"other\" found");

    docker
        .run(&[
            "buildx",
            "build",
            "--output",
            "out",
            "--secret",
            "id=s,src=secret",
            "c",
        ])
        .ok();
    assert_eq!(
        std::fs::read_to_string(host.path("out/said")).unwrap(),
        "hush\nnobody\n"
    );
    host.write("Piped", "FROM busybox\nLABEL piped=1\n");
    let mut piped = Command::new("sh");
    let plain = docker.command(&[]);
    let environment = plain
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    piped
        .args(["-c", "docker build -t piped - < Piped"])
        .envs(environment)
        .current_dir(host.path(""));
    host.run(piped).ok();
    assert_eq!(
        docker
            .run(&["inspect", "--format", "{{.Config.Labels.piped}}", "piped"])
            .ok(),
        "1"
    );

    let ls = docker.run(&["buildx", "ls"]).ok();
    assert!(ls.contains("default*") && ls.contains("running"), "{ls}");
    docker.run(&["buildx", "inspect", "--bootstrap"]).ok();
    assert!(docker.run(&["buildx", "version"]).ok().contains("v0."));
    assert!(docker.run(&["buildx", "du"]).ok().contains("Total:"));
    docker.run(&["builder", "prune", "-af"]).ok();
    docker.0.finish();
}

#[test]
fn a_bake_file_builds_several_images_on_each_other() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let host = &docker.0;
    host.write(
        "docker-bake.hcl",
        r#"
        variable "TAG" { default = "1" }
        group "default" { targets = ["app"] }
        target "base" {
          dockerfile-inline = "FROM busybox\nRUN echo base > /base"
        }
        target "app" {
          name = "app-${v}"
          matrix = { v = ["a", "b"] }
          dockerfile-inline = "FROM base\nARG V\nRUN echo $V >> /base\nCMD cat /base"
          contexts = { base = "target:base" }
          args = { V = v }
          tags = ["app-${v}:${TAG}"]
        }
    "#,
    );
    docker
        .run(&["buildx", "bake", "--metadata-file", "meta"])
        .ok();
    for name in ["a", "b"] {
        let image = format!("app-{name}:1");
        assert_eq!(
            docker.run(&["run", "--rm", &image]).ok(),
            format!("base\n{name}")
        );
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(host.path("meta")).unwrap()).unwrap();
    let names: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["app-a", "app-b"],
        "what was only built for others is not in it"
    );
    let nameless = docker
        .run(&["images", "-q", "--filter", "dangling=true"])
        .ok();
    assert_eq!(nameless, "", "the image of base was only needed meanwhile");
    let printed = docker
        .run(&["buildx", "bake", "--print", "--set", "*.no-cache=true"])
        .ok();
    assert!(printed.contains("\"no-cache\": true"), "{printed}");
    docker.0.finish();
}

/// Two services, one on the other's image, with a secret and an argument.
fn project(host: &Host) {
    host.write(
        "p/compose.yaml",
        "name: shop
services:
  base:
    build:
      dockerfile_inline: |
        FROM busybox
        RUN echo base > /base
    command: [\"true\"]
  web:
    build:
      context: web
      args: {GREETING: hello}
      secrets: [token]
      additional_contexts:
        base: service:base
    depends_on: {base: {condition: service_completed_successfully}}
secrets:
  token: {file: token}
",
    );
    host.write("p/token", "hush\n");
    host.write("p/web/page", "one\n");
    host.write("p/web/Dockerfile", "FROM base\nARG GREETING\nRUN --mount=type=secret,id=token cat /run/secrets/token >> /base && echo $GREETING >> /base\nCOPY page /\nCMD cat /base /page && sleep 1000\n");
}

#[track_caller]
fn until_logs(logs: impl Fn() -> String, expected: &str) {
    let started = std::time::Instant::now();
    while logs() != expected {
        assert!(
            started.elapsed().as_secs() < 30,
            "{:?} in place of {expected:?}",
            logs()
        );
        std::thread::yield_now();
    }
}

#[test]
fn docker_compose_builds_and_brings_up() {
    let Some(docker) = Docker::with_compose() else {
        return;
    };
    let host = &docker.0;
    project(host);
    let compose = |arguments: &[&str]| {
        let all = [&["compose", "-f", "p/compose.yaml"], arguments].concat();
        docker.run(&all)
    };
    compose(&["build"]).ok();
    docker.run(&["inspect", "shop-web"]).ok();
    compose(&["up", "-d"]).ok();
    let logs = || docker.run(&["logs", "shop-web-1"]).ok();
    until_logs(logs, "base\nhush\nhello\none");
    let before = docker
        .run(&["inspect", "--format", "{{.Id}}", "shop-web-1"])
        .ok();
    host.write("p/web/page", "two\n");
    compose(&["up", "-d", "--build"]).ok();
    until_logs(logs, "base\nhush\nhello\ntwo");
    let after = docker
        .run(&["inspect", "--format", "{{.Id}}", "shop-web-1"])
        .ok();
    assert_ne!(before, after, "the image changed, so the container did");
    compose(&["down", "-t", "0"]).ok();
    docker.0.finish();
}

#[test]
fn up_builds_what_is_missing_and_again_when_asked() {
    let host = Host::start();
    project(&host);
    let compose = |arguments: &[&str]| {
        let all = [&["compose", "-f", "p/compose.yaml"], arguments].concat();
        host.muster(&all)
    };
    let plan = compose(&["plan"]);
    for line in [
        "1 build image shop-base for base: does not exist",
        "2 build image shop-web for web (after 1): does not exist",
        "create container shop-web-1",
    ] {
        assert!(plan.stdout.contains(line), "{line} in {}", plan.stdout);
    }
    compose(&["up", "-d", "--no-build"]).fails(1, "image shop-base is not there");
    let up = compose(&["up", "-d"]);
    assert!(
        up.stderr.contains("] RUN --mount=type=secret,id=token"),
        "{}",
        up.stderr
    );
    up.ok();
    let logs = || host.muster(&["logs", "shop-web-1"]).ok();
    until_logs(logs, "base\nhush\nhello\none");
    let again = compose(&["up", "-d"]);
    assert!(
        !again.stderr.contains("RUN"),
        "nothing is built twice: {}",
        again.stderr
    );
    again.ok();
    host.write("p/web/page", "two\n");
    assert!(
        compose(&["plan", "--build"])
            .stdout
            .contains("build image shop-web for web (after 1): asked for")
    );
    compose(&["up", "-d", "--build"]).ok();
    until_logs(logs, "base\nhush\nhello\ntwo");
    let labels = host
        .muster(&["inspect", "--format", "{{json .Config.Labels}}", "shop-web"])
        .ok();
    assert!(
        labels.contains("\"com.docker.compose.service\":\"web\""),
        "{labels}"
    );
    host.write("p/web/Dockerfile", "FROM base\nRUN exit 4\n");
    let failed = compose(&["build", "web"]);
    assert!(
        failed.stderr.contains("   2 | >>> RUN exit 4\n"),
        "{}",
        failed.stderr
    );
    failed.fails(1, "exit code: 4");
    compose(&["down", "-t", "0"]).ok();
    host.finish();
}

#[test]
fn services_that_share_a_stage_build_it_once_and_a_failing_one_is_named() {
    let host = Host::start();
    host.write(
        "p/Dockerfile",
        "FROM busybox AS base\nRUN cat /proc/sys/kernel/random/uuid > /once\n\
         FROM base AS a\nCMD cat /once && sleep 1000\nFROM base AS b\nRUN true\nCMD cat /once && sleep 1000\n\
         FROM base AS broken\nRUN echo the reason; exit 5\n",
    );
    let service = |name: &str| format!("  {name}: {{build: {{context: ., target: {name}}}}}\n");
    let sound = format!("name: twins\nservices:\n{}{}", service("a"), service("b"));
    host.write("p/compose.yaml", &sound);
    let compose = |arguments: &[&str]| {
        let all = [&["compose", "-f", "p/compose.yaml"], arguments].concat();
        host.muster(&all)
    };
    compose(&["build"]).ok();
    let once = |image: &str| host.muster(&["run", "--rm", image, "cat", "/once"]).ok();
    assert_eq!(once("twins-a"), once("twins-b"));
    // One more, which fails: it is named, its step too, and nothing comes up.
    host.write("p/compose.yaml", &format!("{sound}{}", service("broken")));
    for verb in [&["build"][..], &["up", "-d", "--build"]] {
        let failed = compose(verb);
        for text in [
            "[broken broken 1/1] RUN echo the reason",
            " the reason\n",
            "   9 | >>> RUN echo the reason; exit 5\n",
        ] {
            assert!(failed.stderr.contains(text), "no {text:?} in {failed}");
        }
        failed.fails(1, "exit code: 5");
    }
    assert_eq!(host.muster(&["ps", "-aq"]).ok(), "");
    host.finish();
}
