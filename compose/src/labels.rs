//! The labels that make an object of the engine part of a project. Names and values are Docker Compose's
//! (docker/compose `pkg/api/labels.go`), so that `docker compose ls`, `ps` and `down` see our projects and we see theirs.
//!
//! Membership is decided by [`PROJECT`]; [`CONFIG_HASH`] tells a container that a Compose tool made from one that
//! only borrowed the label.

/// Name of the project.
pub const PROJECT: &str = "com.docker.compose.project";
/// Name of the service.
pub const SERVICE: &str = "com.docker.compose.service";
/// Number of a container within its service, from 1.
pub const CONTAINER_NUMBER: &str = "com.docker.compose.container-number";
/// Digest of everything that forces a new container, network or volume when it changes.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// `True` for containers of `compose run`, `False` for the others.
pub const ONEOFF: &str = "com.docker.compose.oneoff";
/// What the service depends on: `name:condition:restart`, comma-separated.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Id of the image the container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// Version of the tool that made the object.
pub const VERSION: &str = "com.docker.compose.version";
/// Id or name of the container this one is to replace; only there while (or after) a replacement runs.
pub const REPLACE: &str = "com.docker.compose.replace";
/// Key of the network in the Compose file.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of the volume in the Compose file.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Absolute project directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Absolute Compose files, comma-separated.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// Absolute env files used for interpolation, comma-separated.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
/// Digest per attribute (`name=digest`, comma-separated), ours: lets a plan name the attribute that changed.
pub const ATTRIBUTES: &str = "dev.muster.compose.attributes";

/// Ids of the containers whose namespaces or volumes the container shares, comma-separated, ours: lists do not tell.
pub const SHARES: &str = "dev.muster.compose.shares";

/// Value of [`VERSION`].
pub const VERSION_VALUE: &str = concat!("muster-", env!("CARGO_PKG_VERSION"));
