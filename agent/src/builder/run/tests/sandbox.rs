//! A world for steps: an engine in network and mount namespaces of its own, with the keeper of the built executable.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agent_build::plan::{InputIndex, NetworkMode, Platform, RunMount, RunOp, SecurityMode};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::engine::EngineOptions;

/// The executable with the keeper in it: it is beside the tests when everything is built.
fn executable() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MUSTER") {
        return Some(path.into());
    }
    let own = std::env::current_exe().unwrap();
    own.ancestors()
        .map(|dir| dir.join("muster"))
        .find(|path| path.is_file())
}

/// An engine and what steps of a test start from.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) directory: PathBuf,
    pub(super) cache_mounts: CacheMounts,
    pub(super) sessions: Sessions,
    pub(super) turns: Arc<Semaphore>,
    pub(super) endings: Endings,
    cgroup_parent: String,
    works: AtomicUsize,
}

/// Runs a test in a world of its own, then looks whether anything is left. Skips aloud where that cannot be.
pub(super) fn world<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F + Send + 'static) {
    let Some(executable) = executable() else {
        eprintln!("SKIPPED: no muster executable; build it (cargo build -p cli) or set MUSTER");
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: sandboxes need root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::Builder::new().prefix("mrun-").tempdir().unwrap();
        let name = directory
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let before = mounts();
        runtime.block_on(async {
            let options = options(directory.path(), &name, &executable);
            let engine = Engine::open(options).await.unwrap();
            let world = Arc::new(World {
                engine,
                directory: directory.path().to_owned(),
                cache_mounts: CacheMounts::new(
                    directory.path().join("data/build/mounts"),
                    tokio_util::task::TaskTracker::new(),
                ),
                sessions: Sessions::default(),
                turns: Arc::new(Semaphore::new(4)),
                endings: Endings::default(),
                cgroup_parent: name.clone(),
                works: AtomicUsize::new(0),
            });
            world.root();
            test(Arc::clone(&world)).await;
            world.nothing_is_left().await;
            world.engine.shutdown().await;
        });
        drop(runtime);
        assert_eq!(mounts(), before, "mounts are left");
        assert_eq!(cgroups(&name), [] as [PathBuf; 0], "cgroups are left");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(super) fn options(directory: &Path, name: &str, executable: &Path) -> EngineOptions {
    let mut options = EngineOptions::new(directory.join("data"), directory.join("run"), executable);
    options.cgroup_parent = format!("/{name}");
    options
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    roots
        .map(|root| root.path().join(name))
        .filter(|path| path.exists())
        .collect()
}

impl World {
    /// The file system of busybox, with a user.
    fn root(&self) {
        let root = self.layer();
        for directory in ["bin", "etc", "home/web", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists())
            .expect("busybox-static is installed (see `make tools`)");
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let list = std::process::Command::new(busybox)
            .arg("--list")
            .output()
            .unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nwww:x:34:\nextra:x:50:web\n",
        )
        .unwrap();
    }

    /// The directory of the only layer of the root.
    pub(super) fn layer(&self) -> PathBuf {
        self.directory.join("layer")
    }

    /// A tree beside the root: paths and what is in them.
    pub(super) fn tree(&self, name: &str, files: &[(&str, &str)]) -> StepInput {
        let path = self.directory.join(name);
        for (file, content) in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        StepInput {
            layers: vec![path],
            identity: name.into(),
        }
    }

    /// A shell command on the root.
    pub(super) fn shell(&self, script: &str) -> Step {
        Step {
            op: RunOp {
                root: Some(InputIndex(0)),
                args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                env: vec!["PATH=/bin".into()],
                cwd: "/".into(),
                user: String::new(),
                hostname: None,
                network: NetworkMode::None,
                security: SecurityMode::Sandbox,
                mounts: Vec::new(),
                extra_hosts: Vec::new(),
                ulimits: Vec::new(),
                cgroup_parent: None,
                resources: agent_build::plan::Resources::default(),
                proxy_env: Vec::new(),
                platform: Platform::default(),
            },
            inputs: vec![StepInput {
                layers: vec![self.layer()],
                identity: "root".into(),
            }],
            network: String::new(),
            cancel: CancellationToken::new(),
        }
    }

    /// Whatever a step needed is gone.
    async fn nothing_is_left(&self) {
        self.endings.settled().await;
        let place = self.directory.join("run/build");
        let left = fs::read_dir(&place).map_or(0, Iterator::count);
        assert_eq!(left, 0, "places of steps are left in {}", place.display());
        let sandboxes = fs::read_dir(self.directory.join("run/netns")).map_or(0, Iterator::count);
        assert_eq!(sandboxes, 0, "network namespaces are left");
        for root in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let parent = root.path().join(&self.cgroup_parent);
            let Ok(inside) = fs::read_dir(&parent) else {
                continue;
            };
            let mut left = inside.flatten().map(|entry| entry.path());
            let left = left.find(|path| path.is_dir());
            assert_eq!(left, None, "the cgroup of a step is left");
        }
    }

    /// The root of the process of the step that runs.
    pub(super) fn process(&self) -> Option<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let steps =
            roots.filter_map(|root| fs::read_dir(root.path().join(&self.cgroup_parent)).ok());
        let members = steps.flatten().flatten().filter_map(|step| {
            let members = fs::read_to_string(step.path().join("cgroup.procs")).ok()?;
            Some(members.lines().next()?.to_owned())
        });
        let first = members.into_iter().next()?;
        Some(PathBuf::from(format!("/proc/{first}/root")))
    }

    pub(super) fn work(&self) -> PathBuf {
        let number = self.works.fetch_add(1, Ordering::Relaxed);
        let work = self.directory.join(format!("data/build/work/{number}"));
        fs::create_dir_all(&work).unwrap();
        work
    }
}

