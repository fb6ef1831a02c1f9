//! What a Dockerfile says, as data: stages of typed instructions, each with its place in the text.
//!
//! Must not: interpret anything that needs values (variables stay as they are written) or other stages.
//! Follows BuildKit's `frontend/dockerfile/instructions/commands.go`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Lines of the Dockerfile, counted from 1, both ends included.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Lines {
    /// First line; 0 when the place is not in the text (a file without instructions).
    pub first: u32,
    /// Last line, never before `first`.
    pub last: u32,
}

impl Lines {
    /// Lines `first` to `last`; a `last` before `first` means `first` alone.
    pub fn new(first: u32, last: u32) -> Self {
        Lines {
            first,
            last: last.max(first),
        }
    }

    /// One line.
    pub fn one(line: u32) -> Self {
        Lines::new(line, line)
    }
}

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// Name that messages print: the path given to `-f`, usually `Dockerfile`.
    pub name: String,
    /// The text, for excerpts around errors. Bytes that are not UTF-8 can only be in comments; they are replaced.
    pub source: String,
    /// `# syntax=`, when given.
    pub syntax: Option<Syntax>,
    /// The escape character: `\`, or a backtick by `# escape=`.
    pub escape: char,
    /// `# check=`, unparsed (see [`crate::lint::Config::parse`]), and its line.
    pub check: Option<(String, Lines)>,
    /// ARG instructions before the first FROM.
    pub global_args: Vec<GlobalArg>,
    /// Stages in order; at least one.
    pub stages: Vec<Stage>,
    /// Lines where an empty line was found inside a continued instruction (the last line of the instruction).
    pub empty_continuations: Vec<Lines>,
}

/// The `# syntax=` directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// The frontend image, first word of the value.
    pub reference: String,
    /// Where it stands.
    pub lines: Lines,
}

/// One ARG instruction before the first FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalArg {
    /// The instruction as any other; its kind is always [`Kind::Arg`].
    pub instruction: Instruction,
    /// The variables declared.
    pub args: Vec<ArgPair>,
}

/// A FROM instruction and what follows it, up to the next FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Name after AS, in lower case.
    pub name: Option<String>,
    /// Image, stage or `scratch`, unexpanded.
    pub base: String,
    /// `--platform`, unexpanded; `None` when not given or empty.
    pub platform: Option<String>,
    /// Text of a comment `# <stage name> <text>` above; empty without.
    pub description: String,
    /// `FROM` as it was written (`from`, `From`).
    pub keyword: String,
    /// `AS` as it was written, when there is one.
    pub as_keyword: Option<String>,
    /// Name after AS as it was written.
    pub name_as_written: Option<String>,
    /// The instruction's text with continuations joined, trimmed.
    pub code: String,
    /// Lines of the FROM instruction.
    pub lines: Lines,
    /// Comment lines directly above, without `#`, trimmed.
    pub comments: Vec<String>,
    /// Instructions after FROM, in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction inside of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// First word as it was written.
    pub keyword: String,
    /// The instruction's text with continuations joined, trimmed, without heredoc bodies: what history and progress print.
    pub code: String,
    /// Its lines, heredoc bodies included.
    pub lines: Lines,
    /// Comment lines directly above, without `#`, trimmed.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// The typed instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// ADD
    Add(Add),
    /// ARG: one or more variables
    Arg(Vec<ArgPair>),
    /// CMD
    Cmd(CommandLine),
    /// COPY
    Copy(Copy),
    /// ENTRYPOINT
    Entrypoint(CommandLine),
    /// ENV
    Env(Vec<KeyValue>),
    /// EXPOSE: ports as written, sorted as BuildKit sorts them
    Expose(Vec<String>),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// LABEL
    Label(Vec<KeyValue>),
    /// MAINTAINER
    Maintainer(String),
    /// ONBUILD: the instruction to run later, as text (read it with [`super::parse_trigger`])
    Onbuild(String),
    /// RUN
    Run(Run),
    /// SHELL
    Shell(Vec<String>),
    /// STOPSIGNAL
    StopSignal(String),
    /// USER
    User(String),
    /// VOLUME
    Volume(Vec<String>),
    /// WORKDIR
    Workdir(String),
}

