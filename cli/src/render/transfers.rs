//! Several pulls or pushes at once: one line each on a terminal, a line per change elsewhere, or JSON. Goes to stderr.
//! The words are Docker Compose's (`pkg/compose/{pull,push}.go`, `pkg/progress`).

use super::json;
use super::progress::Progress;
use super::transfer::bar;
use super::units::human_size;
use crate::out;
use agent_api::ProgressMessage;
use indexmap::IndexMap;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Layers of one image that are counted; what comes beyond is not shown.
const MAX_LAYERS: usize = 1024;

/// Lines of transfers by their names.
pub(crate) enum Transfers {
    Live(Live),
    Plain,
    Json,
    Quiet,
}

/// Lines that are redrawn in place.
pub(crate) struct Live {
    lines: MultiProgress,
    transfers: IndexMap<String, Line>,
}

struct Line {
    bar: ProgressBar,
    since: Instant,
    layers: HashMap<String, Layer>,
}

/// How far a layer is, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Layer {
    current: i64,
    total: i64,
}

/// What a line says from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Working,
    Done,
    Warning,
    Error,
}

impl Transfers {
    /// As the progress of plans is shown.
    pub(crate) fn like(progress: &Progress) -> Self {
        match progress {
            Progress::Live(_) => Self::Live(Live {
                lines: MultiProgress::new(),
                transfers: IndexMap::new(),
            }),
            Progress::Plain => Self::Plain,
            Progress::Json => Self::Json,
            Progress::Quiet => Self::Quiet,
        }
    }

    /// A change of a transfer, with details where there are some.
    pub(crate) fn say(&mut self, name: &str, standing: Standing, text: &str, detail: &str) {
        match self {
            Self::Quiet => {}
            Self::Plain => out::note(format!(" {name} {text} {detail}")),
            Self::Json => {
                let mut line = serde_json::json!({"id": name, "text": text});
                if !detail.is_empty() {
                    line["status"] = detail.into();
                }
                out::note(json::compact(&line));
            }
            Self::Live(live) => live.say(name, standing, text, detail),
        }
    }

    /// What the daemon says about a layer.
    pub(crate) fn layer(&mut self, name: &str, message: &ProgressMessage) {
        match self {
            Self::Quiet => {}
            Self::Plain => {
                if let Some(layer) = LayerLine::of(name, message) {
                    out::note(format!(" {} {} {}", layer.id, layer.text, layer.status));
                }
            }
            Self::Json => {
                if let Some(layer) = LayerLine::of(name, message) {
                    out::note(json::escaped(&layer));
                }
            }
            Self::Live(live) => {
                if let Some(line) = live.transfers.get_mut(name) {
                    line.layer(name, message);
                }
            }
        }
    }
}

/// One message about a layer, in Docker Compose's words.
#[derive(Debug, Serialize)]
struct LayerLine<'a> {
    id: &'a str,
    parent_id: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "is_zero")]
    current: i64,
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    #[serde(skip_serializing_if = "is_zero")]
    percent: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl<'a> LayerLine<'a> {
    /// Nothing for messages that are about no layer.
    fn of(name: &'a str, message: &'a ProgressMessage) -> Option<Self> {
        let text = message.status.as_deref()?;
        let detail = message.progress_detail.as_ref()?;
        let (current, total) = match text {
            "Downloading" | "Extracting" | "Pushing" => {
                (detail.current.unwrap_or(0), detail.total.unwrap_or(0))
            }
            _ => (0, 0),
        };
        let percent = match text {
            "Download complete"
            | "Already exists"
            | "Pull complete"
            | "Pushed"
            | "Layer already exists" => 100,
            _ if total > 0 => current.saturating_mul(100) / total,
            _ => 0,
        };
        Some(Self {
            id: message.id.as_deref()?,
            parent_id: name,
            text,
            status: bar(detail),
            current,
            total,
            percent,
        })
    }
}

impl Drop for Live {
    /// The lines stay as they are.
    fn drop(&mut self) {
        for line in self.transfers.values() {
            if !line.bar.is_finished() {
                line.bar.abandon();
            }
        }
    }
}

