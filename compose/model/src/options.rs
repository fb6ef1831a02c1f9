//! What a load depends on, as plain data: flags, the process environment, the current directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Input of [`crate::load`]. Everything the command line and the environment contribute is in here; the
/// loader itself looks at neither.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `-f`, in order; `-` is [`LoadOptions::stdin`]. Empty: `COMPOSE_FILE`, else search from the project
    /// directory upwards.
    pub files: Vec<PathBuf>,
    /// Content of the file `-`.
    pub stdin: Option<String>,
    /// Absolute path of the current directory.
    pub current_dir: PathBuf,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`. Else `COMPOSE_PROJECT_NAME`, `name:` in the files, the directory's name.
    pub project_name: Option<String>,
    /// `--profile`. `COMPOSE_PROFILES` is used when this is empty.
    pub profiles: Vec<String>,
    /// `--env-file`. Empty: `COMPOSE_ENV_FILES`, else `.env`.
    pub env_files: Vec<PathBuf>,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
    /// Services named on the command line: their profiles are switched on, and only they and what they
    /// depend on stay active. Empty: all.
    pub services: Vec<String>,
    /// With `services`: leave out what they depend on (`--no-deps`).
    pub no_dependencies: bool,
    /// `--all-resources`: keep networks, volumes, configs and secrets that no active service uses.
    pub all_resources: bool,
    /// Which optional stages run.
    pub stages: Stages,
}

/// The optional stages of the pipeline; all run by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// Replace `$VAR`.
    pub interpolate: bool,
    /// Fill in the default network, names, implied dependencies.
    pub normalize: bool,
    /// Make paths absolute.
    pub resolve_paths: bool,
    /// Check that references between parts of the project hold.
    pub check_consistency: bool,
    /// Read `env_file` and `label_file`.
    pub resolve_environment: bool,
}

impl Default for Stages {
    fn default() -> Self {
        Stages {
            interpolate: true,
            normalize: true,
            resolve_paths: true,
            check_consistency: true,
            resolve_environment: true,
        }
    }
}
