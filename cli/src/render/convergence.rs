//! Services on their way to what their specs say, on stdout as Docker shows it: lines redrawn in place on a terminal, one
//! line per change elsewhere. Source of the words: docker/cli `cli/command/service/progress`.

use crate::out;
use compose::converge::{Ended, Progress, Watched, Watcher};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;

/// More slots than this have no lines of their own.
const MAX_ROWS: u64 = 20;
/// Letters of an error.
const ERROR_WIDTH: usize = 75;
/// States a bar counts, up to running.
const STATES: u64 = 9;
/// Letters of the longest state.
const STATE_WIDTH: usize = 9;
/// Letters between the brackets of a bar.
const BAR_WIDTH: usize = 50;

/// How convergence is shown.
pub(crate) enum Convergence {
    Live(Live),
    Plain(Plain),
    Quiet,
}

/// Lines that are redrawn in place.
pub(crate) struct Live {
    bars: MultiProgress,
    lines: BTreeMap<String, ProgressBar>,
}

/// Lines as they change.
#[derive(Default)]
pub(crate) struct Plain {
    lines: BTreeMap<String, String>,
}

impl Convergence {
    /// As it fits stdout.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if out::stdout_is_terminal() {
            Self::Live(Live {
                bars: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
                lines: BTreeMap::new(),
            })
        } else {
            Self::Plain(Plain::default())
        }
    }

    /// After the last look: lines stay as they are.
    pub(crate) fn end(&mut self) {
        if let Self::Live(live) = self {
            for line in live.lines.values() {
                line.abandon();
            }
            if !live.lines.is_empty() {
                // The last line is drawn without its end.
                let _ = out::line("");
            }
        }
    }

    fn set(&mut self, key: String, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Live(live) => {
                let line = live.lines.entry(key.clone()).or_insert_with(|| {
                    let line = live.bars.add(ProgressBar::new_spinner());
                    let style = ProgressStyle::with_template("{msg}");
                    line.set_style(style.expect("a constant template"));
                    line
                });
                line.set_message(format!("{key}: {text}"));
                line.tick();
            }
            Self::Plain(plain) => {
                if plain.lines.get(&key).map(String::as_str) != Some(text) {
                    // A closed pipe must not end the watch: the exit code still counts.
                    let _ = out::line(format!("{key}: {}", text.trim_end()));
                    plain.lines.insert(key, text.to_owned());
                }
            }
        }
    }

    fn service(&mut self, service: &Watched<'_>, prefix: &str) {
        let progress = service.progress;
        self.set(format!("{prefix}overall progress"), &overall(progress));
        if progress.total.is_some_and(|total| total <= MAX_ROWS) {
            for row in &progress.rows {
                let text = if !row.gate.is_empty() {
                    row.gate.clone()
                } else if row.error.is_empty() {
                    let step = row.state as u64 + 1;
                    if step <= STATES {
                        bar(row.state.word(), step)
                    } else {
                        row.state.word().to_owned()
                    }
                } else {
                    cut(&row.error)
                };
                self.set(format!("{prefix}{}", row.label), &text);
            }
        }
        let name = service.name;
        match (service.ended, service.verifying) {
            (Some(Ended::Converged), _) => {
                self.set(
                    format!("{prefix}verify"),
                    &format!("Service {name} converged"),
                );
            }
            (Some(Ended::Failed(_)), _) => {
                self.set(format!("{prefix}verify"), &format!("Service {name} failed"));
            }
            (None, Some(left)) => {
                let seconds = left.as_secs() + 1;
                let text = format!("Waiting {seconds} seconds to verify that tasks are stable...");
                self.set(format!("{prefix}verify"), &text);
            }
            (None, None) => {}
        }
    }
}

impl Watcher for Convergence {
    fn look(&mut self, services: &[Watched<'_>]) {
        let several = services.len() > 1;
        for service in services {
            let prefix = if several {
                format!("{} ", service.name)
            } else {
                String::new()
            };
            self.service(service, &prefix);
        }
    }
}

fn overall(progress: &Progress) -> String {
    match progress.total {
        None => "waiting for new tasks".to_owned(),
        Some(total) if progress.is_rollback => {
            format!(
                "rolling back update: {} out of {total} tasks",
                progress.done
            )
        }
        Some(total) if progress.note.starts_with("waiting for ") => {
            format!("{} out of {total} tasks, {}", progress.done, progress.note)
        }
        Some(total) => format!("{} out of {total} tasks", progress.done),
    }
}

/// `starting  [=====>     ]`, as wide as Docker's.
fn bar(state: &str, step: u64) -> String {
    let done = usize::try_from(step * BAR_WIDTH as u64 / STATES).unwrap_or(BAR_WIDTH);
    let filled = "=".repeat(done.min(BAR_WIDTH));
    format!(
        "{state:STATE_WIDTH$} [{filled}>{}]",
        " ".repeat(BAR_WIDTH - done.min(BAR_WIDTH))
    )
}

fn cut(error: &str) -> String {
    let line = error.replace('\n', " ");
    if line.chars().count() <= ERROR_WIDTH {
        return line;
    }
    let mut short: String = line.chars().take(ERROR_WIDTH - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_up_to_running() {
        assert_eq!(
            bar("running", 9),
            format!("running   [{}>]", "=".repeat(50))
        );
        assert_eq!(
            bar("starting", 8),
            format!("starting  [{}>{}]", "=".repeat(44), " ".repeat(6))
        );
    }

    #[test]
    fn errors_are_one_short_line() {
        assert_eq!(cut("a\nb"), "a b");
        let long = cut(&"x".repeat(100));
        assert_eq!(long.chars().count(), 75);
        assert!(long.ends_with('…'));
    }
}
