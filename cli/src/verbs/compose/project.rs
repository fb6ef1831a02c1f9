//! Which project a command is about: the global flags of `compose`, loading, and names without files.
//! Source: docker/compose `cmd/compose/compose.go`.

use super::bundle::site;
use crate::failure::Failure;
use crate::out;
use clap::{Args, ValueEnum};
use compose_model::{LoadOptions, Loaded, Project, Stages, Style};
use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Flags between `compose` and its verb.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProjectFlags {
    /// Compose configuration files ('-' is standard input), or one bundle (.tar)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Project name
    #[arg(short, long)]
    pub(crate) project_name: Option<String>,
    /// Specify a profile to enable
    #[arg(long)]
    pub(crate) profile: Vec<String>,
    /// Specify an alternate environment file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Specify an alternate working directory (default: the path of the first Compose file)
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Set type of progress output
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub(crate) progress: ProgressMode,
    /// Control when to print ANSI control characters
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub(crate) ansi: Ansi,
    /// Control max parallelism, -1 for unlimited
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) parallel: i64,
    /// Print what would be done and why, without doing it
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Names with underscores, as Compose 1 made them (not supported)
    #[arg(long, hide = true)]
    pub(crate) compatibility: bool,
    /// Include all resources, even those not used by services
    #[arg(long)]
    pub(crate) all_resources: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    #[default]
    Auto,
    Tty,
    Plain,
    Json,
    Quiet,
}

/// When colours and cursor movements are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ansi {
    Never,
    Always,
    #[default]
    Auto,
}

/// A project that was loaded, or only its name.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) loaded: Option<Loaded>,
}

impl Target {
    pub(crate) fn project(&self) -> Option<&compose_model::Project> {
        self.loaded.as_ref().map(|loaded| &loaded.project)
    }

    /// Refuses services that the project does not have.
    pub(crate) fn require(&self, services: &[String]) -> anyhow::Result<()> {
        let Some(project) = self.project() else {
            return Ok(());
        };
        match services
            .iter()
            .find(|name| project.any_service(name).is_none())
        {
            None => Ok(()),
            Some(name) => {
                let known: Vec<_> = project.services.keys().map(String::as_str).collect();
                let reason = format!(
                    "no such service: {name}: the project has {}",
                    known.join(", ")
                );
                Err(Failure::new(1, reason).into())
            }
        }
    }
}

impl ProjectFlags {
    /// How progress is shown: the flag's way, else `COMPOSE_PROGRESS`'s.
    pub(crate) fn progress_mode(&self) -> ProgressMode {
        self.progress_mode_with(std::env::var("COMPOSE_PROGRESS").ok().as_deref())
    }

    fn progress_mode_with(&self, environment: Option<&str>) -> ProgressMode {
        match (self.progress, environment) {
            (ProgressMode::Auto, Some(word)) => {
                ProgressMode::from_str(word, false).unwrap_or_default()
            }
            (flag, _) => flag,
        }
    }

    /// Loads the project with the services named; what is wrong with its files is shown with places and carets.
    pub(crate) fn load(
        &self,
        services: &[String],
        no_dependencies: bool,
    ) -> anyhow::Result<Loaded> {
        let mut options = self.options()?;
        options.services = services.to_vec();
        options.no_dependencies = no_dependencies;
        let mut loaded =
            compose_model::load(&options).map_err(|problems| self.refuse(&problems))?;
        self.warn(&loaded.warnings, &loaded.sources);
        self.pin(&mut loaded.project)?;
        Ok(loaded)
    }

    /// Loads the project twice: as always, and with its env files not yet read.
    pub(crate) fn load_twice(&self) -> anyhow::Result<(Loaded, Project)> {
        let mut options = self.options()?;
        let loaded = compose_model::load(&options).map_err(|problems| self.refuse(&problems))?;
        self.warn(&loaded.warnings, &loaded.sources);
        options.stages.resolve_environment = false;
        let raw = compose_model::load(&options).map_err(|problems| self.refuse(&problems))?;
        Ok((loaded, raw.project))
    }

