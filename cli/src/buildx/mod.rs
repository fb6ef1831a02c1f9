//! Building from the command line: one build or many, their progress, and what is written about them afterwards.
//!
//! ```text
//! job.rs      one build to be done, and the order of several     run.rs   does them, with progress
//! options.rs  what flags share with files        backlog.rs  news that wait for the display
//! answer.rs   what --check, outline and targets print            record.rs  iidfile, metadata file
//! verbs.rs    the commands below `builder`, `buildx` and the plugin
//! plugin.rs   the executable as `docker-buildx`                  context.rs  which daemon docker's own settings name
//! bake/       files that describe many builds
//! ```
//! `verbs::build` turns the flags of one build into a job; bake files are turned into many; both end in [`run`].
//! Source: docker/buildx `commands`, `build`, `bake`.

pub(crate) mod answer;
mod backlog;
mod bake;
mod context;
pub(crate) mod job;
pub(crate) mod options;
pub(crate) mod plugin;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod verbs;
