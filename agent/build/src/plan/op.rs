//! What the steps of a build do, as data: the operations of the graph's vertices and the sources that they read.
//!
//! An [`Op`] serialises to the same JSON for the same step wherever and whenever it is planned: nothing in it names a
//! checkout, a client or a time. That JSON is what cache keys are made of; what must not take part in a key (the
//! values of proxies, addresses of extra hosts, names made for people) is left out of it here.
//!
//! Must not: decide anything. Shapes follow `solver/pb/ops.proto` of BuildKit, cut to what a Dockerfile can say.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Platform;

/// The number of a vertex in its plan: its place in [`Plan::vertices`](super::Plan::vertices).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VertexId(pub usize);

/// Which of a vertex's inputs an operation means: a place in [`Vertex::inputs`](super::Vertex::inputs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct InputIndex(pub usize);

/// One operation. Those that change a file system read it from the input called `root`; no root means an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// The file system of an image.
    Image(ImageOp),
    /// A directory of the client's: the main context, or a named one of kind [`ContextSource::Local`](super::ContextSource).
    Context(ContextOp),
    /// A checkout of a git repository.
    Git(GitOp),
    /// One downloaded file.
    Http(HttpOp),
    /// A command run on a root file system.
    Run(Box<RunOp>),
    /// Files written over a root file system: `COPY` and `ADD`.
    Copy(CopyOp),
    /// A directory made where there is none: `WORKDIR`.
    MakeDir(MakeDirOp),
}

impl Op {
    /// The bytes that stand for this operation in a cache key.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("operations have only fields that JSON can hold")
    }

    /// The input whose file system the operation changes, if it changes one that is not empty.
    pub fn root(&self) -> Option<InputIndex> {
        match self {
            Op::Run(op) => op.root,
            Op::Copy(op) => op.root,
            Op::MakeDir(op) => op.root,
            Op::Image(_) | Op::Context(_) | Op::Git(_) | Op::Http(_) => None,
        }
    }

    /// Whether the operation yields one layer of a stage, as opposed to being a source that others read.
    pub fn makes_layer(&self) -> bool {
        matches!(self, Op::Run(_) | Op::Copy(_) | Op::MakeDir(_))
    }
}

/// The file system of an image that was resolved before planning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageOp {
    /// [`BaseImage::id`](super::BaseImage::id) of the resolved image: the only part of a key, so that two names of one
    /// image are one step.
    pub id: String,
    /// The normalised name it was asked by, with the digest when one is known.
    #[serde(skip)]
    pub reference: String,
    /// The platform it was asked for.
    #[serde(skip)]
    pub platform: Platform,
}

/// A directory of the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextOp {
    /// Name of the context, empty for the main one.
    pub name: String,
}

/// A checkout of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GitOp {
    /// Address without fragment and query: `https://host/repo.git`, `git@host:repo.git`, `ssh://…`, `git://…`.
    pub remote: String,
    /// Branch, tag, or commit; empty for the remote's `HEAD`.
    pub reference: String,
    /// Directory of the repository that becomes the root; empty for all of it.
    pub subdirectory: String,
    /// The `.git` directory stays.
    pub keep_git_dir: bool,
    /// Submodules are checked out too.
    pub submodules: bool,
    /// Commit (or the beginning of its id) that the reference must lead to.
    pub checksum: Option<String>,
}

/// One downloaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpOp {
    /// Address of the file.
    pub url: String,
    /// Name of the file in the root that the operation yields.
    pub file_name: String,
    /// Digest (`sha256:…`) that the content must have.
    pub checksum: Option<String>,
}

/// A command run on a root file system; the result is that file system with what the command changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunOp {
    /// The file system it runs on; none is an empty one.
    pub root: Option<InputIndex>,
    /// Arguments; the first is the program.
    pub args: Vec<String>,
    /// Environment, `NAME=value`, in the order of assignment. Holds `PATH`; not proxies and not secrets.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// Host name, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Network of the step.
    pub network: NetworkMode,
    /// How confined the step is.
    pub security: SecurityMode,
    /// Beside the root, in the order in which they are to be mounted.
    pub mounts: Vec<RunMount>,
    /// Names for `/etc/hosts`. The addresses are no part of a key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Limits of the processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Cgroup under which the step's is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Limits of the step's cgroup. No part of a key: they change how fast, not what.
    #[serde(skip)]
    pub resources: Resources,
    /// Proxy variables, `NAME=value`, appended to the environment when the step runs. No part of a key.
    #[serde(skip)]
    pub proxy_env: Vec<String>,
    /// Platform that the step's programs are of.
    pub platform: Platform,
}

/// Network of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The builder's bridge.
    #[default]
    Sandbox,
    /// The host's; needs [`Entitlement::NetworkHost`](super::Entitlement).
    Host,
    /// Loopback only.
    None,
}

/// Confinement of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    /// As any unprivileged container.
    #[default]
    Sandbox,
    /// All capabilities and devices; needs [`Entitlement::SecurityInsecure`](super::Entitlement).
    Insecure,
}

/// A name and an address for `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// The address, or `host-gateway`.
    #[serde(skip)]
    pub address: String,
}

/// One resource limit of processes (`setrlimit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// Soft limit, -1 for none.
    pub soft: i64,
    /// Hard limit, -1 for none.
    pub hard: i64,
}

/// Limits of a step's cgroup; what is `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Memory.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together, -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Scheduler period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Run time in each period in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// Processors, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as `0,1`.
    pub cpuset_mems: Option<String>,
}

