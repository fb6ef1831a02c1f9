//! What the person asked for, verb by verb. Plain values: the command line fills them, the planner reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Options of `up` and `create`.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Services asked for; empty = all active ones.
    pub services: Vec<String>,
    /// Whether dependencies of the services asked for take part.
    pub dependencies: Dependencies,
    /// When containers of the services asked for are replaced.
    pub recreate: Recreate,
    /// When containers of their dependencies are replaced.
    pub recreate_dependencies: Recreate,
    /// What happens to containers of services that are no longer in the project.
    pub orphans: Orphans,
    /// Give replaced containers new anonymous volumes instead of the old ones.
    pub renew_anonymous_volumes: bool,
    /// What happens to a volume whose definition changed.
    pub changed_volumes: ChangedVolumes,
    /// Number of containers by service, over what the file says.
    pub scale: BTreeMap<String, u32>,
    /// Time between stop signal and SIGKILL, over what the file says.
    pub stop_timeout: Option<Duration>,
    /// Whether containers are started.
    pub start: Start,
    /// Images that are built before the plan is carried out: their absence is no problem.
    pub built: BTreeSet<String>,
    /// Add waits until every service runs or is healthy (`--wait`).
    pub wait: bool,
}

/// Whether dependencies take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dependencies {
    /// They are created, started and waited for.
    #[default]
    Include,
    /// They are left as they are (`--no-deps`).
    Ignore,
}

/// When an existing container is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recreate {
    /// When it differs from the project.
    #[default]
    Diverged,
    /// Always (`--force-recreate`, `--always-recreate-deps`).
    Always,
    /// Never (`--no-recreate`).
    Never,
}

/// What happens to orphans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orphans {
    /// They stay and are named in a warning.
    #[default]
    Warn,
    /// They stay, silently (`COMPOSE_IGNORE_ORPHANS`).
    Ignore,
    /// They are stopped and removed (`--remove-orphans`).
    Remove,
}

/// What happens to a volume whose definition changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangedVolumes {
    /// It stays as it is, with a warning: its data is worth more than its options.
    #[default]
    Keep,
    /// It is removed with its data and made anew.
    Recreate,
}

/// Whether `up` starts what it creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Yes.
    #[default]
    Yes,
    /// No (`--no-start`, `create`).
    No,
}

/// Options of `down`.
#[derive(Clone, Debug, Default)]
pub struct DownOptions {
    /// Services asked for; empty = the whole project with its networks.
    pub services: Vec<String>,
    /// Remove the volumes the project made, and anonymous ones.
    pub volumes: bool,
    /// Images to remove.
    pub images: RemoveImages,
    /// Remove containers of services that are no longer in the project.
    pub orphans: Orphans,
    /// Time between stop signal and SIGKILL, over what the file says.
    pub stop_timeout: Option<Duration>,
}

/// Which images `down` removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoveImages {
    /// None.
    #[default]
    None,
    /// Those without a name of their own in the file (`--rmi local`).
    Local,
    /// All that services use (`--rmi all`).
    All,
}

/// Which existing containers a verb (`stop`, `start`, `restart`, `kill`, `rm`) is for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Services asked for; empty = all.
    pub services: Vec<String>,
    /// Time between stop signal and SIGKILL, over what the file says.
    pub stop_timeout: Option<Duration>,
    /// `restart`: whether dependants that say `restart: true` follow.
    pub dependencies: Dependencies,
}

/// Options of `rm`.
#[derive(Clone, Debug, Default)]
pub struct RemoveOptions {
    /// Services asked for; empty = all.
    pub services: Vec<String>,
    /// Stop running containers first; otherwise they are left alone.
    pub stop: bool,
    /// Remove anonymous volumes too.
    pub volumes: bool,
}
