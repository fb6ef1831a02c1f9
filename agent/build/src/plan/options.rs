//! What a build is asked for beside the Dockerfile: target, arguments, labels, contexts, limits.
//!
//! Must not: read files or the environment; whoever starts a build fills this in. Follows BuildKit's
//! `frontend/dockerui/config.go`.

use indexmap::IndexMap;

use super::{ExtraHost, NetworkMode, PlanError, Platform, Resources, Ulimit};

/// Everything that planning one platform of a build depends on, beside the Dockerfile and its base images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Stage to build; the last one when there is none.
    pub target: Option<String>,
    /// `--build-arg`: values for ARG, and arguments that the builder itself reads (see [`BuildOptions::builder_args`]).
    pub build_args: IndexMap<String, String>,
    /// `--label`: added to the result, over labels of the Dockerfile.
    pub labels: IndexMap<String, String>,
    /// Stages that the target does not need are planned too, for what there is to find in them (`--check`).
    pub all_stages: bool,
    /// Platform of the result. `None`: the builder's, or what the base image is of.
    pub platform: Option<Platform>,
    /// Platform that the builder's own programs are of; `None` is this machine's.
    pub build_platform: Option<Platform>,
    /// Several platforms are built at once: names of steps tell which.
    pub multi_platform: bool,
    /// Stages whose steps are run even if their results are known.
    pub no_cache: NoCache,
    /// `--build-context`, by name. Names are image references (`alpine`, `alpine:3`, `docker.io/library/alpine`) or
    /// names of stages; `name::platform` is for one platform only.
    pub contexts: IndexMap<String, ContextSource>,
    /// Network of steps that do not say `--network`.
    pub network: NetworkMode,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`; 0 for the default.
    pub shm_size_bytes: u64,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// Limits of each step's cgroup.
    pub resources: Resources,
    /// What the build may do that steps cannot do by default.
    pub entitlements: Vec<Entitlement>,
    /// Patterns of the main context's ignore file ([`crate::ignore::read`]): for the lint about copies of ignored files.
    pub ignore_patterns: Vec<String>,
}

/// Which steps are run even if their results are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    Nothing,
    /// All: `--no-cache`.
    Everything,
    /// Those of these stages: `--no-cache-filter`.
    Stages(Vec<String>),
}

impl NoCache {
    pub(super) fn covers(&self, stage: &str) -> bool {
        match self {
            NoCache::Nothing => false,
            NoCache::Everything => true,
            NoCache::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// Something that a step cannot do unless the build was allowed it (`--allow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    /// `network.host`: the host's network.
    NetworkHost,
    /// `security.insecure`: all capabilities and devices.
    SecurityInsecure,
}

impl Entitlement {
    /// The word that `--allow` takes.
    pub fn name(self) -> &'static str {
        match self {
            Entitlement::NetworkHost => "network.host",
            Entitlement::SecurityInsecure => "security.insecure",
        }
    }
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of the client's.
    Local,
    /// `docker-image://reference`: an image.
    Image(String),
    /// `oci-layout://path[:tag][@digest]`: an image in an OCI layout of the client's.
    OciLayout(String),
    /// A repository: `https://….git`, `git@…`, `ssh://…`, `git://…`.
    Git(String),
    /// `https://…`: one file, named `context`.
    Http(String),
    /// `docker-image://scratch`: nothing.
    Scratch,
}

/// Arguments by which a build sets the builder itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuilderArgs {
    /// `BUILDKIT_CACHE_MOUNT_NS`: name space of cache mounts; empty by default.
    pub cache_mount_namespace: String,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`: the `.git` of a main context that is a repository stays.
    pub context_keep_git_dir: Option<bool>,
    /// `BUILDKIT_MULTI_PLATFORM`, as it is written: the result is an index even for one platform.
    pub multi_platform: Option<String>,
    /// `BUILDKIT_SANDBOX_HOSTNAME`: host name of steps.
    pub hostname: Option<String>,
    /// `BUILDKIT_DOCKERFILE_CHECK`: lint configuration in place of the file's.
    pub dockerfile_check: Option<String>,
    /// `BUILDKIT_SYNTAX`: frontend in place of the file's `# syntax=`. Planning refuses all but `docker/dockerfile`, which is
    /// built in.
    pub syntax: Option<String>,
    /// `BUILDKIT_INLINE_CACHE`: the result carries the records for `--cache-from`.
    pub inline_cache: bool,
}

impl BuildOptions {
    /// The build arguments that set the builder.
    pub fn builder_args(&self) -> BuilderArgs {
        BuilderArgs::of(&self.build_args)
    }
}

impl BuilderArgs {
    /// Those among build arguments. What is empty or, for a switch, neither true nor false, is not given.
    pub fn of(build_args: &IndexMap<String, String>) -> Self {
        let arg = |name: &str| {
            let given = build_args.get(name).filter(|value| !value.is_empty());
            given.cloned()
        };
        let switch = |name: &str| arg(name).and_then(|value| parse_bool(&value));
        Self {
            cache_mount_namespace: arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default(),
            context_keep_git_dir: switch("BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
            multi_platform: arg("BUILDKIT_MULTI_PLATFORM"),
            hostname: arg("BUILDKIT_SANDBOX_HOSTNAME"),
            dockerfile_check: arg("BUILDKIT_DOCKERFILE_CHECK"),
            syntax: arg("BUILDKIT_SYNTAX"),
            inline_cache: switch("BUILDKIT_INLINE_CACHE").unwrap_or(false),
        }
    }

    /// Whether the result of so many platforms is an index.
    ///
    /// # Errors
    /// It cannot be what is asked for.
    pub fn is_index(&self, platforms: usize) -> Result<bool, PlanError> {
        let Some(written) = &self.multi_platform else {
            return Ok(platforms > 1);
        };
        match parse_bool(written) {
            None => Err(PlanError::invalid(format!(
                "invalid boolean value for multi-platform: {written}"
            ))),
            Some(false) if platforms > 1 => Err(PlanError::invalid(
                "returning multiple target platforms is not allowed",
            )),
            Some(index) => Ok(index),
        }
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_made_of_several_platforms_or_when_it_is_asked_for() {
        let index = |written: &str, platforms| {
            let args = [("BUILDKIT_MULTI_PLATFORM".to_owned(), written.to_owned())];
            let index = BuilderArgs::of(&args.into_iter().collect()).is_index(platforms);
            index.map_err(|error| error.to_string())
        };
        assert_eq!(index("", 1), Ok(false));
        assert_eq!(index("", 2), Ok(true));
        assert_eq!(index("1", 1), Ok(true));
        assert_eq!(index("false", 1), Ok(false));
        let refused = |message: &str| Err(message.to_owned());
        assert_eq!(
            index("0", 2),
            refused("returning multiple target platforms is not allowed")
        );
        assert_eq!(
            index("maybe", 1),
            refused("invalid boolean value for multi-platform: maybe")
        );
    }
}