    /// The bundle that takes the place of compose files.
    pub(crate) fn bundle(&self) -> anyhow::Result<Option<&Path>> {
        match self.file.as_slice() {
            [one] if site::is_bundle(one) => Ok(Some(one)),
            several => match several.iter().find(|file| site::is_bundle(file)) {
                Some(bundle) => {
                    let reason = format!(
                        "{} is a bundle: no other file goes with it",
                        bundle.display()
                    );
                    Err(Failure::new(1, reason).into())
                }
                None => Ok(None),
            },
        }
    }

    /// `up shop.tar`: a bundle in the place of the first service is what `-f` would name.
    pub(crate) fn with_bundle(&self, services: &mut Vec<String>) -> anyhow::Result<Cow<'_, Self>> {
        match services.first() {
            Some(first) if site::is_bundle(Path::new(first)) => {
                let mut flags = self.clone();
                flags.file.push(PathBuf::from(services.remove(0)));
                flags.bundle()?;
                Ok(Cow::Owned(flags))
            }
            _ => Ok(Cow::Borrowed(self)),
        }
    }

    /// A project out of a bundle runs the images of its lock.
    fn pin(&self, project: &mut Project) -> anyhow::Result<()> {
        match self.bundle()? {
            Some(bundle) => site::pinned(bundle, project),
            None => Ok(()),
        }
    }

    /// The project, or its name alone when there is no file but a name was given.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let options = self.options()?;
        let named = self
            .project_name
            .clone()
            .or_else(|| options.environment.get("COMPOSE_PROJECT_NAME").cloned());
        let has_files =
            !options.files.is_empty() || options.environment.contains_key("COMPOSE_FILE");
        match (
            compose_model::load(&options),
            named.filter(|name| !name.is_empty() && !has_files),
        ) {
            (Ok(mut loaded), _) => {
                self.warn(&loaded.warnings, &loaded.sources);
                self.pin(&mut loaded.project)?;
                Ok(Target {
                    name: loaded.project.name.clone(),
                    loaded: Some(loaded),
                })
            }
            (Err(_), Some(name)) => Ok(Target { name, loaded: None }),
            (Err(problems), None) => Err(self.refuse(&problems)),
        }
    }

    pub(crate) fn options(&self) -> anyhow::Result<LoadOptions> {
        if self.compatibility {
            return Err(
                Failure::new(1, "--compatibility is not supported: names have dashes").into(),
            );
        }
        let stdin = if self.file.iter().any(|file| file.as_os_str() == "-") {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            Some(text)
        } else {
            None
        };
        // What is not UTF-8 cannot be written in a Compose file either.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let options = LoadOptions {
            files: self.file.clone(),
            stdin,
            current_dir: std::env::current_dir()?,
            project_directory: self.project_directory.clone(),
            project_name: self.project_name.clone(),
            profiles: self.profile.clone(),
            env_files: self.env_file.clone(),
            environment: environment.collect(),
            services: Vec::new(),
            no_dependencies: false,
            all_resources: self.all_resources,
            stages: Stages::default(),
        };
        match self.bundle()? {
            Some(bundle) => site::options(bundle, options),
            None => Ok(options),
        }
    }

    /// The diagnostics as an error that has been shown already.
    pub(crate) fn refuse(&self, problems: &compose_model::Diagnostics) -> anyhow::Error {
        out::note(problems.render(self.style()).trim_end());
        Failure::silent(1).into()
    }

    pub(crate) fn warn(
        &self,
        warnings: &[compose_model::Diagnostic],
        sources: &compose_model::Sources,
    ) {
        for warning in warnings {
            out::note(warning.render(sources, self.style()).trim_end());
        }
    }

    fn style(&self) -> Style {
        if self.coloured(out::stderr_is_terminal()) {
            Style::Coloured
        } else {
            Style::Plain
        }
    }

    /// Whether to use colours on a stream.
    pub(crate) fn coloured(&self, is_terminal: bool) -> bool {
        match self.ansi {
            Ansi::Always => true,
            Ansi::Never => false,
            Ansi::Auto => {
                is_terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("COMPOSE_ANSI").is_none_or(|value| value != "never")
            }
        }
    }
}