/// One mount of a `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunMount {
    /// Where, absolute. A secret that is only a variable has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What.
    #[serde(flatten)]
    pub kind: MountKind,
}

/// What a `RUN` mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MountKind {
    /// A path of another step's result, of an image or of a context. What is written there is dropped after the step.
    Bind {
        /// Whose; none is an empty file system.
        from: Option<InputIndex>,
        /// Absolute path in it. A key of content is made of this path alone.
        source: String,
        /// The command may write.
        writable: bool,
    },
    /// A directory that outlives the build. What is in it is no part of a key.
    Cache {
        /// Name space and id: `namespace/id`; the part before the slash is empty unless one was set by
        /// `BUILDKIT_CACHE_MOUNT_NS`. Part of keys: whoever gives a mount another id wants nothing that was made with the one before.
        id: String,
        /// Who else may use it meanwhile. Part of keys, as in BuildKit.
        sharing: CacheSharing,
        /// What the directory is filled with when it is new.
        from: Option<InputIndex>,
        /// Absolute path in `from` (or in the cache) that is mounted.
        source: String,
        /// Owner and mode of a new directory.
        ownership: Option<Ownership>,
        /// The command may not write.
        read_only: bool,
    },
    /// An empty memory file system.
    Tmpfs {
        /// Size, none for the system's default.
        size_bytes: Option<u64>,
    },
    /// A secret of the client's.
    Secret {
        /// Its id.
        id: String,
        /// Name of the variable that holds it, when it is passed as one.
        env: Option<String>,
        /// The step fails when the client has no such secret.
        required: bool,
        /// Owner and mode of the file; `0:0` and `0400` unless given.
        ownership: Option<Ownership>,
    },
    /// The socket of an authentication agent of the client's.
    Ssh {
        /// Its id.
        id: String,
        /// The step fails when the client offers no such agent.
        required: bool,
        /// Owner and mode of the socket; `0:0` and `0600` unless given.
        ownership: Option<Ownership>,
    },
    /// A read-only directory with one executable file (mode 0755): a heredoc that begins with `#!`.
    Script {
        /// Name of the file.
        name: String,
        /// What it says.
        content: String,
    },
}

/// Who else may use a cache mount while a step has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSharing {
    /// Anyone.
    #[default]
    Shared,
    /// Nobody: another step gets a directory of its own.
    Private,
    /// Nobody: another step waits.
    Locked,
}

/// Owner and permission bits of something that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Files written over a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyOp {
    /// The file system they are written over; none is an empty one.
    pub root: Option<InputIndex>,
    /// `--link`: they are written over an *empty* file system (no link of the destination is followed), and that is laid
    /// over `root`. What is written depends on `root` only by names in `chown`.
    pub link: bool,
    /// What is written, in this order.
    pub sources: Vec<CopySource>,
    /// Absolute and clean, except that a last `/` or `/.` is kept: it says that the destination is a directory.
    pub destination: String,
    /// `user[:group]`, names or numbers; without it what is copied belongs to 0:0. Names are looked up in `root`.
    pub chown: Option<String>,
    /// Permission bits for everything that is copied.
    pub chmod: Option<Chmod>,
    /// Patterns of paths, relative to each source, that are left out.
    pub excludes: Vec<String>,
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CopySource {
    /// What a pattern selects in an input. Of a selected directory the contents are copied, links on the way to the
    /// selected path are followed, and a pattern with wildcards may select nothing.
    Paths {
        /// Where.
        input: InputIndex,
        /// Absolute pattern; with `--parents` the pivot directory.
        path: String,
        /// `--parents`: what is selected below `path` (no leading slash). The parents of what is selected are copied
        /// too, from below `path`.
        parents: Option<String>,
        /// Paths that must exist (`--parents` without wildcards).
        required: Vec<String>,
        /// An archive is unpacked instead of copied.
        unpack: bool,
    },
    /// One downloaded file, copied by the name that the [`HttpOp`] gave it (mode 0600 unless `chmod` says otherwise).
    Http {
        /// The download.
        input: InputIndex,
        /// The file's name.
        file_name: String,
        /// An archive is unpacked instead of copied.
        unpack: bool,
    },
    /// The whole checkout of a repository, its contents into the destination.
    Git {
        /// The checkout.
        input: InputIndex,
    },
    /// A heredoc: one file (mode 0644 unless `chmod` says otherwise).
    Inline {
        /// Its name.
        name: String,
        /// What it says.
        content: String,
    },
}

/// New permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// All of them.
    Octal(#[serde(serialize_with = "octal")] u32),
    /// A change of what the source has, in the words of chmod(1): `u=rwX,go-w`.
    Symbolic(String),
}

fn octal<S: Serializer>(mode: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{mode:04o}"))
}

impl fmt::Display for Chmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chmod::Octal(mode) => write!(f, "{mode:04o}"),
            Chmod::Symbolic(change) => f.write_str(change),
        }
    }
}

/// A directory made where there is none, with the parents that it lacks; one that exists stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MakeDirOp {
    /// Where.
    pub root: Option<InputIndex>,
    /// Absolute path.
    pub path: String,
    /// Permission bits of what is made.
    pub mode: u32,
    /// `user[:group]` that what is made belongs to; names are looked up in `root`. Without it 0:0.
    pub owner: Option<String>,
    /// Modification time of what is made, seconds since 1970, when the build has a fixed one.
    pub created: Option<i64>,
}