impl Kind {
    /// The instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "ADD",
            Kind::Arg(_) => "ARG",
            Kind::Cmd(_) => "CMD",
            Kind::Copy(_) => "COPY",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Env(_) => "ENV",
            Kind::Expose(_) => "EXPOSE",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Label(_) => "LABEL",
            Kind::Maintainer(_) => "MAINTAINER",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Run(_) => "RUN",
            Kind::Shell(_) => "SHELL",
            Kind::StopSignal(_) => "STOPSIGNAL",
            Kind::User(_) => "USER",
            Kind::Volume(_) => "VOLUME",
            Kind::Workdir(_) => "WORKDIR",
        }
    }
}

/// `name` or `name=value` of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgPair {
    /// Name, unexpanded.
    pub name: String,
    /// Default, unexpanded (quotes included); `None` without `=`.
    pub value: Option<String>,
    /// Text of a comment `# <name> <text>` above; empty without.
    pub description: String,
}

/// `key=value` of ENV and LABEL, unexpanded (quotes included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Left of `=`.
    pub key: String,
    /// Right of `=`.
    pub value: String,
    /// Written in the old form, `ENV key value`.
    pub legacy: bool,
}

/// What RUN, CMD and ENTRYPOINT execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// JSON form: the arguments. Shell form: one element, the text for the shell (none if there is no text).
    pub args: Vec<String>,
    /// True for the shell form: the stage's SHELL goes in front.
    pub shell: bool,
    /// Heredoc bodies in order (RUN only).
    pub files: Vec<InlineFile>,
}

/// Body of a heredoc of a RUN instruction, before variables are known to the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The delimiter word.
    pub name: String,
    /// The body as written, newline at its end.
    pub data: String,
    /// `<<-`: leading tabs are to be dropped (see [`super::heredoc::chomp`]).
    pub chomp: bool,
}

/// RUN with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to execute.
    pub command: CommandLine,
    /// `--mount` values as written, in order. Variables in them are expanded when the step is planned:
    /// [`super::Mount::parse`] reads one.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--security`.
    pub security: SecurityMode,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The builder's default network.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's network; needs the entitlement `network.host`.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityMode {
    /// The default sandbox.
    #[default]
    Sandbox,
    /// Privileged; needs the entitlement `security.insecure`.
    Insecure,
}

/// Sources and destination of COPY and ADD, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// Paths (or URLs for ADD).
    pub paths: Vec<String>,
    /// Heredocs among the sources.
    pub contents: Vec<SourceContent>,
    /// Where to.
    pub dest: String,
}

/// A heredoc source of COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceContent {
    /// Name of the file: the delimiter word.
    pub name: String,
    /// Its content; `<<-` has been applied.
    pub data: String,
    /// Whether variables in it are expanded (the delimiter was not quoted).
    pub expand: bool,
}

/// COPY
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What goes where.
    pub paths: SourcesAndDest,
    /// `--from`: stage, image or named context; unexpanded (BuildKit does not expand it).
    pub from: Option<String>,
    /// `--chown`, unexpanded; empty without.
    pub chown: String,
    /// `--chmod`, unexpanded; empty without.
    pub chmod: String,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
}

/// ADD
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// What goes where.
    pub paths: SourcesAndDest,
    /// `--chown`, unexpanded; empty without.
    pub chown: String,
    /// `--chmod`, unexpanded; empty without.
    pub chmod: String,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`, when given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, unexpanded; empty without.
    pub checksum: String,
    /// `--unpack`, when given.
    pub unpack: Option<bool>,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
}

/// HEALTHCHECK; durations of zero mean "inherit".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: Duration,
    /// `--timeout`
    pub timeout: Duration,
    /// `--start-period`
    pub start_period: Duration,
    /// `--start-interval`
    pub start_interval: Duration,
    /// `--retries`; 0 means "inherit".
    pub retries: u32,
}