/// A step to be.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) op: RunOp,
    pub(super) inputs: Vec<StepInput>,
    pub(super) network: String,
    pub(super) cancel: CancellationToken,
}

/// What came of a step.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<PathBuf, RunError>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Step {
    pub(super) fn mount(mut self, target: &str, kind: agent_build::plan::MountKind) -> Self {
        self.op.mounts.push(RunMount {
            target: Some(target.to_owned()).filter(|target| !target.is_empty()),
            kind,
        });
        self
    }

    pub(super) fn input(mut self, input: StepInput) -> Self {
        self.inputs.push(input);
        self
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut RunOp)) -> Self {
        change(&mut self.op);
        self
    }

    pub(super) async fn run(self, world: &World) -> Outcome {
        let heard = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let output: OutputSink = {
            let heard = Arc::clone(&heard);
            Arc::new(move |kind, bytes| {
                let mut heard = heard.lock().unwrap();
                match kind {
                    StreamKind::Stdout => heard.0.extend_from_slice(bytes),
                    StreamKind::Stderr => heard.1.extend_from_slice(bytes),
                }
            })
        };
        let step = RunStep {
            op: self.op,
            inputs: self.inputs,
            network: self.network,
            sessions: world.sessions.clone(),
            cache_mounts: world.cache_mounts.clone(),
            turns: Arc::clone(&world.turns),
            work: world.work(),
            output,
            endings: world.endings.clone(),
            cancel: self.cancel,
        };
        let result = run(&world.engine, step).await;
        let heard = heard.lock().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            result,
            stdout: text(&heard.0),
            stderr: text(&heard.1),
        }
    }
}

impl Outcome {
    /// What it printed, when it went well.
    #[track_caller]
    pub(super) fn ok(&self) -> &str {
        assert!(self.result.is_ok(), "{self:?}");
        &self.stdout
    }

    /// Everything the layer says, `path` or `path=content`.
    #[track_caller]
    pub(super) fn layer(&self) -> Vec<String> {
        let upper = self.result.as_ref().unwrap();
        let mut found = Vec::new();
        let mut open = vec![upper.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                let name = path
                    .strip_prefix(upper)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                if path.is_dir() {
                    found.push(name);
                    open.push(path);
                } else {
                    let content = fs::read_to_string(&path).unwrap_or_default();
                    found.push(format!("{name}={}", content.trim_end()));
                }
            }
        }
        found.sort();
        found
    }
}