impl Live {
    fn say(&mut self, name: &str, standing: Standing, text: &str, detail: &str) {
        let line = self
            .transfers
            .entry(name.to_owned())
            .or_insert_with(|| Line {
                bar: self.lines.add(ProgressBar::new_spinner()),
                since: Instant::now(),
                layers: HashMap::new(),
            });
        let mark = match standing {
            Standing::Working => " {spinner:.cyan} {msg} {elapsed:.dim}",
            Standing::Done => " \x1b[32m✔\x1b[0m {msg}",
            Standing::Warning => " \x1b[33m!\x1b[0m {msg}",
            Standing::Error => " \x1b[31m✘\x1b[0m {msg}",
        };
        let style = ProgressStyle::with_template(mark).expect("a constant template");
        line.bar.set_style(style);
        let mut message = format!("{name} {text} {detail}").trim_end().to_owned();
        if standing == Standing::Working {
            line.bar.enable_steady_tick(Duration::from_millis(100));
            line.bar.set_message(message);
        } else {
            message += &format!("  {:.1}s", line.since.elapsed().as_secs_f64());
            line.bar.abandon_with_message(message);
        }
    }
}

impl Line {
    fn layer(&mut self, name: &str, message: &ProgressMessage) {
        let Some(detail) = &message.progress_detail else {
            return;
        };
        let (Some(id), Some(total)) = (&message.id, detail.total) else {
            return;
        };
        if !self.layers.contains_key(id) && self.layers.len() >= MAX_LAYERS {
            return;
        }
        let current = detail.current.unwrap_or(0);
        self.layers.insert(id.clone(), Layer { current, total });
        let status = message.status.as_deref().unwrap_or_default();
        let text = format!("{name} {status} {}", far(self.layers.values()));
        self.bar.set_message(text);
    }
}

/// All layers together.
fn far<'a>(layers: impl Iterator<Item = &'a Layer>) -> String {
    let (mut current, mut total) = (0_i64, 0_i64);
    for layer in layers {
        current = current.saturating_add(layer.current.clamp(0, layer.total.max(0)));
        total = total.saturating_add(layer.total.max(0));
    }
    format!("{} / {}", human_size(current), human_size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker Compose 2.40 writes it.
    #[test]
    fn messages_about_layers_are_lines() {
        let message = |json: &str| serde_json::from_str::<ProgressMessage>(json).unwrap();
        let loading = message(
            r#"{"status":"Downloading","progressDetail":{"current":302080,"total":30003974},"id":"aa196a0ff987"}"#,
        );
        let line = LayerLine::of("b", &loading).unwrap();
        let status = "[>                                                  ]  302.1kB/30MB";
        assert_eq!(line.status, status);
        assert_eq!(
            json::escaped(&line),
            format!(
                r#"{{"id":"aa196a0ff987","parent_id":"b","text":"Downloading","status":"{}","current":302080,"total":30003974,"percent":1}}"#,
                status.replace('>', "\\u003e")
            )
        );
        let there =
            message(r#"{"status":"Already exists","progressDetail":{},"id":"be41d6df38f5"}"#);
        assert_eq!(
            json::escaped(&LayerLine::of("b", &there).unwrap()),
            r#"{"id":"be41d6df38f5","parent_id":"b","text":"Already exists","percent":100}"#
        );
        let about = message(r#"{"status":"Pulling from library/x","id":"latest"}"#);
        assert!(LayerLine::of("b", &about).is_none());
    }

    #[test]
    fn layers_are_added_up_whatever_the_daemon_says() {
        let layers = [
            Layer {
                current: 500,
                total: 1000,
            },
            Layer {
                current: 9000,
                total: 1000,
            },
            Layer {
                current: -1,
                total: i64::MAX,
            },
        ];
        assert_eq!(far(layers[..2].iter()), "1.5kB / 2kB");
        assert!(far(layers.iter()).starts_with("1.5kB / "));
    }
}
