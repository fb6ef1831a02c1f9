//! Progress of a plan on stderr: live lines on a terminal, one line per change elsewhere, or JSON.
//! The words are Docker Compose's.

use super::json;
use crate::out;
use compose::plan::Condition;
use compose::{Event, Operation, Phase, Plan};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How progress is shown.
pub(crate) enum Progress {
    Live(Live),
    Plain,
    Json,
    Quiet,
}

/// Lines that are redrawn in place, one per object.
pub(crate) struct Live {
    bars: MultiProgress,
    objects: BTreeMap<String, (ProgressBar, Instant)>,
    head: Option<ProgressBar>,
    done: usize,
    total: usize,
}

impl Progress {
    pub(crate) fn live() -> Self {
        Self::Live(Live {
            bars: MultiProgress::new(),
            objects: BTreeMap::new(),
            head: None,
            done: 0,
            total: 0,
        })
    }

    /// Before the first event.
    pub(crate) fn begin(&mut self, plan: &Plan) {
        if let Self::Live(live) = self
            && !plan.is_empty()
        {
            live.total = plan.steps.len();
            let head = live.bars.add(ProgressBar::new_spinner());
            head.set_style(ProgressStyle::with_template("{msg}").expect("a constant template"));
            live.head = Some(head);
            live.count();
        }
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        let operation = &event.step.operation;
        let change = change(operation, &event.phase);
        match self {
            Self::Quiet => {}
            Self::Plain => {
                for object in objects(operation) {
                    if let Some(text) = &change.text {
                        out::note(format!(" {object}  {text}"));
                    }
                }
            }
            Self::Json => {
                for object in objects(operation) {
                    if let Some(text) = &change.text {
                        let line = serde_json::json!({"id": object, "text": text, "status": change.status, "step": event.index + 1});
                        out::note(json::compact(&line));
                    }
                }
            }
            Self::Live(live) => live.event(operation, &change, &event.phase),
        }
    }

    /// Prints something else without disturbing the live lines.
    pub(crate) fn interrupt<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Self::Live(live) => live.bars.suspend(print),
            _ => print(),
        }
    }

    /// After the last event: the lines stay as they are.
    pub(crate) fn end(&mut self) {
        if let Self::Live(live) = self {
            for (bar, _) in live.objects.values() {
                if !bar.is_finished() {
                    bar.abandon();
                }
            }
            if let Some(head) = live.head.take() {
                head.abandon();
                // The last line is drawn without its end: what comes next begins below it.
                out::note("");
            }
        }
    }
}

impl Live {
    fn count(&self) {
        if let Some(head) = &self.head {
            head.set_message(format!("[+] Running {}/{}", self.done, self.total));
        }
    }

    fn event(&mut self, operation: &Operation, change: &Change, phase: &Phase) {
        if !matches!(phase, Phase::Started | Phase::Progress { .. }) {
            self.done += 1;
            self.count();
        }
        let Some(text) = &change.text else { return };
        for object in objects(operation) {
            let (bar, since) = self.objects.entry(object.clone()).or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.enable_steady_tick(Duration::from_millis(100));
                (bar, Instant::now())
            });
            let seconds = format!("{:.1}s", since.elapsed().as_secs_f64());
            let mark = match change.status {
                "Working" => " {spinner:.cyan} {msg} {elapsed:.dim}",
                "Done" => " \x1b[32m✔\x1b[0m {msg}",
                "Warning" => " \x1b[33m!\x1b[0m {msg}",
                _ => " \x1b[31m✘\x1b[0m {msg}",
            };
            bar.set_style(ProgressStyle::with_template(mark).expect("a constant template"));
            let time = if change.status == "Working" {
                String::new()
            } else {
                format!("  {seconds}")
            };
            bar.set_message(format!("{object}  {text}{time}"));
        }
    }
}

/// What an event means for the object's line; no text leaves it as it is.
struct Change {
    text: Option<String>,
    status: &'static str,
}

fn change(operation: &Operation, phase: &Phase) -> Change {
    let (working, done) = words(operation);
    let (text, status) = match phase {
        Phase::Started => (working.to_owned(), "Working"),
        Phase::Progress { detail } => (format!("{working} ({detail})"), "Working"),
        Phase::Done { detail, .. } if detail.is_empty() => (done.to_owned(), "Done"),
        Phase::Done { detail, .. } => (format!("{done} ({detail})"), "Done"),
        Phase::Warned { message } => (message.clone(), "Warning"),
        Phase::Failed { message } => (format!("Error {message}"), "Error"),
        Phase::Skipped => {
            return Change {
                text: None,
                status: "Warning",
            };
        }
    };
    Change {
        text: Some(text),
        status,
    }
}

/// `Container demo-web-1`; a wait is about several.
fn objects(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::Wait { containers, .. } => containers
            .iter()
            .map(|container| format!("Container {}", container.name))
            .collect(),
        Operation::CreateNetwork { .. } | Operation::RemoveNetwork { .. } => {
            vec![format!("Network {}", operation.object())]
        }
        Operation::CreateVolume { .. } | Operation::RemoveVolume { .. } => {
            vec![format!("Volume {}", operation.object())]
        }
        Operation::BuildImage { .. } | Operation::RemoveImage { .. } => {
            vec![format!("Image {}", operation.object())]
        }
        _ => match operation.container() {
            Some(container) => vec![format!("Container {}", container.name)],
            None => vec![operation.object().to_owned()],
        },
    }
}

fn words(operation: &Operation) -> (&'static str, &'static str) {
    match operation {
        Operation::CreateContainer { container, new } if container.name != new.name => {
            ("Recreate", "Recreated")
        }
        Operation::BuildImage { .. } => ("Building", "Built"),
        Operation::CreateNetwork { .. }
        | Operation::CreateVolume { .. }
        | Operation::CreateContainer { .. } => ("Creating", "Created"),
        Operation::RemoveNetwork { .. }
        | Operation::RemoveVolume { .. }
        | Operation::RemoveContainer { .. }
        | Operation::RemoveImage { .. } => ("Removing", "Removed"),
        Operation::StartContainer { .. } => ("Starting", "Started"),
        Operation::StopContainer { .. } => ("Stopping", "Stopped"),
        Operation::KillContainer { .. } => ("Killing", "Killed"),
        Operation::RenameContainer { .. } => ("Renaming", "Renamed"),
        Operation::RunHook { .. } => ("Running hook", "Hook done"),
        Operation::Wait {
            condition: Condition::Healthy,
            ..
        } => ("Waiting", "Healthy"),
        Operation::Wait {
            condition: Condition::Completed,
            ..
        } => ("Waiting", "Exited"),
        Operation::Wait {
            condition: Condition::RunningOrHealthy,
            ..
        } => ("Waiting", "Running"),
    }
}
